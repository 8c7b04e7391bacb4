#!/usr/bin/env bash
# Builds the sender as OUTDIR/packets.
# needs: a C compiler and the kernel's headers (apt: gcc linux-libc-dev)
set -euo pipefail
out=${1:?usage: build.sh OUTDIR}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$out"
"${CC:-cc}" -std=c17 -O2 -Wall -Wextra -Werror -o "$out/packets" "$here/packets.c"
