//! Choosing which snapshots stay: `forget`, `hold`, `release`, `tag`. Each is one mark: decided in one order with everything
//! else that is decided about deletion.
//!
//! A forgotten snapshot is gone for every reader as soon as the mark is there. What only it referred to is freed by `prune`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Context;
use super::evidence::{Recorder, StepFacts};
use crate::error::{Error, ErrorKind};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::mark::{Decisions, TagChanges};
use crate::format::report::Outcome;
use crate::id::{ObjectId, SnapshotId};
use crate::repository::marks::Record;
use crate::repository::snapshots::Snapshot;
use crate::repository::{Repository, RepositoryError};
use crate::retention::{Candidate, Decision, RetentionPolicy, decide};

/// How often a choice is made anew because another run was faster.
const TRIES_MAX: u32 = 100;

/// Which snapshots to forget.
#[derive(Debug, Clone)]
pub enum Choice {
    /// Those that no rule keeps.
    Policy(Box<RetentionPolicy>),
    /// These.
    Snapshots(BTreeSet<SnapshotId>),
}

/// What is decided about each snapshot, oldest first.
#[derive(Debug)]
pub struct Forgetting {
    /// The snapshots that there were.
    pub snapshots: Vec<Snapshot>,
    /// What is decided about each of them; those without a reason to be kept are forgotten.
    pub decisions: Vec<Decision>,
}

impl Forgetting {
    /// The snapshots that are forgotten.
    pub fn forgotten(&self) -> BTreeSet<SnapshotId> {
        self.decisions.iter().filter(|decision| decision.keep.is_empty()).map(|decision| decision.id).collect()
    }
}

/// What was forgotten.
#[derive(Debug)]
pub struct Forgotten {
    /// What was decided.
    pub forgetting: Forgetting,
    /// The evidence.
    pub report: Option<ObjectId>,
}

/// Decides, and changes nothing.
pub async fn plan(context: &Context, repository: &Arc<Repository>, choice: &Choice) -> Result<Forgetting, Error> {
    Ok(choose(context, repository, choice).await?.1)
}

async fn choose(
    context: &Context,
    repository: &Arc<Repository>,
    choice: &Choice,
) -> Result<(Record, Forgetting), Error> {
    let listed = repository.listed_manifests().await?;
    let record = repository.record().await?;
    let (snapshots, damages) = repository.snapshots_of(&listed, &record).await?;
    // What cannot be read is kept: whose snapshot it is, is not known.
    damages.iter().filter(|damage| damage.layer != "presence").for_each(|damage| context.warn(damage.to_string()));
    let candidates: Vec<Candidate> = snapshots.iter().map(candidate).collect();
    let decisions = match choice {
        Choice::Policy(policy) => decide(policy, &candidates, context.clock().now()),
        Choice::Snapshots(ids) => {
            let named: Vec<&Snapshot> = snapshots.iter().filter(|snapshot| ids.contains(&snapshot.id)).collect();
            if let Some(held) = named.iter().find(|snapshot| snapshot.held) {
                let text = format!("snapshot {} is held and cannot be forgotten", held.id.short());
                return Err(Error::new(ErrorKind::Usage, text));
            }
            named.iter().map(|snapshot| Decision { id: snapshot.id, keep: vec![] }).collect()
        }
    };
    Ok((record, Forgetting { snapshots, decisions }))
}

/// What retention sees of a snapshot.
fn candidate(snapshot: &Snapshot) -> Candidate {
    Candidate {
        id: snapshot.id,
        // Nobody can go back to a redacted one: it takes no other one's place, and they are counted apart.
        deployment: match snapshot.manifest.is_redacted() {
            true => format!("{} (redacted)", snapshot.manifest.deployment),
            false => snapshot.manifest.deployment.clone(),
        },
        created_at: snapshot.manifest.created_at,
        complete: snapshot.is_complete(),
        held: snapshot.held,
        safety: snapshot.manifest.is_safety(),
        tags: snapshot.manifest.tags.clone(),
    }
}

