# shellcheck shell=bash disable=SC2034
# Two minors in one DirectUpdate on three control planes and two workers, over the etcd 3.5 to 3.6 gate, while the cluster is used.
#
# A client asks a Deployment under a budget five times a second through the workers' node ports; a StatefulSet keeps what it wrote on its
# node's disk; a DaemonSet runs everywhere; forty ConfigMaps and Secrets are read before and after.
control_planes=3 workers=2 from=1.32.9 to=1.34.4

scenario() {
  seconds_max=3600
  cluster_fresh
  "$kubectl" apply -f "$rig_home/workload-data.yaml" >/dev/null
  "$kubectl" rollout status statefulset/store --timeout=120s >/dev/null
  cupcake_installed
  state "$logs/before"
  more_facts "$logs/facts-before"
  client_start
  update_apply
  if ! watch_for Succeeded; then
    collect
    die "$scenario: the update did not succeed, see $logs"
  fi
  took=$(now)
  "$kubectl" rollout status statefulset/store --timeout=120s >/dev/null || die "$scenario: the StatefulSet is not whole"
  "$kubectl" rollout status daemonset/everywhere --timeout=120s >/dev/null || die "$scenario: the DaemonSet is not whole"
  client_end
  state "$logs/after"
  more_facts "$logs/facts-after"
  collect
  report
  echo "what else changed:"
  diff -U 0 "$logs/facts-before" "$logs/facts-after" | sed 's/^/  /' || true
  at_target "$logs/after" "$logs/before" || die "$scenario: the update says Succeeded, the nodes do not"
  sed 's/^/  /' "$logs/pods.txt"
  no_right_missing || die "$scenario: see $logs"
  policies_active || die "$scenario: see $logs"
}
