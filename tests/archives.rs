//! Archives of the predecessor, as users of the binary meet them: imported, restored, exported, encrypted, and refused where they
//! are not whole.
//!
//! What is read was made by `support/archives.rs`, what is written is checked by `archives/check.py`: neither shares code with the
//! program.

#[path = "support/archives.rs"]
mod archives;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use archives::{Archive, DATABASE, Entry, TASK_MANAGER, encrypt, gzip, keys, tar};
use serde_json::Value;
use support::scripted::Scripted;
use support::{Ran, Sandbox, unwrapped, wait_until};

fn list(sandbox: &Sandbox) -> Vec<Value> {
    sandbox.run(["snapshots", "list", "--json"]).ok().json().as_array().expect("an array").clone()
}

#[track_caller]
fn has_what_went_in(sandbox: &Sandbox, id: &str) {
    let database = sandbox.run(["dump", id, "database"]).ok().out;
    assert!(unwrapped(&database) == unwrapped(DATABASE), "another database");
    assert!(sandbox.run(["dump", id, "task-manager-db"]).ok().out == TASK_MANAGER, "another task manager");
}

/// Runs the checker; `None` where there is no Python and none is asked for.
#[track_caller]
fn checked(archive: &Path, key: Option<&Path>, into: &Path) -> Option<Value> {
    let mut command = Command::new("python3");
    command.arg(support::package_file("tests/archives/check.py")).arg(archive).arg("--into").arg(into);
    if let Some(key) = key {
        command.arg("--key").arg(key);
    }
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}");
            Some(serde_json::from_slice(&output.stdout).expect("JSON"))
        }
        Err(error) if std::env::var_os("INFRAHUB_TEST_PARTS").is_some() => panic!("python3: {error}"),
        Err(error) => {
            eprintln!("NOT TESTED: the checker of archives: python3: {error}");
            None
        }
    }
}

#[test]
fn an_archive_becomes_a_snapshot_of_the_time_at_which_it_was_made() {
    let sandbox = Sandbox::with_repository();
    let archive = sandbox.write("infrahub_backup_20251224_190005.tar.gz", Archive::community().pack());
    let made = sandbox.run(["import", archive.to_str().unwrap(), "--deployment", "site-a", "--json"]).ok().json();
    let [made] = &made.as_array().expect("an array")[..] else { panic!("{made}") };
    assert_eq!(made["created_at"], "2025-12-24T18:00:05Z");
    assert_eq!(made["deployment"], "site-a");
    assert_eq!(made["infrahub_version"], "1.6.2");
    assert_eq!(made["tags"]["archive"], "infrahub_backup_20251224_190005");
    assert_eq!(made["tags"]["archive-tool"], "1.7.4");
    assert_eq!(made["status"], "complete");
    let names: Vec<&Value> = support::found(made, "components").unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["database", "task-manager-db"]);
    has_what_went_in(&sandbox, made["id"].as_str().unwrap());
    assert!(sandbox.journals().is_empty());
    // It is older than what is backed up now: `latest` is not what was imported last.
    let now = sandbox.write("n.dump", DATABASE);
    sandbox.run(["create", "from-files", "--deployment", "site-a", "--neo4j-path", now.to_str().unwrap()]).ok();
    let newest = sandbox.run([
        "create",
        "from-files",
        "--deployment",
        "site-a",
        "--neo4j-path",
        now.to_str().unwrap(),
        "--json",
    ]);
    let newest = newest.ok().json()["id"].clone();
    sandbox.run(["import", archive.to_str().unwrap(), "--deployment", "site-a"]).ok();
    assert_eq!(sandbox.run(["snapshots", "show", "latest", "--json"]).ok().json()["id"], newest);
    sandbox.assert_clean();
}

