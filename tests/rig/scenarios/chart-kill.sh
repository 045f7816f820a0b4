# shellcheck shell=bash disable=SC2034
# The same; leader and agents are killed (-9) in each part of the work; their kubelets start them again.
scenario() {
  whole_upgrade at_each_part
  all_happened control-plane prepare finish
}