/// Forgets. Decides anew if another run decided something meanwhile.
pub async fn forget(context: &Context, repository: &Arc<Repository>, choice: &Choice) -> Result<Forgotten, Error> {
    repository.require_deletion()?;
    let recorder = Recorder::new(context, "forget", None, vec!["forget what no rule keeps".to_owned()]);
    let step = recorder.begin(context, "forget", "snapshots");
    let result = forget_steps(context, repository, choice, &recorder).await;
    let facts = |done: &Forgetting| StepFacts {
        numbers: BTreeMap::from([("snapshots".to_owned(), done.forgotten().len() as u64)]),
        log: done.decisions.iter().map(describe).collect(),
        ..StepFacts::default()
    };
    let result = recorder.end_with(context, step, result, facts);
    if let Ok(done) = &result {
        context.see_marks(repository).await;
        done.forgotten().into_iter().for_each(|id| recorder.snapshot(id));
    }
    let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Failed };
    let report = recorder.finish(context, repository, outcome, result.as_ref().err()).await;
    Ok(Forgotten { forgetting: result?, report })
}

/// A decision in one line.
fn describe(decision: &Decision) -> String {
    if decision.keep.is_empty() {
        return format!("{} forgotten", decision.id.short());
    }
    let reasons: Vec<String> = decision.keep.iter().map(ToString::to_string).collect();
    format!("{} kept: {}", decision.id.short(), reasons.join(", "))
}

async fn forget_steps(
    context: &Context,
    repository: &Arc<Repository>,
    choice: &Choice,
    recorder: &Recorder,
) -> Result<Forgetting, Error> {
    let claimant = recorder.claimant(context, "forget");
    for _ in 0..TRIES_MAX {
        context.cancel.check()?;
        let (record, forgetting) = choose(context, repository, choice).await?;
        let forgotten = forgetting.forgotten();
        if forgotten.is_empty() {
            return Ok(forgetting);
        }
        let decisions = Decisions { forgotten: forgotten.clone(), ..Decisions::default() };
        if repository.put_mark_after(&claimant, &record, false, decisions).await?.is_none() {
            continue;
        }
        for id in &forgotten {
            // One that stays behind is taken by the next `prune`; nobody sees it any more.
            if let Err(error) = repository.store().delete(&layout::object(ObjectType::Manifest, id)).await {
                context.warn(format!("the manifest of snapshot {} was not deleted: {error}", id.short()));
            }
        }
        return Ok(forgetting);
    }
    Err(RepositoryError::Contended { tries: TRIES_MAX }.into())
}

/// What to change about snapshots that stay.
#[derive(Debug, Clone)]
pub enum Change {
    /// Retention must keep them.
    Hold,
    /// Retention need not keep them any more.
    Release,
    /// Set or take away tags.
    Tag(TagChanges),
}

/// Changes something about snapshots that stay; gives the evidence.
pub async fn change(
    context: &Context,
    repository: &Arc<Repository>,
    ids: &BTreeSet<SnapshotId>,
    change: &Change,
) -> Result<Option<ObjectId>, Error> {
    repository.require_deletion()?;
    let operation = match change {
        Change::Hold => "hold",
        Change::Release => "release",
        Change::Tag(_) => "tag",
    };
    let recorder = Recorder::new(context, operation, None, vec![]);
    ids.iter().for_each(|id| recorder.snapshot(*id));
    let claimant = recorder.claimant(context, operation);
    let result = repository
        .decide(&claimant, |record| {
            if let Some(gone) = ids.iter().find(|id| record.forgotten.contains(*id)) {
                return Err(RepositoryError::SnapshotName { text: gone.to_hex(), found: 0 });
            }
            Ok(match change {
                Change::Hold => {
                    Decisions { held: ids.difference(&record.held).copied().collect(), ..Decisions::default() }
                }
                Change::Release => {
                    Decisions { released: ids.intersection(&record.held).copied().collect(), ..Decisions::default() }
                }
                Change::Tag(tags) => {
                    Decisions { tagged: ids.iter().map(|id| (*id, tags.clone())).collect(), ..Decisions::default() }
                }
            })
        })
        .await
        .map_err(Error::from);
    if result.is_ok() {
        context.see_marks(repository).await;
    }
    let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Failed };
    let report = recorder.finish(context, repository, outcome, result.as_ref().err()).await;
    result.map(|_| report)
}
