//! Collecting the evidence of an operation: plan, steps, outcome; kept in the repository as a report.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;

use super::{Context, TOOL};
use crate::component::ExitOk;
use crate::env::random_bytes;
use crate::error::Error;
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::report::{Finding, Outcome, Report, Step, Verified};
use crate::id::{ObjectId, RunId, SnapshotId};
use crate::repository::Repository;
use crate::repository::lease::Claimant;
use crate::storage::RequestCounts;

/// Evidence being collected. Steps may end in any order.
pub struct Recorder {
    report: Mutex<Report>,
}

/// A step that has begun.
pub struct OpenStep {
    action: &'static str,
    target: String,
    start: Timestamp,
}

impl Recorder {
    /// Begins the evidence of `operation`.
    pub fn new(context: &Context, operation: &str, deployment: Option<&str>, plan: Vec<String>) -> Self {
        let now = context.clock().now();
        let report = Report {
            format: crate::format::FORMAT_VERSION,
            operation: operation.to_owned(),
            run: RunId::from_bytes(random_bytes(context.entropy())),
            previous: None,
            deployment: deployment.map(str::to_owned),
            snapshots: vec![],
            start: now,
            end: now,
            outcome: Outcome::Failed,
            host: context.host.clone(),
            user: context.user.clone(),
            tool: TOOL.to_owned(),
            plan,
            steps: vec![],
            findings: vec![],
            verified: None,
            error: vec![],
        };
        Self { report: Mutex::new(report) }
    }

