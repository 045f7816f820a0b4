# shellcheck shell=bash
# What the rig made on the machine, one thing a line in $RIG_RUN/state, written before the thing is made. `rig down` removes
# exactly what is listed there, never by name pattern. Sourced, never run. Processes are recorded as files (proc.sh).
#
#   netns NAME     a network namespace
#   mount PATH     a mount in the machine's own mount namespace (only /run/netns, which iproute2 makes)
#   cgroup PATH    a cgroup folder (with all cgroups that its members made below it)
#   tmpfs PATH     a folder on tmpfs
#   node NAME      a node; its files are in $RIG_RUN/nodes/NAME

remember() { # KIND VALUE
  mkdir -p "$RIG_RUN"
  remembered "$1" | grep -qxF -- "$2" || printf '%s %s\n' "$1" "$2" >>"$RIG_RUN/state"
}

remembered() { # KIND: one value a line, in the order of making
  [ ! -e "$RIG_RUN/state" ] || sed -n "s|^$1 ||p" "$RIG_RUN/state"
}

forget() { # KIND VALUE
  [ -e "$RIG_RUN/state" ] || return 0
  grep -vxF -- "$1 $2" "$RIG_RUN/state" >"$RIG_RUN/state.part" || true
  mv -f "$RIG_RUN/state.part" "$RIG_RUN/state"
}

# settle: waits (10 s at most) until COMMAND fails.
settle() {
  local i
  for ((i = 0; i < 200; i++)); do
    "$@" >/dev/null 2>&1 || return 0
    sleep 0.05
  done
  return 1
}
