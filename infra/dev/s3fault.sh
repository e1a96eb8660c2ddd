#!/usr/bin/env bash
# A proxy that fails, in front of an S3 for tests: haproxy from Debian's packages, on loopback.
#
#   infra/dev/s3fault.sh install            Debian's package, when it is not there (root, or sudo)
#   infra/dev/s3fault.sh start              prints the environment that leads through it
#   infra/dev/s3fault.sh set slow_down 10   percent of requests answered 503 SlowDown
#   infra/dev/s3fault.sh set reset 5        percent of requests whose connection is closed without an answer
#   infra/dev/s3fault.sh set lost 5         percent of requests that the store does, but whose answer is cut off
#   infra/dev/s3fault.sh requests           how many requests there were since the start
#   infra/dev/s3fault.sh stop
#
# PORT (8490; it is told what to do at the next one), UPSTREAM (127.0.0.1:8480) and DATA_DIR may be set.
set -euo pipefail

PORT=${PORT:-8490}
UPSTREAM=${UPSTREAM:-127.0.0.1:8480}
DATA_DIR=$(realpath -m "${DATA_DIR:-${TMPDIR:-/tmp}/ssd-batch-s3fault-$PORT}")
FAULTS=(slow_down reset lost)

fail() {
  echo "s3fault.sh: $*" >&2
  exit 1
}

install() {
  command -v haproxy >/dev/null && return
  command -v apt-get >/dev/null || fail "needs Debian or Ubuntu, or haproxy installed by hand"
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq >&2
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends haproxy >&2
}

configure() {
  mkdir -p "$DATA_DIR"
  cat >"$DATA_DIR/slow_down.xml" <<'XML'
<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>
XML
  cat >"$DATA_DIR/haproxy.cfg" <<CONF
global
  nbthread 1
  maxconn 2000
  pidfile $DATA_DIR/pid
  stats socket ipv4@127.0.0.1:$((PORT + 1)) level admin
$(printf '  set-var proc.%s int(0)\n' "${FAULTS[@]}")
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  retries 0
frontend s3
  bind 127.0.0.1:$PORT
  http-request reject if { rand(100),sub(proc.reset) lt 0 }
  http-request return status 503 content-type application/xml file $DATA_DIR/slow_down.xml if { rand(100),sub(proc.slow_down) lt 0 }
  default_backend store
backend store
  tcp-response content reject if { rand(100),sub(proc.lost) lt 0 }
  server store $UPSTREAM
CONF
}

running() {
  local pid
  pid=$(cat "$DATA_DIR/pid" 2>/dev/null) && [ "$(ps -o comm= -p "$pid")" = haproxy ] && echo "$pid"
}

start() {
  install
  if ! running >/dev/null; then
    (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null && fail "port $PORT is taken; set PORT"
    configure
    haproxy -D -f "$DATA_DIR/haproxy.cfg" >&2
  fi
  echo "export AWS_ENDPOINT_URL_S3=http://127.0.0.1:$PORT"
}

tell() {
  exec 3<>"/dev/tcp/127.0.0.1/$((PORT + 1))" || fail "no proxy at port $PORT"
  echo "$1" >&3
  cat <&3
}

set_fault() {
  [[ " ${FAULTS[*]} " == *" ${1:-} "* && ${2:-} =~ ^[0-9]+$ ]] || fail "usage: s3fault.sh set ${FAULTS[*]} PERCENT"
  tell "experimental-mode on; set var proc.$1 int($2)" >/dev/null
}

# The column req_tot of haproxy's own table.
requests() {
  tell "show stat s3 1 -1" | awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "req_tot") column = i } NR == 2 { print $column }'
}

stop() {
  local pid _
  pid=$(running) || return 0
  kill "$pid"
  for _ in $(seq 600); do
    running >/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid"
}

case ${1:-} in
  install | start | requests | stop) "$1" ;;
  set) set_fault "${@:2}" ;;
  *) fail "usage: s3fault.sh install | start | set FAULT PERCENT | requests | stop" ;;
esac