#[test]
fn archives_of_all_versions_of_the_metadata_are_read() {
    let sandbox = Sandbox::with_repository();
    let mut first = Archive { version: 2_025_092_500, edition: None, ..Archive::community() };
    first.components.push("artifacts");
    let mut second =
        Archive { version: 2_025_102_200, edition: None, components: vec!["database"], ..Archive::community() };
    second.remove("prefect.dump");
    let third = Archive { more: ",\n    \"redacted\": true".to_owned(), ..Archive::community() };
    let names = ["a.tar.gz", "b.tar.gz", "c.tar.gz"];
    let paths: Vec<_> = [&first, &second, &third]
        .iter()
        .zip(names)
        .map(|(archive, name)| sandbox.write(name, archive.pack()).display().to_string())
        .collect();
    let made = sandbox.run([&["import".to_owned(), "--json".to_owned()][..], &paths[..]].concat()).ok().json();
    let count = |n: usize| made[n]["components"].as_array().map(Vec::len);
    assert_eq!([count(0), count(1), count(2)], [Some(2), Some(1), Some(2)]);
    assert_eq!(made[2]["tags"]["redacted"], "true");
    assert_eq!(made[0]["tags"].get("redacted"), None);
    sandbox.assert_clean();
}

#[test]
fn an_archive_of_enterprise_keeps_its_edition_and_goes_back_as_a_backup() {
    let sandbox = Sandbox::with_repository();
    let backup = archives::enterprise();
    let mut archive =
        Archive { version: 2_025_102_200, edition: None, components: vec!["database"], ..Archive::community() };
    archive.remove("prefect.dump");
    archive.remove("database/neo4j.dump");
    archive.add("database/neo4j-2025-10-01T10-00-00.backup", &backup);
    archive.add("database/neo4j_watchdog.log", b"left behind");
    let path = sandbox.write("e.tar.gz", archive.pack()).display().to_string();
    let made = sandbox.run(["import", &path, "--json"]).ok().json();
    assert!(made[0]["warnings"][0].as_str().unwrap().contains("neo4j_watchdog.log"), "{made}");
    assert!(sandbox.run(["dump", "latest", "database"]).ok().out == backup);
    let back = sandbox.path("back.tar.gz");
    sandbox.run(["export", "latest", "--output", back.to_str().unwrap(), "--database", "other"]).ok();
    if let Some(found) = checked(&back, None, &sandbox.path("unpacked")) {
        assert_eq!(found["metadata"]["neo4j_edition"], "enterprise");
        let name = "database/other-2025-12-24T18-00-05.backup";
        assert!(fs::read(sandbox.path("unpacked").join(name)).unwrap() == backup);
    }
}

