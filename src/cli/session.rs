//! What a command works with: settings, context, log, standard output.

use std::io::IsTerminal;
use std::sync::Arc;

use super::failure::Failure;
use super::log::Log;
use super::place;
use super::render::Out;
use super::settings::Settings;
use super::variables::get;
use super::{credential, legacy};
use crate::error::{Error, ErrorKind};
use crate::format::config::Config;
use crate::ops::{Cancel, Context};
use crate::repository::executor::RayonExecutor;
use crate::repository::snapshots::{Snapshot, by_prefix};
use crate::repository::{Outside, Repository};
use crate::state::State;
use crate::storage::Store;

/// What a command works with.
pub struct Session {
    /// Where things are.
    pub settings: Settings,
    /// What operations need.
    pub context: Context,
    /// Standard error.
    pub log: Arc<Log>,
    /// Standard output.
    pub out: Out,
}

impl Session {
    /// Opens the state folder and gathers the rest.
    pub fn new(settings: Settings, log: Arc<Log>, out: Out, cancel: Cancel) -> Result<Self, Failure> {
        let state = State::open(settings.state_dir()?)
            .map_err(|error| Failure::from(error).hint("name a folder that can be written: --state-dir DIR"))?;
        let context = Context {
            outside: Outside::system(),
            executor: Arc::new(RayonExecutor),
            cancel,
            events: log.clone(),
            state: Arc::new(state),
            cache_folder: settings.cache_dir(),
            host: host(),
            user: user(),
        };
        Ok(Self { settings, context, log, out })
    }

    /// Opens the repository, which must be there and the one that was there before.
    pub async fn open(&self) -> Result<Arc<Repository>, Failure> {
        let place = place::look(&self.settings, &self.context.state).await?;
        let (store, config) = place.repository()?;
        self.open_found(store, &config).await
    }

    /// Opens a repository that was found at its place, and remembers that it was there.
    pub async fn open_found(&self, store: Arc<dyn Store>, config: &Config) -> Result<Arc<Repository>, Failure> {
        let cancel = &self.context.cancel;
        let credential = cancel.or(credential::to_open(&self.settings, config)).await??;
        let repository = cancel.or(self.context.open(store, &credential)).await??;
        place::remember(&self.context.state, &repository, self.settings.global().accept_new_repository)?;
        Ok(repository)
    }

    /// All snapshots, oldest first; damage among them is told and counted.
    pub async fn snapshots(&self, repository: &Repository) -> Result<(Vec<Snapshot>, usize), Failure> {
        let (snapshots, damages) = self.context.cancel.or(repository.snapshots()).await?.map_err(Error::from)?;
        damages.iter().for_each(|damage| self.context.warn(damage.to_string()));
        Ok((snapshots, damages.len()))
    }

    /// The snapshot that `text` names: an id, a beginning of one, or `latest`: the newest complete one, of `deployment`
    /// where one is given.
    pub async fn snapshot(
        &self,
        repository: &Repository,
        text: &str,
        deployment: Option<&str>,
    ) -> Result<Snapshot, Failure> {
        legacy::refuse_archive(text)?;
        if text == "latest" {
            return newest(self.snapshots(repository).await?.0, deployment, |_| true);
        }
        self.snapshot_by_id(repository, text).await
    }

    /// The snapshot whose id `text` is, or begins.
    pub async fn snapshot_by_id(&self, repository: &Repository, text: &str) -> Result<Snapshot, Failure> {
        let (mut snapshots, _) = self.snapshots(repository).await?;
        let id = by_prefix(snapshots.iter().map(|snapshot| &snapshot.id), text).map_err(Error::from)?;
        snapshots.retain(|snapshot| snapshot.id == id);
        Ok(snapshots.pop().expect("the id was found among them"))
    }
}

/// The newest complete snapshot, of `deployment` where one is given, for which `wanted` holds.
pub fn newest(
    snapshots: Vec<Snapshot>,
    deployment: Option<&str>,
    wanted: impl Fn(&Snapshot) -> bool,
) -> Result<Snapshot, Failure> {
    let fits = |snapshot: &Snapshot| {
        // What a restore saved of the state it was to mend is never what "the latest" means, nor is what nobody can go back to.
        let manifest = &snapshot.manifest;
        let wanted = snapshot.is_complete() && !manifest.is_safety() && !manifest.is_redacted();
        wanted && deployment.is_none_or(|name| snapshot.manifest.deployment == name)
    };
    let of = deployment.map_or(String::new(), |name| format!(" of deployment `{name}`"));
    let but = if snapshots.iter().any(|snapshot| snapshot.manifest.is_redacted()) {
        "; redacted ones are named by their ids alone"
    } else {
        ""
    };
    let missing = || Failure::new(ErrorKind::NotFound, format!("there is no complete snapshot{of} that fits{but}"));
    snapshots.into_iter().rev().find(|snapshot| fits(snapshot) && wanted(snapshot)).ok_or_else(missing)
}

/// Whether somebody can be asked.
pub fn interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Name of this machine.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Who runs this: the user's name as the environment says it, else the number.
pub fn user() -> String {
    let name = ["USER", "LOGNAME"].iter().find_map(|variable| get(variable));
    name.map_or_else(
        || format!("uid {}", rustix::process::getuid().as_raw()),
        |name| name.to_string_lossy().into_owned(),
    )
}
