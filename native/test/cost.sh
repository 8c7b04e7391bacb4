#!/usr/bin/env bash
# Prints, as JSON, how many instructions an operation takes on its way from a record to a message, and a message on its
# way back: the same figures each time for the same compiler, however busy the machine is.
# needs: valgrind (apt)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build=build/native-cost
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DXFRMESH_TESTS=ON >"$build.log" 2>&1 ||
  { cat "$build.log" >&2; exit 1; }
cmake --build "$build" --parallel "$(nproc)" --target xfrmesh_cost >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }

# Instructions of a run on $2 objects.
instructions() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "$build/xfrmesh_cost" "$1" "$2" 2>&1 >/dev/null |
    sed -n 's/.*Collected : //p'
}

# What a thousand objects more take, of each.
each() {
  echo $((($(instructions "$1" 2000) - $(instructions "$1" 1000)) / 1000))
}

separator='{'
for kind in state policy; do
  made=$(each "none-$kind")
  out=$(each "encode-$kind")
  back=$(each "decode-$kind")
  printf '%s"encode %s":%d,"decode %s":%d' "$separator" "$kind" $((out - made)) "$kind" $((back - out))
  separator=,
done
printf '}\n'
