#!/usr/bin/env bash
# build.sh: makes sure that etcd of both minors that kubeadm brings to today's clusters, and etcdutl, can be run; prints three
# lines: etcd 3.5, etcd 3.6, etcdutl. Built from Go modules into the cache, once (tests/apiserver/gobuild.sh).
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=tests/apiserver/env.sh
. "$here/../apiserver/env.sh"
# shellcheck source=tests/apiserver/gobuild.sh
. "$here/../apiserver/gobuild.sh"

CUPCAKE_ETCD_OLD_VERSION="${CUPCAKE_ETCD_OLD_VERSION:-3.5.23}"
old="$CUPCAKE_CACHE/bin/etcd-$CUPCAKE_ETCD_OLD_VERSION/etcd"
new="$CUPCAKE_CACHE/bin/etcd-$CUPCAKE_ETCD_VERSION/etcd"
etcdutl="$CUPCAKE_CACHE/bin/etcd-tools-$CUPCAKE_ETCD_VERSION/etcdutl"

build_missing() {
  [ -x "$old" ] || build_module go.etcd.io/etcd/server/v3 "$CUPCAKE_ETCD_OLD_VERSION" "$old"
  [ -x "$new" ] || build_module go.etcd.io/etcd/server/v3 "$CUPCAKE_ETCD_VERSION" "$new"
  [ -x "$etcdutl" ] || build_module go.etcd.io/etcd/etcdutl/v3 "$CUPCAKE_ETCD_VERSION" "$etcdutl"
}

if [ ! -x "$old" ] || [ ! -x "$new" ] || [ ! -x "$etcdutl" ]; then
  need_go
  with_lock build-etcd build_missing
fi
printf '%s\n' "$old" "$new" "$etcdutl"
