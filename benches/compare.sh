#!/bin/bash
# How a repository grows with dumps of successive days, and what each day costs: this tool beside others, and the bound.
#
#   benches/compare.sh                       a series of PostgreSQL, made by make-series.sh (its variables: SEED, DAYS, ...)
#   benches/compare.sh DUMP DUMP...          dumps of PostgreSQL in the custom format, oldest first
#   KIND=neo4j benches/compare.sh DUMP...    dumps of Neo4j
#
# Compared with what install-peers.sh installed, or is on the PATH: restic, borg, rustic, bupstash (at zstd level 3, encrypted). What is
# not there is told. Neo4j's dumps are compressed: the peers get them as they are (NAME) and what is inside (NAME+), which is what
# they deduplicate best. The bound of a day is `zstd -3 --long=31`, with `--patch-from` the day before, of what is inside.
#
# INFRAHUB_BACKUP (default: target/release/infrahub-backup) is the binary, ONLY the peers ("restic borg"), TMPDIR where
# it all is done. Each tool backs up each day, reads the newest one back (to /dev/null; once more to compare it), checks every byte
# and keeps the newest two. Prints the table of compare-table.py. Times are of this machine now: ratios within one run.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname -- "$here")
kind=${KIND:-postgres}
case $kind in
    postgres) flag=--postgres-path component=task-manager-db ;;
    neo4j) flag=--neo4j-path component=database ;;
    *) echo "KIND is postgres or neo4j" >&2; exit 2 ;;
esac
binary=${INFRAHUB_BACKUP:-$root/target/release/infrahub-backup}
[ -x "$binary" ] || { echo "$binary is missing: cargo build --release" >&2; exit 1; }
[ -x /usr/bin/time ] || { echo "/usr/bin/time is missing: apt-get install time" >&2; exit 1; }
export PATH=${PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/infrahub-backup-tests/peers}/bin:$PATH
peers=()
for peer in ${ONLY-restic borg rustic bupstash}; do
    if command -v "$peer" >/dev/null; then peers+=("$peer"); else echo "not compared: $peer (benches/install-peers.sh)" >&2; fi