    fn change<T>(&self, work: impl FnOnce(&mut Report) -> T) -> T {
        work(&mut self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// The run.
    pub fn run(&self) -> RunId {
        self.change(|report| report.run)
    }

    /// Who claims a lease for this run.
    pub fn claimant(&self, context: &Context, operation: &'static str) -> Claimant {
        let holder = format!("{} process {}", context.host, std::process::id());
        Claimant { run: self.run(), operation, holder }
    }

    /// When the operation began.
    pub fn start(&self) -> Timestamp {
        self.change(|report| report.start)
    }

    /// Says what it is about, where that is found out only after it began.
    pub fn about(&self, deployment: &str, plan: Vec<String>) {
        self.change(|report| {
            report.deployment = Some(deployment.to_owned());
            report.plan = plan;
        });
    }

    /// Adds a step that was going on since the operation began, and gives what it took.
    pub fn since_start(
        &self,
        context: &Context,
        action: &str,
        target: &str,
        outcome: Outcome,
        facts: impl FnOnce(Duration) -> StepFacts,
    ) -> Duration {
        let (start, end) = (self.start(), context.clock().now());
        let elapsed = Duration::try_from(end.duration_since(start)).unwrap_or_default();
        let StepFacts { command, log, numbers, note } = facts(elapsed);
        let (action, target) = (action.to_owned(), target.to_owned());
        let step = Step { action, target, start, end, outcome, command, log, numbers, note };
        self.change(|report| report.steps.push(step));
        elapsed
    }

    /// The steps that ended so far.
    pub fn steps(&self) -> Vec<Step> {
        self.change(|report| report.steps.clone())
    }

    /// Names a snapshot that was made, read or checked.
    pub fn snapshot(&self, id: SnapshotId) {
        self.change(|report| report.snapshots.push(id));
    }

    /// Keeps damage that was found.
    pub fn findings(&self, findings: &[Finding]) {
        self.change(|report| report.findings.extend_from_slice(findings));
    }

    /// Keeps which packs were read whole and found sound.
    pub fn verified(&self, verified: Verified) {
        self.change(|report| report.verified = Some(verified));
    }

    /// Begins a step.
    pub fn begin(&self, context: &Context, action: &'static str, target: &str) -> OpenStep {
        OpenStep { action, target: target.to_owned(), start: context.clock().now() }
    }

    /// Ends a step that gave `result`, and passes the result on.
    pub fn end<T>(&self, context: &Context, step: OpenStep, result: Result<T, Error>) -> Result<T, Error> {
        self.end_with(context, step, result, |_| StepFacts::default())
    }

    /// Ends a step that gave `result`; `facts` are kept with it if it went well.
    pub fn end_with<T>(
        &self,
        context: &Context,
        step: OpenStep,
        result: Result<T, Error>,
        facts: impl FnOnce(&T) -> StepFacts,
    ) -> Result<T, Error> {
        let (outcome, facts, note) = match &result {
            Ok(value) => (Outcome::Done, facts(value), None),
            Err(error) => (Outcome::Failed, StepFacts::default(), Some(error.chain().join(": "))),
        };
        let step = Step {
            action: step.action.to_owned(),
            target: step.target,
            start: step.start,
            end: context.clock().now(),
            outcome,
            command: facts.command,
            log: facts.log,
            numbers: facts.numbers,
            note: note.or(facts.note),
        };
        self.change(|report| report.steps.push(step));
        result
    }

    /// The same evidence once more, for another repository.
    pub fn copy(&self) -> Self {
        Self { report: Mutex::new(self.change(|report| report.clone())) }
    }

    /// Puts the report into the repository. A report that cannot be put is told and does not undo the operation.
    pub async fn finish(
        self,
        context: &Context,
        repository: &Repository,
        outcome: Outcome,
        error: Option<&Error>,
    ) -> Option<ObjectId> {
        // What an auditor signs counts for nobody.
        if repository.keys().check_writes().is_err() {
            return None;
        }
        let previous = newest_report(repository).await;
        let mut report = self.report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        report.end = context.clock().now();
        report.outcome = outcome;
        report.previous = previous;
        report.error = error.map(Error::chain).unwrap_or_default();
        report.steps.extend(requests(repository, report.start, report.end));
        match repository.put_object(ObjectType::Report, &report.encode()).await {
            Ok(id) => Some(id),
            Err(error) => {
                let error = Error::from(error);
                context.warn(format!(
                    "the report of this {} was not kept: {}",
                    report.operation,
                    error.chain().join(": ")
                ));
                None
            }
        }
    }
}

/// What the store was asked since the repository was opened; nothing where nobody counts.
fn requests(repository: &Repository, start: Timestamp, end: Timestamp) -> Option<Step> {
    let counts = repository.store().counts();
    if counts == RequestCounts::default() {
        return None;
    }
    let numbers = [
        ("puts", counts.puts),
        ("gets", counts.gets),
        ("heads", counts.heads),
        ("lists", counts.lists),
        ("deletes", counts.deletes),
        ("retries", counts.retries),
        ("bytes_up", counts.bytes_up),
        ("bytes_down", counts.bytes_down),
    ];
    Some(Step {
        action: "requests".to_owned(),
        target: repository.store().location(),
        start,
        end,
        outcome: Outcome::Done,
        command: None,
        log: vec![],
        numbers: numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect(),
        note: None,
    })
}

/// What is worth keeping with a step.
#[derive(Debug, Default)]
pub struct StepFacts {
    /// The command, secrets masked.
    pub command: Option<String>,
    /// Its last lines, secrets masked.
    pub log: Vec<String>,
    /// Numbers, units in their names.
    pub numbers: BTreeMap<String, u64>,
    /// Anything else.
    pub note: Option<String>,
}

impl From<&ExitOk> for StepFacts {
    fn from(exit: &ExitOk) -> Self {
        let millis = u64::try_from(exit.elapsed.as_millis()).unwrap_or(u64::MAX);
        let numbers = BTreeMap::from([("bytes".to_owned(), exit.bytes), ("elapsed_ms".to_owned(), millis)]);
        Self { command: Some(exit.command.clone()), log: exit.log.clone(), numbers, note: None }
    }
}

/// The report that the store has had for the shortest time.
async fn newest_report(repository: &Repository) -> Option<ObjectId> {
    let listed = repository.store().list(layout::REPORTS).await.ok()?;
    let newest = listed.iter().max_by(|a, b| (a.modified, &a.name).cmp(&(b.modified, &b.name)))?;
    layout::id_in(&newest.name)
}
