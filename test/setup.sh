#!/usr/bin/env bash
# Gets this machine ready, and does nothing where it is: system packages, npm's, the build, the lab's kernel.
# usage: test/setup.sh [GROUP…], GROUP being build, lab, test, bench or lint; without any: build lab
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

declare -A packages=(
  [build]='g++ cmake make pkg-config libmnl-dev'
  [lab]='nftables iproute2 tcpdump iputils-ping iperf3 qemu-system-x86 busybox-static cpio kmod xz-utils zstd'
  [test]='iptables python3 golang-go golang-github-vishvananda-netlink-dev golang-github-google-nftables-dev strace valgrind clang-14 libclang-rt-14-dev'
  [bench]='python3-pyroute2'
  [lint]='clang-tidy-14 clang-format-14 shellcheck'
)

say() {
  printf 'setup: %s\n' "$*" >&2
}

die() {
  say "$1"
  exit 1
}

# Those of the packages named that are not installed. dpkg-query fails if it never heard of one.
missing() {
  local installed
  installed=$(dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p') || true
  comm -23 <(printf '%s\n' "$@" | sort) <(sort <<<"$installed")
}

apt() {
  local sudo=()
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || die "this needs root: apt-get $*"
    sudo=(sudo)
  fi
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" >&2
}

install_packages() {
  local wanted
  mapfile -t wanted < <(missing "$@")
  [[ ${#wanted[@]} -gt 0 ]] || return 0
  say "installing ${wanted[*]}"
  apt update || die 'apt-get could not fetch its package lists; see above'
  apt install --no-install-recommends "${wanted[@]}" || die "apt-get could not install ${wanted[*]}; see above"
}

# npm ci starts anew each time, so it runs only if the lock file is younger than what it last made.
install_modules() {
  local stamp=node_modules/.xfrmesh-installed
  [[ ! -f $stamp || package-lock.json -nt $stamp ]] || return 0
  say 'installing npm packages'
  npm ci --ignore-scripts >&2 || die 'npm ci failed; see above'
  touch "$stamp"
}

# A directory is younger than its last removal too, so a source that went away counts.
build() {
  local stamp=node_modules/.xfrmesh-built
  if [[ -f $stamp && -d build/Release && -d dist ]] &&
    [[ -z $(find lib native CMakeLists.txt package.json tsconfig.json -newer "$stamp" -print -quit) ]]; then
    return 0
  fi
  say 'building'
  # Dated before the build: what is edited while it runs is younger.
  touch "$stamp.new"
  npm run --silent build >"$stamp.log" 2>&1 || {
    cat "$stamp.log" >&2
    die 'the build failed; see above'
  }
  mv "$stamp.new" "$stamp"
}

groups=("$@")
[[ $# -gt 0 ]] || groups=(build lab)
wanted=()
for group in "${groups[@]}"; do
  [[ -v packages[$group] ]] || die "no group '$group'; there are ${!packages[*]}"
  read -ra names <<<"${packages[$group]}"
  wanted+=("${names[@]}")
done

[[ $(node -p 'process.versions.node.split(".", 1)[0]' 2>/dev/null) -ge 20 ]] || die 'Node.js 20.19 or later is needed'
command -v apt-get >/dev/null || die 'this machine has no apt-get; see test/setup.sh for the packages needed'
install_packages "${wanted[@]}"
for group in "${groups[@]}"; do
  case $group in
    build)
      install_modules
      build
      ;;
    lab) test/lab/lab --prepare ;;
  esac
done
