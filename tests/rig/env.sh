# shellcheck shell=bash
# Settings of the rig. Sourced, never run; every value can be set from outside. Change them only while the rig is down.
rig_home=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=tests/apiserver/env.sh
. "$rig_home/../apiserver/env.sh"

# The name marks all that the rig makes on the machine (network namespaces, cgroups, folders on tmpfs).
export RIG_NAME="${CUPCAKE_RIG_NAME:-cupcake-rig}"
# Built once and shared by all rigs / made by `rig up` and gone after `rig down`.
export RIG_CACHE="${CUPCAKE_RIG_CACHE:-$CUPCAKE_CACHE/rig}"
export RIG_RUN="${CUPCAKE_RIG_RUN:-$CUPCAKE_CACHE/rig-run/$RIG_NAME}"
# etcd's data: tmpfs, because its fsyncs would otherwise wait for the machine's disk.
export RIG_TMPFS="${CUPCAKE_RIG_TMPFS:-/dev/shm/$RIG_NAME}"

# The releases that the rig has packages and images of, oldest first; the newest gives the tools.
# 1.32.9: of newer ones of that minor the Go module proxy lacks a module (k8s.io/endpointslice).
export RIG_RELEASES="${CUPCAKE_RIG_RELEASES:-1.32.9 1.33.13 1.34.4}"
# Two of them: a fresh cluster has the first, the upgrade ends at the second.
export RIG_FROM="${CUPCAKE_RIG_FROM:-1.33.13}"
export RIG_TO="${CUPCAKE_RIG_TO:-1.34.4}"
# The Debian revision that packages in the Kubernetes repositories carry.
export RIG_REVISION="${CUPCAKE_RIG_REVISION:-1.1}"
export RIG_CNI_VERSION="${CUPCAKE_RIG_CNI_VERSION:-1.7.1}"
export RIG_DEBIAN="${CUPCAKE_RIG_DEBIAN:-bookworm}"
# Where the Go module proxy lacks the version that kubeadm asks for, "ASKED=BUILT" pairs name the one that stands in under its tag.
export RIG_ETCD_STAND_INS="${CUPCAKE_RIG_ETCD_STAND_INS:-3.5.24=3.5.23}"

# Addresses, all inside the rig's own network namespaces: the bridge is .1 (load balancer :6443, repositories :8080),
# control plane N is .(10+N), worker N is .(20+N); the pods of a node live in 10.244.<last number of the node>.0/24.
export RIG_NET="${CUPCAKE_RIG_NET:-10.99.0}"
export RIG_POD_CIDR="${CUPCAKE_RIG_POD_CIDR:-10.244.0.0/16}"
export RIG_SERVICE_CIDR="${CUPCAKE_RIG_SERVICE_CIDR:-10.96.0.0/16}"
