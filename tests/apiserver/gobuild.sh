# shellcheck shell=bash
# Builds programs from Go modules into a cache. Sourced, never run; env.sh must have been sourced before.
#
# Guarantees of each function: a program that is already there is not built again; a program appears under its name only when
# it is complete (it is built under another name in the same folder and renamed), so an interrupted build can be repeated;
# two callers at once build once (a lock file in the cache); what is printed goes to standard error.

say() { printf '%s\n' "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# need_go: ends with the reason if there is no Go toolchain.
need_go() {
  command -v go >/dev/null ||
    die "no Go toolchain on PATH: install Go 1.24 or newer, or name finished programs by CUPCAKE_KUBE_APISERVER, CUPCAKE_ETCD, CUPCAKE_KUBE_CONTROLLER_MANAGER and CUPCAKE_KUBECTL"
}

# with_lock NAME COMMAND...: runs COMMAND while no other caller holds NAME.
with_lock() {
  local name=$1
  shift
  mkdir -p "$CUPCAKE_CACHE/lock"
  (
    exec 9>"$CUPCAKE_CACHE/lock/$name"
    flock 9
    "$@"
  )
}

# go_build SRC OUT PACKAGE LDFLAGS: builds PACKAGE in the module at SRC and renames it to OUT.
# The programs are static (CGO_ENABLED=0), so that they also run in images without a C library.
go_build() {
  local src=$1 out=$2 package=$3 ldflags=$4 part started
  part="$(dirname "$out")/.$(basename "$out").part"
  mkdir -p "$(dirname "$out")"
  started=$SECONDS
  (
    cd "$src" || exit 1
    # CUPCAKE_GO_JOBS bounds the compilations; no version control stamp: the module is not a checkout.
    CGO_ENABLED=0 GOFLAGS='-mod=mod -buildvcs=false' nice -n 10 \
      go build -p "$CUPCAKE_GO_JOBS" -trimpath -ldflags "-s -w $ldflags" -o "$part" "$package" 9>&-
  ) >&2
  mv -f "$part" "$out"
  say "built $out in $((SECONDS - started)) s"
}

# kubernetes_module VERSION SRC: writes a module at SRC that requires k8s.io/kubernetes at VERSION.
# That module names its staging siblings (k8s.io/api and so on) at v0.0.0; they are published as v0.MINOR.PATCH, so each of
# them gets a replace line. The list is read from the module's own go.mod, since it differs from minor to minor.
kubernetes_module() {
  local version=$1 src=$2 staging mod
  staging="v0.${version#1.}"
  mkdir -p "$src"
  mod=$(cd "$src" && GOFLAGS=-mod=mod GOWORK=off go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/^\t"GoMod": "\(.*\)",*$/\1/p')
  [ -n "$mod" ] || die "the Go module k8s.io/kubernetes has no version v$version"
  {
    printf 'module cupcake.test/kubernetes\n\n'
    grep -m1 '^go ' "$mod"
    printf '\nrequire k8s.io/kubernetes v%s\n\nreplace (\n' "$version"
    sed -n "s|^\t\(k8s.io/[a-z-]*\) v0\.0\.0\( .*\)\{0,1\}\$|\t\1 => \1 $staging|p" "$mod"
    printf ')\n'
  } >"$src/go.mod"
}

# build_kubernetes VERSION OUTDIR PROGRAM...: the programs of k8s.io/kubernetes/cmd at VERSION, in OUTDIR.
build_kubernetes() {
  local version=$1 outdir=$2 program missing=() v
  shift 2
  for program in "$@"; do [ -x "$outdir/$program" ] || missing+=("$program"); done
  [ ${#missing[@]} -eq 0 ] && return 0
  need_go
  local src="$CUPCAKE_CACHE/src/kubernetes-$version" p=k8s.io/component-base/version
  kubernetes_module "$version" "$src"
  v="-X $p.gitVersion=v$version -X $p.gitMajor=1 -X $p.gitMinor=$(cut -d. -f2 <<<"$version") -X $p.gitTreeState=clean"
  for program in "${missing[@]}"; do go_build "$src" "$outdir/$program" "k8s.io/kubernetes/cmd/$program" "$v"; done
}

# build_module MODULE VERSION OUT [PACKAGE]: one program (PACKAGE, by default the module's root) of MODULE at VERSION.
build_module() {
  local module=$1 version=$2 out=$3 package=${4:-$1} src
  [ -x "$out" ] && return 0
  need_go
  src="$CUPCAKE_CACHE/src/$(tr / _ <<<"$module")-$version"
  mkdir -p "$src"
  printf 'module cupcake.test/build\n\ngo 1.24\n\nrequire %s v%s\n' "$module" "$version" >"$src/go.mod"
  go_build "$src" "$out" "$package" ""
}
