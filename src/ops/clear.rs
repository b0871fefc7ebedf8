//! Emptying queues and caches: they speak of what the databases held before a restore.
//!
//! Holds: only what is stopped is emptied, and only when a database was replaced: a load that failed must not have cost the
//! queue. What a killed restore left to be emptied stands in its journal.

use super::Context;
use super::evidence::{Recorder, StepFacts};
use crate::error::Error;
use crate::provider::{Provider, ServiceState};
use crate::state::{Journal, JournalEntry, OpenJournal};

/// Empties what needs it of `services`, which are stopped.
pub(super) async fn clear(
    context: &Context,
    recorder: &Recorder,
    journal: &mut Journal,
    provider: &dyn Provider,
    services: &[String],
) -> Result<(), Error> {
    for service in services {
        let step = recorder.begin(context, "clear", service);
        match provider.clear(service).await.map_err(Error::from) {
            Ok(None) => {}
            Ok(Some(done)) => {
                context.info(&done);
                let facts = |_: &()| StepFacts { note: Some(done), ..StepFacts::default() };
                recorder.end_with(context, step, Ok(()), facts)?;
            }
            Err(error) => return recorder.end(context, step, Err(error)),
        }
    }
    Ok(journal.note(JournalEntry::Cleared)?)
}

/// Empties what a killed restore left to be emptied. What runs again by now is told instead.
pub(super) async fn clear_left(
    context: &Context,
    journal: &mut Journal,
    provider: &dyn Provider,
    left: &OpenJournal,
) -> Result<(), Error> {
    let services = left.left_to_clear();
    if services.is_empty() {
        return Ok(());
    }
    for service in services {
        let parts = provider.parts(service).await?;
        if parts.iter().any(|part| part.state == ServiceState::Running) {
            context.warn(format!("`{service}` runs and was not emptied after the restore"));
        } else if !parts.is_empty()
            && let Some(done) = provider.clear(service).await?
        {
            context.info(done);
        }
    }
    Ok(journal.note(JournalEntry::Cleared)?)
}
