//! What earlier snapshots tell a new one.

use crate::format::manifest::Manifest;
use crate::id::SnapshotId;
use crate::repository::lineage::DISTANCES;
use crate::repository::snapshots::Snapshot;

/// What earlier snapshots tell.
pub(super) struct Known {
    pub(super) head: Option<SnapshotId>,
    /// As far back as [`DISTANCES`] says, the last one first.
    pub(super) earlier: Vec<Manifest>,
}

impl Known {
    pub(super) fn new(snapshots: Vec<Snapshot>, deployment: &str) -> Self {
        // One that is late may be withdrawn yet.
        let head = snapshots.iter().rev().find(|snapshot| !snapshot.late).map(|snapshot| snapshot.id);
        let mine = |snapshot: &Snapshot| {
            let manifest = &snapshot.manifest;
            manifest.deployment == deployment && snapshot.is_complete() && !manifest.is_safety()
        };
        let mine: Vec<Manifest> = snapshots.into_iter().rev().filter(mine).map(|snapshot| snapshot.manifest).collect();
        let oldest = mine.len();
        let mine = mine.into_iter().zip(1..).filter(|(_, back)| DISTANCES.contains(back) || *back == oldest);
        Self { head, earlier: mine.map(|(manifest, _)| manifest).collect() }
    }

    pub(super) fn logical_bytes(&self, component: &str) -> Option<u64> {
        Some(self.earlier.first()?.component(component)?.sizes.logical_bytes)
    }
}