done
command -v zstd >/dev/null || { echo "zstd is missing: benches/install-peers.sh zstd" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ $# = 0 ] && [ "$kind" = postgres ]; then
    "$here/make-series.sh" "$work/series"
    mapfile -t dumps < <(find "$work/series" -name 'day*.dump' | sort -V)
    set -- "${dumps[@]}"
fi
[ $# -ge 2 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 2; }
results=$work/results
export HOME=$work/home XDG_STATE_HOME=$work/state XDG_CACHE_HOME=$work/cache XDG_CONFIG_HOME=$work/config
mkdir -p "$HOME"

# inside DUMP: where the bytes are that are inside. Neo4j's is `DZV1`, then one zstd frame.
inside() {
    [ "$kind" = neo4j ] || { echo "$1"; return; }
    [ "$(head -c 4 "$1")" = DZV1 ] || { echo "$1 is not zstd inside" >&2; return 1; }
    local plain; plain=$work/inside-$(basename "$1")
    [ -e "$plain" ] || tail -c +5 "$1" | zstd -q -dc --long=31 >"$plain"
    echo "$plain"
}

# measured NAME STEP COMMAND...: a line of the results: tool, step, wall, CPU seconds, peak MB, bytes of the repository
measured() {
    local name=$1 step=$2
    shift 2
    sync
    /usr/bin/time -o "$work/time" -f '%e %U %S %M' "$@" >/dev/null 2>"$work/err" || { cat "$work/err" >&2; return 1; }
    local size; size=$(find "$work/$name" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }')
    tail -n 1 "$work/time" |
        awk -v n="$name" -v s="$step" -v size="$size" '{ print n, s, $1, $2 + $3, $4 / 1024, size }' >>"$results"
}

# Each of these: VERB NAME [DAY FILE]. `get` prints the command that reads the newest one.
ours() {
    local verb=$1 name=$2; shift 2
    local to=(--quiet --repo "$work/$name" --key-file "$work/$name.key")
    case $verb in
        init) "$binary" init --no-password "${to[@]}" ;;
        put) measured "$name" "day$1" "$binary" create from-files "$flag" "$2" "${to[@]}" ;;
        get) echo "'$binary' dump latest $component ${to[*]}" ;;
        check) measured "$name" check "$binary" verify --depth data "${to[@]}" ;;
        prune) measured "$name" prune sh -c "'$binary' forget --keep-last 2 ${to[*]} && '$binary' prune ${to[*]}" ;;
    esac
}
restic_tool() {
    local verb=$1 name=$2; shift 2
    export RESTIC_REPOSITORY=$work/$name RESTIC_PASSWORD=compare
    case $verb in
        init) restic -q init ;;
        put) measured "$name" "day$1" sh -c "restic -q backup --stdin --stdin-filename dump <'$2'" ;;
        get) echo "restic -q dump latest /dump" ;;
        check) measured "$name" check restic -q check --read-data ;;
        prune) measured "$name" prune restic -q forget --keep-last 2 --group-by '' --prune ;;
    esac
}
rustic_tool() {
    local verb=$1 name=$2; shift 2
    export RUSTIC_REPOSITORY=$work/$name RUSTIC_PASSWORD=compare RUSTIC_NO_PROGRESS=true
    case $verb in
        init) rustic init --set-compression 3 ;;
        # Without --force version 0.11 takes every standard input for the first one, and stores nothing of it.
        put) measured "$name" "day$1" sh -c "rustic backup --force --stdin-filename dump - <'$2'" ;;
        get) echo "rustic dump latest:dump" ;;
        check) measured "$name" check rustic check --read-data ;;
        prune) measured "$name" prune rustic forget --keep-last 2 --group-by '' --prune --instant-delete --keep-delete 0s ;;
    esac
}
borg_tool() {
    local verb=$1 name=$2; shift 2
    export BORG_REPO=$work/$name BORG_PASSPHRASE=compare BORG_BASE_DIR=$work/home
    case $verb in
        init) borg init -e repokey-blake2 ;;
        put) measured "$name" "day$1" sh -c "borg create --compression zstd,3 --stdin-name dump ::day$1 - <'$2'" ;;
        get) echo "borg extract --stdout ::day$last" ;;
        check) measured "$name" check borg check --verify-data ;;
        prune) measured "$name" prune sh -c "borg prune --keep-last 2 && borg compact --threshold 0" ;;
    esac
}
bupstash_tool() {
    local verb=$1 name=$2; shift 2
    export BUPSTASH_REPOSITORY=$work/$name BUPSTASH_KEY=$work/$name.key
    case $verb in
        init) bupstash new-key -o "$BUPSTASH_KEY" && bupstash init ;;
        put) measured "$name" "day$1" sh -c "bupstash put -q --compression zstd:3 name=dump day=$1 - <'$2'" ;;
        get) echo "bupstash get -q day=$last" ;;
        check) ;; # It has none: to read is to check.
        prune) measured "$name" prune sh -c "for day in $(seq -s ' ' 0 $((last - 2))); do bupstash rm -q day=\$day; done; bupstash gc -q" ;;
    esac
}

# life TOOL NAME FILE...: days one after the other, then reading, checking, pruning
life() {
    local tool=$1 name=$2 day=0 file get
    shift 2
    echo "$name" >&2
    "$tool" init "$name" >/dev/null 2>"$work/err" || { cat "$work/err" >&2; return 1; }
    for file; do
        cat "$file" >/dev/null
        "$tool" put "$name" "$day" "$file"
        day=$((day + 1))
    done
    get=$("$tool" get "$name")
    measured "$name" read sh -c "$get"
    sh -c "$get" | cmp - "$file" || { echo "$name gave back something else" >&2; return 1; }
    "$tool" check "$name"
    "$tool" prune "$name"
    rm -rf "${work:?}/$name"
}

last=$(($# - 1))
yesterday='' day=0
insides=()
for dump; do
    plain=$(inside "$dump")
    insides+=("$plain")
    bound=$(zstd -q -3 --long=31 ${yesterday:+--patch-from="$yesterday"} -c "$plain" | wc -c)
    echo "bound day$day 0 0 0 $bound" >>"$results"
    yesterday=$plain day=$((day + 1))
done
life ours ours "$@"
for peer in "${peers[@]}"; do
    life "${peer}_tool" "$peer" "$@"
    [ "$kind" = postgres ] || life "${peer}_tool" "$peer+" "${insides[@]}"
done
for peer in "${peers[@]}"; do "$peer" --version 2>/dev/null || "$peer" version; done | head -n 8
python3 "$here/compare-table.py" "$results"
