# shellcheck shell=bash disable=SC2034
# Three control planes, two workers; leader killed, an API server killed in its own upgrade, a node without power in its host work, agents killed.
control_planes=3 workers=2

# new_api_server NODE: its manifest names the target, and the process runs, while kubeadm still works there.
# shellcheck disable=SC2016
new_api_server() {
  "$rig" exec "$1" sh -c 'grep -q "kube-apiserver:v$1" /etc/kubernetes/manifests/kube-apiserver.yaml && pgrep -f "^kube-apiserver" && pgrep -f "^kubeadm upgrade"' sh "$RIG_TO" >/dev/null 2>&1
}
disturb() {
  if [ -z "${happened[leader]:-}" ]; then
    if [ "$(kubeadm_since cp1)" -ge 5 ] && once leader; then kill_leader || true; fi
  elif [ -z "${happened[api-server]:-}" ]; then
    if new_api_server cp1 && once api-server; then
      say "$(now) s: killing the API server of cp1, whose manifest kubeadm has just replaced"
      process_kill cp1 kube-apiserver || true
    fi
  elif [ -z "${happened[power]:-}" ]; then
    if [ "$(kubeadm_since cp2)" -ge 15 ] && once power; then cut_and_boot cp2; fi
  elif [ -z "${happened[agent]:-}" ]; then
    if at_work w1 "apt-get install|kubeadm upgrade|dpkg" && once agent; then
      kill_leader || true
      kill_agent w1 || true
    fi
  elif [ -z "${happened[worker-power]:-}" ]; then
    if at_work w2 "apt-get install|dpkg" && once worker-power; then cut_and_boot w2; fi
  fi
}
scenario() {
  seconds_max=2700
  whole_upgrade disturb
  all_happened leader api-server power agent worker-power
}