/// What is wrong with an archive, and what is said about it.
fn wrong_ones() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = Archive::community();
    let packed = good.pack();
    let changed = |change: &dyn Fn(&mut Archive)| {
        let mut archive = good.clone();
        change(&mut archive);
        archive.pack()
    };
    let with = |entry: Entry| gzip(&tar(&[good.entries(), vec![entry]].concat()));
    let flipped = |at: usize| {
        let mut bytes = packed.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let in_dump = |name: &str| {
        changed(&|archive| {
            let file = archive.files.iter_mut().find(|(known, _)| known == name).expect("it is there");
            let middle = file.1.len() / 2;
            file.1[middle] ^= 1;
        })
    };
    let mut late = good.entries();
    late.swap(1, 4);
    let huge = |size: u64, pax: &str| {
        let mut entries = good.entries();
        let last = entries.last_mut().expect("there are some");
        (last.size, last.pax) = (Some(size), pax.to_owned());
        gzip(&tar(&entries))
    };
    vec![
        ("nothing", vec![], "it is empty"),
        ("another file", b"hello".to_vec(), "neither a `.tar.gz` nor an encrypted archive"),
        ("only the beginning", packed[..1].to_vec(), "cut short"),
        ("half", packed[..packed.len() / 2].to_vec(), "cut short"),
        ("all but the last byte", packed[..packed.len() - 1].to_vec(), "cut short"),
        ("a byte too much", [&packed[..], b"x"].concat(), "bytes follow behind the end"),
        ("a second archive behind", [&packed[..], &packed[..]].concat(), "bytes follow behind the end"),
        ("a flipped bit early", flipped(40), "archive"),
        ("a flipped bit in the middle", flipped(packed.len() / 2), "archive"),
        ("a flipped bit at the end", flipped(packed.len() - 6), "damaged"),
        ("a damaged database", in_dump("database/neo4j.dump"), "archive"),
        ("a damaged task manager", in_dump("prefect.dump"), "archive"),
        (
            "a wrong checksum",
            changed(&|a| drop(a.checksums.insert("prefect.dump".to_owned(), "0".repeat(64)))),
            "hashes to",
        ),
        (
            "a missing dump",
            changed(&|a| a.files.retain(|(name, _)| name != "prefect.dump")),
            "name `prefect.dump`, which is missing",
        ),
        (
            "a missing database",
            changed(&|a| a.files.retain(|(name, _)| name != "database/neo4j.dump")),
            "which is missing",
        ),
        ("no checksum of a dump", changed(&|a| drop(a.checksums.remove("prefect.dump"))), "no `prefect.dump`"),
        ("no checksum of the database", changed(&|a| drop(a.checksums.remove("database/neo4j.dump"))), "name no dump"),
        ("two databases", changed(&|a| a.add("database/other.dump", DATABASE)), "a snapshot holds one"),
        ("an unknown version", changed(&|a| a.version = 2_030_010_100), "is not known"),
        ("no time", changed(&|a| a.created_at = "yesterday"), "cannot be read"),
        ("no tar", gzip(b"hello"), "cut short"),
        ("an empty tar", gzip(&[0; 1024]), "`backup_information.json`, which is missing"),
        ("a tar without its end", gzip(&tar(&good.entries())[..tar(&good.entries()).len() - 512]), "cut short"),
        ("bytes behind the tar", gzip(&[tar(&good.entries()), vec![1; 512]].concat()), "bytes follow behind the end"),
        ("metadata that come late", gzip(&tar(&late)), "--sort=name"),
        ("a file twice", with(Entry::file("backup/prefect.dump", TASK_MANAGER)), "it comes twice"),
        ("a file that is not listed", with(Entry::file("backup/zz", "x")), "has no checksum of it"),
        ("a way out", with(Entry::file("backup/../../etc/passwd", "x")), "not below `backup/`"),
        ("an absolute path", with(Entry::file("/etc/passwd", "x")), "not below `backup/`"),
        ("another folder", with(Entry::file("other/file", "x")), "not below `backup/`"),
        ("a symbolic link", with(Entry::link("backup/link", b'2', "/etc/passwd")), "neither a file nor a folder"),
        ("a hard link", with(Entry::link("backup/link", b'1', "backup/prefect.dump")), "neither a file nor a folder"),
        ("a device", with(Entry::link("backup/device", b'3', "")), "neither a file nor a folder"),
        ("more than there is", huge(8 << 30, ""), "archive"),
        ("eight exabytes", huge(1, "28 size=9223372036854775807\n"), "archive"),
        ("a size that is none", huge(1, "28 size=92233720368547758070\n"), "archive"),
        (
            "an extended header without end",
            gzip(&tar(&[Entry { kind: b'x', size: Some(1 << 30), ..Entry::file("x", "") }])),
            "64 KiB",
        ),
    ]
}

#[test]
fn an_archive_that_is_not_whole_is_refused_and_nothing_of_it_is_listed() {
    let sandbox = Sandbox::with_repository();
    for (what, bytes, said) in wrong_ones() {
        let path = sandbox.write("wrong.tar.gz", bytes);
        let ran = sandbox.run(["import", path.to_str().unwrap()]);
        assert_eq!(ran.code, Some(1), "{what}: {}\n{}", ran.text(), ran.err);
        assert!(ran.err.contains(said), "{what}: no `{said}` in:\n{}", ran.err);
        assert!(ran.err.contains("is refused, and nothing of it was kept"), "{what}: {}", ran.err);
        assert!(ran.err.contains("hint: bring it again") || ran.err.contains("hint: unpack it"), "{what}: {}", ran.err);
        assert!(!ran.err.contains("panic"), "{what}: {}", ran.err);
    }
    assert_eq!(list(&sandbox), [Value::Null; 0]);
    assert!(sandbox.journals().is_empty());
    sandbox.assert_clean();
}

