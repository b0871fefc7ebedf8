//! Founding a repository and opening it: config, key slots, cache.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::cache::Cache;
use super::{Damage, Outside, Repository, RepositoryError, check_name, seal_damage};
use crate::format::config::{Config, Profiles};
use crate::format::key_file::KeyFile;
use crate::format::key_slot::KeySlot;
use crate::format::layout;
use crate::id::ObjectId;
use crate::limits::CLEAR_OBJECT_SIZE_MAX;
use crate::seal::SealError;
use crate::seal::slot::{
    Credential, NewCredential, found_repository_in, open_config, open_slot, slot_repository, unlock,
};
use crate::storage::probe::PROBES;
use crate::storage::{Store, StoreError};

/// What is at a place where a repository should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A repository of this program.
    Repository,
    /// Nothing.
    Empty,
    /// Something else.
    Foreign(Option<&'static str>),
}

/// Looks what is there, without any key.
pub async fn look(store: &dyn Store) -> Result<Place, RepositoryError> {
    if newest_config(store).await?.is_some() {
        return Ok(Place::Repository);
    }
    let all = store.list("").await?;
    // Key slots and probes alone are what an interrupted `init` left: without a config they open nothing and belong to
    // nothing.
    let left = |name: &str| name.starts_with("keys/") || name.split('/').next() == Some(PROBES);
    if all.iter().all(|info| left(info.name.as_str())) {
        return Ok(Place::Empty);
    }
    let has = |prefix: &str| all.iter().any(|info| info.name.as_str().starts_with(prefix));
    // The layouts of the engines that an operator may have had there before.
    let what = if all.iter().any(|info| info.name.as_str() == "config") && has("data/") && has("keys/") {
        Some("restic repository")
    } else if has("packfiles/") || has("states/") {
        Some("plakar repository")
    } else {
        None
    };
    // Without its config a repository is damaged, not foreign.
    if has("packs/") && has("snapshots/") && has("index/") {
        let damage = Damage {
            object: format!("{}/1", layout::CONFIG),
            layer: "presence",
            problem: "it is missing, so that nothing can be opened".to_owned(),
        };
        return Err(damage.into());
    }
    Ok(Place::Foreign(what))
}

async fn newest_config(store: &dyn Store) -> Result<Option<u32>, RepositoryError> {
    let listed = store.list(layout::CONFIG).await?;
    let number = |name: &str| name.parse::<u32>().ok().filter(|number| number.to_string() == name);
    Ok(listed.iter().filter_map(|info| number(info.name.file_name())).max())
}

/// Founds a repository in an empty place. The key slot is written first: a repository exists once its config does.
///
/// Gives the key file to hand out, where one was asked for.
pub async fn found(
    store: &dyn Store,
    outside: &Outside,
    profiles: Profiles,
    credential: NewCredential,
) -> Result<(Config, Option<KeyFile>), RepositoryError> {
    found_in(store, outside, profiles, false, credential).await
}

/// The same, in a store that may have to do with one writer.
pub async fn found_in(
    store: &dyn Store,
    outside: &Outside,
    profiles: Profiles,
    single_writer: bool,
    credential: NewCredential,
) -> Result<(Config, Option<KeyFile>), RepositoryError> {
    let location = store.location();
    match look(store).await? {
        Place::Empty => {}
        Place::Repository => return Err(RepositoryError::Exists { location }),
        Place::Foreign(Some(what)) => return Err(RepositoryError::Foreign { location, what }),
        Place::Foreign(None) => return Err(RepositoryError::NotEmpty { location }),
    }
    let new = found_repository_in(&*outside.entropy, outside.clock.now(), profiles, single_writer, credential);
    let config = open_config(&new.config).expect("a config made here opens");
    let slot_id = ObjectId::of(&new.slot);
    store.put_new(&layout::key(&slot_id), Bytes::from(new.slot)).await?;
    match store.put_new(&layout::config(1), Bytes::from(new.config)).await {
        Ok(()) => Ok((config, new.key_file)),
        Err(StoreError::AlreadyExists { .. }) => {
            // Another `init` was faster; this one's slot belongs to no repository.
            store.delete(&layout::key(&slot_id)).await?;
            Err(RepositoryError::Exists { location })
        }
        Err(error) => Err(error.into()),
    }
}

