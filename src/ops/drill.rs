//! `drill`: a restore that nobody needs, so that the one that somebody needs is known to work and how long it takes.
//!
//! The snapshot is checked, restored and checked again as `restore` does it: into files in a scratch folder, which are decoded
//! and removed, or into a deployment that its configuration marks as scratch. Each stage is a step of the report; the step
//! [`RECOVER`] says how long all of it took, from before the repository was opened until the last check. Cleaning up is not
//! counted.
//!
//! Holds: nothing is overwritten that is not marked by `[scratch]`, that has the name of what the snapshot is of, that this
//! repository holds backups of, or that shares anything with the deployment of the other configuration file.
//! Does not: prove that two configuration files that share nothing lead to two servers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::evidence::{OpenStep, Recorder, StepFacts};
use super::rehearse::{decode, finding, make_folder, remove_folder};
use super::restore::{RestoreOptions, RestoredComponent, Target, execute_within, plan_within};
use super::{Context, resume};
use crate::error::{Error, ErrorKind};
use crate::format::manifest::ComponentStatus;
use crate::format::report::{Finding, Outcome, Step};
use crate::id::{ObjectId, SnapshotId};
use crate::provider::Reach;
use crate::provider::bespoke::BespokeProvider;
use crate::provider::config::BespokeConfig;
use crate::repository::Repository;
use crate::repository::snapshots::Snapshot;

/// What reports and journals call it.
pub const OPERATION: &str = "drill";

/// The step of a report that says how long the recovery took, in its number [`ELAPSED_MS`].
pub const RECOVER: &str = "recover";

/// Milliseconds from before the repository was opened until the last check.
pub const ELAPSED_MS: &str = "elapsed_ms";

/// The objective that the drill was given, in milliseconds; a number of the same step.
pub const OBJECTIVE_MS: &str = "rto_ms";

/// How the folder of a drill begins.
const FOLDER_PREFIX: &str = "infrahub-drill-";

/// Where a drill restores to.
#[derive(Clone)]
pub enum DrillTarget {
    /// Files in a new folder in this one.
    Files(PathBuf),
    /// A deployment that its configuration, from this file, marks as scratch.
    Deployment(Arc<BespokeProvider>, PathBuf),
}

/// How to drill.
#[derive(Clone)]
pub struct DrillOptions {
    /// Where to.
    pub target: DrillTarget,
    /// Only see that everything is listed; do not read it all first.
    pub fast: bool,
    /// Go on although version or edition do not fit.
    pub force: bool,
    /// How long to wait for another operation on the target.
    pub wait: Option<Duration>,
    /// Recovery time objective.
    pub objective: Option<Duration>,
    /// The other configuration file, if there is one: with what it describes the target may share nothing.
    pub live: Option<BespokeConfig>,
}

/// How a drill went.
#[derive(Debug)]
pub struct Drilled {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// How long the recovery took.
    pub elapsed: Duration,
    /// Whether that is within the objective; `None` without one.
    pub objective_met: Option<bool>,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// What was restored.
    pub components: Vec<RestoredComponent>,
    /// Damage that stood in the way.
    pub findings: Vec<Finding>,
    /// Whether what was restored is gone again; `None` if nothing was restored, or nothing says how to take it away.
    pub cleaned: Option<bool>,
    /// The evidence, where the repository could keep it.
    pub report: Option<ObjectId>,
}

impl Drilled {
    /// Whether what was counted in the target is what the snapshot counted, as far as anything was.
    pub fn counts_match(&self) -> bool {
        self.components.iter().all(|component| component.counts_match != Some(false))
    }

    /// Whether something is not, or may not be, what was backed up.
    pub fn is_incomplete(&self) -> bool {
        self.components.iter().any(RestoredComponent::is_incomplete)
    }
}

impl DrillTarget {
    /// For people: `scratch files`, or the deployment.
    pub fn told(&self) -> String {
        match self {
            Self::Files(_) => "scratch files".to_owned(),
            Self::Deployment(provider, _) => format!("deployment {}", provider.config().deployment.name),
        }
    }

