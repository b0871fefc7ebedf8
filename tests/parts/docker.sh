#!/bin/bash
# A real Docker engine of the tests' own, and Compose projects with Infrahub's services on it (docker/compose.yml).
#
#   docker.sh install              engine, Compose, images: what is missing. No registry: images are made from packages.
#   docker.sh up|status|probe DIR  a project named like the folder; KEY=VALUE lines (status: exit 3, probe: 1 if it does not run)
#   docker.sh down DIR             removes it with its volumes, and stops the engine when nothing is left on it
#
# The engine has its own socket, data and containerd below $CACHE/docker, no bridge and no firewall rules, so that it does
# not meet an engine of the machine. It needs root, or sudo. Projects share engine and images.
#
# Variables of `up`: NEO4J_PASSWORD, POSTGRES_PASSWORD (default tests-only); RESTART, the restart policy of the database
# (default no); EDITION=enterprise for a database that passes for that edition (docker/stand-in).
set -euo pipefail
# shellcheck source=tests/parts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
version=$(sed -n 's:.*<neo4j.version>\(.*\)</neo4j.version>.*:\1:p' "$here/pom.xml")
home=$CACHE/docker
socket=$home/docker.sock
export DOCKER_HOST=unix://$socket DOCKER_CONFIG=$home/config
unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH
# Images are made again when what they are made of changes.
recipe=$(cat "$here/docker"/Dockerfile.* "$here/docker"/[eip]* "$here/pom.xml" | sha256sum | cut -c1-16)
ready_seconds_max=300

# ---- the engine ----------------------------------------------------------------------------------------------------

engine_pid() { cat "$home/docker.pid" 2>/dev/null || true; }
engine_runs() { pid_is "$(engine_pid)" "$socket" && docker version >/dev/null 2>&1; }

start_engine() {
    engine_runs && return 0
    command -v dockerd >/dev/null || die "no dockerd: docker.sh install"
    say "docker: starting an engine with its data in $home"
    mkdir -p "$home/data"
    # Not by `as_root`: a shell that waits for it would keep the streams of whoever called open.
    local root=()
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    # A negative score of its own is refused where root may not raise priorities.
    nohup setsid "${root[@]}" dockerd --host "$DOCKER_HOST" --group "$(id -gn)" --data-root "$home/data" \
        --exec-root "$home/run" --pidfile "$home/docker.pid" --bridge none --iptables=false --ip6tables=false \
        --oom-score-adjust 0 >"$CACHE/log/dockerd.log" 2>&1 </dev/null &
    local started=$!
    for _ in $(seq 300); do
        if engine_runs; then
            # Left running on purpose; the last `down` stops it.
            disown "$started" 2>/dev/null || true
            return 0
        fi
        kill -0 "$started" 2>/dev/null || break
        sleep 0.2
    done
    tail -n 15 "$CACHE/log/dockerd.log" >&2
    die "dockerd does not answer (all of its output: $CACHE/log/dockerd.log)"
}

stop_engine() {
    local pid
    pid=$(engine_pid)
    pid_is "$pid" "$socket" || return 0
    as_root kill -TERM "$pid"
    for _ in $(seq 300); do
        pid_is "$pid" "$socket" || return 0
        sleep 0.1
    done
    die "dockerd (pid $pid) did not stop in 30 s"
}

stop_idle_engine() {
    engine_runs || return 0
    [ -n "$(docker ps -aq)" ] || stop_engine
}

# ---- installation, once per machine --------------------------------------------------------------------------------

# The archive of Debian that apt uses here.
mirror() {
    local uri
    with_lock apt apt_update_once
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' 'Label: Debian' | sort -u | head -n 1)
    [ -n "$uri" ] || die "apt has no archive of Debian here; the images are made from its packages"
    printf '%s\n' "${uri%/}"
}

# Compose 2 is a package of its own from Debian 13 on. Before, its one program is taken out of that package, fetched by apt
# with lists of its own, its signature checked as always.
install_compose() {
    docker compose version >/dev/null 2>&1 && return 0
    local apt=$home/apt package options
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/package"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s trixie main\n' "$(mirror)" >"$apt/sources.list"
    options=(-o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$apt/lists"
        -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none)
    say "docker: fetching Compose"
    logged compose-lists apt-get "${options[@]}" update
    (cd "$apt" && logged compose-package apt-get "${options[@]}" download docker-compose)
    package=$(find "$apt" -maxdepth 1 -name 'docker-compose_*.deb' | head -n 1)
    [ -n "$package" ] || die "Debian 13 has no package docker-compose"
    dpkg -x "$package" "$apt/package"
    mkdir -p "$DOCKER_CONFIG/cli-plugins"
    cp "$(find "$apt/package" -path '*cli-plugins/docker-compose' -type f | head -n 1)" "$DOCKER_CONFIG/cli-plugins/"
    rm -rf "$apt"
    docker compose version >/dev/null || die "Compose does not run ($DOCKER_CONFIG/cli-plugins/docker-compose)"
}

have_image() { docker image inspect "infrahub-backup-tests/$1" >/dev/null 2>&1; }

