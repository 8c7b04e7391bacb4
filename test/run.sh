#!/usr/bin/env bash
# All tests, suite by suite; the last line is their sum. Fails if a test did, or if a suite ran none.
# usage: test/run.sh [SUITE…], by the names at the end of this file; without any: all of them.
# A suite's output ends in, or is turned into, one line: N passed, N failed, N skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

suites=("$@")
test/setup.sh build lab test
# Docker's calls, for the kernel tests to compare with: out here, where compiling is quick.
bench/peers/build.sh build/peers

results=$(mktemp -d)
beside=''
trap '[[ -z $beside ]] || kill "$beside" 2>/dev/null || true; wait; rm -rf "$results"' EXIT
trap 'exit 130' INT TERM HUP
passed=0 failed=0 skipped=0 summary=() broken=()

# Whether suite $1 was asked for.
chosen() {
  [[ ${#suites[@]} == 0 || " ${suites[*]} " == *" $1 "* ]]
}

# Counts what suite $1 said of itself in $2 (empty if it said nothing) and how it exited ($3).
count() {
  local name=$1 closing=$2 status=$3 note=''
  local counts=(0 0 0)
  if [[ $closing =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    counts=("${BASH_REMATCH[@]:1}")
  fi
  # A suite that fails with no test failing (it crashed, it did not compile, it was empty) must not pass unseen.
  if [[ $((counts[0] + counts[1])) == 0 || ($status != 0 && ${counts[1]} == 0) ]]; then
    counts[1]=$((counts[1] + 1))
    note=" (exit status $status, and not one test failed of itself)"
  fi
  [[ ${counts[1]} == 0 ]] || broken+=("$name")
  summary+=("suite $name: ${counts[0]} passed, ${counts[1]} failed, ${counts[2]} skipped$note")
  passed=$((passed + counts[0])) failed=$((failed + counts[1])) skipped=$((skipped + counts[2]))
}

# Runs suite $1 by the rest of the arguments: a command whose last line of output is its count.
closing_suite() {
  local name=$1 status=0
  chosen "$name" || return 0
  shift
  printf '\n== %s\n' "$name"
  "$@" 2>&1 | tee "$results/$name.log" || status=$?
  count "$name" "$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$results/$name.log" | tail -n 1)" "$status"
}

# Becomes vitest with the arguments before '--', by way of the command after it, if any; $1 is the suite.
vitest() {
  local name=$1 arguments=()
  shift
  while [[ $# -gt 0 && $1 != -- ]]; do
    arguments+=("$1")
    shift
  done
  exec "${@:2}" node node_modules/vitest/vitest.mjs run "${arguments[@]}" \
    --reporter=default --reporter=json --outputFile.json="$results/$name.json"
}

# Runs suite $1 with vitest, which takes the rest of the arguments.
vitest_suite() {
  local status=0
  chosen "$1" || return 0
  printf '\n== %s\n' "$1"
  (vitest "$@") || status=$?
  count "$1" "$(vitest_closing "$results/$1.json")" "$status"
}

# Starts a suite as vitest_suite runs it, but beside those that come before finish_suite tells what it said.
start_suite() {
  chosen "$1" || return 0
  (vitest "$@") >"$results/$1.log" 2>&1 &
  beside=$!
}

finish_suite() {
  local status=0
  chosen "$1" || return 0
  wait "$beside" || status=$?
  beside=''
  printf '\n== %s\n' "$1"
  cat "$results/$1.log"
  count "$1" "$(vitest_closing "$results/$1.json")" "$status"
}

# shellcheck disable=SC2016 # the dollars are JavaScript's
vitest_closing() {
  [[ -s $1 ]] || return 0
  node -e '
    const { numPassedTests, numFailedTests, numPendingTests, numTodoTests } = JSON.parse(fs.readFileSync(process.argv[1]))
    console.log(`${numPassedTests} passed, ${numFailedTests} failed, ${numPendingTests + numTodoTests} skipped`)' "$1"
}

# shellcheck disable=SC2016 # the dollars are JavaScript's
vitest_failures() {
  node -e '
    const { testResults } = JSON.parse(fs.readFileSync(process.argv[1]))
    for (const { name, message, assertionResults } of testResults) {
      if (message) console.log(`${name}\n${message}`)
      for (const { status, fullName, failureMessages } of assertionResults) {
        if (status === "failed") console.log(`${name}: ${fullName}\n${failureMessages.join("\n").slice(0, 4000)}`)
      }
    }' "$1"
}

# The longest, and most of it one processor's work: the others run meanwhile.
start_suite kernel --project kernel -- test/lab/lab --limit 3600 --writable "$results"
closing_suite native native/test/run.sh
closing_suite fuzz native/test/fuzz.sh 10
vitest_suite unit --project unit
vitest_suite package --project package
# What needs no ESP is tried on this machine's own kernel too: another version, and at full speed.
if [[ -d test/kernel/anywhere && $(id -u) == 0 ]]; then
  vitest_suite kernel-here --project kernel --project here test/kernel/anywhere test/kernel/here -- test/lab/lab --native
fi
# A rotation is told by the kernel's choice among SAs, which later kernels cache: it is tried on one of those too.
vitest_suite kernel-later --project kernel test/kernel/rotation.test.ts -- test/lab/lab --kernel trixie --limit 900 --writable "$results"
vitest_suite lab --project lab
finish_suite kernel

# What went wrong is said again where a reader looks first: whoever sees only the end of a log sees it too.
for name in ${broken[@]+"${broken[@]}"}; do
  printf '\n== what failed in %s\n' "$name"
  if [[ -s $results/$name.json ]]; then vitest_failures "$results/$name.json"; else tail -n 60 "$results/$name.log" 2>/dev/null || true; fi
done

printf '\n'
printf '%s\n' "${summary[@]}"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
# None at all would be the answer to a suite that does not exist.
[[ $failed == 0 && $passed -gt 0 ]]
