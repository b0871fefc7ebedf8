//! Deployments with nothing to stop: components from paths or standard input, or brought by who calls this library.

use std::path::PathBuf;
use std::sync::Arc;

use crate::component::Component;
use crate::deployment::{ComponentInfo, ComponentKind, Deployment, DeploymentKind};
use crate::error::{Error, ErrorKind};

/// What `create from-files` was given. A path of `-` is standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesSource {
    /// Name that groups the snapshots.
    pub deployment: String,
    /// A Neo4j dump.
    pub neo4j: Option<PathBuf>,
    /// A PostgreSQL custom-format dump.
    pub postgres: Option<PathBuf>,
    /// A folder.
    pub artifacts: Option<PathBuf>,
    /// `community` or `enterprise`, as the user says.
    pub neo4j_edition: Option<String>,
    /// As the user says.
    pub infrahub_version: Option<String>,
}

impl FilesSource {
    /// The deployment that these files are.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if there is nothing to back up, or standard input is wanted twice.
    pub fn deployment(&self) -> Result<Deployment, Error> {
        let given = [
            ("database", ComponentKind::Neo4j, &self.neo4j),
            ("task-manager-db", ComponentKind::Postgres, &self.postgres),
            ("artifacts", ComponentKind::Artifacts, &self.artifacts),
        ];
        let components: Vec<ComponentInfo> = given
            .iter()
            .filter_map(|(name, kind, path)| {
                let folder = (*kind == ComponentKind::Artifacts).then(|| (*path).clone()).flatten();
                path.as_ref().map(|_| ComponentInfo {
                    name: (*name).to_owned(),
                    kind: *kind,
                    service: None,
                    stopped_for_dump: vec![],
                    stopped_for_load: vec![],
                    folder,
                })
            })
            .collect();
        if components.is_empty() {
            return Err(Error::new(ErrorKind::Usage, "nothing to back up: no path was given"));
        }
        let paths: Vec<&PathBuf> = given.iter().filter_map(|(_, _, path)| path.as_ref()).collect();
        if paths.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
            return Err(Error::new(ErrorKind::Usage, "standard input can be one component, not two"));
        }
        if self.artifacts.as_ref().is_some_and(|path| path.as_os_str() == "-") {
            return Err(Error::new(ErrorKind::Usage, "artifacts are a folder and cannot come from standard input"));
        }
        let evidence = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let name = self.deployment.clone();
        Ok(Deployment { name, kind: DeploymentKind::Files, services: vec![], components, evidence })
    }

    /// The path of a stream component.
    pub fn path(&self, component: &str) -> Option<&PathBuf> {
        match component {
            "database" => self.neo4j.as_ref(),
            "task-manager-db" => self.postgres.as_ref(),
            _ => None,
        }
    }
}

/// Components that the caller brings. Their services, if they have any, are the caller's to stop.
#[derive(Clone)]
pub struct BroughtSource {
    /// Name that groups the snapshots.
    pub deployment: String,
    /// What is dumped, in this order. Each is a stream: folders are given by path.
    pub components: Vec<Arc<dyn Component>>,
}

impl std::fmt::Debug for BroughtSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.components.iter().map(|component| component.info().name.as_str()).collect();
        f.debug_struct("BroughtSource").field("deployment", &self.deployment).field("components", &names).finish()
    }
}

impl BroughtSource {
    /// The deployment that these components are.
    pub fn deployment(&self) -> Deployment {
        Deployment {
            name: self.deployment.clone(),
            kind: DeploymentKind::Files,
            services: vec![],
            components: self.components.iter().map(|component| component.info().clone()).collect(),
            evidence: "brought by the caller".to_owned(),
        }
    }
}
