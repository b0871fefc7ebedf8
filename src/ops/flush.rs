//! Clearing a task manager of old flow runs.
//!
//! Holds: it ends. A run that stays is passed over, counted and told, and so is one that is said to be flushed but is there
//! still. Does not: touch runs that start, or end, behind the moment that the filter names.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Context;
use crate::error::Error;
use crate::provider::flow_runs::{FlowRun, RunFilter, RunKind, TaskManager};

/// How many runs are flushed at once, and how long the task manager is left alone then: it has other work.
const SLICE_RUNS: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// How often is told how far it is.
const TELL_PERIOD: Duration = Duration::from_secs(5);

/// Most runs that stay which are told one by one; the others are counted.
const STAYS_TOLD_MAX: usize = 20;

/// What is to be flushed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushOptions {
    /// Which runs.
    pub filter: RunFilter,
    /// How many are listed at a time.
    pub batch: u64,
    /// Whether they are only counted.
    pub dry_run: bool,
}

/// A run that is as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stays {
    /// The run.
    pub run: FlowRun,
    /// Why.
    pub problem: String,
}

/// What was flushed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Flushed {
    /// Runs that were there at the beginning.
    pub found: u64,
    /// Runs that are flushed.
    pub flushed: u64,
    /// Runs that are as they were.
    pub failed: u64,
    /// The first of those.
    pub stay: Vec<Stays>,
}

/// Flushes the runs, or counts them.
///
/// # Errors
///
/// When the task manager does not answer. What was flushed until then stays so, and the error tells how much that is.
pub async fn flush(context: &Context, manager: &dyn TaskManager, options: FlushOptions) -> Result<Flushed, Error> {
    let mut done = Flushed::default();
    let told = |text: String| context.info(text);
    let warned = |text: String| context.warn(text);
    let tell = Tell { info: &told, warn: &warned };
    let ended = context.cancel.or(flush_all(&tell, manager, options, &mut done)).await.and_then(|ended| ended);
    match ended {
        Ok(()) => Ok(done),
        Err(error) if done.flushed == 0 => Err(error),
        // The slice at work may have done more.
        Err(error) => {
            let text =
                format!("at least {} of {} flow runs were {}", done.flushed, done.found, past(options.filter.kind));
            Err(error.context(format!("{text}, then it ended early")))
        }
    }
}

/// What was done to a run that is flushed.
pub fn past(kind: RunKind) -> &'static str {
    match kind {
        RunKind::Ended => "deleted",
        RunKind::Stale => "set to crashed",
    }
}

/// Whom things are told.
struct Tell<'a> {
    info: &'a (dyn Fn(String) + Sync),
    warn: &'a (dyn Fn(String) + Sync),
}

