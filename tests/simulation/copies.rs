//! What brings snapshots to a second store, what damages the first one, and what mends it: `replicate`, `repair`, and harm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use infrahub_backup::error::Error;
use infrahub_backup::format::envelope::ObjectType;
use infrahub_backup::format::layout;
use infrahub_backup::id::{ObjectName, PackId, SnapshotId};
use infrahub_backup::ops::repair::{RepairOptions, Repaired, repair};
use infrahub_backup::ops::replicate::{ReplicateOptions, Replicated, Selection, replicate};
use infrahub_backup::repository::RepositoryError;
use infrahub_backup::repository::confirm::missing_chunks;
use infrahub_backup::repository::snapshots::Snapshot;
use jiff::{SignedDuration, Timestamp};

use super::actors::Stage;
use super::store::{CALM, Harm, Machine, Place};

/// How to repair, in one run.
#[derive(Debug, Clone, Copy)]
pub struct Mending {
    pub place: Place,
    /// Whether the other store helps.
    pub with_copy: bool,
    pub read_data: bool,
}

/// Which snapshots a run answers for.
enum Judged {
    /// All, and that these lack something.
    AllAnd(BTreeSet<SnapshotId>),
    /// What it brought. Of what an earlier run brought and did not look at again, a slow `prune` may have condemned packs since: until
    /// the next one, which pardons them.
    Only(BTreeSet<SnapshotId>),
}

impl Judged {
    fn is_quarantined(&self, id: &SnapshotId) -> bool {
        matches!(self, Self::AllAnd(quarantined) if quarantined.contains(id))
    }

    fn must_count(&self, id: &SnapshotId) -> bool {
        match self {
            Self::AllAnd(_) => true,
            Self::Only(brought) => brought.contains(id),
        }
    }
}

impl Place {
    fn other(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }
}

impl Stage {
    /// Brings what is in `from` to the other store.
    pub async fn replicate(&self, machine: &Arc<Machine>, from: Place) -> Option<Replicated> {
        let replicated = async {
            let context = self.context(machine);
            let source = self.open_at(&context, machine, from).await?;
            let target = self.open_at(&context, machine, from.other()).await?;
            let options = ReplicateOptions { selection: Selection::All, other_keys: false };
            replicate(&context, &source, &target, &options).await
        };
        match replicated.await {
            Ok(done) => {
                let (pairs, counts) = (done.pairs.len(), done.counts);
                self.world.note(&format!("replicated {pairs}, left out {}, {counts:?}", done.left_out.len()));
                self.count("replicated");
                if from == Place::Source {
                    self.model().brought.extend(done.pairs.iter().map(|pair| pair.target));
                }
                // What was brought anew relies on packs that others may have condemned meanwhile.
                if done.counts.indexes > 0 {
                    let began = self.world.now();
                    let brought = done.pairs.iter().map(|pair| pair.target).collect();
                    self.judge_what_counts("replicate", from.other(), usize::MAX, began, &Judged::Only(brought)).await;
                }
                Some(done)
            }
            Err(error) => {
                self.world.note(&format!("replicate: {}", error.chain().join(": ")));
                self.count("replicate failed");
                None
            }
        }
    }

    /// Brings everything that can be brought, undisturbed.
    pub async fn replicate_all(&self, machine: &Arc<Machine>) {
        match self.replicate(machine, Place::Source).await {
            Some(done) if done.is_whole(&Selection::All) => {}
            Some(done) => self.violation(format!(
                "not all was replicated: left out {:?}, findings {:?}, missing {:?}",
                done.left_out, done.findings, done.proof.missing
            )),
            None => self.violation("the last replicate did not succeed".to_owned()),
        }
    }

    /// Mends a store. Where nothing was damaged nothing is to be decided against anything.
    pub async fn repair(&self, machine: &Arc<Machine>, how: Mending) -> Option<Repaired> {
        let began = self.world.now();
        let repaired = async {
            let context = self.context(machine);
            let repository = self.open_at(&context, machine, how.place).await?;
            let copy = match how.with_copy {
                true => Some(self.open_at(&context, machine, how.place.other()).await?),
                false => None,
            };
            let options = RepairOptions { read_data: how.read_data, ..RepairOptions::default() };
            repair(&context, &repository, copy.as_ref(), options).await
        };
        match repaired.await {
            Ok(done) => {
                self.world.note(&format!("repaired: {:?}, {:?}, lost {:?}", done.healed, done.decided, done.lost));
                self.count("repaired");
                self.judge_decisions(machine, how.place, began, &done).await;
                Some(done)
            }
            Err(error) => {
                self.world.note(&format!("repair: {}", error.chain().join(": ")));
                self.count("repair failed");
                None
            }
        }
    }

