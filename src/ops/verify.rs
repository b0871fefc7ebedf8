//! `verify`: check, and keep the result as evidence.
//!
//! What was read whole and sound is kept in the report, so that any machine knows what has not been read for long.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::evidence::{Recorder, StepFacts};
use super::rehearse::rehearse;
use super::{Cancel, Context, Events, Progress};
use crate::env::Clock;
use crate::error::Error;
use crate::format::report::{Outcome, PackPrefixes, Verified as VerifiedPacks};
use crate::id::{ObjectId, SnapshotId};
use crate::repository::Repository;
use crate::repository::check::choice::{Choice, pack_prefix};
use crate::repository::check::without_key::check_without_key;
use crate::repository::check::{Checked, Depth, Known, Request, check_chosen};
use crate::repository::executor::Executor;
use crate::state::SeenMark;
use crate::storage::Store;

/// What was checked, and the evidence of it.
#[derive(Debug)]
pub struct Verified {
    /// What was checked and found.
    pub checked: Checked,
    /// Snapshots that were restored to files and decoded.
    pub rehearsed: Vec<SnapshotId>,
    /// The report, where the store could keep one.
    pub report: Option<ObjectId>,
}

/// How to verify.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Only these snapshots, with everything they need; empty: all.
    pub only: Vec<SnapshotId>,
    /// Which packs to read; `None`: none.
    pub read: Option<Choice>,
    /// Where to restore snapshots to, if they are to be rehearsed: those of `only`, else the newest complete one of each
    /// deployment.
    pub scratch: Option<PathBuf>,
    /// Snapshots that somebody knows to have been there: each must be there, or forgotten.
    pub heads: Vec<SnapshotId>,
}

/// Verifies the repository, or the snapshots `only` with everything they need. Findings are no error.
pub async fn verify(
    context: &Context,
    repository: &Arc<Repository>,
    depth: Depth,
    only: &[SnapshotId],
) -> Result<Verified, Error> {
    let read = match depth {
        Depth::Structure => None,
        Depth::Data => Some(Choice::default()),
    };
    verify_with(context, repository, VerifyOptions { only: only.to_vec(), read, ..VerifyOptions::default() }).await
}

/// Verifies as far as `options` ask. Findings are no error.
pub async fn verify_with(
    context: &Context,
    repository: &Arc<Repository>,
    options: VerifyOptions,
) -> Result<Verified, Error> {
    let recorder = Recorder::new(context, "verify", None, plan(&options));
    let only: BTreeSet<SnapshotId> = options.only.iter().copied().collect();
    only.iter().for_each(|id| recorder.snapshot(*id));
    let mut result = check_step(context, repository, &recorder, &options, &only).await;
    let mut rehearsed = Ok(vec![]);
    if let Ok(checked) = &mut result {
        if let Some(scratch) = &options.scratch {
            rehearsed = rehearse(context, repository, &recorder, scratch, &only, checked).await;
        }
        // Kept also when there was no room for the rehearsal: this much is known.
        recorder.findings(&checked.findings);
        if options.read.is_some() {
            recorder.verified(packs_of(checked));
        }
    }
    let outcome = match (&result, &rehearsed) {
        (Ok(checked), Ok(_)) if checked.findings.is_empty() => Outcome::Done,
        (Ok(_), Ok(_)) => Outcome::Incomplete,
        (Err(_), _) | (_, Err(_)) => Outcome::Failed,
    };
    let error = result.as_ref().err().or(rehearsed.as_ref().err());
    let report = recorder.finish(context, repository, outcome, error).await;
    Ok(Verified { checked: result?, rehearsed: rehearsed?, report })
}

fn plan(options: &VerifyOptions) -> Vec<String> {
    let mut lines = vec!["check that everything is there and resolves".to_owned()];
    let among = if options.only.is_empty() { "" } else { ", among those that the snapshots asked for need" };
    lines.extend(options.read.as_ref().map(|choice| format!("read and hash {}{among}", describe(choice))));
    lines.extend(options.scratch.as_ref().map(|_| "restore to scratch files, decode them, remove them".to_owned()));
    lines
}

