#!/usr/bin/env bash
# The first process of the lab's own process and mount namespaces, on either kernel: the last touches to the place, then
# the command. It stays, as process 1: it reaps orphans, and when it ends all others there are killed.
# usage: inside.sh DIRECTORY COMMAND [ARGUMENT…]
set -euo pipefail

# /sys shows the network namespace of whoever mounted it; the virtual machine has one only.
[[ $XFRMESH_LAB == vm ]] || mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir /run/netns /run/home
ip link set lo up
# As long as one ping wants time stamps, the others do not turn them on and off: each time the kernel rewrites its code
# where packets come in, and emulated processors were seen to fall over that (trixie's, netif_receive_skb_list_internal).
[[ $XFRMESH_LAB != vm ]] || ping -q -i 86400 127.0.0.1 </dev/null >/dev/null 2>&1 &

export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin HOME=/run/home
cd "$1"
shift
status=0
# Bash would report a signal's kill on standard error, which is the command's.
{ "$@" 2>&3 3>&-; } 3>&2 2>/dev/null || status=$?
exit "$status"
