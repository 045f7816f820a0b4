# shellcheck shell=bash
# Settings of the test grounds that need real Kubernetes programs. Sourced, never run; every value can be set from outside.

# Everything that is built or downloaded lives below this folder and may be deleted at any time.
export CUPCAKE_CACHE="${CUPCAKE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cupcake}"
# The Kubernetes release whose API server the tests talk to, and the etcd that kubeadm of that release installs.
export CUPCAKE_KUBE_VERSION="${CUPCAKE_KUBE_VERSION:-1.34.4}"
export CUPCAKE_ETCD_VERSION="${CUPCAKE_ETCD_VERSION:-3.6.5}"
# A kubectl found on PATH is used only from this minor of Kubernetes 1 on: the tests use its --subresource flags.
export CUPCAKE_KUBECTL_MINOR_MIN="${CUPCAKE_KUBECTL_MINOR_MIN:-33}"
# How many compilations Go runs side by side (builds are niced as well).
export CUPCAKE_GO_JOBS="${CUPCAKE_GO_JOBS:-$(nproc)}"
