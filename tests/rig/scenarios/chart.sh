# shellcheck shell=bash disable=SC2034
# One control plane, one worker, one minor, by the chart; nothing is disturbed.
scenario() { whole_upgrade; }
