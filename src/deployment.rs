//! What there is to back up, as plain data: services, components, versions, each with its evidence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How a deployment is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeploymentKind {
    /// Files and standard input, nothing running.
    Files,
    /// Commands from a configuration file.
    Bespoke,
    /// The containers of a Compose project.
    Docker,
}

/// How a deployment is reached again, without secrets: what a journal remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// By this configuration file.
    Config(PathBuf),
    /// By a Docker engine.
    Docker(DockerWay),
}

/// A Compose project and the engine that runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerWay {
    /// Where the engine is.
    pub endpoint: Endpoint,
    /// The project.
    pub project: String,
}

/// Where a Docker engine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `unix://PATH` or `tcp://HOST:PORT`.
    pub host: String,
    /// The files for TLS, where it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
}

impl Endpoint {
    /// Its socket, where it is one of this machine.
    pub fn socket(&self) -> Option<&Path> {
        self.host.strip_prefix("unix://").map(Path::new)
    }
}

/// The files by which an engine and its client know each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFiles {
    /// Who signed the engine's certificate.
    pub ca: PathBuf,
    /// The client's certificate.
    pub cert: PathBuf,
    /// The client's key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// The usual names in a folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self { ca: folder.join("ca.pem"), cert: folder.join("cert.pem"), key: folder.join("key.pem") }
    }
}

/// One deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its name, which groups its snapshots.
    pub name: String,
    /// How it is reached.
    pub kind: DeploymentKind,
    /// Its services, in the order in which they start.
    pub services: Vec<String>,
    /// Its components, in the order in which they are dumped.
    pub components: Vec<ComponentInfo>,
    /// Where this was found, for people: the configuration file, the paths.
    pub evidence: String,
}

/// One component of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentInfo {
    /// `database`, `task-manager-db`, `artifacts`, or what a bespoke deployment calls it.
    pub name: String,
    /// What it is.
    pub kind: ComponentKind,
    /// The service whose server holds it, where one is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Services that must be stopped while it is dumped.
    pub stopped_for_dump: Vec<String>,
    /// Services that must be stopped while it is loaded.
    pub stopped_for_load: Vec<String>,
    /// The folder, where it is a folder of files.
    pub folder: Option<PathBuf>,
}

impl ComponentInfo {
    /// The services that must run for it to be asked: its server, else those that may be it.
    pub fn asked_of<'a>(&'a self, otherwise: &'a [String]) -> &'a [String] {
        self.service.as_ref().map_or(otherwise, std::slice::from_ref)
    }
}

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComponentKind {
    /// A Neo4j database, as a dump container.
    Neo4j,
    /// A PostgreSQL database, as a custom-format dump.
    Postgres,
    /// A folder of files.
    Artifacts,
    /// Anything else: a dump command and a load command.
    Opaque,
}

impl ComponentKind {
    /// The written form, as in manifests and configuration files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Neo4j => "neo4j",
            Self::Postgres => "postgres",
            Self::Artifacts => "artifacts",
            Self::Opaque => "opaque",
        }
    }
}

/// What was found out about a component by asking it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Version of the server, as it says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `community` or `enterprise`, where there are editions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edition: Option<String>,
    /// Size in bytes that its dump will have at most, roughly; for the progress bar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// What is counted, to compare after a restore: nodes, relationships, rows per table.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u64>,
    /// How this was found out: the query or command, and where it was asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
}
