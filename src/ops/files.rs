//! The deployment `files`: components from paths or standard input, nothing running.

use std::path::PathBuf;

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
