#!/usr/bin/env bash
# A real S3 for development and tests: one Ceph monitor, one OSD and a RADOS gateway, from Debian's packages, on loopback.
#
#   infra/dev/ceph.sh install    Debian packages, when they are not there (root, or sudo)
#   infra/dev/ceph.sh start      prints the environment that reaches it: eval "$(infra/dev/ceph.sh start)"
#   infra/dev/ceph.sh stop       data stays, and the next start serves it again
#   infra/dev/ceph.sh kill       the gateway alone, at once, as a crash would; the next start brings it back
#   infra/dev/ceph.sh add_key ACCESS SECRET    another pair of keys; remove_key ACCESS takes it away
#   infra/dev/ceph.sh wipe       stop, and delete the data
#
# PORT (8480; the monitor takes the next one) and DATA_DIR may be set. Its disk is a sparse file of DISK_GB (20).
set -euo pipefail

PORT=${PORT:-8480}
DATA_DIR=$(realpath -m "${DATA_DIR:-${TMPDIR:-/tmp}/ssd-batch-ceph-$PORT}")
DISK_GB=${DISK_GB:-20}
ACCESS_KEY=ssd-batch SECRET_KEY=ssd-batch-secret
MONITOR="v2:127.0.0.1:$((PORT + 1))/0"
export CEPH_CONF=$DATA_DIR/ceph.conf LC_ALL=C.UTF-8

fail() {
  echo "ceph.sh: $*" >&2
  exit 1
}

install() {
  command -v radosgw ceph-mon ceph-osd radosgw-admin >/dev/null && return
  command -v apt-get >/dev/null || fail "needs Debian or Ubuntu, or radosgw, ceph-mon and ceph-osd installed by hand"
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq >&2
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends radosgw ceph-mon ceph-osd >&2
}

configure() {
  [ -s "$DATA_DIR/fsid" ] || cat /proc/sys/kernel/random/uuid >"$DATA_DIR/fsid"
  cat >"$CEPH_CONF" <<CONF
[global]
fsid = $(cat "$DATA_DIR/fsid")
mon_host = [$MONITOR]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr1 = false
keyring = $DATA_DIR/keyring
run_dir = $DATA_DIR/run
admin_socket = $DATA_DIR/run/\$name.\$pid.asok
log_file = $DATA_DIR/log/\$name.log
mon_cluster_log_file = $DATA_DIR/log/cluster.log
crash_dir = $DATA_DIR/crash
log_to_stderr = false
err_to_stderr = false
mon_cluster_log_to_stderr = false
auth_allow_insecure_global_id_reclaim = false
# One copy of everything, on one disk.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
[mon]
mon_data = $DATA_DIR/mon
mon_data_avail_crit = 1
[osd]
osd_data = $DATA_DIR/osd
bluestore_block_size = $((DISK_GB * 1024 ** 3))
bluestore_cache_autotune = false
bluestore_cache_size = 134217728
osd_memory_target = 939524096
[client]
rgw_rados_pool_pg_num_min = 8
rgw_run_sync_thread = false
rgw_dynamic_resharding = false
[client.rgw.a]
rgw_frontends = beast endpoint=127.0.0.1:$PORT tcp_nodelay=1
rgw_data = $DATA_DIR/rgw
CONF
}

# The daemon's process while it runs: its pid file may be older than the machine's last start.
running() {
  local pid
  pid=$(cat "$DATA_DIR/run/$1.pid" 2>/dev/null) && [ "$(ps -o comm= -p "$pid")" = "$1" ] && echo "$pid"
}

create_cluster() {
  rm -rf "$DATA_DIR"/{mon,osd,keyring}
  mkdir -p "$DATA_DIR"/{mon,osd}
  monmaptool --create --clobber --fsid "$(cat "$DATA_DIR/fsid")" --addv a "[$MONITOR]" "$DATA_DIR/monmap" >/dev/null
  ceph-authtool -C "$DATA_DIR/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
  local name
  for name in client.admin client.rgw.a osd.0; do
    ceph-authtool "$DATA_DIR/keyring" --gen-key -n "$name" --cap mon 'allow *' --cap osd 'allow *' >/dev/null
  done
  ceph-mon -i a --mkfs --monmap "$DATA_DIR/monmap" --keyring "$DATA_DIR/keyring"
  ceph-mon -i a --pid-file "$DATA_DIR/run/ceph-mon.pid"
  local uuid
  uuid=$(cat /proc/sys/kernel/random/uuid)
  timeout 240 ceph --connect-timeout 120 osd new "$uuid" >/dev/null
  ceph-osd -i 0 --mkfs --osd-uuid "$uuid" 2>>"$DATA_DIR/log/mkfs.log"
}

start() {
  install
  mkdir -p "$DATA_DIR"/{run,log,crash,rgw}
  chmod 700 "$DATA_DIR"
  exec 9>"$DATA_DIR/lock"
  flock 9
  if ! running radosgw >/dev/null; then
    (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null && fail "port $PORT is taken; set PORT"
    start_daemons 9>&- >&2
  fi
  cat <<ENVIRONMENT
export AWS_ENDPOINT_URL_S3=http://127.0.0.1:$PORT
export AWS_ACCESS_KEY_ID=$ACCESS_KEY
export AWS_SECRET_ACCESS_KEY=$SECRET_KEY
export AWS_DEFAULT_REGION=us-east-1
ENVIRONMENT
}

start_daemons() {
  configure
  [ -e "$DATA_DIR/created" ] || { stop && create_cluster; }
  running ceph-mon >/dev/null || ceph-mon -i a --pid-file "$DATA_DIR/run/ceph-mon.pid"
  running ceph-osd >/dev/null || ceph-osd -i 0 --pid-file "$DATA_DIR/run/ceph-osd.pid" >>"$DATA_DIR/log/osd.out" 2>&1
  if [ ! -e "$DATA_DIR/created" ]; then
    timeout 240 radosgw-admin user create --uid=ssd-batch --display-name=ssd-batch \
      --access-key="$ACCESS_KEY" --secret-key="$SECRET_KEY" >"$DATA_DIR/log/user.json"
    touch "$DATA_DIR/created"
  fi
  radosgw -n client.rgw.a --pid-file "$DATA_DIR/run/radosgw.pid"
  local _
  for _ in $(seq 2400); do
    (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null && return
    sleep 0.1
  done
  fail "the gateway does not answer; see $DATA_DIR/log"
}

stop() {
  local daemon pid _
  for daemon in radosgw ceph-osd ceph-mon; do
    pid=$(running "$daemon") || continue
    kill "$pid"
    for _ in $(seq 600); do
      running "$daemon" >/dev/null || continue 2
      sleep 0.1
    done
    kill -KILL "$pid"
  done
}

kill_gateway() {
  local pid
  pid=$(running radosgw) || return 0
  kill -KILL "$pid"
  while running radosgw >/dev/null; do sleep 0.1; done
}

add_key() {
  radosgw-admin key create --uid=ssd-batch --key-type=s3 --access-key="$1" --secret-key="$2" >"$DATA_DIR/log/user.json"
}

remove_key() {
  radosgw-admin key rm --uid=ssd-batch --key-type=s3 --access-key="$1" >"$DATA_DIR/log/user.json"
}

case ${1:-} in
  install | start | stop) "$1" ;;
  kill) kill_gateway ;;
  add_key | remove_key) "$@" ;;
  wipe) stop && rm -rf --one-file-system "$DATA_DIR" ;;
  *) fail "usage: ceph.sh install | start | stop | kill | add_key | remove_key | wipe" ;;
esac
