#!/usr/bin/env bash
# Builds the C++ tests with AddressSanitizer and UndefinedBehaviorSanitizer and runs them; the last line is their count.
# usage: native/test/run.sh [PART OF A TEST'S NAME]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build=build/native-test
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Debug -DXFRMESH_TESTS=ON -DXFRMESH_SANITIZE=address,undefined >"$build.log" 2>&1 ||
  { cat "$build.log" >&2; exit 1; }
cmake --build "$build" --parallel "$(nproc)" >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
exec env ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1 \
  "$build/xfrmesh_test" "$@"
