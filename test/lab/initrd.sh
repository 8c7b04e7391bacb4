#!/usr/bin/env bash
# Packs the guest's initial file system: busybox, init.sh, and the modules with which it reaches its root and reports
# back. All else it loads from that root.
# usage: initrd.sh KERNEL-DIRECTORY KERNEL-VERSION FILE
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

tree=$(mktemp -d "$1/initrd.XXXXXX")
trap 'rm -rf "$tree" "$tree.cpio"' EXIT
mkdir -p "$tree"/{bin,proc,dev,modules,lower,upper,new}
cp /bin/busybox "$tree/bin/"
for applet in sh mount insmod mkdir cp ln grep switch_root; do
  ln -s busybox "$tree/bin/$applet"
done
# By number, since each needs those before it.
number=100
for module in virtio_pci 9p 9pnet_virtio overlay virtio_console; do
  modprobe -d "$1" -S "$2" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
  cp "$file" "$tree/modules/$number.ko"
  number=$((number + 1))
done
cp "$here/init.sh" "$tree/init"
chmod +x "$tree/init"
(cd "$tree" && find . | cpio --create --format newc --quiet) >"$tree.cpio"
mv "$tree.cpio" "$3"
