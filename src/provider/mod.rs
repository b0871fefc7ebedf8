//! How a deployment is reached: its processes and its services.
//!
//! A [`Provider`] stops, starts and probes services and runs commands; what is dumped and loaded is the business of
//! [`crate::component`]. Unknown is an error here, never a default.

pub mod bespoke;
pub mod config;
pub mod exec;
pub mod secret;

use std::time::Duration;

use async_trait::async_trait;

use crate::deployment::Deployment;

/// Whether a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    /// Its probe says that it runs.
    Running,
    /// Its probe says that it does not.
    Stopped,
}

/// Reaches one deployment.
#[async_trait]
pub trait Provider: Send + Sync {
    /// What is reached.
    fn deployment(&self) -> &Deployment;

    /// Whether `service` runs, by its probe.
    async fn state(&self, service: &str) -> Result<ServiceState, ProviderError>;

    /// Stops `service` and returns when its probe says that it is stopped.
    async fn stop(&self, service: &str) -> Result<(), ProviderError>;

    /// Starts `service`; [`Provider::wait_ready`] tells when it serves.
    async fn start(&self, service: &str) -> Result<(), ProviderError>;

    /// Waits until `service` serves, or `timeout` passes.
    async fn wait_ready(&self, service: &str, timeout: Duration) -> Result<(), ProviderError>;
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
