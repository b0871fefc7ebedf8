//! Dumps that differ little from the one before add little: their segments are compressed against what they replace. They
//! restore exactly, however many there are, and whatever is forgotten of those before them.

mod support;

use std::fs;
use std::time::{Duration, SystemTime};

use support::{Sandbox, noise};

/// Bytes of a dump; small enough for a debug build, large enough for several segments.
const SIZE: usize = 4 << 20;

/// Days in a row: more than a chain of bases may be long.
const DAYS: usize = 8;

/// Text that compresses as rows do: halves.
fn rows(seed: &str, size: usize) -> Vec<u8> {
    noise(seed, size / 2).iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

/// The dump of the next day: one byte of each 64 KiB changed, something inserted, something cut out.
fn next_day(before: &[u8], day: usize) -> Vec<u8> {
    let mut after = before.to_vec();
    for at in (day * 977..after.len()).step_by(64 << 10) {
        after[at] ^= 1;
    }
    let middle = after.len() / 3 * (1 + day % 2);
    after.splice(middle..middle, rows(&format!("inserted on day {day}"), 50_000));
    let place = after.len() / 4 * (1 + day % 3);
    after.drain(place..place + 30_000);
    after
}

struct Series {
    sandbox: Sandbox,
    days: Vec<(String, Vec<u8>)>,
    added: Vec<u64>,
}

impl Series {
    fn new(days: usize) -> Self {
        let mut series = Self { sandbox: Sandbox::with_repository(), days: vec![], added: vec![] };
        let mut dump = rows("day 0", SIZE);
        for day in 0..days {
            series.back_up(&dump);
            dump = next_day(&dump, day);
        }
        series
    }

    fn back_up(&mut self, dump: &[u8]) {
        let before = self.stored();
        self.sandbox.write("dump", dump);
        let arguments = ["create", "from-files", "--postgres-path", "dump", "--allow-raw", "--json"];
        let created = self.sandbox.run(arguments).ok().json();
        self.days.push((created["id"].as_str().expect("an id").to_owned(), dump.to_vec()));
        self.added.push(self.stored() - before);
    }

    fn stored(&self) -> u64 {
        let packs =
            |name: &String| name.starts_with("packs/") || name.starts_with("trees/") || name.starts_with("index/");
        self.sandbox.objects().iter().filter(|(name, _)| packs(name)).map(|(_, size)| size).sum()
    }

    /// Three runs of prune, days apart.
    fn prune_after_days(&self) {
        let age = Duration::from_secs(3 * 24 * 3600);
        for _ in 0..3 {
            for name in self.sandbox.objects().into_keys() {
                let path = self.sandbox.repository.join(name);
                let file = fs::File::options().write(true).open(&path).expect("an object");
                let modified = file.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::now());
                file.set_modified(modified - age).expect("a time");
            }
            self.sandbox.run(["prune", "--grace", "10s"]).ok();
            std::thread::sleep(Duration::from_secs(11));
        }
    }

    #[track_caller]
    fn assert_whole(&self) {
        for (id, dump) in &self.days {
            let out = self.sandbox.run(["dump", id, "task-manager-db"]).ok().out;
            assert!(out == *dump, "snapshot {id} is something else");
        }
        self.sandbox.assert_clean();
    }
}

#[test]
fn a_day_adds_a_small_part_of_what_its_new_chunks_hold() {
    let series = Series::new(DAYS);
    let first = series.added[0];
    // Each day every segment of the stream has a changed chunk: without bases about a quarter of it were stored again.
    for (day, added) in series.added.iter().enumerate().skip(1) {
        assert!(*added < first / 8, "day {day} added {added} of {first}: {:?}", series.added);
    }
    series.assert_whole();
}

#[test]
fn what_others_are_based_on_outlives_its_snapshot() {
    let mut series = Series::new(4);
    let gone: Vec<String> = series.days.drain(..3).map(|(id, _)| id).collect();
    series.sandbox.run(["forget"].into_iter().chain(gone.iter().map(String::as_str))).ok();
    series.prune_after_days();
    series.assert_whole();
}

