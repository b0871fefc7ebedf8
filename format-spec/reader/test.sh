#!/bin/sh
# Runs the independent reader: all vectors, then repositories that BINARY makes, restored without BINARY and compared
# with what went in. Usage: test.sh [BINARY]; without BINARY only the vectors run.
set -u

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH= cd -- "$here/../.." && pwd)
binary=${1:-}
case $binary in "" | /*) ;; *) binary=$(pwd)/$binary ;; esac
neo4j_dump=$root/src/demo/database-day1.dump
postgres_dump=$root/src/demo/task-manager-db-day1.dump

passed=0
failed=0
finish() {
    echo "$passed passed, $failed failed, 0 skipped"
    [ "$failed" -eq 0 ]
    exit
}

# check NAME COMMAND...: one thing that must succeed.
check() {
    name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "not as it should be: $name"
    fi
}

# refuses NAME COMMAND...: one thing that must not succeed, but say what is wrong.
refuses() {
    name=$1
    shift
    if "$@" >"$work/refusal" 2>&1; then
        check "$name" false
    else
        check "$name" grep -q failure "$work/refusal"
    fi
}

# must NAME COMMAND...: one thing without which the rest means nothing.
must() {
    before=$failed
    check "$@"
    [ "$failed" -eq "$before" ] || finish
}

# The environment is kept while the requirements stay the same.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/infrahub-backup-tests
venv=$cache/reader-venv
if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
    rm -rf "$venv"
    mkdir -p "$cache"
    python3 -m venv "$venv" &&
        "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" &&
        cp "$here/requirements.txt" "$venv/requirements.txt" || {
        echo "the Python environment could not be made"
        failed=1
        finish
    }
fi
python=$venv/bin/python
reader() { "$python" -B "$here/ihbk_reader.py" "$@"; }

vectors=$(reader vectors "$here/../vectors")
echo "$vectors"
counts=$(echo "$vectors" | tail -n 1)
case $counts in
*" passed, "*" failed")
    passed=$((passed + ${counts%% *}))
    rest=${counts#*, }
    failed=$((failed + ${rest%% *}))
    ;;
*) failed=$((failed + 1)) ;;
esac
[ -n "$binary" ] || finish

work=$(mktemp -d) || exit 1
trap 'chmod -R u+rwx "$work"; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
run_binary() {
    env HOME="$work/home" XDG_CACHE_HOME="$work/home/cache" XDG_STATE_HOME="$work/home/state" \
        XDG_CONFIG_HOME="$work/home/config" "$binary" "$@"
}

# An artifact folder with what folders can hold.
artifacts=$work/artifacts
mkdir -p "$artifacts/reports/empty" "$artifacts/with blank" "$work/home"
"$python" - "$artifacts" <<'PYTHON'
import os, random, sys
place = sys.argv[1]
random.seed(20)
for name, size in [("large.bin", 1_500_000), ("reports/small.txt", 12), ("reports/nothing", 0), ("with blank/ä.json", 70_000)]:
    with open(os.path.join(place, name), "wb") as file:
        file.write(random.randbytes(size))
os.symlink("../elsewhere", os.path.join(place, "reports/link"))
os.symlink("large.bin", os.path.join(place, "link-to-file"))
os.link(os.path.join(place, "large.bin"), os.path.join(place, "reports/same-as-large"))
os.chmod(os.path.join(place, "large.bin"), 0o640)
os.chmod(os.path.join(place, "reports/small.txt"), 0o2755)
for number, name in enumerate(["large.bin", "reports/small.txt", "reports/nothing", "with blank/ä.json", "reports/empty", "reports", "with blank", "."]):
    os.utime(os.path.join(place, name), ns=(0, 1_600_000_000_123_456_789 + number * 10**9))
os.utime(os.path.join(place, "reports/nothing"), ns=(0, -1_250_000_000))
PYTHON

# same_tree A B: names, contents, modes, times, links, and which names are one file.
same_tree() {
    "$python" - "$1" "$2" <<'PYTHON'
import hashlib, os, stat, sys

def described(place):
    found, first = {}, {}
    for parent, folders, files in os.walk(place):
        for name in ["."] * (parent == place) + folders + files:
            path = os.path.normpath(os.path.join(parent, name))
            info, relative = os.lstat(path), os.path.relpath(path, place)
            content = ""
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
                first.setdefault(info.st_ino, set()).add(relative)
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            found[relative] = (oct(info.st_mode), info.st_mtime_ns, content)
    return found, sorted(sorted(names) for names in first.values())

a, b = described(sys.argv[1]), described(sys.argv[2])
for name in sorted(set(a[0]) | set(b[0])):
    if a[0].get(name) != b[0].get(name):
        print(f"{name}: {a[0].get(name)} is not {b[0].get(name)}")
sys.exit(a != b)
PYTHON
}

# same_inside A B: two containers of Neo4j are of one kind and hold the same header and tar.
same_inside() {
    "$python" - "$1" "$2" <<'PYTHON'
import gzip, io, sys, zstandard

def inside(path):
    with open(path, "rb") as file:
        data = file.read()
    if data[:4] == b"DZV1":
        return data[:4], zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data[4:])).read()
    if data[:4] == b"DGV1":
        return data[:4], gzip.decompress(data[4:])
    return data[:4], data[4:]

a, b = inside(sys.argv[1]), inside(sys.argv[2])
sys.exit(a != b or len(a[1]) == 0)
PYTHON
}

# component LAYOUT KIND: the name of the component in the listing.
component() { awk -v layout="$1" -v kind="$2" '/^  / && $4 == layout && $2 == kind { print $1 }' "$work/listing" | head -n 1; }

create() {
    run_binary "$@" create from-files --neo4j-path "$neo4j_dump" --postgres-path "$postgres_dump" \
        --artifacts-path "$artifacts"
}

# restored REPOSITORY CREDENTIAL-OPTION FILE: everything in the repository is what went in.
restored() {
    repository=$1
    option=$2
    secret=$3
    check "check finds nothing in $repository" reader check "$repository"
    reader list "$repository" "$option" "$secret" >"$work/listing"
    must "list works" test -s "$work/listing"
    snapshot=$(awk '/^[0-9a-f]/ { print $1; exit }' "$work/listing")
    neo4j=$(component neo4j-dump neo4j)
    postgres=$(component plain postgres)
    folder=$(component tree artifacts)
    reader dump "$repository" "$snapshot" "$neo4j" "$option" "$secret" >"$work/neo4j"
    check "the Neo4j dump holds the same tar" same_inside "$neo4j_dump" "$work/neo4j"
    reader stream "$repository" "$snapshot" "$postgres" "$option" "$secret" >"$work/postgres"
    check "the PostgreSQL dump is the same" cmp "$postgres_dump" "$work/postgres"
    check "the artifacts are restored" reader tree "$repository" "$snapshot" "$folder" "$work/restored" "$option" "$secret"
    check "the artifacts are the same" same_tree "$artifacts" "$work/restored"
    chmod -R u+rwx "$work/restored"
    rm -rf "$work/restored"
}

# A key file.
must "init with a key file" run_binary --repo "$work/with-key" init --no-password --key-file "$work/key"
must "create with a key file" create --repo "$work/with-key" --key-file "$work/key"
restored "$work/with-key" --key-file "$work/key"

# A passphrase.
printf 'a passphrase of the reader test\n' >"$work/password"
INFRAHUB_REPO_PASSWORD_FILE=$work/password
export INFRAHUB_REPO_PASSWORD_FILE
must "init with a passphrase" run_binary --repo "$work/with-password" init
must "create with a passphrase" create --repo "$work/with-password"
unset INFRAHUB_REPO_PASSWORD_FILE
restored "$work/with-password" --password-file "$work/password"

# A recipient.
printf 'AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0SWRYDWG\n' >"$work/identity"
recipient=age13aqvttdk3ujkyjh9kg2w5an6dmy5mq5a84a4uxk3hfhnugfc9p0sy5p2wh
must "a key for a recipient" run_binary --repo "$work/with-key" --key-file "$work/key" key add --role reader --recipient "$recipient"
refuses "a recipient who trusts no root" reader list "$work/with-key" --identity "$work/identity"
run_binary --repo "$work/with-key" --key-file "$work/key" key list | grep '^# infrahub-backup-root-1 ' >>"$work/identity"
restored "$work/with-key" --identity "$work/identity"

# What must be refused.
printf 'another passphrase\n' >"$work/other-password"
refuses "another passphrase" reader list "$work/with-password" --password-file "$work/other-password"
refuses "the key of another repository" reader list "$work/with-password" --key-file "$work/key"
for folder in config keys packs trees index snapshots; do
    rm -rf "$work/damaged"
    cp -r "$work/with-key" "$work/damaged"
    object=$(find "$work/damaged/$folder" -type f | sort | head -n 1)
    chmod u+w "$object"
    "$python" - "$object" <<'PYTHON'
import sys
with open(sys.argv[1], "r+b") as file:
    data = bytearray(file.read())
    data[len(data) // 2] ^= 1
    file.seek(0)
    file.write(data)
PYTHON
    refuses "a flipped bit in $folder" reader check "$work/damaged"
done
finish