/// The newest config of a place that must hold a repository.
pub async fn read_config(store: &dyn Store) -> Result<Config, RepositoryError> {
    let Some(number) = newest_config(store).await? else {
        let location = store.location();
        return Err(match look(store).await? {
            Place::Foreign(Some(what)) => RepositoryError::Foreign { location, what },
            Place::Empty | Place::Foreign(None) | Place::Repository => RepositoryError::NotFound { location },
        });
    };
    let name = layout::config(number);
    let stored = store.get(&name, CLEAR_OBJECT_SIZE_MAX).await?;
    let config = open_config(&stored).map_err(|error| match error {
        SealError::Format(crate::format::FormatError::Version { .. } | crate::format::FormatError::Features { .. }) => {
            RepositoryError::Unsupported { location: store.location(), source: error }
        }
        other => seal_damage(&name, other).into(),
    })?;
    if config.generation != number {
        let problem = format!("it says that it is generation {}", config.generation);
        return Err(Damage { object: name.to_string(), layer: "name", problem }.into());
    }
    Ok(config)
}

/// The key slots of a repository, and the damage among them.
pub async fn read_slots(store: &dyn Store, config: &Config) -> Result<(Vec<KeySlot>, Vec<Damage>), RepositoryError> {
    let (mut slots, mut damages) = (Vec::new(), Vec::new());
    for info in store.list(layout::KEYS).await? {
        let Some(id) = layout::id_in(&info.name) else { continue };
        let stored = match store.get(&info.name, CLEAR_OBJECT_SIZE_MAX).await {
            Ok(stored) => stored,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        let name = check_name(&info.name, &id, &stored);
        // Left by an `init` that was interrupted, or slower than the one that made this repository; not one that is damaged
        // just where it says whose it is.
        if name.is_ok() && slot_repository(&stored).is_some_and(|repository| repository != config.repository) {
            continue;
        }
        let read = name.and_then(|()| open_slot(config, &stored).map_err(|error| seal_damage(&info.name, error)));
        match read {
            Ok(slot) => slots.push(slot),
            Err(damage) => damages.push(damage),
        }
    }
    Ok((slots, damages))
}

/// Opens a repository. `cache_folder` is where local caches are kept; `None` or one that cannot be written costs speed.
///
/// # Errors
/// [`RepositoryError::NotFound`], [`RepositoryError::Foreign`], [`RepositoryError::Locked`], [`RepositoryError::Damaged`].
pub async fn open(
    store: Arc<dyn Store>,
    credential: &Credential,
    cache_folder: Option<&Path>,
    outside: Outside,
) -> Result<Repository, RepositoryError> {
    let config = read_config(&*store).await?;
    let (slots, damages) = read_slots(&*store, &config).await?;
    let keys = unlock(&config, &slots, credential).map_err(|source| match (source, damages.first()) {
        // With a damaged slot in sight, "wrong password" would send the operator the wrong way.
        (SealError::WrongKey, Some(damage)) => damage.clone().into(),
        (SealError::WrongKey, None) if slots.is_empty() => Damage {
            object: format!("{}/", layout::KEYS),
            layer: "presence",
            problem: "there is no key slot".to_owned(),
        }
        .into(),
        (source, _) => RepositoryError::Locked { location: store.location(), source },
    })?;
    let cache = Arc::new(open_cache(cache_folder, &*store, &config)?);
    Ok(Repository { store, config, keys: Arc::new(keys), cache, cache_trouble: std::sync::OnceLock::new(), outside })
}

fn open_cache(folder: Option<&Path>, store: &dyn Store, config: &Config) -> Result<Cache, RepositoryError> {
    let Some(folder) = folder else { return Ok(Cache::temporary()?) };
    // By place as well: a copy elsewhere holds other objects, and must not bend what is known of this one.
    let place = ObjectId::of(store.location().as_bytes());
    let folder = folder.join(format!("{}-{}", config.repository, place.short()));
    // It holds manifests and file names in clear.
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let made =
        builder.recursive(true).create(&folder).ok().and_then(|()| Cache::open(&folder.join("cache.sqlite")).ok());
    match made {
        Some(cache) => Ok(cache),
        None => Ok(Cache::temporary()?),
    }
}
