//! `repair` as a person types it: for everything that `verify` can find, brought back where anybody has it, and told exactly
//! where nobody has.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use support::{Ran, Sandbox, files_below, noise};

/// Kills in the middle of a `repair`.
const KILLS: u32 = 50;

/// The large file, in bytes: some chunks. Most of the time of a test goes by the bytes that it reads and writes.
const LARGE: usize = 300_000;

/// Ways to damage an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Flipped,
    Truncated,
    Missing,
    Swapped,
}

const ALL: [Damage; 4] = [Damage::Flipped, Damage::Truncated, Damage::Missing, Damage::Swapped];

/// A repository, and what its snapshots must restore to.
struct World {
    sandbox: Sandbox,
    snapshots: BTreeMap<String, BTreeMap<PathBuf, Vec<u8>>>,
}

impl World {
    /// One with two snapshots that share most of what they hold.
    fn new() -> Self {
        Self::with_large(LARGE)
    }

    /// The same with a large file of this size.
    fn with_large(size: usize) -> Self {
        let mut world = Self { sandbox: Sandbox::with_repository(), snapshots: BTreeMap::new() };
        world.write("large", &noise("large", size));
        (0..30).for_each(|n| world.write(&format!("small {n}"), &noise(&format!("small {n}"), 3_000)));
        world.create();
        world.write("small 7", &noise("changed", 4_000));
        world.write("more", &noise("more", 100_000));
        world.create();
        world
    }

    /// The same, and a replica of it in `replica`.
    fn with_replica() -> Self {
        Self::new().and_replica()
    }

    fn and_replica(self) -> Self {
        let world = self;
        world.sandbox.run(["replicate", "--init", "--to", world.replica().to_str().expect("text")]).ok();
        world
    }

    fn replica(&self) -> PathBuf {
        self.sandbox.path("replica")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let folder = self.sandbox.path("artifacts");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(name), bytes).expect("a file");
    }

    fn create(&mut self) -> String {
        let arguments = ["create", "from-files", "--artifacts-path", "artifacts", "--json"];
        let id = self.sandbox.run(arguments).ok().json()["id"].as_str().expect("an id").to_owned();
        self.snapshots.insert(id.clone(), contents(&self.sandbox.path("artifacts")));
        id
    }

    /// Objects whose names begin with `prefix`.
    fn objects(&self, prefix: &str) -> Vec<String> {
        self.sandbox.objects().into_keys().filter(|name| name.starts_with(prefix)).collect()
    }

    fn damage(&self, name: &str, damage: Damage) {
        let path = self.sandbox.repository.join(name);
        let good = fs::read(&path).expect("the object is there");
        match damage {
            Damage::Flipped => {
                let mut bad = good.clone();
                bad[good.len() / 2] ^= 0x20;
                fs::write(&path, bad).expect("overwritten");
            }
            Damage::Truncated => fs::write(&path, &good[..good.len() * 2 / 3]).expect("overwritten"),
            Damage::Missing => fs::remove_file(&path).expect("removed"),
            Damage::Swapped => {
                let other = self.sandbox.objects().into_keys().find(|other| other != name).expect("another object");
                fs::write(&path, fs::read(self.sandbox.repository.join(other)).expect("there")).expect("overwritten");
            }
        }
    }

    fn repair(&self, arguments: &[&str]) -> Ran {
        self.sandbox.run(["repair", "--json"].iter().chain(arguments))
    }

    fn repair_from_replica(&self) -> Ran {
        self.repair(&["--read-data", "--from", self.replica().to_str().expect("text")])
    }

    /// Another machine finds nothing, and restores every snapshot to what it should be.
    #[track_caller]
    fn assert_whole(&self, what: &str) {
        let elsewhere = self.elsewhere();
        let verified = elsewhere.run(["verify", "--depth", "data"]);
        assert_eq!(verified.code, Some(0), "{what}: {}{}", verified.text(), verified.err);
        for id in self.snapshots.keys() {
            self.assert_restores(&elsewhere, id, what);
        }
        let listed = elsewhere.run(["snapshots", "list", "--json"]).ok().json();
        let complete = listed.as_array().expect("a list").iter().all(|row| row["status"] == "complete");
        assert!(complete, "{what}: {listed:#}");
    }

    #[track_caller]
    fn assert_restores(&self, machine: &Sandbox, id: &str, what: &str) {
        let out = machine.path("out");
        let _ = fs::remove_dir_all(&out);
        let restored = machine.run(["restore", id, "--yes", "--to-files", out.to_str().expect("text")]);
        assert_eq!(restored.code, Some(0), "{what}: {}", restored.err);
        assert!(contents(&out.join("artifacts")) == self.snapshots[id], "{what}: {id} restores to something else");
    }

    /// A machine that has never seen the repository.
    fn elsewhere(&self) -> Sandbox {
        let mut other = Sandbox::new();
        (other.repository, other.key) = (self.sandbox.repository.clone(), self.sandbox.key.clone());
        other
    }
}

