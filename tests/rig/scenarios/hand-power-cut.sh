# shellcheck shell=bash disable=SC2034
# As hand; the only control plane loses its power during kubeadm's work and boots again.
way=hand
# The agent comes back ten seconds after the boot, as a pod would when the kubelet runs again; the runner has to come back by itself.
cut_once() {
  [ "$(kubeadm_since cp1)" -ge 40 ] && once power || return 0
  cut_and_boot cp1
  sleep 10
  agent_start cp1
}
scenario() {
  whole_upgrade cut_once
  all_happened power
}
