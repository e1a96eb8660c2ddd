#!/usr/bin/env bash
# A browser without a window, for the tests of pages, from Debian's packages.
#
#   infra/dev/chromium.sh install    prints its path; root (or sudo) where it is not there yet
set -euo pipefail

fail() {
  echo "chromium.sh: $*" >&2
  exit 1
}

found() {
  command -v chromium-headless-shell || command -v chromium
}

install() {
  found && return
  command -v apt-get >/dev/null || fail "needs Debian, or chromium installed by hand"
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq >&2
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends chromium-headless-shell fonts-dejavu-core >&2
  found || fail "no browser after the installation"
}

case ${1:-} in
  install) install ;;
  *) fail "usage: chromium.sh install" ;;
esac
