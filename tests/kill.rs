//! `kill -9`, SIGINT and SIGTERM at every part of `create`: what was stopped runs again, and no half of a snapshot is ever seen.

mod support;

use std::time::Instant;

use rustix::process::Signal;
use support::scripted::Scripted;
use support::wait_until;

/// How often a phase that lasts only milliseconds is aimed at.
const ATTEMPTS: u32 = 60;

/// After a kill: only whole snapshots are listed, the next `create` mends and succeeds, nothing is damaged.
#[track_caller]
fn assert_mended(scripted: &Scripted, at_least: usize) {
    let left = scripted.sandbox.snapshots();
    assert!(left.len() >= at_least, "a snapshot is gone: {left:?}");
    scripted.sandbox.assert_clean();
    scripted.sandbox.run(["create"]).ok();
    scripted.assert_running();
    assert!(scripted.sandbox.journals().is_empty(), "{:?}", scripted.sandbox.journals());
    let snapshots = scripted.sandbox.snapshots();
    assert_eq!(snapshots.len(), left.len() + 1);
    assert_eq!(snapshots[..left.len()], left);
    scripted.sandbox.assert_clean();
}

fn with_one_snapshot() -> Scripted {
    let scripted = Scripted::new("site");
    scripted.sandbox.run(["create"]).ok();
    scripted
}

/// The script of `hook` kills the binary, which is in `phase` then.
#[track_caller]
fn assert_mended_after_kill_by(hook: &str, phase: &str) {
    let scripted = with_one_snapshot();
    scripted.hook(hook, "kill -9 $PPID; sleep 1");
    let killed = scripted.sandbox.run(["create"]);
    assert_eq!(killed.code, None, "{}", killed.err);
    assert_eq!(scripted.sandbox.last_phase().as_deref(), Some(phase));
    scripted.unhook(hook);
    assert_mended(&scripted, 1);
}

#[test]
fn a_create_killed_while_it_stops_a_service_is_mended_by_the_next() {
    assert_mended_after_kill_by("stop-database", "stop");
}

#[test]
fn a_create_killed_before_it_stops_the_first_service_is_mended_by_the_next() {
    assert_mended_after_kill_by("stop-infrahub-server", "stop");
}

#[test]
fn a_create_killed_during_a_dump_is_mended_by_the_next() {
    assert_mended_after_kill_by("dump-database", "dump");
}

#[test]
fn a_create_killed_during_the_last_dump_is_mended_by_the_next() {
    assert_mended_after_kill_by("dump-queue", "dump");
}

#[test]
fn a_create_killed_while_it_starts_the_first_service_is_mended_by_the_next() {
    assert_mended_after_kill_by("start-database", "start");
}

#[test]
fn a_create_killed_while_it_starts_the_last_service_is_mended_by_the_next() {
    assert_mended_after_kill_by("start-infrahub-server", "start");
}

/// Watches the journal and kills when it tells of `phase`, until a journal is left whose last phase this is.
#[track_caller]
fn assert_mended_after_kill_in(phase: &str) {
    let scripted = with_one_snapshot();
    for attempt in 1..=ATTEMPTS {
        // New content, so that there is something to pack.
        let fresh = support::noise(&format!("{phase} {attempt}"), 200_000);
        std::fs::write(scripted.artifacts().join("objects/0"), fresh).expect("an artifact");
        let before = scripted.sandbox.snapshots();
        let mut running = scripted.sandbox.start("create", ["create"]);
        while scripted.sandbox.last_phase().as_deref() != Some(phase) && !running.has_ended() {}
        running.kill();
        let hit = scripted.sandbox.last_phase().as_deref() == Some(phase);
        assert_mended(&scripted, before.len());
        if hit {
            eprintln!("killed in phase `{phase}` at attempt {attempt}");
            return;
        }
    }
    panic!("`{phase}` was not hit in {ATTEMPTS} attempts");
}

#[test]
fn a_create_killed_while_it_packs_is_mended_by_the_next() {
    assert_mended_after_kill_in("pack");
}

#[test]
fn a_create_killed_while_it_writes_its_index_is_mended_by_the_next() {
    assert_mended_after_kill_in("index");
}

#[test]
fn a_create_killed_while_it_writes_its_manifest_is_mended_by_the_next() {
    assert_mended_after_kill_in("manifest");
}

#[test]
fn a_create_killed_after_its_manifest_landed_keeps_its_snapshot() {
    let scripted = with_one_snapshot();
    for _ in 0..ATTEMPTS {
        let before = scripted.sandbox.snapshots();
        let manifests = || scripted.sandbox.repository.join("snapshots").read_dir().expect("a folder").count();
        let known = manifests();
        let mut running = scripted.sandbox.start("create", ["create"]);
        while manifests() == known && !running.has_ended() {}
        let killed = running.kill();
        assert!(manifests() > known, "it ended without a snapshot: {}", killed.err);
        assert_mended(&scripted, before.len() + 1);
        if killed.code.is_none() {
            return;
        }
    }
    panic!("no kill came between manifest and end in {ATTEMPTS} attempts");
}

