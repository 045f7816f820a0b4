# shellcheck shell=bash
# Words, places and programs of the end-to-end scenarios. Sourced by `e2e`, never run.

repo=$(readlink -f "$rig_home/../..")
rig="$rig_home/rig"
triple=x86_64-unknown-linux-gnu
# Its own folder: static programs need other flags than the rest of the tree.
target="${CUPCAKE_STATIC_TARGET:-$CUPCAKE_CACHE/target-static}"
bin="${CUPCAKE_E2E_PROGRAMS:-$target/$triple/release}"
kubectl="$CUPCAKE_CACHE/bin/$RIG_TO/kubectl"
logs_all="${CUPCAKE_E2E_LOGS:-$CUPCAKE_CACHE/e2e-smoke}"
update=upgrade-to-${RIG_TO//./-}
seconds_max="${CUPCAKE_E2E_SECONDS_MAX:-1500}"

say() { echo "e2e: $*" >&2; }
die() {
  say "$*"
  exit 1
}
seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }
# now: seconds since the update was applied, for lines that are told.
now() { seconds_since "$began"; }

# until_true SECONDS WHAT COMMAND...: polls twice a second; fails, and says what was waited for, when the time is up.
until_true() {
  local ended=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$ended" ] || { say "not in time: $what" && return 1; }
    sleep 0.5
  done
}

# room: the nodes see this machine's disk, and an update is begun only where images fit and a tenth stays free beside them (docs/pains.md, 16).
room() {
  local folder=$RIG_RUN size free want
  until [ -d "$folder" ]; do folder=$(dirname "$folder"); done
  read -r size free < <(df --output=size,avail --block-size=1M "$folder" | tail -n 1)
  want=$((size / 10 + 3000))
  [ "$free" -ge "$want" ] || die "$want MB free in $folder are needed, a tenth of the disk and 3 GB to work with; there are $free: free $((want - free)) MB, or let CUPCAKE_RIG_RUN and CUPCAKE_RIG_CACHE point to another disk, both to one"
}

# build: kubectl-cupcake is what people type; the other three are what the images hold.
build() {
  [ -z "${CUPCAKE_E2E_PROGRAMS:-}" ] || { say "programs as they are in $bin" && return 0; }
  RUSTFLAGS="-C target-feature=+crt-static" nice cargo build --manifest-path "$repo/Cargo.toml" --release --locked --target "$triple" \
    --target-dir "$target" -p cupcake-operator -p cupcake-agent -p cupcake-host -p kubectl-cupcake --bins
}
