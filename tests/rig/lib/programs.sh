# shellcheck shell=bash
# Programs of the rig, built from Go modules into the cache (gobuild.sh: idempotent, atomic, once at a time). Sourced, never run.

# bin VERSION: the folder of the Kubernetes programs of that version.
bin() { echo "$CUPCAKE_CACHE/bin/$1"; }

newest_release() { echo "${RIG_RELEASES##* }"; }

# known_release VERSION: ends unless the rig has it.
known_release() {
  [[ " $RIG_RELEASES " == *" $1 "* ]] || die "the rig has the releases $RIG_RELEASES, not $1 (CUPCAKE_RIG_RELEASES, CUPCAKE_RIG_FROM and CUPCAKE_RIG_TO name them)"
}

# wanted_image VERSION NAME: the tag that kubeadm of VERSION asks for, such as 3.6.5-0 for etcd.
wanted_image() {
  local tag
  tag=$("$(bin "$1")/kubeadm" config images list --kubernetes-version "v$1" 2>/dev/null | sed -n "s|.*/$2:||p")
  [ -n "$tag" ] || die "kubeadm $1 names no image for $2"
  echo "$tag"
}

# etcd_module VERSION: the version of etcd's modules that is built where VERSION is asked for.
etcd_module() {
  local pair
  for pair in $RIG_ETCD_STAND_INS; do
    [ "${pair%%=*}" = "$1" ] && { echo "${pair#*=}"; return; }
  done
  echo "$1"
}

# etcd_tools: the folder of etcdctl and etcdutl. All images get those of the newest release: the older ones are not to be had as
# modules, and the newer ones work with a server one minor older.
etcd_tools() {
  local tag
  tag=$(wanted_image "$(newest_release)" etcd)
  echo "$CUPCAKE_CACHE/bin/etcd-tools-${tag%-*}"
}

programs_unlocked() {
  local version tag module out prefix=github.com/containernetworking/plugins/plugins plugin tool
  for version in $RIG_RELEASES; do
    build_kubernetes "$version" "$(bin "$version")" kubeadm kubelet kubectl kube-proxy kube-scheduler kube-controller-manager kube-apiserver
  done
  for version in $RIG_RELEASES; do
    tag=$(wanted_image "$version" etcd)
    module=$(etcd_module "${tag%-*}")
    out="$CUPCAKE_CACHE/bin/etcd-$module"
    build_module go.etcd.io/etcd/server/v3 "$module" "$out/etcd"
    tag=$(wanted_image "$version" coredns/coredns)
    build_module github.com/coredns/coredns "${tag#v}" "$CUPCAKE_CACHE/bin/coredns-${tag#v}/coredns"
  done
  out=$(etcd_tools)
  for tool in etcdctl etcdutl; do build_module "go.etcd.io/etcd/$tool/v3" "${out##*-}" "$out/$tool"; done
  for plugin in main/bridge main/loopback ipam/host-local meta/portmap; do
    build_module github.com/containernetworking/plugins "$RIG_CNI_VERSION" "$CUPCAKE_CACHE/bin/cni-$RIG_CNI_VERSION/${plugin#*/}" "$prefix/$plugin"
  done
  for tool in lb pause crictl; do own_program "$tool"; done
}

# own_program NAME: progs/NAME, built again when its source is newer. crictl needs the CRI API of the Kubernetes module.
own_program() {
  local name=$1 out="$CUPCAKE_CACHE/bin/rig/$1" src="$CUPCAKE_CACHE/src/rig-$1" source="$rig_home/progs/$1/main.go"
  [ -x "$out" ] && [ "$out" -nt "$source" ] && return 0
  need_go
  mkdir -p "$src"
  if [ "$name" = crictl ]; then
    kubernetes_module "$(newest_release)" "$src"
    printf 'require k8s.io/cri-api v0.0.0\n' >>"$src/go.mod"
  else
    printf 'module cupcake.test/%s\n\ngo 1.24\n' "$name" >"$src/go.mod"
  fi
  install -m 644 "$source" "$src/main.go"
  go_build "$src" "$out" . ""
}

# build_programs: all of it.
build_programs() { with_lock rig-programs programs_unlocked; }
