# shellcheck shell=bash
# The cluster: up, down, status. Sourced, never run.

# rig_kubectl ARGS...: from the machine, as a program outside would reach the cluster.
rig_kubectl() { "$(bin "$RIG_TO")/kubectl" --kubeconfig "$RIG_RUN/kubeconfig" "$@"; }

# lap NAME: prints what took how long since the last lap.
lap_start=$EPOCHREALTIME
lap() {
  local now=$EPOCHREALTIME
  awk -v name="$1" -v a="$lap_start" -v b="$now" 'BEGIN { printf "%-42s %6.1f s\n", name, b - a }' >&2
  lap_start=$now
}

kubeadm_config() { # CERTIFICATE_KEY
  cat <<C
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
certificateKey: $1
localAPIEndpoint: {advertiseAddress: $(address cp1)}
nodeRegistration:
  criSocket: unix:///run/containerd/containerd.sock
  imagePullPolicy: IfNotPresent
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v$RIG_FROM
clusterName: $RIG_NAME
controlPlaneEndpoint: "$RIG_NET.1:6443"
networking: {podSubnet: "$RIG_POD_CIDR", serviceSubnet: "$RIG_SERVICE_CIDR"}
# programs of the machine come in at a loopback address
apiServer: {certSANs: ["127.0.0.1"]}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: systemd
failCgroupV1: false
# the nodes share the machine's disk, whose filling level is not theirs; images cannot be pulled again
imageGCHighThresholdPercent: 100
evictionHard: {nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
# the machine's conntrack limits are not ours to set
conntrack: {maxPerCore: 0}
C
}

# kubeconfigs: kubeconfig for programs of the machine, kubeconfig-nodes for programs on the nodes and in the rig's namespace.
write_kubeconfigs() {
  node_exec cp1 cat /etc/kubernetes/admin.conf >"$RIG_RUN/kubeconfig-nodes.part"
  sed "s|server: https://.*|server: https://$(cat "$RIG_RUN/endpoint")|" "$RIG_RUN/kubeconfig-nodes.part" >"$RIG_RUN/kubeconfig.part"
  chmod 600 "$RIG_RUN"/kubeconfig*.part
  mv -f "$RIG_RUN/kubeconfig-nodes.part" "$RIG_RUN/kubeconfig-nodes"
  mv -f "$RIG_RUN/kubeconfig.part" "$RIG_RUN/kubeconfig"
}

# in_parallel FUNCTION NODE...: FUNCTION NODE for all of them at once; fails if one fails.
in_parallel() {
  local function=$1 node failed=0 pids=()
  shift
  for node in "$@"; do
    "$function" "$node" &
    pids+=($!)
  done
  for node in "${pids[@]}"; do wait "$node" || failed=1; done
  return "$failed"
}

join() { # NODE
  local control_plane=()
  case $1 in cp*) control_plane=(--control-plane --certificate-key "$(cat "$RIG_RUN/certificate-key")") ;; esac
  # shellcheck disable=SC2046
  node_exec "$1" $(cat "$RIG_RUN/join-command") --ignore-preflight-errors=HTTPProxyCIDR "${control_plane[@]}" >"$(node_dir "$1")/join.log" 2>&1 ||
    die "$1 could not join, see $(node_dir "$1")/join.log"
}

