# shellcheck shell=bash
# Kernels for the virtual machine: Debian's own packages, unpacked into a cache and never installed. Sourced by lab.
# shellcheck disable=SC2034 # kernel_dir and kernel_version are vm.sh's

cache=${XDG_CACHE_HOME:-$HOME/.cache}/xfrmesh-lab

# Makes sure that the newest kernel of a Debian suite (default: this machine's) is unpacked, once for all checkouts, and
# sets kernel_dir (its vmlinux or vmlinuz, and lib/modules) and kernel_version.
kernel_prepare() {
  local wanted=${1:-$(own_suite)}
  [[ $(dpkg --print-architecture) == amd64 ]] || die 'the virtual machine runs on amd64 only'
  mkdir -p "$cache"
  local pointer=$cache/$wanted.kernel lock
  if [[ ! -f $pointer ]]; then
    # Two labs may start at once: one fetches, the other waits and finds it there.
    exec {lock}>"$cache/lock"
    flock "$lock"
    [[ -f $pointer ]] || kernel_fetch "$wanted" "$pointer"
    exec {lock}>&-
  fi
  kernel_version=$(<"$pointer")
  kernel_dir=$cache/$kernel_version
}

own_suite() {
  # shellcheck source=/dev/null
  (source /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
}

# Fetches the kernel of suite $1 and, when all of it is in its place, writes its version into the file $2.
kernel_fetch() {
  local work image version
  work=$(mktemp -d "$cache/fetch.XXXXXX")
  printf 'lab: fetching the kernel of Debian %s (about 100 MB, once)\n' "$1" >&2
  apt_configuration "$1" "$work"
  image=$(apt_depends "$work" linux-image-amd64 '^linux-image-[0-9].*-amd64$') ||
    die "Debian $1 names no kernel image, or the package mirror does not answer"
  version=${image#linux-image-}
  if [[ ! -d $cache/$version ]]; then
    kernel_unpack "$work" "$image" "$version" || die "the kernel package $image could not be fetched or unpacked"
    mv -T "$work/kernel" "$cache/$version"
  fi
  printf '%s\n' "$version" >"$work/pointer"
  mv "$work/pointer" "$2"
  rm -rf "$work"
}

# An apt of the lab's own under directory $2, which knows suite $1 alone: it needs no root, is not swayed by what is
# installed here, and leaves the machine's own lists as they are. Mirror and keyring are those this machine uses.
apt_configuration() {
  local uri keyring
  # shellcheck disable=SC2016 # the dollars are apt's
  uri=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 'Component: main' |
    awk -v own="$(own_suite)" '$1 == own { print $2; exit }')
  [[ -n $uri ]] || die "apt on this machine knows no mirror of Debian $(own_suite) main"
  keyring=$(apt_keyring)
  mkdir -p "$2"/{lists/partial,archives/partial}
  : >"$2/status"
  printf 'deb [arch=amd64%s] %s %s main\n' "${keyring:+ signed-by=$keyring}" "$uri" "$1" >"$2/sources.list"
  cat >"$2/apt.conf" <<CONF
Dir::Etc::SourceList "$2/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$2";
Dir::State::Lists "$2/lists";
Dir::State::Status "$2/status";
Dir::Cache "$2";
Dir::Cache::Archives "$2/archives";
Acquire::Languages "none";
APT::Sandbox::User "root";
CONF
  apt-get -c "$2/apt.conf" -qq update >&2 || die "the package lists of Debian $1 could not be fetched"
}

# The keyring that this machine's source of its own suite names (in either of apt's two formats), if it names one.
apt_keyring() {
  local file
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources}; do
    [[ -f $file ]] && cat "$file" && echo
  done | awk -v own="$(own_suite)" '
    function done() { if (mine && key ~ "^/") { print key; found = 1; exit } mine = 0; key = "" }
    /^deb / && match($0, /signed-by=[^] ]+/) { key = substr($0, RSTART + 10, RLENGTH - 10); mine = index($0, " " own " "); done() }
    /^Suites:/ { for (i = 2; i <= NF; i++) if ($i == own) mine = 1 }
    /^Signed-By:/ { key = $2 }
    /^$/ { done() }
    END { if (!found) done() }'
}

# The dependencies of package $2 that match the pattern $3, seen by the apt in directory $1; fails if there are none.
apt_depends() {
  apt-cache -c "$1/apt.conf" depends "$2" | sed -n 's/^ *|\{0,1\}Depends: *//p' | grep -E "$3"
}

# Unpacks image package $2 of version $3, with the package of its modules where that is another, into $1/kernel.
kernel_unpack() (
  set -e
  cd "$1"
  mapfile -t modules < <(apt_depends "$1" "$2" '^linux-modules-')
  apt-get -c apt.conf -qq download "$2" "${modules[@]}" >&2
  for package in *.deb; do
    dpkg-deb -x "$package" tree
  done
  modules=(tree/lib/modules/"$3" tree/usr/lib/modules/"$3")
  mkdir -p kernel/lib/modules
  for tree in "${modules[@]}"; do
    [[ ! -d $tree ]] || cp -al "$tree" kernel/lib/modules/
  done
  cd kernel
  # Half the size, and nothing there that a machine of virtio devices could load.
  rm -rf lib/modules/"$3"/kernel/{sound,drivers/{gpu,media,iio,staging,usb,scsi,infiniband}}
  # Emulated processors decompress slowly.
  find lib/modules -name '*.ko.xz' -exec xz -d {} +
  find lib/modules -name '*.ko.zst' -exec zstd -q -d --rm {} +
  depmod -b . "$3"
  kernel_decompress ../tree/boot/vmlinuz-"$3" vmlinuz
)

# Takes the ELF image out of the kernel $1, which QEMU can enter directly: seconds saved under emulation. Where this
# kernel is packed some other way it stays as it is, and boots as it would anywhere.
kernel_decompress() {
  local offset
  cp "$1" "$2"
  while read -r magic tool; do
    offset=$(LC_ALL=C grep -abo -m 1 -P "$magic" "$1" | head -n 1 | cut -d: -f1) || continue
    # The packer's stream ends before the file does; what follows it is no error here.
    tail -c +$((offset + 1)) "$1" | $tool 2>/dev/null >"$2.elf" || true
    [[ $(head -c 4 "$2.elf") == $'\x7fELF' ]] && mv "$2.elf" "$2" && return
  done <<'PACKERS'
\xfd7zXZ\x00 xz -dc --single-stream
\x28\xb5\x2f\xfd zstd -dc
\x1f\x8b\x08 gzip -dc
PACKERS
  rm -f "$2.elf"
}
