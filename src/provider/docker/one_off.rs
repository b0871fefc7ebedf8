//! A command in a container of its own: same image, same variables, same volumes as a service whose containers are stopped.
//!
//! Holds: such a container is labelled with its project and with whose run made it, so that who comes after a killed run finds
//! and removes it, and leaves alone what another machine's run is working in. Its
//! output is not logged by the engine: a log of a dump would fill the disk. It has no network. Whoever waits for its end
//! comes back only when it is removed, since it may hold the lock of a database.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bollard::models::{
    ContainerConfig, ContainerCreateBody, ContainerSummary, HealthConfig, HostConfig, HostConfigLogConfig,
    RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};

use super::attached::Pump;
use super::engine::Engine;
use super::error::DockerError;
use super::{project, scratch};
use crate::env::{Clock as _, SystemClock};
use crate::provider::exec::TOTAL_TIMEOUT_DEFAULT;
use crate::provider::exec::place::{Place, Placed, PlacedCommand, PlacedProcess};

/// The label of our containers; its value is the project that they work for.
pub const LABEL: &str = "infrahub-backup.project";

/// The label that says whose run made it: the owner of a state folder.
pub const OWNER_LABEL: &str = "infrahub-backup.owner";

/// From this age on, in seconds, a container is removed whoever made it: one day. No command runs for that long.
const ABANDONED_SECONDS: i64 = 24 * 3600;
const _: () = assert!(TOTAL_TIMEOUT_DEFAULT.as_secs() < 24 * 3600, "what is abandoned must have ended");

/// How long a removal that somebody else began may take, and how often it is looked at.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(30);
const REMOVE_PERIOD: Duration = Duration::from_millis(100);

/// How long the engine may take to know that a container whose output has ended does not run, and how often it is asked.
const CODE_TIMEOUT: Duration = Duration::from_secs(30);
const CODE_PERIOD: Duration = Duration::from_millis(50);

/// The user that a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// The one of the service's container.
    Same,
    /// This one, as `uid:gid`.
    Named(String),
}

/// A container of a service, after which one of ours is made.
pub(super) struct Like {
    id: String,
    pub(super) name: String,
    pub(super) config: ContainerConfig,
    pub(super) host: HostConfig,
    pub(super) image: String,
}

/// Beside the stopped containers of a service.
#[derive(Debug, Clone)]
pub struct Beside {
    pub(super) engine: Arc<Engine>,
    pub(super) project: String,
    pub(super) service: String,
    /// Whose runs these are.
    pub(super) owner: String,
    pub(super) user: User,
    /// What stands in for the image's entry point, if that shall not run; one empty word for nothing.
    pub(super) entrypoint: Option<Vec<String>>,
}

impl Beside {
    async fn begin(&self, command: PlacedCommand) -> Result<Placed, DockerError> {
        let like = self.like().await?;
        let doing = format!("make a container beside `{}`", like.name);
        run(&self.engine, &doing, self.body(like, command), Volumes::Stay).await
    }

    /// The first container of the service.
    pub(super) async fn like(&self) -> Result<Like, DockerError> {
        let first = project::of_service(&self.engine, &self.project, &self.service).await?.remove(0);
        let found = project::inspect(&self.engine, &first.id).await?;
        let missing = |what| DockerError::Answer { about: first.id.clone(), what };
        Ok(Like {
            config: found.config.ok_or_else(|| missing("Config"))?,
            host: found.host_config.ok_or_else(|| missing("HostConfig"))?,
            image: found.image.ok_or_else(|| missing("Image"))?,
            id: first.id,
            name: first.name,
        })
    }

