//! The operations: plan, execute, report. Each takes a [`Context`] and values, and gives values; nothing here prints.
//!
//! A *plan* is a value that can be shown (that is what a dry run does) and is then consumed by its `execute`. Every
//! operation that touches a repository it can write to leaves a report in it, also when it fails.

pub mod artifacts;
pub mod audit;
pub mod census;
mod clear;
pub mod create;
pub mod diff;
pub mod drill;
pub mod dump;
pub mod evidence;
pub mod export;
pub mod files;
pub mod flush;
pub mod forget;
mod held;
pub mod import;
pub mod init;
pub mod keys;
pub mod pause;
pub mod prune;
mod rehearse;
pub mod repair;
pub mod replicate;
pub mod restore;
pub mod resume;
mod safety;
mod source_check;
pub mod start;
pub mod status;
pub mod streams;
mod tasks;
pub mod trees;
pub mod verify;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::env::{Clock, Entropy};
use crate::error::{Error, ErrorKind};
use crate::repository::executor::Executor;
use crate::repository::{Outside, Repository};
use crate::seal::slot::Credential;
use crate::state::{SeenMark, State};
use crate::storage::Store;

/// How important a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For who wants to see every step.
    Debug,
    /// What happens.
    Info,
    /// What the operator should look at.
    Warning,
}

/// How far a long piece of work is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// `dump`, `check`, `load`, `verify`.
    pub action: &'static str,
    /// Of what.
    pub target: String,
    /// Bytes so far.
    pub done_bytes: u64,
    /// Bytes in all, where that is known or can be guessed.
    pub total_bytes: Option<u64>,
}

/// Takes what an operation tells while it runs. Must not block.
pub trait Events: Send + Sync {
    /// A message for people.
    fn message(&self, level: Level, text: &str);
    /// Progress of long work; many times a second.
    fn progress(&self, progress: &Progress);
    /// The long work of this target ended.
    fn progress_done(&self, action: &'static str, target: &str);
}

/// Tells an operation to stop cleanly and restart what it stopped.
#[derive(Debug, Clone)]
pub struct Cancel(watch::Receiver<bool>);

impl Cancel {
    /// A sender that cancels when `true` is sent, and the receiving half.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (send, receive) = watch::channel(false);
        (send, Self(receive))
    }

    /// Whether to stop.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is time to stop; for ever if that never comes.
    pub async fn cancelled(&self) {
        let mut receive = self.0.clone();
        if receive.wait_for(|cancelled| *cancelled).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// An error if it is time to stop.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// Runs `work` unless it is time to stop, which drops it.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.cancelled() => Err(cancelled()),
            done = work => Ok(done),
        }
    }
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "interrupted")
}

/// What every operation needs.
#[derive(Clone)]
pub struct Context {
    /// Time and chance.
    pub outside: Outside,
    /// Where CPU work runs.
    pub executor: Arc<dyn Executor>,
    /// Stops the operation.
    pub cancel: Cancel,
    /// Takes messages and progress.
    pub events: Arc<dyn Events>,
    /// The state folder.
    pub state: Arc<State>,
    /// Where caches are kept.
    pub cache_folder: Option<PathBuf>,
    /// Host name, for evidence.
    pub host: String,
    /// Who runs it, for evidence.
    pub user: String,
}

/// Version of this program, as evidence names it.
pub const TOOL: &str = concat!("infrahub-backup ", env!("CARGO_PKG_VERSION"));

impl Context {
    /// Tells what happens.
    pub fn info(&self, text: impl AsRef<str>) {
        self.events.message(Level::Info, text.as_ref());
    }

    /// Tells what the operator should look at.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.events.message(Level::Warning, text.as_ref());
    }

    /// Time.
    pub fn clock(&self) -> &dyn Clock {
        &*self.outside.clock
    }

    /// Chance.
    pub fn entropy(&self) -> &dyn Entropy {
        &*self.outside.entropy
    }

    /// Remembers the newest mark: a repository without it was rolled back.
    async fn see_marks(&self, repository: &Repository) {
        let seen = match repository.record().await {
            Ok(record) => record.marks.last_key_value().map(|(number, mark)| (*number, mark.digest)),
            // Whoever reads it next says what is wrong.
            Err(_) => None,
        };
        let Some((number, digest)) = seen else { return };
        let (id, location) = (repository.config().repository, repository.store().location());
        if let Err(error) = self.state.see(id, &location, |seen| seen.mark = Some(SeenMark { number, digest })) {
            self.warn(Error::from(error).chain().join(": "));
        }
    }

    /// Opens the repository in `store` and brings the index up to date.
    pub async fn open(&self, store: Arc<dyn Store>, credential: &Credential) -> Result<Arc<Repository>, Error> {
        let opened =
            crate::repository::open::open(store, credential, self.cache_folder.as_deref(), self.outside.clone());
        let repository = Arc::new(opened.await?);
        for damage in repository.sync_index().await? {
            self.warn(format!("{damage}; what only it describes is treated as missing"));
        }
        Ok(repository)
    }
}
