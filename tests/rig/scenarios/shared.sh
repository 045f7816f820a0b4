# shellcheck shell=bash disable=SC2034
# One cluster of one control plane and two workers for all that goes wrong or is done beside an upgrade; a line for each in <logs>/parts.
control_planes=1 workers=2

part_began=0
# part NAME COMMAND...: one part: its result and seconds are told; one that fails ends the scenario.
part() {
  local name=$1
  shift
  part_began=$EPOCHREALTIME
  say "--- $name"
  if "$@"; then
    printf '%-34s passed %6.1f s\n' "$name" "$(seconds_since "$part_began")" | tee -a "$logs/parts" >&2
  else
    printf '%-34s FAILED %6.1f s\n' "$name" "$(seconds_since "$part_began")" | tee -a "$logs/parts" >&2
    collect
    die "$scenario: '$name' failed, see $logs"
  fi
}

condition() { "$kubectl" get directupdate "$update" -o "jsonpath={.status.conditions[?(@.type==\"$1\")].status} {.status.conditions[?(@.type==\"$1\")].message}" 2>/dev/null; }
told_stalled() { [[ $(condition Stalled) == True* ]]; }
told_in_message() { [[ "$(message)" == *"$1"* ]]; }
cupcake() { "$bin/kubectl-cupcake" "$@"; }

# (d) refused before anything moves
mirror() { # NODE lacking|whole
  local path=core
  [ "$2" = whole ] || path=lacking/core
  "$rig" exec "$1" sed -i -E "s#https://pkgs.k8s.io/(lacking/)?core#https://pkgs.k8s.io/$path#" /etc/apt/sources.list.d/kubernetes.list
}
lacking_version() {
  mirror w2 lacking
  update_apply
  until_true 120 "the update is refused" told_stalled || return 1
  say "refused: $(condition Stalled)"
  [[ "$(condition Stalled)" == *w2* ]] || { say "the node is not named" && return 1; }
  "$kubectl" describe directupdate "$update" >"$logs/describe-lacking.txt"
  state "$logs/after-refusal"
  cmp "$logs/before" "$logs/after-refusal" || { say "something moved" && return 1; }
  [ -z "$("$kubectl" get upgraderuns -o name)" ] || { say "there is a run" && return 1; }
  "$kubectl" delete directupdate "$update" --timeout=60s >&2 || return 1
  mirror w2 whole
}

# (h) and (i): a cordon that is not ours; another build in the middle of a run
other_build() {
  local name
  mkdir -p "$logs/other"
  cp "$bin"/cupcake-{operator,agent,host} "$logs/other/"
  echo "another build" >"$logs/other/note"
  for name in operator agent host; do objcopy --add-section .note.e2e="$logs/other/note" "$logs/other/cupcake-$name" || return 1; done
  images_import "$logs/other" e2e-other
}
at_work_on_control_plane() { at_work cp1 "kubeadm upgrade"; }
apply_with_bad_worker() {
  "$kubectl" cordon w2 >&2
  # a flag that no kubelet knows: the one that runs was started without it
  "$rig" exec w1 sh -c 'echo KUBELET_EXTRA_ARGS=--no-such-flag >/etc/default/kubelet'
  # as little time as a node may have for its kubelet: 72 s
  update_apply "nodeTimeout: 10m, drain: {timeout: 350s}"
  until_true 180 "kubeadm at work on cp1" at_work_on_control_plane
}
helm_again() {
  local i
  # while the only API server is away Helm cannot reach it: the command is repeated (docs/install.md)
  for ((i = 0; i < 40; i++)); do
    chart_deploy operator.image.tag=e2e-other agent.image.tag=e2e-other >"$logs/helm-$i.log" 2>&1 && break
    "$kubectl" -n kube-system delete secrets -l owner=helm,name=cupcake,status=pending-upgrade >/dev/null 2>&1 || true
    sleep 3
  done
  say "$(now) s: helm upgrade succeeded at try $((i + 1)); the update: $(phase) $(message)"
  [ "$i" -lt 40 ]
}
other_build_runs() {
  local tags
  tags=$("$kubectl" -n kube-system get pods -l app.kubernetes.io/part-of=cupcake -o 'jsonpath={range .items[*]}{.spec.containers[0].image} {.status.phase}{"\n"}{end}' 2>/dev/null) || return 1
  [ -n "$tags" ] && ! grep -v ':e2e-other Running' <<<"$tags" >/dev/null
}

# (f) a budget at zero
budget() { "$kubectl" patch poddisruptionbudget web --type merge -p "{\"spec\":{\"minAvailable\":$1}}" >/dev/null; }
budget_blocks() {
  until_true 60 "the budget is set" budget 2 || return 1
  until_true 420 "the drain is blocked by the budget" told_in_message "disruption budget web" || return 1
  say "$(now) s: blocked: $(message)"
  "$kubectl" describe upgraderuns >"$logs/describe-blocked.txt"
  grep -q "budget web" "$logs/describe-blocked.txt" || { say "describe does not say why" && return 1; }
  sleep 5
  [ "$(phase)" = InProgress ] || return 1
  until_true 60 "the budget is relaxed" budget 1 || return 1
  say "$(now) s: the budget is relaxed"
}