base_image() {
    have_image base && return 0
    local suite root=$home/base archive
    suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    archive=$(mirror)
    apt_install debootstrap
    say "docker: a base image of $suite"
    as_root rm -rf "$root"
    logged debootstrap as_root debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$archive"
    # What this machine trusts: there may be a proxy before the archive.
    as_root cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$root/usr/sbin/policy-rc.d" >/dev/null
    as_root chmod 755 "$root/usr/sbin/policy-rc.d"
    as_root tar -C "$root" --numeric-owner --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' \
        --exclude='./var/lib/apt/lists/*' --exclude='./var/cache/apt/archives/*.deb' -cf - . |
        docker import - infrahub-backup-tests/base >/dev/null
    as_root rm -rf "$root"
}

# build NAME CONTEXT: the builder that every engine has
build() {
    say "docker: image $1"
    logged "image-$1" env DOCKER_BUILDKIT=0 docker build --network host --force-rm -f "$here/docker/Dockerfile.$1" \
        -t "infrahub-backup-tests/$1" "$2"
}

neo4j_context() {
    local context=$1 shared=$CACHE/neo4j-$version
    mkdir -p "$context/home/conf"
    cp -r "$shared/lib" "$shared/bin" "$context/home/"
    cp "$here/docker/entrypoint" "$context/"
    cat >"$context/home/conf/neo4j.conf" <<'CONF'
server.default_listen_address=0.0.0.0
server.https.enabled=false
server.memory.heap.initial_size=300m
server.memory.heap.max_size=300m
server.memory.pagecache.size=64m
db.tx_log.preallocate=false
dbms.usage_report.enabled=false
internal.dbms.bolt.netty_server_shutdown_quiet_period=0
server.jvm.additional=-XX:+UseSerialGC
server.jvm.additional=-XX:TieredStopAtLevel=1
server.jvm.additional=-Dlog4j2.disable.jmx=true
server.jvm.additional=-Dio.netty.tryReflectionSetAccessible=true
server.jvm.additional=--add-opens=java.base/java.nio=ALL-UNNAMED
server.jvm.additional=--add-opens=java.base/java.io=ALL-UNNAMED
server.jvm.additional=--add-opens=java.base/sun.nio.ch=ALL-UNNAMED
CONF
}

images() {
    [ "$(cat "$home/recipe" 2>/dev/null)" = "$recipe" ] && [ -d "$home/data" ] && return 0
    start_engine
    base_image
    build server "$here/docker"
    rm -rf "$home/context"
    neo4j_context "$home/context"
    build neo4j "$home/context"
    rm -rf "$home/context"
    printf '%s\n' "$recipe" >"$home/recipe"
    stop_idle_engine
}

install() {
    need curl curl
    command -v dockerd >/dev/null || apt_install docker.io
    command -v docker >/dev/null || apt_install docker-cli
    "$here/neo4j.sh" install
    mkdir -p "$home" "$DOCKER_CONFIG"
    with_lock docker-compose install_compose
    with_lock docker images
}

# ---- one project ---------------------------------------------------------------------------------------------------

project() { basename -- "$1"; }
compose() {
    local dir=$1
    shift
    local files=(--file "$here/docker/compose.yml")
    if grep -qx "EDITION='enterprise'" "$dir/variables"; then files+=(--file "$here/docker/compose.stand-in.yml"); fi
    docker compose --project-name "$(project "$dir")" "${files[@]}" --env-file "$dir/variables" "$@"
}
running() {
    engine_runs && [ -n "$(docker ps -q --filter "label=com.docker.compose.project=$(project "$1")" \
        --filter label=com.docker.compose.service=database)" ]
}

# encoded TEXT: as it stands in a connection
encoded() { python3 -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1], safe=""))' "$1"; }

# In an environment file a value in single quotes stands as it is.
make() {
    local neo4j=${NEO4J_PASSWORD:-tests-only} postgres=${POSTGRES_PASSWORD:-tests-only}
    cat >"$1/variables" <<VARIABLES
NEO4J_PASSWORD='$neo4j'
POSTGRES_PASSWORD='$postgres'
POSTGRES_PASSWORD_ENCODED='$(encoded "$postgres")'
RESTART='${RESTART:-no}'
EDITION='${EDITION:-community}'
VARIABLES
}

show() {
    cat <<KEYS
DOCKER_HOST=$DOCKER_HOST
DOCKER_CONFIG=$DOCKER_CONFIG
DOCKER_PROJECT=$(project "$1")
DOCKER_VERSION=$(docker version --format '{{.Server.Version}}')
DOCKER_PID=$(engine_pid)
KEYS
}

up() {
    local dir
    install
    dir=$(instance_dir "$1")
    with_lock docker start_engine
    [ -e "$dir/variables" ] || make "$dir"
    say "docker: project $(project "$dir")"
    logged "compose-$(project "$dir")" compose "$dir" up --detach --wait --wait-timeout "$ready_seconds_max"
    started docker "$(docker version --format '{{.Server.Version}}')" "$(engine_pid)" "$dir"
    show "$dir"
}

down() {
    local dir
    [ -d "$1" ] || return 0
    dir=$(instance_dir "$1")
    [ -e "$dir/variables" ] || die "no project in $dir"
    if engine_runs; then
        logged "compose-$(project "$dir")" compose "$dir" down --volumes --timeout 1
        rm -f "$CACHE/log/compose-$(project "$dir").log"
        with_lock docker stop_idle_engine
    fi
    rm -rf "$dir"
}

action=${1:-}
dir=${2:-${PARTS_DIR:+$PARTS_DIR/docker}}
case $action in
install)
    install
    exit 0
    ;;
up | down | status | probe) [ -n "$dir" ] || die "which folder? give DIR or set PARTS_DIR" ;;
*) die "install | up|down|status|probe DIR" ;;
esac
# What asks about a folder must not make it.
case $action in
up | down) "$action" "$dir" ;;
probe) [ -d "$dir" ] && running "$(instance_dir "$dir")" || exit 1 ;;
status)
    [ -d "$dir" ] || exit 3
    dir=$(instance_dir "$dir")
    running "$dir" || exit 3
    show "$dir"
    ;;
esac
