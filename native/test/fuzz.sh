#!/usr/bin/env bash
# Builds every fuzz target with clang and runs each for some seconds, from what test/data's captures hold.
# usage: native/test/fuzz.sh [SECONDS [PART OF A TARGET'S NAME]]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

seconds=${1:-10} wanted=${2-}
build=build/native-fuzz
CXX=clang++-14 cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DXFRMESH_FUZZ=ON \
  -DXFRMESH_SANITIZE=address,undefined,fuzzer-no-link >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
cmake --build "$build" --parallel "$(nproc)" >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }

node native/test/seeds.js "$build/seeds"

ran=0
for source in native/test/*_fuzz.cc; do
  target=$(basename "$source" .cc)
  [[ $target == *"$wanted"* ]] || continue
  seeds=$build/seeds/${target%%_*}_encode
  [[ $target != *_decode_* ]] || seeds=$build/seeds/${target%%_*}_decode
  mkdir -p "$build/corpus/$target"
  log=$build/$target.log
  # What it finds anew goes into the first directory.
  "$build/$target" -max_total_time="$seconds" -max_len=65536 -timeout=10 -print_final_stats=1 -artifact_prefix="$build/" \
    "$build/corpus/$target" "$seeds" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
  printf 'ok   %s: %s inputs in %d seconds\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" "$seconds"
  ran=$((ran + 1))
done
[[ $ran -gt 0 ]] || { printf 'no fuzz target is named so\n' >&2; exit 1; }
printf '%d passed, 0 failed, 0 skipped\n' "$ran"