    fn restore_target(&self, folder: Option<PathBuf>) -> Option<Target> {
        match self {
            Self::Files(_) => folder.map(Target::Folder),
            Self::Deployment(provider, path) => {
                Some(Target::Deployment(Reach::Bespoke(Arc::clone(provider), path.clone())))
            }
        }
    }
}

/// Refuses a target that may not be overwritten; gives what a drill would do, line by line. Touches nothing.
///
/// # Errors
/// Usage, if the target is refused.
pub async fn plan(
    context: &Context,
    repository: &Arc<Repository>,
    snapshot: &Snapshot,
    options: &DrillOptions,
) -> Result<Vec<String>, Error> {
    repository.keys().check_reads_content().map_err(|source| Error::from(repository.unsupported(source)))?;
    let mut lines = vec![
        format!(
            "restore snapshot {} of `{}`, made {}",
            snapshot.id.short(),
            snapshot.manifest.deployment,
            snapshot.manifest.created_at
        ),
        match options.fast {
            true => "see that everything is listed".to_owned(),
            false => "read and hash everything that is needed".to_owned(),
        },
    ];
    match &options.target {
        DrillTarget::Files(scratch) => {
            if !scratch.is_dir() {
                let text = format!("`{}` is no folder that a drill could write into", scratch.display());
                return Err(Error::new(ErrorKind::Usage, text));
            }
            lines.push(format!("write files into a new folder in {}, decode them, remove them", scratch.display()));
        }
        DrillTarget::Deployment(provider, path) => {
            let (all, _) = context.cancel.or(repository.snapshots()).await??;
            check_deployment(provider.config(), path, snapshot, &all, options.live.as_ref())?;
            lines.extend(deployment_lines(provider.config(), snapshot));
        }
    }
    let limit = |objective: Duration| format!("miss the objective if that takes longer than {} ms", millis(objective));
    lines.extend(options.objective.map(limit));
    Ok(lines)
}

fn deployment_lines(config: &BespokeConfig, snapshot: &Snapshot) -> Vec<String> {
    let name = &config.deployment.name;
    let mut lines = vec![format!(
        "into scratch deployment `{name}`: DESTROY what is in {} there and put the snapshot's in its place",
        restorable(snapshot).join(", ")
    )];
    lines.push(match config.scratch.as_ref().and_then(|scratch| scratch.clean.as_ref()) {
        Some(_) => "take it away again by the command `clean`".to_owned(),
        None => format!("leave it in `{name}`, which has no command `clean`"),
    });
    lines
}

/// What is not marked, or looks like anything that somebody needs, is no scratch deployment.
fn check_deployment(
    config: &BespokeConfig,
    path: &Path,
    snapshot: &Snapshot,
    all: &[Snapshot],
    live: Option<&BespokeConfig>,
) -> Result<(), Error> {
    let name = &config.deployment.name;
    let refused = |why: String| {
        Err(Error::new(ErrorKind::Usage, format!("`{name}` is no scratch deployment: {why}; nothing was touched")))
    };
    if config.scratch.is_none() {
        return refused(format!("`{}` has no section `[scratch]`", path.display()));
    }
    if *name == snapshot.manifest.deployment {
        return refused("the snapshot is of a deployment of this name".to_owned());
    }
    let is_kept = |other: &&Snapshot| other.manifest.deployment == *name && !other.manifest.is_safety();
    if let Some(kept) = all.iter().find(is_kept) {
        return refused(format!("snapshot {} is a backup of it", kept.id.short()));
    }
    let Some(live) = live else { return Ok(()) };
    if live.deployment.name == *name {
        return refused("the configuration file of the deployment in use has this name".to_owned());
    }
    match &config.shared_with(live)[..] {
        [] => Ok(()),
        shared => refused(format!("it shares with `{}`: {}", live.deployment.name, shared.join("; "))),
    }
}

/// Names of the components that the snapshot has.
fn restorable(snapshot: &Snapshot) -> Vec<String> {
    let there = snapshot.manifest.components.iter().filter(|record| record.status != ComponentStatus::Failed);
    there.map(|record| record.name.clone()).collect()
}

/// A drill that has begun.
pub struct Drill {
    recorder: Recorder,
}

