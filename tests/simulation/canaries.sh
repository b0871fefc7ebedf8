#!/bin/bash
# Breaks single expressions of the protocol in a copy of the source, and sees that the simulation finds each out:
#
#   tests/simulation/canaries.sh [SEEDS [NAME...]]
#
# SEEDS (default 3500) is how many schedules each may take. All are built at once: in the copy each expression asks the environment
# whether it is to be broken. The copy lies in the target folder CANARY_TARGET (default: canaries below the cache of the tests), so that
# the next run builds little. Exit status 0 only if all were found out, and nothing was found where nothing is broken.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
seeds=${1:-3500}
shift || true
chosen=("$@")
export CARGO_TARGET_DIR=${CANARY_TARGET:-${XDG_CACHE_HOME:-$HOME/.cache}/infrahub-backup-tests/canaries}
copy=$CARGO_TARGET_DIR/source
rm -rf "$copy"
mkdir -p "$copy"
(cd "$root" && tar cf - Cargo.toml Cargo.lock src tests benches format-spec README.md docs) | tar xf - -C "$copy"
# The program itself is not run.
rm "$copy/src/main.rs"
sed -i '/^default-run/d' "$copy/Cargo.toml"
sed -i '1i #![allow(unused_parens)]' "$copy/src/lib.rs"
cat >>"$copy/src/lib.rs" <<'RUST'

/// Whether to break what this stands for.
pub fn canary(name: &str) -> bool {
    static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    NAME.get_or_init(|| std::env::var("CANARY").ok()).as_deref() == Some(name)
}
RUST
names=()

# canary NAME FILE FROM TO: FILE has the expression FROM once; where it is to be broken TO stands for it
canary() {
    names+=("$1")
    python3 - "$1" "$copy/$2" "$3" "$4" <<'PYTHON'
import sys
name, path, old, new = sys.argv[1:]
text = open(path).read()
if text.count(old) != 1:
    sys.exit(f"canary {name}: `{old}` is in {path} {text.count(old)} times")
open(path, "w").write(text.replace(old, f'(if crate::canary("{name}") {{ {new} }} else {{ {old} }})'))
PYTHON
}

canary sweep-ignores-needs src/repository/sweep.rs \
    'uncovered(survey, &shared, &kept, &pack) == 0' 'uncovered(survey, &shared, &kept, &pack) <= 3'
canary sweep-waits-for-nobody src/repository/sweep.rs \
    'run.relies() && run.first <= relied_before' 'run.relies() && run.first > relied_before'
canary sweep-deletes-what-is-pardoned src/repository/sweep.rs \
    'plan.pardon.contains(pack) || !survey.packs.contains_key(pack)' '!survey.packs.contains_key(pack)'
canary sweep-dooms-nothing src/repository/sweep/act.rs \
    'plan.delete.difference(&survey.record.doomed).copied().collect()' 'BTreeSet::new()'
canary commit-is-never-late src/repository/confirm.rs \
    'lease.end().await.is_some_and(|at| at <= manifest.lease_deadline)' 'lease.end().await.is_some_and(|at| at >= manifest.created_at)'
canary commit-confirms-blindly src/repository/confirm.rs \
    'missing > 0' 'missing > u64::MAX - 1'
canary writers-trust-condemned-packs src/repository/mod.rs \
    'present.retain(|pack| !record.condemned.contains_key(pack))' 'present.retain(|pack| !record.held.contains(pack))'
canary a-lapsed-lease-goes-on src/repository/lease.rs \
    'at > standing.deadline' 'false'
canary replicate-confirms-blindly src/repository/confirm.rs \
    'missing.retain(|_, chunks| *chunks > 0)' 'missing.retain(|_, chunks| *chunks > u64::MAX - 1)'
canary replicate-trusts-condemned-packs src/ops/replicate/needs.rs \
    'self.refused = record.condemned.into_keys().collect()' 'self.refused = HashSet::new()'
canary repair-condemns-what-is-held src/repository/repair/decide.rs \
    '!self.holdings.trusted().contains(pack) && !self.record.condemned.contains_key(pack)' '!self.record.condemned.contains_key(pack)'
canary repair-does-not-pardon src/repository/repair/decide.rs \
    'self.pardon.clone()' 'BTreeSet::new()'
canary repair-confirms-what-is-hurt src/repository/repair/decide.rs \
    'hurt.difference(known).copied().collect()' 'BTreeSet::new()'
canary repair-reinstates-what-is-hurt src/repository/repair/decide.rs \
    'known.contains(id) && !hurt.contains(id)' 'known.contains(id)'
canary repair-quarantines-what-is-whole src/repository/repair/decide.rs \
    'self.lacking.snapshots.iter().map(|loss| loss.id).collect()' 'self.snapshots.iter().map(|snapshot| snapshot.id).collect()'

(cd "$copy" && cargo test --release --test simulation --no-run)
binary=$(cd "$copy" && cargo test --release --test simulation --no-run --message-format json 2>/dev/null |
    grep -o '"executable":"[^"]*/simulation-[^"]*"' | tail -n 1 | cut -d '"' -f 4)
passed=0 failed=0
# tell RIGHT TEXT
tell() {
    echo "$2"
    if [ "$1" = yes ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}
for name in nothing "${names[@]}"; do
    [ ${#chosen[@]} = 0 ] || [[ " ${chosen[*]} " == *" $name "* ]] || continue
    if output=$(CANARY=$name INFRAHUB_SIM_SEEDS=0..$seeds "$binary" no_schedule --nocapture 2>&1); then
        if [ "$name" = nothing ]; then right=yes; else right=no; fi
        tell "$right" "canary $name: not found out by $seeds schedules"
    else
        if [ "$name" = nothing ]; then right=no; else right=yes; fi
        seen=$(grep -m 1 -A 1 '^seed ' <<<"$output" | tr -s ' \n' ' ' | cut -c 1-200)
        tell "$right" "canary $name: found out, $seen"
    fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