# (e) a worker whose kubelet does not start
rests() {
  watch_for RequiresAttention || return 1
  "$kubectl" describe upgraderuns >"$logs/describe-rests.txt"
  "$kubectl" get nodes >&2
  [[ "$(message)" == *w1* ]] || { say "the node is not named: $(message)" && return 1; }
  [ "$("$kubectl" get node cp1 -o 'jsonpath={.status.nodeInfo.kubeletVersion} {.status.conditions[?(@.type=="Ready")].status}')" = "v$RIG_TO True" ] ||
    { say "the control plane is not well" && return 1; }
  [ "$("$kubectl" get node w2 -o 'jsonpath={.status.nodeInfo.kubeletVersion}')" = "v$RIG_FROM" ] || { say "w2 was begun" && return 1; }
}
goes_on() { [ "$(phase)" = InProgress ]; }
mended_by_hand() {
  "$rig" exec w1 rm /etc/default/kubelet
  "$rig" exec w1 systemctl restart kubelet
  "$kubectl" wait --for=condition=Ready node/w1 --timeout=60s >&2 || return 1
  cupcake retry "$update" w1 --reason "the flag is gone" >&2 || return 1
  until_true 30 "the update goes on" goes_on
}

# (j) uninstalled in the middle, and installed again; uninstalled at rest
w2_at_work() { at_work w2 "apt-get install|kubeadm upgrade|dpkg"; }
pods_gone() { [ -z "$("$kubectl" -n kube-system get pods -l app.kubernetes.io/part-of=cupcake -o name)" ]; }
uninstalled() { "$rig_home/progs/helm-uninstall.py" "$KUBECONFIG" >&2; }
uninstalled_in_the_middle() {
  until_true 240 "w2 has its order" w2_at_work || return 1
  uninstalled || return 1
  say "$(now) s: uninstalled while w2 is at work"
  until_true 90 "the pods are gone" pods_gone || return 1
  sleep 5
  # 3: no order that is at work or waits; the runner says what it does
  "$rig" exec w2 cupcake-host status >&2 || true
  [ "$("$kubectl" get node w2 -o 'jsonpath={.spec.unschedulable}')" = true ] || { say "the foreign cordon of w2 is gone" && return 1; }
  [ "$(phase)" = InProgress ] || { say "the update is $(phase)" && return 1; }
  chart_deploy operator.image.tag=e2e-other agent.image.tag=e2e-other || return 1
  say "$(now) s: installed again"
  watch_for Succeeded
}
all_at_target() {
  took=$(now)
  state "$logs/after"
  collect
  report
  at_target "$logs/after" "$logs/before" w2 && no_right_missing && policies_active
}
foreign_cordon_stays() { [ "$("$kubectl" get node w2 -o 'jsonpath={.spec.unschedulable}')" = true ] && "$kubectl" uncordon w2 >&2; }
nothing_left() {
  local left kind
  uninstalled || return 1
  until_true 90 "the pods are gone" pods_gone || return 1
  for kind in $("$kubectl" api-resources --verbs=list -o name | grep -v -e '^events' -e cupcake -e metrics); do
    "$kubectl" get "$kind" -A --ignore-not-found -o name -l app.kubernetes.io/part-of=cupcake 2>/dev/null
    "$kubectl" get "$kind" -A --ignore-not-found -o name 2>/dev/null | grep cupcake || true
  done | sort -u >"$logs/left"
  say "left: $(tr '\n' ' ' <"$logs/left")"
  # the definitions are kept; the Lease is the operator's own, and holds the epoch (docs/install.md)
  left=$(grep -v -e '^customresourcedefinition.apiextensions.k8s.io/.*\.cupcake\.' -e '^lease.coordination.k8s.io/cupcake-operator$' "$logs/left" || true)
  [ -z "$left" ] || { say "that should be gone: $left" && return 1; }
  [ "$(grep -c '^customresourcedefinition' "$logs/left")" = 6 ] || { say "the definitions are not all there" && return 1; }
  for kind in cp1 w1 w2; do
    "$rig" exec "$kind" test ! -e /etc/systemd/system/cupcake-host.service || { say "$kind still has the runner's unit" && return 1; }
  done
}

scenario() {
  cluster_fresh
  cupcake_installed
  other_build
  state "$logs/before"
  part "d: a repository lacks the version" lacking_version
  part "g: an agent's token, another task" policies_active
  part "h+e: begun, w2 cordoned, w1 bad" apply_with_bad_worker
  part "i: helm upgrade in the middle" helm_again
  part "f: a budget at zero" budget_blocks
  part "e: w1's kubelet does not start" rests
  part "i: all pods are the other build" until_true 60 "all pods are the other build" other_build_runs
  part "e: mended, retry" mended_by_hand
  part "j: uninstalled in the middle" uninstalled_in_the_middle
  part "all nodes at the target" all_at_target
  part "h: the foreign cordon stays" foreign_cordon_stays
  part "j: uninstalled at rest" nothing_left
  cat "$logs/parts"
}
