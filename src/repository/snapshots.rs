//! Listing and naming snapshots.

use super::{Damage, Repository, RepositoryError, decode_damage};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::manifest::Manifest;
use crate::format::report::Report;
use crate::id::{ObjectId, SnapshotId};

/// A snapshot and its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// What it holds.
    pub manifest: Manifest,
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
        let (mut snapshots, mut damages) = (Vec::new(), Vec::new());
        for id in self.list_objects(ObjectType::Manifest).await? {
            match self.manifest(&id).await {
                Ok(manifest) => snapshots.push(Snapshot { id, manifest }),
                Err(RepositoryError::Damaged(damage)) => damages.push(damage),
                Err(error) => return Err(error),
            }
        }
        snapshots.sort_by_key(|snapshot| (snapshot.manifest.created_at, snapshot.id));
        Ok((snapshots, damages))
    }

    /// All reports, oldest first, and the ones that are damaged.
    pub async fn reports(&self) -> Result<(Vec<(ObjectId, Report)>, Vec<Damage>), RepositoryError> {
        let (mut reports, mut damages) = (Vec::new(), Vec::new());
        for id in self.list_objects(ObjectType::Report).await? {
            match self.report(&id).await {
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
        let body = self.get_object(ObjectType::Report, id).await?;
        Ok(Report::decode(&body).map_err(|error| decode_damage(&layout::object(ObjectType::Report, id), &error))?)
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
