//! The place where the repository should be, looked at before any key is asked for.
//!
//! Holds: a place that held a repository and is now empty or holds another one is refused, unless told otherwise. An
//! unmounted share must never be backed up into. Looking creates nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::buckets::Bucket;
use super::failure::Failure;
use super::settings::{Location, Settings};
use crate::env::SystemEntropy;
use crate::error::{Error, ErrorKind};
use crate::format::config::Config;
use crate::id::RepositoryId;
use crate::repository::open::{self, read_config};
use crate::repository::{Repository, RepositoryError};
use crate::state::{Seen, State};
use crate::storage::count::Counted;
use crate::storage::limit::{Limited, Limits};
use crate::storage::local::LocalStore;
use crate::storage::object::RemoteStore;
use crate::storage::retry::{Patience, Retried};
use crate::storage::wait::SystemWait;
use crate::storage::{Store, remote};

/// What is at the place.
pub enum Place {
    /// A repository.
    Repository {
        /// Its store.
        store: Arc<dyn Store>,
        /// Its configuration.
        config: Box<Config>,
    },
    /// Nothing, perhaps not even the folder.
    Empty(Location),
}

impl Place {
    /// The repository, which must be there.
    pub fn repository(self) -> Result<(Arc<dyn Store>, Box<Config>), Failure> {
        match self {
            Self::Repository { store, config } => Ok((store, config)),
            Self::Empty(location) => Err(missing(&location)),
        }
    }
}

/// The error of a place that is empty.
pub fn missing(location: &Location) -> Failure {
    let location = location.to_string();
    Failure::from(RepositoryError::NotFound { location })
        .hint("make one: infrahub-backup init, or: infrahub-backup create --init")
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Bucket(bucket) => bucket.place.fmt(f),
            Self::Memory => f.write_str("memory"),
        }
    }
}

/// Looks what is at the place.
pub async fn look(settings: &Settings, state: &State) -> Result<Place, Failure> {
    let accept = settings.global().accept_new_repository;
    let found = match settings.location()? {
        // What lives in this process alone cannot have been there before.
        Location::Memory => return Ok(Place::Empty(Location::Memory)),
        Location::Folder(path) => Location::Folder(absolute(path)?),
        bucket @ Location::Bucket(_) => bucket,
    };
    let location = found.to_string();
    let before = if accept { None } else { state.repository_at(&location)? };
    let opened = match &found {
        Location::Folder(path) => open_folder(path)?,
        Location::Bucket(bucket) => Some(open_bucket(bucket)?),
        Location::Memory => None,
    };
    let Some(store) = opened.map(|store| wrapped(store, &found, settings)) else {
        return empty(found, before);
    };
    match open::look(&*store).await? {
        open::Place::Repository => {
            let config = Box::new(read_config(&*store).await?);
            match before {
                Some(before) if before != config.repository => Err(swapped(&location, before, config.repository)),
                Some(_) | None => {
                    let seen = if accept { 0 } else { state.seen(config.repository, &location)?.config_generation };
                    if config.generation < seen {
                        return Err(rolled_back(&location, seen, config.generation));
                    }
                    Ok(Place::Repository { store, config })
                }
            }
        }
        open::Place::Empty => empty(found, before),
        open::Place::Foreign(Some(what)) => Err(RepositoryError::Foreign { location, what }.into()),
        open::Place::Foreign(None) => {
            Err(Failure::new(ErrorKind::NoRepository, format!("{location} is not empty and holds no repository")))
        }
    }
}

/// The store at the place, for who has no key and remembers nothing.
pub fn store(settings: &Settings) -> Result<Arc<dyn Store>, Failure> {
    let (found, opened) = match settings.location()? {
        Location::Memory => (Location::Memory, None),
        Location::Folder(path) => {
            let path = absolute(path)?;
            (Location::Folder(path.clone()), open_folder(&path)?)
        }
        Location::Bucket(bucket) => {
            let store = open_bucket(&bucket)?;
            (Location::Bucket(bucket), Some(store))
        }
    };
    match opened {
        Some(store) => Ok(wrapped(store, &found, settings)),
        None => Err(missing(&found)),
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|source| Failure::io("there is no working directory", source))
}

