#!/bin/bash
# A real Neo4j 5.26 LTS Community of the tests' own, on loopback, assembled from its published jars (pom.xml).
#
#   neo4j.sh install               jars, Java, Maven, curl: what is missing
#   neo4j.sh up|status [DIR]       a running instance; KEY=VALUE lines on stdout (status: exit 3 if it does not answer)
#   neo4j.sh down [DIR]            stop it and delete DIR
#   neo4j.sh start|stop|probe DIR  one instance that `up` made; probe: exit 0 running, 1 stopped
#
# DIR defaults to $PARTS_DIR/neo4j. Instances in different folders run side by side and share the jars; an instance
# keeps its ports. `start` returns when the process exists, before it answers; `stop` returns when the process is gone
# and it closed its store, which is what `neo4j-admin database dump` wants.
#
# Variables of `up`, kept by the instance:
#   NEO4J_PREALLOCATE=false   transaction logs grow instead of starting at 256 MiB (default true, as Neo4j's)
#   NEO4J_HEAP=512m NEO4J_PAGECACHE=64m
set -euo pipefail
# shellcheck source=tests/parts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
version=$(sed -n 's:.*<neo4j.version>\(.*\)</neo4j.version>.*:\1:p' "$here/pom.xml")
shared=$CACHE/neo4j-$version
password=tests-only
ready_seconds_max=180
# A store of a few hundred megabytes closes in seconds; a machine that swaps needs more.
stop_seconds_max=180

# ---- installation, once per machine --------------------------------------------------------------------------------

