//! A Neo4j database, Community or Enterprise.
//!
//! Holds: an edition that is not known is an error, never a default. Community is stopped by its service while it is dumped
//! and loaded ([`community`]); Enterprise is dumped as it runs and stopped through its `system` database while it is
//! loaded ([`enterprise`]). Does not: look into dumps ([`dump_format`]).

mod bolt;
mod community;
pub mod container;
pub mod dump_format;
mod enterprise;
mod online;
pub mod scrub;
mod shell;
mod storage_ids;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

use self::bolt::{Bolt, BoltError};
use super::graph::{self, Graph, NewDeploymentId, Root};
use super::opaque::wanted;
use super::stream::ExecDump;
use super::{Component, ComponentError, DumpStream, LoadStream, Migration, Redaction, TakeStorageId};
use crate::deployment::{ComponentInfo, Inspection};
use crate::provider::bespoke::info;
use crate::provider::config::{ComponentConfig, EditionSetting};
use crate::provider::exec::CommandSpec;
use crate::provider::secret::Masker;

/// How long one question may take: counts come from the store's own counters and are quick.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a starting server is asked, and how long it may take to answer.
const READY_PERIOD: Duration = Duration::from_millis(500);
const READY_QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a Community database is not migrated.
const COMMUNITY_HAS_NO_BLOCK_FORMAT: &str = "it is Neo4j Community, which cannot open that format";

/// What is sold as two products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edition {
    /// Dumped and loaded while its server is stopped.
    Community,
    /// Has online backup and several databases.
    Enterprise,
}

impl Edition {
    /// The written form, as the server says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Community => "community",
            Self::Enterprise => "enterprise",
        }
    }

    fn setting(self) -> EditionSetting {
        match self {
            Self::Community => EditionSetting::Community,
            Self::Enterprise => EditionSetting::Enterprise,
        }
    }
}

/// Which users and roles a backup of Enterprise takes along.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Metadata {
    /// Both.
    #[default]
    All,
    /// Neither.
    None,
    /// Users alone.
    Users,
    /// Roles alone.
    Roles,
}

impl Metadata {
    /// All that there are, as they are written.
    pub const NAMES: [&str; 4] = ["all", "none", "users", "roles"];

    /// The one that is written like this.
    pub fn named(name: &str) -> Option<Self> {
        [Self::All, Self::None, Self::Users, Self::Roles].into_iter().find(|metadata| metadata.as_str() == name)
    }

    /// The written form, as `neo4j-admin database backup --include-metadata` takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::None => "none",
            Self::Users => "users",
            Self::Roles => "roles",
        }
    }
}

/// One database of one server.
pub struct Neo4j {
    info: ComponentInfo,
    edition: Edition,
    bolt: Option<Bolt>,
    dump: Option<CommandSpec>,
    load: Option<CommandSpec>,
    masker: Masker,
}

impl Neo4j {
    /// Takes the configuration, and asks the server for its edition when that is `auto`.
    ///
    /// # Errors
    ///
    /// When the edition does not become known.
    pub async fn open(
        config: &ComponentConfig,
        dump: Option<CommandSpec>,
        load: Option<CommandSpec>,
        masker: Masker,
    ) -> Result<Self, ComponentError> {
        let bolt = config.neo4j.clone().map(|section| Bolt::new(section, masker.clone()));
        let edition = match config.edition.unwrap_or_default() {
            EditionSetting::Community => Edition::Community,
            EditionSetting::Enterprise => Edition::Enterprise,
            EditionSetting::Auto => ask_edition(&config.name, bolt.as_ref()).await?,
        };
        Ok(Self { info: info(config, edition.setting()), edition, bolt, dump, load, masker })
    }

    /// Its edition.
    pub fn edition(&self) -> Edition {
        self.edition
    }

    fn known_bolt(&self) -> Result<&Bolt, ComponentError> {
        let missing = || ComponentError::NotConfigured { component: self.info.name.clone(), what: "neo4j.uri" };
        self.bolt.as_ref().ok_or_else(missing)
    }

    fn query_error(&self, question: &str, source: BoltError) -> ComponentError {
        query_error(&self.info.name, question, source)
    }
}

fn query_error(component: &str, question: &str, source: BoltError) -> ComponentError {
    ComponentError::Query { component: component.to_owned(), question: question.to_owned(), source: Box::new(source) }
}

async fn ask_edition(component: &str, bolt: Option<&Bolt>) -> Result<Edition, ComponentError> {
    let unknown = |found: Option<String>, source| ComponentError::EditionUnknown {
        component: component.to_owned(),
        found,
        source,
    };
    let bolt = bolt.ok_or_else(|| unknown(None, None))?;
    let server = bolt.server(QUERY_TIMEOUT).await;
    let server = server.map_err(|source| unknown(None, Some(Box::new(source) as Box<_>)))?;
    edition_named(&server.edition).ok_or_else(|| unknown(Some(server.edition), None))
}

/// Refuses a backup of Enterprise where the server is Community.
fn check_edition(component: &str, edition: Edition, backup: bool) -> Result<(), ComponentError> {
    match (edition, backup) {
        (Edition::Community, true) => Err(ComponentError::Misfit {
            component: component.to_owned(),
            problem: "the snapshot holds a backup of Neo4j Enterprise, and the target is Community".to_owned(),
        }),
        (Edition::Community, false) | (Edition::Enterprise, _) => Ok(()),
    }
}

