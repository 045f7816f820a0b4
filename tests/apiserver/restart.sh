#!/usr/bin/env bash
# restart.sh DIR PROGRAM [SECONDS]: kills one program of start.sh DIR (etcd, kube-apiserver or kube-controller-manager) with -9,
# leaves it away for SECONDS (default 0), starts it again with the same arguments on the same data, and returns when the API
# server is ready. Ends only the process whose recorded pid and start time still match.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=tests/apiserver/env.sh
. "$here/env.sh"
# shellcheck source=tests/apiserver/proc.sh
. "$here/proc.sh"

[ $# -ge 2 ] && [ -s "$1/$2.command" ] || {
  echo "usage: restart.sh DIR etcd|kube-apiserver|kube-controller-manager [SECONDS], after start.sh DIR" >&2
  exit 1
}
dir=$(readlink -f "$1")
program=$2
pid=$(recorded_pid "$dir/$program.pid") || {
  echo "$program does not run in $dir" >&2
  exit 1
}
kill -9 "$pid"
while recorded_pid "$dir/$program.pid" >/dev/null; do sleep 0.02; done
sleep "${3:-0}"
launch_recorded "$dir" "$program"
IFS= read -r -d '' server <"$dir/kube-apiserver.command"
for ((i = 0; i < 600; i++)); do
  recorded_pid "$dir/$program.pid" >/dev/null || {
    echo "$program ended: $(tail -n 5 "$dir/$program.log")" >&2
    exit 1
  }
  [ "$("$(dirname "$server")/kubectl" --kubeconfig "$dir/kubeconfig" get --raw /readyz 2>/dev/null)" = ok ] && exit
  sleep 0.1
done
echo "the API server did not get ready within 60 s after the restart of $program: see $dir/kube-apiserver.log" >&2
exit 1
