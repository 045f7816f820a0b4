#!/usr/bin/env bash
# stop.sh DIR: ends what start.sh DIR started and removes etcd's data. Ends only processes whose recorded pid and start time
# still match, controller manager first, so that it never complains about a server that went away. Logs, certificates and the
# audit log stay in DIR. Idempotent: a DIR where nothing runs, or that does not exist, is no error.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=tests/apiserver/proc.sh
. "$here/proc.sh"
[ $# -eq 1 ] || { echo "usage: stop.sh DIR" >&2; exit 1; }
[ -d "$1" ] || exit 0
dir=$(readlink -f "$1")
end_recorded "$dir/kube-controller-manager.pid" 3
# with no client left the API server needs no grace: it would wait for watches of callers that still run
end_recorded "$dir/kube-apiserver.pid" 2
end_recorded "$dir/etcd.pid" 3
if [ -s "$dir/etcd-data" ]; then
  data=$(cat "$dir/etcd-data")
  case $data in /dev/shm/cupcake-etcd-*) rm -rf -- "$data" ;; esac
fi
rm -f "$dir/etcd-data" "$dir/kubeconfig"
rm -rf "$dir/certs" "$dir/certs-controller-manager"
