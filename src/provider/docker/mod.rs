//! A deployment on Docker Compose, reached through its engine alone.
//!
//! Holds: projects and services are found by Compose's labels, whole names only; what is named explicitly is used or is an
//! error. A service stops when all its containers did, a database never by being killed. Does not: decide what to stop, or
//! know what a dump is.

mod attached;
mod bucket;
mod credentials;
mod endpoint;
mod engine;
mod error;
mod exec;
mod flow_runs;
mod one_off;
mod project;
mod scratch;
mod services;
mod stage;
mod store;
mod tasks;
mod version;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bollard::models::ContainerSummaryStateEnum;
use bollard::query_parameters::StopContainerOptionsBuilder;
use futures::future::join_all;

use self::credentials::variables;
pub use self::credentials::{Given, Neo4jLogin, PostgresLogin};
pub use self::endpoint::{DockerVariables, Places, places};
pub use self::engine::Engine;
pub use self::error::DockerError;
pub use self::exec::InService;
pub use self::one_off::{Beside, LABEL, User};
use self::project::Container;
pub use self::project::deployments;
pub use self::scratch::Scratch;
use super::bucket::BucketAccess;
use super::secret::Masker;
use super::{Part, Provider, ProviderError, ServiceState, Task};
use crate::deployment::{Deployment, DeploymentKind, DockerWay};

/// The service whose server must end by itself.
pub const DATABASE: &str = "database";
/// The service of the task manager's PostgreSQL.
pub const TASK_MANAGER_DB: &str = "task-manager-db";

/// The variable in which Neo4j's images name their edition.
pub const EDITION: &str = "NEO4J_EDITION";

/// The component of the artifact store.
pub const ARTIFACTS: &str = "artifacts";

/// How long a database may take to stop: closing a big store takes minutes, and a killed one refuses to be dumped.
const DATABASE_STOP: Duration = Duration::from_secs(15 * 60);

/// How long anything else may take above what Compose gives it before the engine kills it.
const STOP_MARGIN: Duration = Duration::from_secs(10 * 60);

/// How often containers that start are looked at.
const READY_PERIOD: Duration = Duration::from_millis(250);

/// The exit code of a process that was killed.
const KILLED_CODE: i64 = 137;

/// Reaches a Compose project.
pub struct DockerProvider {
    engine: Arc<Engine>,
    way: DockerWay,
    deployment: Deployment,
    /// Of each service those that start before it.
    after: BTreeMap<String, Vec<String>>,
    /// Whether the database's image says that it is Community, which nothing is ever written into.
    community: bool,
    /// Why the artifact store cannot be read, if it cannot.
    store_problem: Option<String>,
    /// The artifact store, where it is in a bucket.
    bucket: Option<BucketAccess>,
    given: Given,
    /// Whose runs these are: what tells our containers from those of another machine's run.
    owner: String,
    masker: Masker,
}

impl DockerProvider {
    /// Finds the project: the one that is `named`, or the only Infrahub deployment of this engine. `owner` is whose runs these
    /// are.
    ///
    /// # Errors
    ///
    /// When there is none, more than one, or not that one.
    pub async fn open(engine: Engine, named: Option<&str>, given: Given, owner: String) -> Result<Self, DockerError> {
        let (project, containers) = project::choose(&engine, named).await?;
        let found = services::found(&containers);
        let place = engine.endpoint().host.clone();
        let mut deployment = Deployment {
            name: project.clone(),
            kind: DeploymentKind::Docker,
            services: found.order,
            components: Vec::new(),
            evidence: format!("Compose project `{project}` of the Docker engine at {place}"),
        };
        let way = DockerWay { endpoint: engine.endpoint().clone(), project };
        let store = store::find(&engine, &containers, given.artifacts_endpoint.as_deref()).await?;
        let edition = edition_of_image(&engine, &containers).await?;
        deployment.components = services::components(&deployment.services, &store, edition.as_deref());
        let (engine, masker) = (Arc::new(engine), Masker::default());
        let (store_problem, bucket) = match store.place {
            Ok(store::Place::Folder(_)) => (None, None),
            Ok(store::Place::Bucket(access)) => (None, Some(*access)),
            Err(problem) => (Some(problem), None),
        };
        bucket.iter().for_each(|access| masker.add(&access.secret_key));
        let (after, community) = (found.after, is_community(edition.as_deref()));
        Ok(Self { engine, way, deployment, after, community, store_problem, bucket, given, owner, masker })
    }

