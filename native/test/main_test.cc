#include <exception>
#include <iostream>
#include <string_view>

#include "test/check.h"

int main(int argc, char** argv) {
  using namespace xfrmesh::test;
  const std::string_view wanted = argc > 1 ? argv[1] : "";
  int passed = 0;
  int failed = 0;
  int skips = 0;
  for (const auto& [name, run] : cases()) {
    if (name.find(wanted) == std::string_view::npos) continue;
    const int before = failures();
    skipped() = {};
    try {
      run();
    } catch (const std::exception& error) {
      check(false, error.what(), name, 0);
    }
    if (failures() != before) {
      failed++;
      std::cout << "FAIL " << name << '\n';
    } else if (!skipped().empty()) {
      skips++;
      std::cout << "skip " << name << ": " << skipped() << '\n';
    } else {
      passed++;
      std::cout << "ok   " << name << '\n';
    }
  }
  if (passed + failed + skips == 0) std::cout << "no test is named so\n";
  std::cout << passed << " passed, " << failed << " failed, " << skips << " skipped\n";
  return failed == 0 && passed > 0 ? 0 : 1;
}
