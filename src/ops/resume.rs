//! Finishing what a killed run left stopped.

use std::path::Path;
use std::sync::Arc;

use super::Context;
use super::pause::start_service;
use crate::deployment::Way;
use crate::error::{Error, ErrorKind};
use crate::provider::bespoke::BespokeProvider;
use crate::provider::config::BespokeConfig;
use crate::provider::docker::{DockerProvider, Engine, Given};
use crate::provider::{Provider, ProviderError, Reach};
use crate::repository::executor::run_blocking;
use crate::state::{DeploymentLock, Journal, JournalEntry, OpenJournal};

/// A journal that was finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// The deployment.
    pub deployment: String,
    /// What was running when it was killed.
    pub operation: String,
    /// Services that run again.
    pub started: Vec<String>,
}

/// Finishes the open journals of one deployment, or of all.
pub async fn resume(context: &Context, deployment: Option<&str>) -> Result<Vec<Resumed>, Error> {
    let mut resumed = Vec::new();
    for open in context.state.list_open()? {
        if deployment.is_some_and(|wanted| wanted != open.deployment) {
            continue;
        }
        let lock = lock(context, &open.deployment, None).await?;
        // Between listing and locking, its own run may have closed it.
        resumed.extend(finish_open(context, &lock, HalfReplaced::Accept).await?);
    }
    Ok(resumed)
}

/// What to do about a component that a restore was replacing when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfReplaced {
    /// Its services run again and the operator knows.
    Accept,
    /// Leave the journal open: what is there is no state of the deployment, and must not become a snapshot.
    Refuse,
}

/// What `create` and `restore` do before anything else: a killed run is never taken for "was stopped before".
pub async fn finish_open(
    context: &Context,
    lock: &DeploymentLock,
    half_replaced: HalfReplaced,
) -> Result<Option<Resumed>, Error> {
    let Some((mut journal, left)) = Journal::resume(lock)? else { return Ok(None) };
    context.warn(format!("a {} of `{}` was killed; finishing it first", left.operation, left.deployment));
    if !left.services_to_start.is_empty() {
        let reach = reach_again(&left).await.map_err(|error| super::pause::left_open(&left.deployment, error))?;
        let provider = reach.provider();
        tidy(context, &*provider).await.map_err(|error| super::pause::left_open(&left.deployment, error))?;
        let mut failed = None;
        for service in &left.services_to_start {
            context.info(format!("starting `{service}`"));
            journal.note(JournalEntry::Starting { service: service.clone() })?;
            match start_service(&*provider, service, left.going_down().contains(service.as_str())).await {
                Ok(()) => journal.note(JournalEntry::Started { service: service.clone() })?,
                // The others need not wait for this one.
                Err(error) => {
                    context.warn(format!("`{service}` does not run again: {}", error.chain().join(": ")));
                    failed.get_or_insert(error.context(format!("service `{service}` does not run again")));
                }
            }
        }
        if let Some(error) = failed {
            return Err(super::pause::left_open(&left.deployment, error));
        }
    }
    let half: Vec<&str> = left.half_replaced().into_iter().collect();
    if !half.is_empty() {
        let text = format!(
            "a restore of `{}` ended while it replaced {}: what is there is neither the old nor the new",
            left.deployment,
            half.join(", ")
        );
        if half_replaced == HalfReplaced::Refuse {
            return Err(Error::new(ErrorKind::Incomplete, text));
        }
        context.warn(text);
    }
    journal.close()?;
    Ok(Some(Resumed { deployment: left.deployment, operation: left.operation, started: left.services_to_start }))
}

/// What the killed run left running beside the services may hold what they need.
async fn tidy(context: &Context, provider: &dyn Provider) -> Result<(), Error> {
    let removed = provider.tidy().await?;
    if removed > 0 {
        context.info(format!("removed what the killed run left running: {removed}"));
    }
    Ok(())
}

async fn reach_again(journal: &OpenJournal) -> Result<Reach, Error> {
    match &journal.way {
        Some(Way::Config(path)) => reach_by_config(path),
        Some(Way::Docker(way)) => {
            let engine = Engine::connect(&way.endpoint).await.map_err(ProviderError::from)?;
            reach_project(engine, Some(&way.project), Given::default()).await
        }
        None => {
            let text = format!("the journal of `{}` names services but no way to them", journal.deployment);
            Err(Error::new(ErrorKind::Internal, text))
        }
    }
}

/// Reads a configuration file. The journal of a killed run must find it from any working directory.
pub fn reach_by_config(path: &Path) -> Result<Reach, Error> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let config = BespokeConfig::read(&path).map_err(|error| {
        Error::with_source(
            ErrorKind::Config,
            format!("the configuration file `{}` cannot be used", path.display()),
            error,
        )
    })?;
    Ok(Reach::Bespoke(Arc::new(BespokeProvider::new(config, &path)), path))
}

/// Finds a Compose project: the one that is named, or the only one that is an Infrahub deployment.
pub async fn reach_project(engine: Engine, project: Option<&str>, given: Given) -> Result<Reach, Error> {
    let provider = DockerProvider::open(engine, project, given).await.map_err(ProviderError::from)?;
    Ok(Reach::Docker(Arc::new(provider)))
}

/// Locks a deployment; waits up to `wait` if another operation holds it.
pub async fn lock(
    context: &Context,
    deployment: &str,
    wait: Option<std::time::Duration>,
) -> Result<DeploymentLock, Error> {
    let (state, deployment) = (Arc::clone(&context.state), deployment.to_owned());
    let locking = run_blocking(&context.executor, move || state.lock_deployment(&deployment, wait));
    Ok(context.cancel.or(locking).await??)
}
