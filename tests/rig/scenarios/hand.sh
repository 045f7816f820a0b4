# shellcheck shell=bash disable=SC2034
# Without the chart, which is quicker to look into: CRDs applied, the operator a process of this machine, agents units of the nodes.
way=hand
scenario() { whole_upgrade; }
