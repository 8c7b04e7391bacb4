#!/usr/bin/env bash
# The first process of the lab's own process and mount namespaces, on either kernel: the last touches to the place, then
# the command. It stays, as process 1: it reaps orphans, and when it ends all others there are killed.
# usage: inside.sh DIRECTORY COMMAND [ARGUMENT…]
set -euo pipefail

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
HOME=$(mktemp -d)
export PATH HOME
trap 'rm -rf "$HOME"' EXIT

# /sys shows the network namespace of whoever mounted it; the virtual machine has one only.
[[ $XFRMESH_LAB == vm ]] || mount -t sysfs sysfs /sys
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
ip link set lo up

cd "$1"
shift
status=0
"$@" || status=$?
exit "$status"
