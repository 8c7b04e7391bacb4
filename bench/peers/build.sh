#!/usr/bin/env bash
# Builds the Go peers as OUTDIR/docker, OUTDIR/neighbours, OUTDIR/nftables and OUTDIR/node.
# needs: golang-go golang-github-vishvananda-netlink-dev golang-github-google-nftables-dev (apt)
set -euo pipefail
out=${1:?usage: build.sh OUTDIR}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$out"
# Debian ships Go libraries as sources under a GOPATH, so modules and the network stay out of it.
for peer in docker neighbours nftables node; do
  GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS='' go build -o "$out/$peer" "$here/$peer.go" "$here/lines.go"
done
