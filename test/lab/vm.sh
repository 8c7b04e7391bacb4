# shellcheck shell=bash
# The lab's virtual machine. Its root is this machine's, read-only, under a layer in memory: node, ip, nft and the
# checkout are there as they are. Sourced by lab.
# shellcheck disable=SC2154 # here, root, command and the options are lab's, kernel_* are kernel.sh's

# Sets initrd (made once for each recipe and kernel) and accelerator.
vm_prepare() {
  local recipe
  command -v qemu-system-x86_64 >/dev/null || die 'qemu-system-x86_64 is missing; npm run setup installs it'
  recipe=$(cat "$here/init.sh" "$here/initrd.sh" | sha256sum)
  initrd=$kernel_dir/initrd-${recipe:0:16}
  [[ -f $initrd ]] || bash "$here/initrd.sh" "$kernel_dir" "$kernel_version" "$initrd" ||
    die 'the initial file system could not be packed; npm run setup installs what it takes'
  accelerator_choose
}

# The machine, but for its accelerator and what it shares and runs.
machine=(-nodefaults -no-user-config -display none -no-reboot)
# Under emulation the kernel finds its processors' counters out of step and turns to a timer that costs a device access a
# look, unless told that they are good. The crypto self-tests would run at each first use.
arguments='console=ttyS0 panic=-1 quiet mitigations=off nokaslr nowatchdog audit=0 cryptomgr.notests tsc=reliable'

emulation=(-accel 'tcg,thread=multi' -cpu max)
# Time that passes with instructions, one a nanosecond; while the machine waits it passes as ours does, or the kernel's
# time limits would be over before a file of ours is read.
counting=(-accel 'tcg,thread=single' -cpu max -icount shift=0)

# Sets accelerator. /dev/kvm may exist and still not run a kernel, so one is tried, and the answer kept.
accelerator_choose() {
  accelerator=("${emulation[@]}")
  if $icount; then
    accelerator=("${counting[@]}")
    cpus=1
    return 0
  fi
  [[ -r /dev/kvm && -w /dev/kvm ]] || return 0
  local answer
  answer=$kernel_dir/kvm-$(uname -r)
  if [[ ! -f $answer ]]; then
    kvm_probe >"$answer.$$"
    mv "$answer.$$" "$answer"
  fi
  [[ $(<"$answer") == no ]] || accelerator=(-accel kvm -cpu host)
}

kvm_probe() {
  local said
  said=$(timeout --signal KILL 10 qemu-system-x86_64 "${machine[@]}" -accel kvm -cpu host -m 512M -serial stdio \
    -kernel "$kernel_dir/vmlinuz" -initrd "$initrd" -append "$arguments lab.probe" 2>/dev/null </dev/null) || true
  if [[ $said == *'lab: the kernel runs'* ]]; then echo yes; else echo no; fi
}

# Describes the command in directory $1, for guest.sh.
job_write() {
  local name
  mkdir -p "$1"
  cp "$here/guest.sh" "$1/"
  printf '%s\0' "${command[@]}" >"$1/command"
  for name in "${pass[@]}"; do
    [[ ! -v $name ]] || printf '%s\0' "$name=${!name}"
  done >"$1/environment"
  printf '%s\n' "$kernel_dir/lib/modules/$kernel_version" >"$1/modules"
  printf '%s\n' "$here" >"$1/here"
  printf '%s\n' "$root" >"$1/root"
  printf '%s' "${without[@]/%/$'\n'}" >"$1/without"
  printf '%s' "${writable[@]/%/$'\n'}" >"$1/writable"
}

# Runs the command in a virtual machine, and exits with its status.
# The files between the two are unlinked as soon as they are open: nothing is left of them, however this process ends.
# QEMU writes files, which never block it, and tail follows them; a pipe that is full when the guest stops would lose
# its end.
vm_run() {
  local scratch log output error status index shares=()
  scratch=$(mktemp -d)
  job_write "$scratch/tree/job"
  (cat "$initrd" && cd "$scratch/tree" && find . | cpio --create --format newc --quiet) >"$scratch/initrd"
  : | tee "$scratch"/{log,output,error,status}
  exec {boot}<"$scratch/initrd" {log}<"$scratch/log" {output}<"$scratch/output" \
    {error}<"$scratch/error" {status}<"$scratch/status"
  rm -rf "$scratch"
  for index in "${!writable[@]}"; do
    shares+=(-fsdev "local,id=share$index,path=${writable[index]},security_model=none"
      -device "virtio-9p-pci,fsdev=share$index,mount_tag=share$index")
  done

  local started=$SECONDS
  # Each dies with its parent, even if that is killed outright.
  setpriv --pdeathsig KILL timeout --foreground --kill-after 5 "$limit" setpriv --pdeathsig KILL \
    qemu-system-x86_64 "${machine[@]}" "${accelerator[@]}" -smp "$cpus" -m "$memory" -rtc base=utc \
    -kernel "$kernel_dir/vmlinuz" -initrd "/dev/fd/$boot" -append "$arguments" \
    -serial "file:/dev/fd/$log" \
    -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap \
    -device virtio-9p-pci,fsdev=root,mount_tag=root \
    -device virtio-serial-pci,ioeventfd=off \
    -chardev "file,id=output,path=/dev/fd/$output" -device virtserialport,nr=1,chardev=output \
    -chardev "file,id=error,path=/dev/fd/$error" -device virtserialport,nr=2,chardev=error \
    -chardev "file,id=status,path=/dev/fd/$status" -device virtserialport,nr=3,chardev=status \
    "${shares[@]}" </dev/null >&2 &
  local qemu=$!
  stop_on_signal "$qemu" TERM

  tail -c +1 -s 0.05 -f --pid "$qemu" "/dev/fd/$output" 2>/dev/null &
  local followers=($!)
  tail -c +1 -s 0.05 -f --pid "$qemu" "/dev/fd/$error" >&2 2>/dev/null &
  followers+=($!)
  # Whichever is first: a follower ends early only if nobody reads it any more.
  wait -n "$qemu" "${followers[@]}" || true
  kill "$qemu" 2>/dev/null || true
  wait || true

  local said
  mapfile -t said <"/dev/fd/$status"
  [[ ! -v said[1] ]] || exit "${said[1]}"
  if [[ ${said[0]-} == started && $((SECONDS - started)) -ge $limit ]]; then
    time_up
  fi
  tail -n 30 "/dev/fd/$log" >&2
  [[ -v said[0] ]] || die 'the virtual machine ended before it could start the command'
  die 'the virtual machine ended before the command did'
}