    /// Finds the services of a project and nothing else of it, to start what a killed run stopped: no component is there, and
    /// services that are gone are none.
    ///
    /// # Errors
    ///
    /// When the engine cannot be asked.
    pub async fn services_of(engine: Engine, project: &str, owner: String) -> Result<Self, DockerError> {
        let containers = project::all(&engine).await?.remove(project).unwrap_or_default();
        let found = services::found(&containers);
        let community = is_community(edition_of_image(&engine, &containers).await?.as_deref());
        let way = DockerWay { endpoint: engine.endpoint().clone(), project: project.to_owned() };
        let deployment = Deployment {
            name: project.to_owned(),
            kind: DeploymentKind::Docker,
            services: found.order,
            components: Vec::new(),
            evidence: format!("services of Compose project `{project}`"),
        };
        let (engine, given, masker) = (Arc::new(engine), Given::default(), Masker::default());
        Ok(Self {
            engine,
            way,
            deployment,
            after: found.after,
            community,
            store_problem: None,
            bucket: None,
            given,
            owner,
            masker,
        })
    }

    /// How it is reached again.
    pub fn way(&self) -> &DockerWay {
        &self.way
    }

    /// Knows every secret that was read so far.
    pub fn masker(&self) -> &Masker {
        &self.masker
    }

    /// Why the artifact store cannot be read, if it cannot.
    pub fn store_problem(&self) -> Option<&str> {
        self.store_problem.as_deref()
    }

    /// The bucket that the artifact store is in, if it is in one.
    pub fn bucket(&self) -> Option<&BucketAccess> {
        self.bucket.as_ref()
    }

    /// Where commands run in a container of `service` that runs.
    pub fn in_service(&self, service: &str) -> InService {
        let (engine, project) = (Arc::clone(&self.engine), self.way.project.clone());
        InService { engine, project, service: service.to_owned(), user: User::Same }
    }

    /// The same as another user than the container's own.
    pub fn in_service_as(&self, service: &str, user: User) -> InService {
        InService { user, ..self.in_service(service) }
    }

    /// Whether a command can run in a container of `service`: one that is restarted over and over counts as running, but cannot
    /// be entered.
    ///
    /// # Errors
    ///
    /// When the engine cannot be asked.
    pub async fn can_be_entered(&self, service: &str) -> Result<bool, DockerError> {
        let containers = self.containers(service).await?;
        Ok(containers.iter().any(|container| container.state == ContainerSummaryStateEnum::RUNNING))
    }

    /// Where commands run beside the containers of `service`, which may be stopped.
    pub fn beside(&self, service: &str, user: User, entrypoint: Option<Vec<String>>) -> Beside {
        let (engine, project) = (Arc::clone(&self.engine), self.way.project.clone());
        let (service, owner) = (service.to_owned(), self.owner.clone());
        Beside { engine, project, service, owner, user, entrypoint }
    }

    /// Where commands run in a container that sees nothing of `service` but its image, with an empty volume at `data`.
    pub fn scratch(&self, service: &str, user: User, data: &'static str) -> Scratch {
        Scratch { beside: self.beside(service, user, Some(vec![String::new()])), data }
    }

    /// How Neo4j is entered.
    ///
    /// # Errors
    ///
    /// When a container cannot be asked.
    pub async fn neo4j_login(&self) -> Result<Neo4jLogin, DockerError> {
        let (server, database) = (self.variables("infrahub-server").await?, self.variables(DATABASE).await?);
        let login = credentials::neo4j(&self.given, &server, &database);
        self.masker.add(&login.password);
        Ok(login)
    }

    /// How PostgreSQL is entered.
    ///
    /// # Errors
    ///
    /// When a container cannot be asked, or the connection is not understood.
    pub async fn postgres_login(&self) -> Result<PostgresLogin, DockerError> {
        let manager = match self.deployment.services.iter().any(|name| name == "task-manager") {
            true => self.variables("task-manager").await?,
            false => credentials::Variables::new(),
        };
        let login = credentials::postgres(&self.given, &manager, &self.variables(TASK_MANAGER_DB).await?)?;
        login.password.iter().for_each(|password| self.masker.add(password));
        Ok(login)
    }

    /// One variable of a service's first container.
    ///
    /// # Errors
    ///
    /// When the container cannot be asked.
    pub async fn variable(&self, service: &str, name: &str) -> Result<Option<String>, DockerError> {
        Ok(self.variables(service).await?.remove(name))
    }

