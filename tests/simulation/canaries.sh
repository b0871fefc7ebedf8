#!/bin/bash
# Breaks single lines of the protocol in a copy of the source, and sees that the simulation finds each out:
#
#   tests/simulation/canaries.sh [SEEDS [NAME...]]
#
# SEEDS (default 600) is how many schedules each may take. The copy lies in a temporary folder and shares the target folder
# CANARY_TARGET (default: canaries below the cache of the tests), so that dependencies are built once. Exit status 0 only if all
# were found out.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
seeds=${1:-600}
shift || true
export CARGO_TARGET_DIR=${CANARY_TARGET:-${XDG_CACHE_HOME:-$HOME/.cache}/infrahub-backup-tests/canaries}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

# canary NAME FILE FROM TO: one line of FILE has FROM; it gets TO instead
canary() {
    local name=$1 file=$2 from=$3 to=$4
    [ ${#chosen[@]} = 0 ] || [[ " ${chosen[*]} " == *" $name "* ]] || return 0
    rm -rf "$work/copy"
    mkdir "$work/copy"
    (cd "$root" && tar cf - Cargo.toml Cargo.lock src tests benches format-spec README.md docs) | tar xf - -C "$work/copy"
    python3 - "$work/copy/$file" "$from" "$to" <<'PYTHON'
import sys
path, old, new = sys.argv[1:]
text = open(path).read()
if text.count(old) != 1:
    sys.exit(f"{path}: `{old}` is there {text.count(old)} times")
open(path, "w").write(text.replace(old, new))
PYTHON
    if ! (cd "$work/copy" && cargo test -q --test simulation --no-run) >"$work/build" 2>&1; then
        tail -n 20 "$work/build"
        echo "canary $name: does not build"
        failed=$((failed + 1))
    elif (cd "$work/copy" && INFRAHUB_SIM_SEEDS=0..$seeds cargo test -q --test simulation no_schedule -- --nocapture) >"$work/run" 2>&1; then
        echo "canary $name: NOT found out by $seeds schedules"
        failed=$((failed + 1))
    else
        echo "canary $name: found out, $(grep -m 1 -o 'seed [0-9]*' "$work/run")"
        passed=$((passed + 1))
    fi
}
chosen=("$@")

canary sweep-ignores-needs src/repository/sweep.rs \
    'if uncovered(survey, &shared, &kept, &pack) == 0 {' 'if uncovered(survey, &shared, &kept, &pack) <= 3 {'
canary sweep-waits-for-nobody src/repository/sweep.rs \
    'run.relies() && run.first <= relied_before' 'run.relies() && run.first > relied_before'
canary sweep-deletes-what-is-pardoned src/repository/sweep.rs \
    'if plan.pardon.contains(pack) || !survey.packs.contains_key(pack) {' 'if !survey.packs.contains_key(pack) {'
canary commit-is-never-late src/repository/confirm.rs \
    'if lease.end().await.is_some_and(|at| at <= manifest.lease_deadline) {' 'if lease.end().await.is_some_and(|at| at >= manifest.created_at) {'
canary commit-confirms-blindly src/repository/confirm.rs \
    'if missing > 0 {' 'if missing > u64::MAX - 1 {'
canary writers-trust-condemned-packs src/repository/mod.rs \
    'present.retain(|pack| !record.condemned.contains_key(pack));' 'present.retain(|pack| !record.held.contains(pack));'
canary a-lapsed-lease-goes-on src/repository/lease.rs \
    'if at > standing.deadline {' 'if at < standing.deadline {'

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