/// All files below a folder, by their names in it.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let names = files_below(folder).into_keys();
    names.map(|name| (name.clone().into(), fs::read(folder.join(name)).expect("a file"))).collect()
}

#[track_caller]
fn array<'a>(document: &'a Value, field: &str) -> &'a Vec<Value> {
    document[field].as_array().unwrap_or_else(|| panic!("no list `{field}` in {document:#}"))
}

#[test]
fn packs_that_are_damaged_in_any_way_come_back_from_a_replica() {
    let world = World::with_replica();
    for folder in ["packs/", "trees/"] {
        for damage in ALL {
            let name = world.objects(folder).remove(0);
            let what = format!("{name} {damage:?}");
            world.damage(&name, damage);
            let done = world.repair_from_replica();
            assert_eq!(done.code, Some(0), "{what}: {}{}", done.text(), done.err);
            world.assert_whole(&what);
        }
    }
}

#[test]
fn every_pack_at_once_comes_back_from_a_replica() {
    let world = World::with_replica();
    for (n, name) in world.objects("packs/").into_iter().chain(world.objects("trees/")).enumerate() {
        world.damage(&name, ALL[n % ALL.len()]);
    }
    world.repair_from_replica().ok();
    world.assert_whole("all packs");
}

#[test]
fn an_index_is_built_anew_from_packs_alone() {
    for damage in ALL {
        let world = World::new();
        world.objects("index/").iter().for_each(|name| world.damage(name, damage));
        let done = world.elsewhere().run(["repair", "--json"]).ok().json();
        assert!(done["index"]["packs"].as_u64().expect("a number") > 0, "{done:#}");
        world.assert_whole(&format!("all index objects {damage:?}"));
    }
}

#[test]
fn a_manifest_comes_back_from_a_replica() {
    let world = World::with_replica();
    for (n, damage) in ALL.into_iter().enumerate() {
        let name = world.objects("snapshots/").remove(n % 2);
        world.damage(&name, damage);
        let done = world.repair_from_replica().ok().json();
        // Which one is missing is known only if another one names it.
        if damage != Damage::Missing {
            assert_eq!(array(&done, "brought"), &[Value::from(name.as_str())]);
        }
        world.assert_whole(&format!("{name} {damage:?}"));
    }
}

#[test]
fn what_came_back_is_read_in_the_store_and_not_in_the_local_cache() {
    for damage in [Damage::Flipped, Damage::Missing] {
        let world = World::with_replica();
        // This machine knows all recipes and trees by now.
        world.sandbox.run(["prune"]).ok();
        for name in world.objects("snapshots/") {
            world.damage(&name, damage);
        }
        for name in world.objects("trees/") {
            world.damage(&name, Damage::Flipped);
        }
        let replica = world.replica();
        world.repair(&["--from", replica.to_str().expect("text")]).ok();
        world.assert_whole(&format!("{damage:?}"));
    }
}

#[test]
fn a_manifest_that_nobody_has_is_told_and_given_up_only_on_demand() {
    let mut world = World::new();
    let name = world.objects("snapshots/").remove(0);
    let id = name.rsplit('/').next().expect("a name").to_owned();
    world.damage(&name, Damage::Flipped);
    let done = world.repair(&[]).with_code(4).json();
    assert_eq!(array(&done, "lost_manifests"), &[Value::from(id.as_str())]);
    assert!(world.objects("snapshots/").contains(&name));
    world.repair(&["--forget-lost"]).ok();
    world.snapshots.remove(&id);
    world.assert_whole("a forgotten snapshot");
}

