#!/usr/bin/env bash
# start.sh DIR: starts etcd, kube-apiserver and kube-controller-manager on loopback and returns when the API server is ready
# (about 3 s), or fails with the reason and leaves nothing running.
#
# Leaves in DIR: kubeconfig (an administrator; embeds certificate authority and token), etcd.pid, kube-apiserver.pid and
# kube-controller-manager.pid (each "PID STARTTIME", see proc.sh), one log a program, audit.log (one JSON line for each
# accepted or refused write, metadata only). Prints the path of the kubeconfig. Called again while the three run, it only
# prints that path. restart.sh kills one of them and starts it again; stop.sh DIR ends all of it.
#
# What is on: RBAC, ValidatingAdmissionPolicy and all other default admission but ServiceAccount (nothing creates default
# service accounts here), a service-account issuer (kubectl create token works, bound to a pod too). Of all controllers only
# disruption (status of PodDisruptionBudgets, which evictions need) and garbage collection (owner references) run; there are
# no nodes, no scheduler, no kubelets. With CUPCAKE_API_CONTROLLERS=none in the environment not even these two run. Etcd's data
# is on tmpfs and never synced: a power cut loses it, a kill does not.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=tests/apiserver/env.sh
. "$here/env.sh"
# shellcheck source=tests/apiserver/gobuild.sh
. "$here/gobuild.sh"
# shellcheck source=tests/apiserver/proc.sh
. "$here/proc.sh"

[ $# -eq 1 ] || die "usage: start.sh DIR"
mkdir -p "$1"
dir=$(readlink -f "$1")
programs=(etcd kube-apiserver kube-controller-manager)
if [ "${CUPCAKE_API_CONTROLLERS:-}" = none ]; then programs=(etcd kube-apiserver); fi

running=0
for p in "${programs[@]}"; do if recorded_pid "$dir/$p.pid" >/dev/null; then running=$((running + 1)); fi; done
if [ "$running" -eq ${#programs[@]} ] && [ -s "$dir/kubeconfig" ]; then
  echo "$dir/kubeconfig"
  exit
fi
"$here/stop.sh" "$dir"
command -v openssl >/dev/null || die "openssl is missing: install it (it makes the service-account key)"
bin=$("$here/build.sh")

# free_port: a loopback port below the ephemeral range that nobody listens on now. Somebody may take it before we bind it;
# the caller tries again with another one then.
free_port() {
  local port hex
  while :; do
    port=$((20000 + RANDOM % 12000))
    hex=$(printf '%04X' "$port")
    grep -qsE "^ *[0-9]+: [0-9A-F]+:$hex " /proc/net/tcp /proc/net/tcp6 || break
  done
  echo "$port"
}

# launch PROGRAM ARGS...: starts it, from an empty log, and keeps its command for restart.sh.
launch() {
  local program=$1
  shift
  rm -f "$dir/$program.log"
  printf '%s\0' "$bin/$program" "$@" >"$dir/$program.command"
  launch_recorded "$dir" "$program"
}

# start_all: one attempt; fails if a program ended (its log says why) or the API server is not ready within 60 s.
start_all() {
  local api client peer controller data i p
  api=$(free_port) client=$(free_port) peer=$(free_port) controller=$(free_port)
  data=$(mktemp -d /dev/shm/cupcake-etcd-XXXXXXXX)
  echo "$data" >"$dir/etcd-data"
  launch etcd --name default --data-dir "$data/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
    --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
    --initial-cluster "default=http://127.0.0.1:$peer"
  launch kube-apiserver --etcd-servers "http://127.0.0.1:$client" --bind-address 127.0.0.1 --secure-port "$api" \
    --cert-dir "$dir/certs" --token-auth-file "$dir/tokens.csv" --authorization-mode RBAC --allow-privileged \
    --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$dir/service-account.key" \
    --service-account-signing-key-file "$dir/service-account.key" --disable-admission-plugins ServiceAccount \
    --service-cluster-ip-range 10.0.0.0/24 --endpoint-reconciler-type none --profiling=false \
    --audit-policy-file "$dir/audit-policy.yaml" --audit-log-path "$dir/audit.log"
  # the server writes its certificate (with the authority that signed it) within the first moments
  for ((i = 0; i < 200; i++)); do
    [ -s "$dir/certs/apiserver.crt" ] && break
    recorded_pid "$dir/kube-apiserver.pid" >/dev/null || return 1
    sleep 0.05
  done
  cat >"$dir/kubeconfig.part" <<C
apiVersion: v1
kind: Config
current-context: cupcake-test
clusters:
- name: cupcake-test
  cluster: {server: "https://127.0.0.1:$api", certificate-authority-data: $(base64 -w0 "$dir/certs/apiserver.crt")}
users:
- name: admin
  user: {token: $(cut -d, -f1 "$dir/tokens.csv")}
contexts:
- name: cupcake-test
  context: {cluster: cupcake-test, user: admin}
C
  mv -f "$dir/kubeconfig.part" "$dir/kubeconfig"
  if [ "${CUPCAKE_API_CONTROLLERS:-}" != none ]; then
    launch kube-controller-manager --kubeconfig "$dir/kubeconfig" --bind-address 127.0.0.1 --secure-port "$controller" \
      --cert-dir "$dir/certs-controller-manager" --leader-elect=false --controllers disruption-controller,garbage-collector-controller
  fi
  for ((i = 0; i < 600; i++)); do
    for p in "${programs[@]}"; do recorded_pid "$dir/$p.pid" >/dev/null || return 1; done
    [ "$("$bin/kubectl" --kubeconfig "$dir/kubeconfig" get --raw /readyz 2>/dev/null)" = ok ] && return 0
    sleep 0.1
  done
  return 1
}

trap '"$here/stop.sh" "$dir"; exit 1' ERR INT TERM
umask 077
openssl genrsa -out "$dir/service-account.key" 2048 2>/dev/null
printf '%s,admin,admin,"system:masters"\n' "$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')" >"$dir/tokens.csv"
cat >"$dir/audit-policy.yaml" <<'C'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: None
  verbs: [get, list, watch]
- level: Metadata
C
for attempt in 1 2 3; do
  if start_all; then
    trap - ERR INT TERM
    echo "$dir/kubeconfig"
    exit
  fi
  reason=$(for p in "${programs[@]}"; do recorded_pid "$dir/$p.pid" >/dev/null || { echo "$p ended:"; tail -n 5 "$dir/$p.log" 2>/dev/null; }; done)
  "$here/stop.sh" "$dir"
  # only a port that somebody took meanwhile is worth another attempt
  grep -q 'address already in use' <<<"$reason" || break
  say "attempt $attempt: a port was taken meanwhile, trying others"
done
trap - ERR INT TERM
die "the API server did not get ready: ${reason:-no answer from /readyz within 60 s, see $dir/kube-apiserver.log}"