    /// What tells a container of ours, and a volume, from those of others.
    pub(super) fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(LABEL.to_owned(), self.project.clone()), (OWNER_LABEL.to_owned(), self.owner.clone())])
    }

    pub(super) fn user(&self, config: &ContainerConfig) -> Option<String> {
        match &self.user {
            User::Same => config.user.clone(),
            User::Named(user) => Some(user.clone()),
        }
    }

    fn body(&self, like: Like, command: PlacedCommand) -> ContainerCreateBody {
        let Like { id, config, host, image, .. } = like;
        let user = self.user(&config);
        let mut env = config.env.unwrap_or_default();
        env.extend(command.variables());
        let host_config = HostConfig { volumes_from: Some(vec![id]), ..closed(host) };
        ContainerCreateBody {
            image: Some(image),
            env: Some(env),
            user,
            entrypoint: self.entrypoint.clone(),
            labels: Some(self.labels()),
            host_config: Some(host_config),
            ..body(command)
        }
    }
}

/// What a container of ours has in common with one of the service's, and what it has not: no network, no log, no second start.
pub(super) fn closed(host: HostConfig) -> HostConfig {
    HostConfig {
        network_mode: Some("none".to_owned()),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        group_add: host.group_add,
        security_opt: host.security_opt,
        userns_mode: host.userns_mode,
        ..HostConfig::default()
    }
}

/// A container that runs `command` and is attached to; its variables are left to the caller.
pub(super) fn body(command: PlacedCommand) -> ContainerCreateBody {
    let PlacedCommand { argv, cwd, stdin, .. } = command;
    ContainerCreateBody {
        working_dir: cwd.map(|path| path.display().to_string()),
        cmd: Some(argv),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        attach_stdin: Some(stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(stdin),
        stdin_once: Some(stdin),
        tty: Some(false),
        ..ContainerCreateBody::default()
    }
}

/// Makes a container and starts it. Its output comes here, its end removes it.
pub(super) async fn run(
    engine: &Arc<Engine>,
    what: &str,
    body: ContainerCreateBody,
    volumes: Volumes,
) -> Result<Placed, DockerError> {
    let stdin = body.open_stdin == Some(true);
    let id = engine.ask(what, engine.docker().create_container(None, body)).await?.id;
    let mut container = OneOff { engine: Arc::clone(engine), id, volumes, pump: None, code: None, removed: false };
    match container.attach_and_start(stdin).await {
        Ok((stdin, stdout, stderr)) => Ok(Placed { stdin, stdout, stderr, process: Box::new(container) }),
        Err(error) => {
            container.remove().await;
            Err(error)
        }
    }
}

#[async_trait]
impl Place for Beside {
    async fn start(&self, command: PlacedCommand) -> io::Result<Placed> {
        self.begin(command).await.map_err(io::Error::other)
    }
}

/// What becomes of the volumes without a name that a container of ours has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Volumes {
    /// They are those of a service.
    Stay,
    /// They were made for it.
    Go,
}

struct OneOff {
    engine: Arc<Engine>,
    id: String,
    volumes: Volumes,
    pump: Option<Pump>,
    code: Option<i32>,
    removed: bool,
}

type Streams = (
    Option<crate::provider::exec::place::Writing>,
    crate::provider::exec::place::Reading,
    crate::provider::exec::place::Reading,
);

impl OneOff {
    /// Attached before it is started, so that no byte is missed.
    async fn attach_and_start(&mut self, stdin: bool) -> Result<Streams, DockerError> {
        let options = AttachContainerOptionsBuilder::default().stdin(stdin).stdout(true).stderr(true).stream(true);
        let docker = self.engine.docker();
        let attaching = docker.attach_container(&self.id, Some(options.build()));
        let attached = self.engine.ask("attach to a container", attaching).await?;
        let (pump, stdout, stderr) = Pump::start(attached.output, None);
        self.pump = Some(pump);
        self.engine.ask("start a container", docker.start_container(&self.id, None)).await?;
        Ok((stdin.then_some(Box::new(attached.input) as _), stdout, stderr))
    }

    /// Its exit code, once its output has ended. A connection may be closed between two pieces of output: then the container
    /// runs on, and what came is not all of it.
    async fn exit_code(&self) -> Result<i32, DockerError> {
        let missing = || DockerError::Answer { about: self.id.clone(), what: "exit code" };
        let since = Instant::now();
        loop {
            let state = project::inspect(&self.engine, &self.id).await?.state.ok_or_else(missing)?;
            if state.running == Some(false) {
                return state.exit_code.and_then(|code| i32::try_from(code).ok()).ok_or_else(missing);
            }
            if since.elapsed() >= CODE_TIMEOUT {
                return Err(DockerError::RunsOn { container: self.id.clone() });
            }
            tokio::time::sleep(CODE_PERIOD).await;
        }
    }

