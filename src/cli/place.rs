//! The place where the repository should be, looked at before any key is asked for.
//!
//! Holds: a place that held a repository and is now empty or holds another one is refused, unless told otherwise. An
//! unmounted share must never be backed up into. Looking creates nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::failure::Failure;
use super::settings::{Location, Settings};
use crate::error::{Error, ErrorKind};
use crate::format::config::Config;
use crate::id::RepositoryId;
use crate::repository::open::{self, read_config};
use crate::repository::{Repository, RepositoryError};
use crate::state::State;
use crate::storage::Store;
use crate::storage::local::LocalStore;
use crate::storage::object::RemoteStore;

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
            Self::Memory => f.write_str("memory"),
        }
    }
}

/// Looks what is at the place.
pub async fn look(settings: &Settings, state: &State) -> Result<Place, Failure> {
    let accept = settings.global().accept_new_repository;
    let folder = match settings.location()? {
        // What lives in this process alone cannot have been there before.
        Location::Memory => return Ok(Place::Empty(Location::Memory)),
        Location::Folder(path) => absolute(path)?,
    };
    let location = folder.display().to_string();
    let before = if accept { None } else { state.repository_at(&location)? };
    let Some(store) = open_folder(&folder)? else {
        return empty(Location::Folder(folder), before);
    };
    match open::look(&*store).await? {
        open::Place::Repository => {
            let config = Box::new(read_config(&*store).await?);
            match before {
                Some(before) if before != config.repository => Err(swapped(&location, before, config.repository)),
                Some(_) | None => Ok(Place::Repository { store, config }),
            }
        }
        open::Place::Empty => empty(Location::Folder(folder), before),
        open::Place::Foreign(Some(what)) => Err(RepositoryError::Foreign { location, what }.into()),
        open::Place::Foreign(None) => {
            Err(Failure::new(ErrorKind::NoRepository, format!("{location} is not empty and holds no repository")))
        }
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

fn empty(location: Location, before: Option<RepositoryId>) -> Result<Place, Failure> {
    match before {
        None => Ok(Place::Empty(location)),
        Some(before) => {
            let text = format!("the place that held repository {before} is now empty: {location}: an unmounted share?");
            Err(Failure::new(ErrorKind::NoRepository, text).hint(accept_hint()))
        }
    }
}

fn swapped(location: &str, before: RepositoryId, now: RepositoryId) -> Failure {
    let text =
        format!("the place that held repository {before} holds repository {now} now: {location}: another share?");
    Failure::new(ErrorKind::NoRepository, text).hint(accept_hint())
}

fn accept_hint() -> &'static str {
    "mount what should be there; if the change is wanted: --accept-new-repository"
}

/// The store of a place that is empty, made if it is not there.
pub fn make_store(location: &Location) -> Result<Arc<dyn Store>, Failure> {
    Ok(match location {
        Location::Folder(path) => Arc::new(LocalStore::create(path)?),
        Location::Memory => Arc::new(RemoteStore::memory()),
    })
}

/// Remembers that this repository is where it is.
pub fn remember(state: &State, repository: &Repository) -> Result<(), Failure> {
    remember_at(state, &**repository.store(), repository.config().repository)
}

/// Remembers that the repository `id` is in `store`.
pub fn remember_at(state: &State, store: &dyn Store, id: RepositoryId) -> Result<(), Failure> {
    if store.capabilities().durable && state.repository_at(&store.location())? != Some(id) {
        state.set_repository_at(&store.location(), id)?;
    }
    Ok(())
}
