//! Listing and naming snapshots.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;

use super::marks::Record;
use super::{Damage, Repository, RepositoryError, decode_damage, seal_damage};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::manifest::Manifest;
use crate::format::report::Report;
use crate::id::{ObjectId, SnapshotId};
use crate::seal::object::unseal_signed;
use crate::storage::StoreError;

/// A snapshot and its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// What it holds. Its tags are those of now, changes of later marks included.
    pub manifest: Manifest,
    /// Whether it landed after the lease of its run and nobody confirmed it: not all that it refers to need be there.
    pub late: bool,
    /// Whether retention must keep it.
    pub held: bool,
    /// Whether a part of it is lost.
    pub quarantined: bool,
}

/// A report, and who signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReport {
    /// What it says.
    pub report: Report,
    /// Public half of the certified key that signed it.
    pub signer: [u8; 32],
    /// Its length as stored.
    pub stored_bytes: u64,
}

impl Snapshot {
    /// A snapshot that was just made in time.
    pub fn new(id: SnapshotId, manifest: Manifest) -> Self {
        Self { id, manifest, late: false, held: false, quarantined: false }
    }

    /// Whether it is what "the latest" may mean: whole, and certainly so.
    pub fn is_complete(&self) -> bool {
        self.is_certain() && self.manifest.is_complete()
    }

    /// Whether all that it refers to is there, as far as is known.
    pub fn is_certain(&self) -> bool {
        !self.late && !self.quarantined
    }
}

impl Repository {
    /// One manifest; from the cache if it was checked before.
    pub async fn manifest(&self, id: &SnapshotId) -> Result<Manifest, RepositoryError> {
        let body = match self.cache().manifest(id)? {
            Some(body) => body,
            None => {
                let body = self.get_object(ObjectType::Manifest, id).await?;
                self.cached(self.cache().put_manifest(id, &body));
                body
            }
        };
        Ok(Manifest::decode(&body).map_err(|error| decode_damage(&layout::object(ObjectType::Manifest, id), &error))?)
    }

    /// All snapshots, oldest first, and the manifests that are damaged.
    pub async fn snapshots(&self) -> Result<(Vec<Snapshot>, Vec<Damage>), RepositoryError> {
        // Manifests before marks: what is forgotten in between is then known to be.
        let listed = self.listed_manifests().await?;
        let record = self.record().await?;
        let (snapshots, damages) = self.snapshots_of(&listed, &record).await?;
        if damages.iter().all(|damage| damage.layer != "presence") {
            return Ok((snapshots, damages));
        }
        // What vanished after it was listed was withdrawn or forgotten meanwhile.
        let still = self.listed_manifests().await?;
        let gone = |damage: &Damage| {
            !still.keys().any(|id| layout::object(ObjectType::Manifest, id).as_str() == damage.object)
        };
        Ok((snapshots, damages.into_iter().filter(|damage| damage.layer != "presence" || !gone(damage)).collect()))
    }

    /// The manifests that are there, with the store's time of each.
    pub async fn listed_manifests(&self) -> Result<BTreeMap<SnapshotId, Timestamp>, RepositoryError> {
        let listed = self.store().list(layout::SNAPSHOTS).await?;
        Ok(listed.iter().filter_map(|info| Some((layout::id_in(&info.name)?, info.modified))).collect())
    }

    /// The snapshots among `listed` that `record` does not forget, oldest first, and the manifests that are damaged.
    pub async fn snapshots_of(
        &self,
        listed: &BTreeMap<SnapshotId, Timestamp>,
        record: &Record,
    ) -> Result<(Vec<Snapshot>, Vec<Damage>), RepositoryError> {
        let (mut snapshots, mut damages) = (Vec::new(), Vec::new());
        for (id, stored_at) in listed.iter().filter(|(id, _)| !record.forgotten.contains(*id)) {
            match self.manifest(id).await {
                Ok(manifest) => snapshots.push(self.judged(*id, manifest, *stored_at, record)),
                Err(RepositoryError::Damaged(damage)) => damages.push(damage),
                Err(error) => return Err(error),
            }
        }
        snapshots.sort_by_key(|snapshot| (snapshot.manifest.created_at, snapshot.id));
        Ok((snapshots, damages))
    }

