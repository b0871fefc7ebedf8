//! Dumps that are not what they should be: none of them becomes a snapshot, and the services run again. Targets that cannot take what
//! is restored: nothing of them is touched.

mod support;

use std::fs;

use support::scripted::Scripted;
use support::{Ran, Sandbox, package_file};

/// One good snapshot, then a `create` while `hook` decides what the dump of the database gives.
fn create_with(hook: &str) -> (Scripted, Vec<String>, Ran) {
    let scripted = Scripted::new("site");
    scripted.sandbox.run(["create"]).ok();
    let snapshots = scripted.sandbox.snapshots();
    assert_eq!(snapshots.len(), 1);
    scripted.hook("dump-database", hook);
    let ran = scripted.sandbox.run(["create"]);
    (scripted, snapshots, ran)
}

#[track_caller]
fn assert_refused(hook: &str, says: &[&str]) {
    let (scripted, snapshots, ran) = create_with(hook);
    ran.with_code(1).says(&["database"]).says(says);
    scripted.assert_as_before(&snapshots);
    scripted.unhook("dump-database");
    scripted.sandbox.run(["create"]).ok();
    assert_eq!(scripted.sandbox.snapshots().len(), 2);
}

#[test]
fn a_dump_that_exits_nonzero_after_its_last_byte_leaves_no_snapshot() {
    assert_refused("cat $here/database.content; echo the disk is on fire >&2; exit 7", &["7", "the disk is on fire"]);
}

#[test]
fn a_dump_that_is_killed_half_way_leaves_no_snapshot() {
    assert_refused("head -c 50000 $here/database.content; kill -9 $$", &["signal 9"]);
}

#[test]
fn an_empty_dump_leaves_no_snapshot() {
    assert_refused("exit 0", &["not whole"]);
}

#[test]
fn a_truncated_dump_leaves_no_snapshot() {
    assert_refused("head -c 90000 $here/database.content; exit 0", &["not whole"]);
}

#[test]
fn a_dump_that_lacks_its_last_byte_leaves_no_snapshot() {
    assert_refused("head -c -1 $here/database.content; exit 0", &["not whole"]);
}

#[test]
fn a_dump_with_bytes_behind_its_end_leaves_no_snapshot() {
    assert_refused("cat $here/database.content; echo; exit 0", &["not whole"]);
}

#[test]
fn garbage_instead_of_a_dump_leaves_no_snapshot() {
    assert_refused("head -c 200000 /dev/urandom; exit 0", &["not whole"]);
}

#[test]
fn a_program_that_is_not_there_leaves_no_snapshot() {
    assert_refused("exec /does/not/exist", &["127"]);
}

/// A small graph after a large one: valid, and suspicious.
fn shrunk() -> (Scripted, Vec<String>) {
    let scripted = Scripted::new("site");
    scripted.set_content("queue", &package_file("src/demo/task-manager-db-day1.dump"));
    scripted.sandbox.run(["create"]).ok();
    scripted.set_content("queue", &package_file("tests/fixtures/postgres-15-uncompressed.pgdump"));
    let snapshots = scripted.sandbox.snapshots();
    (scripted, snapshots)
}

#[test]
fn a_dump_that_shrank_by_more_than_half_leaves_no_snapshot() {
    let (scripted, snapshots) = shrunk();
    scripted.sandbox.run(["create"]).with_code(1).says(&["queue", "less than half", "--allow-shrink"]);
    scripted.assert_as_before(&snapshots);
}

#[test]
fn a_dump_that_shrank_is_kept_when_told_so() {
    let (scripted, _) = shrunk();
    scripted.sandbox.run(["create", "--allow-shrink"]).ok();
    assert_eq!(scripted.sandbox.snapshots().len(), 2);
    scripted.sandbox.assert_clean();
}

#[test]
fn a_partial_snapshot_says_so_and_lacks_only_what_failed() {
    let scripted = Scripted::new("site");
    scripted.hook("dump-queue", "exit 1");
    scripted.sandbox.run(["create", "--allow-partial"]).with_code(3).says(&["queue"]);
    scripted.assert_running();
    let id = scripted.sandbox.snapshots().remove(0);
    let dumped = scripted.sandbox.run(["dump", &id, "queue"]).with_code(1).says(&["queue", "failed"]);
    assert!(dumped.out.is_empty());
    let artifact = scripted.sandbox.run(["dump", &id, "artifacts", "objects/7"]).ok();
    assert!(artifact.out == fs::read(scripted.artifacts().join("objects/7")).expect("an artifact"));
    // A partial snapshot is never chosen for somebody who did not name it.
    scripted.sandbox.run(["dump", "latest", "artifacts", "objects/7"]).with_code(1);
}