#[test]
fn a_good_archive_is_read_however_it_was_packed_again() {
    let sandbox = Sandbox::with_repository();
    let mut entries = Archive::community().entries();
    for entry in &mut entries {
        entry.name = format!("./{}{}", entry.name, if entry.kind == b'5' { "/" } else { "" });
    }
    entries[3].pax = format!("{} size={}\n30 mtime=1766599205.123456789\n", 15, DATABASE.len());
    assert_eq!(DATABASE.len().to_string().len(), 6, "the record's length counts it");
    let packed = gzip(&[tar(&entries), vec![0; 7 * 512]].concat());
    let path = sandbox.write("again.tar.gz", packed);
    let made = sandbox.run(["import", path.to_str().unwrap(), "--json"]).ok().json();
    has_what_went_in(&sandbox, made[0]["id"].as_str().unwrap());
}

#[test]
fn a_dry_run_checks_all_of_an_archive_and_changes_nothing() {
    let sandbox = Sandbox::with_repository();
    let before = sandbox.objects();
    let good = sandbox.write("good.tar.gz", Archive::community().pack());
    let told = sandbox.run(["import", "--dry-run", "--json", good.to_str().unwrap()]).ok().json();
    assert_eq!(told[0]["created_at"], "2025-12-24T18:00:05Z");
    let mut cut = Archive::community().pack();
    cut.truncate(cut.len() - 1);
    let cut = sandbox.write("cut.tar.gz", cut);
    sandbox.run(["import", "--dry-run", cut.to_str().unwrap()]).with_code(1).says(&["cut short"]);
    assert_eq!(sandbox.objects(), before);
}

#[test]
fn an_encrypted_archive_is_imported_with_its_key_and_with_no_other() {
    let mut sandbox = Sandbox::with_repository();
    let (private, public) = keys();
    let plain = Archive { more: ",\n    \"encrypted\": true".to_owned(), ..Archive::community() }.pack();
    let sealed = encrypt(&plain, &public);
    let path = sandbox.write("a.tar.gz.enc", &sealed).display().to_string();
    let key = sandbox.write("backup.key", private).display().to_string();
    let other = sandbox.write("other.key", keys().0).display().to_string();
    let with =
        |sandbox: &Sandbox, archive: &str, key: &str| sandbox.run(["import", archive, "--decrypt-key", key, "--json"]);
    sandbox.run(["import", &path]).with_code(2).says(&["no key for it was given", "--decrypt-key FILE"]);
    with(&sandbox, &path, &other).with_code(1).says(&["encrypted for another key"]);
    let no_key = sandbox.write("no.key", "hello").display().to_string();
    with(&sandbox, &path, &no_key).with_code(12).says(&["is no key file for archives"]);
    let plain = sandbox.write("plain.tar.gz", plain).display().to_string();
    with(&sandbox, &plain, &key).with_code(2).says(&["it is not encrypted", "INFRAHUB_DECRYPT_KEY"]);
    for (what, bytes) in [
        ("cut", sealed[..sealed.len() - 1].to_vec()),
        ("cut in the head", sealed[..50].to_vec()),
        ("longer", [&sealed[..], b"x"].concat()),
        ("flipped", sealed.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 5000)).collect()),
        ("another version", [&[3], &sealed[1..]].concat()),
    ] {
        let path = sandbox.write("wrong.enc", bytes).display().to_string();
        let ran = with(&sandbox, &path, &key);
        assert_eq!(ran.code, Some(1), "{what}: {}", ran.err);
    }
    assert_eq!(list(&sandbox), [Value::Null; 0]);
    let made = with(&sandbox, &path, &key).ok().json();
    has_what_went_in(&sandbox, made[0]["id"].as_str().unwrap());
    sandbox.set("INFRAHUB_DECRYPT_KEY", key);
    sandbox.run(["import", &path]).ok();
    assert_eq!(list(&sandbox).len(), 2);
}

