//! Old flow runs in the task manager of a Compose project: asked and flushed as in [`super::tasks`].
//!
//! Holds: an answer that is not understood is an error. A request has half a minute; of three in a row without an answer, the
//! third ends the script.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::tasks::TASK_MANAGER;
use super::{DockerError, DockerProvider};
use crate::provider::ProviderError;
use crate::provider::flow_runs::{FlowRun, RunFilter, RunFlushed, RunKind, TaskManager};

/// Counts, lists, deletes or crashes.
const SCRIPT: &str = concat!(include_str!("prefect_api.py"), include_str!("flow_runs.py"));

/// How long one request may take in the end; the script gives each half a minute without a byte, and a server that says that it
/// has too much to do two more tries.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A run, as the script tells it.
#[derive(Deserialize)]
struct Listed {
    id: String,
    name: String,
}

/// What came of a run, as the script tells it.
#[derive(Deserialize)]
struct Tried {
    id: String,
    problem: Option<String>,
}

fn question(filter: &RunFilter, what: &str) -> Value {
    let states = match filter.kind {
        RunKind::Ended => &["COMPLETED", "FAILED", "CANCELLED"][..],
        RunKind::Stale => &["RUNNING"],
    };
    json!({ "do": what, "states": states, "before": filter.before.to_string() })
}

impl DockerProvider {
    /// Runs the script; `requests` is how many it makes at most.
    async fn ask_for_runs<T: DeserializeOwned>(
        &self,
        what: &'static str,
        question: &Value,
        requests: usize,
    ) -> Result<Vec<T>, ProviderError> {
        let limit = REQUEST_TIMEOUT * u32::try_from(requests).unwrap_or(u32::MAX);
        let said = self.ask_task_manager(SCRIPT, Some(question.to_string()), limit).await;
        let lines = said.and_then(|said| lines(&said).map_err(|error| Box::new(error) as Box<_>));
        Ok(lines.map_err(|source| DockerError::FlowRuns { service: TASK_MANAGER.to_owned(), what, source })?)
    }
}

#[async_trait]
impl TaskManager for DockerProvider {
    async fn count(&self, filter: &RunFilter) -> Result<u64, ProviderError> {
        let what = "how many there are";
        let counts: Vec<u64> = self.ask_for_runs(what, &question(filter, "count"), 1).await?;
        match counts[..] {
            [count] => Ok(count),
            _ => {
                let source = format!("it told {} numbers", counts.len()).into();
                Err(DockerError::FlowRuns { service: TASK_MANAGER.to_owned(), what, source }.into())
            }
        }
    }

    async fn page(&self, filter: &RunFilter, limit: u64, offset: u64) -> Result<Vec<FlowRun>, ProviderError> {
        let mut question = question(filter, "list");
        question["limit"] = json!(limit);
        question["offset"] = json!(offset);
        let found: Vec<Listed> = self.ask_for_runs("list them", &question, 1).await?;
        Ok(found.into_iter().map(|Listed { id, name }| FlowRun { id, name }).collect())
    }

    async fn flush(&self, kind: RunKind, ids: &[String]) -> Result<Vec<RunFlushed>, ProviderError> {
        let what = match kind {
            RunKind::Ended => "delete",
            RunKind::Stale => "crash",
        };
        let question = json!({ "do": what, "ids": ids });
        let tried: Vec<Tried> = self.ask_for_runs("flush them", &question, ids.len()).await?;
        Ok(tried.into_iter().map(|Tried { id, problem }| RunFlushed { id, problem }).collect())
    }
}

/// The values of an answer, one a line.
pub(super) fn lines<T: DeserializeOwned>(answer: &[u8]) -> Result<Vec<T>, serde_json::Error> {
    answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn what_ended_and_what_is_stale_are_different_states() {
        let before = Timestamp::from_second(0).unwrap();
        let states = |kind| question(&RunFilter { kind, before }, "list")["states"].clone();
        assert_eq!(states(RunKind::Ended), json!(["COMPLETED", "FAILED", "CANCELLED"]));
        assert_eq!(states(RunKind::Stale), json!(["RUNNING"]));
        assert_eq!(question(&RunFilter { kind: RunKind::Stale, before }, "list")["before"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn an_answer_that_is_no_value_a_line_is_an_error() {
        assert_eq!(lines::<u64>(b"7\n").unwrap(), [7]);
        assert!(lines::<u64>(b"").unwrap().is_empty());
        assert!(lines::<u64>(b"Warning: old Python\n7\n").is_err());
        assert!(lines::<Tried>(b"{\"problem\":null}\n").is_err());
    }
}
