# shellcheck shell=bash
# The rig's networks. Sourced, never run.
#
# Namespace $RIG_NAME holds the bridge $RIG_NET.1/24, the repository server and the inner side of the load balancer; each node
# has a namespace of its own on that bridge. There is no way out: no route, no forwarding on the machine, no change outside.

octet() { # NODE: the last number of its address
  case $1 in
    cp[1-9]) echo $((10 + ${1#cp})) ;;
    w[1-9]) echo $((20 + ${1#w})) ;;
    *) die "a node is cp1 to cp9 or w1 to w9, not '$1'" ;;
  esac
}
address() { echo "$RIG_NET.$(octet "$1")"; }
netns() { echo "$RIG_NAME${1:+-$1}"; } # [NODE]

netns_make() { # NAME
  if [ -e "/run/netns/$1" ]; then
    remembered netns | grep -qxF "$1" || die "a network namespace $1 exists and is not ours: set CUPCAKE_RIG_NAME, or remove it (ip netns del $1)"
    return 1
  fi
  # iproute2 turns the folder of the names into a mount of its own, and leaves it
  mountpoint -q /run/netns || remember mount /run/netns
  remember netns "$1"
  ip netns add "$1"
  ip -n "$1" link set lo up
}

net_up() {
  local ns
  ns=$(netns)
  netns_make "$ns" || return 0
  ip -n "$ns" link add nodes type bridge
  ip -n "$ns" addr add "$RIG_NET.1/24" dev nodes
  ip -n "$ns" link set nodes up
  nsenter --net="/run/netns/$ns" sysctl -qw net.ipv4.ip_forward=1
}

# net_plug NODE: the namespace of the node and its cable. A namespace that was removed lets go of its cable late, so an old end
# of the same name is removed first.
net_plug() {
  local ns rig ip o
  rig=$(netns) ns=$(netns "$1") ip=$(address "$1") o=$(octet "$1")
  netns_make "$ns" || return 0
  ip -n "$rig" link del "node-$1" 2>/dev/null || true
  ip -n "$rig" link add "node-$1" type veth peer name eth0 netns "$ns"
  ip -n "$rig" link set "node-$1" master nodes up
  ip -n "$ns" addr add "$ip/24" dev eth0
  ip -n "$ns" link set eth0 up
  ip -n "$ns" route add default via "$RIG_NET.1"
  # the bridge knows where each node's pods are and sends there whatever comes from another node's pods
  ip -n "$rig" route replace "${RIG_POD_CIDR%.*.*}.$o.0/24" via "$ip"
  nsenter --net="/run/netns/$ns" sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0
  nsenter --net="/run/netns/$ns" sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true
}

net_remove() { # NAME
  if [ -e "/run/netns/$1" ]; then ip netns del "$1"; fi
  forget netns "$1"
}

# mount_remove PATH: only the folder of the names, and only when nobody has a name in it any more.
mount_remove() {
  if [ "$1" = /run/netns ] && mountpoint -q /run/netns && [ -z "$(ls -A /run/netns)" ]; then umount /run/netns; fi
  forget mount "$1"
}

# Servers in the rig's namespace.
repo_server_up() {
  recorded_pid "$RIG_RUN/repo-server.pid" >/dev/null && return 0
  setsid nsenter --net="/run/netns/$(netns)" python3 "$rig_home/progs/repo-server.py" "$RIG_NET.1" "$RIG_CACHE/repos/www" \
    "$RIG_CACHE/repos/tls.crt" "$RIG_CACHE/repos/tls.key" >"$RIG_RUN/repo-server.log" 2>&1 </dev/null 9>&- &
  record "$RIG_RUN/repo-server.pid" $! || die "the repository server ended at once, see $RIG_RUN/repo-server.log"
}

# load_balancer_up CONTROL_PLANE...: at $RIG_NET.1:6443 for the nodes and at a free loopback port for the machine, which is
# kept in $RIG_RUN/endpoint.
load_balancer_up() {
  local port hex n backends=()
  recorded_pid "$RIG_RUN/lb.pid" >/dev/null && return 0
  for n in "$@"; do backends+=("$(address "$n"):6443"); done
  while :; do
    port=$((20000 + RANDOM % 12000))
    hex=$(printf '%04X' "$port")
    grep -qsE "^ *[0-9]+: [0-9A-F]+:$hex " /proc/net/tcp /proc/net/tcp6 || break
  done
  setsid "$CUPCAKE_CACHE/bin/rig/lb" -netns "/run/netns/$(netns)" -outside "127.0.0.1:$port" -inside "$RIG_NET.1:6443" \
    "${backends[@]}" >"$RIG_RUN/lb.log" 2>&1 </dev/null 9>&- &
  record "$RIG_RUN/lb.pid" $! || die "the load balancer ended at once, see $RIG_RUN/lb.log"
  echo "127.0.0.1:$port" >"$RIG_RUN/endpoint"
}
