//! Everywhere: what we stop, we start.
//!
//! Before anything is stopped, the journal says so, durably; it is closed when everything runs again. Services that do not
//! need each other stop and start side by side. Starting again is
//! never cancelled and goes on with the next service when one does not start. A run that was killed is finished by
//! [`super::resume`], which every `create` and `restore` does first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::Context;
use super::evidence::{Recorder, StepFacts};
use super::start::{Started, start_service};
use crate::error::{Error, ErrorKind};
use crate::provider::{Provider, ServiceState};
use crate::state::{Journal, JournalEntry};

/// Services that were stopped and must run again.
pub struct Paused {
    provider: Arc<dyn Provider>,
    stopped: Vec<String>,
    /// Of each service that was stopped those parts that ran.
    parts: BTreeMap<String, Vec<String>>,
    /// Services that were asked to stop and have not answered yet.
    stopping: Vec<String>,
    /// The same for starting.
    starting: Vec<String>,
    /// Services whose stop did not end well: they may still be going down.
    going_down: Vec<String>,
    not_started: Vec<String>,
    /// Whether a server may have been killed: what it held is replaced.
    may_be_killed: bool,
    /// When each was asked to stop.
    since: BTreeMap<String, Instant>,
}

impl Paused {
    /// Nothing is stopped.
    pub fn nothing(provider: Arc<dyn Provider>) -> Self {
        let (stopped, stopping, starting) = (vec![], vec![], vec![]);
        let (going_down, not_started) = (vec![], vec![]);
        let (parts, since) = (BTreeMap::new(), BTreeMap::new());
        let may_be_killed = false;
        Self { provider, stopped, parts, stopping, starting, going_down, not_started, may_be_killed, since }
    }

    /// Nothing is stopped. A server that must be killed to stop is told, and no error: its content will be replaced.
    pub fn for_load(provider: Arc<dyn Provider>) -> Self {
        Self { may_be_killed: true, ..Self::nothing(provider) }
    }

    /// The services that are stopped.
    pub fn services(&self) -> &[String] {
        &self.stopped
    }

    /// Whether everything that was stopped runs again.
    pub fn all_run(&self) -> bool {
        self.stopped.is_empty() && self.not_started.is_empty()
    }

