#include <exception>
#include <iostream>
#include <string_view>

#include "test/check.h"

int main(int argc, char** argv) {
  using namespace xfrmesh::test;
  const std::string_view wanted = argc > 1 ? argv[1] : "";
  int ran = 0;
  for (const auto& [name, run] : cases()) {
    if (name.find(wanted) == std::string_view::npos) continue;
    const int before = failures();
    try {
      run();
    } catch (const std::exception& error) {
      check(false, error.what(), name, 0);
    }
    ran++;
    std::cout << (failures() == before ? "ok   " : "FAIL ") << name << '\n';
  }
  std::cout << ran << " tests, " << failures() << " failures\n";
  return failures() == 0 && ran > 0 ? 0 : 1;
}
