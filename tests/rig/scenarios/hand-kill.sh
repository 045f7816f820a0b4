# shellcheck shell=bash disable=SC2034
# As hand; leader and agents are killed (-9) in each part of the work.
way=hand
scenario() {
  whole_upgrade at_each_part
  all_happened control-plane prepare finish
}