impl Drill {
    /// Begins it: from here on the time counts.
    pub fn begin(context: &Context) -> Self {
        Self { recorder: Recorder::new(context, OPERATION, None, vec![]) }
    }

    /// Begins a stage before the restore: opening the repository, choosing the snapshot.
    pub fn stage(&self, context: &Context, action: &'static str, target: &str) -> OpenStep {
        self.recorder.begin(context, action, target)
    }

    /// The stage ended well.
    pub fn ended(&self, context: &Context, stage: OpenStep) {
        let _ = self.recorder.end(context, stage, Ok(()));
    }

    /// Restores `snapshot` into the target, checks it, and takes it away again.
    ///
    /// # Errors
    /// What [`plan`] refuses. What a restore fails with, except damage, which is a finding; then the report is kept.
    pub async fn run(
        self,
        context: &Context,
        repository: &Arc<Repository>,
        snapshot: Snapshot,
        options: DrillOptions,
    ) -> Result<Drilled, Error> {
        let lines = plan(context, repository, &snapshot, &options).await?;
        self.recorder.about(&snapshot.manifest.deployment, lines);
        self.recorder.snapshot(snapshot.id);
        tell_left_behind(context, &options.target);
        let mut folder = None;
        let result = self.recover(context, repository, &snapshot, &options, &mut folder).await;
        let damage = result.as_ref().err().filter(|error| error.kind() == ErrorKind::Damaged);
        let findings: Vec<Finding> = damage.map(|error| finding(&snapshot, error)).into_iter().collect();
        self.recorder.findings(&findings);
        let (recovered, objective) = (outcome(&result), options.objective);
        let elapsed = self.recorder.since_start(context, RECOVER, &options.target.told(), recovered, |elapsed| {
            facts(elapsed, objective, result.as_deref().unwrap_or_default())
        });
        let cleaned = self.clean(context, &options, folder.as_deref(), result.is_ok()).await;
        let ended = match (recovered, &cleaned) {
            (Outcome::Done, Err(_)) => Outcome::Incomplete,
            (Outcome::Done | Outcome::Incomplete | Outcome::Failed, _) => recovered,
        };
        let cleaned = cleaned.unwrap_or_else(|error| {
            context.warn(format!("what the drill restored is still there: {}", error.chain().join(": ")));
            Some(false)
        });
        let steps = self.recorder.steps();
        let report = self.recorder.finish(context, repository, ended, result.as_ref().err()).await;
        let objective_met = objective.map(|objective| result.is_ok() && elapsed <= objective);
        let components = match result {
            Err(error) if findings.is_empty() => return Err(error),
            result => result.unwrap_or_default(),
        };
        let snapshot = snapshot.id;
        Ok(Drilled { snapshot, elapsed, objective_met, steps, components, findings, cleaned, report })
    }

    /// What a recovery consists of. Puts into `folder` what it made, however it ends.
    async fn recover(
        &self,
        context: &Context,
        repository: &Arc<Repository>,
        snapshot: &Snapshot,
        options: &DrillOptions,
        folder: &mut Option<PathBuf>,
    ) -> Result<Vec<RestoredComponent>, Error> {
        if let DrillTarget::Files(scratch) = &options.target {
            *folder = Some(make_folder(context, scratch, FOLDER_PREFIX).await?);
        }
        let target = options.target.restore_target(folder.clone()).expect("the folder was made above");
        let restore = RestoreOptions {
            components: restorable(snapshot),
            fast: options.fast,
            // What is in a scratch deployment nobody needs.
            no_safety_snapshot: true,
            force: options.force,
            wait: options.wait,
            ..RestoreOptions::default()
        };
        let recorder = &self.recorder;
        let plan = plan_within(context, repository, snapshot.clone(), target, restore, Some(recorder)).await?;
        let files = plan.files();
        let components = execute_within(context, repository, plan, recorder, OPERATION).await?;
        for ((record, path), restored) in files.into_iter().zip(&components) {
            let step = recorder.begin(context, "decode", &record.name);
            let decoded = decode(context, &record, path, restored).await;
            recorder.end(context, step, decoded)?;
        }
        Ok(components)
    }

