# shellcheck shell=bash
# One upgrade: a fresh cluster, CUPCAKE on it, apply, wait, collect, tell. Sourced, never run.

# cluster_fresh: of the scenario's shape, with something to carry.
cluster_fresh() {
  "$rig" up --fresh --control-planes "$control_planes" --workers "$workers"
  KUBECONFIG=$("$rig" kubeconfig)
  export KUBECONFIG
  "$kubectl" apply -f "$rig_home/workload.yaml" >/dev/null
  "$kubectl" rollout status deployment/web --timeout=120s >/dev/null
}

# cupcake_installed: until each node's agent has told what its machine is.
cupcake_installed() {
  local node
  if by_chart; then
    # for looking at machines from outside; the agents bring their own
    for node in $(nodes); do "$rig" cp "$bin/cupcake-host" "$node:/usr/local/bin/cupcake-host"; done
    install_chart
  else
    "$kubectl" apply --server-side -f "$repo/crds/generated" >/dev/null
    "$kubectl" wait --for=condition=Established -f "$repo/crds/generated" --timeout=60s >/dev/null
    operator_start
    for node in $(nodes); do node_prepare "$node"; done
  fi
  for node in $(nodes); do "$kubectl" wait --for=create "nodetask/$node" --timeout=60s >/dev/null; done
  for node in $(nodes); do
    "$kubectl" wait --for=jsonpath='{.status.inventory.kubelet}'="$RIG_FROM" "nodetask/$node" --timeout=60s >/dev/null 2>&1 ||
      { collect && die "$node's agent did not answer with an inventory, see $logs"; }
  done
}

# update_apply [SPEC]: more of the spec, as the inside of a YAML flow mapping: "nodeTimeout: 10m, concurrency: 2". The clock starts.
update_apply() {
  say "applying directupdate/$update"
  began=$EPOCHREALTIME
  "$kubectl" apply -f - >&2 <<U
apiVersion: cupcake.ricardomolendijk.com/v1
kind: DirectUpdate
metadata: {name: $update}
spec: {targetVersion: "$RIG_TO"${1:+, $1}}
U
}

phase() { "$kubectl" --request-timeout=2s get directupdate "$update" -o 'jsonpath={.status.phase}' 2>/dev/null || true; }
message() { "$kubectl" --request-timeout=2s get directupdate "$update" -o 'jsonpath={.status.message}' 2>/dev/null || true; }

