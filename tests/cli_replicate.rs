//! `replicate` as a person types it: incremental, finished after a kill, and never undoing what the target has forgotten.

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use support::{Ran, Sandbox, noise};

/// Kills in the middle of a `replicate`.
const KILLS: u32 = 50;

fn back_up(sandbox: &Sandbox, seed: &str) -> String {
    let folder = sandbox.path("artifacts");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("file"), noise(seed, 300_000)).expect("a file");
    let created = sandbox.run(["create", "from-files", "--artifacts-path", "artifacts", "--json"]).ok().json();
    created["id"].as_str().expect("an id").to_owned()
}

/// The binary on the replica.
fn on_replica(sandbox: &Sandbox, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infrahub-backup"));
    command.args(arguments).arg("--repo").arg(sandbox.path("replica")).arg("--key-file").arg(&sandbox.key);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    // A machine of its own: what it remembers is not what the source's machine remembers.
    command.env("HOME", sandbox.path("elsewhere")).current_dir(sandbox.path(""));
    Ran::of(command)
}

fn ids(listed: &Ran) -> Vec<String> {
    let listed = listed.json();
    let rows = listed.as_array().expect("a list");
    rows.iter()
        .filter(|row| row["status"] == "complete")
        .map(|row| row["id"].as_str().expect("an id").to_owned())
        .collect()
}

fn replicate(sandbox: &Sandbox) -> Ran {
    sandbox.run(["replicate", "--to", sandbox.path("replica").to_str().expect("text"), "--init", "--json"])
}

fn assert_same(sandbox: &Sandbox, contents: &BTreeMap<String, String>) {
    let listed = on_replica(sandbox, &["snapshots", "list", "--json"]).ok();
    assert_eq!(ids(&listed), sandbox.snapshots());
    for (id, seed) in contents {
        let dumped = on_replica(sandbox, &["dump", id, "artifacts", "file"]).ok();
        assert!(dumped.out == noise(seed, 300_000), "snapshot {id} is something else in the replica");
    }
    on_replica(sandbox, &["verify", "--depth", "data"]).ok();
}

#[test]
fn a_replica_holds_the_same_snapshots_and_a_second_run_copies_nothing() {
    let sandbox = Sandbox::with_repository();
    let contents: BTreeMap<String, String> =
        ["one", "two"].iter().map(|seed| (back_up(&sandbox, seed), (*seed).to_owned())).collect();
    replicate(&sandbox).ok();
    assert_same(&sandbox, &contents);
    let packs = |folder: &str| support::files_below(&sandbox.path("replica").join(folder));
    let before = (packs("packs"), packs("trees"), packs("index"));
    replicate(&sandbox).ok();
    assert_eq!((packs("packs"), packs("trees"), packs("index")), before);
}

#[test]
fn what_the_replica_has_forgotten_does_not_come_back() {
    let sandbox = Sandbox::with_repository();
    let first = back_up(&sandbox, "one");
    replicate(&sandbox).ok();
    on_replica(&sandbox, &["forget", &first]).ok();
    let second = back_up(&sandbox, "two");
    replicate(&sandbox).ok();
    assert_eq!(sandbox.snapshots(), [first, second.clone()]);
    assert_eq!(ids(&on_replica(&sandbox, &["snapshots", "list", "--json"]).ok()), [second]);
    on_replica(&sandbox, &["verify", "--depth", "data"]).ok();
}

#[test]
fn the_report_agrees_with_the_exit_code_where_a_named_snapshot_is_forgotten_there() {
    let sandbox = Sandbox::with_repository();
    let first = back_up(&sandbox, "one");
    back_up(&sandbox, "two");
    replicate(&sandbox).ok();
    on_replica(&sandbox, &["forget", &first]).ok();
    let outcome = || on_replica(&sandbox, &["report", "show", "latest", "--json"]).ok().json()["outcome"].clone();
    let place = sandbox.path("replica");
    let arguments = ["replicate", "--to", place.to_str().expect("text")];
    sandbox.run(arguments).ok();
    assert_eq!(outcome(), "done");
    sandbox.run(arguments.into_iter().chain(["--snapshot", &first])).with_code(3);
    assert_eq!(outcome(), "incomplete");
}

