# shellcheck shell=bash
# Those who use the cluster meanwhile, and what was written before. Sourced, never run.

# data_written: what is in etcd, and on the disks of those that keep something there.
# shellcheck disable=SC2016
data_written() {
  local pod
  "$kubectl" get configmaps,secrets -l e2e=kept -o 'jsonpath={range .items[*]}{.kind}/{.metadata.name}={.data.value}{"\n"}{end}' | sort
  for pod in $("$kubectl" get pods -l app=store -o name | sort); do
    echo "$pod=$("$kubectl" exec "$pod" -- cat /data/index.html)"
  done
}

client_start() {
  local i
  for ((i = 0; i < 40; i++)); do
    printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept-%s, labels: {e2e: kept}}\ndata: {value: "%s"}\n---\n' "$i" "$RANDOM"
    printf 'apiVersion: v1\nkind: Secret\nmetadata: {name: kept-%s, labels: {e2e: kept}}\nstringData: {value: "%s"}\n---\n' "$i" "$RANDOM"
  done | "$kubectl" apply -f - >/dev/null
  data_written >"$logs/data-before"
  "$rig" run python3 "$rig_home/progs/client.py" "$logs/client.json" "http://$RIG_NET.21:30080/" "http://$RIG_NET.22:30080/" >"$logs/client.log" 2>&1 &
  disown $!
  record "$logs/client.pid" $! || die "the client ended at once, see $logs/client.log"
}

client_end() {
  end_recorded "$logs/client.pid"
  [ -s "$logs/client.json" ] || die "the client did not live to the end, see $logs/client.log"
  data_written >"$logs/data-after"
  cmp "$logs/data-before" "$logs/data-after" || die "what was written before the upgrade is not there after it, see $logs"
  say "the client: $(python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); print(r["failed"], "of", r["requests"], "requests failed, at most", r["longestFailureSeconds"], "s in one piece")' "$logs/client.json"); $(wc -l <"$logs/data-after") things written before are as they were"
}