/// Made by v1.7.4 itself, of the dumps that are [`DATABASE`] and [`TASK_MANAGER`]: its `keygen`, and its `create from-files` with
/// that key. The key is for this test alone.
#[test]
fn an_archive_that_the_predecessor_itself_encrypted_is_read_with_the_key_that_it_made() {
    let sandbox = Sandbox::with_repository();
    let folder = support::package_file("tests/fixtures/predecessor-1.7.4");
    let (archive, key) = (folder.join("infrahub_backup_20261126_153337.tar.gz.enc"), folder.join("backup.key"));
    let line = ["import", archive.to_str().unwrap(), "--decrypt-key", key.to_str().unwrap(), "--json"];
    let made = sandbox.run(line).ok().json();
    assert_eq!(
        (&made[0]["created_at"], &made[0]["tags"]["archive-tool"]),
        (&"2026-11-26T15:33:37Z".into(), &"1.7.4".into())
    );
    has_what_went_in(&sandbox, made[0]["id"].as_str().unwrap());
    // What is held against our archives holds for its own.
    checked(&archive, Some(&key), &sandbox.path("unpacked"));
    let public = folder.join("backup.key.pub");
    let ours = sandbox.path("ours.enc");
    let line = ["export", "latest", "--output", ours.to_str().unwrap(), "--encrypt-key", public.to_str().unwrap()];
    sandbox.run(line).ok();
    checked(&ours, Some(&key), &sandbox.path("unpacked-again"));
}

#[test]
fn keygen_makes_a_pair_and_replaces_nothing() {
    let sandbox = Sandbox::new();
    let key = sandbox.path("backup.key");
    let name = key.to_str().unwrap();
    let made = sandbox.run(["keygen", "-o", name]).ok().says(&["backup.key.pub", "cannot be read"]);
    let public = fs::read_to_string(sandbox.path("backup.key.pub")).unwrap();
    assert_eq!(made.text(), public);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&key), mode(&sandbox.path("backup.key.pub"))), (0o600, 0o644));
    let private = fs::read_to_string(&key).unwrap();
    assert!(!made.err.contains(private.lines().nth(1).unwrap()));
    sandbox.run(["keygen", "-o", name]).with_code(2).says(&["is there already", "--overwrite"]);
    fs::remove_file(&key).unwrap();
    sandbox.run(["keygen", "-o", name]).with_code(2).says(&["backup.key.pub` is there already"]);
    assert!(!key.exists());
    sandbox.run(["keygen", "-o", name, "--overwrite"]).ok();
    assert_ne!(fs::read_to_string(sandbox.path("backup.key.pub")).unwrap(), public);
}

#[test]
fn an_archive_is_restored_without_a_repository_and_leaves_none() {
    let sandbox = Sandbox::new();
    let archive = sandbox.write("a.tar.gz", Archive::community().pack());
    let out = sandbox.path("out");
    let line = ["restore", archive.to_str().unwrap(), "--to-files", out.to_str().unwrap()];
    sandbox.run([&line[..], &["--dry-run"]].concat()).ok();
    assert!(!out.exists());
    sandbox.run([&line[..], &["--yes"]].concat()).ok();
    assert!(unwrapped(&fs::read(out.join("database.dump")).unwrap()) == unwrapped(DATABASE));
    assert!(fs::read(out.join("task-manager-db.dump")).unwrap() == TASK_MANAGER);
    assert!(!sandbox.repository.exists());
    for (what, bytes, said) in wrong_ones() {
        let path = sandbox.write("wrong.tar.gz", bytes);
        let to = sandbox.path("nowhere");
        let ran = sandbox.run(["restore", path.to_str().unwrap(), "--to-files", to.to_str().unwrap(), "--yes"]);
        assert!(ran.code == Some(1) && ran.err.contains(said) && !to.exists(), "{what}: {}", ran.err);
    }
}

