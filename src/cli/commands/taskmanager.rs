//! `taskmanager`: clears the task manager of old flow runs.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render;
use crate::cli::session::Session;
use crate::cli::target;
use crate::cli::taskmanager::{Flush, FlushWhat, TaskmanagerCommand};
use crate::ops::flush::{FlushOptions, Flushed, flush, past};
use crate::provider::flow_runs::{RunFilter, RunKind};

/// Days of runs that are kept where nothing is said, and how many runs are listed at a time.
const DAYS_ENDED: i64 = 30;
const DAYS_STALE: i64 = 2;
const BATCH: u64 = 200;

const DAY_SECONDS: i64 = 24 * 3600;

/// `taskmanager …`
pub async fn run(session: &Session, command: TaskmanagerCommand) -> Result<Exit, Failure> {
    match command {
        TaskmanagerCommand::Flush(args) => run_flush(session, args).await,
    }
}

async fn run_flush(session: &Session, args: Flush) -> Result<Exit, Failure> {
    let (kind, days_default, flags) = match args.what {
        FlushWhat::FlowRuns(flags) => (RunKind::Ended, DAYS_ENDED, flags),
        FlushWhat::StaleRuns(flags) => (RunKind::Stale, DAYS_STALE, flags),
    };
    let days = days_to_keep(session, flags.days_to_keep, days_default);
    // Whole seconds, which every version of Prefect reads.
    let before = session.context.outside.clock.now().as_second() - days * DAY_SECONDS;
    let before = Timestamp::from_second(before).map_err(|_| Failure::usage(format!("no day was {days} days ago")))?;
    let filter = RunFilter { kind, before };
    let options = FlushOptions { filter, batch: batch(session, flags.batch_size), dry_run: flags.dry_run };

    let reach = target::reach(session).await?;
    let name = reach.deployment().name.clone();
    let Some(manager) = reach.task_manager() else {
        let text =
            format!("the task manager of deployment `{name}` cannot be reached: a configuration file describes none");
        return Err(Failure::incompatible(text).hint(by_hand(kind, days)));
    };
    let flushed = flush(&session.context, manager, options).await?;
    let exit = if flushed.failed == 0 { Exit::Done } else { Exit::Incomplete };
    session.out.done(exit, &document(&name, &options, &flushed), || text(&options, &flushed))
}

/// The days that were asked for. Less than none are the default, as they always were.
fn days_to_keep(session: &Session, asked: Option<i64>, default: i64) -> i64 {
    match asked {
        Some(days) if days >= 0 => days,
        Some(days) => {
            session.context.warn(format!("{days} days to keep are less than none: {default} are kept"));
            default
        }
        None => default,
    }
}

fn batch(session: &Session, asked: Option<i64>) -> u64 {
    match asked.map(u64::try_from) {
        None => BATCH,
        Some(Ok(size @ 1..)) => size,
        Some(Ok(0) | Err(_)) => {
            session.context.warn(format!("a batch of less than one run is none: {BATCH} are taken"));
            BATCH
        }
    }
}

/// What does the same where Infrahub itself is.
fn by_hand(kind: RunKind, days: i64) -> String {
    let what = match kind {
        RunKind::Ended => "flow-runs",
        RunKind::Stale => "stale-runs",
    };
    format!("where Infrahub runs: infrahub tasks flush {what} --days-to-keep {days}")
}

fn document(deployment: &str, options: &FlushOptions, flushed: &Flushed) -> Value {
    let stays = flushed.stay.iter();
    let stays = stays.map(|stays| json!({ "id": stays.run.id, "name": stays.run.name, "problem": stays.problem }));
    json!({
        "deployment": deployment,
        "action": match options.filter.kind {
            RunKind::Ended => "delete",
            RunKind::Stale => "crash",
        },
        "before": render::time(options.filter.before),
        "dry_run": options.dry_run,
        "found": flushed.found,
        "flushed": flushed.flushed,
        "failed": flushed.failed,
        "failures": stays.collect::<Vec<_>>(),
    })
}

fn text(options: &FlushOptions, flushed: &Flushed) -> String {
    let (done, before) = (past(options.filter.kind), render::time(options.filter.before));
    if options.dry_run {
        return format!("{} flow runs that started before {before} would be {done}\n", flushed.found);
    }
    let mut text = format!("{} flow runs that started before {before} were {done}\n", flushed.flushed);
    if flushed.failed > 0 {
        text.push_str(&format!("{} could not be and are as they were\n", flushed.failed));
    }
    text
}
