# shellcheck shell=bash
# Cgroups (v1) of the nodes: <cgroup of the caller of `rig up`>/$RIG_NAME/NODE in each hierarchy, so that a limit set on the
# caller holds for the nodes too. A node's cgroup namespace has its root there; systemd, kubelet and containers make theirs below.
# Sourced, never run.

cgroup_hierarchies="cpu cpuacct cpuset memory devices freezer blkio pids systemd"

# cgroup_base HIERARCHY: the rig's folder in it, as fixed by the first call after `rig up`.
cgroup_base() {
  local file="$RIG_RUN/cgroup/$1" name=$1 own
  if [ ! -s "$file" ]; then
    [ "$name" = systemd ] && name=name=systemd
    own=$(awk -F: -v name="$name" '{ n = split($2, c, ","); for (i = 1; i <= n; i++) if (c[i] == name) { sub(/^[^:]*:[^:]*:/, ""); print; exit } }' /proc/self/cgroup)
    [ -n "$own" ] || die "the machine has no cgroup v1 hierarchy $1: the rig needs $cgroup_hierarchies"
    mkdir -p "$RIG_RUN/cgroup"
    echo "/sys/fs/cgroup/$1${own%/}/$RIG_NAME" >"$file"
  fi
  cat "$file"
}

cgroup_make() { # NODE
  local h base dir
  for h in $cgroup_hierarchies; do
    base=$(cgroup_base "$h")
    for dir in "$base" "$base/$1"; do
      [ -d "$dir" ] && continue
      remember cgroup "$dir"
      mkdir "$dir"
      if [ "$h" = cpuset ]; then
        # a new cpuset is empty and takes no process until both are set
        cat "$(dirname "$dir")/cpuset.cpus" >"$dir/cpuset.cpus"
        cat "$(dirname "$dir")/cpuset.mems" >"$dir/cpuset.mems"
        echo 1 >"$dir/cgroup.clone_children"
      fi
    done
  done
}

# cgroup_join NODE: moves the calling (sub)shell there.
cgroup_join() {
  local h
  for h in $cgroup_hierarchies; do echo "$BASHPID" >"$(cat "$RIG_RUN/cgroup/$h")/$1/cgroup.procs"; done
}

# cgroup_remove PATH: with everything below it. Only a node's processes can be members; any that is left (a start that was
# interrupted before it could be recorded) is killed. Their exit may take a moment.
cgroup_remove() {
  local i pid
  case $1 in /sys/fs/cgroup/*"/$RIG_NAME" | /sys/fs/cgroup/*"/$RIG_NAME/"*) ;; *) die "refusing to remove the cgroup $1: it is not the rig's" ;; esac
  for ((i = 0; i < 100; i++)); do
    [ -d "$1" ] || return 0
    while read -r pid; do kill -9 "$pid" 2>/dev/null || true; done < <(find "$1" -name cgroup.procs -exec cat {} + 2>/dev/null)
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [ -d "$1" ] || return 0
    sleep 0.1
  done
  say "the cgroup $1 still has members: $(find "$1" -name cgroup.procs -exec cat {} + | head -n 5 | tr '\n' ' ')"
  return 1
}
