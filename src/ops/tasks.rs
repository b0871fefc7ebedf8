//! Waiting until no task runs, before services are stopped: a task that is interrupted leaves half of its work in the databases.
//!
//! Holds: nothing has been stopped yet, so that giving up changes nothing; what runs is told when it changes, and in the error.
//! Does not: keep new tasks from starting between the last question and the stop.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::evidence::{Recorder, StepFacts};
use super::{Context, Level};
use crate::error::{Error, ErrorKind};
use crate::provider::{Provider, Task};

/// How often is asked, and how often what still runs is told.
const PERIOD: Duration = Duration::from_secs(5);
const TELL_PERIOD: Duration = Duration::from_secs(60);

/// Most tasks that are listed; the others are counted.
const LISTED_MAX: usize = 10;

/// Waits up to `limit` until no task runs.
pub(super) async fn wait(
    context: &Context,
    recorder: &Recorder,
    provider: &dyn Provider,
    limit: Duration,
) -> Result<(), Error> {
    let since = Instant::now();
    let step = recorder.begin(context, "wait", "tasks");
    let told = |text: &str| context.events.message(Level::Info, text);
    let result = context.cancel.or(until_none_runs(&told, provider, limit)).await.and_then(|result| result);
    let waited = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    recorder.end_with(context, step, result, |()| StepFacts {
        numbers: BTreeMap::from([("waited_ms".to_owned(), waited)]),
        ..StepFacts::default()
    })
}

async fn until_none_runs(tell: &(dyn Fn(&str) + Sync), provider: &dyn Provider, limit: Duration) -> Result<(), Error> {
    let since = Instant::now();
    let mut told: Option<(Vec<String>, Instant)> = None;
    loop {
        let Some(tasks) = provider.running_tasks().await? else { return Ok(()) };
        if tasks.is_empty() {
            return Ok(());
        }
        let waited = since.elapsed();
        if waited >= limit {
            let name = &provider.deployment().name;
            let text = format!("after {} s deployment `{name}` still runs {}", waited.as_secs(), listed(&tasks));
            return Err(Error::new(ErrorKind::Busy, text));
        }
        let ids: Vec<String> = tasks.iter().map(|task| task.id.clone()).collect();
        if told.as_ref().is_none_or(|(before, when)| *before != ids || when.elapsed() >= TELL_PERIOD) {
            tell(&format!("waiting for {}, {} s of at most {} s", listed(&tasks), waited.as_secs(), limit.as_secs()));
            told = Some((ids, Instant::now()));
        }
        tokio::time::sleep(PERIOD.min(limit - waited)).await;
    }
}

fn listed(tasks: &[Task]) -> String {
    let shown = tasks.iter().take(LISTED_MAX).map(|task| format!("`{}` ({})", task.name, task.state));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let count = if tasks.len() == 1 { "1 task".to_owned() } else { format!("{} tasks", tasks.len()) };
    match tasks.len().saturating_sub(LISTED_MAX) {
        0 => format!("{count}: {shown}"),
        more => format!("{count}: {shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::deployment::{Deployment, DeploymentKind};
    use crate::provider::{Part, ProviderError, ServiceState};

    /// Answers in turn, the last one for ever.
    struct Answers(Deployment, Mutex<Vec<Option<usize>>>);

    #[async_trait]
    impl Provider for Answers {
        fn deployment(&self) -> &Deployment {
            &self.0
        }
        async fn state(&self, _: &str) -> Result<ServiceState, ProviderError> {
            Ok(ServiceState::Running)
        }
        async fn parts(&self, _: &str) -> Result<Vec<Part>, ProviderError> {
            Ok(vec![])
        }
        async fn stop(&self, _: &str, _: &[String]) -> Result<(), ProviderError> {
            Ok(())
        }
        async fn start(&self, _: &str, _: &[String]) -> Result<(), ProviderError> {
            Ok(())
        }
        async fn wait_ready(&self, _: &str, _: &[String], _: Duration) -> Result<(), ProviderError> {
            Ok(())
        }
        async fn running_tasks(&self) -> Result<Option<Vec<Task>>, ProviderError> {
            let mut answers = self.1.lock().unwrap();
            let count = if answers.len() > 1 { answers.remove(0) } else { answers[0] };
            let task = |at| Task { id: format!("{at}"), name: format!("task {at}"), state: "running".to_owned() };
            Ok(count.map(|count| (0..count).map(task).collect()))
        }
    }

    async fn waited(answers: &[Option<usize>], limit: u64) -> (Result<(), Error>, Vec<String>, u64) {
        let deployment = Deployment {
            name: "d".to_owned(),
            kind: DeploymentKind::Docker,
            services: vec![],
            components: vec![],
            evidence: String::new(),
        };
        let provider = Answers(deployment, Mutex::new(answers.to_vec()));
        let (said, since) = (Mutex::new(Vec::new()), Instant::now());
        let tell = |text: &str| said.lock().unwrap().push(text.to_owned());
        let result = until_none_runs(&tell, &provider, Duration::from_secs(limit)).await;
        (result, said.into_inner().unwrap(), since.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_as_soon_as_no_task_runs_and_tells_what_changed() {
        let (result, said, seconds) = waited(&[Some(2), Some(2), Some(1), Some(0)], 600).await;
        result.unwrap();
        assert_eq!(seconds, 15);
        assert_eq!(
            said,
            [
                "waiting for 2 tasks: `task 0` (running), `task 1` (running), 0 s of at most 600 s",
                "waiting for 1 task: `task 0` (running), 10 s of at most 600 s",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_told_every_minute_and_then_an_error_that_names_it() {
        let (result, said, seconds) = waited(&[Some(12)], 130).await;
        let error = result.unwrap_err();
        assert_eq!((error.kind(), seconds, said.len()), (ErrorKind::Busy, 130, 3));
        let text = error.to_string();
        assert!(text.contains("after 130 s deployment `d` still runs 12 tasks: `task 0` (running)"), "{text}");
        assert!(text.ends_with("`task 9` (running) and 2 more"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn where_no_task_manager_runs_nothing_is_waited_for() {
        let (result, said, seconds) = waited(&[None], 600).await;
        result.unwrap();
        assert!(said.is_empty() && seconds == 0);
    }
}
