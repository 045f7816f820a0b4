# shellcheck shell=bash
# Nodes. Sourced, never run. A node's files are in $RIG_RUN/nodes/NODE: changes (its root above the shared layers), containerd,
# kubelet, console.log, init.pid (systemd, as the machine sees it) and outer.pid (the unshare that waits for it).

node_dir() { echo "$RIG_RUN/nodes/$1"; }
node_known() { remembered node | grep -qxF -- "$1" || die "there is no node $1 (rig status lists them)"; }
node_pid() { recorded_pid "$(node_dir "$1")/init.pid"; }

# node_create NODE: its files, once. The containerd store is a copy by hard links: blobs and unpacked layers never change,
# only the databases are copied for real.
node_create() {
  local dir ip o
  dir=$(node_dir "$1") ip=$(address "$1") o=$(octet "$1")
  [ -e "$dir/created" ] && return 0
  remember node "$1"
  rm -rf --one-file-system "$dir"
  mkdir -p "$dir"/{changes,work,root,kubelet,settings}
  cp -al "$RIG_CACHE/store/containerd" "$dir/containerd"
  (cd "$RIG_CACHE/store/containerd" && find . -name '*.db' -exec cp --remove-destination --parents {} "$dir/containerd/" \;)
  mkdir -p "$dir/changes/etc/cni/net.d"
  echo "$1" >"$dir/changes/etc/hostname"
  printf '127.0.0.1 localhost\n%s %s\n%s.1 pkgs.k8s.io\n' "$ip" "$1" "$RIG_NET" >"$dir/changes/etc/hosts"
  cat >"$dir/changes/etc/cni/net.d/10-rig.conflist" <<C
{"cniVersion": "0.4.0", "name": "rig", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "${RIG_POD_CIDR%.*.*}.$o.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
C
  remember tmpfs "$RIG_TMPFS"
  mkdir -p "$RIG_TMPFS/$1"
  chmod 700 "$RIG_TMPFS" "$RIG_TMPFS/$1"
  # its layer stays the one it was made with, whatever the settings say when it boots again
  echo "node-$RIG_FROM" >"$dir/layer"
  touch "$dir/created"
}

# node_prepare NODE: its cable and cgroups.
node_prepare() {
  net_plug "$1"
  cgroup_make "$1"
}

# node_start NODE: boots it (also after a cut); returns when systemd says running or degraded, at most 40 s.
node_start() {
  local node=$1 dir outer inner="" children=() child ours i state=""
  dir=$(node_dir "$node")
  node_pid "$node" >/dev/null && return 0
  node_prepare "$node"
  # what a boot finds is what was on disk: the overlay's work folder is scratch
  rm -rf --one-file-system "$dir/work"
  mkdir -p "$dir/work"
  : >>"$dir/console.log"
  (
    cgroup_join "$node"
    exec setsid nsenter --net="/run/netns/$(netns "$node")" unshare --mount --uts --ipc --pid --cgroup --fork \
      --propagation private "$rig_home/lib/node-init.sh" "$node"
  ) </dev/null >>"$dir/console.log" 2>&1 9>&- &
  outer=$!
  record "$dir/outer.pid" "$outer" || die "$node did not start, see $dir/console.log"
  ours=$(readlink /proc/self/ns/pid)
  # the child counts only once it is in the new pid namespace: before that it is still a part of starting
  for ((i = 0; i < 200 && ${#inner} == 0; i++)); do
    read -r -a children <"/proc/$outer/task/$outer/children" 2>/dev/null || true
    for child in "${children[@]}"; do
      if [ "$(readlink "/proc/$child/ns/pid" 2>/dev/null || echo "$ours")" != "$ours" ]; then inner=$child; fi
    done
    sleep 0.02
  done
  { [ -n "$inner" ] && record "$dir/init.pid" "$inner"; } || die "$node did not start, see $dir/console.log"
  for ((i = 0; i < 400; i++)); do
    node_pid "$node" >/dev/null || die "$node ended while it booted, see $dir/console.log"
    state=$(node_exec "$node" systemctl is-system-running 2>/dev/null || true)
    case $state in running | degraded) return 0 ;; esac
    sleep 0.1
  done
  die "$node did not finish booting (systemd says '$state'), see $dir/console.log"
}

# node_enter NODE COMMAND...: the calling (sub)shell becomes the command, on the node as root, in the node's cgroups, with a clean
# environment; stdin, stdout, stderr and the status are the command's. When the caller is killed, so is the command (not what
# it has put into the background).
node_enter() {
  local node=$1 pid kubeconfig=()
  shift
  pid=$(node_pid "$node") || die "$node is not running (rig start $node)"
  case $node in cp*) kubeconfig=(KUBECONFIG=/etc/kubernetes/admin.conf) ;; esac
  cgroup_join "$node"
  exec nsenter --target "$pid" --mount --uts --ipc --net --pid --cgroup env -i HOME=/root LANG=C.UTF-8 \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "${kubeconfig[@]}" \
    setpriv --pdeathsig KILL -- "$@"
}

# node_exec NODE COMMAND...: the same in a subshell.
node_exec() { (node_enter "$@"); }

# node_cut NODE: power cut. Every process of the node is killed at once, nothing is written back.
node_cut() {
  local dir pid
  dir=$(node_dir "$1")
  if pid=$(node_pid "$1"); then
    kill -9 "$pid" # the first process of a pid namespace takes all others along
    settle recorded_pid "$dir/init.pid" || die "process $pid of $1 does not go"
  fi
  node_gone "$1"
}

# node_stop NODE: orderly power off, 30 s at most, then as a cut.
node_stop() {
  local dir pid i
  dir=$(node_dir "$1")
  if pid=$(node_pid "$1"); then
    kill -s RTMIN+4 "$pid" # systemd: poweroff.target
    for ((i = 0; i < 600; i++)); do
      node_pid "$1" >/dev/null || break
      sleep 0.05
    done
  fi
  node_cut "$1"
}

node_gone() {
  local dir
  dir=$(node_dir "$1")
  settle recorded_pid "$dir/outer.pid" || end_recorded "$dir/outer.pid" 1
  rm -f "$dir/init.pid" "$dir/outer.pid"
  net_remove "$(netns "$1")"
}

# node_remove NODE: cut, and all its files.
node_remove() {
  node_cut "$1"
  rm -rf --one-file-system "$(node_dir "$1")" "${RIG_TMPFS:?}/$1"
  forget node "$1"
}
