# shellcheck shell=bash
# CUPCAKE by hand: the operator is a process of this machine, agents are units of the nodes. Quicker to look into. Sourced, never run.

operator_start() {
  local i port
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  KUBECONFIG=$("$rig" kubeconfig) RUST_LOG="${RUST_LOG:-info}" "$bin/cupcake-operator" --identity "operator-$RANDOM" \
    --listen "127.0.0.1:$port" >>"$logs/operator.log" 2>&1 &
  local pid=$!
  disown "$pid"
  record "$logs/operator.pid" "$pid" || die "the operator ended at once, see $logs/operator.log"
  for ((i = 0; i < 100; i++)); do
    recorded_pid "$logs/operator.pid" >/dev/null || break
    curl -fs "http://127.0.0.1:$port/healthz" >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  die "the operator does not answer on /healthz, see $logs/operator.log"
}

node_prepare() { # NODE
  "$rig" cp "$bin/cupcake-host" "$1:/usr/local/bin/cupcake-host"
  "$rig" cp "$bin/cupcake-agent" "$1:/usr/local/bin/cupcake-agent"
  "$rig" cp "$("$rig" kubeconfig --nodes)" "$1:/etc/cupcake/kubeconfig"
  agent_start "$1"
}

agent_start() { # NODE: as a unit that comes back when it dies, as a pod would; not after a boot
  "$rig" exec "$1" systemd-run --quiet --unit=cupcake-agent --property=Restart=always --property=RestartSec=2 \
    --property=StartLimitIntervalSec=0 --setenv=KUBECONFIG=/etc/cupcake/kubeconfig --setenv="NODE_NAME=$1" \
    --setenv="RUST_LOG=${RUST_LOG:-info}" /usr/local/bin/cupcake-agent
}