/// A good PostgreSQL dump is in the repository; then `content` comes as one.
#[track_caller]
fn assert_postgres_refused(content: &[u8], says: &[&str]) {
    let sandbox = Sandbox::with_repository();
    let good = package_file("src/demo/task-manager-db-day1.dump");
    sandbox.run_with_input(["create", "from-files", "--postgres-path", "-"], &good).ok();
    let bad = sandbox.write("bad.dump", content);
    let by_file = sandbox.run(["create".as_ref(), "from-files".as_ref(), "--postgres-path".as_ref(), bad.as_os_str()]);
    by_file.with_code(1).says(&["task-manager-db"]).says(says);
    let by_input = sandbox.run_with_input(["create", "from-files", "--postgres-path", "-"], &bad);
    by_input.with_code(1).says(&["task-manager-db"]).says(says);
    assert_eq!(sandbox.snapshots().len(), 1);
    sandbox.assert_clean();
}

fn good_postgres() -> Vec<u8> {
    fs::read(package_file("src/demo/task-manager-db-day1.dump")).expect("a dump")
}

#[test]
fn an_empty_postgresql_dump_leaves_no_snapshot() {
    assert_postgres_refused(b"", &["not whole"]);
}

#[test]
fn a_truncated_postgresql_dump_leaves_no_snapshot() {
    let good = good_postgres();
    assert_postgres_refused(&good[..good.len() - 1], &["not whole"]);
}

#[test]
fn half_a_postgresql_dump_leaves_no_snapshot() {
    let good = good_postgres();
    assert_postgres_refused(&good[..good.len() / 2], &["not whole"]);
}

#[test]
fn garbage_instead_of_a_postgresql_dump_leaves_no_snapshot() {
    assert_postgres_refused(&support::noise("garbage", 100_000), &["not whole"]);
}

#[test]
fn a_postgresql_dump_of_an_empty_database_after_a_full_one_leaves_no_snapshot() {
    let empty = fs::read(package_file("tests/fixtures/postgres-15-empty-database.pgdump")).expect("a dump");
    assert_postgres_refused(&empty, &["less than half"]);
}

#[test]
fn an_enterprise_database_is_not_stopped_and_must_answer() {
    let scripted = Scripted::new("site");
    let config = fs::read_to_string(scripted.sandbox.path("infrahub-backup.toml")).expect("a configuration");
    let section = "[component.neo4j]\nuri = \"bolt://127.0.0.1:1\"\n";
    let config = config.replacen("edition = \"community\"", "edition = \"enterprise\"", 1);
    let config =
        config.replacen("\n[[component]]\nname = \"queue\"", &format!("{section}\n[[component]]\nname = \"queue\""), 1);
    scripted.sandbox.write("infrahub-backup.toml", config);
    let planned = scripted.sandbox.run(["create", "--dry-run"]).ok().text();
    assert!(planned.contains("stop infrahub-server while the databases are dumped"), "{planned}");
    // It goes on running, so that it must say what it is: nothing answers there.
    let refused = scripted.sandbox.run(["create"]).with_code(1);
    refused.says(&["component `database` did not answer", "Connection refused"]);
    scripted.assert_as_before(&[]);
}

#[test]
fn a_restore_whose_postgresql_does_not_answer_touches_nothing() {
    let sandbox = Sandbox::with_repository();
    fs::create_dir_all(sandbox.path("old")).expect("a folder");
    sandbox.write("old/file", "what was backed up");
    let dump = package_file("tests/fixtures/postgres-15-seekable.pgdump");
    let dump = dump.to_str().expect("text");
    sandbox.run(["create", "from-files", "--postgres-path", dump, "--artifacts-path", "old"]).ok();
    fs::create_dir_all(sandbox.path("now")).expect("a folder");
    let file = sandbox.write("now/file", "what is there now");
    let folder = sandbox.path("now");
    sandbox.write(
        "infrahub-backup.toml",
        format!(
            "[deployment]\nname = \"files\"\n[[component]]\nname = \"task-manager-db\"\nkind = \"postgres\"\n\
             [component.postgres]\nuser = \"u\"\ndatabase = \"d\"\nport = 1\n[[component]]\nname = \"artifacts\"\nkind = \"artifacts\"\npath = {folder:?}\n"
        ),
    );
    let refused = sandbox.run(["restore", "latest", "--yes", "--no-safety-snapshot"]);
    assert_ne!(refused.code, Some(0));
    refused.says(&["`task-manager-db` must run and answer to be restored; nothing was touched"]);
    assert_eq!(fs::read_to_string(file).expect("there"), "what is there now");
    assert!(sandbox.journals().is_empty());
}
