//! The connection to a Docker engine.
//!
//! Holds: an engine that does not answer is known within [`ANSWER_TIMEOUT`]. Requests that only ask are bounded by
//! [`REQUEST_TIMEOUT`]; those that wait for a container take as long as their caller allows.

use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};

use super::endpoint::Places;
use super::error::DockerError;
use crate::deployment::Endpoint;

/// How long an engine may take to say that it is there. An operator who mistyped is told within five seconds.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a question may take: an engine under load needs seconds for a list.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The client's own limit on the head of a response, in seconds: above every stop timeout that we ask for.
const CLIENT_TIMEOUT_SECONDS: u64 = 2 * 3600;

/// An engine that answered.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    endpoint: Endpoint,
}

impl Engine {
    /// Connects to the named place, or to the first of the usual ones that answers.
    ///
    /// # Errors
    ///
    /// [`DockerError::Unreachable`] or [`DockerError::NoEngine`], within [`ANSWER_TIMEOUT`].
    pub async fn find(places: &Places) -> Result<Self, DockerError> {
        let usual = match places {
            Places::Named(endpoint) => return Self::connect(endpoint).await,
            Places::Usual(usual) => usual,
        };
        let there = |endpoint: &&Endpoint| endpoint.socket().is_some_and(Path::exists);
        let sockets: Vec<&Endpoint> = usual.iter().filter(there).collect();
        let mut found = None;
        for endpoint in &sockets {
            match Self::connect(endpoint).await {
                Ok(engine) => return Ok(engine),
                Err(error) => drop(found.get_or_insert(error)),
            }
        }
        // A socket that is there and does not answer says more than those that are not there.
        let tried = usual.iter().map(|endpoint| format!("`{}`", endpoint.host)).collect();
        Err(found.filter(|_| sockets.len() == 1).unwrap_or(DockerError::NoEngine { tried }))
    }

    /// Connects to one place.
    ///
    /// # Errors
    ///
    /// [`DockerError::Unreachable`] within [`ANSWER_TIMEOUT`].
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, DockerError> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| DockerError::Unreachable {
            endpoint: endpoint.host.clone(),
            source,
        };
        let docker = client(endpoint).map_err(|error| unreachable(error.into()))?;
        let docker = tokio::time::timeout(ANSWER_TIMEOUT, docker.negotiate_version()).await;
        let docker = docker.map_err(|late| unreachable(late.into()))?.map_err(|error| unreachable(error.into()))?;
        Ok(Self { docker, endpoint: endpoint.clone() })
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Asks a question that is answered soon; `what` is a verb.
    pub(super) async fn ask<T>(
        &self,
        what: impl Into<String>,
        request: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, DockerError> {
        self.within(REQUEST_TIMEOUT, what, request).await
    }

    /// The same with a limit of the caller's.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        what: impl Into<String>,
        request: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, DockerError> {
        match tokio::time::timeout(limit, request).await {
            Ok(answer) => answer.map_err(|source| DockerError::Request { what: what.into(), source }),
            Err(_) => Err(DockerError::Slow { what: what.into(), seconds: limit.as_secs() }),
        }
    }
}

fn client(endpoint: &Endpoint) -> Result<Docker, bollard::errors::Error> {
    if endpoint.socket().is_some() {
        return Docker::connect_with_unix(&endpoint.host, CLIENT_TIMEOUT_SECONDS, API_DEFAULT_VERSION);
    }
    let Some(tls) = &endpoint.tls else {
        return Docker::connect_with_http(&endpoint.host, CLIENT_TIMEOUT_SECONDS, API_DEFAULT_VERSION);
    };
    // More than one crate brings a provider of cryptography, so one must be chosen; who chose before us chose well.
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| drop(rustls::crypto::aws_lc_rs::default_provider().install_default()));
    Docker::connect_with_ssl(&endpoint.host, &tls.key, &tls.cert, &tls.ca, CLIENT_TIMEOUT_SECONDS, API_DEFAULT_VERSION)
}
