//! Starting one service again: exactly those of its parts that were stopped.
//!
//! Holds: a service whose stop may still be under way is stopped for good first, since it would look as if it ran and go
//! down afterwards. What is not there any more is told and let go: a journal must not wait for it for ever. Does not: decide
//! what to start, or in which order.

use std::time::Duration;

use tokio::time::Instant;

use super::{Events, Level};
use crate::error::Error;
use crate::provider::{Provider, ServiceState};
use crate::state::JournalEntry;

/// How long a service may take until it serves again.
pub const READY_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a service that was asked to stop, without a word on whether it did, may take to go down by itself.
const LATE_STOP: Duration = Duration::from_secs(60);
const LATE_STOP_PERIOD: Duration = Duration::from_millis(500);

/// What became of a service that was to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// What was stopped of it serves again, as far as it is still there.
    Serves,
    /// Nothing that was stopped of it is there any more.
    Gone,
}

impl Started {
    /// What the journal is told.
    pub(super) fn entry(self, service: String) -> JournalEntry {
        match self {
            Self::Serves => JournalEntry::Started { service },
            Self::Gone => JournalEntry::Gone { service },
        }
    }
}

/// Starts those `parts` of a service that do not run (all, if none are named), and waits until they serve.
///
/// A service that is `going_down` was asked to stop without a word on whether it did.
pub async fn start_service(
    events: &dyn Events,
    provider: &dyn Provider,
    service: &str,
    parts: &[String],
    going_down: bool,
) -> Result<Started, Error> {
    if going_down {
        join_stop(events, provider, service, parts).await?;
    }
    let there = provider.parts(service).await?;
    let gone: Vec<&str> =
        parts.iter().filter(|part| there.iter().all(|found| found.name != **part)).map(String::as_str).collect();
    if !gone.is_empty() {
        events.message(
            Level::Warning,
            &format!("{} of `{service}` was stopped and is not there any more", gone.join(", ")),
        );
    }
    let (mut ours, mut down) = (Vec::new(), Vec::new());
    for part in there.into_iter().filter(|part| parts.is_empty() || parts.contains(&part.name)) {
        if part.state == ServiceState::Stopped {
            down.push(part.name.clone());
        }
        ours.push(part.name);
    }
    if ours.is_empty() {
        let text = format!("`{service}` is not there any more, so that nothing is left to be started");
        events.message(Level::Warning, &text);
        return Ok(Started::Gone);
    }
    if !down.is_empty() {
        provider.start(service, &down).await?;
    }
    provider.wait_ready(service, &ours, READY_TIMEOUT).await?;
    Ok(Started::Serves)
}

/// Waits for a stop that may be under way, by asking for it once more. Where that may come too early, it is given time to go
/// down by itself before.
async fn join_stop(events: &dyn Events, provider: &dyn Provider, service: &str, parts: &[String]) -> Result<(), Error> {
    if !provider.can_join_stop() && is_down_soon(provider, service, parts).await? {
        return Ok(());
    }
    let left = running(provider, service, parts).await?;
    if left.is_empty() {
        return Ok(());
    }
    let text = format!("`{service}` was asked to stop and may still be closing; stopping it before it is started");
    events.message(Level::Info, &text);
    let Err(error) = provider.stop(service, &left).await else { return Ok(()) };
    if error.is_refusal() || is_down_soon(provider, service, parts).await? {
        events.message(Level::Warning, &Error::from(error).chain().join(": "));
        return Ok(());
    }
    let text = format!("service `{service}` was asked to stop, runs, and may still go down");
    Err(Error::from(error).context(text))
}

/// Whether a service goes down within [`LATE_STOP`].
async fn is_down_soon(provider: &dyn Provider, service: &str, parts: &[String]) -> Result<bool, Error> {
    let until = Instant::now() + LATE_STOP;
    while !running(provider, service, parts).await?.is_empty() {
        if Instant::now() >= until {
            return Ok(false);
        }
        tokio::time::sleep(LATE_STOP_PERIOD).await;
    }
    Ok(true)
}

