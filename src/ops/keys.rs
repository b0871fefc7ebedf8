//! Who may open the repository: adding, removing and renewing key slots. Each change leaves a report.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Context;
use super::evidence::{Recorder, StepFacts};
use crate::error::Error;
use crate::format::key_slot::Role;
use crate::format::report::Outcome;
use crate::id::{ObjectId, SlotId};
use crate::repository::keys::{Added, Changed};
use crate::repository::{Repository, RepositoryError};
use crate::seal::change::Renewal;
use crate::seal::slot::NewCredential;
use crate::state::Seen;

/// Adds a slot. Gives it with the report.
///
/// # Errors
/// A key slot that may not change keys; another change that was faster.
pub async fn add(
    context: &Context,
    repository: &Arc<Repository>,
    role: Role,
    label: String,
    credential: NewCredential,
) -> Result<(Added, Option<ObjectId>), Error> {
    check(repository)?;
    let plan = format!("let one more key open the repository, as {}: {label}", role.as_str());
    let recorder = Recorder::new(context, "key add", None, vec![plan]);
    let work = repository.add_key_slot(role, label, credential);
    let (done, report) = recorded(context, repository, recorder, work, |(_, changed)| changed).await?;
    Ok((done.0, report))
}

/// Renews keys, for every slot but the one `removed`. Gives what was written with the report.
///
/// # Errors
/// As for [`add`]; damage to a key slot.
pub async fn renew(
    context: &Context,
    repository: &Arc<Repository>,
    renewal: Renewal,
    removed: Option<SlotId>,
) -> Result<(Changed, Option<ObjectId>), Error> {
    check(repository)?;
    let (operation, plan) = match removed {
        Some(slot) => ("key remove", format!("renew keys for every slot but {slot}")),
        None => ("key rotate", "renew keys for every slot".to_owned()),
    };
    let recorder = Recorder::new(context, operation, None, vec![plan]);
    let work = repository.renew_keys(renewal, removed);
    recorded(context, repository, recorder, work, |changed| changed).await
}

fn check(repository: &Repository) -> Result<(), Error> {
    repository.keys().check_changes_keys().map_err(|source| Error::from(repository.unsupported(source)))
}

async fn recorded<T>(
    context: &Context,
    repository: &Arc<Repository>,
    recorder: Recorder,
    work: impl Future<Output = Result<T, RepositoryError>>,
    changed: impl Fn(&T) -> &Changed,
) -> Result<(T, Option<ObjectId>), Error> {
    let step = recorder.begin(context, "change", "keys");
    // Not cut off half way: it is a few small objects.
    let result = work.await.map_err(Error::from);
    let facts = |done: &T| {
        let changed = changed(done);
        let numbers = [
            ("config_generation", u64::from(changed.config.generation)),
            ("metadata_generation", u64::from(changed.config.metadata_generation)),
            ("content_generation", u64::from(changed.config.content_generation)),
            ("slots_written", changed.slots),
        ];
        let numbers = numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect::<BTreeMap<_, _>>();
        StepFacts { numbers, ..StepFacts::default() }
    };
    let result = recorder.end_with(context, step, result, facts);
    if let Ok(done) = &result {
        let (store, config) = (repository.store(), &changed(done).config);
        let see = |seen: &mut Seen| seen.config_generation = config.generation;
        // The change counts, whether this machine can remember it or not.
        if let Err(error) = context.state.see(config.repository, &store.location(), see) {
            context.warn(Error::from(error).chain().join(": "));
        }
    }
    let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Failed };
    let report = recorder.finish(context, repository, outcome, result.as_ref().err()).await;
    Ok((result?, report))
}
