//! The operations that the command line calls, driven from one seed over a store where everything goes wrong that may.
//!
//! Scheduling, clocks, entropy and faults follow from the seed; time is virtual. A violation prints the seed, and with
//! INFRAHUB_SIM_TRACE=1 every call. INFRAHUB_SIM_SEEDS=FROM..TO runs a range; `tests/simulate FROM TO` does that in an optimised
//! build and goes on where it was. What it shows and what not: docs/design/simulation.md.

#[path = "simulation/actors.rs"]
mod actors;
#[path = "simulation/store.rs"]
mod store;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use infrahub_backup::repository::check::Depth;
use jiff::SignedDuration;

use actors::{Contents, Stage, faults, next_contents};
use store::{Broken, CALM, Faults, Machine, World};

/// Seeds that run where nothing says otherwise: a minute's worth of an unoptimised build.
const SEEDS_DEFAULT: Range<u64> = 0..40;

/// What came of one schedule.
struct Ended {
    violations: Vec<String>,
    counts: std::collections::BTreeMap<&'static str, u64>,
    log: String,
    trace: Vec<String>,
    calls: u64,
}

/// A machine that does something `times` times.
async fn live(stage: &Stage, number: usize, role: &'static str, times: u64, faults: Faults) {
    let skew = stage.skew();
    let mut contents = Contents::new();
    for _ in 0..times {
        let pause = stage.dice().seconds(60..30 * 3600);
        tokio::time::sleep(pause).await;
        let machine = Machine::start(&stage.world, number, role, skew, faults);
        tokio::select! {
            biased;
            () = machine.died() => {}
            () = act(stage, &machine, &mut contents) => {}
        }
    }
}

async fn act(stage: &Stage, machine: &Arc<Machine>, contents: &mut Contents) {
    match machine.role {
        "create" => {
            let next = next_contents(&mut stage.dice(), contents);
            contents.clone_from(&next);
            stage.create(machine, &format!("site-{}", machine.number), next).await;
        }
        "forget" => stage.forget(machine).await,
        "prune" => {
            let swept = stage.prune(machine).await;
            if swept.is_some_and(|swept| swept.deleted_packs > 0) {
                // At once: a later backup might bring again what is missing now.
                stage.look(&Machine::start(&stage.world, 9, "judge", SignedDuration::ZERO, CALM)).await;
            }
        }
        "verify" => stage.verify(machine, Depth::Structure).await,
        "read" => stage.read(machine).await,
        other => unreachable!("{other}"),
    }
}

async fn schedule(seed: u64, broken: Broken, folder: std::path::PathBuf, traced: bool) -> Ended {
    let world = World::new(seed, broken, traced);
    let stage = Stage::new(Arc::clone(&world), seed, folder).await;
    let storm = faults(&mut stage.dice());
    // Readers and verifiers judge: what they see must be right, so that their own connection is good.
    let watching = Faults { lag: false, ..CALM };
    // Most schedules are small: as many meetings, and a fraction of the time.
    let small = stage.dice().happens(750_000) && broken == Broken::Nothing;
    let times = |large: u64| if small { stage.dice().below(large / 2 + 2) } else { large };
    let [first, second, third] = [times(4).max(1), times(4), times(3)];
    let [forgets, prunes, more_prunes, verifies, reads] =
        [times(3).max(1), times(6).max(2), times(3), times(2), times(3)];
    tokio::join!(
        live(&stage, 0, "create", first, storm),
        live(&stage, 1, "create", second, storm),
        live(&stage, 2, "create", third, storm),
        live(&stage, 3, "forget", forgets, storm),
        live(&stage, 4, "prune", prunes, storm),
        live(&stage, 5, "prune", more_prunes, storm),
        live(&stage, 6, "verify", verifies, watching),
        live(&stage, 7, "read", reads, watching),
    );
    let calm = |role| Machine::start(&world, 8, role, SignedDuration::ZERO, CALM);
    stage.judge(&calm("judge")).await;
    if broken == Broken::Nothing {
        // Some grace periods later nothing is left that nobody needs. A machine whose clock is a day ahead dates what it
        // condemns, and its leases, a day ahead: both clocks must agree, so that this takes longer.
        for _ in 0..5 {
            tokio::time::sleep(stage.grace + Duration::from_secs(64 * 3600)).await;
            stage.prune(&calm("prune")).await;
        }
        tokio::time::sleep(stage.grace).await;
        let swept = stage.prune(&calm("prune")).await;
        stage.garbage(swept);
        stage.judge(&calm("judge")).await;
    }
    let model = stage.model();
    Ended {
        violations: model.violations.clone(),
        counts: model.counts.clone(),
        log: world.log(),
        trace: world.trace(),
        calls: world.calls(),
    }
}

