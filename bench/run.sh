#!/usr/bin/env bash
# npm run bench: builds what it takes, then measures. --help lists the options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

test/setup.sh build test bench
bench/floor/build.sh build/floor
bench/peers/build.sh build/peers
bench/packets/build.sh build/packets
bench/anatomy/build.sh build/anatomy
npx tsc -p bench/tsconfig.json
exec node build/bench/main.js "$@"