/// The store in a folder; `None` if there is no such folder.
fn open_folder(folder: &PathBuf) -> Result<Option<Arc<dyn Store>>, Failure> {
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(Some(Arc::new(LocalStore::open(folder)?))),
        Ok(_) => {
            Err(Failure::usage(format!("{} is not a folder", folder.display())).hint("give a folder: --repo PATH"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => {
            let text = format!("{} cannot be looked at", folder.display());
            Err(Error::with_source(ErrorKind::Unavailable, text, source).into())
        }
    }
}

fn open_bucket(bucket: &Bucket) -> Result<Arc<dyn Store>, Failure> {
    Ok(Arc::new(remote::open(&bucket.place, &bucket.variables)?))
}

/// The store in a bucket that holds something else than a repository.
pub fn bucket_store(bucket: Bucket, settings: &Settings) -> Result<Arc<dyn Store>, Failure> {
    let store = open_bucket(&bucket)?;
    Ok(wrapped(store, &Location::Bucket(Box::new(bucket)), settings))
}

/// The store with its limits and counts; one that is far away is asked again where it gives no answer.
fn wrapped(store: Arc<dyn Store>, location: &Location, settings: &Settings) -> Arc<dyn Store> {
    let wait = Arc::new(SystemWait::default());
    let limits = settings.limits();
    let store = if limits == Limits::default() { store } else { Arc::new(Limited::new(store, limits, wait.clone())) };
    let store = Arc::new(Counted::new(store));
    match location {
        Location::Bucket(_) => Arc::new(Retried::new(store, Patience::default(), Arc::new(SystemEntropy), wait)),
        Location::Folder(_) | Location::Memory => store,
    }
}

fn empty(location: Location, before: Option<RepositoryId>) -> Result<Place, Failure> {
    match before {
        None => Ok(Place::Empty(location)),
        Some(before) => {
            let why = match location {
                Location::Folder(_) => "an unmounted share?",
                Location::Bucket(_) | Location::Memory => "another server?",
            };
            let text = format!("the place that held repository {before} is now empty: {location}: {why}");
            Err(Failure::new(ErrorKind::NoRepository, text).hint(accept_hint()))
        }
    }
}

fn swapped(location: &str, before: RepositoryId, now: RepositoryId) -> Failure {
    let text =
        format!("the place that held repository {before} holds repository {now} now: {location}: another share?");
    Failure::new(ErrorKind::NoRepository, text).hint(accept_hint())
}

fn rolled_back(location: &str, seen: u32, now: u32) -> Failure {
    let text = format!(
        "the repository in {location} was rolled back: its keys are those of generation {now}, and this machine has seen \
         generation {seen}; a key that was removed may open what is written now"
    );
    let hint = "find out who put an older state back; if that was wanted: --accept-new-repository";
    Failure::new(ErrorKind::Damaged, text).hint(hint)
}

fn accept_hint() -> &'static str {
    "mount what should be there; if the change is wanted: --accept-new-repository"
}

/// The store of a place that is empty, made if it is not there.
pub fn make_store(location: &Location, settings: &Settings) -> Result<Arc<dyn Store>, Failure> {
    let store: Arc<dyn Store> = match location {
        Location::Folder(path) => Arc::new(LocalStore::create(path)?),
        Location::Bucket(bucket) => open_bucket(bucket)?,
        Location::Memory => Arc::new(RemoteStore::memory()),
    };
    Ok(wrapped(store, location, settings))
}

/// Remembers that this repository is where it is, and which generation its config has. If a change is `accepted`, what was seen
/// of it before is forgotten.
pub fn remember(state: &State, repository: &Repository, accepted: bool) -> Result<(), Failure> {
    let (config, store) = (repository.config(), repository.store());
    remember_at(state, &**store, config.repository)?;
    if !store.capabilities().durable {
        return Ok(());
    }
    if accepted {
        state.forget_seen(config.repository, &store.location())?;
    }
    let number = config.generation;
    let see = |seen: &mut Seen| seen.config_generation = seen.config_generation.max(number);
    Ok(state.see(config.repository, &store.location(), see)?)
}

/// Remembers that the repository `id` is in `store`.
pub fn remember_at(state: &State, store: &dyn Store, id: RepositoryId) -> Result<(), Failure> {
    if store.capabilities().durable && state.repository_at(&store.location())? != Some(id) {
        state.set_repository_at(&store.location(), id)?;
    }
    Ok(())
}
