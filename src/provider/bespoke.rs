//! A deployment that a configuration file describes.
//!
//! Holds: [`Provider::stop`] returns only when the probe says stopped; a probe that says neither is an error at once. A service
//! has one part, itself.
//! Does not: decide what to stop, or start again what it stopped (`ops` does).

use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::config::{BespokeConfig, ComponentConfig, EditionSetting, ServiceConfig};
use super::exec::{self, CommandSpec, ExecError};
use super::secret::Masker;
use super::{Part, Provider, ProviderError, ServiceState};
use crate::deployment::{ComponentInfo, ComponentKind, Deployment, DeploymentKind};

/// How often a service that stops or starts is probed.
pub const PROBE_PERIOD: Duration = Duration::from_millis(500);

/// Reaches a deployment by the commands of its configuration.
pub struct BespokeProvider {
    config: BespokeConfig,
    deployment: Deployment,
    masker: Masker,
}

impl BespokeProvider {
    /// Takes a configuration that came from `path`. Runs nothing and reads no secret yet.
    ///
    /// A Neo4j whose edition must still be asked for is listed as if it were Community, which stops more;
    /// [`crate::component::open_components`] asks.
    pub fn new(config: BespokeConfig, path: &Path) -> Self {
        let deployment = Deployment {
            name: config.deployment.name.clone(),
            kind: DeploymentKind::Bespoke,
            services: config.services.iter().map(|service| service.name.clone()).collect(),
            components: config.components.iter().map(|component| info(component, edition(component))).collect(),
            evidence: format!("configuration file `{}`", path.display()),
        };
        Self { config, deployment, masker: Masker::default() }
    }

    /// The configuration.
    pub fn config(&self) -> &BespokeConfig {
        &self.config
    }

    /// Takes away what a drill restored; whether there is a command that does.
    ///
    /// # Errors
    /// If it does not end well.
    pub async fn clean(&self) -> Result<bool, ProviderError> {
        let clean = self.config.scratch.as_ref().and_then(|scratch| scratch.clean.clone());
        let Some(argv) = clean else { return Ok(false) };
        let defaults = &self.config.defaults;
        let spec = CommandSpec {
            wrap: defaults.wrap.clone(),
            total_timeout: defaults.total_timeout,
            ..CommandSpec::new(argv)
        };
        exec::run(&spec, &self.masker).await.map_err(|source| ProviderError::Clean { source })?;
        Ok(true)
    }

    /// Knows every secret that was read so far.
    pub fn masker(&self) -> &Masker {
        &self.masker
    }

    fn service(&self, name: &str) -> Result<&ServiceConfig, ProviderError> {
        self.config.service(name).ok_or_else(|| ProviderError::NoSuchService { service: name.to_owned() })
    }

    async fn run(&self, service: &ServiceConfig, argv: &[String], limit: Duration) -> Result<(), ExecError> {
        let spec = CommandSpec {
            env: service.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            wrap: self.config.service_wrap(service),
            total_timeout: limit,
            ..CommandSpec::new(argv.to_vec())
        };
        exec::run(&spec, &self.masker).await.map(drop)
    }

    async fn probe(&self, service: &ServiceConfig) -> Result<ServiceState, ProviderError> {
        match self.run(service, &service.probe, service.probe_timeout).await {
            Ok(()) => Ok(ServiceState::Running),
            Err(ExecError::Exit { code, .. }) if service.stopped_codes.contains(&code) => Ok(ServiceState::Stopped),
            Err(source) => Err(failed(service, "answer its probe", source)),
        }
    }

    /// Probes until the state is `wanted`.
    async fn wait_for(
        &self,
        service: &ServiceConfig,
        wanted: ServiceState,
        limit: Duration,
    ) -> Result<(), ProviderError> {
        let since = Instant::now();
        while self.probe(service).await? != wanted {
            if since.elapsed() >= limit {
                let wanted = match wanted {
                    ServiceState::Running => "running",
                    ServiceState::Stopped => "stopped",
                };
                return Err(ProviderError::NotInTime {
                    service: service.name.clone(),
                    wanted,
                    waited: since.elapsed(),
                });
            }
            tokio::time::sleep(PROBE_PERIOD).await;
        }
        Ok(())
    }
}