#[test]
fn what_no_one_has_is_told_to_the_byte_and_the_rest_stays_usable() {
    let world = World::with_large(3_500_000).and_replica();
    let ids = world.sandbox.snapshots();
    // The pack that holds the most: the large file, in several segments.
    let objects = world.sandbox.objects();
    let (name, size) = objects
        .iter()
        .filter(|(name, _)| name.starts_with("packs/"))
        .max_by_key(|(_, size)| **size)
        .expect("there are packs");
    world.damage(name, Damage::Flipped);
    let done = world.repair(&["--read-data"]).with_code(4).json();
    assert_eq!(array(&done, "quarantined").len(), 2, "{done:#}");
    assert!(done["chunks_salvaged"].as_u64().expect("a number") > 0, "{done:#}");
    let lost = array(&done, "lost");
    assert_eq!(lost.len(), 2, "{done:#}");
    let streams = array(&lost[0], "streams");
    assert_eq!(streams.len(), 1, "{done:#}");
    let files = array(&streams[0], "files");
    let bytes = |range: &Value| range["end"].as_u64().expect("a number") - range["start"].as_u64().expect("a number");
    let sum: u64 = files.iter().flat_map(|file| array(file, "ranges").iter().map(bytes)).sum();
    assert!(sum > 0 && sum < size / 2, "{sum} of {size} bytes: {done:#}");
    // What is not named as lost is there.
    let named: Vec<&str> = files.iter().map(|file| file["path"].as_str().expect("a path")).collect();
    for (path, expected) in &world.snapshots[&ids[0]] {
        let path = path.to_str().expect("text");
        let dumped = world.elsewhere().run(["dump", &ids[0], "artifacts", path]);
        assert_eq!(dumped.code == Some(0), !named.contains(&path), "{path}: {}", dumped.err);
        assert!(dumped.code != Some(0) || dumped.out == *expected, "{path} is something else");
    }
    // The rest is usable: verified, listed, pruned, backed up into.
    let elsewhere = world.elsewhere();
    elsewhere.run(["verify", "--depth", "data"]).ok();
    let listed = elsewhere.run(["snapshots", "list", "--json"]).ok().json();
    assert!(listed.as_array().expect("a list").iter().all(|row| row["status"] == "quarantined"), "{listed:#}");
    elsewhere.run(["snapshots", "show", "latest"]).with_code(1);
    elsewhere.run(["verify", &ids[0]]).with_code(4);
    elsewhere.run(["prune"]).ok();
    // A replica brings it all back.
    let done = world.repair_from_replica().ok().json();
    assert_eq!(array(&done, "reinstated").len(), 2, "{done:#}");
    world.assert_whole("after the replica was asked");
}

#[test]
fn a_backup_after_a_loss_brings_back_what_it_stores_anew() {
    let mut world = World::new();
    let objects = world.sandbox.objects();
    let packs = objects.iter().filter(|(name, _)| name.starts_with("packs/"));
    let (name, _) = packs.max_by_key(|(_, size)| **size).expect("there are packs");
    world.damage(name, Damage::Missing);
    world.repair(&[]).with_code(4);
    world.write("small 7", &noise("small 7", 3_000));
    world.create();
    let cache = world.sandbox.path("cache");
    fs::remove_dir_all(&cache).expect("the cache is there");
    world.repair(&[]).ok();
    world.assert_whole("after a backup");
}

#[test]
fn marks_are_said_again_by_a_machine_that_has_read_them() {
    let world = World::new();
    let id = world.sandbox.snapshots().remove(0);
    world.sandbox.run(["snapshots", "hold", &id]).ok();
    world.sandbox.run(["snapshots", "tag", &id, "why=audit"]).ok();
    world.sandbox.run(["snapshots", "list"]).ok();
    for damage in ALL {
        let name = world.objects("marks/").remove(0);
        world.damage(&name, damage);
        let done = world.repair(&[]).ok().json();
        assert!(damage == Damage::Missing || !done["marks"]["restated"].is_null(), "{done:#}");
        world.assert_whole(&format!("{name} {damage:?}"));
        let shown = world.elsewhere().run(["snapshots", "show", &id, "--json"]).ok().json();
        assert!(shown["hold"] == true && shown["tags"]["why"] == "audit", "{shown:#}");
    }
}

