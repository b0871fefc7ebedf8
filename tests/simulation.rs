//! The operations that the command line calls, driven from one seed over a store where everything goes wrong that may.
//!
//! Scheduling, clocks, entropy and faults follow from the seed; time is virtual. A violation prints the seed, and with
//! INFRAHUB_SIM_TRACE=1 every call. INFRAHUB_SIM_SEEDS=FROM..TO runs a range; `tests/simulate FROM TO` does that in an optimised
//! build and goes on where it was. What it shows and what not: docs/design/simulation.md.

#[path = "simulation/actors.rs"]
mod actors;
#[path = "simulation/copies.rs"]
mod copies;
#[path = "simulation/store.rs"]
mod store;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use infrahub_backup::repository::check::Depth;
use jiff::SignedDuration;

use actors::{Contents, SIZES, SIZES_TINY, Sizes, Stage, faults, next_contents};
use copies::Mending;
use store::{Broken, CALM, Faults, Machine, Place, World};

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

/// A machine, and what it does again and again.
#[derive(Clone, Copy)]
struct Life {
    number: usize,
    role: &'static str,
    place: Place,
    times: u64,
    faults: Faults,
    /// Bytes of what it backs up.
    sizes: Sizes,
}

async fn live(stage: &Stage, life: Life) {
    let skew = stage.skew();
    let mut contents = Contents::new();
    for _ in 0..life.times {
        let pause = stage.dice().seconds(60..30 * 3600);
        tokio::time::sleep(pause).await;
        let machine = Machine::start(&stage.world, life.number, life.role, skew, life.faults);
        tokio::select! {
            biased;
            () = machine.died() => {}
            () = act(stage, &machine, life, &mut contents) => {}
        }
    }
}

async fn act(stage: &Stage, machine: &Arc<Machine>, life: Life, contents: &mut Contents) {
    let place = life.place;
    match machine.role {
        "create" => {
            let next = next_contents(&mut stage.dice(), contents, life.sizes);
            contents.clone_from(&next);
            stage.create(machine, &format!("site-{}", machine.number), next).await;
        }
        "forget" => stage.forget(machine, place).await,
        "prune" => {
            let swept = stage.prune(machine, place).await;
            if swept.is_some_and(|swept| swept.deleted_packs > 0) {
                // At once: a later backup might bring again what is missing now.
                stage.look(&Machine::start(&stage.world, 9, "judge", SignedDuration::ZERO, CALM), place).await;
            }
        }
        "verify" => stage.verify(machine, place, Depth::Structure).await,
        "read" => stage.read(machine, place).await,
        "replicate" => drop(stage.replicate(machine, place).await),
        "repair" => {
            let chance = stage.dice().next();
            let (with_copy, read_data) = (chance & 1 == 1, chance & 2 == 2);
            stage.repair(machine, Mending { place, with_copy, read_data }).await;
        }
        "harm" => stage.harm(machine).await,
        other => unreachable!("{other}"),
    }
}

/// How many runs a schedule has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Large,
    Small,
    Tiny,
}

/// What one schedule is made of.
struct Plan {
    lives: Vec<Life>,
    /// Whether the source is damaged.
    harms: bool,
    /// Whether there is a replica.
    copies: bool,
    /// Whether it is tried at the end that all garbage goes, which takes as long as all the rest.
    tidies: bool,
}

