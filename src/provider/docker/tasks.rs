//! Tasks that run in a deployment, as its task manager tells them.
//!
//! Asked is Prefect's own API, in the container of `task-manager`, by the Python that Infrahub's image has: neither its
//! database, whose tables are Prefect's own business, nor `infrahubctl`, which needs a token and leaves out what Infrahub starts
//! by itself.
//!
//! Holds: an answer that is not understood is an error, never "none runs". Does not: end or hold back any task.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::flow_runs::lines;
use super::{DockerError, DockerProvider};
use crate::provider::Task;
use crate::provider::exec::{self, CommandSpec};

/// The service that knows them.
pub(super) const TASK_MANAGER: &str = "task-manager";

/// Prints them, one JSON object a line.
const SCRIPT: &str = concat!(include_str!("prefect_api.py"), include_str!("running_tasks.py"));

/// How long the question may take: each page has half a minute.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(120);

/// One line of the answer.
#[derive(Deserialize)]
struct Line {
    id: String,
    name: String,
    state: String,
}

/// What runs or is about to; `None` where no task manager runs, which starts none either.
pub(super) async fn running(provider: &DockerProvider) -> Result<Option<Vec<Task>>, DockerError> {
    let there = provider.deployment.services.iter().any(|name| name == TASK_MANAGER);
    if !there || !provider.can_be_entered(TASK_MANAGER).await? {
        return Ok(None);
    }
    let said = provider.ask_task_manager(SCRIPT, None, QUESTION_TIMEOUT).await;
    let found = said.and_then(|said| tasks(&said).map_err(|error| Box::new(error) as Box<_>));
    found.map(Some).map_err(|source| DockerError::TasksUnknown { service: TASK_MANAGER.to_owned(), source })
}

impl DockerProvider {
    /// Runs a script in the container of the task manager; what it prints.
    pub(super) async fn ask_task_manager(
        &self,
        script: &str,
        argument: Option<String>,
        limit: Duration,
    ) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        let words = ["python3", "-c", script].map(str::to_owned).into_iter().chain(argument);
        let mut spec = CommandSpec::new(words.collect());
        spec.place = Some(Arc::new(self.in_service(TASK_MANAGER)));
        spec.total_timeout = limit;
        Ok(exec::run(&spec, self.masker()).await?.stdout)
    }
}

fn tasks(answer: &[u8]) -> Result<Vec<Task>, serde_json::Error> {
    let task = |Line { id, name, state }| Task { id, name, state: state.to_lowercase() };
    Ok(lines(answer)?.into_iter().map(task).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_task_and_anything_else_is_an_error() {
        let answer = b"{\"id\":\"1\",\"name\":\"Sync\",\"state\":\"RUNNING\"}\n{\"id\":\"2\",\"name\":\"x\",\"state\":\"PENDING\"}\n";
        let found = tasks(answer).unwrap();
        assert_eq!(found[0], Task { id: "1".to_owned(), name: "Sync".to_owned(), state: "running".to_owned() });
        assert_eq!((found.len(), found[1].state.as_str()), (2, "pending"));
        assert!(tasks(b"").unwrap().is_empty());
        for wrong in [&b"Warning: old Python\n"[..], b"{\"id\":\"1\"}\n", b"[]\n"] {
            assert!(tasks(wrong).is_err());
        }
    }
}