#[test]
fn a_create_killed_at_twenty_random_moments_is_mended_each_time() {
    let scripted = with_one_snapshot();
    let since = Instant::now();
    scripted.sandbox.run(["create"]).ok();
    let whole = since.elapsed();
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}, a whole run takes {whole:?}");
    let mut killed_in = Vec::new();
    for moment in support::noise(&seed.to_string(), 200) {
        let before = scripted.sandbox.snapshots().len();
        let running = scripted.sandbox.start("create", ["create"]);
        std::thread::sleep(whole * u32::from(moment) / 255);
        // One that had ended by itself does not count.
        if running.kill().code.is_none() {
            killed_in.push(scripted.sandbox.last_phase().unwrap_or_else(|| "outside of its phases".to_owned()));
        }
        assert_mended(&scripted, before);
        if killed_in.len() == 20 {
            eprintln!("killed in: {killed_in:?}");
            return;
        }
    }
    panic!("only {} of 200 kills came in time", killed_in.len());
}

#[test]
fn resume_starts_what_a_killed_create_left_stopped() {
    let scripted = with_one_snapshot();
    scripted.hook("dump-database", "kill -9 $PPID; sleep 1");
    scripted.sandbox.run(["create"]);
    for service in support::scripted::SERVICES {
        assert!(!scripted.service("probe", service), "`{service}` should be stopped here");
    }
    scripted.sandbox.run(["resume"]).ok();
    scripted.assert_running();
    assert!(scripted.sandbox.journals().is_empty());
}

#[test]
fn a_service_that_was_stopped_before_the_killed_create_is_not_started() {
    let scripted = with_one_snapshot();
    assert!(scripted.service("stop", "infrahub-server"));
    scripted.hook("dump-database", "kill -9 $PPID; sleep 1");
    scripted.sandbox.run(["create"]);
    scripted.sandbox.run(["resume"]).ok();
    assert!(scripted.service("probe", "database"));
    assert!(!scripted.service("probe", "infrahub-server"));
}

#[test]
fn a_resume_that_is_killed_is_finished_by_the_next() {
    let scripted = with_one_snapshot();
    scripted.hook("dump-database", "kill -9 $PPID; sleep 1");
    scripted.sandbox.run(["create"]);
    scripted.unhook("dump-database");
    scripted.hook("start-infrahub-server", "kill -9 $PPID; sleep 1");
    assert_eq!(scripted.sandbox.run(["resume"]).code, None);
    scripted.unhook("start-infrahub-server");
    scripted.sandbox.run(["resume"]).ok();
    scripted.assert_running();
    assert_mended(&scripted, 1);
}

#[test]
fn a_restore_killed_during_a_load_leaves_its_safety_snapshot_and_is_mended() {
    let scripted = with_one_snapshot();
    let database = || support::unwrapped(&std::fs::read(scripted.content("database")).expect("a dump"));
    let before = database();
    let first = scripted.sandbox.snapshots().remove(0);
    // It does not go on: a script of a killed run that loads while the next one does is another matter.
    scripted.hook("load-queue", "kill -9 $PPID; exit 1");
    assert_eq!(scripted.sandbox.run(["restore", &first, "--yes"]).code, None);
    scripted.unhook("load-queue");
    scripted.sandbox.run(["restore", &first, "--yes"]).ok();
    scripted.assert_running();
    assert!(database() == before);
    assert!(scripted.sandbox.snapshots().len() >= 2, "there is no safety snapshot");
    scripted.sandbox.assert_clean();
}

/// A signal while half a dump came.
#[track_caller]
fn assert_ends_cleanly_on(signal: Signal) {
    let scripted = with_one_snapshot();
    let snapshots = scripted.sandbox.snapshots();
    scripted.hook("dump-database", "head -c 50000 $here/database.content; touch $here/half; sleep 600");
    let running = scripted.sandbox.start("create", ["create"]);
    wait_until("half of the dump came", || scripted.marker("half").exists());
    assert!(!scripted.service("probe", "database"));
    running.signal(signal);
    running.wait().with_code(130).says(&["interrupted"]);
    scripted.assert_as_before(&snapshots);
}

#[test]
fn sigint_during_a_dump_ends_with_130_and_all_services_running() {
    assert_ends_cleanly_on(Signal::INT);
}

#[test]
fn sigterm_during_a_dump_ends_with_130_and_all_services_running() {
    assert_ends_cleanly_on(Signal::TERM);
}

#[test]
fn sigint_while_a_service_stops_lets_it_stop_and_starts_it_again() {
    let scripted = with_one_snapshot();
    let snapshots = scripted.sandbox.snapshots();
    scripted.hook("stop-database", "touch $here/stopping; until [ -e $here/go ]; do sleep 0.01; done");
    let running = scripted.sandbox.start("create", ["create"]);
    wait_until("a service is stopping", || scripted.marker("stopping").exists());
    running.signal(Signal::INT);
    std::fs::write(scripted.marker("go"), "").expect("a file");
    running.wait().with_code(130);
    scripted.assert_as_before(&snapshots);
}

#[test]
fn a_service_that_does_not_start_again_is_told_and_started_later() {
    let scripted = with_one_snapshot();
    scripted.hook("start-infrahub-server", "echo no licence >&2; exit 3");
    scripted.sandbox.run(["create"]).with_code(1).says(&["infrahub-server", "no licence", "was made", "resume"]);
    assert!(scripted.service("probe", "database"));
    assert_eq!(scripted.sandbox.snapshots().len(), 2);
    scripted.unhook("start-infrahub-server");
    scripted.sandbox.run(["resume"]).ok();
    scripted.assert_running();
}
