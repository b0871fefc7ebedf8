//! Who can write to the store, and who has a key that does not allow it, changes nothing that is read: each attack is refused
//! by the layer that format-spec names.
//!
//! Attacks on single objects by who holds the metadata key (swapped segments, bombs, lies about lengths) are vectors, see
//! `format-spec/vectors`; here are those on a repository as a whole.

#[allow(dead_code)]
#[path = "format_vectors/craft.rs"]
mod craft;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use infrahub_backup::format::envelope::ObjectType;
use infrahub_backup::format::index::{ChunkEntry, PackFooter, SegmentEntry, SegmentKind};
use infrahub_backup::format::key_file::KeyFile;
use infrahub_backup::id::{ChunkId, ObjectId};
use infrahub_backup::repository::{Outside, open};
use infrahub_backup::seal::slot::Credential;
use infrahub_backup::storage::Store;
use infrahub_backup::storage::local::LocalStore;
use serde_json::Value;
use support::grants::{base64_of, hex, opened};
use support::{Sandbox, noise};

/// A repository with three snapshots of one file.
struct World {
    sandbox: Sandbox,
    /// Oldest first.
    ids: Vec<String>,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::with_repository();
        fs::create_dir(sandbox.path("data")).expect("a folder");
        let mut world = Self { sandbox, ids: Vec::new() };
        for day in ["day 1", "day 2", "day 3"] {
            world.back_up(day);
        }
        world
    }

    fn back_up(&mut self, day: &str) {
        self.sandbox.write("data/file", noise(day, 100_000));
        let made = self.sandbox.run(["create", "from-files", "--artifacts-path", "data", "--json"]).ok().json();
        self.ids.push(made["id"].as_str().expect("an id").to_owned());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.repository.join(name)
    }

    /// The first object of a kind.
    fn first(&self, kind: &str) -> String {
        self.sandbox.objects().into_keys().find(|name| name.starts_with(kind)).expect("there is one")
    }

    fn manifest(&self, snapshot: usize) -> PathBuf {
        self.path(&format!("snapshots/{}", self.ids[snapshot]))
    }

    /// From now on this machine remembers nothing of the repository.
    fn forget_what_was_seen(&self) {
        fs::remove_dir_all(self.sandbox.path("state")).expect("there is state");
        fs::remove_dir_all(self.sandbox.path("cache")).expect("there is a cache");
    }

    /// What `verify` finds: object and layer.
    #[track_caller]
    fn finds(&self, code: i32) -> Vec<(String, String)> {
        let verified = self.sandbox.run(["verify", "--json"]).with_code(code).json();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let findings = support::found(&verified, "findings").expect("findings");
        findings.iter().map(|finding| (text(&finding["object"]), text(&finding["layer"]))).collect()
    }

    #[track_caller]
    fn assert_newest_is_right(&self, day: &str) {
        let file = self.sandbox.run(["dump", "latest", "artifacts", "file"]).ok();
        assert!(file.out == noise(day, 100_000), "other bytes than those of {day}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a folder")).expect("made");
    fs::copy(from, to).expect("copied");
}

#[test]
fn an_object_of_another_type_is_refused_by_its_envelope_even_where_its_name_fits() {
    let world = World::new();
    for (kind, other) in [("index", "snapshots"), ("reports", "snapshots"), ("snapshots", "index")] {
        let name = world.first(kind);
        let moved = name.replace(kind, other);
        copy(&world.path(&name), &world.path(&moved));
        assert_eq!(world.finds(4), [(moved.clone(), "envelope".to_owned())]);
        world.assert_newest_is_right("day 3");
        fs::remove_file(world.path(&moved)).expect("it is there");
    }
    assert_eq!(world.finds(0), []);
    let moved = world.first("index").replace("index", "reports");
    copy(&world.path(&world.first("index")), &world.path(&moved));
    assert_eq!(world.finds(4), [(moved, "envelope".to_owned())]);
}

#[test]
fn objects_of_another_repository_are_refused_by_their_seal() {
    let (world, other) = (World::new(), World::new());
    for kind in ["index", "snapshots"] {
        let name = other.first(kind);
        copy(&other.path(&name), &world.path(&name));
        assert_eq!(world.finds(4), [(name.clone(), "seal".to_owned())]);
        world.assert_newest_is_right("day 3");
        fs::remove_file(world.path(&name)).expect("it is there");
    }
}

#[test]
fn a_backup_does_not_go_to_a_repository_that_was_put_in_the_place_of_the_real_one() {
    let (world, other) = (World::new(), World::new());
    other.sandbox.run(["key", "rotate", "--content"]).ok();
    for name in other.sandbox.objects().into_keys().filter(|name| name == "config/3" || name.starts_with("keys/")) {
        copy(&other.path(&name), &world.path(&name));
    }
    let before = world.sandbox.objects();
    let create = ["create", "from-files", "--artifacts-path", "data"];
    world.sandbox.run(create).with_code(10).says(&["holds repository", "now"]);
    world.forget_what_was_seen();
    world.sandbox.run(create).with_code(12).says(&["the key file belongs to repository"]);
    assert_eq!(world.sandbox.objects(), before);
}

