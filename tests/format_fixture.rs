//! A repository of format 1 that is kept for ever: every later program opens it with each kind of key, gives back what went in,
//! and backs up into a copy of it.
//!
//! `INFRAHUB_UPDATE_FIXTURE=1` makes it anew. Once format 1 is released that must never be needed again.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use support::{Ran, Sandbox, noise, package_file, unwrapped};

const FOLDER: &str = "tests/fixtures/format-1";
const SECRET: &str = "AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0SWRYDWG";
const RECIPIENT: &str = "age13aqvttdk3ujkyjh9kg2w5an6dmy5mq5a84a4uxk3hfhnugfc9p0sy5p2wh";
const ARTIFACT_BYTES: usize = 20_000;

/// Both days, as they went in.
const DAYS: [&str; 2] = ["day1", "day2"];

fn dump(component: &str, day: &str) -> PathBuf {
    package_file(&format!("src/demo/{component}-{day}.dump"))
}

fn create(sandbox: &Sandbox, day: &str) {
    fs::create_dir_all(sandbox.path("artifacts/deep")).expect("a folder");
    sandbox.write("artifacts/same", noise("same", ARTIFACT_BYTES));
    sandbox.write("artifacts/deep/changed", noise(day, ARTIFACT_BYTES));
    let (neo4j, postgres) = (dump("database", day), dump("task-manager-db", day));
    let (neo4j, postgres) = (neo4j.display().to_string(), postgres.display().to_string());
    let files = ["--neo4j-path", &neo4j, "--postgres-path", &postgres, "--artifacts-path", "artifacts"];
    sandbox.run([&["create", "from-files"][..], &files].concat()).ok();
}

fn copy_below(from: &Path, to: &Path) {
    for name in support::files_below(from).into_keys() {
        let path = to.join(&name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::copy(from.join(&name), path).expect("copied");
    }
}

/// Two days, a snapshot that was forgotten, one that is held, keys of two generations, and every kind of key.
fn make() {
    let sandbox = Sandbox::with_repository();
    sandbox.write("password", "a password that is known to everybody\n");
    create(&sandbox, "day1");
    sandbox.run(["forget", &sandbox.snapshots()[0]]).ok();
    create(&sandbox, "day1");
    sandbox.run(["key", "add", "--role", "reader", "--label", "password", "--new-password-file", "password"]).ok();
    let added = sandbox.run(["key", "add", "--role", "reader", "--label", "recipient", "--recipient", RECIPIENT]).ok();
    let root = added.text().lines().find(|line| line.starts_with("# ")).expect("the line of the root").to_owned();
    sandbox.write("identity", format!("{root}\n{SECRET}\n"));
    sandbox.run(["key", "rotate", "--content"]).ok();
    create(&sandbox, "day2");
    sandbox.run(["snapshots", "hold", &sandbox.snapshots()[0]]).ok();
    let folder = package_file(FOLDER);
    let _ = fs::remove_dir_all(&folder);
    copy_below(&sandbox.repository, &folder.join("repository"));
    for name in ["key", "password", "identity"] {
        fs::copy(sandbox.path(name), folder.join(name)).expect("copied");
    }
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later").as_secs();
    fs::write(folder.join("made-at"), format!("{seconds}\n")).expect("written");
}

/// A copy with the times of the original, as far as they matter: all was there in time.
fn copied() -> Sandbox {
    let (sandbox, folder) = (Sandbox::new(), package_file(FOLDER));
    copy_below(&folder, &sandbox.path(""));
    let text = fs::read_to_string(folder.join("made-at")).expect("when it was made");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(text.trim().parse().expect("seconds"));
    for name in sandbox.objects().into_keys() {
        let file = fs::File::options().write(true).open(sandbox.repository.join(name)).expect("an object");
        file.set_modified(time).expect("a time");
    }
    sandbox
}

#[test]
fn a_repository_of_format_1_opens_with_every_kind_of_key_and_gives_back_what_went_in() {
    if std::env::var_os("INFRAHUB_UPDATE_FIXTURE").is_some_and(|value| value == "1") {
        make();
    }
    let sandbox = copied();
    let ids = sandbox.snapshots();
    assert_eq!(ids.len(), DAYS.len());
    for (flag, file) in [("--key-file", "key"), ("--password-file", "password"), ("--identity", "identity")] {
        for (id, day) in ids.iter().zip(DAYS) {
            let given = |component: &str, path: &str| {
                let mut command = sandbox.command_without_key(["dump", id, component]);
                command.args(Some(path).filter(|path| !path.is_empty())).args([flag, file]);
                Ran::of(command).ok().out
            };
            let wanted = |component: &str| fs::read(dump(component, day)).expect("a dump");
            assert!(given("task-manager-db", "") == wanted("task-manager-db"), "{file}, {day}");
            assert!(unwrapped(&given("database", "")) == unwrapped(&wanted("database")), "{file}, {day}");
            assert!(given("artifacts", "same") == noise("same", ARTIFACT_BYTES), "{file}, {day}");
            assert!(given("artifacts", "deep/changed") == noise(day, ARTIFACT_BYTES), "{file}, {day}");
        }
    }
    sandbox.assert_clean();
}

#[test]
fn a_repository_of_format_1_takes_new_backups() {
    let sandbox = copied();
    create(&sandbox, "day1");
    assert_eq!(sandbox.snapshots().len(), DAYS.len() + 1);
    sandbox.assert_clean();
    let listed = sandbox.run(["snapshots", "--json"]).ok().json();
    let held: Vec<bool> = listed.as_array().expect("rows").iter().map(|row| row["hold"] == true).collect();
    assert_eq!(held, [true, false, false]);
}