fn failed(service: &ServiceConfig, action: &'static str, source: ExecError) -> ProviderError {
    ProviderError::Service { service: service.name.clone(), action, source }
}

#[async_trait]
impl Provider for BespokeProvider {
    fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    async fn state(&self, service: &str) -> Result<ServiceState, ProviderError> {
        self.probe(self.service(service)?).await
    }

    async fn parts(&self, service: &str) -> Result<Vec<Part>, ProviderError> {
        match self.config.service(service) {
            None => Ok(vec![]),
            Some(found) => Ok(vec![Part { name: service.to_owned(), state: self.probe(found).await? }]),
        }
    }

    async fn stop(&self, service: &str, _parts: &[String]) -> Result<(), ProviderError> {
        let service = self.service(service)?;
        let since = Instant::now();
        let stopped = self.run(service, &service.stop, service.stop_timeout).await;
        stopped.map_err(|source| failed(service, "stop", source))?;
        let left = service.stop_timeout.saturating_sub(since.elapsed());
        self.wait_for(service, ServiceState::Stopped, left).await
    }

    async fn start(&self, service: &str, _parts: &[String]) -> Result<(), ProviderError> {
        let service = self.service(service)?;
        let started = self.run(service, &service.start, service.start_timeout).await;
        started.map_err(|source| failed(service, "start", source))
    }

    async fn wait_ready(&self, service: &str, _parts: &[String], timeout: Duration) -> Result<(), ProviderError> {
        let service = self.service(service)?;
        let Some(ready) = &service.ready else {
            return self.wait_for(service, ServiceState::Running, timeout).await;
        };
        let since = Instant::now();
        loop {
            match self.run(service, ready, service.probe_timeout).await {
                Ok(()) => return Ok(()),
                // Not yet: it said no, or took too long to say anything.
                Err(ExecError::Exit { .. } | ExecError::TotalTimeout { .. }) if since.elapsed() < timeout => {}
                Err(ExecError::Exit { .. } | ExecError::TotalTimeout { .. }) => {
                    let (service, waited) = (service.name.clone(), since.elapsed());
                    return Err(ProviderError::NotInTime { service, wanted: "ready", waited });
                }
                Err(source) => return Err(failed(service, "answer its readiness probe", source)),
            }
            tokio::time::sleep(PROBE_PERIOD).await;
        }
    }
}

/// Whether a dump stops the server; `auto` counts as Community until the server was asked.
fn edition(component: &ComponentConfig) -> EditionSetting {
    component.edition.unwrap_or_default()
}

/// What a component is, given the edition of its Neo4j; `edition` does not matter for other kinds.
pub fn info(component: &ComponentConfig, edition: EditionSetting) -> ComponentInfo {
    let stops_server = match (component.kind, edition) {
        (ComponentKind::Neo4j, EditionSetting::Auto | EditionSetting::Community) => true,
        (ComponentKind::Neo4j, EditionSetting::Enterprise) => false,
        (ComponentKind::Postgres | ComponentKind::Artifacts | ComponentKind::Opaque, _) => false,
    };
    // Files that a running server may write are not put back under it.
    let stops_for_load = stops_server || component.kind == ComponentKind::Artifacts;
    let own = |stops: bool| component.service.iter().filter(move |_| stops);
    let stopped_for_dump = names(own(stops_server).chain(&component.also_stop));
    let for_load = own(stops_for_load).chain(&component.also_stop).chain(&component.also_stop_for_load);
    ComponentInfo {
        name: component.name.clone(),
        kind: component.kind,
        service: component.service.clone(),
        stopped_for_dump,
        stopped_for_load: names(for_load),
        folder: component.path.clone(),
    }
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut unique: Vec<String> = Vec::new();
    for name in names {
        if !unique.contains(name) {
            unique.push(name.clone());
        }
    }
    unique
}
