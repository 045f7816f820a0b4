# shellcheck shell=bash
# What passed, by what it ran: one JSON object a line in $logs_all/results.jsonl. Sourced, never run.

# What a scenario's outcome depends on, as paths of the tree.
what_runs=(Cargo.lock agent cli crds engine helm host operator steps workflows tests/rig tests/images tests/helm/deploy)

# inputs SCENARIO: a digest of all that it runs, of other scenarios nothing; empty if the tree has changes that are not committed.
inputs() {
  local sha
  [ -z "$(git -C "$repo" status --porcelain -- "${what_runs[@]}" 2>/dev/null)" ] || return 0
  sha=$(git -C "$repo" ls-tree -r HEAD -- "${what_runs[@]}" 2>/dev/null |
    awk -v own="tests/rig/scenarios/$1.sh" '$4 !~ /^tests\/rig\/(scenarios|README|baseline)/ || $4 == own' | sha256sum) || return 0
  echo "${sha%% *} $RIG_RELEASES" | sha256sum | cut -c1-16
}

result_line() { # SCENARIO RESULT SECONDS
  printf '{"scenario": "%s", "result": "%s", "seconds": %s, "memoryMiB": %s, "inputs": "%s", "commit": "%s", "at": "%s"}\n' "$1" "$2" "$3" \
    "$(cat "$logs_all/$1/memory-peak" 2>/dev/null || echo 0)" "$(inputs "$1")" "$(git -C "$repo" rev-parse --short HEAD 2>/dev/null || echo none)" "$(date -u +%FT%TZ)"
}

keep_result() { mkdir -p "$logs_all" && echo "$1" >>"$logs_all/results.jsonl"; }

# kept SCENARIO: the line of the last time that it passed with the same inputs.
kept() {
  local sum
  sum=$(inputs "$1")
  [ -n "$sum" ] && [ -e "$logs_all/results.jsonl" ] || return 1
  grep -F "\"scenario\": \"$1\", \"result\": \"passed\"" "$logs_all/results.jsonl" | grep -F "\"inputs\": \"$sum\"" | tail -n 1 | grep .
}

told() { # LINE REMARK
  python3 -c 'import json, sys; r = json.loads(sys.argv[1]); print("%-14s %-8s %8d %12d  %s" % (r["scenario"], r["result"], r["seconds"], r["memoryMiB"], sys.argv[2]))' "$1" "$2"
}