    /// The user of a service's first container, as it is configured; empty for the image's own.
    ///
    /// # Errors
    ///
    /// When the container cannot be asked.
    pub async fn configured_user(&self, service: &str) -> Result<String, DockerError> {
        let first = self.containers(service).await?.remove(0);
        let config = project::inspect(&self.engine, &first.id).await?.config;
        Ok(config.and_then(|config| config.user).unwrap_or_default())
    }

    /// The paths of a service's first container that lie on a volume or a folder of the host.
    ///
    /// # Errors
    ///
    /// When the container cannot be asked.
    pub async fn mounted(&self, service: &str) -> Result<Vec<String>, DockerError> {
        let first = self.containers(service).await?.remove(0);
        let mounts = project::inspect(&self.engine, &first.id).await?.mounts.unwrap_or_default();
        Ok(mounts.into_iter().filter_map(|mount| mount.destination).collect())
    }

    async fn variables(&self, service: &str) -> Result<credentials::Variables, DockerError> {
        let first = self.containers(service).await?.remove(0);
        let config = project::inspect(&self.engine, &first.id).await?.config;
        Ok(variables(&config.and_then(|config| config.env).unwrap_or_default()))
    }

    async fn containers(&self, service: &str) -> Result<Vec<Container>, DockerError> {
        project::of_service(&self.engine, &self.way.project, service).await
    }

    /// Those containers of a service that have these names, or all if there are none.
    async fn named(&self, service: &str, names: &[String]) -> Result<Vec<Container>, DockerError> {
        let mut containers = self.containers(service).await?;
        containers.retain(|container| names.is_empty() || names.contains(&container.name));
        Ok(containers)
    }

    async fn stop_container(&self, container: &Container) -> Result<(), DockerError> {
        let must_end = container.service == DATABASE;
        let state = project::inspect(&self.engine, &container.id).await?;
        let own = state.config.and_then(|config| config.stop_timeout).and_then(|seconds| u64::try_from(seconds).ok());
        let options = StopContainerOptionsBuilder::default();
        let (options, limit) = match must_end {
            true => {
                let limit = DATABASE_STOP.max(Duration::from_secs(own.unwrap_or(0)));
                (Some(options.t(i32::try_from(limit.as_secs()).unwrap_or(i32::MAX)).build()), limit + STOP_MARGIN)
            }
            // Nothing is said, so that the engine takes what Compose gave it.
            false => (None, Duration::from_secs(own.unwrap_or(10)) + STOP_MARGIN),
        };
        let stopping = self.engine.docker().stop_container(&container.id, options);
        self.engine.within(limit, format!("stop container `{}`", container.name), stopping).await?;
        if must_end { self.check_ended(container).await } else { Ok(()) }
    }

    /// A database that was killed refuses to be dumped.
    async fn check_ended(&self, container: &Container) -> Result<(), DockerError> {
        let state = project::inspect(&self.engine, &container.id).await?.state.unwrap_or_default();
        let oom = state.oom_killed == Some(true);
        if !oom && state.exit_code != Some(KILLED_CODE) {
            return Ok(());
        }
        let (container, service) = (container.name.clone(), container.service.clone());
        Err(DockerError::Killed { container, service, oom })
    }

    /// Whether a container serves: healthy where it has a check, running where it has none.
    async fn serves(&self, container: &Container) -> Result<bool, DockerError> {
        use bollard::models::HealthStatusEnum as Health;
        let found = project::inspect(&self.engine, &container.id).await?;
        let state = found.state.unwrap_or_default();
        if state.running != Some(true) {
            let policy = found.host_config.and_then(|host| host.restart_policy).and_then(|policy| policy.name);
            let comes_again = policy.is_some_and(|name| !["", "no"].contains(&name.to_string().as_str()));
            if state.restarting == Some(true) || comes_again {
                return Ok(false);
            }
            let (container, service) = (container.name.clone(), container.service.clone());
            return Err(DockerError::Ended { container, service, code: state.exit_code.unwrap_or_default() });
        }
        Ok(match state.health.and_then(|health| health.status) {
            None | Some(Health::EMPTY | Health::NONE | Health::HEALTHY) => true,
            Some(Health::STARTING | Health::UNHEALTHY) => false,
        })
    }
}

/// The edition that the database's image names, if it names one: what its server says counts, where that can be asked.
async fn edition_of_image(engine: &Engine, containers: &[Container]) -> Result<Option<String>, DockerError> {
    let Some(first) = containers.iter().find(|container| container.service == DATABASE) else { return Ok(None) };
    let config = project::inspect(engine, &first.id).await?.config;
    Ok(variables(&config.and_then(|config| config.env).unwrap_or_default()).remove(EDITION))
}

