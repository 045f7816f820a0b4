# shellcheck shell=bash disable=SC2034
# As hand; the runner is killed (-9) with its programs: twice during kubeadm on the control plane, once during an install on the worker.
way=hand
# kubeadm is killed after it has worked for 10 s and, begun again, for 40 s in one piece: while it waits for etcd, and while it replaces the
# API server or later.
kill_runners() {
  if [ -z "${happened[etcd]:-}" ]; then
    if [ "$(kubeadm_since cp1)" -ge 10 ] && once etcd; then kill_runner cp1 && sleep 1; fi
  elif [ -z "${happened[api-server]:-}" ]; then
    if [ "$(kubeadm_since cp1)" -ge 40 ] && once api-server; then kill_runner cp1 && sleep 1; fi
  elif [ -z "${happened[install]:-}" ]; then
    if at_work w1 dpkg && once install; then kill_runner w1 && sleep 1; fi
  fi
}
scenario() {
  whole_upgrade kill_runners
  all_happened etcd api-server install
}
