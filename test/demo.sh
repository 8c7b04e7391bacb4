#!/usr/bin/env bash
# The demo in the lab: `xfrmesh demo` with these arguments, on a kernel that has ESP. Files named by them are looked for
# from where this was called, and must be where the lab can see them: not in /run, /dev, /proc or /sys.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
# npm runs scripts from the checkout's root, and says here where it was called.
caller=${INIT_CWD:-$PWD}

"$here/setup.sh" build lab

options=()
if [[ -t 1 && -t 2 ]]; then
  # The lab's streams are no terminal themselves.
  XFRMESH_TERMINAL=$(tput cols 2>/dev/null || echo 80)
  export XFRMESH_TERMINAL
  options+=(--env XFRMESH_TERMINAL)
fi
exec "$here/lab/lab" --limit 1800 "${options[@]}" -- \
  env --chdir "$caller" node "$root/dist/cli/main.js" demo "$@"
