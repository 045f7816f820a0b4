# shellcheck shell=bash
# What the rig needs of the machine; all that is missing is named at once, before anything is built or made. Sourced, never run.

# free_mib FOLDER: free space where FOLDER is or will be.
free_mib() {
  local dir=$1
  until [ -d "$dir" ]; do dir=$(dirname "$dir"); done
  df --output=avail -m "$dir" | tail -n 1 | tr -d ' '
}

# prerequisites build|up [CONTROL_PLANES WORKERS]
prerequisites() {
  local what=$1 missing=() h mib want inotify
  [ "$(id -u)" -eq 0 ] || missing+=("root: namespaces, mounts and cgroups are made (run it with sudo)")
  [ "$(uname -m)" = x86_64 ] || missing+=("an x86-64 machine: packages and images are made for amd64 only")
  [ "$(stat -f -c %T "$(dirname "$RIG_TMPFS")")" = tmpfs ] || missing+=("a tmpfs at $(dirname "$RIG_TMPFS") (CUPCAKE_RIG_TMPFS)")
  for h in $cgroup_hierarchies; do
    [ -d "/sys/fs/cgroup/$h" ] && continue
    missing+=("the cgroup v1 hierarchy $h mounted at /sys/fs/cgroup/$h (nodes on cgroup v2 are not supported yet)")
    break
  done
  grep -qw overlay /proc/filesystems || missing+=("overlayfs in the kernel")
  command -v nsenter >/dev/null && command -v unshare >/dev/null || missing+=("nsenter and unshare (package util-linux)")
  if [ "$what" = build ]; then
    command -v go >/dev/null || missing+=("a Go toolchain, 1.24 or newer, on PATH")
    command -v apt-get >/dev/null || missing+=("apt-get: host packages and the nodes' Debian come from it")
    mib=$(free_mib "$CUPCAKE_CACHE")
    [ "$mib" -ge 15000 ] || [ -e "$RIG_CACHE/store/.stamp" ] || missing+=("15 GB free in $CUPCAKE_CACHE for build and Go's caches (there are $mib MB); CUPCAKE_CACHE can point elsewhere")
  else
    # measured: a control plane takes about 400 MiB, a worker 65, and as much again for a while during an upgrade
    want=$((1024 * $2 + 512 * $3 + 512))
    mib=$(($(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 1024))
    [ "$mib" -ge "$want" ] || missing+=("$want MiB of available memory for $2 control planes and $3 workers (there are $mib)")
    want=$((500 * ($2 + $3) + 1000))
    mib=$(free_mib "$RIG_RUN")
    [ "$mib" -ge "$want" ] || missing+=("$want MB free in $RIG_RUN (there are $mib)")
    # systemd, containerd and kubelet of a node hold about 20 instances of one user's share
    inotify=$(cat /proc/sys/fs/inotify/max_user_instances)
    [ "$inotify" -ge $((22 * ($2 + $3))) ] || missing+=("fs.inotify.max_user_instances of at least $((22 * ($2 + $3))) (it is $inotify)")
  fi
  [ ${#missing[@]} -eq 0 ] && return 0
  say "the rig needs:"
  printf -- '- %s\n' "${missing[@]}" >&2
  exit 1
}

# host_packages: installs what is missing of the Debian packages that the build uses.
host_packages() {
  local pair wanted=()
  for pair in debootstrap=debootstrap apt-ftparchive=apt-utils gpg=gnupg openssl=openssl python3=python3 ip=iproute2 sysctl=procps dpkg-deb=dpkg; do
    command -v "${pair%%=*}" >/dev/null || wanted+=("${pair#*=}")
  done
  [ ${#wanted[@]} -eq 0 ] && return 0
  say "installing ${wanted[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${wanted[@]}"; } >"$RIG_CACHE/host-packages.log" 2>&1 ||
    die "apt-get could not install ${wanted[*]}, see $RIG_CACHE/host-packages.log"
}