#[test]
fn what_a_killed_run_copied_and_did_not_confirm_the_next_one_confirms() {
    let sandbox = Sandbox::with_repository();
    let before = back_up(&sandbox, "one");
    back_up(&sandbox, "two");
    sandbox.run(["forget", &before]).ok();
    replicate(&sandbox).ok();
    // As if the run had died right behind the manifest: it names one before it, which the replica never had.
    std::fs::remove_dir_all(sandbox.path("replica").join("marks")).expect("no marks");
    std::fs::create_dir(sandbox.path("replica").join("marks")).expect("a folder");
    std::fs::remove_dir_all(sandbox.path("elsewhere")).ok();
    let missed = on_replica(&sandbox, &["verify"]).with_code(4);
    assert!(missed.text().contains(&before), "{}", missed.text());
    replicate(&sandbox).ok();
    on_replica(&sandbox, &["verify"]).ok();
}

/// A replica with two snapshots of which the source forgot the first, and the lease of a run that was killed in between.
fn killed_at_work() -> (Sandbox, String) {
    for _ in 0..20 {
        let sandbox = Sandbox::with_repository();
        let before = back_up(&sandbox, "one");
        back_up(&sandbox, "two");
        sandbox.run(["forget", &before]).ok();
        let place = sandbox.path("replica");
        let running = sandbox.start("replicate", ["replicate", "--init", "--to", place.to_str().expect("text")]);
        let leases = place.join("leases");
        support::wait_until("it has a lease", || {
            leases.is_dir() && support::files_below(&leases).keys().any(|name| name.ends_with("/0"))
        });
        running.signal(rustix::process::Signal::KILL);
        if running.wait().code.is_none() {
            return (sandbox, before);
        }
    }
    panic!("none of twenty was killed at work");
}

#[test]
fn what_only_an_unconfirmed_copy_names_is_not_told_as_missing_while_its_run_may_be_at_work() {
    let (sandbox, before) = killed_at_work();
    replicate(&sandbox).ok();
    let marks = sandbox.path("replica").join("marks");
    std::fs::remove_dir_all(&marks).expect("no marks");
    std::fs::create_dir(&marks).expect("a folder");
    let verified = on_replica(&sandbox, &["verify", "--json"]).ok().json();
    let not_checked = verified["not_checked"].as_array().expect("a list");
    let arriving = not_checked.iter().find(|row| row["reason"] == "arriving").expect("it is told");
    assert_eq!(arriving["snapshots"], serde_json::json!([before]), "{verified:#}");
    // A lease that cannot be read excuses nothing; nor does one that is gone.
    let leases = sandbox.path("replica").join("leases");
    for name in support::files_below(&leases).into_keys() {
        std::fs::remove_file(leases.join(&name)).expect("a lease");
        std::fs::write(leases.join(name), "no lease").expect("written");
    }
    let missed = on_replica(&sandbox, &["verify"]).with_code(4);
    assert!(missed.text().contains(&before), "{}", missed.text());
    std::fs::remove_dir_all(leases).expect("nobody is at work");
    std::fs::remove_dir_all(sandbox.path("elsewhere")).ok();
    on_replica(&sandbox, &["verify"]).with_code(4);
}

#[test]
fn only_in_the_target_are_snapshots_that_the_source_has_not() {
    let sandbox = Sandbox::with_repository();
    let ids = ["one", "two", "three"].map(|seed| back_up(&sandbox, seed));
    replicate(&sandbox).ok();
    let place = sandbox.path("replica");
    let named = ["replicate", "--to", place.to_str().expect("text"), "--snapshot", &ids[1], "--json"];
    let proof = || sandbox.run(named).ok().json()["proof"].clone();
    assert_eq!((&proof()["in_both"], &proof()["only_in_target"]), (&1.into(), &0.into()));
    sandbox.run(["forget", &ids[0]]).ok();
    assert_eq!((&proof()["in_both"], &proof()["only_in_target"]), (&1.into(), &1.into()));
}

#[test]
fn a_dry_run_changes_nothing() {
    let sandbox = Sandbox::with_repository();
    back_up(&sandbox, "one");
    replicate(&sandbox).ok();
    back_up(&sandbox, "two");
    let before = support::files_below(&sandbox.path("replica"));
    sandbox.run(["replicate", "--to", sandbox.path("replica").to_str().expect("text"), "--dry-run"]).ok();
    assert_eq!(support::files_below(&sandbox.path("replica")), before);
}

