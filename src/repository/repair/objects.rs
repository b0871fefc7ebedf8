//! Single objects whose name says what they are: taken from a copy where one has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::mark::Decisions;
use crate::id::{ObjectId, ObjectName, SnapshotId};
use crate::limits::{LEASE_PERIOD_MAX, MARGIN_MAX};
use crate::repository::lease::Claimant;
use crate::repository::marks::Record;
use crate::repository::runs::later;
use crate::repository::{Damage, Repository, RepositoryError};
use crate::seal::object::unseal_object;
use crate::storage::StoreError;

/// What became of an object that was found damaged or missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mended {
    /// It is what it should be, now that it was looked at again.
    Sound,
    /// It was brought from the copy.
    Brought,
    /// No copy has it.
    Lost(Damage),
}

/// Looks at an object again and brings it from the copy if it is not what it should be. Where `pretend` is set, nothing is
/// changed.
pub async fn mend_object(
    repository: &Repository,
    copy: Option<&Arc<Repository>>,
    claimant: &Claimant,
    (kind, id): (ObjectType, &ObjectId),
    pretend: bool,
) -> Result<Mended, RepositoryError> {
    let damage = match repository.get_object(kind, id).await {
        Ok(_) => return Ok(Mended::Sound),
        Err(RepositoryError::Damaged(damage)) => damage,
        Err(error) => return Err(error),
    };
    let Some(copy) = copy else { return Ok(Mended::Lost(damage)) };
    let stored = match copy.get_stored(kind, id).await {
        Ok(stored) if unseal_object(repository.keys(), kind, &stored).is_ok() => stored,
        Ok(_) | Err(RepositoryError::Damaged(_)) => return Ok(Mended::Lost(damage)),
        Err(error) => return Err(error),
    };
    if !pretend {
        let name = layout::object(kind, id);
        if kind == ObjectType::Manifest {
            keep_in_mind(repository, claimant, *id).await?;
        }
        if damage.layer != "presence" {
            repository.store().delete(&name).await?;
        }
        match repository.store().put_new(&name, stored).await {
            // The name is the hash of the bytes.
            Ok(()) | Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Mended::Brought)
}

/// Quarantines a snapshot. If this run dies while its manifest is gone, the next one knows by the mark that it was there. That it is
/// whole is decided later: no check saw what it needs while its manifest could not be read.
async fn keep_in_mind(repository: &Repository, claimant: &Claimant, id: SnapshotId) -> Result<(), RepositoryError> {
    let decide = |record: &Record| {
        let known = record.quarantined.contains(&id) || record.forgotten.contains(&id);
        let quarantined = if known { BTreeSet::new() } else { BTreeSet::from([id]) };
        Ok(Decisions { quarantined, ..Decisions::default() })
    };
    repository.decide(claimant, decide).await?;
    Ok(())
}

/// What became of damaged leases.
#[derive(Debug, Default)]
pub struct Leases {
    /// Those that were removed: no run that put them can be alive.
    pub removed: Vec<ObjectName>,
    /// Those whose run may be alive, with the time, by the store's clock, when none can be any more.
    pub left: BTreeMap<ObjectName, Timestamp>,
}

/// Removes those of the damaged leases `names` that are older than any lease holds. `now` is the store's.
pub async fn mend_leases(
    repository: &Repository,
    names: &[ObjectName],
    now: Timestamp,
    pretend: bool,
) -> Result<Leases, RepositoryError> {
    let mut leases = Leases::default();
    for info in repository.store().list(layout::LEASES).await?.into_iter().filter(|info| names.contains(&info.name)) {
        let until = later(info.modified, LEASE_PERIOD_MAX + MARGIN_MAX);
        if now < until {
            leases.left.insert(info.name, until);
            continue;
        }
        if !pretend {
            repository.store().delete(&info.name).await?;
        }
        leases.removed.push(info.name);
    }
    Ok(leases)
}
