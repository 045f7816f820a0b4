# shellcheck shell=bash
# Kills (-9) and power cuts, and what tells that their moment is there. Sourced, never run.

# at_work NODE COMMANDS: whether one of them (a regular expression of command lines) runs there now.
at_work() { "$rig" exec "$1" pgrep -f "^($2)" >/dev/null 2>&1; }
# proceeding NODE: whether it was told that it is empty.
proceeding() { [ "$("$kubectl" --request-timeout=2s get nodetask "$1" -o 'jsonpath={.spec.order.proceed}' 2>/dev/null)" = true ]; }
# kubeadm_since NODE: for how many seconds kubeadm is at work there; 0 if it is not.
# shellcheck disable=SC2016
kubeadm_since() { "$rig" exec "$1" sh -c 'ps -o etimes= -p "$(pgrep -f "^kubeadm upgrade (apply|node)" | head -n 1)"' 2>/dev/null || echo 0; }

# process_kill NODE PROGRAM: by the process number in the node's own namespace.
# shellcheck disable=SC2016
process_kill() { "$rig" exec "$1" sh -c 'pid=$(pgrep -o -f "^$1") && kill -9 "$pid"' kill "$2" 2>/dev/null; }

# kill_leader: while the API is away the Lease cannot be read: the replica of the first control plane is taken.
kill_leader() {
  local pid node
  if by_chart; then
    node=$(leader_node)
    node=${node:-cp1}
    say "$(now) s: killing the operator of $node"
    pod_logs "$node"
    process_kill "$node" /cupcake-operator || { say "there was no operator there" && return 1; }
    return 0
  fi
  say "$(now) s: killing the operator"
  pid=$(recorded_pid "$logs/operator.pid") || die "the operator was gone before it was killed, see $logs/operator.log"
  kill -9 "$pid"
  sleep 2
  operator_start
}

kill_agent() { # NODE
  say "$(now) s: killing the agent of $1"
  if by_chart; then
    pod_logs "$1"
    process_kill "$1" /cupcake-agent || { say "there was no agent there" && return 1; }
  else
    "$rig" exec "$1" systemctl kill --signal=KILL cupcake-agent
  fi
}

kill_runner() { # NODE: with its programs
  say "$(now) s: killing the runner of $1 and its programs"
  "$rig" exec "$1" systemctl kill --signal=KILL cupcake-host 2>/dev/null || { say "there was no runner there" && return 1; }
}

cut_and_boot() { # NODE
  say "$(now) s: cutting the power of $1"
  "$rig" cut "$1"
  "$rig" start "$1"
  say "$(now) s: $1 has booted"
}

# once NAME: true the first time. Each scenario is a process of its own.
declare -A happened=()
once() { [ -z "${happened[$1]:-}" ] && happened[$1]=1; }
# all_happened NAME...: a moment that was missed proves nothing.
all_happened() {
  local name
  for name in "$@"; do [ -n "${happened[$name]:-}" ] || { say "the moment of '$name' was missed" && return 1; }; done
}

# at_each_part: the leader during kubeadm on the control plane, then leader and worker's agent at once in each part of the worker's order.
at_each_part() {
  if [ -z "${happened[control-plane]:-}" ]; then
    if at_work cp1 "kubeadm upgrade" && once control-plane; then kill_leader || true; fi
  elif [ -z "${happened[prepare]:-}" ]; then
    if at_work w1 "apt-get install|kubeadm upgrade|dpkg" && ! proceeding w1 && once prepare; then
      kill_leader || true
      kill_agent w1 || true
    fi
  elif [ -z "${happened[finish]:-}" ]; then
    if proceeding w1 && at_work w1 "apt-get install|dpkg|systemctl restart" && once finish; then
      kill_leader || true
      kill_agent w1 || true
    fi
  fi
}
