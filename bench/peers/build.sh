#!/usr/bin/env bash
# Builds the Go peers as OUTDIR/docker, OUTDIR/node and OUTDIR/nftables.
# needs: golang-go golang-github-vishvananda-netlink-dev golang-github-google-nftables-dev (apt)
set -euo pipefail
out=${1:?usage: build.sh OUTDIR}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$out"
# Debian ships Go libraries as sources under a GOPATH, so modules and the network stay out of it.
for peer in docker node nftables; do
  GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS='' go build -o "$out/$peer" "$here/$peer.go"
done
