# shellcheck shell=bash
# Root file systems of the nodes. Sourced, never run.
#
# A node's root is overlay(own changes, node layer, base): the base is Debian with systemd, containerd and runc; the node layer
# adds the settings below and the Kubernetes packages of one release (RIG_FROM), installed by dpkg and held. Each appears under its name only
# when complete, together with a stamp of what it was made from; a changed input builds it again.

base_packages=systemd,systemd-sysv,dbus,iproute2,iptables,nftables,containerd,runc,kmod,ethtool,socat,conntrack,curl,ca-certificates,procps,util-linux,mount,ebtables,iputils-ping,gpg,less,jq,openssl

# current NAME INPUT: whether $RIG_CACHE/NAME was made from INPUT.
current() { [ "$(cat "$RIG_CACHE/$1/.stamp" 2>/dev/null)" = "$2" ]; }

# publish NAME INPUT: the finished folder NAME.part takes the place of NAME.
publish() {
  printf '%s' "$2" >"$RIG_CACHE/$1.part/.stamp"
  rm -rf --one-file-system "${RIG_CACHE:?}/$1"
  mv "$RIG_CACHE/$1.part" "$RIG_CACHE/$1"
}

# digest FILE...: one hash of the contents.
digest() { cat "$@" | sha256sum | cut -c1-16; }

build_base() {
  local input="$RIG_DEBIAN $base_packages" part="$RIG_CACHE/base.part" mirror
  current base "$input" && return 0
  say "base: Debian $RIG_DEBIAN by debootstrap"
  # the mirror that this machine itself uses
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -n 1)
  rm -rf --one-file-system "$part"
  mkdir -p "$part"
  debootstrap --variant=minbase "--include=$base_packages" "$RIG_DEBIAN" "$part" "$mirror" >"$RIG_CACHE/base.log" 2>&1 ||
    die "debootstrap failed, see $RIG_CACHE/base.log"
  rm -rf "$part"/var/cache/apt/archives/*.deb "$part"/var/lib/apt/lists/*
  publish base "$input"
}

# Units that have no place in a namespace of a shared kernel.
masked_units="systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-udev-trigger.service
 systemd-timesyncd.service getty@tty1.service console-getty.service getty.target apt-daily.timer apt-daily-upgrade.timer
 dpkg-db-backup.timer e2scrub_all.timer fstrim.timer systemd-remount-fs.service dev-hugepages.mount dev-mqueue.mount
 sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount
 systemd-modules-load.service kmod-static-nodes.service systemd-sysctl.service systemd-journald-audit.socket
 systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-networkd-wait-online.service systemd-firstboot.service"

# node_settings ROOT: what every node has before any package of Kubernetes.
node_settings() {
  local r=$1 unit
  for unit in $masked_units; do ln -sfn /dev/null "$r/etc/systemd/system/$unit"; done
  ln -sfn /lib/systemd/system/multi-user.target "$r/etc/systemd/system/default.target"
  mkdir -p "$r"/etc/systemd/{system,journald}.conf.d "$r"/etc/systemd/system/multi-user.target.wants \
    "$r"/etc/containerd "$r"/etc/cni/net.d "$r"/lib/modules "$r"/opt/cni/bin "$r"/etc/apt/keyrings "$r"/srv/rig
  ln -sfn /lib/systemd/system/containerd.service "$r/etc/systemd/system/multi-user.target.wants/containerd.service"
  # the kubelet wants the cpu and memory cgroup of a unit at the same path, which on cgroup v1 needs accounting of both
  cat >"$r/etc/systemd/system.conf.d/rig.conf" <<'C'
[Manager]
DefaultCPUAccounting=yes
DefaultMemoryAccounting=yes
DefaultTasksAccounting=yes
DefaultTasksMax=infinity
DefaultTimeoutStopSec=10s
C
  # persistent, so that the log of a boot that was cut short can be read in the next one
  cat >"$r/etc/systemd/journald.conf.d/rig.conf" <<'C'
[Journal]
Storage=persistent
SystemMaxUse=64M
ReadKMsg=no
Audit=no
RateLimitBurst=0
C
  cat >"$r/etc/containerd/config.toml" <<C
version = 2
# root of a container-like machine cannot lower oom_score_adj (no CAP_SYS_RESOURCE)
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:$(wanted_image "$RIG_FROM" pause)"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
C
  rm -f "$r/etc/apt/sources.list" "$r/etc/hostname"
  : >"$r/etc/machine-id" # each node gets its own at boot
  printf 'nameserver %s.1\noptions timeout:1 attempts:1\n' "$RIG_NET" >"$r/etc/resolv.conf"
  # the repository exactly as the Kubernetes documentation writes it
  printf 'deb [signed-by=/etc/apt/keyrings/kubernetes-apt-keyring.gpg] https://pkgs.k8s.io/core:/stable:/v%s/deb/ /\n' \
    "${RIG_FROM%.*}" >"$r/etc/apt/sources.list.d/kubernetes.list"
  cp "$RIG_CACHE/repos/keyring.gpg" "$r/etc/apt/keyrings/kubernetes-apt-keyring.gpg"
  mkdir -p "$r/usr/local/share/ca-certificates"
  cp "$RIG_CACHE/repos/ca.crt" "$r/usr/local/share/ca-certificates/rig.crt"
}

# build_node_layer: in a mount namespace of its own, so that an interrupted build leaves no mount.
build_node_layer() {
  local layer="node-$RIG_FROM" input debs
  local part="$RIG_CACHE/$layer.part"
  debs="$RIG_CACHE/repos/www/core:/stable:/v${RIG_FROM%.*}/deb"
  input="$(digest "$rig_home/lib/rootfs.sh" "$RIG_CACHE/base/.stamp" "$RIG_CACHE/repos/.stamp") $RIG_FROM $RIG_NET $RIG_REVISION"
  current "$layer" "$input" && return 0
  say "node layer: settings and packages of $RIG_FROM"
  rm -rf --one-file-system "$part" "$part.work" "$part.root"
  mkdir -p "$part" "$part.work" "$part.root"
  export -f node_settings wanted_image bin die
  export masked_units
  unshare --mount --propagation private bash -euo pipefail -c '
    part=$1 debs=$2
    mount -t overlay overlay -o "lowerdir=$RIG_CACHE/base,upperdir=$part,workdir=$part.work" "$part.root"
    node_settings "$part.root"
    mkdir -p "$part.root/tmp/debs" && cp "$debs"/*.deb "$part.root/tmp/debs/"
    chroot "$part.root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -ec "
      update-ca-certificates
      dpkg -i /tmp/debs/*.deb
      apt-mark hold kubeadm kubelet kubectl
      rm -rf /tmp/debs"
  ' build "$part" "$debs" >"$RIG_CACHE/node.log" 2>&1 || die "the node layer failed, see $RIG_CACHE/node.log"
  rm -rf --one-file-system "$part.work" "$part.root"
  publish "$layer" "$input"
}
