#!/usr/bin/env bash
# on-server.sh [FILTER]: installs the definitions on the API server of KUBECONFIG and puts every case of cases.json (or those
# whose name contains FILTER) and every file of examples/ before it. Prints what differs; exits 1 if anything does.
# Needs kubectl (KUBECTL names another one) and jq. The server must be a throw-away one: objects of our kinds are deleted.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
kubectl=${KUBECTL:-kubectl}
filter=${1:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$kubectl" apply -f "$here/../generated" >/dev/null
"$kubectl" wait --for=condition=Established --timeout=30s -f "$here/../generated" >/dev/null

differ=0
differs() {
  echo "DIFFERS: $1"
  differ=$((differ + 1))
}

"$kubectl" apply -f "$here/../../examples" >/dev/null || differs "examples are refused"

# The server rounds nothing and keeps no secret: what it says is compared with the table's words.
count=$(jq '.cases | length' "$here/cases.json")
judged=0
for ((i = 0; i < count; i++)); do
  jq --argjson i "$i" '.cases[$i]' "$here/cases.json" >"$work/case.json"
  name=$(jq -r .name "$work/case.json")
  [[ $name == *"$filter"* ]] || continue
  from=$(jq -r '.from // ""' "$work/case.json")
  refused=$(jq -r '.refused // ""' "$work/case.json")
  subresource=$(jq -r '.subresource // ""' "$work/case.json")
  jq .patch "$work/case.json" >"$work/patch.json"
  if [ -n "$from" ]; then
    jq --arg from "$from" '.objects[$from]' "$here/cases.json" >"$work/old.json"
    "$kubectl" delete --ignore-not-found -f "$work/old.json" >/dev/null
    # An answer to an earlier order came while that order was there.
    jq 'if .kind == "NodeTask" and .status.key then .spec.order.key = .status.key | .spec.order.epoch = .status.epoch else . end' \
      "$work/old.json" >"$work/first.json"
    "$kubectl" create -f "$work/first.json" >/dev/null
    if jq -e .status "$work/old.json" >/dev/null; then
      jq '{status}' "$work/old.json" >"$work/status.json"
      "$kubectl" patch -f "$work/old.json" --type=merge --subresource=status --patch-file "$work/status.json" >/dev/null
      jq '{spec}' "$work/old.json" >"$work/spec.json"
      "$kubectl" patch -f "$work/old.json" --type=merge --patch-file "$work/spec.json" >/dev/null
    fi
    said=$("$kubectl" patch -f "$work/old.json" --type=merge ${subresource:+--subresource=$subresource} --patch-file "$work/patch.json" 2>&1) && ok=1 || ok=0
  else
    said=$("$kubectl" create --dry-run=server -f "$work/patch.json" 2>&1) && ok=1 || ok=0
  fi
  judged=$((judged + 1))
  if [ -z "$refused" ]; then
    [ "$ok" = 1 ] || differs "$name: refused: $said"
  else
    [ "$ok" = 0 ] || differs "$name: accepted"
    [[ $ok = 1 || $said == *"$refused"* ]] || differs "$name: refused for another reason: $said"
  fi
done
"$kubectl" delete directupdates,scheduledupdates,updateschedules,upgraderuns,upgradeplans,nodetasks --all >/dev/null
echo "$judged cases judged, $differ differ"
[ "$differ" = 0 ]
