#!/usr/bin/env bash
# Builds the counter of allocations as OUTDIR/mallocs.so.
# needs: a C compiler and glibc's headers (apt: gcc libc6-dev)
set -euo pipefail
out=${1:?usage: build.sh OUTDIR}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$out"
"${CC:-cc}" -std=c17 -O2 -Wall -Wextra -Werror -shared -fPIC -o "$out/mallocs.so" "$here/mallocs.c"
