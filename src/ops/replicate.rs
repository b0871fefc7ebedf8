//! `replicate`: brings the snapshots of one repository into another one.
//!
//! Under the same keys sealed packs are copied as they are, each checked against its name on the way, then index objects that
//! describe them, then manifests as they are, which are confirmed in the target. Under other keys the streams of each
//! snapshot are read and written anew, and read back before there is a new manifest.
//!
//! Holds: the target never lists a snapshot that misses anything; what the target forgot is not brought again; a run that was
//! cut off is finished by the next one, which copies nothing twice.
//! Does not: lock or change the source (its report of the run apart), forget anything in the target.

mod choose;
mod found;
mod needs;
mod outcome;
mod proof;
mod reseal;
mod transfer;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Context;
use super::evidence::{Recorder, StepFacts};
use crate::error::{Error, ErrorKind};
use crate::format::config::Config;
use crate::format::layout;
use crate::format::report::Outcome;
use crate::id::SnapshotId;
use crate::repository::Repository;
use crate::repository::lease::RunLease;

pub use choose::{Chosen, Selection};
pub use found::{found_replica, make_replica};
pub use needs::Needed;
pub use outcome::{Counts, LeftOut, Pair, Reason, Replicated};
pub use proof::{SetProof, StreamProof};
pub use reseal::REPLICA_TAG;

/// How snapshots get into the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The target is the same repository at another place: what is sealed is copied as it is.
    Copy,
    /// The target is another repository: everything is sealed anew under its keys.
    Reseal,
}

impl Mode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Reseal => "reseal",
        }
    }
}

/// What to bring, and whether the target may have other keys.
#[derive(Debug, Clone)]
pub struct ReplicateOptions {
    /// Which snapshots.
    pub selection: Selection,
    /// Whether the target may be another repository.
    pub other_keys: bool,
}

/// What a run would do now.
#[derive(Debug)]
pub struct ReplicatePlan {
    /// How.
    pub mode: Mode,
    /// Which snapshots, and what became of the others.
    pub chosen: Chosen,
    /// What of the chosen ones the target needs; nothing is known of that in advance where everything is sealed anew.
    pub needed: Option<Needed>,
    /// Snapshots that cannot be brought.
    pub left_out: Vec<LeftOut>,
}

/// How `target` is related to `source`.
///
/// # Errors
/// [`ErrorKind::Incompatible`] if both say that they are the same repository and have other roots.
pub fn relation(source: &Config, target: &Config) -> Result<Mode, Error> {
    match (source.repository == target.repository, source.root == target.root) {
        (true, true) => Ok(Mode::Copy),
        (false, _) => Ok(Mode::Reseal),
        (true, false) => {
            let text = format!("the target says that it is repository {} too, under another root", source.repository);
            Err(Error::new(ErrorKind::Incompatible, text))
        }
    }
}

fn mode_of(source: &Repository, target: &Repository, options: &ReplicateOptions) -> Result<Mode, Error> {
    if Arc::ptr_eq(source.store(), target.store()) {
        return Err(same_place(target));
    }
    let mode = relation(source.config(), target.config())?;
    match mode {
        Mode::Reseal if !options.other_keys => {
            let (place, id) = (target.store().location(), target.config().repository);
            let text = format!("{place} holds another repository, {id}, which has keys of its own");
            Err(Error::new(ErrorKind::Usage, text))
        }
        Mode::Reseal => {
            source.keys().check_reads_content().map_err(|error| Error::from(source.unsupported(error)))?;
            Ok(mode)
        }
        Mode::Copy => Ok(mode),
    }
}

fn same_place(target: &Repository) -> Error {
    let text = format!("{} is the repository itself: a replica needs a place of its own", target.store().location());
    Error::new(ErrorKind::Usage, text)
}

/// Looks what a run would do. Changes nothing. Without a target: as if it were made, and empty.
pub async fn plan(
    context: &Context,
    source: &Arc<Repository>,
    target: Option<&Arc<Repository>>,
    options: &ReplicateOptions,
) -> Result<ReplicatePlan, Error> {
    let mode = match target {
        Some(target) => mode_of(source, target, options)?,
        None if options.other_keys => Mode::Reseal,
        None => Mode::Copy,
    };
    let mut chosen = choose::choose(source, target, mode, &options.selection).await?;
    let mut left_out = std::mem::take(&mut chosen.left_out);
    let needed = match mode {
        Mode::Reseal => None,
        Mode::Copy => {
            let view = needs::View::take(source, target).await?;
            let found = needs::gather(context, source, target, &view, &chosen.snapshots).await?;
            left_out.extend(found.hurt);
            chosen.snapshots.retain(|snapshot| left_out.iter().all(|left| left.id != snapshot.id));
            Some(found.needs.summary())
        }
    };
    Ok(ReplicatePlan { mode, chosen, needed, left_out })
}

