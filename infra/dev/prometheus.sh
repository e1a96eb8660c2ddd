#!/usr/bin/env bash
# Prometheus and promtool for tests, from Debian's package: unpacked, so that no service of it is started.
#
#   infra/dev/prometheus.sh install    prints the folder of both; root (or sudo) only where apt has no lists of packages yet
#
# DATA_DIR may be set. Where both are on the PATH already, they are taken.
set -euo pipefail

# Not in /tmp, where another user could put programs of that name first.
DATA_DIR=$(realpath -m "${DATA_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/ssd-batch-prometheus}")

fail() {
  echo "prometheus.sh: $*" >&2
  exit 1
}

download() {
  (cd "$1" && apt-get download -qq prometheus >&2)
}

update() {
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq >&2
}

unpack() {
  command -v apt-get >/dev/null || fail "needs Debian or Ubuntu, or prometheus and promtool installed by hand"
  local folder
  folder=$(mktemp -d)
  download "$folder" || { update && download "$folder"; }
  mkdir -p "$DATA_DIR"
  dpkg-deb -x "$folder"/prometheus_*.deb "$DATA_DIR"
  rm -r "$folder"
}

install() {
  if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
    dirname "$(command -v promtool)"
    return
  fi
  [ -x "$DATA_DIR/usr/bin/promtool" ] || unpack
  echo "$DATA_DIR/usr/bin"
}

case ${1:-} in
  install) install ;;
  *) fail "usage: prometheus.sh install" ;;
esac
