# shellcheck shell=bash
# The lab on this machine's own kernel. Sourced by lab.
# shellcheck disable=SC2154 # here, root, limit, pass and command are lab's

# Asks the kernel, in a network namespace that goes away with the question, for one of each thing that the tests need.
native_serves() {
  [[ $(id -u) == 0 ]] && unshare --net bash -e "$here/probe.sh" >/dev/null 2>&1
}

# Runs the command in namespaces of its own, and exits with its status. All that it started ends with it, or with us.
native_run() {
  [[ $(id -u) == 0 ]] || die 'on this kernel the lab needs root'
  local environment=() name
  for name in "${pass[@]}"; do
    [[ ! -v $name ]] || environment+=("$name=${!name}")
  done
  local started=$SECONDS status=0
  # Each dies with its parent, even if that is killed outright. KILL, because unshare ignores what is milder.
  setpriv --pdeathsig KILL timeout --foreground --signal KILL "$limit" setpriv --pdeathsig KILL \
    unshare --net --mount --pid --fork --kill-child --mount-proc \
    env -i "${environment[@]}" XFRMESH_LAB=native bash "$here/inside.sh" "$root" "${command[@]}" </dev/null &
  local place=$!
  stop_on_signal "$place" KILL
  # Bash would report the kill on standard error, which is the command's.
  { wait "$place"; } 2>/dev/null || status=$?
  [[ $status != 137 || $((SECONDS - started)) -lt $limit ]] || time_up
  exit "$status"
}