#[test]
fn an_archive_that_is_restored_becomes_a_snapshot_where_there_is_a_repository() {
    let mut sandbox = Sandbox::with_repository();
    let (private, public) = keys();
    let archive = sandbox.write("a.tar.gz.enc", encrypt(&Archive::community().pack(), &public));
    let key = sandbox.write("k", private).display().to_string();
    sandbox.set("INFRAHUB_DECRYPT_KEY", key);
    let out = sandbox.path("out");
    let line =
        ["restore", archive.to_str().unwrap(), "--to-files", out.to_str().unwrap(), "--exclude", "task-manager-db"];
    sandbox.run([&line[..], &["--dry-run"]].concat()).ok();
    assert_eq!(list(&sandbox), [Value::Null; 0]);
    sandbox.run([&line[..], &["--yes"]].concat()).ok();
    assert!(out.join("database.dump").exists() && !out.join("task-manager-db.dump").exists());
    assert_eq!(list(&sandbox).len(), 1);
    sandbox.run(["restore", archive.to_str().unwrap(), "--at", "2026-01-01T00:00:00Z", "--yes"]).with_code(2);
    sandbox.run(["snapshots", "show", "a.tar.gz"]).with_code(2).says(&["infrahub-backup import ARCHIVE"]);
}

#[test]
fn the_server_of_an_archive_may_be_named_where_the_repository_is_in_a_folder() {
    let mut sandbox = Sandbox::new();
    // Port 9 of this machine: discard, which nobody runs.
    sandbox.set("INFRAHUB_S3_ENDPOINT", "http://127.0.0.1:9");
    let to = sandbox.path("out");
    let line = ["restore", "s3://bucket/folder/a.tar.gz", "--to-files", to.to_str().unwrap(), "--yes"];
    sandbox.run(line).with_code(1).says(&["s3://bucket/folder at http://127.0.0.1:9"]);
    sandbox.run(["snapshots", "list"]).with_code(2).says(&["`--s3-endpoint` is given"]);
    // What a chart sets for archives names no repository.
    sandbox.set("INFRAHUB_BACKEND", "tarball");
    sandbox.set("INFRAHUB_S3_BUCKET", "archives");
    let archive = sandbox.write("a.tar.gz", Archive::community().pack());
    let line = ["restore", archive.to_str().unwrap(), "--to-files", to.to_str().unwrap(), "--yes"];
    Ran::of(sandbox.command_without_repository(line)).ok();
    assert!(to.join("database.dump").exists());
}

fn backed_up(sandbox: &Sandbox) -> Ran {
    let (n, p) = (sandbox.write("n.dump", DATABASE), sandbox.write("p.dump", TASK_MANAGER));
    let artifacts = sandbox.path("artifacts");
    fs::create_dir_all(&artifacts).unwrap();
    let [n, p, a] = [n, p, artifacts].map(|path| path.display().to_string());
    let line = ["create", "from-files", "--neo4j-edition", "community", "--infrahub-version", "<1.6> & more"];
    sandbox.run([&line[..], &["--neo4j-path", &n, "--postgres-path", &p, "--artifacts-path", &a]].concat())
}

