//! How a deployment is reached: its processes and its services.
//!
//! A [`Provider`] stops, starts and probes services and runs commands; what is dumped and loaded is the business of
//! [`crate::component`]. Unknown is an error here, never a default.

pub mod bespoke;
pub mod bucket;
pub mod config;
pub mod docker;
pub mod exec;
pub mod flow_runs;
pub mod secret;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::bespoke::BespokeProvider;
use self::bucket::BucketAccess;
use self::docker::{DockerError, DockerProvider};
use self::flow_runs::TaskManager;
use crate::deployment::{Deployment, Way};

/// Whether a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    /// Its probe says that it runs.
    Running,
    /// Its probe says that it does not.
    Stopped,
}

/// What of a service is stopped and started by itself: one container of several, or all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name within the deployment; it outlives a restart.
    pub name: String,
    /// Whether it runs.
    pub state: ServiceState,
}

/// Work that a deployment does by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// What tells it from others.
    pub id: String,
    /// For people.
    pub name: String,
    /// How far it is, for people.
    pub state: String,
}

/// Reaches one deployment.
#[async_trait]
pub trait Provider: Send + Sync {
    /// What is reached.
    fn deployment(&self) -> &Deployment;

    /// Whether any part of `service` runs.
    async fn state(&self, service: &str) -> Result<ServiceState, ProviderError>;

    /// The parts of `service`, running or not; none if there is no such service any more.
    async fn parts(&self, service: &str) -> Result<Vec<Part>, ProviderError>;

    /// Stops these parts of `service` and returns when they are stopped. One that is stopping already is waited for.
    async fn stop(&self, service: &str, parts: &[String]) -> Result<(), ProviderError>;

    /// Whether asking what is stopping already to stop waits for that very stop. Where a command stops it, that of a killed run
    /// may still be at work, and would then stop what was started behind it.
    fn can_join_stop(&self) -> bool {
        false
    }

    /// Starts these parts of `service`; [`Provider::wait_ready`] tells when they serve.
    async fn start(&self, service: &str, parts: &[String]) -> Result<(), ProviderError>;

    /// Waits until these parts of `service` serve, or `timeout` passes.
    async fn wait_ready(&self, service: &str, parts: &[String], timeout: Duration) -> Result<(), ProviderError>;

    /// The services that must serve before `service` starts, and that stop only when it is stopped: all that come before it,
    /// unless the provider knows better.
    fn after(&self, service: &str) -> Vec<String> {
        self.deployment().services.iter().take_while(|name| *name != service).cloned().collect()
    }

    /// Tasks that stopping services would interrupt; `None` where nobody can tell because nothing starts any.
    async fn running_tasks(&self) -> Result<Option<Vec<Task>>, ProviderError> {
        Ok(None)
    }

    /// The version of Infrahub that runs; `None` where nobody can be asked.
    async fn infrahub_version(&self) -> Result<Option<String>, ProviderError> {
        Ok(None)
    }

    /// Removes what a killed run may have left running beside the services; how many things that were. Called before
    /// services are started again.
    async fn tidy(&self) -> Result<usize, ProviderError> {
        Ok(0)
    }

    /// Empties `service`, which is stopped, if what it holds is of no use once the databases hold something else. Tells what
    /// was done, if there was anything to do.
    async fn clear(&self, _service: &str) -> Result<Option<String>, ProviderError> {
        Ok(None)
    }
}

/// A deployment that is reached in one of the ways that there are.
#[derive(Clone)]
pub enum Reach {
    /// By the commands of a configuration file.
    Bespoke(Arc<BespokeProvider>, PathBuf),
    /// By a Docker engine.
    Docker(Arc<DockerProvider>),
}

impl Reach {
    /// What stops and starts its services.
    pub fn provider(&self) -> Arc<dyn Provider> {
        match self {
            Self::Bespoke(provider, _) => Arc::clone(provider) as Arc<dyn Provider>,
            Self::Docker(provider) => Arc::clone(provider) as Arc<dyn Provider>,
        }
    }

    /// What knows its flow runs, if anything does.
    pub fn task_manager(&self) -> Option<&dyn TaskManager> {
        match self {
            Self::Bespoke(..) => None,
            Self::Docker(provider) => Some(&**provider),
        }
    }

    /// The bucket of the artifact store, if that is in one.
    pub fn bucket(&self) -> Option<&BucketAccess> {
        match self {
            Self::Bespoke(..) => None,
            Self::Docker(provider) => provider.bucket(),
        }
    }

    /// What is reached.
    pub fn deployment(&self) -> &Deployment {
        match self {
            Self::Bespoke(provider, _) => provider.deployment(),
            Self::Docker(provider) => provider.deployment(),
        }
    }

    /// How it is reached again, for whoever comes after a killed run.
    pub fn way(&self) -> Way {
        match self {
            Self::Bespoke(_, path) => Way::Config(path.clone()),
            Self::Docker(provider) => Way::Docker(provider.way().clone()),
        }
    }
}

/// Why a deployment could not be reached as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// The configuration names no such service.
    #[error("service `{service}` is not in the configuration")]
    NoSuchService {
        /// The service asked for.
        service: String,
    },
    /// A service did not get into the wanted state in time.
    #[error("service `{service}` is not {wanted} after {} s", waited.as_secs())]
    NotInTime {
        /// The service.
        service: String,
        /// `stopped`, `running`, `ready`.
        wanted: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// A Docker engine, or a project on it, cannot be used.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// What a drill restored could not be taken away.
    #[error("the command `clean` of the scratch deployment did not end well")]
    Clean {
        /// How the command ended.
        #[source]
        source: exec::ExecError,
    },
    /// A command of a service did not end well.
    #[error("service `{service}` did not {action}")]
    Service {
        /// The service.
        service: String,
        /// What was to be done, as a verb.
        action: &'static str,
        /// How the command ended.
        #[source]
        source: exec::ExecError,
    },
}

impl ProviderError {
    /// Whether a server stopped, but not by itself.
    pub fn is_killed(&self) -> bool {
        matches!(self, Self::Docker(DockerError::Killed { .. }))
    }

    /// Whether a service that did not stop said no, so that it is not on its way down.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NoSuchService { .. } => true,
            Self::Service { source, .. } => source.is_refusal(),
            Self::NotInTime { .. } | Self::Docker(_) | Self::Clean { .. } => false,
        }
    }
}