cluster_make() { # CONTROL_PLANES WORKERS
  local i node nodes=() control_planes=() workers=()
  for ((i = 1; i <= $1; i++)); do control_planes+=("cp$i"); done
  for ((i = 1; i <= $2; i++)); do workers+=("w$i"); done
  nodes=("${control_planes[@]}" "${workers[@]}")
  lap_start=$EPOCHREALTIME # the time of a build is not the time of `up`
  net_up
  repo_server_up
  load_balancer_up "${control_planes[@]}"
  for node in "${nodes[@]}"; do node_create "$node"; done
  lap "files of ${#nodes[@]} nodes"
  # one after the other as far as state and cgroups are written, which is quick; booting is waited for in parallel
  for node in "${nodes[@]}"; do node_prepare "$node"; done
  in_parallel node_start "${nodes[@]}"
  lap "${#nodes[@]} nodes booted"
  od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$RIG_RUN/certificate-key"
  kubeadm_config "$(cat "$RIG_RUN/certificate-key")" | node_exec cp1 sh -c 'umask 077; cat >/root/kubeadm.yaml'
  # kubeadm 1.32.9 asks for proxies by an address in brackets, which Go's newer net/url does not parse; the machine has none
  node_exec cp1 kubeadm init --config /root/kubeadm.yaml --upload-certs --ignore-preflight-errors=HTTPProxyCIDR >"$RIG_RUN/init.log" 2>&1 || die "kubeadm init failed, see $RIG_RUN/init.log"
  write_kubeconfigs
  lap "kubeadm init on cp1"
  node_exec cp1 kubeadm token create --print-join-command >"$RIG_RUN/join-command"
  for node in "${control_planes[@]:1}"; do
    join "$node"
    lap "kubeadm join of $node"
  done
  if [ ${#workers[@]} -gt 0 ]; then
    in_parallel join "${workers[@]}"
    lap "kubeadm join of ${#workers[@]} workers"
  else
    # without workers, the pods have to run somewhere
    rig_kubectl taint node --all node-role.kubernetes.io/control-plane- >/dev/null
  fi
  rig_kubectl wait --for=condition=Ready node --all --timeout=120s >/dev/null
  rig_kubectl -n kube-system rollout status daemonset/kube-proxy --timeout=120s >/dev/null
  rig_kubectl -n kube-system rollout status deployment/coredns --timeout=180s >/dev/null
  lap "all nodes Ready, CoreDNS and kube-proxy up"
}

shape() { echo "$1 control planes, $2 workers at $RIG_FROM"; }

cluster_up() { # CONTROL_PLANES WORKERS
  local node whole=1
  if [ "$(cat "$RIG_RUN/up" 2>/dev/null)" = "$(shape "$@")" ]; then
    for node in $(remembered node); do node_pid "$node" >/dev/null || whole=0; done
    if [ "$whole" = 1 ]; then
      say "already up: $(shape "$@") (rig down first, or rig up --fresh, for a new one)"
      return 0
    fi
  fi
  cluster_down
  mkdir -p "$RIG_RUN"
  cluster_make "$@"
  shape "$@" >"$RIG_RUN/up"
}

# cluster_down: all that the state lists, in reverse order of making; then says what could not be removed, if anything.
cluster_down() {
  local thing failed=0
  [ -d "$RIG_RUN" ] || return 0
  rm -f "$RIG_RUN/up"
  for thing in $(remembered node); do node_remove "$thing"; done
  end_recorded "$RIG_RUN/lb.pid"
  end_recorded "$RIG_RUN/repo-server.pid"
  for thing in $(remembered netns | tac); do net_remove "$thing"; done
  for thing in $(remembered mount); do mount_remove "$thing"; done
  for thing in $(remembered cgroup | tac); do if cgroup_remove "$thing"; then forget cgroup "$thing"; else failed=1; fi; done
  for thing in $(remembered tmpfs); do rm -rf --one-file-system "$thing" && forget tmpfs "$thing"; done
  [ "$failed" = 0 ] || die "not everything could be removed; rig down can be repeated"
  rm -rf --one-file-system "$RIG_RUN"
}

cluster_status() {
  local node pid
  if [ ! -e "$RIG_RUN/state" ]; then
    echo "down"
    return
  fi
  cat "$RIG_RUN/up" 2>/dev/null || echo "not whole (rig up makes it again)"
  printf '%-6s %-12s %-10s %s\n' NODE ADDRESS INIT-PID KUBELET
  for node in $(remembered node); do
    if pid=$(node_pid "$node"); then
      printf '%-6s %-12s %-10s %s\n' "$node" "$(address "$node")" "$pid" "$(node_exec "$node" systemctl is-active kubelet 2>/dev/null || true)"
    else
      printf '%-6s %-12s %-10s %s\n' "$node" "$(address "$node")" off -
    fi
  done
  [ -s "$RIG_RUN/kubeconfig" ] && rig_kubectl --request-timeout=3s get nodes -o wide 2>&1
  return 0
}
