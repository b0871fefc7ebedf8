//! What is there and what of it is needed: the basis of every decision to condemn, pardon, repack or delete.
//!
//! A chunk is *live* if a snapshot that is there refers to it, or a segment that holds live chunks has it as a base. A pack is
//! *sound* if an index names it, the store lists it at its length, and nobody is about to delete it. Live chunks are bits per pack, so that memory grows by
//! an eighth of a byte a chunk.
//!
//! Does not: decide; see `sweep`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::cache::{Cache, Location};
use super::chunks::ChunkReader;
use super::executor::Executor;
use super::loss::{Holdings, Walker};
use super::marks::Record;
use super::reach::Reach;
use super::snapshots::Snapshot;
use super::{Damage, Repository, RepositoryError};
use crate::format::envelope::ObjectType;
use crate::format::index::{PackEntry, SegmentEntry};
use crate::format::layout;
use crate::id::{ChunkId, PackId, RunId, SnapshotId};
use crate::limits::BASE_DEPTH_MAX;

/// A pack that the store lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedPack {
    /// Content or tree.
    pub kind: ObjectType,
    /// Its length, in bytes.
    pub size: u64,
    /// The store's time of it.
    pub stored_at: Timestamp,
}

/// One bit for each chunk of a pack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// Sets the bit at `position`; `false` if it was set.
    pub(super) fn set(&mut self, position: u32) -> bool {
        let (word, bit) = ((position / 64) as usize, 1 << (position % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    fn clear(&mut self, position: u32) {
        if let Some(word) = self.0.get_mut((position / 64) as usize) {
            *word &= !(1 << (position % 64));
        }
    }

    /// Sets what is set in `other`.
    pub(super) fn extend(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(word, more)| *word |= more);
    }

    /// What is set here and not in `other`.
    pub(super) fn without(&self, other: &Self) -> Self {
        let others = other.0.iter().copied().chain(std::iter::repeat(0));
        Self(self.0.iter().zip(others).map(|(word, other)| word & !other).collect())
    }

    /// Whether the chunk at `position` is live.
    pub fn contains(&self, position: u32) -> bool {
        self.0.get((position / 64) as usize).is_some_and(|word| word & (1 << (position % 64)) != 0)
    }

    /// How many are live.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// What is there and what of it is needed, at one moment.
pub struct Survey {
    /// All decisions so far.
    pub record: Record,
    /// Manifests that the store lists, with its time of each, forgotten ones included.
    pub listed: BTreeMap<SnapshotId, Timestamp>,
    /// The snapshots that are there, late ones included.
    pub snapshots: Vec<Snapshot>,
    /// Packs that the store lists.
    pub packs: HashMap<PackId, ListedPack>,
    /// Packs that are sound.
    pub sound: HashSet<PackId>,
    /// Packs that this machine found damaged inside: what they hold counts as nowhere else.
    pub damaged: BTreeSet<PackId>,
    /// Live chunks, by pack; a chunk is live in every pack that holds it.
    pub live: HashMap<PackId, Bits>,
    /// Live chunks that more than one pack holds.
    pub shared: HashMap<ChunkId, Vec<(PackId, u32)>>,
    /// Live chunks that no sound pack holds, but for those that only quarantined snapshots refer to.
    pub missing: u64,
    /// Condemned packs that hold what a quarantined snapshot lacks, in segments whose bases are lost: it can be read again once a
    /// replica gives these back.
    pub awaited: BTreeSet<PackId>,
    /// Whether a recipe or a tree of a quarantined snapshot is lost: what it refers to is not known until that comes back.
    pub is_partly_unknown: bool,
}

impl Survey {
    /// Looks at everything, as if the snapshots `without` were forgotten. `counts` tells which late snapshots refer to something all the same: those whose run is alive.
    ///
    /// # Errors
    /// Damage to manifests or recipes: what cannot be read may refer to anything.
    pub async fn take(
        repository: &Arc<Repository>,
        executor: &Arc<dyn Executor>,
        without: &BTreeSet<SnapshotId>,
        counts: impl Fn(&RunId) -> bool,
    ) -> Result<Self, RepositoryError> {
        // Manifests after marks here: a confirmation that lands in between is not known, but its manifest is seen as late and
        // its run as alive. What is forgotten in between only looks needed.
        let mut record = repository.record().await?;
        record.forgotten.extend(without);
        let listed = repository.listed_manifests().await?;
        if let Some(damage) = repository.sync_index().await?.into_iter().next() {
            return Err(damage.into());
        }
        let (snapshots, damages) = repository.snapshots_of(&listed, &record).await?;
        let gone = |damage: &Damage| damage.layer == "presence";
        if let Some(damage) = damages.into_iter().find(|damage| !gone(damage)) {
            return Err(damage.into());
        }
        if let Some(lost) = lost_manifest(repository, &listed, &snapshots, &record).await? {
            return Err(lost.into());
        }
        let packs = listed_packs(repository).await?;
        let known = repository.cache().packs()?;
        let damaged = repository.cache().damaged_packs()?;
        // Nobody relies on what is condemned, so that what is damaged of it may be left to go.
        let is_out =
            |id: &PackId| record.doomed.contains(id) || (record.condemned.contains_key(id) && damaged.contains(id));
        let is_sound = |pack: &&super::cache::KnownPack| {
            packs.get(&pack.id).is_some_and(|listed| listed.kind == pack.kind && listed.size == pack.stored_size)
                && !is_out(&pack.id)
        };
        let mut sound = known.iter().filter(is_sound).map(|pack| pack.id).collect();
        repository.drop_baseless_condemned(&record, &mut sound)?;
        let (live, shared) = (HashMap::new(), HashMap::new());
        let (awaited, is_partly_unknown) = (BTreeSet::new(), false);
        let mut survey = Self {
            record,
            listed,
            snapshots,
            packs,
            sound,
            damaged,
            live,
            shared,
            missing: 0,
            awaited,
            is_partly_unknown,
        };
        survey.mark_live(repository, executor, counts).await?;
        Ok(survey)
    }

    async fn mark_live(
        &mut self,
        repository: &Arc<Repository>,
        executor: &Arc<dyn Executor>,
        counts: impl Fn(&RunId) -> bool,
    ) -> Result<(), RepositoryError> {
        let reader = Arc::new(ChunkReader::cached(Arc::clone(repository), Arc::clone(executor)));
        let cache = Arc::clone(repository.cache());
        let mut reach = Reach::new(Arc::clone(&reader));
        let mut marking = Marking {
            cache: &cache,
            sound: &self.sound,
            doomed: &self.record.doomed,
            holdings: Holdings::of(Arc::clone(&cache), self.sound.clone())?,
            live: HashMap::new(),
            shared: HashMap::new(),
            depths: HashMap::new(),
            missing: 0,
            passed: None,
        };
        for snapshot in self.snapshots.iter().filter(|snapshot| !snapshot.quarantined) {
            let late = snapshot.late;
            if late && !counts(&snapshot.manifest.run) {
                continue;
            }
            let walked =
                reach.snapshot(&snapshot.manifest, &mut |id| marking.chunk(id, BASE_DEPTH_MAX).map(drop)).await;
            match walked {
                // One that is late may well lack something: it counts only once it is confirmed.
                Err(RepositoryError::Damaged(_) | RepositoryError::MissingChunk { .. }) if late => {}
                other => other?,
            }
        }
        marking.bases()?;
        marking.pardonable(&self.record)?;
        self.missing = marking.missing;
        // Writers rely on every chunk of a pack that is not condemned, needed or not: its bases must be there.
        marking.all_bases(&self.record)?;
        // What these lack is known, and what is left of them stays. Where that is condemned `repair` has stored it anew, if it
        // could: a damaged pack must not be pardoned for their sake.
        marking.passed = Some(&self.record.condemned);
        let quarantined = || self.snapshots.iter().filter(|snapshot| snapshot.quarantined && !snapshot.late);
        if quarantined().next().is_none() {
            (self.live, self.shared) = (marking.live, marking.shared);
            return Ok(());
        }
        let mut walker = Walker::new(vec![reader], Holdings::take(repository, &self.record).await?);
        let awaited = &mut self.awaited;
        for snapshot in quarantined() {
            let mut visit = |id: &ChunkId, depth| {
                marking.chunk(id, depth)?;
                awaited.extend(marking.awaited(id, &self.record)?);
                Ok(())
            };
            walker.snapshot(snapshot.id, &snapshot.manifest, &mut visit).await?;
        }
        let (lacking, _) = walker.finish();
        self.is_partly_unknown = lacking.chunks.values().any(|kind| *kind == ObjectType::TreePack);
        marking.bases()?;
        let Marking { live, shared, .. } = marking;
        (self.live, self.shared) = (live, shared);
        Ok(())
    }

    /// Makes the descriptions of these content packs live: no index could be rebuilt without them.
    pub fn mark_descriptions(
        &mut self,
        repository: &Repository,
        packs: &BTreeSet<PackId>,
    ) -> Result<(), RepositoryError> {
        let (live, shared) = (std::mem::take(&mut self.live), std::mem::take(&mut self.shared));
        let (cache, doomed) = (repository.cache(), &self.record.doomed);
        let (sound, depths) = (&self.sound, HashMap::new());
        let holdings = Holdings::of(Arc::clone(cache), sound.clone())?;
        let mut marking = Marking { cache, sound, doomed, holdings, live, shared, depths, missing: 0, passed: None };
        let mut bytes = Vec::new();
        for pack in packs {
            if let Some(entry) = repository.cache().pack(pack)? {
                bytes.clear();
                entry.encode(&mut bytes);
                marking.chunk(&repository.keys().chunk_id(&bytes), BASE_DEPTH_MAX)?;
            }
        }
        let Marking { live, shared, .. } = marking;
        (self.live, self.shared) = (live, shared);
        Ok(())
    }

    /// The places of the live chunks of a pack that other packs hold as well.
    pub fn shared_of(&self) -> HashMap<PackId, Vec<&Vec<(PackId, u32)>>> {
        let mut by_pack: HashMap<PackId, Vec<&Vec<(PackId, u32)>>> = HashMap::new();
        for places in self.shared.values() {
            for (pack, _) in places {
                by_pack.entry(*pack).or_default().push(places);
            }
        }
        by_pack
    }

    /// Sound packs that nobody found damaged inside.
    pub fn trusted(&self) -> impl Iterator<Item = PackId> + '_ {
        self.sound.iter().filter(|pack| !self.damaged.contains(*pack)).copied()
    }

    /// How many live chunks a pack holds.
    pub fn live_count(&self, pack: &PackId) -> u64 {
        self.live.get(pack).map_or(0, Bits::count)
    }
}

/// The damage, if a manifest is lost: what it refers to nobody knows.
async fn lost_manifest(
    repository: &Repository,
    listed: &BTreeMap<SnapshotId, Timestamp>,
    snapshots: &[Snapshot],
    record: &Record,
) -> Result<Option<Damage>, RepositoryError> {
    let mut lost = repository.lost_manifests(listed, snapshots, record, &BTreeSet::new()).await?;
    if !lost.is_empty() {
        let forgotten = repository.record().await?.forgotten;
        lost.retain(|id| !forgotten.contains(id));
    }
    Ok(lost.first().map(|id| super::missing(&layout::object(ObjectType::Manifest, id))))
}

/// All packs that the store lists under the names that they must have.
pub async fn listed_packs(repository: &Repository) -> Result<HashMap<PackId, ListedPack>, RepositoryError> {
    let mut packs = HashMap::new();
    for kind in [ObjectType::ContentPack, ObjectType::TreePack] {
        for info in repository.store().list(layout::folder(kind)).await? {
            if let Some(id) = layout::id_in(&info.name).filter(|id| layout::object(kind, id) == info.name) {
                packs.insert(id, ListedPack { kind, size: info.size, stored_at: info.modified });
            }
        }
    }
    Ok(packs)
}

struct Marking<'a> {
    cache: &'a Cache,
    sound: &'a HashSet<PackId>,
    /// Packs that count as absent.
    doomed: &'a BTreeSet<PackId>,
    /// Tells from which segments something can be read.
    holdings: Holdings,
    live: HashMap<PackId, Bits>,
    shared: HashMap<ChunkId, Vec<(PackId, u32)>>,
    /// How deep a chunk may be, of those that are deeper somewhere.
    depths: HashMap<ChunkId, u32>,
    missing: u64,
    /// Packs in which nothing becomes live.
    passed: Option<&'a BTreeMap<PackId, u32>>,
}

