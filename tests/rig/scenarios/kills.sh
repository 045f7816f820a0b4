# shellcheck shell=bash disable=SC2034
# One control plane, one worker, one minor; kills (-9) of leader, agents and runners at moments drawn from a seed (CUPCAKE_E2E_SEED; e2e-kills runs many).
seed=${CUPCAKE_E2E_SEED:-1}

# plan: one kill a line: ANCHOR SECONDS WHAT. Seconds count from the apply, or from the moment at which the worker has an order.
plan() {
  python3 - "$seed" <<'P'
import random, sys
chance = random.Random(int(sys.argv[1]))
early = [("applied", round(chance.uniform(2, 230), 1), chance.choice(["leader", "leader", "agent cp1", "runner cp1", "runner cp1"])) for _ in range(chance.randint(2, 4))]
late = [("ordered", round(chance.uniform(0, 12), 1), chance.choice(["leader", "agent w1", "runner w1", "runner w1"])) for _ in range(chance.randint(1, 3))]
for anchor, at, what in sorted(early) + sorted(late):
    print(anchor, at, what)
P
}
ordered_at=''
worker_ordered() {
  [ -n "$ordered_at" ] && return 0
  [ -n "$("$kubectl" --request-timeout=2s get nodetask w1 -o 'jsonpath={.spec.order.key}' 2>/dev/null)" ] || return 1
  ordered_at=$EPOCHREALTIME
}
# due ANCHOR SECONDS
due() {
  local since=$began
  if [ "$1" = ordered ]; then
    worker_ordered || return 1
    since=$ordered_at
  fi
  awk -v a="$since" -v b="$EPOCHREALTIME" -v s="$2" 'BEGIN { exit !(b - a >= s) }'
}
kill_what() { # leader | agent NODE | runner NODE
  case $1 in
    leader) kill_leader ;;
    agent) kill_agent "$2" ;;
    runner) kill_runner "$2" ;;
  esac
}
kills_done='' kills_missed=0
by_plan() {
  local i=0 anchor at what node
  while read -r anchor at what node; do
    i=$((i + 1))
    if [ -n "${happened[$i]:-}" ] || ! due "$anchor" "$at"; then continue; fi
    once "$i"
    if kill_what "$what" "$node" </dev/null; then kills_done+="${kills_done:+, }$what${node:+ $node} at $(now)"; else kills_missed=$((kills_missed + 1)); fi
    return 0
  done <"$logs/plan"
}
scenario() {
  plan >"$logs/plan"
  say "seed $seed: $(tr '\n' ';' <"$logs/plan")"
  whole_upgrade by_plan
  echo "$took $kills_missed $kills_done" >"$logs/kills"
  [ -n "$kills_done" ] || die "seed $seed killed nothing"
}
