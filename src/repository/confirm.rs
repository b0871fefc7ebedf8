//! Snapshots that landed after the lease of their run: counted only once somebody saw that nothing they need was condemned.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::chunks::ChunkReader;
use super::executor::Executor;
use super::lease::{Claimant, RunLease};
use super::loss::Holdings;
use super::marks::Record;
use super::reach::Reach;
use super::{Repository, RepositoryError};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::manifest::Manifest;
use crate::format::mark::Decisions;
use crate::id::{PackId, SnapshotId};

/// Ends the lease of a run that put a manifest, and sees that the snapshot counts. Only then may success be told.
///
/// # Errors
/// [`RepositoryError::Late`] if the manifest landed too late and was withdrawn.
pub async fn settle(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    lease: RunLease,
    id: &SnapshotId,
    manifest: &Manifest,
) -> Result<(), RepositoryError> {
    let claimant = lease.claimant().clone();
    // Against the deadline that readers will see, which is older than the lease's where that was renewed while the manifest was
    // on its way.
    if lease.end().await.is_some_and(|at| at <= manifest.lease_deadline) {
        return Ok(());
    }
    let missing = confirm(repository, executor, &claimant, id, manifest).await?;
    if missing == 0 {
        return Ok(());
    }
    withdraw(repository, &claimant, id).await?;
    Err(RepositoryError::Late { missing })
}

/// Takes a manifest back. Somebody may have seen it: the mark tells where it went.
async fn withdraw(repository: &Arc<Repository>, claimant: &Claimant, id: &SnapshotId) -> Result<(), RepositoryError> {
    let forgotten = Decisions { forgotten: BTreeSet::from([*id]), ..Decisions::default() };
    let known = |record: &Record| record.forgotten.contains(id);
    repository
        .decide(claimant, |record| Ok(if known(record) { Decisions::default() } else { forgotten.clone() }))
        .await?;
    repository.store().delete(&layout::object(ObjectType::Manifest, id)).await?;
    Ok(())
}

/// Ends the lease of a run that put several manifests, and sees that the snapshots count. Those that do not are withdrawn and
/// given back, with the number of chunks that each lacks.
pub async fn settle_all(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    lease: RunLease,
    snapshots: &[(SnapshotId, Manifest)],
) -> Result<BTreeMap<SnapshotId, u64>, RepositoryError> {
    let claimant = lease.claimant().clone();
    let ended = lease.end().await;
    if snapshots.iter().all(|(_, manifest)| ended.is_some_and(|at| at <= manifest.lease_deadline)) {
        return Ok(BTreeMap::new());
    }
    let missing = confirm_all(repository, executor, &claimant, snapshots).await?;
    for id in missing.keys() {
        withdraw(repository, &claimant, id).await?;
    }
    Ok(missing)
}

/// Confirms a snapshot whose manifest is there, if every chunk that it refers to is in a pack that is there and not
/// condemned. Gives the number of chunks that are not; then nothing was confirmed.
pub async fn confirm(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    claimant: &Claimant,
    id: &SnapshotId,
    manifest: &Manifest,
) -> Result<u64, RepositoryError> {
    loop {
        let record = repository.record().await?;
        if record.confirmed.contains(id) {
            return Ok(0);
        }
        if record.forgotten.contains(id) {
            // A `prune` took the run for dead: nothing of the snapshot counts any more.
            return Ok(1);
        }
        repository.sync_index().await?;
        let missing = missing_chunks(repository, executor, &record, manifest).await?;
        if missing > 0 {
            return Ok(missing);
        }
        let decisions = Decisions { confirmed: BTreeSet::from([*id]), ..Decisions::default() };
        if repository.put_mark_after(claimant, &record, false, decisions).await?.is_some() {
            return Ok(0);
        }
    }
}

/// Confirms the snapshots whose manifests are there and all whose chunks are in packs that are there and not condemned, by
/// one mark. Gives those for which that does not hold, with the number of chunks that are not there. All are looked at,
/// also those that were confirmed before.
pub async fn confirm_all(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    claimant: &Claimant,
    snapshots: &[(SnapshotId, Manifest)],
) -> Result<BTreeMap<SnapshotId, u64>, RepositoryError> {
    loop {
        let record = repository.record().await?;
        repository.sync_index().await?;
        let sound = relied_on(repository, &record).await?;
        let manifests: Vec<&Manifest> = snapshots.iter().map(|(_, manifest)| manifest).collect();
        let mut missing = BTreeMap::new();
        // Snapshots share most of what they refer to: who lacks what is asked only where anything is lacking.
        if missing_of(repository, executor, &sound, &manifests).await? > 0 {
            for (id, manifest) in snapshots {
                missing.insert(*id, missing_of(repository, executor, &sound, &[manifest]).await?);
            }
        }
        let forgotten = snapshots.iter().filter(|(id, _)| record.forgotten.contains(id));
        missing.extend(forgotten.map(|(id, _)| (*id, 1)));
        missing.retain(|_, chunks| *chunks > 0);
        let open = |id: &SnapshotId| !missing.contains_key(id) && !record.confirmed.contains(id);
        let ids = || snapshots.iter().map(|(id, _)| *id);
        let whole = |id: &SnapshotId| !missing.contains_key(id) && record.quarantined.contains(id);
        let decisions = Decisions {
            confirmed: ids().filter(open).collect(),
            // A repair that put its manifest back may have left it to others to see that it is whole.
            reinstated: ids().filter(whole).collect(),
            ..Decisions::default()
        };
        if decisions.is_empty() {
            return Ok(missing);
        }
        if repository.put_mark_after(claimant, &record, false, decisions).await?.is_some() {
            return Ok(missing);
        }
    }
}

/// How many chunks of a snapshot are in no pack that is there and not condemned.
pub async fn missing_chunks(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    record: &Record,
    manifest: &Manifest,
) -> Result<u64, RepositoryError> {
    let sound = relied_on(repository, record).await?;
    missing_of(repository, executor, &sound, &[manifest]).await
}

/// The packs that are there and not condemned.
async fn relied_on(repository: &Repository, record: &Record) -> Result<HashSet<PackId>, RepositoryError> {
    let mut sound = repository.present_packs().await?;
    sound.retain(|pack| !record.condemned.contains_key(pack));
    Ok(sound)
}

/// How many chunks of these snapshots together are in no pack of `sound`.
async fn missing_of(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    sound: &HashSet<PackId>,
    manifests: &[&Manifest],
) -> Result<u64, RepositoryError> {
    let reader = Arc::new(ChunkReader::cached(Arc::clone(repository), Arc::clone(executor)));
    let (mut missing, mut reach) = (0, Reach::new(reader));
    // What a segment is compressed against is relied on as well.
    let mut holdings = Holdings::of(Arc::clone(repository.cache()), sound.clone())?;
    let mut visit = |id: &crate::id::ChunkId| -> Result<(), RepositoryError> {
        missing += u64::from(!holdings.holds(id)?);
        Ok(())
    };
    for manifest in manifests {
        match reach.snapshot(manifest, &mut visit).await {
            Ok(()) => {}
            // A recipe that cannot be read hides how much else is missing.
            Err(RepositoryError::Damaged(_) | RepositoryError::MissingChunk { .. }) => return Ok(missing.max(1)),
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}