/// Those `parts` of a service that run; of all, if none are named.
async fn running(provider: &dyn Provider, service: &str, parts: &[String]) -> Result<Vec<String>, Error> {
    let there = provider.parts(service).await?.into_iter();
    let ours = there.filter(|part| parts.is_empty() || parts.contains(&part.name));
    Ok(ours.filter(|part| part.state == ServiceState::Running).map(|part| part.name).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::deployment::{Deployment, DeploymentKind};
    use crate::ops::Progress;
    use crate::provider::{Part, ProviderError};

    struct Silent;

    impl Events for Silent {
        fn message(&self, _: Level, _: &str) {}
        fn progress(&self, _: &Progress) {}
        fn progress_done(&self, _: &'static str, _: &str) {}
    }

    /// One service of several parts, one of which may be closing: it runs until a stop was waited for.
    struct Scripted {
        deployment: Deployment,
        parts: Mutex<Vec<Part>>,
        /// What a stop ends with.
        refusal: Option<&'static str>,
        /// When a stop command that is still at work stops it.
        closes: Option<Instant>,
        did: Mutex<Vec<String>>,
    }

    impl Scripted {
        fn new(parts: &[(&str, ServiceState)]) -> Self {
            let part = |(name, state): &(&str, ServiceState)| Part { name: (*name).to_owned(), state: *state };
            let deployment = Deployment {
                name: "d".to_owned(),
                kind: DeploymentKind::Docker,
                services: vec!["s".to_owned()],
                components: vec![],
                evidence: String::new(),
            };
            let parts = Mutex::new(parts.iter().map(part).collect());
            Self { deployment, parts, refusal: None, closes: None, did: Mutex::default() }
        }

        fn set(&self, names: &[String], state: ServiceState) {
            let mut parts = self.parts.lock().unwrap();
            parts.iter_mut().filter(|part| names.contains(&part.name)).for_each(|part| part.state = state);
        }

        fn did(&self, what: &str, names: &[String]) {
            self.did.lock().unwrap().push(format!("{what} {}", names.join(" ")));
        }

        async fn start(&self, parts: &[&str], going_down: bool) -> (Result<Started, Error>, Vec<String>) {
            let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            let result = start_service(&Silent, self, "s", &parts, going_down).await;
            (result, std::mem::take(&mut *self.did.lock().unwrap()))
        }
    }

    #[async_trait]
    impl Provider for Scripted {
        fn deployment(&self) -> &Deployment {
            &self.deployment
        }
        async fn state(&self, _: &str) -> Result<ServiceState, ProviderError> {
            let running = self.parts.lock().unwrap().iter().any(|part| part.state == ServiceState::Running);
            Ok(if running { ServiceState::Running } else { ServiceState::Stopped })
        }
        async fn parts(&self, _: &str) -> Result<Vec<Part>, ProviderError> {
            if self.closes.is_some_and(|when| Instant::now() >= when) && self.did.lock().unwrap().is_empty() {
                self.parts.lock().unwrap().iter_mut().for_each(|part| part.state = Stopped);
            }
            Ok(self.parts.lock().unwrap().clone())
        }
        fn can_join_stop(&self) -> bool {
            self.refusal.is_none() && self.closes.is_none()
        }
        async fn stop(&self, _: &str, parts: &[String]) -> Result<(), ProviderError> {
            self.did("stop", parts);
            match self.refusal {
                Some(service) => Err(ProviderError::NoSuchService { service: service.to_owned() }),
                None => {
                    // As long as a database may need.
                    tokio::time::sleep(Duration::from_secs(600)).await;
                    self.set(parts, ServiceState::Stopped);
                    Ok(())
                }
            }
        }
        async fn start(&self, _: &str, parts: &[String]) -> Result<(), ProviderError> {
            self.did("start", parts);
            self.set(parts, ServiceState::Running);
            Ok(())
        }
        async fn wait_ready(&self, _: &str, parts: &[String], _: Duration) -> Result<(), ProviderError> {
            self.did("wait", parts);
            Ok(())
        }
    }

    use ServiceState::{Running, Stopped};

    #[tokio::test(start_paused = true)]
    async fn a_service_that_closes_for_minutes_is_started_when_it_has_stopped() {
        let service = Scripted::new(&[("s-1", Running)]);
        let (result, did) = service.start(&["s-1"], true).await;
        assert_eq!(result.unwrap(), Started::Serves);
        assert_eq!(did, ["stop s-1", "start s-1", "wait s-1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_refuses_to_stop_counts_as_running() {
        let service = Scripted { refusal: Some("s"), ..Scripted::new(&[("s-1", Running)]) };
        let (result, did) = service.start(&["s-1"], true).await;
        assert_eq!(result.unwrap(), Started::Serves);
        assert_eq!(did, ["stop s-1", "wait s-1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_command_that_is_still_at_work_is_not_overtaken() {
        let closes = Some(Instant::now() + Duration::from_secs(30));
        let service = Scripted { closes, ..Scripted::new(&[("s-1", Running)]) };
        let (result, did) = service.start(&["s-1"], true).await;
        assert_eq!(result.unwrap(), Started::Serves);
        assert_eq!(did, ["start s-1", "wait s-1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_whose_stop_command_is_gone_is_stopped_for_good_before_it_is_started() {
        let closes = Some(Instant::now() + Duration::from_secs(3600));
        let service = Scripted { closes, ..Scripted::new(&[("s-1", Running)]) };
        let (result, did) = service.start(&["s-1"], true).await;
        assert_eq!(result.unwrap(), Started::Serves);
        assert_eq!(did, ["stop s-1", "start s-1", "wait s-1"]);
    }

    #[tokio::test]
    async fn exactly_the_parts_that_were_stopped_are_started() {
        let service = Scripted::new(&[("s-1", Running), ("s-2", Stopped), ("s-3", Stopped)]);
        let (result, did) = service.start(&["s-1", "s-2"], false).await;
        assert_eq!(result.unwrap(), Started::Serves);
        assert_eq!(did, ["start s-2", "wait s-1 s-2"]);
    }

    #[tokio::test]
    async fn a_part_that_is_gone_keeps_no_other_one_down() {
        let service = Scripted::new(&[("s-2", Stopped), ("s-3", Stopped)]);
        let (result, did) = service.start(&["s-1", "s-2"], false).await;
        assert_eq!(result.unwrap(), Started::Serves);
        assert_eq!(did, ["start s-2", "wait s-2"]);
    }

    #[tokio::test]
    async fn a_service_that_is_gone_is_let_go() {
        for parts in [&[][..], &[("s-9", Stopped)]] {
            let service = Scripted::new(parts);
            let (result, did) = service.start(&["s-1"], true).await;
            assert_eq!(result.unwrap(), Started::Gone);
            assert!(did.is_empty(), "{did:?}");
        }
    }

    #[tokio::test]
    async fn a_journal_that_names_no_parts_means_all() {
        let service = Scripted::new(&[("s-1", Stopped), ("s-2", Stopped)]);
        let (result, did) = service.start(&[], false).await;
        assert_eq!(result.unwrap(), Started::Serves);
        assert_eq!(did, ["start s-1 s-2", "wait s-1 s-2"]);
    }
}