impl Plan {
    fn new(stage: &Stage, broken: Broken) -> Self {
        let mut dice = stage.dice();
        let storm = faults(&mut dice);
        // Readers and verifiers judge: what they see must be right, so that their own connection is good.
        let watching = Faults { lag: false, ..CALM };
        let sound = broken == Broken::Nothing;
        // Most schedules are small: as many meetings for the time that they take.
        let size = match dice.below(100) {
            _ if !sound => Size::Large,
            0..2 => Size::Large,
            2..8 => Size::Small,
            _ => Size::Tiny,
        };
        let copies = dice.happens(500_000) && sound;
        let harms = dice.happens(500_000) && copies;
        let tidies = dice.happens(if size == Size::Tiny { 60_000 } else { 250_000 }) && sound;
        let mut lives = Vec::new();
        let mut live = |number, role, place, large: u64, least: u64, faults| {
            let times = match size {
                Size::Large => large,
                Size::Small => dice.below(large / 2 + 2).max(least),
                Size::Tiny => dice.below(large / 2 + 1).max(least.min(dice.below(2) + 1)),
            };
            let sizes = if size == Size::Tiny { SIZES_TINY } else { SIZES };
            lives.push(Life { number, role, place, times, faults, sizes });
        };
        let (source, target) = (Place::Source, Place::Target);
        live(0, "create", source, 4, 1, storm);
        live(1, "create", source, 4, 0, storm);
        live(3, "forget", source, 3, 1, storm);
        live(4, "prune", source, 6, 2, storm);
        live(5, "prune", source, 3, 0, storm);
        live(6, "verify", source, 2, 0, watching);
        live(7, "read", source, 3, 0, watching);
        if !copies {
            live(2, "create", source, 3, 0, storm);
        } else {
            live(10, "replicate", source, 4, 2, storm);
            live(11, "replicate", source, 2, 0, storm);
            live(12, "repair", source, 3, 1, storm);
            live(13, "verify", target, 2, 0, watching);
            live(14, "read", target, 2, 0, watching);
        }
        if copies && harms {
            live(15, "harm", source, 3, 1, CALM);
            live(16, "repair", source, 2, 0, storm);
        } else if copies {
            // Only there, where what the replica holds need not stay.
            live(15, "forget", target, 2, 0, storm);
            live(16, "prune", target, 4, 2, storm);
            live(17, "repair", target, 3, 1, storm);
        }
        Self { lives, harms, copies, tidies }
    }
}

async fn schedule(seed: u64, broken: Broken, folder: std::path::PathBuf, traced: bool) -> Ended {
    let world = World::new(seed, broken, traced);
    let stage = Stage::new(Arc::clone(&world), seed, folder);
    let plan = Plan::new(&stage, broken);
    futures::future::join_all(plan.lives.iter().map(|life| live(&stage, *life))).await;
    let calm = |role| Machine::start(&world, 8, role, SignedDuration::ZERO, CALM);
    if plan.harms {
        stage.restore_order(&calm("repair")).await;
    }
    stage.judge(&calm("judge"), Place::Source).await;
    if plan.copies {
        stage.replicate_all(&calm("replicate")).await;
        stage.judge(&calm("judge"), Place::Target).await;
    }
    if plan.tidies {
        tidy(&stage, Place::Source).await;
        if plan.copies {
            tidy(&stage, Place::Target).await;
        }
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

/// Some grace periods later nothing is left that nobody needs. A machine whose clock is a day ahead dates what it condemns, and
/// its leases, a day ahead: both clocks must agree, so that this takes longer.
async fn tidy(stage: &Stage, place: Place) {
    let calm = |role| Machine::start(&stage.world, 8, role, SignedDuration::ZERO, CALM);
    for _ in 0..5 {
        tokio::time::sleep(stage.grace + Duration::from_secs(64 * 3600)).await;
        stage.prune(&calm("prune"), place).await;
    }
    tokio::time::sleep(stage.grace).await;
    let swept = stage.prune(&calm("prune"), place).await;
    stage.garbage(swept);
    stage.judge(&calm("judge"), place).await;
}

/// Runs one schedule to its end.
fn run(seed: u64, broken: Broken) -> Ended {
    // Unoptimised, the operations of eight machines do not fit the stack of a test's thread.
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(move || run_here(seed, broken));
    thread.expect("a thread").join().expect("no schedule panics")
}

fn run_here(seed: u64, broken: Broken) -> Ended {
    actors::found();
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
        for what in [
            "acknowledged",
            "packs deleted",
            "packs repacked",
            "forgot",
            "pruned",
            "verified",
            "read",
            "replicated",
            "repaired",
        ] {
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
    assert_caught(Broken::PruneSeesNoLeases, 140);
}

#[test]
fn a_prune_that_waits_for_no_grace_period_is_found_out() {
    assert_caught(Broken::PruneLivesAhead, 155);
}

#[test]
fn writers_that_do_not_notice_that_they_are_late_are_found_out() {
    assert_caught(Broken::LastLeaseLooksEarly, 0);
}