/// Runs one schedule to its end.
fn run(seed: u64, broken: Broken) -> Ended {
    // Unoptimised, the operations of eight machines do not fit the stack of a test's thread.
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(move || run_here(seed, broken));
    thread.expect("a thread").join().expect("no schedule panics")
}

fn run_here(seed: u64, broken: Broken) -> Ended {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    // State folders are fsynced: in memory where the system has a folder for that.
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder");
    let traced = std::env::var_os("INFRAHUB_SIM_TRACE").is_some();
    runtime.block_on(schedule(seed, broken, folder.path().to_owned(), traced))
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("INFRAHUB_SIM_SEEDS") else { return SEEDS_DEFAULT };
    let bounds = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    bounds.unwrap_or_else(|| panic!("INFRAHUB_SIM_SEEDS is `{text}`, not FROM..TO"))
}

#[test]
fn no_schedule_breaks_a_promise() {
    let (mut counts, mut calls, began) = (std::collections::BTreeMap::new(), 0, std::time::Instant::now());
    let seeds = seeds();
    for seed in seeds.clone() {
        let ended = run(seed, Broken::Nothing);
        if !ended.violations.is_empty() {
            ended.trace.iter().for_each(|line| println!("{line}"));
            panic!(
                "seed {seed}: {:#?}\nreplay: INFRAHUB_SIM_SEEDS={seed}..{} INFRAHUB_SIM_TRACE=1 cargo test --test simulation no_schedule -- --nocapture",
                ended.violations,
                seed + 1
            );
        }
        calls += ended.calls;
        for (what, count) in ended.counts {
            *counts.entry(what).or_insert(0) += count;
        }
    }
    println!("schedules {seeds:?}: {calls} store calls, {counts:?}, {:.1} s", began.elapsed().as_secs_f64());
    if seeds == SEEDS_DEFAULT {
        for what in ["acknowledged", "packs deleted", "packs repacked", "forgot", "pruned", "verified", "read"] {
            assert!(counts.get(what).copied().unwrap_or(0) > 0, "`{what}` never happened: {counts:?}");
        }
    }
}

#[test]
fn one_seed_is_one_schedule() {
    for seed in [3, 4, 5] {
        assert_eq!(run(seed, Broken::Nothing).log, run(seed, Broken::Nothing).log, "seed {seed}");
    }
}

/// A broken protocol must be found out within 300 seeds. They begin at `first`, shortly before one that finds it today: what
/// changes the order of calls changes which one does.
#[track_caller]
fn assert_caught(broken: Broken, first: u64) {
    let caught = (first..first + 300).find(|seed| !run(*seed, broken).violations.is_empty());
    let seed = caught.unwrap_or_else(|| panic!("{broken:?} was not found out by 300 schedules"));
    println!("{broken:?} was found out by seed {seed}");
}

#[test]
fn writers_that_see_no_marks_are_found_out() {
    assert_caught(Broken::WritersSeeNoMarks, 150);
}

#[test]
fn a_prune_that_sees_no_leases_is_found_out() {
    assert_caught(Broken::PruneSeesNoLeases, 100);
}

#[test]
fn a_prune_that_waits_for_no_grace_period_is_found_out() {
    assert_caught(Broken::PruneLivesAhead, 90);
}

#[test]
fn writers_that_do_not_notice_that_they_are_late_are_found_out() {
    assert_caught(Broken::LastLeaseLooksEarly, 0);
}