/// The edition that a server calls by this name.
fn edition_named(name: &str) -> Option<Edition> {
    match name {
        "community" => Some(Edition::Community),
        "enterprise" => Some(Edition::Enterprise),
        _ => None,
    }
}

#[async_trait]
impl Component for Neo4j {
    fn info(&self) -> &ComponentInfo {
        &self.info
    }

    /// Version, edition and the counts of nodes and relationships. The size of the store is not told by bolt.
    async fn inspect(&self) -> Result<Inspection, ComponentError> {
        let Some(bolt) = &self.bolt else {
            return Ok(Inspection {
                edition: Some(self.edition.as_str().to_owned()),
                evidence: "edition from the configuration; the server was not asked".to_owned(),
                ..Inspection::default()
            });
        };
        let server = bolt.server(QUERY_TIMEOUT).await.map_err(|e| self.query_error("CALL dbms.components()", e))?;
        let mut inspection = Inspection {
            version: Some(server.version),
            edition: Some(server.edition.clone()),
            evidence: format!("dbms.components() and counts in database `{}` at {}", bolt.database(), bolt.uri()),
            ..Inspection::default()
        };
        if server.edition != self.edition.as_str() {
            return Err(ComponentError::EditionDiffers {
                component: self.info.name.clone(),
                configured: self.edition.as_str(),
                found: server.edition,
            });
        }
        for (what, question) in [
            ("nodes", "MATCH (n) RETURN count(n) AS value"),
            ("relationships", "MATCH ()-[r]->() RETURN count(r) AS value"),
        ] {
            let count = bolt.count(question, QUERY_TIMEOUT).await.map_err(|e| self.query_error(question, e))?;
            inspection.counts.insert(what.to_owned(), count);
        }
        Ok(inspection)
    }

    async fn storage_ids(&self, take: &mut TakeStorageId<'_>) -> Result<bool, ComponentError> {
        let Some(bolt) = &self.bolt else { return Ok(false) };
        let asked = bolt.storage_ids(storage_ids::QUESTION, storage_ids::TIMEOUT, take).await;
        asked.map_err(|error| self.query_error(storage_ids::QUESTION, error))?;
        Ok(true)
    }

    async fn check_load(&self, backup: bool) -> Result<(), ComponentError> {
        check_edition(&self.info.name, self.edition, backup)
    }

    async fn dump(&self) -> Result<Box<dyn DumpStream>, ComponentError> {
        let spec = wanted(&self.info, self.dump.as_ref(), "dump")?;
        Ok(Box::new(ExecDump::start(&self.info.name, spec, &self.masker).await?))
    }

    async fn load(&self) -> Result<Box<dyn LoadStream>, ComponentError> {
        let spec = wanted(&self.info, self.load.as_ref(), "load")?;
        match (self.edition, &self.bolt) {
            (Edition::Community, _) => community::load(&self.info.name, spec, &self.masker).await,
            (Edition::Enterprise, Some(bolt)) => enterprise::load(&self.info.name, spec, &self.masker, bolt).await,
            (Edition::Enterprise, None) => {
                Err(ComponentError::NotConfigured { component: self.info.name.clone(), what: "neo4j.uri" })
            }
        }
    }

    /// Asks the database itself. Without bolt there is nothing to ask, and the provider's readiness is all there is.
    async fn wait_ready(&self, timeout: Duration) -> Result<(), ComponentError> {
        let Some(bolt) = &self.bolt else { return Ok(()) };
        let since = Instant::now();
        loop {
            match bolt.count("RETURN 1 AS value", READY_QUERY_TIMEOUT).await {
                Ok(_) => return Ok(()),
                Err(source) if since.elapsed() >= timeout => {
                    let (component, waited) = (self.info.name.clone(), since.elapsed());
                    return Err(ComponentError::NotReady { component, waited, source: Box::new(source) });
                }
                Err(_) => tokio::time::sleep(READY_PERIOD).await,
            }
        }
    }

    fn takes_metadata(&self) -> Result<(), &'static str> {
        match self.edition {
            Edition::Community => Err("it is Neo4j Community, whose dumps hold none"),
            Edition::Enterprise => Err("its dump command is yours: give `--include-metadata` there"),
        }
    }

    fn migration(&self) -> Result<&dyn Migration, &'static str> {
        match self.edition {
            Edition::Community => Err(COMMUNITY_HAS_NO_BLOCK_FORMAT),
            Edition::Enterprise => Err("a configuration file names no command for it: make it a part of `load` there"),
        }
    }

    fn redaction(&self) -> Result<&dyn Redaction, &'static str> {
        Err("a configuration file names no command for it: make it a part of `dump` there, behind the database's own")
    }

    fn graph(&self) -> Option<&dyn Graph> {
        self.bolt.is_some().then_some(self)
    }
}

#[async_trait]
impl Graph for Neo4j {
    async fn root(&self) -> Result<Root, ComponentError> {
        self.known_bolt()?.root(QUERY_TIMEOUT).await.map_err(|error| self.query_error(graph::ROOT, error))
    }

    async fn set_root(&self, id: NewDeploymentId, now: Timestamp) -> Result<(), ComponentError> {
        let statement = graph::set_root(id, now);
        let done = self.known_bolt()?.run(&statement, QUERY_TIMEOUT).await;
        done.map_err(|error| self.query_error(&statement, error))
    }
}
