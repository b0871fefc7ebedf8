//! What is backed up and how it is put back.
//!
//! A component gives a [`DumpStream`] and takes a [`LoadStream`]. The end of a stream is not success: only
//! [`DumpStream::finish`] gives an [`ExitOk`], and without one no component record can be built.

pub mod artifact_store;
pub mod files;
pub mod graph;
pub mod neo4j;
pub mod opaque;
mod open;
pub mod postgres;
pub mod stream;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use self::graph::Graph;
pub use self::open::{OpenComponents, open, open_components};
use crate::deployment::{ComponentInfo, Inspection};
use crate::provider::docker::DockerError;
use crate::provider::exec::ExecError;

/// Proof that the process behind a stream exited with 0, or that the file behind it was read to its end.
///
/// Only [`DumpStream::finish`] and [`LoadStream::finish`] of this wing make one.
#[derive(Debug, Clone)]
pub struct ExitOk {
    /// The command, secrets masked; or the path that was read.
    pub command: String,
    /// Bytes that crossed.
    pub bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// The last lines that the process wrote to its standard error, secrets masked.
    pub log: Vec<String>,
}

/// A component's bytes on their way out, plus the right to ask how its process ended.
#[async_trait]
pub trait DumpStream: Send {
    /// The next piece, at most [`crate::limits::INPUT_BLOCK_SIZE_MAX`] bytes, never empty; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, ComponentError>;

    /// Waits for the process. Anything but exit 0 is an error. A stream dropped before kills its process and all that it
    /// started.
    async fn finish(self: Box<Self>) -> Result<ExitOk, ComponentError>;

    /// Ends the process (and its group) now, without a verdict, and waits until it is gone.
    async fn abort(self: Box<Self>);
}

/// A component's bytes on their way back in.
#[async_trait]
pub trait LoadStream: Send {
    /// Hands over a piece; waits while the process does not take it.
    async fn write(&mut self, piece: Bytes) -> Result<(), ComponentError>;

    /// Ends the input, waits for the process, and makes what was loaded the component's content (PostgreSQL: renames the
    /// scratch database). Anything but exit 0 is an error.
    async fn finish(self: Box<Self>) -> Result<ExitOk, ComponentError>;

    /// Gives up: ends the process and removes what was loaded so far where the target allows it.
    async fn abort(self: Box<Self>);
}

/// A dump on its way through something that gives another one.
#[async_trait]
pub trait FilterStream: Send {
    /// Hands over a piece; waits while it is not taken.
    async fn write(&mut self, piece: Bytes) -> Result<(), ComponentError>;

    /// Ends the input. The other dump begins when all of it was worked on; its end tells whether that went well.
    async fn end_input(self: Box<Self>) -> Box<dyn DumpStream>;

    /// Gives up, and returns when nothing is left of it.
    async fn abort(self: Box<Self>);
}

/// Takes an id of the artifact store, and whether it is in use.
pub type TakeStorageId<'a> = dyn FnMut(&str, bool) + Send + 'a;

/// One component of a deployment whose content is a stream.
#[async_trait]
pub trait Component: Send + Sync {
    /// What it is.
    fn info(&self) -> &ComponentInfo;

    /// Asks the running component for version, edition, size and counts.
    async fn inspect(&self) -> Result<Inspection, ComponentError>;

    /// Starts its dump.
    async fn dump(&self) -> Result<Box<dyn DumpStream>, ComponentError>;

    /// Starts its load.
    async fn load(&self) -> Result<Box<dyn LoadStream>, ComponentError>;

    /// Asks the running component, if it is a graph, what it names in the artifact store: hands over each value of an attribute
    /// `storage_id`, and whether it is in use on any branch; one may come several times. `false` if it is no graph that can be asked.
    async fn storage_ids(&self, _take: &mut TakeStorageId<'_>) -> Result<bool, ComponentError> {
        Ok(false)
    }

    /// Waits until it answers queries, or `timeout` passes.
    async fn wait_ready(&self, timeout: Duration) -> Result<(), ComponentError>;

    /// The service in whose running containers its dump makes files, which it removes again.
    fn dumps_inside(&self) -> Option<&str> {
        None
    }

    /// Whether its backups can take users and roles along; else why not.
    fn takes_metadata(&self) -> Result<(), &'static str> {
        Err("it is no Neo4j database")
    }

    /// Refuses to take a dump that is a `backup` of Neo4j Enterprise, or not, where it does not fit or loading one is not built.
    async fn check_load(&self, _backup: bool) -> Result<(), ComponentError> {
        Ok(())
    }

    /// What takes a `backup` of Neo4j Enterprise while its server runs, if that is how it takes one.
    fn online_restore(&self) -> Option<&dyn OnlineRestore> {
        None
    }

    /// Whether it takes dumps of this edition, although it is of another.
    fn takes_edition(&self, _edition: &str) -> bool {
        false
    }

    /// What brings its store into the block format of Neo4j Enterprise, or why there is nothing that does.
    fn migration(&self) -> Result<&dyn Migration, &'static str> {
        Err("it is no Neo4j database")
    }

    /// What replaces values in its dump, or why there is nothing that does.
    fn redaction(&self) -> Result<&dyn Redaction, &'static str> {
        Err("it is no Neo4j database")
    }

    /// It as a graph that can be asked and told more; `None` if it is none, or no way to it is known.
    fn graph(&self) -> Option<&dyn Graph> {
        None
    }
}

