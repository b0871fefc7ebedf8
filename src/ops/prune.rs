//! `prune`: frees what no snapshot needs, in two runs a grace period apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Context;
use super::evidence::{Recorder, StepFacts};
use crate::error::Error;
use crate::format::report::Outcome;
use crate::id::{ObjectId, SnapshotId};
use crate::repository::lease::RunLease;
use crate::repository::runs::Moment;
use crate::repository::sweep::{SweepOptions, Swept, Wait, preview, sweep};
use crate::repository::{Repository, RepositoryError};

/// What was freed, and the evidence of it.
#[derive(Debug)]
pub struct Pruned {
    /// What was done.
    pub swept: Swept,
    /// The report.
    pub report: Option<ObjectId>,
}

/// What a run would do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunePreview {
    /// Packs that would be deleted, and their bytes.
    pub delete_packs: u64,
    /// See `delete_packs`.
    pub delete_bytes: u64,
    /// Packs that would be condemned, and their bytes.
    pub condemn_packs: u64,
    /// See `condemn_packs`.
    pub condemn_bytes: u64,
    /// Condemned packs that must still wait, and with what for; and their bytes.
    pub waiting: Vec<Wait>,
    /// See `waiting`.
    pub waiting_bytes: u64,
    /// Whether nothing goes because it is not known what a quarantined snapshot refers to.
    pub is_partly_unknown: bool,
}

/// Prunes.
pub async fn prune(context: &Context, repository: &Arc<Repository>, options: SweepOptions) -> Result<Pruned, Error> {
    repository.require_deletion()?;
    repository.keys().check_writes().map_err(|source| Error::from(repository.unsupported(source)))?;
    let recorder = Recorder::new(context, "prune", None, vec![format!("grace period {} s", options.grace.as_secs())]);
    let step = recorder.begin(context, "prune", "repository");
    let result = prune_steps(context, repository, options, &recorder).await;
    let result = recorder.end_with(context, step, result, facts);
    let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Failed };
    let report = recorder.finish(context, repository, outcome, result.as_ref().err()).await;
    Ok(Pruned { swept: result?, report })
}

async fn prune_steps(
    context: &Context,
    repository: &Arc<Repository>,
    options: SweepOptions,
    recorder: &Recorder,
) -> Result<Swept, Error> {
    // Files that killed puts left in a folder; younger ones may belong to a put at work.
    repository.store().sweep(repository.lease_period()).await?;
    let lease = RunLease::begin(repository, recorder.claimant(context, "prune")).await?;
    let swept = context.cancel.or(sweep(repository, &context.executor, &lease, options)).await;
    lease.end().await;
    Ok(swept??)
}

fn facts(swept: &Swept) -> StepFacts {
    let numbers = [
        ("deleted_packs", swept.deleted_packs),
        ("deleted_bytes", swept.deleted_bytes),
        ("deleted_manifests", swept.deleted_manifests),
        ("deleted_leases", swept.deleted_leases),
        ("forgotten_late", swept.forgotten_late),
        ("condemned_packs", swept.condemned_packs),
        ("condemned_bytes", swept.condemned_bytes),
        ("pardoned_packs", swept.pardoned_packs),
        ("repacked_packs", swept.repacked_packs),
        ("repacked_bytes", swept.repacked_bytes),
        ("waiting_packs", swept.waiting.len() as u64),
        ("waiting_bytes", swept.waiting_bytes),
        ("indexes_put", swept.reindexed.put),
        ("indexes_deleted", swept.reindexed.deleted),
        ("hidden_objects", swept.hidden_objects),
        ("kept_bytes", swept.kept_bytes),
    ];
    let numbers = numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect::<BTreeMap<_, _>>();
    StepFacts { numbers, ..StepFacts::default() }
}

/// What `prune` would do, if the snapshots `without` were forgotten: now, or `by_and_by`, when all runs that are at work now have
/// ended. Changes nothing.
pub async fn dry_run(
    context: &Context,
    repository: &Arc<Repository>,
    options: SweepOptions,
    without: &BTreeSet<SnapshotId>,
    by_and_by: bool,
) -> Result<PrunePreview, Error> {
    let clock = context.clock().now();
    // Without putting anything the store's time is not known; for a look this machine's will do.
    let now = Moment { store: clock, machine: clock };
    let (survey, plan) = preview(repository, &context.executor, now, options, without, by_and_by).await?;
    let bytes = |packs: &mut dyn Iterator<Item = &ObjectId>| {
        packs.filter_map(|pack| Some(survey.packs.get(pack)?.size)).sum::<u64>()
    };
    Ok(PrunePreview {
        delete_packs: plan.delete.len() as u64,
        delete_bytes: bytes(&mut plan.delete.iter()),
        condemn_packs: plan.condemn.len() as u64,
        condemn_bytes: bytes(&mut plan.condemn.iter()),
        waiting_bytes: bytes(&mut plan.wait.iter().map(|(pack, _)| pack)),
        waiting: plan.wait.into_iter().map(|(_, wait)| wait).collect(),
        is_partly_unknown: survey.is_partly_unknown,
    })
}

impl Repository {
    /// Refuses to delete from a repository whose config does not say that something may be deleted: older programs would not
    /// look at marks.
    ///
    /// # Errors
    /// [`RepositoryError::NoDeletion`].
    pub fn require_deletion(&self) -> Result<(), RepositoryError> {
        if self.config().has_deletion() {
            return Ok(());
        }
        Err(RepositoryError::NoDeletion { location: self.store().location() })
    }
}
