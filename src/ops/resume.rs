//! Finishing what a killed run left stopped.
//!
//! Holds: this needs the services and the way to them, nothing else of the deployment: what is broken there must not keep it
//! down.

use std::path::Path;
use std::sync::Arc;

use super::Context;
use super::clear::clear_left;
use super::start::{Started, start_service};
use crate::deployment::Way;
use crate::error::{Error, ErrorKind};
use crate::provider::bespoke::BespokeProvider;
use crate::provider::config::BespokeConfig;
use crate::provider::docker::{DockerProvider, Engine, Given};
use crate::provider::{Provider, ProviderError, Reach, ServiceState};
use crate::repository::executor::run_blocking;
use crate::state::{DeploymentLock, Journal, JournalEntry, OpenJournal};

/// How a deployment gets a new id without a restore.
pub const ID_BY_HAND: &str = "by hand, in cypher-shell: `MATCH (root:Root) SET root.uuid = randomUUID()`; then restart what reads it: docker compose restart infrahub-server task-worker";

/// How a database that a restore stopped through its server starts again as it is.
const START_BY_HAND: &str = "in cypher-shell, if its name is `neo4j`: `START DATABASE neo4j`";

/// A journal that was finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// The deployment.
    pub deployment: String,
    /// What was running when it was killed.
    pub operation: String,
    /// Services that run again.
    pub started: Vec<String>,
    /// Services that were stopped and are not there any more.
    pub gone: Vec<String>,
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
    let (started, gone) = start_again(context, &mut journal, &left)
        .await
        .map_err(|error| super::pause::left_open(&left.deployment, error))?;
    let half: Vec<&str> = left.half_replaced().into_iter().collect();
    if !half.is_empty() {
        let text = format!(
            "a restore of `{}` ended while it replaced {}: what is there is neither the old nor the new",
            left.deployment,
            half.join(", ")
        );
        let text = match left.worked_inside().is_empty() {
            true => text,
            false => format!("{text}; Neo4j may keep its database stopped; to start it as it is, {START_BY_HAND}"),
        };
        if half_replaced == HalfReplaced::Refuse {
            return Err(Error::new(ErrorKind::Incomplete, text));
        }
        context.warn(text);
    }
    if let Some(component) = left.id_not_reset() {
        context.warn(format!(
            "`{component}` was restored, and the deployment id was not reset: it is that of the snapshot; {ID_BY_HAND}"
        ));
    }
    journal.close()?;
    Ok(Some(Resumed { deployment: left.deployment, operation: left.operation, started, gone }))
}

/// Starts what the killed run left stopped; which services run again, and which are not there any more.
async fn start_again(
    context: &Context,
    journal: &mut Journal,
    left: &OpenJournal,
) -> Result<(Vec<String>, Vec<String>), Error> {
    let (mut started, mut gone, mut failed) = (Vec::new(), Vec::new(), None);
    let inside = left.worked_inside();
    let nothing_beside = left.left_to_clear().is_empty() && inside.is_empty() && !left.may_have_copies();
    if left.services_to_start.is_empty() && nothing_beside {
        return Ok((started, gone));
    }
    let provider = reach_again(context, left).await?;
    tidy(context, &*provider).await?;
    for service in inside {
        tell_if_stopped(context, &*provider, service).await?;
    }
    clear_left(context, journal, &*provider, left).await?;
    for service in &left.services_to_start {
        context.info(format!("starting `{service}`"));
        journal.note(JournalEntry::Starting { service: service.clone() })?;
        let (parts, going_down) = (left.parts_of(service), left.going_down().contains(service.as_str()));
        match start_service(&*context.events, &*provider, service, &parts, going_down).await {
            Ok(done) => {
                let list = if done == Started::Serves { &mut started } else { &mut gone };
                list.push(service.clone());
                journal.note(done.entry(service.clone()))?;
            }
            // The others need not wait for this one.
            Err(error) => {
                context.warn(format!("`{service}` does not run again: {}", error.chain().join(": ")));
                failed.get_or_insert(error.context(format!("service `{service}` does not run again")));
            }
        }
    }
    failed.map_or(Ok((started, gone)), Err)
}

/// In a container that is stopped nothing can be removed.
async fn tell_if_stopped(context: &Context, provider: &dyn Provider, service: &str) -> Result<(), Error> {
    let parts = provider.parts(service).await?;
    if !parts.is_empty() && parts.iter().all(|part| part.state == ServiceState::Stopped) {
        context.warn(format!(
            "`{service}` does not run: what the killed run left in its container is removed by the next `create` or `restore` after it runs"
        ));
    }
    Ok(())
}

/// Removes what a killed run left beside and in the services, which may hold what they need. The deployment is locked: what is
/// there of ours is nobody's any more.
pub(super) async fn tidy(context: &Context, provider: &dyn Provider) -> Result<(), Error> {
    let removed = provider.tidy().await?;
    if removed > 0 {
        context.info(format!("removed what a killed run left beside and in the services: {removed}"));
    }
    Ok(())
}

async fn reach_again(context: &Context, journal: &OpenJournal) -> Result<Arc<dyn Provider>, Error> {
    match &journal.way {
        Some(Way::Config(path)) => Ok(reach_by_config(path)?.provider()),
        Some(Way::Docker(way)) => {
            let engine = Engine::connect(&way.endpoint).await.map_err(ProviderError::from)?;
            let provider = DockerProvider::services_of(engine, &way.project, context.state.owner()?).await;
            Ok(Arc::new(provider.map_err(ProviderError::from)?))
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
pub async fn reach_project(
    context: &Context,
    engine: Engine,
    project: Option<&str>,
    given: Given,
) -> Result<Reach, Error> {
    let owner = context.state.owner()?;
    let provider = DockerProvider::open(engine, project, given, owner).await.map_err(ProviderError::from)?;
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
