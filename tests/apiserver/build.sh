#!/usr/bin/env bash
# build.sh: makes sure that kube-apiserver, kube-controller-manager, kubectl and etcd can be run, and prints the folder that
# holds all four of them (programs found elsewhere are linked there), on standard output and alone.
#
# Each program is looked for, in this order:
#   1. the file named by CUPCAKE_KUBE_APISERVER, CUPCAKE_KUBE_CONTROLLER_MANAGER, CUPCAKE_KUBECTL or CUPCAKE_ETCD;
#   2. PATH (kubectl only from 1.33 on, since older ones lack flags that the tests use);
#   3. the cache;
#   4. a build from Go modules into the cache (needs only Go and its module proxy; minutes, once).
# Idempotent, atomic and safe to interrupt (gobuild.sh). Versions and the cache's place: env.sh.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=tests/apiserver/env.sh
. "$here/env.sh"
# shellcheck source=tests/apiserver/gobuild.sh
. "$here/gobuild.sh"

cached="$CUPCAKE_CACHE/bin/$CUPCAKE_KUBE_VERSION"

# kubectl_recent_enough FILE
kubectl_recent_enough() {
  local minor
  minor=$("$1" version --client 2>/dev/null | sed -n 's/^Client Version: v1\.\([0-9]*\).*/\1/p')
  [ -n "$minor" ] && [ "$minor" -ge "$CUPCAKE_KUBECTL_MINOR_MIN" ]
}

# elsewhere PROGRAM: the program by environment or PATH; nothing if it must come from the cache.
elsewhere() {
  local variable found
  variable=CUPCAKE_$(tr 'a-z-' 'A-Z_' <<<"$1")
  if [ -n "${!variable:-}" ]; then
    [ -x "${!variable}" ] || die "$variable names ${!variable}, which is not an executable file"
    readlink -f "${!variable}"
    return
  fi
  found=$(command -v "$1" || true)
  [ -n "$found" ] || return 0
  if [ "$1" = kubectl ] && ! kubectl_recent_enough "$found"; then return; fi
  readlink -f "$found"
}

build_missing() {
  local program wanted=()
  for program in "$@"; do
    case $program in
      etcd) build_module go.etcd.io/etcd/server/v3 "$CUPCAKE_ETCD_VERSION" "$CUPCAKE_CACHE/bin/etcd-$CUPCAKE_ETCD_VERSION/etcd"
        ln -sfn "../etcd-$CUPCAKE_ETCD_VERSION/etcd" "$cached/etcd" ;;
      *) wanted+=("$program") ;;
    esac
  done
  build_kubernetes "$CUPCAKE_KUBE_VERSION" "$cached" "${wanted[@]}"
}

declare -A outside=()
inside=()
for program in etcd kube-apiserver kube-controller-manager kubectl; do
  found=$(elsewhere "$program")
  if [ -n "$found" ]; then outside[$program]=$found; else inside+=("$program"); fi
done

mkdir -p "$cached"
missing=()
for program in "${inside[@]}"; do [ -x "$cached/$program" ] || missing+=("$program"); done
if [ ${#missing[@]} -gt 0 ]; then
  say "building ${missing[*]} from Go modules into $cached (once; minutes)"
  with_lock "build-$CUPCAKE_KUBE_VERSION" build_missing "${missing[@]}"
fi

if [ ${#outside[@]} -eq 0 ]; then
  echo "$cached"
  exit
fi
# A folder of links whose name tells its contents, so that callers with different environments do not meet.
mixed="$CUPCAKE_CACHE/bin/mixed-$(for p in etcd kube-apiserver kube-controller-manager kubectl; do echo "$p=${outside[$p]:-$cached/$p}"; done | sha256sum | cut -c1-12)"
mkdir -p "$mixed"
for program in etcd kube-apiserver kube-controller-manager kubectl; do ln -sfn "${outside[$program]:-$cached/$program}" "$mixed/$program"; done
echo "$mixed"
