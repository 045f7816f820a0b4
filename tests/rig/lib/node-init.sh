#!/usr/bin/env bash
# node-init.sh NODE: the first process of a node's namespaces (mount, UTS, IPC, PID, cgroup, network): mounts what a machine
# has, changes root, and becomes systemd. All mounts live in this mount namespace and go with it.
# Reads RIG_CACHE, RIG_RUN, RIG_TMPFS from the environment.
set -euo pipefail
node=$1
dir="$RIG_RUN/nodes/$node"
root="$dir/root"

mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$RIG_CACHE/$(cat "$dir/layer"):$RIG_CACHE/base,upperdir=$dir/changes,workdir=$dir/work" "$root"
cd "$root"
mkdir -p proc sys dev run tmp srv/rig var/lib/containerd var/lib/etcd var/lib/kubelet var/log/journal oldroot

mount -t proc -o nosuid,nodev,noexec proc proc
# the machine's own kernel settings stay out of reach, except the network's, which are this namespace's
mount --bind proc/sys proc/sys
mount -o remount,bind,ro,nosuid,nodev,noexec proc/sys
mkdir -p run/proc
mount -t proc -o nosuid,nodev,noexec proc run/proc
mount --bind run/proc/sys/net proc/sys/net
umount -l run/proc
# settings that the kubelet insists on writing: private files in place of the machine's
n=0
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  n=$((n + 1))
  echo "${setting#*=}" >"$dir/settings/$n"
  mount --bind "$dir/settings/$n" "proc/sys/${setting%=*}"
done
# each boot of a node is told apart by this, as on a machine (journal, kubelet)
cat /proc/sys/kernel/random/uuid >"$dir/settings/boot_id"
mount --bind "$dir/settings/boot_id" proc/sys/kernel/random/boot_id

mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t tmpfs -o mode=755,size=1m tmpfs sys/fs/cgroup
for h in cpu cpuacct cpuset memory devices freezer blkio pids; do
  mkdir "sys/fs/cgroup/$h"
  mount -t cgroup -o "$h,nosuid,nodev,noexec" cgroup "sys/fs/cgroup/$h"
done
mkdir sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd,nosuid,nodev,noexec cgroup sys/fs/cgroup/systemd
mount -o remount,ro,mode=755 sys/fs/cgroup

mount -t tmpfs -o mode=755,size=64k,nosuid tmpfs dev
while read -r name mode major minor; do mknod -m "$mode" "dev/$name" c "$major" "$minor"; done <<'D'
null 666 1 3
zero 666 1 5
full 666 1 7
random 666 1 8
urandom 666 1 9
kmsg 600 1 11
tty 666 5 0
fuse 666 10 229
D
mkdir dev/pts dev/shm dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
mount -t mqueue mqueue dev/mqueue
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
: >dev/console
mount --bind "$dir/console.log" dev/console

mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mkdir -p run/lock
mount -t tmpfs -o mode=1777 tmpfs tmp
# folders that outlive a power cut; an overlay cannot be the upper side of containerd's own overlays
mount --bind "$dir/containerd" var/lib/containerd
mount --bind "$dir/kubelet" var/lib/kubelet
mount --bind "$RIG_TMPFS/$node" var/lib/etcd
mount --bind "$RIG_CACHE/images" srv/rig
mount -o remount,bind,ro srv/rig

hostname "$node"
pivot_root . oldroot
cd /
umount -l /oldroot
rmdir /oldroot 2>/dev/null || true
# as systemd does on a machine: mounts made by a pod with Bidirectional propagation are seen by the node
mount --make-rshared /
exec env -i container=rig PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/ TERM=dumb \
  /lib/systemd/systemd --system systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1 \
  systemd.log_target=console systemd.show_status=1 </dev/null >/dev/console 2>&1
