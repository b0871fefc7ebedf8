//! Who may do what: readers everything, writers back up and read no content, auditors look; and nobody what comes after his
//! key was removed.

mod support;

use std::fs;

use serde_json::Value;
use support::{Ran, Sandbox, Started, noise};

struct World {
    sandbox: Sandbox,
}

impl World {
    /// A snapshot, a reader's key file, a writer's, and an auditor's password.
    fn new() -> Self {
        let sandbox = Sandbox::with_repository();
        fs::create_dir(sandbox.path("data")).expect("made");
        let mut world = Self { sandbox };
        world.back_up("day 1").ok();
        let key =
            |role: &str, file: &str| world.run(["key", "add", "--role", role, "--label", role, "--new-key-file", file]);
        key("writer", "writer.key").ok();
        key("reader", "other.key").ok();
        key("auditor", "auditor.key").ok();
        world.sandbox.write("password", "one more reader's\n");
        let add = ["key", "add", "--role", "reader", "--label", "by password", "--new-password-file", "password"];
        assert!(world.run(add).ok().text().contains("whose role is reader"));
        world
    }

    fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
        self.sandbox.run(arguments)
    }

    /// As whoever has this key file.
    fn run_as<'a>(&mut self, key: &str, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
        let other = self.sandbox.path(key);
        let own = std::mem::replace(&mut self.sandbox.key, other);
        let ran = self.run(arguments);
        self.sandbox.key = own;
        ran
    }

    fn back_up(&mut self, seed: &str) -> Ran {
        self.back_up_as("key", seed)
    }

    fn back_up_as(&mut self, key: &str, seed: &str) -> Ran {
        fs::write(self.sandbox.path("data/same"), noise("same", 300_000)).expect("written");
        fs::write(self.sandbox.path("data/own"), noise(seed, 50_000)).expect("written");
        self.run_as(key, ["create", "from-files", "--artifacts-path", "data", "--json"])
    }

    fn slots(&self) -> Vec<Value> {
        self.run(["key", "list", "--json"]).ok().json()["slots"].as_array().expect("slots").clone()
    }

    fn dump(&mut self, key: &str, id: &str, file: &str) -> Ran {
        self.run_as(key, ["dump", id, "artifacts", file])
    }
}

#[test]
fn a_writer_backs_up_against_what_others_wrote_and_reads_none_of_it() {
    let mut world = World::new();
    let created = world.back_up_as("writer.key", "day 2").ok().json();
    let id = created["id"].as_str().expect("an id");
    let added = created["components"][0]["added_bytes"].as_u64().expect("bytes");
    assert!(added < 150_000, "it deduplicates: {created}");
    assert_eq!(world.run_as("writer.key", ["snapshots", "--json"]).ok().json().as_array().map(Vec::len), Some(2));
    world.dump("writer.key", id, "own").with_code(12).says(&["role `writer` may not read content"]);
    world.run_as("writer.key", ["restore", id, "--to-files", "out", "--yes"]).with_code(12);
    let verified = world.run_as("writer.key", ["verify", "--depth", "data"]).ok();
    assert!(verified.text().contains("this key does not open content"));
    world.run_as("writer.key", ["key", "rotate"]).with_code(12).says(&["may not change keys"]);
    let add = ["key", "add", "--role", "reader", "--new-key-file", "mine.key"];
    world.run_as("writer.key", add).with_code(12);
    assert!(!world.sandbox.path("mine.key").exists());
    assert!(world.dump("key", id, "own").ok().out == noise("day 2", 50_000));
    world.sandbox.assert_clean();
}

#[test]
fn who_relies_only_on_itself_stores_again_what_others_wrote_and_not_what_it_wrote() {
    let mut world = World::new();
    let mut added = |seed: &str, flags: &[&str]| {
        fs::write(world.sandbox.path("data/own"), noise(seed, 50_000)).expect("written");
        let create = ["create", "from-files", "--artifacts-path", "data", "--json"];
        let created = world.run_as("writer.key", [&create[..], flags].concat()).ok().json();
        created["components"][0]["added_bytes"].as_u64().expect("bytes")
    };
    assert!(added("day 2", &["--dedup-own"]) > 350_000, "it relied on what a reader wrote");
    assert!(added("day 3", &["--dedup-own"]) < 150_000, "it did not rely on what it wrote itself");
    // Under a new version of the slot, with a new signer.
    world.run(["key", "rotate"]).ok();
    let mut added = |seed: &str| {
        fs::write(world.sandbox.path("data/own"), noise(seed, 50_000)).expect("written");
        let create = ["create", "from-files", "--artifacts-path", "data", "--json", "--dedup-own"];
        world.run_as("writer.key", create).ok().json()["components"][0]["added_bytes"].as_u64().expect("bytes")
    };
    assert!(added("day 4") < 150_000, "it did not rely on what an older version of its slot wrote");
    world.sandbox.assert_clean();
}

