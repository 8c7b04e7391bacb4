#!/usr/bin/env bash
# The guest's process 1: finishes the file system, runs the command, and reports over three ports that the host reads:
# standard output, standard error, exit status.
# /run/lab holds what the host says: environment and command (each entry ends in NUL), and directories and lists by line.
set -euo pipefail
cd /run/lab

version=$(uname -r)
mkdir -p "/lib/modules/$version"
mount --bind "$(<modules)" "/lib/modules/$version"
while read -r module; do
  printf 'install %s /bin/false\n' "$module"
done <without >/etc/modprobe.d/lab.conf

share=0
while IFS= read -r directory; do
  mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=mmap "share$share" "$directory"
  share=$((share + 1))
done <writable

mapfile -d '' -t environment <environment
mapfile -d '' -t command <./command
hostname lab

# The ports appear some time after their driver; the middle number is the bus's affair.
ports=(/dev/vport*p3)
for ((attempt = 0; attempt < 500; attempt++)); do
  [[ ! -c ${ports[0]} ]] || break
  sleep 0.02
  ports=(/dev/vport*p3)
done
port=${ports[0]%3}
# Pipes between, because a port can be open once only, and a command may open its /dev/stderr again.
exec 3> >(exec cat >"${port}1")
output=$!
exec 4> >(exec cat 3>&- >"${port}2")
error=$!
printf 'started\n' >"${port}3"
status=0
unshare --mount --pid --fork --kill-child --mount-proc \
  env -i "${environment[@]}" XFRMESH_LAB=vm bash "$(<here)/inside.sh" "$(<root)" "${command[@]}" \
  </dev/null >&3 2>&4 3>&- 4>&- || status=$?
exec 3>&- 4>&-
wait "$output" "$error"
while IFS= read -r directory; do
  umount -l "$directory"
done <writable
sync
printf '%s\n' "$status" >"${port}3"
echo b >/proc/sysrq-trigger
sleep 60
