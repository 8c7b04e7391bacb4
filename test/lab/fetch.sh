#!/usr/bin/env bash
# Fetches the kernel of a Debian suite and unpacks it under the cache directory, all of it or nothing; then writes its
# version into CACHE/SUITE.kernel. The caller sees to it that this runs once at a time.
# usage: fetch.sh SUITE CACHE
set -euo pipefail
suite=$1 cache=$2

die() {
  printf 'lab: %s\n' "$1" >&2
  exit 125
}

# An apt of the lab's own, which knows one suite alone: it needs no root, is not swayed by what is installed here, and
# leaves the machine's own lists as they are. Mirror and keyring are those this machine uses.
configure_apt() {
  local own uri keyring
  # shellcheck source=/dev/null
  own=$(source /etc/os-release && printf '%s' "${VERSION_CODENAME-}")
  # shellcheck disable=SC2016 # the dollars are apt's
  uri=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 'Component: main' |
    awk -v own="$own" '$1 == own && !found++ { print $2 }')
  [[ -n $uri ]] || die "apt on this machine knows no mirror of Debian $own main"
  keyring=$(own_keyring "$own")
  mkdir -p apt/{lists/partial,archives/partial}
  : >apt/status
  printf 'deb [arch=amd64%s] %s %s main\n' "${keyring:+ signed-by=$keyring}" "$uri" "$suite" >apt/sources.list
  cat >apt/apt.conf <<CONF
Dir::Etc::SourceList "$work/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$work/apt";
Dir::State::Lists "$work/apt/lists";
Dir::State::Status "$work/apt/status";
Dir::Cache "$work/apt";
Dir::Cache::Archives "$work/apt/archives";
Acquire::Languages "none";
APT::Sandbox::User "root";
CONF
  # Warned of only, a mirror that does not answer would pass for a suite without kernels.
  apt-get -c apt/apt.conf -qq -o APT::Update::Error-Mode=any update >&2 ||
    die "the package lists of Debian $suite could not be fetched; see above"
}

# The keyring that this machine's source of its own suite $1 names, in either of apt's two formats, if it names one.
own_keyring() {
  local file
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources}; do
    [[ ! -f $file ]] || { cat "$file" && echo; }
  done | awk -v own="$1" '
    function entry_ends() { if (mine && key ~ "^/" && !found++) print key; mine = 0; key = "" }
    /^deb / && match($0, /signed-by=[^] ]+/) { key = substr($0, RSTART + 10, RLENGTH - 10); mine = index($0, " " own " "); entry_ends() }
    /^Suites:/ { for (i = 2; i <= NF; i++) if ($i == own) mine = 1 }
    /^Signed-By:/ { key = $2 }
    /^$/ { entry_ends() }
    END { entry_ends() }'
}

# The dependencies of package $1 whose names match the pattern $2; none is no error.
depends() {
  apt-cache -c apt/apt.conf depends "$1" | sed -n 's/^ *|\{0,1\}Depends: *//p' | { grep -E "$2" || true; }
}

# Unpacks kernel image $1 of version $2, with the packages that it shares its version with, into ./kernel.
unpack() {
  local parts package modules image
  # Newer kernels come in several packages, image and modules apart.
  mapfile -t parts < <(depends "$1" "^linux-.*-${2//+/\\+}\$")
  apt-get -c apt/apt.conf -qq download "$1" "${parts[@]}" >&2
  for package in *.deb; do
    dpkg-deb -x "$package" tree
  done
  mkdir -p kernel/lib/modules
  for modules in tree/{,usr/}lib/modules/"$2"; do
    [[ ! -d $modules ]] || cp -a "$modules" kernel/lib/modules/
  done
  # Drivers of hardware are most of it, and the machine has none but virtio's.
  modules=kernel/lib/modules/$2/kernel
  find "$modules/sound" "$modules/drivers" "$modules"/drivers/net/{ethernet,wireless} -mindepth 1 -maxdepth 1 \
    ! -path "$modules/drivers/net" ! -path "$modules/drivers/virtio" ! -path "$modules/drivers/char" \
    -exec rm -rf {} + 2>/dev/null || true
  # Emulated processors decompress slowly.
  find "$modules" -name '*.ko.xz' -print0 | xargs -0 -r -n 32 -P "$(nproc)" xz -d
  find "$modules" -name '*.ko.zst' -print0 | xargs -0 -r zstd -q -d --rm
  depmod -b kernel "$2"
  for image in "tree/boot/vmlinuz-$2" "kernel/lib/modules/$2/vmlinuz"; do
    [[ ! -f $image ]] || decompress "$image" kernel/vmlinuz
  done
  [[ -f kernel/vmlinuz ]]
}

# Takes the ELF image out of the kernel $1, which QEMU can enter directly: seconds saved under emulation. Where this
# kernel is packed some other way it stays as it is, and boots as it would anywhere.
decompress() {
  local magic tool options offset
  while read -r magic tool options; do
    offset=$(LC_ALL=C grep -abo -m 1 -P "$magic" "$1" | head -n 1 | cut -d: -f1) || continue
    # The packer's stream ends before the file does; what follows it is no error here.
    tail -c +$((offset + 1)) "$1" | "$tool" "$options" 2>/dev/null >elf || true
    [[ $(head -c 4 elf) != $'\x7fELF' ]] || { mv elf "$2"; return 0; }
  done <<'PACKERS'
\xfd7zXZ\x00 xz -dc
\x28\xb5\x2f\xfd zstd -dc
\x1f\x8b\x08 gzip -dc
PACKERS
  cp "$1" "$2"
}

# What an earlier run that was killed had begun.
rm -rf "$cache"/fetch.*
work=$(mktemp -d "$cache/fetch.XXXXXX")
cd "$work"
trap 'rm -rf "$work"' EXIT
printf 'lab: fetching the kernel of Debian %s (about 100 MB, once)\n' "$suite" >&2
configure_apt
image=$(depends linux-image-amd64 '^linux-image-[0-9].*-amd64$' | head -n 1)
[[ -n $image ]] || die "Debian $suite names no kernel image"
version=${image#linux-image-}
if [[ ! -d $cache/$version ]]; then
  unpack "$image" "$version"
  mv -T kernel "$cache/$version"
fi
printf '%s\n' "$version" >pointer
mv pointer "$cache/$suite.kernel"
