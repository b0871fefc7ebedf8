#!/bin/bash
# How a repository grows with dumps of successive days, and what each day costs: this tool beside restic, and the bound.
#
#   benches/growth.sh DUMP DUMP...          dumps of PostgreSQL in the custom format, oldest first
#   KIND=neo4j benches/growth.sh DUMP...    dumps of Neo4j
#
# INFRAHUB_BACKUP (default: target/release/infrahub-backup) is the binary. restic and zstd are used if they are on the PATH; what is
# not there is told. The bound of a day is `zstd -3 --long=31 --patch-from` the day before, for Neo4j of what is inside the two dumps.
# Work is done in a temporary folder (TMPDIR). Times are those of this machine now: compare within one run.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 2; }
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
tool=${INFRAHUB_BACKUP:-$root/target/release/infrahub-backup}
case ${KIND:-postgres} in
    postgres) flag=--postgres-path component=task-manager-db ;;
    neo4j) flag=--neo4j-path component=database ;;
    *) echo "KIND is postgres or neo4j" >&2; exit 2 ;;
esac
[ -x "$tool" ] || { echo "$tool is missing: cargo build --release" >&2; exit 1; }
[ -x /usr/bin/time ] || { echo "/usr/bin/time is missing: apt-get install time" >&2; exit 1; }
for peer in restic zstd; do command -v $peer >/dev/null || echo "not compared: $peer is not on the PATH"; done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HOME=$work XDG_STATE_HOME=$work/state XDG_CACHE_HOME=$work/cache RESTIC_PASSWORD=growth
ours=(--repo "$work/ours" --key-file "$work/key")

# timed COMMAND...: "wall CPU MB" of a command whose output goes nowhere
timed() {
    /usr/bin/time -o "$work/time" -f '%e %U %S %M' "$@" >/dev/null 2>"$work/err" || { cat "$work/err" >&2; return 1; }
    awk '{ printf "%6.2f s  %6.2f s  %4d MB", $1, $2 + $3, $4 / 1024 }' "$work/time"
}
bytes_in() { find "$1" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }'; }

# inside DUMP: where the bytes are that a bound is taken of. Neo4j compresses: `DZV1`, then one zstd frame.
inside() {
    [ "${KIND:-postgres}" = neo4j ] || { echo "$1"; return; }
    [ "$(head -c 4 "$1")" = DZV1 ] || { echo "no bound: $1 is not zstd inside" >&2; return 1; }
    local plain; plain=$work/$(basename "$1").inside
    [ -e "$plain" ] || tail -c +5 "$1" | zstd -q -dc --long=31 >"$plain"
    echo "$plain"
}

"$tool" init --no-password "${ours[@]}" >/dev/null 2>&1
! command -v restic >/dev/null || restic -q -r "$work/theirs" init >/dev/null
before_ours=0 before_theirs=0 yesterday=
printf '%-5s %12s  %-28s %12s  %-28s %12s\n' day ours 'wall, CPU, memory' restic 'wall, CPU, memory' bound
for dump; do
    cat "$dump" >/dev/null
    cost=$(timed "$tool" create from-files "$flag" "$dump" "${ours[@]}")
    size=$(bytes_in "$work/ours")
    line=$(printf '%12d  %-28s' $((size - before_ours)) "$cost")
    before_ours=$size
    if command -v restic >/dev/null; then
        cost=$(timed restic -q -r "$work/theirs" backup --stdin <"$dump")
        size=$(bytes_in "$work/theirs")
        line+=$(printf ' %12d  %-28s' $((size - before_theirs)) "$cost")
        before_theirs=$size
    fi
    if [ -n "$yesterday" ] && command -v zstd >/dev/null; then
        from=$(inside "$yesterday") to=$(inside "$dump")
        line+=$(printf ' %12d' "$(zstd -q -3 --long=31 --patch-from="$from" -c "$to" | wc -c)")
        [ "$from" = "$yesterday" ] || rm -f "$from"
    fi
    printf '%-5s %s\n' "${day:=0}" "$line"
    day=$((day + 1)) yesterday=$dump
done
printf '\n%-36s %s\n' 'dump the newest day, ours' "$(timed "$tool" dump latest "$component" "${ours[@]}")"
! command -v restic >/dev/null ||
    printf '%-36s %s\n' 'dump the newest day, restic' "$(timed restic -q -r "$work/theirs" dump latest stdin)"
printf '%-36s %s\n' 'verify --depth data, ours' "$(timed "$tool" verify --depth data "${ours[@]}")"
! command -v restic >/dev/null ||
    printf '%-36s %s\n' 'check --read-data, restic' "$(timed restic -q -r "$work/theirs" check --read-data)"