#[test]
fn a_mark_that_nobody_knows_stops_a_repair_until_that_is_accepted() {
    let world = World::new();
    let id = world.sandbox.snapshots().remove(0);
    world.sandbox.run(["snapshots", "hold", &id]).ok();
    let copy = world.sandbox.path("copy");
    copy_folder(&world.sandbox.repository, &copy);
    let damaged = || world.damage("marks/1", Damage::Flipped);
    damaged();
    let elsewhere = world.elsewhere();
    let before = world.sandbox.objects();
    elsewhere.run(["repair"]).with_code(4).says(&["marks/1", "--accept-lost-marks"]);
    let kept =
        |objects: BTreeMap<String, u64>| objects.into_keys().filter(|name| !is_evidence(name)).collect::<Vec<_>>();
    assert_eq!(kept(world.sandbox.objects()), kept(before));
    // A replica is another history.
    elsewhere.run(["repair", "--from", copy.to_str().expect("text")]).ok();
    let shown = world.elsewhere().run(["snapshots", "show", &id, "--json"]).ok().json();
    assert_eq!(shown["hold"], true);
    world.assert_whole("from a copy");
    world.damage("marks/2", Damage::Flipped);
    world.elsewhere().run(["repair", "--accept-lost-marks"]).ok();
    let shown = world.elsewhere().run(["snapshots", "show", &id, "--json"]).ok().json();
    assert_eq!(shown["hold"], false);
    world.assert_whole("without the marks");
}

fn is_evidence(name: &str) -> bool {
    name.starts_with("reports/") || name.starts_with("leases/")
}

#[test]
fn a_report_that_nobody_can_read_is_told_of_and_removed() {
    let world = World::new();
    world.sandbox.run(["verify"]).ok();
    for damage in ALL {
        let mut reports = world.objects("reports/");
        reports.sort_by_key(|name| fs::metadata(world.sandbox.repository.join(name)).unwrap().modified().unwrap());
        world.damage(&reports[0], damage);
        world.repair(&[]).ok();
        world.assert_whole(&format!("{} {damage:?}", reports[0]));
    }
}

#[test]
fn a_damaged_lease_is_removed_when_its_run_cannot_be_alive() {
    let world = World::new();
    let lease = world.objects("leases/").remove(0);
    world.damage(&lease, Damage::Flipped);
    let done = world.repair(&[]).with_code(4).json();
    assert_eq!(array(&done, "left").len(), 1, "{done:#}");
    let path = world.sandbox.repository.join(&lease);
    let file = fs::File::options().write(true).open(&path).expect("the lease");
    file.set_modified(SystemTime::now() - Duration::from_secs(3 * 24 * 3600)).expect("a time");
    world.repair(&[]).ok();
    assert!(!path.exists());
    world.assert_whole("a lease");
}

#[test]
fn config_and_key_slots_come_from_a_replica_before_anything_can_be_opened() {
    // What comes back is what was there: each time the repository is as it was made.
    let world = World::with_replica();
    for folder in ["config/", "keys/"] {
        for damage in ALL {
            let name = world.objects(folder).remove(0);
            world.damage(&name, damage);
            assert_ne!(world.sandbox.run(["snapshots", "list"]).code, Some(0));
            let done = world.elsewhere().run(["repair", "--json", "--from", world.replica().to_str().expect("text")]);
            assert_eq!(array(&done.ok().json(), "brought"), &[Value::from(name.as_str())]);
            world.assert_whole(&format!("{name} {damage:?}"));
        }
    }
}

#[test]
fn a_copied_folder_is_confirmed() {
    let mut world = World::new();
    let copy = world.sandbox.path("copy");
    copy_folder(&world.sandbox.repository, &copy);
    world.sandbox.repository = copy;
    let later = SystemTime::now() + Duration::from_secs(7 * 24 * 3600);
    for name in world.sandbox.objects().into_keys() {
        let file = fs::File::options().write(true).open(world.sandbox.repository.join(name)).expect("an object");
        file.set_modified(later).expect("a time");
    }
    let elsewhere = world.elsewhere();
    let listed = elsewhere.run(["snapshots", "list", "--json"]).ok().json();
    assert!(listed.as_array().expect("a list").iter().all(|row| row["status"] == "incomplete"), "{listed:#}");
    let done = elsewhere.run(["repair", "--json"]).ok().json();
    assert_eq!(array(&done, "confirmed").len(), 2, "{done:#}");
    world.assert_whole("a copy");
}