#[test]
fn what_is_exported_is_an_archive_of_the_predecessor_and_comes_back_the_same() {
    let sandbox = Sandbox::with_repository();
    backed_up(&sandbox).ok();
    let folder = sandbox.path("archives");
    fs::create_dir(&folder).unwrap();
    let exported = sandbox.run(["export", "latest", "--output", folder.to_str().unwrap(), "--json"]).ok();
    let exported = exported.says(&["`artifacts` is not in the archive"]).json();
    let path = exported["archive"].as_str().unwrap();
    assert_eq!(exported["left_out"][0], "artifacts");
    assert_eq!(archives::sha256(&fs::read(path).unwrap()), exported["sha256"].as_str().unwrap());
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    if let Some(found) = checked(path.as_ref(), None, &sandbox.path("unpacked")) {
        let metadata = &found["metadata"];
        assert_eq!(
            (&metadata["neo4j_edition"], &metadata["infrahub_version"]),
            (&"community".into(), &"<1.6> & more".into())
        );
        let file = Path::new(path).file_name().unwrap().to_str().unwrap();
        assert_eq!(format!("{}.tar.gz", metadata["backup_id"].as_str().unwrap()), file);
        let unpacked = |name: &str| fs::read(sandbox.path("unpacked").join(name)).unwrap();
        assert!(unwrapped(&unpacked("database/neo4j.dump")) == unwrapped(DATABASE));
        assert!(unpacked("prefect.dump") == TASK_MANAGER);
    }
    sandbox.run(["export", "latest", "--output", path]).with_code(2).says(&["is already there"]);
    let before = list(&sandbox);
    let made = sandbox.run(["import", path, "--json"]).ok().json();
    has_what_went_in(&sandbox, made[0]["id"].as_str().unwrap());
    assert_eq!(made[0]["infrahub_version"], "<1.6> & more");
    let whole_seconds = |time: &Value| time.as_str().unwrap()[..19].to_owned();
    assert_eq!(whole_seconds(&made[0]["created_at"]), whole_seconds(&before[0]["created_at"]));
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn what_is_exported_for_a_key_opens_with_it() {
    let sandbox = Sandbox::with_repository();
    backed_up(&sandbox).ok();
    let key = sandbox.path("backup.key");
    sandbox.run(["keygen", "-o", key.to_str().unwrap()]).ok();
    let public = sandbox.path("backup.key.pub");
    let path = sandbox.path("a.enc");
    let line = ["export", "latest", "--output", path.to_str().unwrap(), "--encrypt-key", public.to_str().unwrap()];
    let exported = sandbox.run([&line[..], &["--json"]].concat()).ok().json();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(archives::sha256(&bytes), exported["sha256"].as_str().unwrap());
    assert_eq!(bytes[0], 2);
    if let Some(found) = checked(&path, Some(&key), &sandbox.path("unpacked")) {
        assert_eq!(found["metadata"]["encrypted"], true);
    }
    let made = sandbox.run(["import", path.to_str().unwrap(), "--decrypt-key", key.to_str().unwrap(), "--json"]);
    has_what_went_in(&sandbox, made.ok().json()[0]["id"].as_str().unwrap());
    let line = ["export", "latest", "--output", "/dev/null/x", "--encrypt-key", key.to_str().unwrap()];
    sandbox.run(line).with_code(12).says(&["is no key file for archives"]);
}

#[test]
fn scripts_that_want_archives_get_them_without_any_repository() {
    let mut sandbox = Sandbox::new();
    let folder = sandbox.path("backups");
    sandbox.set("INFRAHUB_BACKEND", "tarball");
    sandbox.set("INFRAHUB_BACKUP_DIR", folder.display().to_string());
    let made = backed_up(&sandbox).ok().says(&["`artifacts` is not in the archive"]);
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [path] = &names[..] else { panic!("{names:?}\n{}", made.err) };
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("infrahub_backup_2") && name.ends_with(".tar.gz") && name.len() == 38, "{name}");
    checked(path, None, &sandbox.path("unpacked"));
    assert!(!sandbox.repository.exists());
    let out = sandbox.path("out");
    sandbox.run(["restore", path.to_str().unwrap(), "--to-files", out.to_str().unwrap(), "--yes"]).ok();
    assert!(fs::read(out.join("task-manager-db.dump")).unwrap() == TASK_MANAGER);
    sandbox.run(["restore", "--to-files", out.to_str().unwrap(), "--yes"]).with_code(2).says(&["none is named"]);
    sandbox.run(["create", "from-files", "--neo4j-path", "x", "--encrypt"]).with_code(2).says(&["keygen -o FILE"]);
}

/// An archive of the database alone, another one than the deployment holds.
fn of_another_day() -> Archive {
    let mut archive = Archive { components: vec!["database"], ..Archive::community() };
    archive.remove("prefect.dump");
    archive.remove("database/neo4j.dump");
    archive.add("database/neo4j.dump", &fs::read(support::package_file("src/demo/database-day2.dump")).unwrap());
    archive
}