write_programs() {
    cat >"$1/environment.sh" <<'SH'
# Sourced by the programs beside it: the home, and a Java that fits.
NEO4J_HOME=${NEO4J_HOME:-$(dirname -- "$(dirname -- "$0")")}
NEO4J_HOME=$(cd -- "$NEO4J_HOME" && pwd -P)
NEO4J_CONF=$NEO4J_HOME/conf
export NEO4J_HOME NEO4J_CONF
java=
for candidate in "${JAVA_HOME:-/nonexistent}/bin/java" /usr/lib/jvm/java-17-openjdk-*/bin/java \
    /usr/lib/jvm/java-21-openjdk-*/bin/java; do
    if [ -z "$java" ] && [ -x "$candidate" ]; then java=$candidate; fi
done
java=${java:-java}
# boot CLASS ARGUMENTS...: the small JVM that works out the large one's command line
boot() {
    main=$1
    shift
    "$java" -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
        -cp "$NEO4J_HOME/lib/*" "-Dbasedir=$NEO4J_HOME" "$main" "$@"
}
SH
    cat >"$1/neo4j" <<'SH'
#!/bin/sh
# neo4j console|version. `console` replaces itself with the server's JVM, as in the official image: the process that
# was started is the server.
. "$(dirname -- "$0")/environment.sh"
if [ "${1:-}" = console ] && [ "$#" -eq 1 ]; then
    # The command line depends on the configuration only: worked out once, it saves a JVM start each time after.
    known=$NEO4J_HOME/run/command-line
    if [ ! -s "$known" ] || [ "$NEO4J_CONF/neo4j.conf" -nt "$known" ]; then
        boot org.neo4j.server.startup.Neo4jBoot console --dry-run >"$known.new" || exit $?
        mv "$known.new" "$known"
    fi
    cd "$NEO4J_HOME" || exit 1
    # Plain words (there are no blanks in the home); the * of the class path must stay one.
    set -f
    eval "exec $(cat "$known")"
fi
boot org.neo4j.server.startup.Neo4jBoot "$@"
SH
    cat >"$1/neo4j-admin" <<'SH'
#!/bin/sh
# neo4j-admin database dump|load|check|info ..., neo4j-admin dbms ...
. "$(dirname -- "$0")/environment.sh"
boot org.neo4j.server.startup.Neo4jAdminBoot "$@"
SH
    cat >"$1/cypher-shell" <<'SH'
#!/bin/sh
. "$(dirname -- "$0")/environment.sh"
exec "$java" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$NEO4J_HOME/lib/*" org.neo4j.shell.Main "$@"
SH
    chmod 755 "$1/neo4j" "$1/neo4j-admin" "$1/cypher-shell"
}

assemble() {
    [ ! -e "$shared/complete" ] || return 0
    local new=$shared.new
    rm -rf "$new" "$shared"
    mkdir -p "$new/lib" "$new/bin" "$new/pom"
    cp "$here/pom.xml" "$new/pom/"
    say "maven: the jars of Neo4j $version (125 MB unless Maven has them)"
    logged neo4j-maven mvn -B -q -f "$new/pom/pom.xml" \
        org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$new/lib"
    [ -n "$(find "$new/lib" -name 'neo4j-server-*.jar')" ] || die "Maven brought no neo4j-server jar into $new/lib"
    write_programs "$new/bin"
    touch "$new/complete"
    mv "$new" "$shared"
}

install() {
    need curl curl
    command -v java >/dev/null || apt_install "$(java_package)"
    [ -e "$shared/complete" ] || need mvn maven
    with_lock neo4j assemble
}

# ---- one instance --------------------------------------------------------------------------------------------------

setting() { sed -n "s/^$2=//p" "$1/conf/neo4j.conf"; }
bolt_port() { setting "$1" server.bolt.listen_address | tr -d :; }
http_port() { setting "$1" server.http.listen_address | tr -d :; }
pid() { cat "$1/run/pid" 2>/dev/null || true; }
# The home is on the command line from the first moment (--home-dir of the server, before that the script's own path).
running() { pid_is "$(pid "$1")" "$1"; }
answers() { curl -fs --max-time 5 -o /dev/null "http://127.0.0.1:$(http_port "$1")/"; }

make() {
    local dir=$1 bolt http
    say "neo4j: a new home in $dir"
    mkdir -p "$dir"/{conf,data,logs,run,plugins,import,licenses,certificates}
    ln -sfn "$shared/lib" "$dir/lib"
    cp -r "$shared/bin" "$dir/"
    bolt=$(free_port "$dir")
    http=$(free_port "$dir")
    cat >"$dir/conf/neo4j.conf" <<CONF
server.default_listen_address=127.0.0.1
server.bolt.listen_address=:$bolt
server.http.listen_address=:$http
server.https.enabled=false
server.memory.heap.initial_size=${NEO4J_HEAP:-512m}
server.memory.heap.max_size=${NEO4J_HEAP:-512m}
server.memory.pagecache.size=${NEO4J_PAGECACHE:-64m}
db.tx_log.preallocate=${NEO4J_PREALLOCATE:-true}
dbms.usage_report.enabled=false
# An idle bolt connector otherwise waits ten seconds before the server may end.
internal.dbms.bolt.netty_server_shutdown_quiet_period=0
server.jvm.additional=-XX:+UseSerialGC
server.jvm.additional=-XX:TieredStopAtLevel=1
server.jvm.additional=-XX:-OmitStackTraceInFastThrow
server.jvm.additional=-Dlog4j2.disable.jmx=true
server.jvm.additional=-Dio.netty.tryReflectionSetAccessible=true
server.jvm.additional=--add-opens=java.base/java.nio=ALL-UNNAMED
server.jvm.additional=--add-opens=java.base/java.io=ALL-UNNAMED
server.jvm.additional=--add-opens=java.base/sun.nio.ch=ALL-UNNAMED
CONF
    printf 'machine 127.0.0.1 login neo4j password %s\n' "$password" >"$dir/netrc"
    chmod 600 "$dir/netrc"
    logged "neo4j-password-$$" "$dir/bin/neo4j-admin" dbms set-initial-password "$password"
    rm -f "$CACHE/log/neo4j-password-$$.log"
    touch "$dir/made"
}

start() {
    local dir=$1
    running "$dir" && return 0
    [ -e "$dir/made" ] || die "no instance in $dir: neo4j.sh up $dir"
    rm -f "$dir/run/pid"
    # The shell writes its own pid and becomes the server. A new session: Ctrl-C in a terminal must stop the test, not
    # the server under its feet.
    # shellcheck disable=SC2016
    setsid sh -c 'echo $$ >"$1/run/pid.new" && mv "$1/run/pid.new" "$1/run/pid" && exec "$1/bin/neo4j" console' \
        neo4j "$dir" >>"$dir/logs/console.out" 2>&1 </dev/null &
    for _ in $(seq 100); do
        [ -s "$dir/run/pid" ] && break
        sleep 0.02
    done
    running "$dir" || {
        tail -n 25 "$dir/logs/console.out" >&2
        die "Neo4j ended at once ($dir/logs/console.out)"
    }
    started neo4j "$version" "$(pid "$dir")" "$dir"
}

wait_until_ready() {
    local dir=$1 end=$((SECONDS + ready_seconds_max))
    until answers "$dir"; do
        running "$dir" || {
            tail -n 25 "$dir/logs/console.out" >&2
            die "Neo4j ended while it started ($dir/logs)"
        }
        [ "$SECONDS" -lt "$end" ] || die "Neo4j did not answer in $ready_seconds_max s ($dir/logs)"
        sleep 0.1
    done
}

# Never kills: a killed server leaves a store that cannot be dumped, so a stop that takes too long is an error.
stop() {
    local dir=$1 pid end=$((SECONDS + stop_seconds_max))
    running "$dir" || return 0
    pid=$(pid "$dir")
    kill -TERM "$pid"
    while pid_is "$pid" "$dir"; do
        [ "$SECONDS" -lt "$end" ] || die "Neo4j (pid $pid) did not stop in $stop_seconds_max s ($dir/logs)"
        sleep 0.05
    done
    rm -f "$dir/run/pid"
}

show() {
    local dir=$1
    cat <<KEYS
NEO4J_DIR=$dir
NEO4J_HOME=$dir
NEO4J_ADMIN=$dir/bin/neo4j-admin
NEO4J_CYPHER_SHELL=$dir/bin/cypher-shell
NEO4J_HOST=127.0.0.1
NEO4J_BOLT_PORT=$(bolt_port "$dir")
NEO4J_URI=bolt://127.0.0.1:$(bolt_port "$dir")
NEO4J_HTTP=http://127.0.0.1:$(http_port "$dir")
NEO4J_USER=neo4j
NEO4J_PASSWORD=$password
NEO4J_NETRC=$dir/netrc
NEO4J_DATABASE=neo4j
NEO4J_VERSION=$version
NEO4J_EDITION=community
NEO4J_PID=$(pid "$dir")
KEYS
}

up() {
    local dir
    install
    dir=$(instance_dir "$1")
    [ -e "$dir/made" ] || make "$dir"
    start "$dir"
    wait_until_ready "$dir"
    show "$dir"
}

down() {
    [ -d "$1" ] || return 0
    local dir
    dir=$(instance_dir "$1")
    [ -e "$dir/conf/neo4j.conf" ] || die "no instance in $dir"
    # What is thrown away need not be closed well.
    if running "$dir"; then
        kill -KILL "$(pid "$dir")"
        while running "$dir"; do sleep 0.05; done
    fi
    rm -f "$CACHE/ports/$(bolt_port "$dir")" "$CACHE/ports/$(http_port "$dir")"
    rm -rf "$dir"
}

action=${1:-}
dir=${2:-${PARTS_DIR:+$PARTS_DIR/neo4j}}
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
    if ! running "$dir" || ! answers "$dir"; then exit 3; fi
    show "$dir"
    ;;
esac