async fn flush_all(
    tell: &Tell<'_>,
    manager: &dyn TaskManager,
    options: FlushOptions,
    done: &mut Flushed,
) -> Result<(), Error> {
    let FlushOptions { filter, batch, dry_run } = options;
    done.found = manager.count(&filter).await?;
    if dry_run {
        return Ok(());
    }
    let mut round = Round::default();
    let mut told = Instant::now();
    loop {
        let page = manager.page(&filter, batch, round.offset).await?;
        if page.is_empty() {
            return Ok(());
        }
        let new: Vec<FlowRun> = page.into_iter().filter(|run| round.is_new(tell, run, done)).collect();
        for slice in new.chunks(SLICE_RUNS) {
            round.flush(tell, manager, filter.kind, slice, done).await?;
            if told.elapsed() >= TELL_PERIOD {
                (tell.info)(format!("{} of {} flow runs {}", done.flushed, done.found, past(filter.kind)));
                told = Instant::now();
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Where flushing is.
#[derive(Default)]
struct Round {
    /// Before this are only runs that were listed again after they had been tried. Each page moves it, or has runs that no page
    /// had before; so there is an end.
    offset: u64,
    /// Runs that were tried, and whether they stay. A hundred bytes for each; a million of them takes seven hours.
    tried: HashMap<String, bool>,
}

impl Round {
    /// Whether a listed run is still to be tried. One that was tried stays, and what comes next is behind it.
    fn is_new(&mut self, tell: &Tell<'_>, run: &FlowRun, done: &mut Flushed) -> bool {
        match self.tried.get(&run.id) {
            None => return true,
            Some(true) => {}
            Some(false) => {
                done.flushed -= 1;
                self.stays(tell, run, "it is still there, although the task manager said otherwise".to_owned(), done);
            }
        }
        self.offset += 1;
        false
    }

    async fn flush(
        &mut self,
        tell: &Tell<'_>,
        manager: &dyn TaskManager,
        kind: RunKind,
        slice: &[FlowRun],
        done: &mut Flushed,
    ) -> Result<(), Error> {
        let ids: Vec<String> = slice.iter().map(|run| run.id.clone()).collect();
        let outcomes = manager.flush(kind, &ids).await?;
        for run in slice {
            let problem = match outcomes.iter().find(|outcome| outcome.id == run.id) {
                Some(outcome) => outcome.problem.clone(),
                None => Some("the task manager told nothing of it".to_owned()),
            };
            match problem {
                Some(problem) => self.stays(tell, run, problem, done),
                None => {
                    self.tried.insert(run.id.clone(), false);
                    done.flushed += 1;
                }
            }
        }
        Ok(())
    }

    fn stays(&mut self, tell: &Tell<'_>, run: &FlowRun, problem: String, done: &mut Flushed) {
        self.tried.insert(run.id.clone(), true);
        done.failed += 1;
        if done.stay.len() < STAYS_TOLD_MAX {
            (tell.warn)(format!("flow run `{}` ({}) stays: {problem}", run.name, run.id));
            done.stay.push(Stays { run: run.clone(), problem });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use jiff::Timestamp;

    use super::*;
    use crate::provider::ProviderError;
    use crate::provider::flow_runs::RunFlushed;

    /// Runs 0, 1, 2, …, of which some refuse to go, and some only say that they go.
    struct Scripted {
        there: Mutex<BTreeSet<u32>>,
        refuse: fn(u32) -> bool,
        lie: fn(u32) -> bool,
        page_max: u64,
        /// How many flushes are answered.
        patience: Mutex<usize>,
    }

    impl Scripted {
        fn with(runs: u32) -> Self {
            let there = Mutex::new((0..runs).collect());
            let never = |_| false;
            Self { there, refuse: never, lie: never, page_max: 200, patience: Mutex::new(usize::MAX) }
        }

        async fn flush(&self, batch: u64, dry_run: bool) -> (Result<(), Error>, Flushed, Vec<String>) {
            let filter = RunFilter { kind: RunKind::Ended, before: Timestamp::UNIX_EPOCH };
            let said = Mutex::new(Vec::new());
            let note = |text: String| said.lock().unwrap().push(text);
            let tell = Tell { info: &note, warn: &note };
            let mut done = Flushed::default();
            let ended = flush_all(&tell, self, FlushOptions { filter, batch, dry_run }, &mut done).await;
            (ended, done, said.into_inner().unwrap())
        }

        fn left(&self) -> Vec<u32> {
            self.there.lock().unwrap().iter().copied().collect()
        }
    }

    #[async_trait]
    impl TaskManager for Scripted {
        async fn count(&self, _: &RunFilter) -> Result<u64, ProviderError> {
            Ok(u64::try_from(self.there.lock().unwrap().len()).unwrap())
        }
        async fn page(&self, _: &RunFilter, limit: u64, offset: u64) -> Result<Vec<FlowRun>, ProviderError> {
            let (limit, offset) = (limit.min(self.page_max), usize::try_from(offset).unwrap());
            let there = self.there.lock().unwrap();
            let page = there.iter().rev().skip(offset).take(usize::try_from(limit).unwrap());
            Ok(page.map(|run| FlowRun { id: run.to_string(), name: format!("run {run}") }).collect())
        }
        async fn flush(&self, _: RunKind, ids: &[String]) -> Result<Vec<RunFlushed>, ProviderError> {
            let mut patience = self.patience.lock().unwrap();
            if *patience == 0 {
                return Err(ProviderError::NoSuchService { service: "task-manager".to_owned() });
            }
            *patience -= 1;
            let flush = |id: &String| {
                let run: u32 = id.parse().unwrap();
                if (self.refuse)(run) {
                    return RunFlushed { id: id.clone(), problem: Some("no".to_owned()) };
                }
                if !(self.lie)(run) {
                    self.there.lock().unwrap().remove(&run);
                }
                RunFlushed { id: id.clone(), problem: None }
            };
            Ok(ids.iter().map(flush).collect())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_runs_go_however_short_the_pages_are() {
        for (batch, page_max) in [(200, 200), (7, 200), (200, 3), (1, 1)] {
            let mut manager = Scripted::with(101);
            manager.page_max = page_max;
            let (ended, done, said) = manager.flush(batch, false).await;
            ended.unwrap();
            assert_eq!((done.found, done.flushed, done.failed, manager.left().len()), (101, 101, 0, 0));
            assert!(said.iter().all(|text| text.ends_with("of 101 flow runs deleted")), "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn runs_that_stay_are_passed_over_counted_and_told() {
        for (batch, page_max) in [(200, 200), (7, 200), (200, 3), (1, 1)] {
            let mut manager = Scripted::with(100);
            manager.page_max = page_max;
            manager.refuse = |run| run % 10 == 0;
            manager.lie = |run| run % 10 == 1;
            let (ended, done, said) = manager.flush(batch, false).await;
            ended.unwrap();
            let stay: Vec<u32> = (0..100).filter(|run| run % 10 < 2).collect();
            assert_eq!(manager.left(), stay);
            assert_eq!((done.flushed, done.failed), (80, 20), "{batch} {page_max}");
            assert!(said.contains(&"flow run `run 90` (90) stays: no".to_owned()), "{said:?}");
            assert!(
                said.iter().any(|text| text.starts_with("flow run `run 91` (91) stays: it is still there")),
                "{said:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_can_be_flushed_it_ends() {
        let mut manager = Scripted::with(50);
        manager.refuse = |_| true;
        let (ended, done, _) = manager.flush(10, false).await;
        ended.unwrap();
        assert_eq!((done.flushed, done.failed, manager.left().len()), (0, 50, 50));
        assert_eq!(done.stay.len(), STAYS_TOLD_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dry_run_counts_and_changes_nothing() {
        let manager = Scripted::with(5);
        let (ended, done, said) = manager.flush(200, true).await;
        ended.unwrap();
        assert_eq!((done, said), (Flushed { found: 5, ..Flushed::default() }, vec![]));
        assert_eq!(manager.left().len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_flushed_before_the_task_manager_fell_silent_is_known() {
        let manager = Scripted { patience: Mutex::new(2), ..Scripted::with(100) };
        let (ended, done, _) = manager.flush(200, false).await;
        ended.unwrap_err();
        assert_eq!((done.flushed, manager.left().len()), (40, 60));
    }
}
