# shellcheck shell=bash
# Sourced by every script of this folder: progress, locks, packages, ports, processes.
#
# Holds: stdout carries nothing but KEY=VALUE lines; progress and errors go to stderr and name the log to read.
# What can be shared (jars, Python packages, logs of installers) lies in $CACHE; everything an instance owns lies in
# the folder it was given. Every step that installs takes a lock and leaves a mark, so that two runs at once are safe
# and a second run costs nothing.

CACHE=${INFRAHUB_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/infrahub-backup-tests}
mkdir -p "$CACHE/log" "$CACHE/lock" "$CACHE/ports"

# A closed stdin would let the next file that is opened become stdin.
if ! { true <&0; } 2>/dev/null; then exec </dev/null; fi

say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
die() {
    printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
    exit 1
}

# logged NAME COMMAND...: output into $CACHE/log/NAME.log, its end to stderr when the command exits non-zero
logged() {
    local log=$CACHE/log/$1.log
    shift
    "$@" >"$log" 2>&1 </dev/null || {
        tail -n 25 -- "$log" >&2
        die "exit status not 0: $* (all of its output: $log)"
    }
}

# with_lock NAME COMMAND...: one at a time on this machine. The command does not inherit the lock's descriptor, lest a
# server that it starts keeps the lock for as long as it runs.
with_lock() {
    local name=$1 fd status=0
    shift
    exec {fd}>"$CACHE/lock/$name"
    flock "$fd"
    ("$@" {fd}>&-) || status=$?
    exec {fd}>&-
    return "$status"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Package lists of the last six hours are good enough. (Their own times are the archive's, hence the mark.)
apt_update_once() {
    local mark=$CACHE/apt-updated
    if [ -n "$(find "$mark" -mmin -360 2>/dev/null)" ] && compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null; then
        return 0
    fi
    logged apt-update as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 update
    touch "$mark"
}

apt_install_missing() {
    local package need=() blocked=
    for package; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || need+=("$package")
    done
    [ ${#need[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "install by hand: ${need[*]} (there is no apt-get here)"
    as_root true 2>/dev/null || die "install as root: apt-get install ${need[*]}"
    say "apt-get install ${need[*]}"
    apt_update_once
    # Packages start their daemons; the tests bring up their own.
    if [ ! -e /usr/sbin/policy-rc.d ] && [ ! -d /run/systemd/system ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
        as_root chmod 755 /usr/sbin/policy-rc.d
        blocked=1
    fi
    logged apt-install as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 \
        install -y --no-install-recommends "${need[@]}"
    [ -z "$blocked" ] || as_root rm -f /usr/sbin/policy-rc.d
}

# apt_install PACKAGE...: installs those that are missing
apt_install() { with_lock apt apt_install_missing "$@"; }

# java_package: Neo4j 5 runs on Java 17 and 21; a distribution has one of them
java_package() {
    apt-cache show openjdk-17-jre-headless >/dev/null 2>&1 || with_lock apt apt_update_once
    if apt-cache show openjdk-17-jre-headless >/dev/null 2>&1; then
        echo openjdk-17-jre-headless
    else
        echo openjdk-21-jre-headless
    fi
}

# need COMMAND PACKAGE: the command is there, if need be after an installation
need() { command -v "$1" >/dev/null || apt_install "$2"; }

# instance_dir DIR: makes it, prints its absolute path. Command lines of Neo4j are plain words, hence no blanks.
instance_dir() {
    local dir=$1
    mkdir -p "$dir"
    dir=$(cd -- "$dir" && pwd -P)
    case $dir in *[[:space:]]*) die "no blanks in the folder of an instance: $dir" ;; esac
    printf '%s\n' "$dir"
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

claim_port() {
    local port owner
    while :; do
        # Below the range from which the kernel takes ports for outgoing connections.
        port=$((20000 + RANDOM % 12000))
        owner=$(cat "$CACHE/ports/$port" 2>/dev/null) || owner=
        if [ -n "$owner" ] && [ -e "$owner" ]; then continue; fi
        if port_answers "$port"; then continue; fi
        printf '%s\n' "$1" >"$CACHE/ports/$port"
        printf '%s\n' "$port"
        return
    done
}

# free_port DIR: prints a port that stays reserved for as long as DIR exists, also while the server is stopped
free_port() { with_lock ports claim_port "$1"; }

# pid_is PID WORD: the process lives, and WORD is on its command line (pids are used again)
pid_is() {
    local word=$2 line
    [ -n "$1" ] && kill -0 "$1" 2>/dev/null || return 1
    line=$(tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null) || return 1
    case $line in *"$word"*) return 0 ;; *) return 1 ;; esac
}

# started PART VERSION PID DIR: one line in $PARTS_LOG (when set), the evidence that a real part ran
started() {
    [ -z "${PARTS_LOG:-}" ] || printf '%s\t%s\t%s\t%s\n' "$@" >>"$PARTS_LOG"
}
