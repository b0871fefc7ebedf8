//! Manifests, read anew, and their chain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;

use super::super::snapshots::Snapshot;
use super::super::{Damage, Repository, RepositoryError, decode_damage, missing};
use super::unchecked::{Reason, Unchecked};
use super::{Checker, Request};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::manifest::Manifest;
use crate::id::{ObjectId, SnapshotId};

async fn read(repository: &Repository, id: &SnapshotId) -> Result<Manifest, RepositoryError> {
    let body = repository.get_object(ObjectType::Manifest, id).await?;
    repository.cached(repository.cache().put_manifest(id, &body));
    Ok(Manifest::decode(&body).map_err(|error| decode_damage(&layout::object(ObjectType::Manifest, id), &error))?)
}

impl Checker {
    /// The snapshots to resolve: those that were asked for, are not forgotten, and are complete.
    pub(super) async fn manifests(
        &mut self,
        listed: &BTreeMap<SnapshotId, Timestamp>,
        request: &Request,
    ) -> Result<Vec<Snapshot>, RepositoryError> {
        let mut snapshots = self.read_manifests(listed).await?;
        self.checked.objects += snapshots.len() as u64;
        self.checked.late = snapshots.iter().filter(|snapshot| snapshot.late).map(|snapshot| snapshot.id).collect();
        let passed = |snapshot: &&Snapshot| snapshot.quarantined && !request.only.contains(&snapshot.id);
        let quarantined = snapshots.iter().filter(|snapshot| !snapshot.late).filter(passed);
        self.checked.quarantined = quarantined.map(|snapshot| snapshot.id).collect();
        // What a late one names need not be there.
        snapshots.retain(|snapshot| !snapshot.late);
        self.checked.head =
            snapshots.iter().max_by_key(|snapshot| snapshot.manifest.created_at).map(|snapshot| snapshot.id);
        self.chain(listed, &snapshots, &request.known.heads).await?;
        self.named_indexes(&snapshots).await?;
        let wanted = |id: &SnapshotId| request.only.is_empty() || request.only.contains(id);
        let others = snapshots.iter().map(|snapshot| snapshot.id).filter(|id| !wanted(id)).collect();
        self.checked.not_checked.extend(Unchecked::snapshots(Reason::NotAskedFor, others));
        for id in
            snapshots.iter().filter(|snapshot| snapshot.quarantined && wanted(&snapshot.id)).map(|snapshot| snapshot.id)
        {
            if request.only.contains(&id) {
                let object = layout::object(ObjectType::Manifest, &id).to_string();
                let problem = "a part of it is lost, as `repair` found out; its report says which".to_owned();
                self.report(Damage { object, layer: "chunk", problem }, vec![format!("snapshot {id}")]);
            }
        }
        self.checked.late.retain(wanted);
        self.checked.quarantined.retain(wanted);
        snapshots.retain(|snapshot| wanted(&snapshot.id) && !passed(&snapshot));
        Ok(snapshots)
    }

    async fn read_manifests(
        &mut self,
        listed: &BTreeMap<SnapshotId, Timestamp>,
    ) -> Result<Vec<Snapshot>, RepositoryError> {
        let ids: Vec<(SnapshotId, Timestamp)> = listed
            .iter()
            .filter(|(id, _)| !self.view.record.forgotten.contains(*id))
            .map(|(id, stored_at)| (*id, *stored_at))
            .collect();
        let repository = Arc::clone(&self.repository);
        let reads = stream::iter(ids).map(move |(id, stored_at)| {
            let repository = Arc::clone(&repository);
            async move { (id, stored_at, read(&repository, &id).await) }
        });
        let mut reads = reads.buffered(self.at_once()).boxed();
        let (mut snapshots, mut gone) = (Vec::new(), Vec::new());
        while let Some((id, stored_at, read)) = reads.next().await {
            match read {
                Ok(manifest) => {
                    snapshots.push(self.repository.judged(id, manifest, stored_at, &self.view.record));
                }
                Err(RepositoryError::Damaged(damage)) if damage.layer == "presence" => gone.push((id, damage)),
                Err(RepositoryError::Damaged(damage)) => self.report(damage, vec![format!("snapshot {id}")]),
                Err(error) => return Err(error),
            }
        }
        if !gone.is_empty() {
            // Forgotten, or withdrawn by a run that came too late, since it was listed.
            self.refresh().await?;
            let still = self.repository.listed_manifests().await?;
            gone.retain(|(id, _)| still.contains_key(id) && !self.view.record.forgotten.contains(id));
        }
        for (id, damage) in gone {
            self.report(damage, vec![format!("snapshot {id}")]);
        }
        Ok(snapshots)
    }

