#!/usr/bin/env bash
# Builds the Go peer as OUTDIR/docker.
# needs: golang-go golang-github-vishvananda-netlink-dev (apt)
set -euo pipefail
out=${1:?usage: build.sh OUTDIR}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$out"
# Debian ships Go libraries as sources under a GOPATH, so modules and the network stay out of it.
GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS='' go build -o "$out/docker" "$here/docker.go"
