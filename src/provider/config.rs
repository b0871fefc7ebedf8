//! The configuration file of a bespoke deployment: how each service is reached, stopped, started and probed, and how
//! each component is dumped and loaded.
//!
//! Holds: what [`BespokeConfig::parse`] returns is consistent: names are unique, every service that is named exists,
//! sections stand only where they belong, timeouts are possible. An unknown key is an error. Errors name the file, the line
//! where one is known, and never a value that may be secret. Does not: read a secret, or run anything.

mod check;
mod duration;
mod scratch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use self::duration::span;
pub use self::duration::{DurationError, parse_duration};
pub use self::scratch::ScratchSection;
use super::exec::{STALL_TIMEOUT_DEFAULT, TOTAL_TIMEOUT_DEFAULT};
use super::secret::{EnvValue, SecretSource};
use crate::deployment::ComponentKind;

/// Largest configuration file, in bytes: 1 MiB.
pub const CONFIG_SIZE_MAX: u64 = 1 << 20;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BespokeConfig {
    /// `[deployment]`: what this is.
    pub deployment: DeploymentSection,
    /// `[defaults]`: what holds where nothing nearer says otherwise.
    #[serde(default)]
    pub defaults: Defaults,
    /// `[[service]]`, in the order in which they start; they stop in reverse.
    #[serde(default, rename = "service")]
    pub services: Vec<ServiceConfig>,
    /// `[[component]]`, in the order in which they are dumped.
    #[serde(default, rename = "component")]
    pub components: Vec<ComponentConfig>,
    /// `[repository]`: where the backups are kept, if not said otherwise.
    #[serde(default)]
    pub repository: Option<RepositorySection>,
    /// `[scratch]`: a drill may overwrite what is here. Without it, none ever does.
    #[serde(default)]
    pub scratch: Option<ScratchSection>,
}

/// `[deployment]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentSection {
    /// Groups the snapshots of this deployment. Letters, digits, `-`, `_` and `.`, as all names.
    pub name: String,
}

/// `[defaults]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// How long a dump may give no byte, or a load take none, before it is killed: `"10m"`.
    #[serde(deserialize_with = "span")]
    pub stall_timeout: Duration,
    /// How long a dump or a load may take as a whole: `"12h"`.
    #[serde(deserialize_with = "span")]
    pub total_timeout: Duration,
    /// Put before every command that has no nearer `wrap`: `["ssh", "host", "--"]`. The environment does not cross `ssh`
    /// or `docker exec`: there, give secrets by files on the other side.
    pub wrap: Vec<String>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { stall_timeout: STALL_TIMEOUT_DEFAULT, total_timeout: TOTAL_TIMEOUT_DEFAULT, wrap: Vec::new() }
    }
}

/// `[[service]]`: something that runs and can be stopped.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// What components call it.
    pub name: String,
    /// Put before every command of this service, and of its components that have no `wrap`; `[]` for nothing.
    #[serde(default)]
    pub wrap: Option<Vec<String>>,
    /// Stops it. May return early: the probe tells when it is stopped.
    pub stop: Vec<String>,
    /// Starts it in the background, its output not going where this command's goes.
    pub start: Vec<String>,
    /// Exit 0: it runs. One of `stopped_codes`: it is stopped. Anything else is an error.
    pub probe: Vec<String>,
    /// Exit codes of `probe` that mean stopped: `[1]`; `systemctl is-active` says 3.
    #[serde(default = "stopped_codes")]
    pub stopped_codes: Vec<i32>,
    /// Exit 0: it serves. Without it, a service that runs counts as serving.
    #[serde(default)]
    pub ready: Option<Vec<String>>,
    /// Environment of these commands.
    #[serde(default)]
    pub env: BTreeMap<String, EnvValue>,
    /// How long it may take to stop: `"3m"`.
    #[serde(default = "stop_timeout", deserialize_with = "span")]
    pub stop_timeout: Duration,
    /// How long it may take to start: `"5m"`.
    #[serde(default = "start_timeout", deserialize_with = "span")]
    pub start_timeout: Duration,
    /// How long one `probe` or `ready` may take: `"30s"`.
    #[serde(default = "probe_timeout", deserialize_with = "span")]
    pub probe_timeout: Duration,
}

fn stopped_codes() -> Vec<i32> {
    vec![1]
}

fn stop_timeout() -> Duration {
    Duration::from_secs(3 * 60)
}

fn start_timeout() -> Duration {
    Duration::from_secs(5 * 60)
}

fn probe_timeout() -> Duration {
    Duration::from_secs(30)
}

