# shellcheck shell=bash
# Images under the very names that kubeadm asks for, and a containerd store that already holds them. Sourced, never run.
#
# The content of an image is the program built from its Go module, where the original's binaries would be; kube-proxy also
# has the iptables, nft and conntrack of the base. rig.test/tools:1 is busybox, for workloads.

# archive OUT NAME ROOT [ENTRYPOINT...]
archive() { python3 "$rig_home/progs/image.py" "$RIG_CACHE/images.part/$1.tar" "${@:2}"; }

# skeleton ROOT: what a distroless image has.
skeleton() {
  mkdir -p "$1"/{etc/ssl/certs,tmp,usr/local/bin}
  chmod 1777 "$1/tmp"
  printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532::/:/sbin/nologin\n' >"$1/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' >"$1/etc/group"
}

kube_proxy_root() { # ROOT VERSION
  local root=$1 x
  skeleton "$root"
  cp "$(bin "$2")/kube-proxy" "$root/usr/local/bin/"
  "$rig_home/progs/copy-with-libs.sh" "$RIG_CACHE/base" "$root" /usr/sbin/xtables-nft-multi /usr/sbin/xtables-legacy-multi \
    /usr/sbin/nft /usr/sbin/conntrack /usr/lib/x86_64-linux-gnu/xtables
  for x in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    ln -sf xtables-nft-multi "$root/usr/sbin/$x"
    ln -sf xtables-nft-multi "$root/usr/sbin/${x/tables/tables-nft}"
    ln -sf xtables-legacy-multi "$root/usr/sbin/${x/tables/tables-legacy}"
  done
  mkdir -p "$root/run"
  cp "$RIG_CACHE/base"/etc/{protocols,services,nsswitch.conf} "$root/etc/" 2>/dev/null || true
}

tools_root() { # ROOT
  local applet busybox="$RIG_CACHE/busybox"
  if [ ! -x "$busybox/bin/busybox" ]; then
    mkdir -p "$busybox"
    # as _apt would not be allowed into this folder, apt-get warns that it downloads as root
    (cd "$busybox" && apt-get download busybox-static 2>/dev/null && dpkg-deb -x busybox-static_*.deb .)
  fi
  skeleton "$1"
  mkdir -p "$1/bin"
  cp "$busybox/bin/busybox" "$1/bin/"
  for applet in $("$busybox/bin/busybox" --list); do [ "$applet" = busybox ] || ln -sf busybox "$1/bin/$applet"; done
}

write_images() { # WORK
  local work=$1 version tag module component root
  for version in $RIG_RELEASES; do
    tag=$(wanted_image "$version" pause)
    mkdir -p "$work/pause-$version"
    cp "$CUPCAKE_CACHE/bin/rig/pause" "$work/pause-$version/pause"
    archive "pause-$tag" "registry.k8s.io/pause:$tag" "$work/pause-$version" /pause
    tag=$(wanted_image "$version" etcd)
    module=$(etcd_module "${tag%-*}")
    root="$work/etcd-$version"
    skeleton "$root"
    mkdir -p "$root/var/lib/etcd"
    cp "$CUPCAKE_CACHE/bin/etcd-$module/etcd" "$(etcd_tools)"/etcd* "$root/usr/local/bin/"
    archive "etcd-$tag" "registry.k8s.io/etcd:$tag" "$root"
    tag=$(wanted_image "$version" coredns/coredns)
    root="$work/coredns-$version"
    skeleton "$root"
    cp "$CUPCAKE_CACHE/bin/coredns-${tag#v}/coredns" "$root/coredns"
    archive "coredns-$tag" "registry.k8s.io/coredns/coredns:$tag" "$root" /coredns
    for component in kube-apiserver kube-controller-manager kube-scheduler; do
      root="$work/$component-$version"
      skeleton "$root"
      cp "$(bin "$version")/$component" "$root/usr/local/bin/"
      archive "$component-$version" "registry.k8s.io/$component:v$version" "$root"
    done
    kube_proxy_root "$work/kube-proxy-$version" "$version"
    archive "kube-proxy-$version" "registry.k8s.io/kube-proxy:v$version" "$work/kube-proxy-$version"
  done
  tools_root "$work/tools"
  archive tools rig.test/tools:1 "$work/tools"
}

build_images() {
  local input work="$RIG_CACHE/images.work"
  input="$RIG_RELEASES $RIG_ETCD_STAND_INS $(digest "$rig_home/lib/images.sh" "$rig_home/progs/pause/main.go" "$rig_home/progs/image.py" "$rig_home/progs/copy-with-libs.sh" "$RIG_CACHE/base/.stamp")"
  current images "$input" && return 0
  say "images of $RIG_RELEASES"
  rm -rf --one-file-system "$work" "$RIG_CACHE/images.part"
  mkdir -p "$work" "$RIG_CACHE/images.part"
  write_images "$work" >"$RIG_CACHE/images.log" 2>&1 || die "the images failed, see $RIG_CACHE/images.log"
  rm -rf --one-file-system "$work"
  publish images "$input"
}

# build_store: containerd's folder with all images imported and unpacked. Done by containerd itself, in the base's root and in
# namespaces of its own, so that nothing is left when it is interrupted.
build_store() {
  local input part="$RIG_CACHE/store.part"
  input="$(digest "$RIG_CACHE/images/.stamp" "$rig_home/lib/images.sh")"
  current store "$input" && return 0
  say "store: images imported into containerd"
  rm -rf --one-file-system "$part"
  mkdir -p "$part/containerd"
  unshare --mount --pid --net --ipc --fork --kill-child --propagation private bash -euo pipefail -c '
    root="$RIG_CACHE/store.root" part=$1
    rm -rf --one-file-system "$root"
    mkdir -p "$root"
    mount -t tmpfs tmpfs "$root"
    mkdir -p "$root"/{upper,work,root}
    mount -t overlay overlay -o "lowerdir=$RIG_CACHE/base,upperdir=$root/upper,workdir=$root/work" "$root/root"
    root="$root/root"
    mkdir -p "$root/var/lib/containerd" "$root/srv/rig"
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/run"
    mount --bind "$part/containerd" "$root/var/lib/containerd"
    mount --bind "$RIG_CACHE/images" "$root/srv/rig"
    chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -ec "
      containerd >/run/containerd.log 2>&1 & c=\$!
      for i in \$(seq 100); do ctr version >/dev/null 2>&1 && break; sleep 0.1; done
      for f in /srv/rig/*.tar; do ctr -n k8s.io images import \$f; done
      ctr -n k8s.io images ls -q
      kill \$c; wait \$c || true"
  ' store "$part" >"$RIG_CACHE/store.log" 2>&1 || die "the import failed, see $RIG_CACHE/store.log"
  rmdir "$RIG_CACHE/store.root" 2>/dev/null || true
  publish store "$input"
}
