# shellcheck shell=bash disable=SC2034
# A single control plane loses its power in the very window where kubeadm has moved etcd's manifest away and not yet put the new one there.
#
# The window is some microseconds long. strace holds kubeadm in it: the rename of that file returns thirty seconds late.
holder=''
# host_pid NODE PATTERN: the machine's number of a process of a node.
host_pid() {
  local pid space
  space=$(readlink "/proc/$(cut -d ' ' -f 1 "$RIG_RUN/nodes/$1/init.pid")/ns/pid")
  for pid in $(pgrep -f "$2"); do
    [ "$(readlink "/proc/$pid/ns/pid")" != "$space" ] || { echo "$pid" && return 0; }
  done
  return 1
}
manifest_away() { ! "$rig" exec cp1 test -e /etc/kubernetes/manifests/etcd.yaml; }
cut_in_the_window() {
  local pid
  if [ -z "$holder" ]; then
    pid=$(host_pid cp1 "^kubeadm upgrade apply") || return 0
    strace -f -qq -o "$logs/strace.txt" -P /etc/kubernetes/manifests/etcd.yaml \
      -e inject=rename,renameat,renameat2:delay_exit=30000000 -p "$pid" &
    holder=$!
    say "$(now) s: kubeadm is at work on cp1, and held when it moves etcd's manifest"
  elif [ -z "${happened[power]:-}" ] && manifest_away && once power; then
    sleep 1
    manifest_away || die "the manifest came back before the power was cut"
    say "$(now) s: /etc/kubernetes/manifests has $("$rig" exec cp1 ls /etc/kubernetes/manifests | tr '\n' ' ')"
    cut_and_boot cp1
    say "$(now) s: after the boot it has $("$rig" exec cp1 ls /etc/kubernetes/manifests | tr '\n' ' ')"
  fi
}
scenario() {
  command -v strace >/dev/null || die "strace is needed (apt install strace)"
  whole_upgrade cut_in_the_window
  all_happened power
}
