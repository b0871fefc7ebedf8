//! Config generations and key slots, which are needed before anything can be opened: taken from a copy where ours are not what
//! they should be.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::format::config::Config;
use crate::format::layout;
use crate::id::ObjectName;
use crate::limits::CLEAR_OBJECT_SIZE_MAX;
use crate::repository::{Damage, RepositoryError, check_name};
use crate::seal::slot::{open_config, open_slot, slot_repository};
use crate::storage::{Store, StoreError};

/// Brings what is damaged or missing in `ours` from `copy`; gives the names. Where `pretend` is set, nothing is changed.
///
/// A key slot that is not there is brought only if no other one is left: it may have been removed on purpose.
///
/// # Errors
/// Damage, if the copy is of another repository, or if nothing in `ours` says of which one it is.
pub async fn mend_clear(ours: &dyn Store, copy: &dyn Store, pretend: bool) -> Result<Vec<ObjectName>, RepositoryError> {
    let theirs = configs(copy).await?;
    let Some((newest, _)) = theirs.values().next_back() else {
        return Err(RepositoryError::NotFound { location: copy.location() });
    };
    let here = configs(ours).await?;
    let slots = slots(ours).await?;
    belongs(ours, newest, &here, &slots)?;
    let mut brought = Vec::new();
    for (number, (_, bytes)) in theirs.iter().filter(|(number, _)| !here.contains_key(number)) {
        brought.push((layout::config(*number), bytes.clone()));
    }
    let sound = |name: &ObjectName, bytes: &Bytes| {
        layout::id_in(name).is_some_and(|id| check_name(name, &id, bytes).is_ok() && open_slot(newest, bytes).is_ok())
    };
    let none_left = !slots.iter().any(|(name, bytes)| sound(name, bytes));
    for (name, bytes) in self::slots(copy).await?.into_iter().filter(|(name, bytes)| sound(name, bytes)) {
        let damaged = slots.get(&name).is_some_and(|known| !sound(&name, known));
        if damaged || none_left && !slots.contains_key(&name) {
            brought.push((name, bytes));
        }
    }
    if !pretend {
        for (name, bytes) in &brought {
            ours.delete(name).await?;
            ours.put_new(name, bytes.clone()).await?;
        }
    }
    Ok(brought.into_iter().map(|(name, _)| name).collect())
}

/// The configs that are what they should be, with their bytes, by their numbers.
async fn configs(store: &dyn Store) -> Result<BTreeMap<u32, (Config, Bytes)>, RepositoryError> {
    let mut configs = BTreeMap::new();
    for info in store.list(layout::CONFIG).await? {
        let Some(number) = layout::number_in(&info.name) else { continue };
        let Some(bytes) = get(store, &info.name).await? else { continue };
        if let Ok(config) = open_config(&bytes)
            && config.generation == number
        {
            configs.insert(number, (config, bytes));
        }
    }
    Ok(configs)
}

async fn slots(store: &dyn Store) -> Result<BTreeMap<ObjectName, Bytes>, RepositoryError> {
    let mut slots = BTreeMap::new();
    for info in store.list(layout::KEYS).await? {
        if let Some(bytes) = get(store, &info.name).await? {
            slots.insert(info.name, bytes);
        }
    }
    Ok(slots)
}

async fn get(store: &dyn Store, name: &ObjectName) -> Result<Option<Bytes>, RepositoryError> {
    match store.get(name, CLEAR_OBJECT_SIZE_MAX).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        // Longer than it may be.
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::FileTooLarge => {
            Ok(Some(Bytes::new()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether what is here is of the repository that the copy is of.
fn belongs(
    ours: &dyn Store,
    theirs: &Config,
    here: &BTreeMap<u32, (Config, Bytes)>,
    slots: &BTreeMap<ObjectName, Bytes>,
) -> Result<(), RepositoryError> {
    let says_so = match here.values().next_back() {
        Some((config, _)) => (config.repository, &config.root) == (theirs.repository, &theirs.root),
        None => slots.values().any(|bytes| slot_repository(bytes) == Some(theirs.repository)),
    };
    if says_so {
        return Ok(());
    }
    let object = format!("{}/", layout::CONFIG);
    let problem = format!(
        "nothing in {} says that it is repository {}, which the copy is of",
        ours.location(),
        theirs.repository
    );
    Err(Damage { object, layer: "name", problem }.into())
}