    /// Snapshots that marks, other snapshots or `also` say are there, and that the store neither lists nor has. They may have been
    /// forgotten since `record` was read.
    pub async fn lost_manifests(
        &self,
        listed: &BTreeMap<SnapshotId, Timestamp>,
        snapshots: &[Snapshot],
        record: &Record,
        also: &BTreeSet<SnapshotId>,
    ) -> Result<BTreeSet<SnapshotId>, RepositoryError> {
        // A snapshot that was copied here need not have come with the one before it.
        let made_here = snapshots.iter().filter(|snapshot| !snapshot.late && !record.confirmed.contains(&snapshot.id));
        let mut named: BTreeSet<SnapshotId> = made_here.filter_map(|snapshot| snapshot.manifest.previous).collect();
        named.extend(record.confirmed.iter().chain(&record.held).chain(&record.quarantined).chain(also));
        named.retain(|id| !listed.contains_key(id) && !record.forgotten.contains(id));
        let mut lost = BTreeSet::new();
        for id in named {
            match self.store().size(&layout::object(ObjectType::Manifest, &id)).await {
                Ok(_) => {}
                Err(StoreError::NotFound { .. }) => drop(lost.insert(id)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(lost)
    }

    pub(super) fn judged(
        &self,
        id: SnapshotId,
        mut manifest: Manifest,
        stored_at: Timestamp,
        record: &Record,
    ) -> Snapshot {
        for (tag, value) in record.tags.get(&id).into_iter().flatten() {
            match value {
                Some(value) => drop(manifest.tags.insert(tag.clone(), value.clone())),
                None => drop(manifest.tags.remove(tag)),
            }
        }
        // Where nothing was ever deleted nothing can be missing.
        let late =
            self.config().has_deletion() && stored_at > manifest.lease_deadline && !record.confirmed.contains(&id);
        let (held, quarantined) = (record.held.contains(&id), record.quarantined.contains(&id));
        Snapshot { id, manifest, late, held, quarantined }
    }

    /// All reports, oldest first, and the ones that are damaged.
    pub async fn reports(&self) -> Result<(Vec<(ObjectId, Report)>, Vec<Damage>), RepositoryError> {
        let (mut reports, mut damages) = (Vec::new(), Vec::new());
        let listed = self.list_objects(ObjectType::Report).await?;
        let reads = stream::iter(listed).map(|id| async move { (id, self.report(&id).await) });
        let mut reads = reads.buffered(self.store().capabilities().concurrency.max(1)).boxed();
        while let Some((id, read)) = reads.next().await {
            match read {
                Ok(report) => reports.push((id, report)),
                Err(RepositoryError::Damaged(damage)) => damages.push(damage),
                Err(error) => return Err(error),
            }
        }
        reports.sort_by_key(|(id, report)| (report.end, *id));
        Ok((reports, damages))
    }

    /// One report.
    pub async fn report(&self, id: &ObjectId) -> Result<Report, RepositoryError> {
        Ok(self.signed_report(id).await?.report)
    }

    /// One report, and who signed it.
    pub async fn signed_report(&self, id: &ObjectId) -> Result<SignedReport, RepositoryError> {
        let name = layout::object(ObjectType::Report, id);
        let stored = self.get_stored(ObjectType::Report, id).await?;
        let (signer, body) =
            unseal_signed(self.keys(), ObjectType::Report, &stored).map_err(|error| seal_damage(&name, error))?;
        let report = Report::decode(&body).map_err(|error| decode_damage(&name, &error))?;
        Ok(SignedReport { report, signer, stored_bytes: stored.len() as u64 })
    }
}

/// The one object whose id begins with `text`.
///
/// # Errors
/// [`RepositoryError::SnapshotName`] if none or more than one does.
pub fn by_prefix<'a>(ids: impl Iterator<Item = &'a ObjectId>, text: &str) -> Result<ObjectId, RepositoryError> {
    let wanted = text.to_ascii_lowercase();
    let fitting: Vec<ObjectId> = ids.filter(|id| id.to_hex().starts_with(&wanted)).copied().collect();
    match fitting[..] {
        [id] if !wanted.is_empty() => Ok(id),
        _ => Err(RepositoryError::SnapshotName { text: text.to_owned(), found: fitting.len() }),
    }
}
