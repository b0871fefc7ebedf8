//! Which snapshots to bring: those that the target neither has nor has forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::needs::finding;
use super::reseal::{REPLICA_TAG, REPLICATED_AS};
use super::{LeftOut, Mode, Reason};
use crate::error::{Error, ErrorKind};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::manifest::Manifest;
use crate::id::{ObjectId, SnapshotId};
use crate::repository::marks::Record;
use crate::repository::snapshots::Snapshot;
use crate::repository::{Damage, Repository};

/// Which snapshots of the source are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// These.
    Only(BTreeSet<SnapshotId>),
}

impl Selection {
    /// Whether this one is asked for.
    pub fn contains(&self, id: &SnapshotId) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => ids.contains(id),
        }
    }
}

/// What is to be done with each snapshot that is asked for.
#[derive(Debug, Default)]
pub struct Chosen {
    /// To be brought, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// The target has them: in the source, in the target.
    pub there: BTreeMap<SnapshotId, SnapshotId>,
    /// The target forgot them.
    pub forgotten: Vec<SnapshotId>,
    /// They are late in the source and nobody confirmed them, or a part of them is lost there.
    pub late: Vec<SnapshotId>,
    /// They cannot be brought.
    pub left_out: Vec<LeftOut>,
    /// Manifests that the target lists, forgotten ones included.
    pub(super) listed_there: BTreeSet<SnapshotId>,
    /// Snapshots that count in the target.
    pub(super) counted_there: BTreeSet<SnapshotId>,
    /// Those of them that stand for one of the source, asked for or not.
    pub(super) paired_there: BTreeSet<SnapshotId>,
    /// Pairs of which no mark tells yet.
    pub(super) unmarked: BTreeMap<SnapshotId, SnapshotId>,
    /// Copied by a run that died before it confirmed them: the target misses the one that each names as the one before, which the
    /// source has, or forgot.
    pub(super) unconfirmed: Vec<(SnapshotId, Manifest)>,
    /// The newest snapshot in the target.
    pub(super) head_there: Option<SnapshotId>,
}

/// Compares what there is.
///
/// # Errors
/// [`ErrorKind::NotFound`] for a snapshot that is asked for and not there; damage to marks, without which it is not known which
/// snapshots there are.
pub(super) async fn choose(
    source: &Repository,
    target: Option<&Arc<Repository>>,
    mode: Mode,
    selection: &Selection,
) -> Result<Chosen, Error> {
    let listed = source.listed_manifests().await?;
    let record = source.record().await?;
    let (snapshots, damages) = source.snapshots_of(&listed, &record).await?;
    let mut chosen = Chosen::default();
    for damage in damages {
        if let Some(id) = named_in(&damage).filter(|id| selection.contains(id)) {
            let findings = vec![finding(damage, Some(&id))];
            chosen.left_out.push(LeftOut { id, reason: Reason::Damaged, findings });
        }
    }
    if let Selection::Only(ids) = selection {
        let known = |id: &&SnapshotId| {
            snapshots.iter().any(|snapshot| snapshot.id == **id) || chosen.left_out.iter().any(|left| left.id == **id)
        };
        if let Some(unknown) = ids.iter().find(|id| !known(id)) {
            let text = format!("there is no snapshot {} in {}", unknown.short(), source.store().location());
            return Err(Error::new(ErrorKind::NotFound, text));
        }
    }
    let there = match target {
        Some(target) => There::look(target, mode, &mut chosen).await?,
        None => There::default(),
    };
    // What the source does not know either may have been stolen.
    let known = |id: &SnapshotId| listed.contains_key(id) || record.forgotten.contains(id);
    chosen.unconfirmed.retain(|(_, manifest)| manifest.previous.as_ref().is_some_and(known));
    // Those with a damaged manifest here are no less in the source.
    let in_source = listed.keys().filter(|id| !record.forgotten.contains(id));
    chosen.paired_there = in_source.filter_map(|id| there.counted.get(id)).copied().collect();
    for snapshot in snapshots.into_iter().filter(|snapshot| selection.contains(&snapshot.id)) {
        let id = snapshot.id;
        if let Some(pair) = there.counted.get(&id) {
            chosen.there.insert(id, *pair);
        } else if there.forgotten.contains(&id) {
            chosen.forgotten.push(id);
        } else if !snapshot.is_certain() {
            chosen.late.push(id);
        } else if let Some(damage) = there.damaged.get(&id) {
            let findings = vec![finding(damage.clone(), Some(&id))];
            chosen.left_out.push(LeftOut { id, reason: Reason::DamagedThere, findings });
        } else {
            chosen.snapshots.push(snapshot);
        }
    }
    Ok(chosen)
}

