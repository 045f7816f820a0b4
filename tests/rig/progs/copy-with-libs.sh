#!/usr/bin/env bash
# copy-with-libs.sh FROM TO FILE...: copies programs and folders out of the root file system FROM into TO, with the shared
# libraries that they and the objects in those folders need. Symbolic links are copied as links. Run as root: it uses chroot.
set -euo pipefail
from=$1 to=$2
shift 2

# merged /usr, as in FROM
mkdir -p "$to"/usr/{bin,sbin,lib,lib64}
for d in bin sbin lib lib64; do ln -sfn "usr/$d" "$to/$d"; done

# place FILE: at its real place, and a link where the loader asks for it, if that is elsewhere.
place() {
  local real asked
  real=$(chroot "$from" readlink -f "$1")
  asked=$(chroot "$from" readlink -f "$(dirname "$1")")/$(basename "$1")
  mkdir -p "$to$(dirname "$real")" "$to$(dirname "$asked")"
  cp -a --no-clobber "$from$real" "$to$real"
  [ "$asked" = "$real" ] || ln -sfn "$real" "$to$asked"
}

objects=()
for f in "$@"; do
  if [ -d "$from$f" ]; then
    mkdir -p "$to$f"
    cp -a "$from$f/." "$to$f/"
    while read -r o; do objects+=("${o#"$from"}"); done < <(find "$from$f" -name '*.so*' -type f)
  else
    mkdir -p "$to$(dirname "$f")"
    cp -a "$from$f" "$to$f"
    [ -L "$from$f" ] || objects+=("$f")
  fi
done
for o in "${objects[@]}"; do chroot "$from" ldd "$o" 2>/dev/null | grep -oE '/[^ ]+' || true; done | sort -u | while read -r lib; do
  [ -e "$from$lib" ] && place "$lib"
done
