// Tests: TEST(name) { … } registers one, CHECK and CHECK_EQ say what did not hold and let it go on, SKIP(why) ends a
// test that cannot run here. main() runs all, or those whose name contains its argument.
#pragma once

#include <functional>
#include <iostream>
#include <string_view>
#include <vector>

namespace xfrmesh::test {

struct Case {
  std::string_view name;
  void (*run)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

// Why the present test was skipped; empty if it was not.
inline std::string_view& skipped() {
  static std::string_view why;
  return why;
}

inline bool add(std::string_view name, void (*run)()) {
  cases().push_back({.name = name, .run = run});
  return true;
}

inline bool check(bool holds, std::string_view what, std::string_view file, int line) {
  if (holds) return true;
  failures()++;
  std::cerr << file << ':' << line << ": " << what << '\n';
  return false;
}

template <typename A, typename B>
bool checkEqual(const A& a, const B& b, std::string_view what, std::string_view file, int line) {
  if (check(a == b, what, file, line)) return true;
  if constexpr (requires { std::cerr << +a << +b; }) std::cerr << "  " << +a << " and " << +b << '\n';
  return false;
}

}  // namespace xfrmesh::test

#define TEST(name)                                                                          \
  static void test_##name();                                                                \
  [[maybe_unused]] static const bool added_##name = xfrmesh::test::add(#name, test_##name); \
  static void test_##name()

#define CHECK(condition) xfrmesh::test::check((condition), #condition, __FILE__, __LINE__)
#define CHECK_EQ(a, b) xfrmesh::test::checkEqual((a), (b), #a " == " #b, __FILE__, __LINE__)
#define SKIP(why)                   \
  do {                              \
    xfrmesh::test::skipped() = why; \
    return;                         \
  } while (false)