/// The snapshot whose manifest is damaged; `None` if it only vanished, as what is forgotten does.
fn named_in(damage: &Damage) -> Option<SnapshotId> {
    let id: ObjectId = damage.object.rsplit('/').next()?.parse().ok()?;
    let is_manifest = layout::object(ObjectType::Manifest, &id).as_str() == damage.object;
    (is_manifest && damage.layer != "presence").then_some(id)
}

/// What the target knows of snapshots of the source, by their ids there.
#[derive(Default)]
struct There {
    counted: BTreeMap<SnapshotId, SnapshotId>,
    forgotten: BTreeSet<SnapshotId>,
    damaged: BTreeMap<SnapshotId, Damage>,
}

impl There {
    async fn look(target: &Repository, mode: Mode, chosen: &mut Chosen) -> Result<Self, Error> {
        let listed = target.listed_manifests().await?;
        let record = target.record().await?;
        let (snapshots, damages) = target.snapshots_of(&listed, &record).await?;
        chosen.head_there = snapshots.last().map(|snapshot| snapshot.id);
        chosen.listed_there = listed.into_keys().collect();
        chosen.counted_there = snapshots.iter().filter(|snapshot| !snapshot.late).map(|snapshot| snapshot.id).collect();
        match mode {
            Mode::Copy => {
                let gone = |id: &SnapshotId| !chosen.listed_there.contains(id) && !record.forgotten.contains(id);
                let open =
                    snapshots.iter().filter(|snapshot| !snapshot.late && !record.confirmed.contains(&snapshot.id));
                let open = open.filter(|snapshot| snapshot.manifest.previous.as_ref().is_some_and(gone));
                chosen.unconfirmed = open.map(|snapshot| (snapshot.id, snapshot.manifest.clone())).collect();
                Ok(Self {
                    counted: chosen.counted_there.iter().map(|id| (*id, *id)).collect(),
                    forgotten: record.forgotten,
                    damaged: damages.into_iter().filter_map(|damage| Some((named_in(&damage)?, damage))).collect(),
                })
            }
            Mode::Reseal => Self::by_pairs(target, &record, &snapshots, chosen).await,
        }
    }

    /// A replica under other keys has ids of its own: its manifest says what it stands for, and a mark keeps that when the
    /// manifest is gone. Both are read as they were written, not as later tags changed them.
    async fn by_pairs(
        target: &Repository,
        record: &Record,
        snapshots: &[Snapshot],
        chosen: &mut Chosen,
    ) -> Result<Self, Error> {
        let mut there = Self::default();
        for (stood_for, tags) in &record.tags {
            let Some(pair) = tags.get(REPLICATED_AS).and_then(|id| id.as_ref()?.parse().ok()) else { continue };
            if record.forgotten.contains(&pair) {
                there.forgotten.insert(*stood_for);
            } else if chosen.counted_there.contains(&pair) {
                there.counted.insert(*stood_for, pair);
            }
        }
        for snapshot in snapshots.iter().filter(|snapshot| !snapshot.late) {
            let manifest = target.manifest(&snapshot.id).await?;
            let stood_for = manifest.tags.get(REPLICA_TAG).and_then(|id| id.parse::<SnapshotId>().ok());
            if let Some(stood_for) = stood_for.filter(|id| !there.counted.contains_key(id)) {
                there.counted.insert(stood_for, snapshot.id);
                chosen.unmarked.insert(stood_for, snapshot.id);
            }
        }
        Ok(there)
    }
}