    async fn judge_decisions(&self, machine: &Arc<Machine>, place: Place, began: Timestamp, done: &Repaired) {
        let decided = &done.decided;
        for id in &decided.forgotten {
            self.violation(format!("{place:?}: repair forgot snapshot {}", id.short()));
        }
        // One that another repair put back while this one was at work it need not have seen.
        let alone = !self.world.others_stored(place, machine.number, began);
        let based = self.based_packs(place).await.unwrap_or_default();
        // Of one that has bases these may be lost.
        for pack in decided.condemned.iter().filter(|pack| alone && !based.contains(*pack)) {
            let kinds = [ObjectType::ContentPack, ObjectType::TreePack];
            if kinds.iter().any(|kind| self.world.is_whole(place, &layout::object(*kind, pack), pack)) {
                self.violation(format!("{place:?}: repair condemned pack {}, which is whole", pack.short()));
            }
        }
        for (what, many) in [
            ("packs condemned by repair", decided.condemned.len()),
            ("packs pardoned by repair", decided.pardoned.len()),
            ("late snapshots confirmed by repair", decided.confirmed.len()),
            ("snapshots quarantined", decided.quarantined.len()),
            ("snapshots reinstated", decided.reinstated.len()),
        ] {
            *self.model().counts.entry(what).or_default() += many as u64;
        }
        let judged = Judged::AllAnd(decided.quarantined.clone());
        self.judge_what_counts("repair", place, machine.number, began, &judged).await;
    }

    async fn based_packs(&self, place: Place) -> Result<BTreeSet<PackId>, Error> {
        let judge = Machine::start(&self.world, 9, "judge", SignedDuration::ZERO, CALM);
        let context = self.context(&judge);
        let repository = self.open_at(&context, &judge, place).await?;
        repository.sync_index().await?;
        Ok(repository.cache().based_packs().map_err(RepositoryError::from)?)
    }

    /// Judges what the run of machine `number` left, unless others stored or decided something since `began`: that it need not have seen.
    async fn judge_what_counts(&self, run: &str, place: Place, number: usize, began: Timestamp, judged: &Judged) {
        match self.misjudged(place, judged).await {
            Ok(wrong) if self.world.others_stored(place, number, began) => {
                *self.model().counts.entry("not judged beside others").or_default() += wrong.len() as u64;
            }
            Ok(wrong) => wrong.into_iter().for_each(|what| self.violation(format!("{place:?}: after a {run} {what}"))),
            Err(error) => self.world.note(&format!("judge of a {run}: {}", error.chain().join(": "))),
        }
    }

    /// What is quarantined must lack something, and what counts must not rely on condemned packs. Asked at once: a later backup
    /// might bring again what is missing now.
    async fn misjudged(&self, place: Place, judged: &Judged) -> Result<Vec<String>, Error> {
        let judge = Machine::start(&self.world, 9, "judge", SignedDuration::ZERO, CALM);
        let context = self.context(&judge);
        let repository = self.open_at(&context, &judge, place).await?;
        let (snapshots, record) = (repository.snapshots().await?.0, repository.record().await?);
        let mut wrong = Vec::new();
        for snapshot in &snapshots {
            let id = snapshot.id.short();
            if judged.is_quarantined(&snapshot.id) {
                if self.read_back(&context, &repository, snapshot).await.is_ok() {
                    wrong.push(format!("snapshot {id} is quarantined and whole"));
                }
            } else if snapshot.is_certain() && judged.must_count(&snapshot.id) {
                let missing = missing_chunks(&repository, &context.executor, &record, &snapshot.manifest).await?;
                if missing > 0 {
                    wrong.push(format!(
                        "snapshot {id} counts and needs {missing} chunks of packs that nobody may rely on"
                    ));
                }
            }
        }
        Ok(wrong)
    }

