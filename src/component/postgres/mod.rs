//! A PostgreSQL database, dumped by `pg_dump` and loaded by `pg_restore` beside the one it replaces.
//!
//! Holds: a load that breaks leaves the target as it was ([`load`]). Passwords reach `pg_dump` and `pg_restore` by their
//! environment only. Does not: look into dumps ([`dump_format`]), or restore roles; a role that owns something in the dump
//! must exist.

pub mod dump_format;
mod inspect;
mod load;
mod session;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::session::Server;
use super::stream::ExecDump;
use super::{Component, ComponentError, DumpStream, LoadStream};
use crate::deployment::{ComponentInfo, Inspection};
use crate::env::Entropy;
use crate::provider::config::{ComponentConfig, PostgresSection};
use crate::provider::exec::CommandSpec;
use crate::provider::secret::Masker;

/// How often a starting server is asked, and how long it may take to answer.
const READY_PERIOD: Duration = Duration::from_millis(500);
const READY_QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Stands for the database in the arguments of a configured command.
const DATABASE_PLACEHOLDER: &str = "{database}";

/// One database of one server.
pub struct Postgres {
    info: ComponentInfo,
    server: Server,
    dump: Option<Vec<String>>,
    load: Option<Vec<String>>,
    masker: Masker,
    entropy: Arc<dyn Entropy>,
}

impl Postgres {
    /// Takes the configuration; `base` is how its commands run, without arguments.
    ///
    /// # Errors
    ///
    /// When there is no `[component.postgres]`.
    pub fn new(
        info: ComponentInfo,
        config: &ComponentConfig,
        base: CommandSpec,
        masker: Masker,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, ComponentError> {
        let section = config.postgres.clone();
        let section =
            section.ok_or_else(|| ComponentError::NotConfigured { component: info.name.clone(), what: "postgres" })?;
        let (dump, load) = (config.dump.clone(), config.load.clone());
        Ok(Self { dump, load, ..Self::at(info, section, base, masker, entropy) })
    }

    /// A server that is entered as `section` says, from where `base` runs.
    pub fn at(
        info: ComponentInfo,
        section: PostgresSection,
        base: CommandSpec,
        masker: Masker,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let server = Server::new(info.name.clone(), section, base, masker.clone());
        Self { info, server, dump: None, load: None, masker, entropy }
    }

    /// `own`, or the default command, for `database`.
    fn command(&self, own: Option<&Vec<String>>, default: Vec<String>, database: &str) -> CommandSpec {
        let argv = own.cloned().unwrap_or(default);
        let argv = argv.into_iter().map(|word| word.replace(DATABASE_PLACEHOLDER, database)).collect();
        self.server.command(argv, database)
    }

    fn dump_command(&self) -> CommandSpec {
        let mut argv = self.server.tool("pg_dump");
        // Not compressed: what is compressed does not deduplicate.
        argv.extend(["--format=custom", "--compress=0"].map(str::to_owned));
        argv.push(format!("--dbname={DATABASE_PLACEHOLDER}"));
        self.command(self.dump.as_ref(), argv, &self.server.section().database)
    }

    /// Owners and privileges are restored: without them the application is locked out of its own tables. A role that does
    /// not exist is an error, and the target stays as it was; who wants it otherwise configures `load`.
    fn load_command(&self, scratch: &str) -> CommandSpec {
        let mut argv = self.server.tool("pg_restore");
        argv.push("--exit-on-error".to_owned());
        argv.push(format!("--dbname={DATABASE_PLACEHOLDER}"));
        self.command(self.load.as_ref(), argv, scratch)
    }
}

#[async_trait]
impl Component for Postgres {
    fn info(&self) -> &ComponentInfo {
        &self.info
    }

    async fn inspect(&self) -> Result<Inspection, ComponentError> {
        inspect::inspect(&self.server).await
    }

    async fn dump(&self) -> Result<Box<dyn DumpStream>, ComponentError> {
        Ok(Box::new(ExecDump::start(&self.info.name, &self.dump_command(), &self.masker).await?))
    }

    async fn load(&self) -> Result<Box<dyn LoadStream>, ComponentError> {
        let scratch = load::Scratch::create(&self.server, &*self.entropy).await?;
        let spec = self.load_command(scratch.name());
        scratch.start(&spec, &self.masker).await
    }

    /// Asks the server, not the database: a load may be about to make it.
    async fn wait_ready(&self, timeout: Duration) -> Result<(), ComponentError> {
        let since = Instant::now();
        loop {
            let error = match self.server.maintenance(READY_QUERY_TIMEOUT).await {
                Ok(session) => match session.within(READY_QUERY_TIMEOUT).run("SELECT 1").await {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if since.elapsed() >= timeout {
                let (component, waited) = (self.info.name.clone(), since.elapsed());
                return Err(ComponentError::NotReady { component, waited, source: Box::new(error) });
            }
            tokio::time::sleep(READY_PERIOD).await;
        }
    }
}
