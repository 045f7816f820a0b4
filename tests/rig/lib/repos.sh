# shellcheck shell=bash
# Debian repositories as pkgs.k8s.io lays them out: one per minor, signed, packages named like VERSION-REVISION. Sourced, never run.
#
# $RIG_CACHE/repos: www/core:/stable:/vX.Y/deb/ (served as https://pkgs.k8s.io inside the rig), www/lacking/core:/stable:/vX.Y/deb/ (a
# mirror whose minors are a minor behind), keyring.gpg (the public key), and
# ca.crt, tls.crt, tls.key of the server that plays pkgs.k8s.io. Keys are made for this cache only.

# deb STAGE VERSION DEPENDS OUTDIR: packs the folder STAGE, whose name is the package's.
deb() {
  local stage=$1 version=$2 depends=$3 out=$4 name
  name=$(basename "$stage")
  mkdir -p "$stage/DEBIAN"
  {
    printf 'Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: CUPCAKE test rig <rig@cupcake.test>\n' "$name" "$version"
    [ -z "$depends" ] || printf 'Depends: %s\n' "$depends"
    printf 'Section: misc\nPriority: optional\nDescription: %s, built for the test rig\n' "$name"
  } >"$stage/DEBIAN/control"
  dpkg-deb -Zgzip -z1 --root-owner-group --build "$stage" "$out/${name}_${version}_amd64.deb" >/dev/null
}

# kubelet_unit / kubeadm_dropin: the units that the packages bring.
kubelet_unit() {
  cat <<'U'
[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
U
}

kubeadm_dropin() {
  cat <<'U'
# Note: This dropin only works with kubeadm and kubelet v1.11+
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
# This is a file that "kubeadm init" and "kubeadm join" generates at runtime, populating the KUBELET_KUBEADM_ARGS variable dynamically
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
# This is a file that the user can use for overrides of the kubelet args as a last resort.
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
U
}

# kubelet_postinst: enabled on first install; an upgrade only reloads the units, the restart stays the administrator's.
kubelet_postinst() {
  cat <<'U'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
if [ -z "$2" ]; then
  systemctl enable kubelet.service >/dev/null 2>&1 || true
  if [ -d /run/systemd/system ]; then systemctl start --no-block kubelet.service || true; fi
fi
U
}

# minor_packages VERSION OUTDIR WORK: the five packages of one minor.
minor_packages() {
  local version=$1 out=$2 work=$3 b deps
  b=$(bin "$version")
  mkdir -p "$out" "$work"/{cri-tools,kubectl,kubeadm,kubelet}/usr/bin "$work/kubernetes-cni/opt/cni/bin" \
    "$work"/kubelet/usr/lib/systemd/system "$work/kubeadm/usr/lib/systemd/system/kubelet.service.d" \
    "$work"/kubelet/{DEBIAN,var/lib/kubelet,etc/kubernetes/manifests}
  cp "$CUPCAKE_CACHE/bin/rig/crictl" "$work/cri-tools/usr/bin/"
  deb "$work/cri-tools" "${version%.*}.0-$RIG_REVISION" "" "$out"
  cp "$CUPCAKE_CACHE/bin/cni-$RIG_CNI_VERSION"/* "$work/kubernetes-cni/opt/cni/bin/"
  deb "$work/kubernetes-cni" "$RIG_CNI_VERSION-$RIG_REVISION" "" "$out"
  cp "$b/kubectl" "$work/kubectl/usr/bin/"
  deb "$work/kubectl" "$version-$RIG_REVISION" "" "$out"
  cp "$b/kubeadm" "$work/kubeadm/usr/bin/"
  kubeadm_dropin >"$work/kubeadm/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf"
  deb "$work/kubeadm" "$version-$RIG_REVISION" "cri-tools (>= 1.30.0)" "$out"
  cp "$b/kubelet" "$work/kubelet/usr/bin/"
  kubelet_unit >"$work/kubelet/usr/lib/systemd/system/kubelet.service"
  kubelet_postinst >"$work/kubelet/DEBIAN/postinst"
  chmod 755 "$work/kubelet/DEBIAN/postinst"
  deps="iptables (>= 1.4.21), kubernetes-cni (>= 1.2.0), iproute2, mount, util-linux, ethtool, conntrack, ebtables, socat"
  deb "$work/kubelet" "$version-$RIG_REVISION" "$deps" "$out"
}

# index DIR MINOR GNUPGHOME: Packages, Release and its signatures.
index() (
  cd "$1" || exit 1
  apt-ftparchive packages . >Packages
  gzip -kf Packages
  apt-ftparchive -o "APT::FTPArchive::Release::Origin=obs://build.opensuse.org/isv:kubernetes:core:stable:v$2/deb" \
    -o "APT::FTPArchive::Release::Label=isv:kubernetes:core:stable:v$2" release . >Release.part
  mv Release.part Release
  gpg --homedir "$3" --batch --yes --clearsign -o InRelease Release
  gpg --homedir "$3" --batch --yes --armor --detach-sign -o Release.gpg Release
)

# server_certificate DIR: an authority and a certificate for pkgs.k8s.io, for ten years.
server_certificate() (
  cd "$1" || exit 1
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj '/CN=CUPCAKE test rig' -keyout ca.key -out ca.crt
  openssl req -newkey rsa:2048 -nodes -subj /CN=pkgs.k8s.io -keyout tls.key -out tls.csr
  printf 'subjectAltName=DNS:pkgs.k8s.io\n' >tls.ext
  openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile tls.ext -out tls.crt
  rm -f tls.csr tls.ext ca.key ca.srl
)

build_repos() {
  local part="$RIG_CACHE/repos.part" work="$RIG_CACHE/repos.work" version input minor older=""
  input="$RIG_RELEASES $RIG_REVISION $RIG_CNI_VERSION $(digest "$rig_home/lib/repos.sh" "$rig_home/progs/crictl/main.go")"
  current repos "$input" && return 0
  say "repositories: $RIG_RELEASES"
  rm -rf --one-file-system "$part" "$work"
  mkdir -p "$part/www" "$work/gnupg"
  chmod 700 "$work/gnupg"
  (
    gpg --homedir "$work/gnupg" --batch --passphrase '' --quick-gen-key 'CUPCAKE test rig <rig@cupcake.test>' rsa2048 sign never
    gpg --homedir "$work/gnupg" --batch --export >"$part/keyring.gpg"
    server_certificate "$part"
    for version in $RIG_RELEASES; do
      minor=${version%.*}
      minor_packages "$version" "$part/www/core:/stable:/v$minor/deb" "$work/$version"
      index "$part/www/core:/stable:/v$minor/deb" "$minor" "$work/gnupg"
      # a mirror that stays a minor behind: its repository of this minor is there, signed, and lacks the version
      mkdir -p "$part/www/lacking/core:/stable:/v$minor"
      cp -al "$part/www/core:/stable:/v${older:-$minor}/deb" "$part/www/lacking/core:/stable:/v$minor/deb"
      older=$minor
    done
  ) >"$RIG_CACHE/repos.log" 2>&1 || die "the repositories failed, see $RIG_CACHE/repos.log"
  # the agent that gpg started for this key
  gpgconf --homedir "$work/gnupg" --kill gpg-agent 2>/dev/null || true
  rm -rf --one-file-system "$work"
  publish repos "$input"
}