/// The pair whose secret half is the bytes 0 to 31.
const SECRET: &str = "AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0SWRYDWG";
const RECIPIENT: &str = "age13aqvttdk3ujkyjh9kg2w5an6dmy5mq5a84a4uxk3hfhnugfc9p0sy5p2wh";
/// Bytes of zero, to which nothing can be sealed.
const NOBODY: &str = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z";

fn run_with_identity(world: &World, arguments: &[&str]) -> Ran {
    let arguments = [arguments, &["--identity", "identity"]].concat();
    Ran::of(world.sandbox.command_without_key(arguments))
}

#[test]
fn an_identity_opens_what_was_sealed_to_its_recipient_once_it_trusts_the_root() {
    let mut world = World::new();
    world.sandbox.write("identity", format!("# mine\n{SECRET}\n"));
    run_with_identity(&world, &["snapshots"]).with_code(12);
    let add = ["key", "add", "--role", "reader", "--label", "alice", "--recipient", RECIPIENT];
    let told = world.run(add).ok().text();
    let line = told.lines().find(|line| line.starts_with("# infrahub-backup-root-1 ")).expect("the line to add");
    assert!(world.run(["key", "list"]).ok().text().contains(line));
    run_with_identity(&world, &["snapshots"]).with_code(12).says(&["names no root of repository", "key list"]);
    let another = line.replace(line.rsplit(' ').next().expect("a root"), &"11".repeat(32));
    world.sandbox.write("identity", format!("{another}\n{SECRET}\n"));
    run_with_identity(&world, &["snapshots"]).with_code(12).says(&["was replaced"]);
    world.sandbox.write("identity", format!("{line}\n{SECRET}\n"));
    assert!(run_with_identity(&world, &["dump", "latest", "artifacts", "own"]).ok().out == noise("day 1", 50_000));
    // Keys are renewed for it without its owner.
    world.run(["key", "rotate", "--content"]).ok();
    world.back_up("day 2").ok();
    assert!(run_with_identity(&world, &["dump", "latest", "artifacts", "own"]).ok().out == noise("day 2", 50_000));
    world.run(["key", "remove", "alice"]).ok();
    run_with_identity(&world, &["snapshots"]).with_code(12).says(&["the key `alice` was removed at"]);
}

#[test]
fn what_is_no_recipient_gets_no_key() {
    let world = World::new();
    let mistyped = RECIPIENT.replace("age1", "age1q");
    for (wrong, why) in [(mistyped.as_str(), "age-keygen"), (SECRET, "age-keygen"), (NOBODY, "small order")] {
        let add = ["key", "add", "--role", "reader", "--recipient", wrong];
        let ran = world.run(add).with_code(2).says(&[why]);
        assert!(!ran.err.contains(&SECRET[20..]), "{}", ran.err);
    }
    assert_eq!(world.slots().len(), 5);
    let init = ["init", "--identity", "identity"];
    Ran::of(world.sandbox.command_without_key(init)).with_code(2);
}

#[test]
fn exported_keys_stand_in_for_those_that_were_lost() {
    let mut world = World::new();
    world.run(["key", "rotate"]).ok();
    world.run(["key", "export", "exported"]).ok();
    world.run(["key", "export", "exported"]).with_code(1).says(&["a folder that is not there"]);
    for folder in ["keys", "config"] {
        fs::remove_dir_all(world.sandbox.repository.join(folder)).expect("removed");
    }
    world.run(["snapshots"]).with_code(4);
    for (name, _) in support::files_below(&world.sandbox.path("exported")) {
        let to = world.sandbox.repository.join(&name);
        fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        fs::copy(world.sandbox.path("exported").join(&name), to).expect("copied");
    }
    for key in ["key", "other.key"] {
        assert!(world.dump(key, "latest", "own").ok().out == noise("day 1", 50_000));
    }
    world.back_up_as("writer.key", "day 2").ok();
    world.sandbox.assert_clean();
}