/// `[[component]]`: something that is backed up.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentConfig {
    /// `database`, `task-manager-db`, `artifacts`, or any other name.
    pub name: String,
    /// `neo4j`, `postgres`, `artifacts` or `opaque`.
    pub kind: ComponentKind,
    /// The service that is this component's server. Stopped where the kind asks for it: a Neo4j Community database while
    /// it is dumped and loaded.
    #[serde(default)]
    pub service: Option<String>,
    /// Further services that are stopped while it is dumped and loaded, since they would write to it.
    #[serde(default)]
    pub also_stop: Vec<String>,
    /// Further services that are stopped while it is loaded, but not while it is dumped.
    #[serde(default)]
    pub also_stop_for_load: Vec<String>,
    /// Put before `dump` and `load`; without it the service's `wrap`, then the default one. `[]` for nothing.
    #[serde(default)]
    pub wrap: Option<Vec<String>>,
    /// Writes the dump to its standard output. PostgreSQL has a default: `pg_dump`, custom format, not compressed.
    #[serde(default)]
    pub dump: Option<Vec<String>>,
    /// Reads a dump from its standard input. PostgreSQL has a default: `pg_restore`. For PostgreSQL, `{database}` in an
    /// argument stands for the scratch database that must be loaded; it is in `PGDATABASE` too.
    #[serde(default)]
    pub load: Option<Vec<String>>,
    /// Environment of `dump` and `load`.
    #[serde(default)]
    pub env: BTreeMap<String, EnvValue>,
    /// Where `dump` and `load` run.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// As in `[defaults]`, for this component.
    #[serde(default, deserialize_with = "duration::optional_span")]
    pub stall_timeout: Option<Duration>,
    /// As in `[defaults]`, for this component.
    #[serde(default, deserialize_with = "duration::optional_span")]
    pub total_timeout: Option<Duration>,
    /// The folder of kind `artifacts`: an absolute path on this machine.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// The edition of kind `neo4j`; `auto` asks the running server.
    #[serde(default)]
    pub edition: Option<EditionSetting>,
    /// `[component.neo4j]`: how the server is asked.
    #[serde(default)]
    pub neo4j: Option<Neo4jSection>,
    /// `[component.postgres]`: how the server is reached.
    #[serde(default)]
    pub postgres: Option<PostgresSection>,
}

/// Which Neo4j this is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EditionSetting {
    /// Ask the server; an answer that is missing or unknown is an error.
    #[default]
    Auto,
    /// Stopped while it is dumped.
    Community,
    /// Dumped while it runs; stopped through its `system` database while it is loaded.
    Enterprise,
}

/// `[component.neo4j]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neo4jSection {
    /// `bolt://host:7687`, or `bolt+s://…` for TLS; no user and password in it.
    pub uri: String,
    /// The user.
    #[serde(default = "neo4j_name")]
    pub user: String,
    /// The user's password. Without it, none is sent.
    #[serde(default)]
    pub password: Option<SecretSource>,
    /// The database.
    #[serde(default = "neo4j_name")]
    pub database: String,
}

fn neo4j_name() -> String {
    "neo4j".to_owned()
}

/// `[component.postgres]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSection {
    /// Host name, address, or the folder of the server's socket.
    #[serde(default = "postgres_host")]
    pub host: String,
    /// Port.
    #[serde(default = "postgres_port")]
    pub port: u16,
    /// The user. A load makes and renames databases: `CREATEDB`, and owner of the database, or superuser.
    pub user: String,
    /// The user's password. Without it, none is sent; `pg_dump` may still find one in `~/.pgpass`.
    #[serde(default)]
    pub password: Option<SecretSource>,
    /// The database.
    pub database: String,
    /// A database that always exists, to connect to while databases are renamed.
    #[serde(default = "postgres_maintenance")]
    pub maintenance_database: String,
    /// The folder of `pg_dump` and `pg_restore`, where the commands run; without it they are found by `PATH`.
    #[serde(default)]
    pub bin: Option<PathBuf>,
    /// Whether the rows of each table are counted, to compare after a restore. It reads every table once.
    #[serde(default = "yes")]
    pub count_rows: bool,
}

fn postgres_host() -> String {
    "127.0.0.1".to_owned()
}

fn postgres_port() -> u16 {
    5432
}

fn postgres_maintenance() -> String {
    "postgres".to_owned()
}

fn yes() -> bool {
    true
}

/// `[repository]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepositorySection {
    /// Where it is.
    pub url: Option<String>,
    /// The key file that opens it.
    pub key_file: Option<PathBuf>,
    /// The file with the passphrase that opens it.
    pub password_file: Option<PathBuf>,
}

impl BespokeConfig {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is not what this module describes, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        use std::io::Read;

        let error = |source| ConfigError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(error)?;
        let mut text = String::new();
        file.take(CONFIG_SIZE_MAX + 1).read_to_string(&mut text).map_err(error)?;
        if text.len() as u64 > CONFIG_SIZE_MAX {
            return Err(ConfigError::TooLong { path: path.to_owned() });
        }
        Self::parse(&text, path)
    }

    /// Checks `text`, which came from `path`.
    ///
    /// # Errors
    ///
    /// When it is not what this module describes, or contradicts itself.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        // The parser's own error shows the whole line, where a misplaced password may stand. Its message alone does not.
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            message: error.message().trim_end().replace('\n', ", "),
        })?;
        let invalid = |problem| ConfigError::Invalid { path: path.to_owned(), problem };
        check::check(&config).map_err(invalid)?;
        Ok(config)
    }

    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<&ServiceConfig> {
        self.services.iter().find(|service| service.name == name)
    }

    /// What stands before the commands of `service`.
    pub fn service_wrap(&self, service: &ServiceConfig) -> Vec<String> {
        service.wrap.clone().unwrap_or_else(|| self.defaults.wrap.clone())
    }

    /// What stands before the commands of `component`: its own, its service's, or the default.
    pub fn component_wrap(&self, component: &ComponentConfig) -> Vec<String> {
        let service = component.service.as_deref().and_then(|name| self.service(name));
        let of_service = || service.and_then(|service| service.wrap.clone());
        component.wrap.clone().or_else(of_service).unwrap_or_else(|| self.defaults.wrap.clone())
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    #[error("the configuration `{}` cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It is larger than [`CONFIG_SIZE_MAX`].
    #[error("the configuration `{}` is larger than {CONFIG_SIZE_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It is not TOML, or has a key or a value that is not known here.
    #[error("`{}` line {line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// It contradicts itself.
    #[error("`{}`: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}