#[test]
fn an_archive_is_restored_into_a_deployment_after_what_is_there_was_saved() {
    let site = Scripted::new("site-a");
    let archive = site.sandbox.write("a.tar.gz", of_another_day().pack()).display().to_string();
    let config = site.sandbox.path("infrahub-backup.toml").display().to_string();
    let line = ["restore", &archive, "--config", &config];
    site.sandbox.run([&line[..], &["--dry-run"]].concat()).ok();
    assert!(fs::read(site.content("database")).unwrap() == DATABASE);
    site.sandbox.run([&line[..], &["--yes"]].concat()).ok();
    let loaded = unwrapped(&fs::read(site.content("database")).unwrap());
    assert!(loaded == unwrapped(&fs::read(support::package_file("src/demo/database-day2.dump")).unwrap()));
    site.assert_running();
    let snapshots = list(&site.sandbox);
    let [imported, safety] = &snapshots[..] else { panic!("{snapshots:#?}") };
    assert_eq!((&imported["deployment"], &safety["deployment"]), (&"site-a".into(), &"site-a".into()));
    assert!(safety["tags"]["safety"].is_string());
}

#[test]
fn an_archive_that_is_not_whole_stops_nothing_of_a_deployment_and_one_without_a_repository_says_what_it_cannot_do() {
    let site = Scripted::inside(Sandbox::new(), "site-a");
    let config = site.sandbox.path("infrahub-backup.toml").display().to_string();
    site.hook("stop-infrahub-server", "touch $here/was-stopped");
    let bytes = of_another_day().pack();
    for (what, end) in [("cut", bytes.len() - 9), ("half", bytes.len() / 2)] {
        let path = site.sandbox.write("cut.tar.gz", &bytes[..end]).display().to_string();
        let ran = site.sandbox.run(["restore", &path, "--config", &config, "--yes"]);
        assert_eq!(ran.code, Some(1), "{what}: {}", ran.err);
    }
    assert!(!site.marker("was-stopped").exists());
    assert!(fs::read(site.content("database")).unwrap() == DATABASE);
    let path = site.sandbox.write("a.tar.gz", &bytes).display().to_string();
    let ran = site.sandbox.run(["restore", &path, "--config", &config, "--yes", "--json"]).ok();
    let restored = ran.says(&["cannot be saved first", "infrahub-backup init"]).json();
    assert_eq!((&restored["safety_snapshot"], &restored["report"]), (&Value::Null, &Value::Null));
    assert!(site.marker("was-stopped").exists());
    assert!(unwrapped(&fs::read(site.content("database")).unwrap()) != unwrapped(DATABASE));
    site.assert_running();
}

#[test]
fn an_archive_is_restored_again_after_a_restore_of_it_broke_in_the_middle() {
    let site = Scripted::new("site-a");
    let archive = site.sandbox.write("a.tar.gz", of_another_day().pack()).display().to_string();
    let config = site.sandbox.path("infrahub-backup.toml").display().to_string();
    let line = ["restore", &archive, "--config", &config, "--yes", "--no-safety-snapshot"];
    site.hook("load-database", "exit 7");
    site.sandbox.run(line).with_code(1);
    assert_eq!(site.sandbox.journals().len(), 1, "it is known that the database is half replaced");
    site.unhook("load-database");
    site.sandbox.run(line).ok();
    assert!(site.sandbox.journals().is_empty());
    assert!(unwrapped(&fs::read(site.content("database")).unwrap()) != unwrapped(DATABASE));
    site.assert_running();
}

#[test]
fn an_import_that_is_killed_leaves_nothing_listed_and_the_next_one_goes_on() {
    let sandbox = Sandbox::with_repository();
    // A pipe that gives half of it and then nothing.
    let bytes = Archive::community().pack();
    let pipe = sandbox.path("pipe.tar.gz");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let started = sandbox.start("import", ["import", pipe.to_str().unwrap()]);
    let mut end = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    std::io::Write::write_all(&mut end, &bytes[..bytes.len() / 2]).unwrap();
    wait_until("it dumps", || sandbox.last_phase().as_deref() == Some("dump"));
    started.kill();
    assert_eq!(list(&sandbox), [Value::Null; 0]);
    let whole = sandbox.write("whole.tar.gz", bytes);
    sandbox.run(["import", whole.to_str().unwrap()]).ok().says(&["was killed"]);
    assert!(sandbox.journals().is_empty());
    assert_eq!(list(&sandbox).len(), 1);
    sandbox.assert_clean();
}
