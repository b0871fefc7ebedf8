#!/bin/bash
# A real PostgreSQL of the tests' own, on loopback with TCP and passwords only.
#
#   postgres.sh install               what is missing on this machine
#   postgres.sh up|status [DIR]       a running instance; KEY=VALUE lines on stdout (status: exit 3 if it does not run)
#   postgres.sh down [DIR]            stop it and delete DIR
#   postgres.sh start|stop|probe DIR  one instance that `up` made; probe: exit 0 running, 1 stopped
#
# DIR defaults to $PARTS_DIR/postgres. Instances in different folders run side by side; an instance keeps its port.
set -euo pipefail
# shellcheck source=tests/parts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

password=tests-only

# bin: the programs of the newest PostgreSQL on this machine
bin() {
    local newest
    newest=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
    [ -n "$newest" ] && [ -x "$newest/initdb" ] && [ -x "$newest/pg_dump" ] || return 1
    printf '%s\n' "$newest"
}

install() {
    bin >/dev/null || apt_install postgresql
    bin >/dev/null || die "no initdb below /usr/lib/postgresql after apt-get install postgresql"
}

in_namespace() { unshare --user --map-user=65534 --map-group=65534 "$@"; }

# unprivileged DIR COMMAND...: PostgreSQL refuses root. In a user namespace the command appears as nobody and still owns
# root's files, so DIR may lie anywhere; where namespaces are forbidden it runs as the package's user, which must be
# able to reach DIR.
unprivileged() {
    local dir=$1
    shift
    if [ "$(id -u)" != 0 ]; then
        "$@"
    elif in_namespace true 2>/dev/null; then
        in_namespace "$@"
    else
        chown -R postgres:postgres "$dir"
        setpriv --reuid=postgres --regid=postgres --clear-groups "$@"
    fi
}

pid() { head -n 1 "$1/data/postmaster.pid" 2>/dev/null || true; }
# The command line of postgres names its data folder.
running() { pid_is "$(pid "$1")" "$1/data"; }
port() { cat "$1/port"; }

query() {
    local dir=$1
    shift
    PGPASSWORD=$password "$(bin)/psql" -X -q -At -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$(port "$dir")" -U postgres "$@"
}

make() {
    local dir=$1
    say "postgres: a new cluster in $dir"
    free_port "$dir" >"$dir/port"
    printf '%s\n' "$password" >"$dir/initial-password"
    logged "initdb-$$" unprivileged "$dir" "$(bin)/initdb" -D "$dir/data" -U postgres \
        --pwfile="$dir/initial-password" --auth=scram-sha-256 --locale=C.UTF-8 -E UTF8 --no-sync
    rm -f "$dir/initial-password" "$CACHE/log/initdb-$$.log"
    # The instance lives for minutes and its loss is no loss: no fsync.
    cat >>"$dir/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $(port "$dir")
unix_socket_directories = ''
fsync = off
synchronous_commit = off
max_wal_size = '4GB'
CONF
    printf '127.0.0.1:%s:*:postgres:%s\n' "$(port "$dir")" "$password" >"$dir/pgpass"
    chmod 600 "$dir/pgpass"
}

start() {
    local dir=$1
    running "$dir" && return 0
    [ -s "$dir/data/PG_VERSION" ] || die "no instance in $dir: postgres.sh up $dir"
    # A new session: Ctrl-C in a terminal must stop the test, not the server under its feet.
    unprivileged "$dir" setsid "$(bin)/pg_ctl" -D "$dir/data" -l "$dir/server.log" -s -w -t 60 start \
        >"$dir/start.log" 2>&1 </dev/null || {
        tail -n 25 "$dir/start.log" "$dir/server.log" >&2
        die "PostgreSQL did not start ($dir/server.log)"
    }
    started postgres "$("$(bin)/postgres" --version | awk '{ print $3 }')" "$(pid "$dir")" "$dir"
}

# Returns when the postmaster is gone; pg_ctl itself only waits for its pid file.
stop() {
    local dir=$1 pid
    running "$dir" || return 0
    pid=$(pid "$dir")
    unprivileged "$dir" "$(bin)/pg_ctl" -D "$dir/data" -s -m fast -w -t 60 stop >"$dir/stop.log" 2>&1 </dev/null || {
        cat "$dir/stop.log" >&2
        die "PostgreSQL (pid $pid) did not stop in 60 s"
    }
    while pid_is "$pid" "$dir/data"; do sleep 0.05; done
}

show() {
    local dir=$1
    cat <<KEYS
POSTGRES_DIR=$dir
POSTGRES_HOST=127.0.0.1
POSTGRES_PORT=$(port "$dir")
POSTGRES_USER=postgres
POSTGRES_PASSWORD=$password
POSTGRES_PASSFILE=$dir/pgpass
POSTGRES_DB=prefect
POSTGRES_URL=postgresql://postgres:$password@127.0.0.1:$(port "$dir")/prefect
POSTGRES_BIN=$(bin)
POSTGRES_VERSION=$("$(bin)/postgres" --version | awk '{ print $3 }')
POSTGRES_PID=$(pid "$dir")
KEYS
}

up() {
    local dir
    install
    dir=$(instance_dir "$1")
    if [ ! -e "$dir/made" ]; then
        rm -rf "$dir/data"
        make "$dir"
        start "$dir"
        query "$dir" -d postgres -c 'create database prefect' >&2
        touch "$dir/made"
    fi
    start "$dir"
    show "$dir"
}

down() {
    [ -d "$1" ] || return 0
    local dir
    dir=$(instance_dir "$1")
    [ -e "$dir/port" ] || die "no instance in $dir"
    stop "$dir"
    rm -f "$CACHE/ports/$(port "$dir")"
    rm -rf "$dir"
}

action=${1:-}
dir=${2:-${PARTS_DIR:+$PARTS_DIR/postgres}}
case $action in
install)
    install
    exit 0
    ;;
up | down | status | start | stop | probe) ;;
*) die "install | up|down|status|start|stop|probe DIR" ;;
esac
[ -n "$dir" ] || die "which folder? give DIR or set PARTS_DIR"
# What asks about a folder must not make it.
case $action in
up | down) "$action" "$dir" ;;
start | stop)
    [ -d "$dir" ] || die "no instance in $dir"
    "$action" "$(instance_dir "$dir")"
    ;;
probe)
    [ -d "$dir" ] || exit 1
    running "$(instance_dir "$dir")" || exit 1
    ;;
status)
    [ -d "$dir" ] || exit 3
    dir=$(instance_dir "$dir")
    running "$dir" || exit 3
    show "$dir"
    ;;
esac