#[test]
fn a_forgotten_manifest_that_is_put_back_stays_forgotten() {
    let world = World::new();
    let stolen = fs::read(world.manifest(0)).expect("a manifest");
    world.sandbox.run(["forget", &world.ids[0]]).ok();
    assert!(!world.manifest(0).exists());
    fs::write(world.manifest(0), stolen).expect("written");
    assert_eq!(world.sandbox.snapshots(), world.ids[1..]);
    world.sandbox.run(["dump", &world.ids[0], "artifacts", "file"]).with_code(1);
    assert_eq!(world.finds(0), []);
    world.forget_what_was_seen();
    assert_eq!(world.sandbox.snapshots(), world.ids[1..]);
}

#[test]
fn a_manifest_that_is_removed_from_the_middle_is_missed_by_everybody() {
    let world = World::new();
    fs::remove_file(world.manifest(1)).expect("it is there");
    world.forget_what_was_seen();
    assert_eq!(world.finds(4), [(format!("snapshots/{}", world.ids[1]), "presence".to_owned())]);
    world.assert_newest_is_right("day 3");
}

#[test]
fn a_newest_manifest_that_is_deleted_is_missed_by_who_saw_it() {
    let world = World::new();
    fs::remove_file(world.manifest(2)).expect("it is there");
    assert_eq!(world.finds(4), [(format!("snapshots/{}", world.ids[2]), "presence".to_owned())]);
}

#[test]
fn a_newest_manifest_that_is_deleted_is_missed_by_who_kept_its_id_and_not_if_it_was_forgotten() {
    let world = World::new();
    let stolen = fs::read(world.manifest(2)).expect("a manifest");
    fs::remove_file(world.manifest(2)).expect("it is there");
    world.forget_what_was_seen();
    assert_eq!(world.finds(0), [], "nobody knows of it");
    let verify = ["verify", "--head", &world.ids[1], "--head", &world.ids[2]];
    world.sandbox.run(verify).with_code(4);
    fs::write(world.manifest(2), stolen).expect("put back");
    world.sandbox.run(verify).ok();
    world.sandbox.run(["forget", &world.ids[2]]).ok();
    assert!(!world.manifest(2).exists());
    world.sandbox.run(verify).ok();
    world.sandbox.run(["verify", "--head", &world.ids[2][..8]]).with_code(2);
}

#[test]
fn a_decision_that_is_taken_away_is_missed_and_so_is_one_that_took_its_place() {
    let mut world = World::new();
    world.sandbox.run(["snapshots", "hold", &world.ids[0]]).ok();
    let mark = world.path("marks/1");
    let kept = fs::read(&mark).expect("a mark");
    fs::remove_file(&mark).expect("it is there");
    assert_eq!(world.finds(4), [("marks/1".to_owned(), "presence".to_owned())]);
    // Another machine, which has not seen it, decides something else.
    for folder in ["STATE", "CACHE"] {
        let elsewhere = world.sandbox.path(&format!("other-{folder}")).display().to_string();
        world.sandbox.set(&format!("XDG_{folder}_HOME"), elsewhere);
    }
    world.sandbox.run(["snapshots", "hold", &world.ids[1]]).ok();
    assert_eq!(world.finds(0), []);
    for folder in ["STATE", "CACHE"] {
        let here = world.sandbox.path(&folder.to_lowercase()).display().to_string();
        world.sandbox.set(&format!("XDG_{folder}_HOME"), here);
    }
    let verified = world.sandbox.run(["verify"]).with_code(4);
    assert!(verified.text().contains("history was forked"), "{}", verified.text());
    fs::write(&mark, kept).expect("written");
    assert_eq!(world.finds(0), []);
}

#[test]
fn no_backup_is_sealed_to_keys_of_a_generation_that_was_left() {
    let world = World::new();
    let before = world.sandbox.objects();
    world.sandbox.run(["key", "rotate", "--content"]).ok();
    let added = support::added(&before, &world.sandbox.objects());
    for name in added.into_keys().filter(|name| name.starts_with("config/") || name.starts_with("keys/")) {
        fs::remove_file(world.path(&name)).expect("it is there");
    }
    let create = ["create", "from-files", "--artifacts-path", "data"];
    world.sandbox.run(create).with_code(4).says(&["was rolled back", "generation 3", "--accept-new-repository"]);
    let accepted = [&create[..], &["--accept-new-repository"]].concat();
    world.sandbox.run(accepted).ok();
    world.sandbox.run(create).ok();
}