impl Marking<'_> {
    /// Makes a chunk live that is needed from a segment no deeper than `depth`; `false` if it was already.
    fn chunk(&mut self, id: &ChunkId, depth: u32) -> Result<bool, RepositoryError> {
        let mut found: Vec<Location> = self.cache.find_all(id)?;
        found.retain(|location| !self.doomed.contains(&location.pack));
        found.retain(|location| self.passed.is_none_or(|passed| !passed.contains_key(&location.pack)));
        let depth = self.depths.get(id).map_or(depth, |known| depth.min(*known));
        self.leave_deeper(id, depth, &mut found);
        self.leave_unreadable(&mut found)?;
        // Two index objects may describe one pack.
        found.sort_unstable_by_key(|location| (location.pack, location.position));
        found.dedup_by_key(|location| location.pack);
        let mut new = false;
        for location in &found {
            new |= self.live.entry(location.pack).or_default().set(location.position);
        }
        if new && found.len() > 1 {
            self.shared.insert(*id, found.iter().map(|location| (location.pack, location.position)).collect());
        }
        if !found.iter().any(|location| self.sound.contains(&location.pack)) {
            self.missing += 1;
        }
        Ok(new)
    }

    /// Condemned packs that hold a chunk which can be read nowhere, in a segment that has bases.
    fn awaited(&mut self, id: &ChunkId, record: &Record) -> Result<Vec<PackId>, RepositoryError> {
        let found = self.cache.find_all(id)?;
        for location in &found {
            if self.holdings.opens_at(location)? {
                return Ok(vec![]);
            }
        }
        let may_open = |location: &&Location| location.depth > 0 && !self.doomed.contains(&location.pack);
        let condemned = found.iter().filter(may_open).map(|location| location.pack);
        Ok(condemned.filter(|pack| record.condemned.contains_key(pack)).collect())
    }

    /// Where a chunk can be read somewhere, the segments whose bases are lost are not needed for it.
    fn leave_unreadable(&mut self, found: &mut Vec<Location>) -> Result<(), RepositoryError> {
        let mut readable = Vec::with_capacity(found.len());
        for location in found.iter() {
            if self.holdings.opens_at(location)? {
                readable.push(*location);
            }
        }
        if !readable.is_empty() {
            *found = readable;
        }
        Ok(())
    }

    /// What is deeper than `depth` does not do for who needs it as a base, and what does, does for everybody.
    fn leave_deeper(&mut self, id: &ChunkId, depth: u32, found: &mut Vec<Location>) {
        let deeper: Vec<Location> = found.extract_if(.., |location| !location.is_within(depth)).collect();
        if deeper.is_empty() {
            return;
        }
        self.depths.insert(*id, depth);
        self.shared.remove(id);
        for location in deeper {
            if let Some(bits) = self.live.get_mut(&location.pack) {
                bits.clear(location.position);
            }
        }
        if found.len() > 1 {
            self.shared.insert(*id, found.iter().map(|location| (location.pack, location.position)).collect());
        }
    }

    /// Makes the bases of all segments live that writers rely on: of those in packs that are not condemned, the ones that can be
    /// read. What a run that came too late left has lost its bases: what that has as bases in turn is in no better state.
    fn all_bases(&mut self, record: &Record) -> Result<(), RepositoryError> {
        for pack in self.cache.based_packs()? {
            if record.condemned.contains_key(&pack) || !self.sound.contains(&pack) {
                continue;
            }
            let Some(entry) = self.cache.pack(&pack)? else { continue };
            for (ordinal, segment) in (0..).zip(&entry.segments) {
                if !self.holdings.opens(pack, ordinal)? {
                    continue;
                }
                for (id, depth) in segment.bases() {
                    self.chunk(&id, depth)?;
                }
            }
        }
        Ok(())
    }

    /// Makes the bases of all segments live of condemned packs that hold something live: if they are pardoned, writers rely on all
    /// that they hold.
    fn pardonable(&mut self, record: &Record) -> Result<(), RepositoryError> {
        let mut based = self.cache.based_packs()?;
        based.retain(|pack| record.condemned.contains_key(pack) && self.sound.contains(pack));
        loop {
            let (live, rest): (BTreeSet<PackId>, BTreeSet<PackId>) =
                based.into_iter().partition(|pack| self.live.get(pack).is_some_and(|bits| bits.count() > 0));
            based = rest;
            if live.is_empty() {
                return Ok(());
            }
            for pack in live {
                let Some(entry) = self.cache.pack(&pack)? else { continue };
                for (id, depth) in entry.segments.iter().flat_map(SegmentEntry::bases) {
                    self.chunk(&id, depth)?;
                }
            }
            self.bases()?;
        }
    }

    /// Makes the bases of live segments live, and theirs.
    fn bases(&mut self) -> Result<(), RepositoryError> {
        let based = self.cache.based_packs()?;
        loop {
            let mut changed = false;
            for pack in &based {
                let Some(bits) = self.live.get(pack).cloned() else { continue };
                let Some(entry) = self.cache.pack(pack)? else { continue };
                for (id, depth) in bases_of_live(&entry, &bits) {
                    changed |= self.chunk(&id, depth)?;
                }
            }
            if !changed {
                return Ok(());
            }
        }
    }
}

/// The bases of those segments of a pack that hold a live chunk, each with how deep it may be.
fn bases_of_live(entry: &PackEntry, bits: &Bits) -> Vec<(ChunkId, u32)> {
    let (mut position, mut bases) = (0, Vec::new());
    for segment in &entry.segments {
        let count = u32::try_from(segment.chunks.len()).expect("packs hold fewer than 2^32 chunks");
        if (position..position + count).any(|at| bits.contains(at)) {
            bases.extend(segment.bases());
        }
        position += count;
    }
    bases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_is_new_once() {
        let mut bits = Bits::default();
        assert!(bits.set(70) && !bits.set(70) && bits.set(3));
        assert!(bits.contains(70) && bits.contains(3) && !bits.contains(4) && !bits.contains(1000));
        assert_eq!(bits.count(), 2);
    }
}
