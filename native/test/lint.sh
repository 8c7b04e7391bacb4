#!/usr/bin/env bash
# Format and clang-tidy over all C++ of ours: the addon as cmake-js builds it, the tests and the fuzz targets.
# usage: native/test/lint.sh [FILE…]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

mapfile -t files < <(find native -name '*.cc' -o -name '*.h' | sort)
clang-format-14 --dry-run -Werror "${files[@]}"

[[ -f build/compile_commands.json ]] || { printf 'lint: no build/compile_commands.json: run npm run build:native first\n' >&2; exit 1; }
lint=build/native-lint
CXX=clang++-14 cmake -S . -B "$lint" -DXFRMESH_TESTS=ON -DXFRMESH_FUZZ=ON >"$lint.log" 2>&1 || { cat "$lint.log" >&2; exit 1; }
# One database of both, with each file once.
mkdir -p "$lint/all"
node -e '
  const [to, ...from] = process.argv.slice(1)
  const commands = new Map(from.flatMap((path) => JSON.parse(fs.readFileSync(path))).map((entry) => [entry.file, entry]))
  fs.writeFileSync(to, JSON.stringify([...commands.values()]))' \
  "$lint/all/compile_commands.json" "$lint/compile_commands.json" build/compile_commands.json

sources=("$@")
[[ $# -gt 0 ]] || mapfile -t sources < <(find native -name '*.cc' | sort)
# What clang-tidy found goes to standard output; what it counts and suppresses to standard error.
printf '%s\0' "${sources[@]}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy-14 -p "$lint/all" --quiet 2>"$lint.log" ||
  { grep 'error:' "$lint.log" >&2; exit 1; }