    /// Every snapshot that another one, or this machine, knows is there or was forgotten.
    async fn chain(
        &mut self,
        listed: &BTreeMap<SnapshotId, Timestamp>,
        snapshots: &[Snapshot],
        known_heads: &BTreeSet<SnapshotId>,
    ) -> Result<(), RepositoryError> {
        let mut lost = self.repository.lost_manifests(listed, snapshots, &self.view.record, known_heads).await?;
        if !lost.is_empty() {
            self.refresh().await?;
            lost.retain(|id| !self.view.record.forgotten.contains(id));
        }
        if !lost.is_empty() {
            let arriving = self.arriving(listed, snapshots, known_heads).await?;
            self.checked
                .not_checked
                .extend(Unchecked::snapshots(Reason::Arriving, lost.intersection(&arriving).copied().collect()));
            lost.retain(|id| !arriving.contains(id));
        }
        for id in lost {
            self.report(missing(&layout::object(ObjectType::Manifest, &id)), vec![format!("snapshot {id}")]);
        }
        Ok(())
    }

    /// Snapshots that only those name which a `replicate` may just have copied here, and did not confirm yet: it may be at work, or
    /// was killed, and the next one confirms them.
    async fn arriving(
        &self,
        listed: &BTreeMap<SnapshotId, Timestamp>,
        snapshots: &[Snapshot],
        known_heads: &BTreeSet<SnapshotId>,
    ) -> Result<BTreeSet<SnapshotId>, RepositoryError> {
        let runs = match self.repository.runs().await {
            Ok(runs) => runs,
            // A lease that cannot be read excuses nothing, and keeps nothing from being told.
            Err(RepositoryError::Damaged(_)) => return Ok(BTreeSet::new()),
            Err(error) => return Err(error),
        };
        let copies = runs.values().filter(|run| run.operation == "replicate" && !run.period.is_zero());
        let Some(since) = copies.map(|run| run.first).min() else { return Ok(BTreeSet::new()) };
        let record = &self.view.record;
        let unconfirmed = snapshots.iter().filter(|snapshot| !record.confirmed.contains(&snapshot.id));
        let (came, made): (Vec<_>, Vec<_>) = unconfirmed.partition(|snapshot| listed.get(&snapshot.id) >= Some(&since));
        let named = |snapshots: Vec<&Snapshot>| -> BTreeSet<SnapshotId> {
            snapshots.into_iter().filter_map(|snapshot| snapshot.manifest.previous).collect()
        };
        let mut arriving = named(came);
        let known = [&named(made), &record.confirmed, &record.held, &record.quarantined, known_heads];
        arriving.retain(|id| known.iter().all(|known| !known.contains(id)));
        Ok(arriving)
    }

    /// Every index object that a snapshot names is there, or one that took its place.
    async fn named_indexes(&mut self, snapshots: &[Snapshot]) -> Result<(), RepositoryError> {
        let mut refreshed = false;
        for Snapshot { id, manifest, .. } in snapshots {
            let lacking: Vec<ObjectId> =
                manifest.indexes.iter().filter(|index| !self.view.knows_index(index)).copied().collect();
            if lacking.is_empty() {
                continue;
            }
            if !refreshed {
                self.refresh().await?;
                refreshed = true;
            }
            for index in lacking {
                // A snapshot that was forgotten meanwhile names what nobody keeps for it.
                if !self.view.knows_index(&index) && !self.view.record.forgotten.contains(id) {
                    let damage: Damage = missing(&layout::object(ObjectType::Index, &index));
                    self.report(damage, vec![format!("snapshot {id}")]);
                }
            }
        }
        Ok(())
    }
}