    /// Stops those of `services` that run, each before those that it needs, side by side where neither needs the other. If
    /// one does not stop, all run again.
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
            let parts = self.provider.parts(service).await?.into_iter();
            let parts = parts.filter(|part| part.state == ServiceState::Running).map(|part| part.name);
            let parts: Vec<String> = parts.collect();
            if !parts.is_empty() {
                running.push(service.clone());
                self.parts.insert(service.clone(), parts);
            }
        }
        if running.is_empty() {
            return Ok(());
        }
        journal.note(JournalEntry::WasRunning { services: running.clone() })?;
        let provider = Arc::clone(&self.provider);
        let mut left = running;
        let mut stopping = FuturesUnordered::new();
        let mut failed = None;
        loop {
            // Whatever goes wrong, those that are going down are waited for: a service that is still on its way would look
            // as if it ran.
            while failed.is_none() {
                let Some(at) = next_to_stop(&*provider, &left, &self.stopping) else { break };
                if let Err(error) = context.cancel.check() {
                    failed = Some(error);
                    break;
                }
                let service = left.remove(at);
                let parts = self.parts[&service].clone();
                let entry = JournalEntry::Stopping { service: service.clone(), parts: parts.clone() };
                if let Err(error) = journal.note(entry) {
                    failed = Some(error.into());
                    break;
                }
                // From here on it counts as stopped: a stop that fails half way must be undone as well.
                self.stopped.push(service.clone());
                self.stopping.push(service.clone());
                self.since.insert(service.clone(), Instant::now());
                context.info(format!("stopping `{service}`"));
                let (step, provider) = (recorder.begin(context, "stop", &service), Arc::clone(&provider));
                let may_be_killed = self.may_be_killed;
                stopping.push(async move {
                    let result = match provider.stop(&service, &parts).await {
                        Err(error) if may_be_killed && error.is_killed() => {
                            context.warn(Error::from(error).chain().join(": "));
                            Ok(())
                        }
                        result => result.map_err(Error::from),
                    };
                    (service, step, result)
                });
            }
            let Some((service, step, result)) = stopping.next().await else { break };
            self.stopping.retain(|name| *name != service);
            if result.is_err() {
                self.going_down.push(service.clone());
            }
            let noted = recorder.end(context, step, result);
            let noted = noted.and_then(|()| Ok(journal.note(JournalEntry::Stopped { service })?));
            if let Err(error) = noted {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Starts everything again and waits until it serves: each behind those that it needs, side by side otherwise. Goes on
    /// when one does not start, and tells the first that did not. One that is not there any more is told and let go.
    pub async fn start(&mut self, context: &Context, recorder: &Recorder, journal: &mut Journal) -> Result<(), Error> {
        self.start_those(context, recorder, journal, &|_| true).await
    }

    /// The same for `services` and those that they need alone: the others stay stopped.
    pub async fn start_first(
        &mut self,
        context: &Context,
        recorder: &Recorder,
        journal: &mut Journal,
        services: &[String],
    ) -> Result<(), Error> {
        let wanted = with_needed(&*self.provider, services);
        self.start_those(context, recorder, journal, &|service| wanted.contains(service)).await
    }

    async fn start_those(
        &mut self,
        context: &Context,
        recorder: &Recorder,
        journal: &mut Journal,
        wanted: &(dyn Fn(&String) -> bool + Sync),
    ) -> Result<(), Error> {
        let provider = Arc::clone(&self.provider);
        let mut starting = FuturesUnordered::new();
        let mut failed = None;
        loop {
            loop {
                let left: Vec<String> = self.stopped.iter().filter(|name| wanted(name)).cloned().collect();
                let Some(at) = next_to_start(&*provider, &left, &self.starting) else { break };
                let service = left[at].clone();
                self.stopped.retain(|name| *name != service);
                // A journal that cannot be written (a full disk) must not keep a service down.
                if let Err(error) = journal.note(JournalEntry::Starting { service: service.clone() }) {
                    context.warn(Error::from(error).chain().join(": "));
                }
                context.info(format!("starting `{service}`"));
                self.starting.push(service.clone());
                let (step, provider) = (recorder.begin(context, "start", &service), Arc::clone(&provider));
                let going_down = self.going_down.contains(&service);
                let parts = self.parts.get(&service).cloned().unwrap_or_default();
                starting.push(async move {
                    let result = start_service(&*context.events, &*provider, &service, &parts, going_down).await;
                    (service, step, result)
                });
            }
            let Some((service, step, result)) = starting.next().await else { break };
            self.starting.retain(|name| *name != service);
            let down = self.since.remove(&service).map(|since| since.elapsed()).unwrap_or_default();
            match recorder.end_with(context, step, result, |started| down_for(*started, down)) {
                Ok(started) => {
                    if started == Started::Serves {
                        context.info(format!("`{service}` serves again; it was down for {:.1} s", down.as_secs_f64()));
                    }
                    if let Err(error) = journal.note(started.entry(service)) {
                        context.warn(Error::from(error).chain().join(": "));
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

/// From when a service was asked to stop until it served again.
fn down_for(started: Started, time: Duration) -> StepFacts {
    match started {
        Started::Gone => StepFacts { note: Some("not there any more".to_owned()), ..StepFacts::default() },
        Started::Serves => {
            let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            StepFacts { numbers: BTreeMap::from([("down_ms".to_owned(), millis)]), ..StepFacts::default() }
        }
    }
}

/// The last of `left` that no other one needs, neither one of `left` nor one that is going down. Where they need each other in a
/// circle the order of the deployment must do: none may be left out.
fn next_to_stop(provider: &dyn Provider, left: &[String], going_down: &[String]) -> Option<usize> {
    let needed = |name: &String| {
        left.iter().chain(going_down).any(|other| other != name && provider.after(other).contains(name))
    };
    let next = left.iter().rposition(|name| !needed(name));
    next.or_else(|| left.len().checked_sub(1).filter(|_| going_down.is_empty()))
}

/// These services and all that they need.
fn with_needed(provider: &dyn Provider, services: &[String]) -> Vec<String> {
    let mut wanted = services.to_vec();
    let mut at = 0;
    while let Some(service) = wanted.get(at) {
        let needed = provider.after(service);
        wanted.extend(needed.into_iter().filter(|name| !wanted.contains(name)).collect::<Vec<_>>());
        at += 1;
    }
    wanted
}

/// The first of `left` that needs none of the others, nor one that is still starting; of a circle the first.
fn next_to_start(provider: &dyn Provider, left: &[String], starting: &[String]) -> Option<usize> {
    let order = &provider.deployment().services;
    let rank = |name: &String| order.iter().position(|other| other == name);
    let waits = |name: &String| {
        let needed = provider.after(name);
        left.iter().chain(starting).any(|other| other != name && needed.contains(other))
    };
    let first = |circle: bool| {
        let ready = left.iter().enumerate().filter(|(_, name)| circle || !waits(name));
        ready.min_by_key(|(_, name)| rank(name)).map(|(at, _)| at)
    };
    first(false).or_else(|| if starting.is_empty() { first(true) } else { None })
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::deployment::{Deployment, DeploymentKind};
    use crate::provider::{Part, ProviderError};

    /// `server` needs `database` and `manager`, `manager` needs `cache`; `left` and `right` need each other.
    struct Needs(Deployment);

    #[async_trait]
    impl Provider for Needs {
        fn deployment(&self) -> &Deployment {
            &self.0
        }
        fn after(&self, service: &str) -> Vec<String> {
            match service {
                "server" => names(&["database", "manager"]),
                "manager" => names(&["cache"]),
                "left" => names(&["right"]),
                "right" => names(&["left"]),
                _ => vec![],
            }
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
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn provider() -> Needs {
        Needs(Deployment {
            name: "d".to_owned(),
            kind: DeploymentKind::Docker,
            services: names(&["database", "cache", "manager", "server"]),
            components: vec![],
            evidence: String::new(),
        })
    }

    fn stops(left: &[&str], going_down: &[&str]) -> Option<&'static str> {
        let all = ["database", "cache", "manager", "server"];
        let at = next_to_stop(&provider(), &names(left), &names(going_down))?;
        all.into_iter().find(|name| *name == left[at])
    }

    #[test]
    fn a_service_stops_only_when_nothing_that_needs_it_is_left_or_still_going_down() {
        let left = ["database", "cache", "manager", "server"];
        assert_eq!(stops(&left, &[]), Some("server"));
        assert_eq!(stops(&left[..3], &["server"]), None);
        assert_eq!(stops(&left[..3], &[]), Some("manager"));
        // The database need not wait for the manager.
        assert_eq!(stops(&left[..2], &["manager"]), Some("database"));
    }

    #[test]
    fn a_service_starts_only_when_nothing_that_it_needs_is_left_or_still_starting() {
        let next = |left: &[&str], starting: &[&str]| next_to_start(&provider(), &names(left), &names(starting));
        assert_eq!(next(&["server", "manager", "cache", "database"], &[]), Some(3));
        assert_eq!(next(&["server", "manager", "cache"], &["database"]), Some(2));
        assert_eq!(next(&["server", "manager"], &["database", "cache"]), None);
        assert_eq!(next(&["server"], &["manager"]), None);
        assert_eq!(next(&["server"], &[]), Some(0));
    }

    #[test]
    fn what_is_needed_by_what_is_needed_comes_along() {
        let mut needed = with_needed(&provider(), &names(&["server"]));
        needed.sort();
        assert_eq!(needed, ["cache", "database", "manager", "server"]);
        assert_eq!(with_needed(&provider(), &names(&["database"])), ["database"]);
        assert_eq!(with_needed(&provider(), &names(&["left"])), ["left", "right"]);
    }

    #[test]
    fn services_that_need_each_other_are_all_stopped_and_started() {
        let circle = names(&["left", "right"]);
        assert_eq!(next_to_stop(&provider(), &circle, &[]), Some(1));
        assert_eq!(next_to_stop(&provider(), &circle[..1], &circle[1..]), None);
        assert_eq!(next_to_start(&provider(), &circle, &[]), Some(0));
        assert_eq!(next_to_start(&provider(), &circle[1..], &circle[..1]), None);
    }
}
