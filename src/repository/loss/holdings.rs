//! Which chunks are held: by packs that are there and were not found damaged.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::format::index::{PackEntry, SegmentEntry};
use crate::format::layout;
use crate::id::{ChunkId, PackId};
use crate::limits::BASE_DEPTH_MAX;
use crate::repository::cache::{Cache, CacheError, Location};
use crate::repository::marks::Record;
use crate::repository::{Repository, RepositoryError};
use crate::storage::StoreError;

/// How many descriptions of packs are kept: what is asked for one after the other lies in few packs.
const DESCRIBED_KEPT: usize = 8;

/// Which chunks are held.
pub struct Holdings {
    cache: Arc<Cache>,
    trusted: HashSet<PackId>,
    based: BTreeSet<PackId>,
    segments: HashMap<(PackId, u32), bool>,
    /// Descriptions of packs that were met last.
    described: VecDeque<Arc<PackEntry>>,
    assumed: BTreeMap<ChunkId, u64>,
}

impl Holdings {
    /// What the packs hold that are there and were not found damaged, condemned ones included, but for those that are doomed, and
    /// those of which a base is lost: writers rely on all that a pack holds. A pack that the store does not list is asked for by its
    /// name.
    pub async fn take(repository: &Repository, record: &Record) -> Result<Self, RepositoryError> {
        let (cache, mut trusted) = (Arc::clone(repository.cache()), repository.present_packs().await?);
        let damaged = cache.damaged_packs()?;
        for pack in cache.packs()?.iter().filter(|pack| !damaged.contains(&pack.id)) {
            if trusted.contains(&pack.id) {
                continue;
            }
            match repository.store().size(&layout::object(pack.kind, &pack.id)).await {
                Ok(size) if size == pack.stored_size => drop(trusted.insert(pack.id)),
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        trusted.retain(|pack| !record.doomed.contains(pack));
        repository.drop_baseless_of(&mut trusted, |_| true)?;
        Ok(Self::of(cache, trusted)?)
    }

    /// What the packs `trusted` hold.
    pub fn of(cache: Arc<Cache>, trusted: HashSet<PackId>) -> Result<Self, CacheError> {
        let based = cache.based_packs()?;
        let (segments, described, assumed) = (HashMap::new(), VecDeque::new(), BTreeMap::new());
        Ok(Self { cache, trusted, based, segments, described, assumed })
    }

    /// The same, as if these chunks, of these lengths, were held, too.
    pub fn assuming(self, assumed: BTreeMap<ChunkId, u64>) -> Self {
        Self { assumed, ..self }
    }

    /// The packs that are there and were not found damaged.
    pub fn trusted(&self) -> &HashSet<PackId> {
        &self.trusted
    }

    /// Whether a chunk is held.
    pub fn holds(&mut self, id: &ChunkId) -> Result<bool, RepositoryError> {
        Ok(self.look(id, BASE_DEPTH_MAX)?.0)
    }

    /// Whether a chunk is held, in a segment that is no deeper than `depth`, and its length if an index names it.
    pub(super) fn look(&mut self, id: &ChunkId, depth: u32) -> Result<(bool, Option<u64>), RepositoryError> {
        let found = self.cache.find_all(id)?;
        if let Some(length) = self.assumed.get(id) {
            return Ok((true, Some(*length)));
        }
        let mut held = false;
        for location in &found {
            held |= location.is_within(depth)
                && self.trusted.contains(&location.pack)
                && self.opens(location.pack, location.segment)?;
            if held {
                break;
            }
        }
        Ok((held, found.first().map(|location| location.length.into())))
    }

    /// The bases of the segments that hold a chunk, each with how deep it may be.
    pub(super) fn bases(&mut self, id: &ChunkId) -> Result<Vec<(ChunkId, u32)>, RepositoryError> {
        let mut bases = Vec::new();
        if self.based.is_empty() {
            return Ok(bases);
        }
        for location in self.cache.find_all(id)?.iter().filter(|location| location.depth > 0) {
            let entry = self.described(&location.pack)?;
            bases.extend(segment_of(entry.as_deref(), location.segment).into_iter().flat_map(SegmentEntry::bases));
        }
        Ok(bases)
    }

    /// Whether a chunk can be read from a place.
    pub fn opens_at(&mut self, location: &Location) -> Result<bool, RepositoryError> {
        Ok(self.trusted.contains(&location.pack)
            && (location.depth == 0 || self.opens(location.pack, location.segment)?))
    }

    fn described(&mut self, pack: &PackId) -> Result<Option<Arc<PackEntry>>, RepositoryError> {
        if let Some(known) = self.described.iter().find(|entry| entry.id == *pack) {
            return Ok(Some(Arc::clone(known)));
        }
        let entry = self.cache.pack(pack)?.map(Arc::new);
        if let Some(entry) = &entry {
            self.described.truncate(DESCRIBED_KEPT - 1);
            self.described.push_front(Arc::clone(entry));
        }
        Ok(entry)
    }

    /// Whether the bases of a segment are held.
    pub fn opens(&mut self, pack: PackId, segment: u32) -> Result<bool, RepositoryError> {
        if !self.based.contains(&pack) {
            return Ok(true);
        }
        if let Some(known) = self.segments.get(&(pack, segment)) {
            return Ok(*known);
        }
        let entry = self.described(&pack)?;
        let mut opens = true;
        for (base, depth) in segment_of(entry.as_deref(), segment).into_iter().flat_map(SegmentEntry::bases) {
            opens = opens && self.look(&base, depth)?.0;
        }
        self.segments.insert((pack, segment), opens);
        Ok(opens)
    }
}

fn segment_of(entry: Option<&PackEntry>, ordinal: u32) -> Option<&SegmentEntry> {
    entry?.segments.get(usize::try_from(ordinal).expect("usize has 32 bits or more"))
}