#[test]
fn what_a_dry_run_would_leave_out_is_not_among_what_it_would_copy() {
    let sandbox = Sandbox::with_repository();
    let first = back_up(&sandbox, "one");
    let before = support::files_below(&sandbox.repository.join("packs"));
    let second = back_up(&sandbox, "two");
    for pack in
        support::files_below(&sandbox.repository.join("packs")).into_keys().filter(|pack| !before.contains_key(pack))
    {
        std::fs::remove_file(sandbox.repository.join("packs").join(pack)).expect("a pack");
    }
    let place = sandbox.path("replica");
    let arguments = ["replicate", "--to", place.to_str().expect("text"), "--init", "--dry-run", "--json"];
    let planned = sandbox.run(arguments).ok().json();
    assert_eq!(planned["copy"], serde_json::json!([first]), "{planned:#}");
    assert_eq!(planned["left_out"][0]["snapshot"], second, "{planned:#}");
}

#[test]
fn a_place_without_a_replica_is_told_with_the_whole_command_that_makes_one() {
    let sandbox = Sandbox::with_repository();
    let refused = sandbox.run(["replicate", "--to", sandbox.path("replica").to_str().expect("text")]).with_code(10);
    refused.says(&["infrahub-backup replicate --to PLACE --init"]);
    assert!(!sandbox.path("replica").exists());
}

#[test]
fn the_source_itself_and_another_repository_are_refused_as_targets() {
    let sandbox = Sandbox::with_repository();
    back_up(&sandbox, "one");
    let itself = sandbox.run(["replicate", "--to", sandbox.repository.to_str().expect("text")]);
    assert_ne!(itself.code, Some(0), "{}", itself.err);
    let other = Sandbox::with_repository();
    let before = support::files_below(&other.repository);
    let refused = sandbox.run(["replicate", "--to", other.repository.to_str().expect("text")]);
    assert_ne!(refused.code, Some(0), "{}", refused.err);
    assert_eq!(support::files_below(&other.repository), before);
}

#[test]
fn a_snapshot_comes_back_from_a_replica_under_other_keys() {
    let sandbox = Sandbox::with_repository();
    let source = back_up(&sandbox, "one");
    let (place, key) = (sandbox.path("replica"), sandbox.path("other.key"));
    let arguments = ["replicate", "--init", "--to", place.to_str().expect("text"), "--to-key-file"];
    let arguments: Vec<&str> = arguments.into_iter().chain([key.to_str().expect("text")]).collect();
    sandbox.run(arguments).ok();
    let mut other = Sandbox::new();
    (other.repository, other.key) = (place, key);
    let there = other.snapshots();
    assert!(there.len() == 1 && there[0] != source, "{there:?}");
    assert!(other.run(["dump", &there[0], "artifacts", "file"]).ok().out == noise("one", 300_000));
    other.assert_clean();
}

#[test]
fn fifty_replicates_that_are_killed_lose_nothing_and_the_next_one_finishes() {
    let sandbox = Sandbox::with_repository();
    let mut contents: BTreeMap<String, String> = BTreeMap::new();
    contents.insert(back_up(&sandbox, "start"), "start".to_owned());
    replicate(&sandbox).ok();
    let (mut hits, mut typical) = (0, Duration::from_millis(200));
    for n in 0..KILLS {
        if n % 3 == 0 {
            let seed = format!("round {n}");
            contents.insert(back_up(&sandbox, &seed), seed);
        }
        let began = std::time::Instant::now();
        let mut running =
            sandbox.start("replicate", ["replicate", "--to", sandbox.path("replica").to_str().expect("text")]);
        let part = f64::from(n.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
        std::thread::sleep(typical.mul_f64(part));
        if running.has_ended() {
            typical = began.elapsed().min(Duration::from_secs(2));
        } else {
            hits += 1;
        }
        running.kill();
    }
    assert!(hits > 10, "only {hits} of {KILLS} were killed at work");
    on_replica(&sandbox, &["verify", "--depth", "data"]).ok();
    replicate(&sandbox).ok();
    assert_same(&sandbox, &contents);
}