#[test]
fn what_is_not_ours_is_left_and_told() {
    let world = World::new();
    fs::create_dir_all(world.sandbox.repository.join("packs/00")).expect("a folder");
    fs::write(world.sandbox.repository.join("packs/00/stranger"), "x").expect("a file");
    let done = world.repair(&[]).with_code(4).json();
    assert_eq!(array(&done, "left")[0]["object"], "packs/00/stranger");
    assert!(world.objects("packs/00/").contains(&"packs/00/stranger".to_owned()));
}

#[test]
fn a_dry_run_tells_the_same_and_changes_nothing() {
    let world = World::with_replica();
    for name in
        [world.objects("packs/").remove(0), world.objects("trees/").remove(0), world.objects("index/").remove(0)]
    {
        world.damage(&name, Damage::Flipped);
    }
    let name = world.objects("snapshots/").remove(0);
    world.damage(&name, Damage::Truncated);
    let before = contents(&world.sandbox.repository);
    let arguments = ["--read-data", "--from", world.replica().to_str().expect("text")].map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let planned = world.repair(&[&arguments[..], &["--dry-run"]].concat()).ok().json();
    assert!(contents(&world.sandbox.repository) == before, "a dry run changed something");
    let done = world.repair(&arguments).ok().json();
    for field in ["brought", "lost", "quarantined"] {
        assert_eq!(planned[field], done[field], "{field}: {planned:#}\n{done:#}");
    }
    assert_eq!(planned["index"]["packs"], done["index"]["packs"], "{planned:#}\n{done:#}");
    world.assert_whole("after a dry run");
}

#[test]
fn nothing_to_mend_changes_nothing_but_the_evidence() {
    let world = World::with_replica();
    let before = world.sandbox.objects();
    world.repair_from_replica().ok();
    let added = support::added(&before, &world.sandbox.objects());
    assert!(added.keys().all(|name| is_evidence(name)), "{added:?}");
}

#[test]
fn another_repository_and_the_repository_itself_are_refused_as_replicas() {
    let world = World::new();
    let itself = world.sandbox.repository.to_str().expect("text").to_owned();
    world.repair(&["--from", &itself]).with_code(2);
    let other = Sandbox::with_repository();
    let before = world.sandbox.objects();
    let refused = world.repair(&["--from", other.repository.to_str().expect("text")]);
    assert_ne!(refused.code, Some(0), "{}", refused.err);
    assert_eq!(world.sandbox.objects(), before);
}

#[test]
fn fifty_repairs_that_are_killed_lose_nothing_and_the_next_one_finishes() {
    let world = World::with_replica();
    let (mut hits, mut typical) = (0, Duration::from_millis(300));
    for n in 0..KILLS {
        let folder = ["packs/", "trees/", "index/", "snapshots/"][n as usize % 4];
        let names = world.objects(folder);
        world.damage(&names[n as usize % names.len()], ALL[n as usize / 4 % ALL.len()]);
        let began = std::time::Instant::now();
        let from = world.replica();
        let mut running =
            world.sandbox.start("repair", ["repair", "--read-data", "--from", from.to_str().expect("text")]);
        let part = f64::from(n.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
        std::thread::sleep(typical.mul_f64(part));
        if running.has_ended() {
            typical = began.elapsed().min(Duration::from_secs(3));
        } else {
            hits += 1;
            running.kill();
        }
        let listed = world.sandbox.run(["snapshots", "list", "--json"]);
        assert!(matches!(listed.code, Some(0 | 4)), "{}", listed.err);
        if n % 10 == 9 {
            let done = world.repair_from_replica();
            assert_eq!(done.code, Some(0), "{}{}", done.text(), done.err);
            world.assert_whole(&format!("round {n}"));
        }
    }
    assert!(hits >= KILLS / 4, "only {hits} of {KILLS} were killed");
}

/// As `cp -r` does: with the times of now.
fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status().expect("cp starts");
    assert!(copied.success());
}
