# shellcheck shell=bash
# The lab on this machine's own kernel. Sourced by lab.
# shellcheck disable=SC2154 # here, root, limit, pass and command are lab's

# Asks the kernel, in a network namespace that goes away with the question, for one of each thing that the tests need.
native_serves() {
  [[ $(id -u) == 0 ]] && unshare --net bash -e "$here/probe.sh" >/dev/null 2>&1
}

# Replaces this process by one that ends COMMAND, and all that COMMAND started, when it ends itself.
native_run() {
  [[ $(id -u) == 0 ]] || die 'on this kernel the lab needs root'
  local environment=() name
  for name in "${pass[@]}"; do
    [[ -v $name ]] && environment+=("$name=${!name}")
  done
  exec timeout --foreground --kill-after 5 "$limit" \
    setpriv --pdeathsig KILL unshare --net --mount --pid --fork --kill-child --mount-proc \
    env -i "${environment[@]}" XFRMESH_LAB=native bash "$here/inside.sh" "$root" "${command[@]}" </dev/null
}