#[test]
fn a_parent_that_cannot_be_read_costs_room_and_nothing_else() {
    let mut series = Series::new(2);
    let packs: Vec<String> = series.sandbox.objects().into_keys().filter(|name| name.starts_with("packs/")).collect();
    for name in &packs {
        let path = series.sandbox.repository.join(name);
        let mut bytes = fs::read(&path).expect("a pack");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).expect("overwritten");
    }
    let dump = next_day(&series.days[1].1, 1);
    series.back_up(&dump);
    // What was met damaged is not relied on; what was not met, a check must find before it is.
    series.sandbox.run(["verify", "--depth", "data"]).with_code(4);
    series.back_up(&dump);
    let (id, dump) = series.days.last().expect("three days");
    let out = series.sandbox.run(["dump", id, "task-manager-db"]).ok().out;
    assert!(out == *dump);
}

#[test]
fn a_replica_brings_bases_along() {
    let series = Series::new(3);
    let replica = series.sandbox.path("replica");
    let last = &series.days[2];
    let to = replica.to_str().expect("text");
    series.sandbox.run(["replicate", "--init", "--to", to, "--snapshot", &last.0]).ok();
    let mut there = Sandbox::new();
    (there.repository, there.key) = (replica.clone(), series.sandbox.key.clone());
    assert!(there.run(["dump", &last.0, "task-manager-db"]).ok().out == last.1);
    there.assert_clean();
}

#[test]
fn what_lost_its_base_is_not_relied_on() {
    let mut series = Series::new(1);
    let packs = |series: &Series| series.sandbox.objects().into_keys().filter(|name| name.starts_with("packs/"));
    let bases: Vec<String> = packs(&series).collect();
    let dump = next_day(&series.days[0].1, 0);
    series.back_up(&dump);
    let relying: Vec<String> = packs(&series).filter(|name| !bases.contains(name)).collect();
    assert!(!relying.is_empty());
    for name in &bases {
        fs::remove_file(series.sandbox.repository.join(name)).expect("removed");
    }
    // All that the second day holds is described and there, and none of it can be read.
    series.back_up(&dump);
    let (id, _) = &series.days[2];
    assert!(series.sandbox.run(["dump", id, "task-manager-db"]).ok().out == dump);
    // What the first day had besides is lost, and the second day is whole again with the third.
    series.sandbox.run(["repair"]).with_code(4);
    series.days.remove(0);
    for (id, dump) in &series.days {
        assert!(series.sandbox.run(["dump", id, "task-manager-db"]).ok().out == *dump, "snapshot {id}");
    }
}

#[test]
fn what_may_be_read_again_once_a_replica_gives_its_base_back_outlives_prune() {
    let mut series = Series::new(1);
    let replica = series.sandbox.path("replica").to_str().expect("text").to_owned();
    series.sandbox.run(["replicate", "--init", "--to", &replica]).ok();
    let bases: Vec<String> = series.sandbox.objects().into_keys().filter(|name| name.starts_with("packs/")).collect();
    let dump = next_day(&series.days[0].1, 0);
    series.back_up(&dump);
    for name in &bases {
        fs::remove_file(series.sandbox.repository.join(name)).expect("removed");
    }
    // Without the replica nothing can be done for the second day, which the replica never had.
    series.sandbox.run(["repair"]).with_code(4);
    series.prune_after_days();
    series.sandbox.run(["repair", "--from", &replica]).ok();
    series.assert_whole();
}

#[test]
fn while_a_recipe_of_a_quarantined_snapshot_is_lost_no_pack_goes() {
    let series = Series::new(1);
    let replica = series.sandbox.path("replica").to_str().expect("text").to_owned();
    series.sandbox.run(["replicate", "--init", "--to", &replica]).ok();
    let below = |folder: &str| -> Vec<String> {
        series.sandbox.objects().into_keys().filter(|name| name.starts_with(folder)).collect()
    };
    for name in below("trees/") {
        fs::remove_file(series.sandbox.repository.join(name)).expect("removed");
    }
    // This machine's cache holds recipes.
    fs::remove_dir_all(series.sandbox.path("cache")).expect("removed");
    series.sandbox.run(["repair"]).with_code(4);
    let packs = below("packs/");
    series.prune_after_days();
    assert_eq!(below("packs/"), packs);
    let told = series.sandbox.run(["prune", "--grace", "10s"]).ok();
    assert!(told.text().contains("no pack goes"), "{}", told.text());
    let planned = series.sandbox.run(["prune", "--grace", "10s", "--dry-run"]).ok();
    assert!(planned.text().contains("no pack goes"), "{}", planned.text());
    series.sandbox.run(["repair", "--from", &replica]).ok();
    series.assert_whole();
}
