#!/usr/bin/env bash
# Swift on a Debian host that has none: Debian 13's compiler in a root of its own, which leaves the host as it is.
#
#   swift.sh build|test|format|... [ARGUMENTS]    `swift` in the present folder
#   swift.sh --exec COMMAND [ARGUMENTS]           any command of that root
#   swift.sh --run PROGRAM [ARGUMENTS]            what `swift build` made, on the host and with the host's files
#   swift.sh --provision                          make the root (about a minute, 2.7 GB), then nothing
#
# The root lies in EDGESAM_SWIFT_CACHE or the project's cache; it comes from the mirror that apt is set up with. Where
# the host has a Swift of its own, that one is used. Exits with 5 where neither can be had.
set -euo pipefail

SUITE=trixie
PACKAGES=swiftlang,libc6-dev,libstdc++-14-dev,libonnxruntime-dev,ca-certificates,git
CACHE=${EDGESAM_SWIFT_CACHE:-${EDGESAM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/edgesam-mobile}}
ROOT=$CACHE/swift-$SUITE-$(printf %s "$PACKAGES" | sha256sum | cut -c1-8)

give_up() {
  echo "error: no Swift here: $1" >&2
  exit 5
}

provision() {
  [ "$(id -u)" = 0 ] || give_up "making its root needs root"
  command -v apt-get > /dev/null || give_up "its root is made by apt"
  local mirror
  # shellcheck disable=SC2016
  mirror=$(apt-get indextargets --format '$(SITE)|$(RELEASE)|$(CREATED_BY)|$(REPO_URI)' |
    awk -F '|' '$3 == "Packages" && $2 !~ /-security|-updates/ { print $4; exit }')
  [ -n "$mirror" ] || give_up "apt has no mirror"
  if ! command -v mmdebstrap > /dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap > /dev/null
  fi
  rm -rf "$ROOT.part"
  mmdebstrap --quiet --variant=minbase --include="$PACKAGES" --aptopt='Apt::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    "$SUITE" "$ROOT.part" "$mirror" >&2 || give_up "the mirror does not give $SUITE"
  touch "$ROOT.part/.complete"
  rm -rf "$ROOT"
  mv "$ROOT.part" "$ROOT"
}

if [ "${1:-}" != --exec ]; then
  if command -v swift > /dev/null; then
    case "${1:-}" in
      --provision) exit 0 ;;
      --run) exec "${@:2}" ;;
      *) exec swift "$@" ;;
    esac
  fi
fi

if [ ! -e "$ROOT/.complete" ]; then
  mkdir -p "$(dirname "$ROOT")"
  exec 9> "$ROOT.lock"
  flock 9
  [ -e "$ROOT/.complete" ] || provision
  exec 9>&-
fi
case "${1:-}" in
  --provision) exit 0 ;;
  --exec) shift ;;
  --run) # with the root's own loader and C library: the host's may be older
    LIBRARIES=$ROOT/usr/lib/$(uname -m)-linux-gnu:$ROOT/usr/libexec/swift/lib/swift/linux
    exec "$ROOT"/lib*/ld-linux-*.so.* --library-path "$LIBRARIES" "${@:2}"
    ;;
  *) set -- swift "$@" ;;
esac
unshare --mount true 2> /dev/null || give_up "mounts are not allowed"

# The checkout at its own path, so that what the compiler says of files is true outside as well.
TOP=$(git rev-parse --show-toplevel 2> /dev/null || pwd)
# shellcheck disable=SC2016
exec unshare --mount --propagation private bash -euc '
  root=$1 top=$2 here=$3
  shift 3
  mkdir -p "$root$top"
  mount --bind "$top" "$root$top"
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  exec chroot "$root" /usr/bin/env -C "$here" HOME=/tmp PATH=/usr/bin:/bin:/usr/libexec/swift/bin "$@"
' _ "$ROOT" "$TOP" "$PWD" "$@"
