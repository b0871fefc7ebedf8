#!/bin/bash
# memory.sh BINARY DIR - peak memory of create, verify and restore for each stream (*.dump) that make-streams.sh put
# into DIR, as /usr/bin/time sees it. Use a release build: `cargo build --release`.
#
# One line per operation: stream, operation, peak RSS in MiB, wall seconds, CPU seconds. If memory is bounded by a
# budget and not by the data, the peak of pg-5 is that of pg-1. Each restored stream is compared with the original.
set -euo pipefail
binary=$(readlink -f -- "${1:?memory.sh BINARY DIR}")
dir=$(cd -- "${2:?memory.sh BINARY DIR}" && pwd -P)
[ -x /usr/bin/time ] || { echo "memory.sh needs /usr/bin/time: apt-get install time" >&2; exit 1; }

work=$(mktemp -d -p "$dir" memory.XXXXXX)
trap 'rm -rf "$work"' EXIT
# State and cache of these runs end with them.
export XDG_STATE_HOME=$work/state XDG_CACHE_HOME=$work/cache XDG_CONFIG_HOME=$work/config

# measure STREAM OPERATION ARGUMENTS...
measure() {
    local stream=$1 operation=$2
    shift 2
    /usr/bin/time -v -o "$work/time" "$binary" --repo "$work/repository" --key-file "$work/key" "$@" \
        >"$work/out" 2>"$work/err" </dev/null || {
        tail -n 20 "$work/err" >&2
        echo "memory.sh: $operation of $stream exited with another status than 0" >&2
        exit 1
    }
    awk -v stream="$stream" -v operation="$operation" '
        /Maximum resident set size/ { peak = $NF / 1024 }
        /User time|System time/ { cpu += $NF }
        /Elapsed/ { n = split($NF, part, ":"); for (i = 1; i <= n; i++) wall = wall * 60 + part[i] }
        END { printf "%-12s %-8s %8.1f MiB %8.1f s wall %8.1f s CPU\n", stream, operation, peak, wall, cpu }
    ' "$work/time"
}

found=
for file in "$dir"/*.dump; do
    [ -e "$file" ] || continue
    found=1
    stream=$(basename -- "$file" .dump)
    rm -rf "$work/repository" "$work/key" "$work/restored" "$work/state" "$work/cache"
    measure "$stream" init init --no-password
    measure "$stream" create create from-files --postgres-path "$file"
    measure "$stream" verify verify --depth data
    measure "$stream" restore restore latest --to-files "$work/restored" --yes
    restored=$(find "$work/restored" -type f -size "$(stat -c %s "$file")c" | head -n 1)
    if [ -z "$restored" ] || ! cmp -s "$file" "$restored"; then
        echo "memory.sh: $stream came back different" >&2
        exit 1
    fi
done
[ -n "$found" ] || { echo "no *.dump in $dir: make-streams.sh $dir" >&2; exit 1; }
