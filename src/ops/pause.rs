//! Everywhere: what we stop, we start.
//!
//! Before anything is stopped, the journal says so, durably; it is closed when everything runs again. Starting again is
//! never cancelled and goes on with the next service when one does not start. A run that was killed is finished by
//! [`super::resume`], which every `create` and `restore` does first.

use std::sync::Arc;
use std::time::Duration;

use super::Context;
use super::evidence::Recorder;
use crate::error::{Error, ErrorKind};
use crate::provider::{Provider, ServiceState};
use crate::state::{Journal, JournalEntry};

/// How long a service may take until it serves again.
pub const READY_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a service that was asked to stop and did not may still go down.
const LATE_STOP: Duration = Duration::from_secs(60);
const LATE_STOP_PERIOD: Duration = Duration::from_millis(500);

/// Services that were stopped and must run again.
pub struct Paused {
    provider: Arc<dyn Provider>,
    stopped: Vec<String>,
    /// Services whose stop did not end well: they may still be going down.
    going_down: Vec<String>,
    not_started: Vec<String>,
}

impl Paused {
    /// Nothing is stopped.
    pub fn nothing(provider: Arc<dyn Provider>) -> Self {
        Self { provider, stopped: vec![], going_down: vec![], not_started: vec![] }
    }

    /// The services that are stopped.
    pub fn services(&self) -> &[String] {
        &self.stopped
    }

    /// Whether everything that was stopped runs again.
    pub fn all_run(&self) -> bool {
        self.stopped.is_empty() && self.not_started.is_empty()
    }

    /// Stops those of `services` that run, the last to start first. If one does not stop, all run again.
    pub async fn stop(
        &mut self,
        context: &Context,
        recorder: &Recorder,
        journal: &mut Journal,
        services: &[String],
    ) -> Result<(), Error> {
        let order: Vec<String> = self.provider.deployment().services.clone();
        let mut running = Vec::new();
        for service in order.iter().filter(|service| services.contains(service) && !self.stopped.contains(service)) {
            if self.provider.state(service).await? == ServiceState::Running {
                running.push(service.clone());
            }
        }
        if running.is_empty() {
            return Ok(());
        }
        journal.note(JournalEntry::WasRunning { services: running.clone() })?;
        for service in running.iter().rev() {
            context.cancel.check()?;
            journal.note(JournalEntry::Stopping { service: service.clone() })?;
            // From here on it counts as stopped: a stop that fails half way must be undone as well.
            self.stopped.push(service.clone());
            context.info(format!("stopping `{service}`"));
            let step = recorder.begin(context, "stop", service);
            // Not cancelled half way: a service that is still going down would look as if it ran.
            let result = self.provider.stop(service).await.map_err(Error::from);
            if result.is_err() {
                self.going_down.push(service.clone());
            }
            recorder.end(context, step, result)?;
            journal.note(JournalEntry::Stopped { service: service.clone() })?;
        }
        Ok(())
    }

    /// Starts everything again and waits until it serves. Goes on when one does not start, and tells the first that did not.
    pub async fn start(&mut self, context: &Context, recorder: &Recorder, journal: &mut Journal) -> Result<(), Error> {
        let mut failed = None;
        // Stopped last, started first.
        while let Some(service) = self.stopped.pop() {
            // A journal that cannot be written (a full disk) must not keep a service down.
            let mut noted = journal.note(JournalEntry::Starting { service: service.clone() }).map_err(Error::from);
            context.info(format!("starting `{service}`"));
            let step = recorder.begin(context, "start", &service);
            let going_down = self.going_down.contains(&service);
            let result = start_service(&*self.provider, &service, going_down).await;
            match recorder.end(context, step, result) {
                Ok(()) => {
                    noted = noted.and(journal.note(JournalEntry::Started { service }).map_err(Error::from));
                    if let Err(error) = noted {
                        context.warn(error.chain().join(": "));
                    }
                }
                Err(error) => {
                    context.warn(format!("`{service}` does not run again: {}", error.chain().join(": ")));
                    self.not_started.push(service.clone());
                    failed.get_or_insert(error.context(format!("service `{service}` does not run again")));
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Starts a service unless it runs, and waits until it serves.
///
/// A service that is `going_down` was asked to stop and may still look as if it ran: that is waited for, for a while.
pub async fn start_service(provider: &dyn Provider, service: &str, going_down: bool) -> Result<(), Error> {
    let until = tokio::time::Instant::now() + if going_down { LATE_STOP } else { Duration::ZERO };
    while provider.state(service).await? == ServiceState::Running && tokio::time::Instant::now() < until {
        tokio::time::sleep(LATE_STOP_PERIOD).await;
    }
    if provider.state(service).await? == ServiceState::Stopped {
        provider.start(service).await?;
    }
    Ok(provider.wait_ready(service, READY_TIMEOUT).await?)
}

/// Runs `work` so that a panic in it becomes an error: services that are stopped must be started again whatever happens.
pub async fn without_panic<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    use futures::FutureExt as _;
    let result = std::panic::AssertUnwindSafe(work).catch_unwind().await;
    result.unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a bug: the operation panicked, see above")))
}

/// Of two results the error that explains more: the first one's, with the second as a warning.
pub fn first_error<T>(context: &Context, first: Result<T, Error>, second: Result<(), Error>) -> Result<T, Error> {
    match (first, second) {
        (Ok(value), Ok(())) => Ok(value),
        (Ok(_), Err(error)) => Err(error),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(second)) => {
            context.warn(second.chain().join(": "));
            Err(error)
        }
    }
}

/// The error of an operation whose journal must stay open.
pub fn left_open(deployment: &str, error: Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::Cancelled => ErrorKind::Cancelled,
        _ => ErrorKind::Unavailable,
    };
    Error::with_source(
        kind,
        format!("deployment `{deployment}` is not running as before; `resume` finishes that"),
        error,
    )
}