fn is_community(edition: Option<&str>) -> bool {
    edition == Some("community")
}

/// Whether a container counts as running.
fn runs(container: &Container) -> Result<bool, DockerError> {
    use ContainerSummaryStateEnum as State;
    match container.state {
        State::RUNNING | State::RESTARTING | State::STOPPING => Ok(true),
        State::CREATED | State::EXITED | State::DEAD => Ok(false),
        State::PAUSED | State::REMOVING | State::EMPTY => Err(DockerError::State {
            container: container.name.clone(),
            service: container.service.clone(),
            state: container.state.to_string(),
        }),
    }
}

#[async_trait]
impl Provider for DockerProvider {
    fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    fn after(&self, service: &str) -> Vec<String> {
        self.after.get(service).cloned().unwrap_or_default()
    }

    /// Running if any of its containers is.
    async fn state(&self, service: &str) -> Result<ServiceState, ProviderError> {
        let states: Result<Vec<bool>, DockerError> = self.containers(service).await?.iter().map(runs).collect();
        Ok(if states?.contains(&true) { ServiceState::Running } else { ServiceState::Stopped })
    }

    /// Its containers, by their names: they outlive it that a container is made anew.
    async fn parts(&self, service: &str) -> Result<Vec<Part>, ProviderError> {
        let containers = match self.containers(service).await {
            Err(DockerError::NoContainer { .. }) => vec![],
            found => found?,
        };
        let part = |container: Container| {
            let state = if runs(&container)? { ServiceState::Running } else { ServiceState::Stopped };
            Ok(Part { name: container.name, state })
        };
        containers.into_iter().map(part).collect()
    }

    async fn stop(&self, service: &str, parts: &[String]) -> Result<(), ProviderError> {
        let containers = self.named(service, parts).await?;
        let stopped = join_all(containers.iter().map(|container| self.stop_container(container))).await;
        stopped.into_iter().collect::<Result<(), _>>()?;
        Ok(())
    }

    fn can_join_stop(&self) -> bool {
        true
    }

    async fn start(&self, service: &str, parts: &[String]) -> Result<(), ProviderError> {
        if service == DATABASE {
            // One of ours that is left would hold the lock of the store.
            let beside = Some(one_off::Volumes::Stay);
            one_off::remove_left(&self.engine, &self.way.project, &self.owner, beside).await?;
        }
        let containers = self.named(service, parts).await?;
        let start = |container: &Container| {
            let (what, id) = (format!("start container `{}`", container.name), container.id.clone());
            async move { self.engine.ask(what, self.engine.docker().start_container(&id, None)).await }
        };
        let started = join_all(containers.iter().map(start)).await;
        started.into_iter().collect::<Result<(), _>>()?;
        Ok(())
    }

    async fn wait_ready(&self, service: &str, parts: &[String], timeout: Duration) -> Result<(), ProviderError> {
        let since = Instant::now();
        loop {
            let mut all = true;
            let containers = self.named(service, parts).await?;
            if containers.is_empty() {
                let (project, service) = (self.way.project.clone(), service.to_owned());
                return Err(DockerError::NoContainer { project, service }.into());
            }
            for container in containers {
                all &= self.serves(&container).await?;
            }
            if all {
                return Ok(());
            }
            if since.elapsed() >= timeout {
                let (service, waited) = (service.to_owned(), since.elapsed());
                return Err(ProviderError::NotInTime { service, wanted: "ready", waited });
            }
            tokio::time::sleep(READY_PERIOD).await;
        }
    }

    async fn running_tasks(&self) -> Result<Option<Vec<Task>>, ProviderError> {
        Ok(tasks::running(self).await?)
    }

    async fn infrahub_version(&self) -> Result<Option<String>, ProviderError> {
        Ok(Some(version::infrahub(self).await?))
    }

    async fn tidy(&self) -> Result<usize, ProviderError> {
        let beside = one_off::remove_left(&self.engine, &self.way.project, &self.owner, None).await?;
        let copies = scratch::remove_left(&self.engine, &self.way.project, &self.owner).await?;
        let inside = if self.community { 0 } else { self.remove_stage(DATABASE).await? };
        Ok(beside + copies + inside)
    }

    async fn clear(&self, service: &str) -> Result<Option<String>, ProviderError> {
        Ok(services::clear(self, service).await?)
    }
}
