# shellcheck shell=bash
# Kernels for the virtual machine: Debian's own packages, unpacked into a cache and never installed. Sourced by lab.
# shellcheck disable=SC2034,SC2154 # kernel_dir and kernel_version are vm.sh's; here is lab's

cache=${XDG_CACHE_HOME:-$HOME/.cache}/xfrmesh-lab

# Makes sure that a kernel of a Debian suite (default: this machine's) is unpacked, once for all checkouts, and sets
# kernel_dir (its vmlinuz, and lib/modules) and kernel_version.
kernel_prepare() {
  local wanted=${1:-$(own_suite)} lock
  [[ $(dpkg --print-architecture) == amd64 ]] || die 'the virtual machine runs on amd64 only'
  mkdir -p "$cache"
  local pointer=$cache/$wanted.kernel
  if [[ ! -f $pointer ]]; then
    # Two labs may start at once: one fetches, the other waits and finds it there.
    exec {lock}>"$cache/lock"
    flock "$lock"
    [[ -f $pointer ]] || bash "$here/fetch.sh" "$wanted" "$cache" ||
      die "the kernel of Debian $wanted could not be fetched and unpacked"
    exec {lock}>&-
  fi
  kernel_version=$(<"$pointer")
  kernel_dir=$cache/$kernel_version
}

own_suite() {
  # shellcheck source=/dev/null
  (source /etc/os-release && printf '%s' "${VERSION_CODENAME-}")
}