    async fn remove(&mut self) {
        // One that could not be removed carries the label: the next run removes it.
        self.removed = remove(&self.engine, &self.id, self.volumes).await.is_ok();
    }
}

#[async_trait]
impl PlacedProcess for OneOff {
    async fn wait(&mut self) -> io::Result<i32> {
        if let Some(code) = self.code {
            return Ok(code);
        }
        if let Some(pump) = &mut self.pump {
            pump.ended().await?;
        }
        let code = self.exit_code().await.map_err(io::Error::other)?;
        self.code = Some(code);
        self.remove().await;
        Ok(code)
    }

    async fn end(&mut self) {
        if !self.removed {
            self.remove().await;
        }
    }
}

impl Drop for OneOff {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.removed, tokio::runtime::Handle::try_current()) {
            let (engine, id, volumes) = (Arc::clone(&self.engine), self.id.clone(), self.volumes);
            runtime.spawn(async move { remove(&engine, &id, volumes).await });
        }
    }
}

/// Removes a container of ours, running or not.
async fn remove(engine: &Engine, id: &str, volumes: Volumes) -> Result<(), DockerError> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(volumes == Volumes::Go).build();
    let since = Instant::now();
    loop {
        let removing = engine.docker().remove_container(id, Some(options.clone()));
        let removed = engine.ask("remove a container", removing).await;
        match removed.as_ref().err().and_then(DockerError::status) {
            Some(404) => return Ok(()),
            // Somebody else is at it. It is gone when it is not found, not before: it may hold the lock of a database.
            Some(409) if since.elapsed() < REMOVE_TIMEOUT => tokio::time::sleep(REMOVE_PERIOD).await,
            Some(_) | None => return removed,
        }
    }
}

/// Removes what is left for `project` of the runs of `owner`, and what anybody abandoned; how many that were. With
/// [`Volumes::Stay`] only containers on volumes of a service: others hold no lock there, and this run may be working in one.
pub(super) async fn remove_left(
    engine: &Engine,
    project: &str,
    owner: &str,
    which: Option<Volumes>,
) -> Result<usize, DockerError> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{LABEL}={project}")])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let found = engine.ask("list containers", engine.docker().list_containers(Some(options))).await?;
    let now = SystemClock.now().as_second();
    let mut removed = 0;
    for container in found.into_iter().filter(|container| is_left(container, owner, now)) {
        let volumes = scratch::volumes(&container);
        if which.is_some_and(|which| which != volumes) {
            continue;
        }
        if let Some(id) = container.id {
            remove(engine, &id, volumes).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether nobody works in a container of ours: `owner` has the deployment locked, and asks.
fn is_left(container: &ContainerSummary, owner: &str, now: i64) -> bool {
    let label = container.labels.as_ref().and_then(|labels| labels.get(OWNER_LABEL));
    let abandoned = container.created.is_some_and(|created| now.saturating_sub(created) >= ABANDONED_SECONDS);
    abandoned || label.is_some_and(|label| label == owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ones_own_containers_are_left_over_until_they_are_a_day_old() {
        let container = |owner: Option<&str>, created| ContainerSummary {
            labels: owner.map(|owner| HashMap::from([(OWNER_LABEL.to_owned(), owner.to_owned())])),
            created: Some(created),
            ..ContainerSummary::default()
        };
        let now = 10 * ABANDONED_SECONDS;
        assert!(is_left(&container(Some("us"), now), "us", now));
        for other in [Some("them"), None] {
            assert!(!is_left(&container(other, now - ABANDONED_SECONDS + 1), "us", now));
            assert!(is_left(&container(other, now - ABANDONED_SECONDS), "us", now));
            // A clock that is ahead of ours.
            assert!(!is_left(&container(other, now + 60), "us", now));
        }
    }
}