    /// Damages something of the source that the replica holds.
    pub async fn harm(&self, machine: &Arc<Machine>) {
        // Else the replica would often hold nothing yet.
        if self.dice().happens(700_000) {
            self.replicate(machine, Place::Source).await;
        }
        let held = match self.held_by_both(machine).await {
            Ok(held) => held,
            Err(error) => return self.world.note(&format!("no harm: {}", error.chain().join(": "))),
        };
        let kinds: Vec<&Vec<(ObjectName, Option<SnapshotId>)>> = held.iter().filter(|kind| !kind.is_empty()).collect();
        if kinds.is_empty() {
            return;
        }
        let times = 1 + self.dice().below(5);
        for _ in 0..times {
            let (kind, at, bit, flips) = {
                let mut dice = self.dice();
                (dice.next(), dice.next(), dice.next(), dice.happens(500_000))
            };
            let kind = kinds[usize::try_from(kind % kinds.len() as u64).expect("small")];
            let (name, snapshot) = &kind[usize::try_from(at % kind.len() as u64).expect("small")];
            let harm = if flips { Harm::Flip } else { Harm::Remove };
            self.set_hurt(true);
            if self.world.damage(name, harm, bit) {
                self.count(if flips { "objects spoilt" } else { "objects removed" });
                self.model().taken.extend(snapshot.filter(|_| !flips));
            }
        }
    }

    /// Packs, index objects and manifests of the source such that the replica holds what they say.
    async fn held_by_both(&self, machine: &Arc<Machine>) -> Result<[Vec<(ObjectName, Option<SnapshotId>)>; 3], Error> {
        let context = self.context(machine);
        let source = self.open_at(&context, machine, Place::Source).await?;
        let target = self.open_at(&context, machine, Place::Target).await?;
        let record = target.record().await?;
        let mut held = target.present_packs().await?;
        held.retain(|pack| !record.condemned.contains_key(pack));
        let is_held = |pack: &PackId| held.contains(pack);
        let names = ["packs/", "trees/"].iter().flat_map(|prefix| self.world.names(Place::Source, prefix));
        let packs = names.filter(|name| layout::id_in(name).is_some_and(|id| is_held(&id)));
        let by_index: BTreeMap<_, _> = source.cache().packs_by_index().expect("a local cache");
        let indexes = by_index.iter().filter(|(_, packs)| packs.iter().all(is_held)).map(|(id, _)| id);
        let counted = |snapshots: Vec<Snapshot>| -> BTreeSet<SnapshotId> {
            snapshots.into_iter().filter(Snapshot::is_certain).map(|snapshot| snapshot.id).collect()
        };
        let (here, there) = (counted(source.snapshots().await?.0), counted(target.snapshots().await?.0));
        Ok([
            packs.map(|name| (name, None)).collect(),
            indexes.map(|id| (layout::object(ObjectType::Index, id), None)).collect(),
            here.intersection(&there).map(|id| (layout::object(ObjectType::Manifest, id), Some(*id))).collect(),
        ])
    }

    /// Snapshots of the source that are late and were never acknowledged: `prune` may let go what they need before it forgets them.
    async fn unsure(&self, machine: &Arc<Machine>) -> BTreeSet<SnapshotId> {
        let listed = async {
            let context = self.context(machine);
            let repository = self.open_at(&context, machine, Place::Source).await?;
            Ok::<_, Error>(repository.snapshots().await?.0)
        };
        let Ok(snapshots) = listed.await else { return BTreeSet::new() };
        let model = self.model();
        let late = snapshots.iter().filter(|snapshot| snapshot.late && !model.acknowledged.contains_key(&snapshot.id));
        late.map(|snapshot| snapshot.id).collect()
    }

    /// What must hold once the source was repaired with the help of the replica. Of a manifest that is gone, and that no other
    /// one names, nothing in the source tells: that is brought back by `replicate` from the replica.
    pub async fn restore_order(&self, machine: &Arc<Machine>) {
        let how = Mending { place: Place::Source, with_copy: true, read_data: true };
        let unsure = self.unsure(machine).await;
        match self.repair(machine, how).await {
            Some(done) if done.is_whole() || only_unsure(&done, &unsure) => {}
            Some(done) => self.violation(format!(
                "not all was mended: lost {:?}, manifests {:?}, left {:?}",
                done.lost, done.lost_manifests, done.left
            )),
            None => self.violation("the last repair did not succeed".to_owned()),
        }
        self.set_hurt(false);
        let taken = std::mem::take(&mut self.model().taken);
        if !taken.is_empty() && self.replicate(machine, Place::Target).await.is_none() {
            self.violation("the replica did not give back".to_owned());
        }
    }
}

/// Whether nothing is wrong but that late snapshots, which nobody acknowledged, lost what they need.
fn only_unsure(done: &Repaired, unsure: &BTreeSet<SnapshotId>) -> bool {
    done.lost_manifests.is_empty() && done.left.is_empty() && done.lost.iter().all(|loss| unsure.contains(&loss.id))
}