/// Takes a `backup` of Neo4j Enterprise while its server goes on running.
#[async_trait]
pub trait OnlineRestore: Send + Sync {
    /// The service whose server that is. It is not stopped, and files are made in its containers and removed again.
    fn service(&self) -> &str;

    /// Starts to take one. What is there is touched by [`LoadStream::finish`] only, and the database is stopped behind it.
    ///
    /// # Errors
    ///
    /// When nothing can be written into the container.
    async fn load(&self) -> Result<Box<dyn LoadStream>, ComponentError>;

    /// Brings users and roles back, and starts the database that was loaded.
    ///
    /// # Errors
    ///
    /// When it does not come online. Then it may be stopped.
    async fn serve(&self) -> Result<Served, ComponentError>;
}

/// How a database came online again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// What was done.
    pub ran: Vec<String>,
    /// What was not, although it was to be.
    pub problems: Vec<String>,
}

/// Brings a store that was loaded into another format, before its server starts.
#[async_trait]
pub trait Migration: Send + Sync {
    /// Into the block format; gives the last lines of what was said. Anything but exit 0 is an error, and then what is there may
    /// be of neither format.
    ///
    /// # Errors
    ///
    /// When the command cannot be started, or does not end with 0.
    async fn to_block(&self) -> Result<Vec<String>, ComponentError>;
}

/// Replaces the values of attributes in a dump. What the dump was made of stays as it is.
#[async_trait]
pub trait Redaction: Send + Sync {
    /// Starts it. Whatever it needs is a place of its own, which is gone when the stream ended, was aborted or dropped.
    ///
    /// # Errors
    ///
    /// When that place cannot be made.
    async fn start(&self) -> Result<Box<dyn FilterStream>, ComponentError>;
}

/// Why a component could not be dumped, loaded or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComponentError {
    /// The process behind a stream did not do its work.
    #[error("the {action} of component `{component}` did not end well")]
    Exec {
        /// The component.
        component: String,
        /// `dump`, `load`, `migration` or `redaction`.
        action: &'static str,
        /// How it ended.
        #[source]
        source: ExecError,
    },
    /// A server keeps its database stopped, since what is in it may be half of something.
    #[error(
        "component `{component}` keeps its database `{database}` stopped, since not all of what it now holds may be there"
    )]
    LeftStopped {
        /// The component.
        component: String,
        /// The database of its server.
        database: String,
        /// What went wrong.
        #[source]
        source: Box<ComponentError>,
    },
    /// What the snapshot holds is nothing for it.
    #[error("component `{component}` does not fit the target: {problem}; nothing was touched")]
    Misfit {
        /// The component.
        component: String,
        /// Why.
        problem: String,
    },
    /// A file or standard input could not be read.
    #[error("component `{component}` cannot be read from `{path}`")]
    Read {
        /// The component.
        component: String,
        /// The path, or `-`.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A database did not answer a question.
    #[error("component `{component}` did not answer: {question}")]
    Query {
        /// The component.
        component: String,
        /// What was asked, without secrets.
        question: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It did not become ready.
    #[error("component `{component}` is not ready after {} s", waited.as_secs())]
    NotReady {
        /// The component.
        component: String,
        /// How long was waited.
        waited: Duration,
        /// What it answered last.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What holds it cannot be used.
    #[error("component `{component}` cannot be reached")]
    Docker {
        /// The component.
        component: String,
        /// Why.
        #[source]
        source: DockerError,
    },
    /// Its folder cannot be read from here.
    #[error("component `{component}` cannot be backed up: {problem}")]
    Folder {
        /// The component.
        component: String,
        /// Why.
        problem: String,
    },
    /// The configuration gives no command for this.
    #[error("component `{component}` has no `{what}` in the configuration")]
    NotConfigured {
        /// The component.
        component: String,
        /// The missing key.
        what: &'static str,
    },
    /// The edition of a Neo4j server did not become known; it must be configured or become askable.
    #[error("whether component `{component}` is Community or Enterprise is not known{}", found.as_ref().map_or_else(String::new, |found| format!(": it says `{found}`")))]
    EditionUnknown {
        /// The component.
        component: String,
        /// What the server said, if it said anything.
        found: Option<String>,
        /// Why it said nothing.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The server is of another edition than the configuration says.
    #[error("component `{component}` is configured as `{configured}` and says that it is `{found}`")]
    EditionDiffers {
        /// The component.
        component: String,
        /// The configured edition.
        configured: &'static str,
        /// What the server said.
        found: String,
    },
}
