//! What earlier snapshots tell a new one.

use crate::deployment::{ComponentInfo, ComponentKind};
use crate::format::manifest::{ComponentRecord, Manifest};
use crate::id::SnapshotId;
use crate::repository::lineage::DISTANCES;
use crate::repository::snapshots::Snapshot;

/// What earlier snapshots tell.
pub(super) struct Known {
    pub(super) head: Option<SnapshotId>,
    /// As far back as [`DISTANCES`] says, the last one first.
    earlier: Vec<Manifest>,
    /// The same of those whose graph is redacted, or is not, as the new one.
    alike: Vec<Manifest>,
}

impl Known {
    pub(super) fn new(snapshots: Vec<Snapshot>, deployment: &str, redacted: bool) -> Self {
        // One that is late may be withdrawn yet.
        let head = snapshots.iter().rev().find(|snapshot| !snapshot.late).map(|snapshot| snapshot.id);
        let mine = |snapshot: &Snapshot| {
            let manifest = &snapshot.manifest;
            manifest.deployment == deployment && snapshot.is_complete() && !manifest.is_safety()
        };
        let mine: Vec<Manifest> = snapshots.into_iter().rev().filter(mine).map(|snapshot| snapshot.manifest).collect();
        let alike = mine.iter().filter(|manifest| manifest.is_redacted() == redacted).cloned().collect();
        Self { head, earlier: spread(mine), alike: spread(alike) }
    }

    /// What an earlier snapshot holds of a component, the last one first: what the new one is compressed against.
    pub(super) fn records(&self, info: &ComponentInfo) -> Vec<&ComponentRecord> {
        // Redacted, a graph is written anew, and values are drawn anew each time: any is better than none.
        let manifests = if self.comparable(info).is_empty() { &self.earlier } else { self.comparable(info) };
        manifests.iter().filter_map(|manifest| manifest.component(&info.name)).collect()
    }

    /// How long the last dump of a component was that the new one can be measured by, in bytes.
    pub(super) fn logical_bytes(&self, info: &ComponentInfo) -> Option<u64> {
        Some(self.comparable(info).first()?.component(&info.name)?.sizes.logical_bytes)
    }

    /// Only a graph is another one when it is redacted.
    fn comparable(&self, info: &ComponentInfo) -> &[Manifest] {
        match info.kind {
            ComponentKind::Neo4j => &self.alike,
            ComponentKind::Postgres | ComponentKind::Artifacts | ComponentKind::Opaque => &self.earlier,
        }
    }
}

/// Those of `newest_first` that are as far back as [`DISTANCES`] says, and the oldest.
fn spread(newest_first: Vec<Manifest>) -> Vec<Manifest> {
    let oldest = newest_first.len();
    let wanted = |back: &usize| DISTANCES.contains(back) || *back == oldest;
    newest_first.into_iter().zip(1..).filter(|(_, back)| wanted(back)).map(|(manifest, _)| manifest).collect()
}
