# shellcheck shell=bash
# What a cluster looks like: versions, holds, images, members, as nodes and API tell it. Sourced, never run.

# nodes: their names.
nodes() { "$kubectl" get nodes -o 'jsonpath={.items[*].metadata.name}'; }

# state FILE: one line a fact, sorted, of every node, as the nodes and the API themselves tell it.
state() {
  local node
  for node in $(nodes); do
    "$kubectl" get node "$node" -o \
      'jsonpath={.metadata.name} node     kubelet {.status.nodeInfo.kubeletVersion} ready={.status.conditions[?(@.type=="Ready")].status} unschedulable={.spec.unschedulable}{"\n"}'
    "$rig" exec "$node" dpkg-query -W -f "$node package  \${Package} \${Version} \${db:Status-Want}\n" kubeadm kubectl kubelet
    "$rig" exec "$node" cupcake-host probe-machine | python3 -c '
import json, sys
pods = json.load(sys.stdin)["staticPods"]
for name in sorted(pods["manifests"]):
    print(sys.argv[1], "static  ", name, "manifest", pods["manifests"][name], "running", pods["running"].get(name))
' "$node"
  done >"$1"
  cluster_state >>"$1"
}

cluster_state() {
  "$kubectl" -n kube-system get daemonset/kube-proxy deployment/coredns -o \
    'jsonpath={range .items[*]}* addon    {.metadata.name} {.spec.template.spec.containers[0].image}{"\n"}{end}'
  "$kubectl" -n kube-system get configmap kubeadm-config -o 'jsonpath={.data.ClusterConfiguration}' |
    sed -n 's/^kubernetesVersion: /* kubeadm  kubeadm-config /p'
  etcdctl_cluster member list 2>"$logs/members.log" |
    awk -F ', ' '{ print "* member  ", $3, $1, $2, "learner=" $6 }' | sort
}

# at_target AFTER BEFORE [CORDONED]: fails with the lines that are not as they have to be. CORDONED is a node that somebody else cordoned.
at_target() {
  local wrong members
  wrong=$(grep -vE "^\S+ node +kubelet v$RIG_TO ready=True unschedulable=$" "$1" |
    grep -vE "^${3:--} node +kubelet v$RIG_TO ready=True unschedulable=true$" |
    grep -vE "^\S+ package +\S+ $RIG_TO-\S+ hold$" |
    grep -vE "^\S+ static +kube-\S+ manifest v$RIG_TO running v$RIG_TO$" |
    grep -vE "^\S+ static +etcd manifest (\S+) running \1$" |
    grep -vE "^\* addon +kube-proxy \S+:v$RIG_TO$" |
    grep -vE "^\* addon +coredns " |
    grep -vE "^\* kubeadm +kubeadm-config v$RIG_TO$" |
    grep -vE "^\* member +\S+ \S+ started learner=false$" || true)
  [ -z "$wrong" ] || { say "not at the target:" && echo "$wrong" >&2 && return 1; }
  # etcd's members, by name and id, are those of before
  members=$(grep '^\* member ' "$1" || true)
  if [ -z "$members" ] || [ "$members" != "$(grep '^\* member ' "$2")" ]; then
    say "etcd's members were others before, or cannot be read"
    return 1
  fi
}

# more_facts FILE: what else an upgrade changes or has to leave: certificates, kubeadm's and the kubelets' configuration, etcd's versions, the
# repository of each node. For people, and compared by nobody.
more_facts() {
  local node
  {
    for node in $(nodes); do
      echo "--- $node: repository"
      "$rig" exec "$node" cat /etc/apt/sources.list.d/kubernetes.list
      case $node in
        cp*)
          echo "--- $node: certificates"
          "$rig" exec "$node" kubeadm certs check-expiration 2>/dev/null | sed -n 's/  *$//; /^[a-zA-Z]/p'
          ;;
      esac
    done
    echo "--- kubeadm-config"
    "$kubectl" -n kube-system get configmap kubeadm-config -o 'jsonpath={.data.ClusterConfiguration}'
    echo "--- kubelet-config"
    "$kubectl" -n kube-system get configmap kubelet-config -o 'jsonpath={.data.kubelet}'
    echo "--- etcd"
    etcdctl_cluster endpoint status --cluster
  } >"$1" 2>&1 || true
}

# etcdctl_cluster ARGUMENTS...: in the pod of cp1.
etcdctl_cluster() {
  "$kubectl" -n kube-system exec etcd-cp1 -- etcdctl --cacert=/etc/kubernetes/pki/etcd/ca.crt --cert=/etc/kubernetes/pki/etcd/server.crt \
    --key=/etc/kubernetes/pki/etcd/server.key "$@"
}
