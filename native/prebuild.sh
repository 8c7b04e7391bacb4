#!/usr/bin/env bash
# Makes prebuilds/<platform>/, which node-gyp-build loads and a packed tarball carries. Needs no network: node-gyp wants
# Node's own headers wherever it builds, so it gets Node-API's, which are all the addon uses.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

headers=$(mktemp -d)
trap 'rm -rf "$headers"' EXIT
mkdir -p "$headers/include/node"
cp node_modules/node-api-headers/include/*.h "$headers/include/node/"
echo '{ "variables": {}, "target_defaults": {} }' >"$headers/include/node/common.gypi"
echo '{ "variables": {}, "target_defaults": {} }' >"$headers/include/node/config.gypi"

npm_config_nodedir=$headers npx --no-install prebuildify --napi --strip "$@"
