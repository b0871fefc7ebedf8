//! Whether what is there after a restore is what was backed up.

use std::collections::BTreeMap;

use super::{IntoDeployment, RestoredComponent, Run};
use crate::deployment::Inspection;
use crate::error::Error;
use crate::format::manifest::{ComponentRecord, Consistency};
use crate::ops::evidence::StepFacts;
use crate::ops::start::READY_TIMEOUT;
use crate::provider::{Provider, ServiceState};

impl Run<'_> {
    /// Waits until the databases answer, and compares what they count with what was counted then.
    pub(super) async fn compare(
        &self,
        into: &IntoDeployment,
        records: &[ComponentRecord],
        done: &mut [RestoredComponent],
    ) -> Result<(), Error> {
        for component in &into.streams {
            let name = &component.info().name;
            let record = records.iter().find(|record| record.name == *name).expect("opened for a record");
            let restored = done.iter_mut().find(|restored| restored.name == *name).expect("restored above");
            let info = component.info();
            if !runs(&*into.provider, info.asked_of(&info.stopped_for_load)).await? {
                restored.notes.push("its server did not run before and was left so: nothing was counted".to_owned());
                continue;
            }
            let step = self.recorder.begin(self.context, "compare", name);
            let result = async {
                self.context.cancel.or(component.wait_ready(READY_TIMEOUT)).await??;
                Ok(self.context.cancel.or(component.inspect()).await??)
            };
            let result: Result<Inspection, Error> = result.await;
            let found = match self.recorder.end_with(self.context, step, result, |found| StepFacts {
                numbers: found.counts.clone(),
                ..StepFacts::default()
            }) {
                Ok(found) => found,
                Err(error) => return Err(error.context(format!("`{name}` was restored but does not answer"))),
            };
            if record.counts.is_empty() || found.counts.is_empty() {
                continue;
            }
            let differences = differences(&record.counts, &found.counts);
            // Counted while it was written to, then dumped: the counts are near the dump's, not its own.
            let exact = record.consistency == Consistency::Quiesced;
            restored.counts_match = (exact || differences.is_empty()).then_some(differences.is_empty());
            restored.notes.extend(differences);
        }
        Ok(())
    }
}

/// Whether all of `services` run.
pub(super) async fn runs(provider: &dyn Provider, services: &[String]) -> Result<bool, Error> {
    for service in services {
        if provider.state(service).await? == ServiceState::Stopped {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What of the snapshot's counts is counted differently `now`. What it has no count of is not compared: that changed while the
/// backup was made, and says nothing.
fn differences(then: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> Vec<String> {
    then.iter()
        .map(|(name, then)| (name, *then, now.get(name).copied().unwrap_or(0)))
        .filter(|(_, then, now)| then != now)
        .map(|(name, then, now)| format!("{name}: {then} in the snapshot, {now} now"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_snapshot_counted_is_compared() {
        let counts = |of: &[(&str, u64)]| of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let then = counts(&[("kept", 3), ("fewer", 5), ("gone", 7)]);
        let now = counts(&[("kept", 3), ("fewer", 4), ("was not kept", 36_878)]);
        assert_eq!(differences(&then, &now), ["fewer: 5 in the snapshot, 4 now", "gone: 7 in the snapshot, 0 now"]);
    }
}