/// Which packs a choice chooses, for people: so that the same ones can be chosen again.
pub fn describe(choice: &Choice) -> String {
    let mut text = "every pack".to_owned();
    if let Some(shard) = choice.shard {
        text.push_str(&format!(" of shard {shard}"));
    }
    if let Some(age) = choice.max_age {
        text.push_str(&format!(" not read for {} s", age.as_secs()));
    }
    if let Some(sample) = choice.sample {
        text.push_str(&format!(
            ", of these a sample of {} in a million, seed {}",
            sample.parts_per_million, sample.seed
        ));
    }
    if let Some(budget) = choice.budget {
        text.push_str(&format!(", of these {budget} bytes, those not read for the longest time first"));
    }
    text
}

async fn check_step(
    context: &Context,
    repository: &Arc<Repository>,
    recorder: &Recorder,
    options: &VerifyOptions,
    only: &BTreeSet<SnapshotId>,
) -> Result<Checked, Error> {
    let step = recorder.begin(context, "verify", "repository");
    let (identity, location) = (repository.config().repository, repository.store().location());
    let seen = context.state.seen(identity, &location)?;
    let heads = options.heads.iter().chain(&seen.head).copied().collect();
    let known = Known { heads, mark: seen.mark.map(|mark| (mark.number, mark.digest)) };
    let request = Request { read: options.read, only: only.clone(), known, ..Request::default() };
    let progress = progress(Arc::clone(&context.events));
    let checking = check_chosen(repository, &context.executor, &request, &progress);
    let result = context.cancel.or(checking).await.and_then(|checked| Ok(checked?));
    context.events.progress_done("verify", "repository");
    if let Ok(checked) = &result
        && checked.findings.is_empty()
    {
        context.state.see(identity, &location, |seen| {
            seen.head = checked.head.or(seen.head);
            seen.mark = checked.mark.map(|(number, digest)| SeenMark { number, digest }).or(seen.mark);
        })?;
    }
    recorder.end_with(context, step, result, facts)
}

fn progress(events: Arc<dyn Events>) -> impl Fn(u64, u64) + Send + Sync {
    move |done_bytes, total_bytes| {
        let target = "repository".to_owned();
        events.progress(&Progress { action: "verify", target, done_bytes, total_bytes: Some(total_bytes) });
    }
}

fn facts(checked: &Checked) -> StepFacts {
    let numbers = [
        ("objects", checked.objects),
        ("packs", checked.packs),
        ("packs_read", checked.packs_read),
        ("bytes_read", checked.bytes_read),
        ("chunks_hashed", checked.chunks_hashed),
        ("snapshots", checked.snapshots),
        ("findings", checked.findings.len() as u64),
    ];
    let not_checked = checked.not_checked.iter().map(|unchecked| format!("not checked: {unchecked}"));
    StepFacts {
        numbers: numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect::<BTreeMap<_, _>>(),
        log: not_checked.collect(),
        ..StepFacts::default()
    }
}

/// What the report keeps of what was read.
fn packs_of(checked: &Checked) -> VerifiedPacks {
    let prefixes = |packs: &[ObjectId]| PackPrefixes::new(packs.iter().map(pack_prefix));
    VerifiedPacks { opened: prefixes(&checked.opened), hashed: prefixes(&checked.hashed) }
}

/// Verifies without any key, and writes nothing.
pub async fn verify_without_key(
    store: &Arc<dyn Store>,
    executor: &Arc<dyn Executor>,
    clock: &dyn Clock,
    cancel: &Cancel,
    events: &Arc<dyn Events>,
    choice: &Choice,
) -> Result<Checked, Error> {
    let progress = progress(Arc::clone(events));
    let checking = check_without_key(store, executor, choice, clock.now(), &progress);
    let result = cancel.or(checking).await;
    events.progress_done("verify", "repository");
    Ok(result??)
}
