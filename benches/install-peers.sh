#!/bin/bash
# install-peers.sh [NAME...] - the tools that compare.sh measures beside this one: restic, borg and zstd from packages of the
# distribution, rustic and bupstash by `cargo install` (some minutes each). What is on the PATH or in PEERS is kept.
set -euo pipefail
# shellcheck source=tests/parts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../tests/parts/common.sh"
peers=${PEERS:-$CACHE/peers}
export PATH=$peers/bin:$PATH
[ $# -gt 0 ] || set -- zstd restic borg rustic bupstash

# crate NAME ARGUMENTS...: without link-time optimisation, which costs minutes and changes little
crate() {
    logged "peer-$1" env CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install --locked --root "$peers" "$@"
}

for name; do
    if command -v "$name" >/dev/null; then continue; fi
    case $name in
        zstd | restic) apt_install "$name" ;;
        borg) apt_install borgbackup ;;
        rustic) crate rustic-rs --no-default-features --bin rustic ;;
        bupstash) apt_install pkg-config libsodium-dev && crate bupstash ;;
        *) die "install-peers.sh [zstd|restic|borg|rustic|bupstash]...: $name?" ;;
    esac
done