/// Replicates. What could not be brought is told in the result and is no error.
///
/// # Errors
/// Before anything is put: a target that is the source, has other keys and may not, or cannot be written with its key.
pub async fn replicate(
    context: &Context,
    source: &Arc<Repository>,
    target: &Arc<Repository>,
    options: &ReplicateOptions,
) -> Result<Replicated, Error> {
    let mode = mode_of(source, target, options)?;
    target.require_deletion()?;
    target.keys().check_writes().map_err(|error| Error::from(target.unsupported(error)))?;
    let line = match mode {
        Mode::Copy => "copy sealed packs as they are, then indexes, then manifests; confirm them in the target",
        Mode::Reseal => "read each snapshot and seal it anew under the keys of the target; read it back and compare",
    };
    let from_to = format!("from {} to {}", source.store().location(), target.store().location());
    let recorder = Recorder::new(context, "replicate", None, vec![from_to, line.to_owned()]);
    let step = recorder.begin(context, "replicate", &target.store().location());
    let result = under_lease(context, source, target, mode, options, &recorder).await;
    context.events.progress_done("replicate", &target.store().location());
    let result = recorder.end_with(context, step, result, facts);
    let outcome = match &result {
        Ok(done) if done.is_whole(&options.selection) => Outcome::Done,
        Ok(_) => Outcome::Incomplete,
        Err(_) => Outcome::Failed,
    };
    if let Ok(done) = &result {
        done.pairs.iter().for_each(|pair| recorder.snapshot(pair.target));
        recorder.findings(&done.findings);
    }
    let error = result.as_ref().err();
    let source_report = match source.keys().check_writes() {
        Ok(()) => recorder.copy().finish(context, source, outcome, error).await,
        Err(_) => None,
    };
    let report = recorder.finish(context, target, outcome, error).await;
    Ok(Replicated { report, source_report, ..result? })
}

async fn under_lease(
    context: &Context,
    source: &Arc<Repository>,
    target: &Arc<Repository>,
    mode: Mode,
    options: &ReplicateOptions,
    recorder: &Recorder,
) -> Result<Replicated, Error> {
    let lease = RunLease::begin(target, recorder.claimant(context, "replicate")).await?;
    // Two names may lead to one place: then the lease is in the source as well.
    if !source.store().list(&layout::leases(&lease.claimant().run)).await?.is_empty() {
        lease.end().await;
        return Err(same_place(target));
    }
    match mode {
        Mode::Copy => {
            let copying = transfer::copy(context, source, target, &lease, &options.selection);
            let done = context.cancel.or(copying).await;
            lease.end().await;
            done?
        }
        Mode::Reseal => {
            let mut lease = Some(lease);
            let resealing = reseal::reseal(context, source, target, &mut lease, &options.selection);
            let done = context.cancel.or(resealing).await;
            if let Some(lease) = lease.take() {
                lease.end().await;
            }
            done?
        }
    }
}

fn facts(done: &Replicated) -> StepFacts {
    let count = |list: usize| list as u64;
    let numbers = [
        ("copied", count(done.pairs.len())),
        ("there", count(done.there.len())),
        ("forgotten", count(done.forgotten.len())),
        ("late", count(done.late.len())),
        ("left_out", count(done.left_out.len())),
        ("packs_copied", done.counts.packs_copied),
        ("bytes_copied", done.counts.bytes_copied),
        ("packs_adopted", done.counts.packs_adopted),
        ("chunks_stored_anew", done.counts.chunks_stored_anew),
        ("bytes_stored", done.counts.bytes_stored),
        ("snapshots_in_both", done.proof.in_both),
        ("snapshots_missing", count(done.proof.missing.len())),
    ];
    let numbers = numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect::<BTreeMap<_, _>>();
    StepFacts { numbers, log: done.lines(), note: Some(done.proof.to_string()), ..StepFacts::default() }
}

/// The ids of a list of snapshots, shortened, for people.
fn short(ids: &[SnapshotId]) -> String {
    ids.iter().map(SnapshotId::short).collect::<Vec<_>>().join(", ")
}