    /// Takes away what was restored. What a load that failed left in a deployment stays, to be looked at.
    async fn clean(
        &self,
        context: &Context,
        options: &DrillOptions,
        folder: Option<&Path>,
        restored: bool,
    ) -> Result<Option<bool>, Error> {
        match (&options.target, folder) {
            (DrillTarget::Files(_), Some(folder)) => {
                let step = self.recorder.begin(context, "clean", "scratch files");
                self.recorder.end(context, step, remove_folder(folder).await)?;
                Ok(Some(true))
            }
            (DrillTarget::Deployment(provider, _), _) if restored => {
                let name = &provider.config().deployment.name;
                if provider.config().scratch.as_ref().is_none_or(|scratch| scratch.clean.is_none()) {
                    context.info(format!("what was restored stays in `{name}`, until the next drill"));
                    return Ok(None);
                }
                let _lock = resume::lock(context, name, options.wait).await?;
                let step = self.recorder.begin(context, "clean", name);
                let cleaning = async { Ok(context.cancel.or(provider.clean()).await??) };
                Ok(Some(self.recorder.end(context, step, cleaning.await)?))
            }
            (DrillTarget::Files(_) | DrillTarget::Deployment(..), _) => Ok(None),
        }
    }
}

fn outcome(result: &Result<Vec<RestoredComponent>, Error>) -> Outcome {
    match result {
        Ok(components) if components.iter().any(RestoredComponent::is_incomplete) => Outcome::Incomplete,
        Ok(_) => Outcome::Done,
        Err(_) => Outcome::Failed,
    }
}

fn facts(elapsed: Duration, objective: Option<Duration>, components: &[RestoredComponent]) -> StepFacts {
    let bytes = components.iter().map(|component| component.bytes).sum();
    let mut numbers = BTreeMap::from([(ELAPSED_MS.to_owned(), millis(elapsed)), ("bytes".to_owned(), bytes)]);
    numbers.extend(objective.map(|objective| (OBJECTIVE_MS.to_owned(), millis(objective))));
    let missed = objective.filter(|objective| elapsed > *objective);
    StepFacts { numbers, note: missed.map(|_| "it took longer than the objective".to_owned()), ..StepFacts::default() }
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A killed drill leaves content in clear, which nobody looks for in a temporary folder.
fn tell_left_behind(context: &Context, target: &DrillTarget) {
    let DrillTarget::Files(scratch) = target else { return };
    let Ok(entries) = std::fs::read_dir(scratch) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with(FOLDER_PREFIX) {
            let path = entry.path();
            context.warn(format!(
                "`{}` holds content in clear: if no other drill is at work, a killed one left it; remove it",
                path.display()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restored(counts_match: Option<bool>) -> RestoredComponent {
        RestoredComponent {
            name: "database".to_owned(),
            bytes: 7,
            files: None,
            counts_match,
            notes: vec![],
            problems: vec![],
        }
    }

    #[test]
    fn a_recovery_is_done_only_if_no_count_differs_and_all_of_it_is_back() {
        assert_eq!(outcome(&Ok(vec![restored(None), restored(Some(true))])), Outcome::Done);
        assert_eq!(outcome(&Ok(vec![restored(Some(true)), restored(Some(false))])), Outcome::Incomplete);
        let lacks = RestoredComponent { problems: vec!["users and roles".to_owned()], ..restored(Some(true)) };
        assert_eq!(outcome(&Ok(vec![lacks])), Outcome::Incomplete);
        assert_eq!(outcome(&Err(Error::new(ErrorKind::Source, "no"))), Outcome::Failed);
    }

    #[test]
    fn what_takes_exactly_the_objective_meets_it() {
        let note = |elapsed| facts(Duration::from_millis(elapsed), Some(Duration::from_millis(500)), &[]).note;
        assert_eq!(note(500), None);
        assert!(note(501).is_some());
        let told = facts(Duration::from_millis(501), Some(Duration::from_millis(500)), &[restored(None)]).numbers;
        assert_eq!([told[ELAPSED_MS], told[OBJECTIVE_MS], told["bytes"]], [501, 500, 7]);
    }
}
