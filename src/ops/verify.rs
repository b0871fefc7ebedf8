//! `verify`: check, and keep the result as evidence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::evidence::{Recorder, StepFacts};
use super::{Context, Progress};
use crate::error::Error;
use crate::format::report::Outcome;
use crate::id::{ObjectId, SnapshotId};
use crate::repository::Repository;
use crate::repository::check::{Checked, Depth, check};

/// What was checked, and the evidence of it.
#[derive(Debug)]
pub struct Verified {
    /// What was checked and found.
    pub checked: Checked,
    /// The report, where the store could keep one.
    pub report: Option<ObjectId>,
}

/// Verifies the repository, or the snapshots `only` with everything they need. Findings are no error.
pub async fn verify(
    context: &Context,
    repository: &Arc<Repository>,
    depth: Depth,
    only: &[SnapshotId],
) -> Result<Verified, Error> {
    let plan = vec![match depth {
        Depth::Structure => "check that everything is there and resolves".to_owned(),
        Depth::Data => "check that everything is there and resolves, and read and hash every pack".to_owned(),
    }];
    let recorder = Recorder::new(context, "verify", None, plan);
    let step = recorder.begin(context, "verify", "repository");
    let only: BTreeSet<SnapshotId> = only.iter().copied().collect();
    only.iter().for_each(|id| recorder.snapshot(*id));
    let head = context.state.last_head(repository.config().repository, &repository.store().location())?;
    let events = Arc::clone(&context.events);
    let progress = move |done_bytes, total_bytes| {
        let target = "repository".to_owned();
        events.progress(&Progress { action: "verify", target, done_bytes, total_bytes: Some(total_bytes) });
    };
    let checking = check(repository, &context.executor, depth, &only, head, &progress);
    let result = context.cancel.or(checking).await.and_then(|checked| Ok(checked?));
    context.events.progress_done("verify", "repository");
    let facts = |checked: &Checked| StepFacts {
        numbers: BTreeMap::from([
            ("objects".to_owned(), checked.objects),
            ("packs".to_owned(), checked.packs),
            ("packs_read".to_owned(), checked.packs_read),
            ("bytes_read".to_owned(), checked.bytes_read),
            ("chunks_hashed".to_owned(), checked.chunks_hashed),
            ("snapshots".to_owned(), checked.snapshots),
            ("findings".to_owned(), checked.findings.len() as u64),
        ]),
        ..StepFacts::default()
    };
    let result = recorder.end_with(context, step, result, facts);
    if let Ok(checked) = &result {
        recorder.findings(&checked.findings);
    }
    let outcome = match &result {
        Ok(checked) if checked.findings.is_empty() => Outcome::Done,
        Ok(_) => Outcome::Incomplete,
        Err(_) => Outcome::Failed,
    };
    let report = recorder.finish(context, repository, outcome, result.as_ref().err()).await;
    Ok(Verified { checked: result?, report })
}
