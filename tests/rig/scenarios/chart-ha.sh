# shellcheck shell=bash disable=SC2034
# As two-minors, over one minor: three control planes and two workers, in which nothing is disturbed, while the cluster is used.
. "$home/scenarios/two-minors.sh"
from='' to=''