# moment LINE: how all runs look each time another number of nodes is done, and before the first. Beside the watch, which has to look
# often: the first part of the worker's order is two seconds long.
moment() {
  local progress
  progress=$(cut -d ' ' -f 2 <<<"$1")
  [[ $progress == */* && ! -s "$logs/runs-${progress/\//-of-}.txt" ]] || return 0
  "$kubectl" describe upgraderuns >"$logs/runs-${progress/\//-of-}.txt" 2>/dev/null &
}

# memory_sample: the most that the processes of all nodes held, in MiB, into memory_peak. Without the page cache, and without etcd's data on tmpfs.
memory_peak=0 memory_next=0
memory_sample() {
  local mib
  [ "$SECONDS" -ge "$memory_next" ] || return 0
  memory_next=$((SECONDS + 5))
  mib=$(awk '$1 == "total_rss" { print int($2 / 1048576) }' "$(cat "$RIG_RUN/cgroup/memory")/memory.stat" 2>/dev/null || echo 0)
  if [ "$mib" -gt "$memory_peak" ]; then
    memory_peak=$mib
    echo "$mib" >"$logs/memory-peak"
  fi
}

# watch_for PHASE [HOOK]: until the update is in that phase, or in another at which it rests (then it fails); a line whenever what it says
# changes. HOOK is called at each look. While the API is away it says nothing; requests end soon, or HOOK would be late for its moments.
watch_for() {
  local line last='' ended=$((SECONDS + seconds_max)) seen
  while [ "$SECONDS" -lt "$ended" ]; do
    ${2:+"$2"}
    memory_sample
    line=$("$kubectl" --request-timeout=2s get directupdate "$update" -o 'jsonpath={.status.phase} {.status.progress} {.status.message}' 2>/dev/null || true)
    if [ -n "$line" ] && [ "$line" != "$last" ]; then
      say "$(now) s: $line"
      last=$line
      moment "$line"
    fi
    seen=$(phase)
    [ "$seen" != "$1" ] || return 0
    case $seen in Succeeded | Failed | Cancelled | RequiresAttention) return 1 ;; esac
    by_chart || recorded_pid "$logs/operator.pid" >/dev/null || { say "the operator died, see $logs/operator.log" && return 1; }
    sleep 0.2
  done
  say "not $1 within $seconds_max s"
  return 1
}

node_logs() { # NODE
  local unit
  for unit in cupcake-agent=agent cupcake-host=runner kubelet=kubelet; do
    "$rig" exec "$1" journalctl --no-pager --output=short-iso-precise "--unit=${unit%=*}" >"$logs/$1-${unit#*=}.log" 2>&1 || true
  done
}

collect() {
  local node
  "$kubectl" get directupdates,upgraderuns,upgradeplans,nodetasks -o yaml >"$logs/objects.yaml" 2>&1 || true
  "$kubectl" get events -A --sort-by=.lastTimestamp >"$logs/events.txt" 2>&1 || true
  "$kubectl" describe upgraderuns >"$logs/runs-end.txt" 2>&1 || true
  for node in $(nodes); do node_logs "$node"; done
  if by_chart; then pods_report; fi
}

report() {
  local by_hand node
  by_hand=$(sed -n 's/.*"node": "\*", "step": "total", "seconds": \([0-9.]*\).*/\1/p' "$rig_home/baseline.jsonl")
  echo
  echo "$scenario: $RIG_FROM -> $RIG_TO in $took s from kubectl apply to the end (1+1, one minor, by hand: $by_hand s)"
  echo "before:"
  sed 's/^/  /' "$logs/before"
  echo "after:"
  sed 's/^/  /' "$logs/after"
  echo "begun on the nodes (times, node, command):"
  for node in $(nodes); do
    grep -oE 'begins: (apt-get install|kubeadm upgrade|systemctl restart)[^"]*' "$logs/$node-runner.log" |
      sed -E "s/begins: //; s/ -o \S+//g; s/ --(yes|no-[a-z-]+)//g; s/^/$node  /" || true
  done | sort | uniq -c
  python3 "$rig_home/progs/overhead.py" "$took" "$logs"/*-runner.log | tee "$logs/overhead.txt"
  echo "its parts, as the runs tell them (a part in which the API was away shows less than its wall time):"
  "$kubectl" get upgraderuns -o 'jsonpath={range .items[*].status.graph[*]}  {@}{"\n"}{end}' 2>/dev/null | tee "$logs/graph" || true
  echo "logs: $logs"
}

# whole_upgrade [HOOK [SPEC]]: from nothing to a verdict: all of a scenario that only disturbs an upgrade.
whole_upgrade() {
  cluster_fresh
  cupcake_installed
  state "$logs/before"
  update_apply "${2:-}"
  succeeded "${1:-}" || die "$scenario: see $logs"
}

# succeeded [HOOK [CORDONED]]: waits for the end, tells it and judges it.
succeeded() {
  if ! watch_for Succeeded "${1:-}"; then
    collect
    "$kubectl" --request-timeout=2s get directupdate "$update" -o yaml >&2 || true
    say "the update did not succeed"
    return 1
  fi
  took=$(now)
  state "$logs/after"
  collect
  report
  at_target "$logs/after" "$logs/before" "${2:-}" || { say "the update says Succeeded, the nodes do not" && return 1; }
  by_chart || return 0
  sed 's/^/  /' "$logs/pods.txt"
  no_right_missing && policies_active
}
