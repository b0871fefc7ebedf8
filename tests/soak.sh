#!/bin/bash
# Everything at once on a real S3 server, for a while: tests/soak.sh [MINUTES [BINARY]] (default 10, target/debug/infrahub-backup).
#
# Eight writers back up eight deployments again and again, while prune runs in a loop with a short grace period, verify reads
# everything, and replicate copies to a folder. At the end nothing may be damaged, and every snapshot that was acknowledged
# and not forgotten must come back as it went in, from the bucket and from the replica. Prints counts; exit status 0 only if all
# of it held. Does not run in CI.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
minutes=${1:-10}
binary=${2:-$root/target/debug/infrahub-backup}
parts=$root/tests/parts
work=$(mktemp -d)
writers=8
finish() {
    touch "$work/stop"
    wait || true
    "$parts/s3.sh" down "$work/s3" >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT

"$parts/s3.sh" install
server=$("$parts/s3.sh" up versitygw "$work/s3")
value() { sed -n "s/^$1=//p" <<<"$server"; }
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
AWS_ACCESS_KEY_ID=$(value S3_ACCESS_KEY) AWS_SECRET_ACCESS_KEY=$(value S3_SECRET_KEY)
endpoint=$(value S3_ENDPOINT)

# run NAME ARGUMENTS...: the binary with state and cache of NAME, as if on a machine of its own
run() {
    local name=$1
    shift
    env HOME="$work/home-$name" XDG_STATE_HOME="$work/home-$name/state" XDG_CACHE_HOME="$work/home-$name/cache" \
        AWS_ENDPOINT_URL="$endpoint" "$binary" -q --repo "${repo:-s3://backup/soak}" --key-file "$work/key" "$@"
}

# make SEED FILE: a file of which most is the same from seed to seed
make() {
    python3 - "$1" "$2" <<'PYTHON'
import random, sys
base = random.Random(sys.argv[1].split("-")[0]).randbytes(600_000)
seed = random.Random(sys.argv[1])
data = bytearray(base)
for _ in range(3):
    at = seed.randrange(len(data) - 20_000)
    data[at:at + 20_000] = seed.randbytes(20_000)
open(sys.argv[2], "wb").write(data)
PYTHON
}

writer() {
    local n=$1 round=0 folder=$work/data-$1 id
    mkdir -p "$folder"
    while [ ! -e "$work/stop" ]; do
        round=$((round + 1))
        make "$n-$round" "$folder/file"
        if id=$(run "writer$n" create from-files --artifacts-path "$folder" --deployment "site$n" --json 2>>"$work/errors-writer$n" |
            python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])'); then
            echo "$id $(sha256sum <"$folder/file" | cut -d' ' -f1)" >>"$work/made-$n"
        else
            echo "writer $n round $round" >>"$work/failed"
        fi
    done
}

# loop NAME ARGUMENTS...
loop() {
    local name=$1 count=0
    shift
    while [ ! -e "$work/stop" ]; do
        if run "$name" "$@" --json >"$work/last-$name" 2>>"$work/errors-$name"; then
            count=$((count + 1))
            cat "$work/last-$name" >>"$work/all-$name"
        else
            echo "$name: exit status $?" >>"$work/failed"
        fi
        echo "$count" >"$work/count-$name"
        sleep 1
    done
}

run setup init --no-password >/dev/null
for n in $(seq "$writers"); do writer "$n" & done
loop prune prune --keep-last 3 --grace 20s &
loop verify verify --depth data &
loop replicate replicate --to "$work/replica" --init &
echo "everything at once for $minutes minutes"
sleep $((minutes * 60))
touch "$work/stop"
wait

echo "snapshots made: $(cat "$work"/made-* | wc -l); runs: prune $(cat "$work/count-prune"), verify $(cat "$work/count-verify"), replicate $(cat "$work/count-replicate")"
python3 - "$work/all-prune" <<'PYTHON'
import json, sys
decoder, text, at, total = json.JSONDecoder(), open(sys.argv[1]).read(), 0, {}
while at < len(text):
    value, at = decoder.raw_decode(text, at)
    while at < len(text) and text[at].isspace(): at += 1
    for name in ("deleted_packs", "condemned_packs", "pardoned_packs", "repacked_packs"):
        total[name] = total.get(name, 0) + value[name]
    waiting = value["waiting_for"]
print("prune:", ", ".join(f"{name} {number}" for name, number in total.items()), "; waiting at last:", waiting)
PYTHON
status=0
if [ -e "$work/failed" ]; then
    status=1
    echo "failed runs:"
    sort "$work/failed" | uniq -c
    tail -n 4 "$work"/errors-*
fi
run end verify --depth data || status=1
run end replicate --to "$work/replica" >/dev/null || status=1
checked=0
for place in bucket replica; do
    [ "$place" = bucket ] && repo= || repo=$work/replica
    ids=$(run end snapshots list --json | python3 -c 'import json, sys; print(*(s["id"] for s in json.load(sys.stdin) if s["status"] == "complete"))')
    [ -n "$ids" ] || { echo "there are no snapshots in the $place"; status=1; }
    for id in $ids; do
        expected=$(cat "$work"/made-* | sed -n "s/^$id //p")
        found=$(run end dump "$id" artifacts file | sha256sum | cut -d' ' -f1)
        checked=$((checked + 1))
        [ "$expected" = "$found" ] || { echo "snapshot $id in the $place came back as something else"; status=1; }
    done
done
repo=
for n in $(seq "$writers"); do
    tail -n 1 "$work/made-$n" | while read -r id _; do
        run end snapshots show "$id" >/dev/null || { echo "the newest snapshot of writer $n, $id, is gone"; exit 1; }
    done || status=1
done
echo "$checked snapshots read back"
[ "$status" = 0 ] && echo "1 passed, 0 failed, 0 skipped" || echo "0 passed, 1 failed, 0 skipped"
exit "$status"