#[test]
fn an_auditor_looks_and_changes_nothing() {
    let mut world = World::new();
    world.run_as("auditor.key", ["snapshots"]).ok();
    world.run_as("auditor.key", ["report", "list"]).ok();
    let before = world.sandbox.objects();
    assert!(world.run_as("auditor.key", ["verify"]).ok().text().contains("no damage"));
    let create = ["create", "from-files", "--artifacts-path", "data"];
    world.run_as("auditor.key", create).with_code(12).says(&["role `auditor` may not write"]);
    world.run_as("auditor.key", ["dump", "latest", "artifacts", "own"]).with_code(12);
    assert_eq!(world.sandbox.objects(), before);
    assert!(world.run_as("auditor.key", ["key", "list"]).ok().text().contains("auditor  key file"));
}

#[test]
fn a_removed_key_opens_nothing_that_is_written_later() {
    let mut world = World::new();
    let before = world.sandbox.objects();
    assert!(world.run(["key", "remove", "writer"]).ok().text().contains("take away the access to the store"));
    world.run_as("writer.key", ["snapshots"]).with_code(12).says(&["the key `writer` was removed at"]);
    world.back_up("day 2").ok();
    // Not even with the slot as it was: a polite program refuses because of the newer one, so that is taken away.
    let removed = world.slots().into_iter().find(|slot| slot["label"] == "writer").expect("it is listed");
    assert_eq!(removed["removed"], true);
    for name in world.sandbox.objects().into_keys().filter(|name| name.starts_with("keys/")) {
        let path = world.sandbox.repository.join(&name);
        if !before.contains_key(&name) && fs::read_to_string(&path).expect("text").contains("\"removed\"") {
            fs::rename(&path, world.sandbox.path("slot")).expect("moved");
        }
    }
    world.run_as("writer.key", ["snapshots"]).with_code(12).says(&["generation 2"]);
    assert!(world.dump("other.key", "latest", "own").ok().out == noise("day 2", 50_000));
}

#[test]
fn renewed_keys_open_what_is_old_and_what_is_new() {
    let mut world = World::new();
    assert!(world.run(["key", "rotate", "--content"]).ok().text().contains("metadata 2, content 2"));
    let written = world.back_up_as("writer.key", "day 2").ok().json();
    assert!(world.run(["key", "rotate"]).ok().text().contains("metadata 3, content 2"));
    world.back_up("day 3").ok();
    for key in ["key", "other.key"] {
        let ids = world.run_as(key, ["snapshots", "--json"]).ok().json();
        assert_eq!(ids.as_array().map(Vec::len), Some(3));
        let id = written["id"].as_str().expect("an id");
        assert!(world.dump(key, id, "own").ok().out == noise("day 2", 50_000));
        assert!(world.dump(key, "latest", "own").ok().out == noise("day 3", 50_000));
    }
    world.run_as("auditor.key", ["verify"]).ok();
    world.sandbox.assert_clean();
    world.run(["replicate", "--to", "replica", "--init"]).ok();
    world.run(["key", "rotate", "--content"]).ok();
    world.back_up("day 4").ok();
    // What came to the source since comes before what is sealed under it.
    world.run(["replicate", "--to", "replica"]).ok();
    world.sandbox.repository = world.sandbox.path("replica");
    assert!(world.dump("other.key", "latest", "own").ok().out == noise("day 4", 50_000));
}

#[test]
fn of_changes_at_once_each_counts_or_says_that_it_does_not() {
    let mut world = World::new();
    let started: Vec<Started> =
        (0..4).map(|n| world.sandbox.start(&format!("rotate-{n}"), ["key", "rotate", "--content"])).collect();
    let codes: Vec<i32> = started.into_iter().map(|one| one.wait().code.expect("no signal")).collect();
    assert!(codes.contains(&0), "{codes:?}");
    assert!(codes.iter().all(|code| [0, 11].contains(code)), "{codes:?}");
    for key in ["key", "other.key"] {
        assert!(world.dump(key, "latest", "own").ok().out == noise("day 1", 50_000));
    }
    world.run_as("auditor.key", ["snapshots"]).ok();
    world.back_up_as("writer.key", "day 2").ok();
    world.sandbox.assert_clean();
}

#[test]
fn what_must_not_be_changed_is_not() {
    let world = World::new();
    world.run(["key", "remove", "nobody"]).with_code(1).says(&["names 0 keys", "key list"]);
    world.run(["key", "remove", "key file"]).with_code(2).says(&["cannot remove itself"]);
    let inside = ["key", "add", "--role", "reader", "--new-key-file", "repository/a.key"];
    world.run(inside).with_code(2).says(&["whoever takes the backups would take the key along"]);
    let nobody_to_ask = ["key", "add", "--role", "reader"];
    world.run(nobody_to_ask).with_code(12).says(&["--new-key-file FILE"]);
    assert_eq!(world.slots().len(), 5);
}
