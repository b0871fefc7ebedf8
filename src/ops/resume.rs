//! Finishing what a killed run left stopped.

use std::path::Path;
use std::sync::Arc;

use super::Context;
use super::pause::start_service;
use crate::error::{Error, ErrorKind};
use crate::provider::Provider;
use crate::provider::bespoke::BespokeProvider;
use crate::provider::config::BespokeConfig;
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
        let provider = provider_of(&left).map_err(|error| super::pause::left_open(&left.deployment, error))?;
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

fn provider_of(journal: &OpenJournal) -> Result<Arc<dyn Provider>, Error> {
    let path: &Path = journal.config_path.as_deref().ok_or_else(|| {
        let text = format!("the journal of `{}` names services but no configuration", journal.deployment);
        Error::new(ErrorKind::Internal, text)
    })?;
    Ok(Arc::new(read_provider(path)?))
}

/// Reads a configuration file.
pub fn read_provider(path: &Path) -> Result<BespokeProvider, Error> {
    let config = BespokeConfig::read(path).map_err(|error| {
        Error::with_source(
            ErrorKind::Config,
            format!("the configuration file `{}` cannot be used", path.display()),
            error,
        )
    })?;
    Ok(BespokeProvider::new(config, path))
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
