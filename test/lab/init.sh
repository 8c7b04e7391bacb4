#!/bin/sh
# The guest's /init, from its initial file system: makes this machine's root, under a writable layer in memory, the
# guest's own, and hands over to guest.sh. Run by busybox.
set -e
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do
  insmod "$module"
done

# The host, asking whether an accelerator can run this kernel, need not go further.
if grep -q lab.probe /proc/cmdline; then
  echo 'lab: the kernel runs' >/dev/console
  echo b >/proc/sysrq-trigger
fi

mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose root /lower
mount -t tmpfs tmpfs /upper
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /new
mount -t proc proc /new/proc
mount -t sysfs sysfs /new/sys
mount -t devtmpfs devtmpfs /new/dev
mkdir -p /new/dev/shm /new/dev/pts
mount -t tmpfs tmpfs /new/dev/shm
mount -t devpts devpts /new/dev/pts
mount -t tmpfs tmpfs /new/run
ln -s /proc/self/fd /new/dev/fd
for stream in 0:stdin 1:stdout 2:stderr; do
  ln -s "fd/${stream%:*}" "/new/dev/${stream#*:}"
done
cp -r /job /new/run/lab
exec switch_root /new /bin/bash /run/lab/guest.sh