/// The library, as whoever has this key file.
async fn opened_as(world: &World, key: &str) -> infrahub_backup::repository::Repository {
    let text = fs::read_to_string(world.sandbox.path(key)).expect("a key file");
    let credential = Credential::KeyFile(KeyFile::decode(&text).expect("a key file"));
    let store: Arc<dyn Store> = Arc::new(LocalStore::create(&world.sandbox.repository).expect("a folder"));
    open::open(store, &credential, None, Outside::system()).await.expect("opened")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_auditor_signs_with_a_program_of_his_own_is_refused_by_its_signature() {
    let world = World::new();
    world.sandbox.run(["key", "add", "--role", "auditor", "--new-key-file", "auditor.key"]).ok();
    let auditor = opened_as(&world, "auditor.key").await;
    let newest: ObjectId = world.ids[2].parse().expect("an id");
    let mut manifest = auditor.manifest(&newest).await.expect("read");
    manifest.finished_at = jiff::Timestamp::now();
    manifest.components[0].name = "forged".to_owned();
    let id = auditor.put_object(ObjectType::Manifest, &manifest.encode()).await.expect("the store takes it");
    assert_eq!(world.finds(4), [(format!("snapshots/{id}"), "signature".to_owned())]);
    let listed = world.sandbox.run(["snapshots", "list", "--json"]).with_code(4).json();
    let listed: Vec<&str> = listed.as_array().expect("rows").iter().filter_map(|row| row["id"].as_str()).collect();
    assert_eq!(listed, world.ids);
    world.assert_newest_is_right("day 3");
}

/// Runs the binary with 2 GB of address space beside its threads' stacks, opened by a password.
fn run_cramped(world: &World, arguments: &[&str]) -> support::Ran {
    let mut command = Command::new("sh");
    let script = "ulimit -v 3000000 && exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_infrahub-backup")]).args(arguments);
    command.args(["--password-file", "password", "--repo"]).arg(&world.sandbox.repository);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", world.sandbox.path("home"));
    command.current_dir(world.sandbox.path(""));
    support::Ran::of(command)
}

#[test]
fn a_key_slot_that_would_cost_terabytes_is_refused_before_it_is_tried() {
    let world = World::new();
    world.sandbox.write("password", "known to its owner\n");
    world.sandbox.run(["key", "add", "--role", "reader", "--new-password-file", "password"]).ok();
    run_cramped(&world, &["snapshots"]).ok();
    let slots = world.sandbox.objects().into_keys().filter(|name| name.starts_with("keys/"));
    let name = slots.into_iter().find(|name| fs::read_to_string(world.path(name)).expect("text").contains("argon2id"));
    let name = name.expect("the slot that a password opens");
    let good = fs::read_to_string(world.path(&name)).expect("text");
    for (cost, absurd) in [
        ("\"memory_kib\":65536", "\"memory_kib\":4294967295"),
        ("\"passes\":3", "\"passes\":4294967295"),
        ("\"lanes\":4", "\"lanes\":16777215"),
    ] {
        let bad = good.replace(cost, absurd);
        assert_ne!(bad, good);
        let bad_name = format!("keys/{}", ObjectId::of(bad.as_bytes()));
        fs::remove_file(world.path(&name)).expect("it is there");
        fs::write(world.path(&bad_name), &bad).expect("written");
        let since = Instant::now();
        // Nobody but the root can sign such a slot; one that it signed is a vector.
        run_cramped(&world, &["snapshots"]).with_code(4).says(&[&bad_name, "(signature)"]);
        assert!(since.elapsed() < Duration::from_secs(30), "{absurd} took {:?}", since.elapsed());
        fs::remove_file(world.path(&bad_name)).expect("it is there");
        fs::write(world.path(&name), &good).expect("written");
    }
    run_cramped(&world, &["snapshots"]).ok();
}

#[test]
fn an_index_that_is_rebuilt_repeats_no_footer_that_lies_about_lengths() {
    let world = World::new();
    let (_, _, grant) = opened(&world.sandbox.repository, &world.sandbox.key);
    let repository: [u8; 16] = hex(&grant["repository"]).try_into().expect("16 bytes");
    let metadata: [u8; 32] = base64_of(&grant["metadata"]["1"]).try_into().expect("32 bytes");
    let lie = SegmentEntry {
        kind: SegmentKind::Chunks,
        depth: 0,
        offset: 76,
        stored_length: 1 << 20,
        base: vec![],
        chunks: vec![ChunkEntry { id: ChunkId::from_bytes([7; 32]), length: 4 }],
    };
    let pack = craft::tree_pack(&metadata, &repository, b"\0four", &PackFooter::encode(&[lie]));
    let id = ObjectId::of(&pack).to_hex();
    let name = format!("trees/{}/{id}", &id[..2]);
    fs::create_dir_all(world.path(&name).parent().expect("a folder")).expect("made");
    fs::write(world.path(&name), pack).expect("written");
    let index = world.first("index");
    fs::remove_file(world.path(&index)).expect("it is there");
    world.sandbox.run(["repair"]);
    let broken: Vec<_> = world.finds(0);
    assert_eq!(broken, []);
    world.assert_newest_is_right("day 3");
}
