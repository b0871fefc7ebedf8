//! Which chunks are held: by packs that are there and were not found damaged.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::format::layout;
use crate::id::{ChunkId, PackId};
use crate::limits::BASE_DEPTH_MAX;
use crate::repository::cache::{Cache, CacheError};
use crate::repository::marks::Record;
use crate::repository::{Repository, RepositoryError};
use crate::storage::StoreError;

/// Which chunks are held.
pub struct Holdings {
    cache: Arc<Cache>,
    trusted: HashSet<PackId>,
    based: BTreeSet<PackId>,
    segments: HashMap<(PackId, u32), bool>,
    assumed: BTreeMap<ChunkId, u64>,
}

impl Holdings {
    /// What the packs hold that are there and were not found damaged, condemned ones included, but for those that are doomed. A
    /// pack that the store does not list is asked for by its name.
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
        Ok(Self::of(cache, trusted)?)
    }

    /// What the packs `trusted` hold.
    pub fn of(cache: Arc<Cache>, trusted: HashSet<PackId>) -> Result<Self, CacheError> {
        let based = cache.based_packs()?;
        Ok(Self { cache, trusted, based, segments: HashMap::new(), assumed: BTreeMap::new() })
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

    /// Whether a chunk is held, and its length if an index names it.
    pub(super) fn look(&mut self, id: &ChunkId, depth: u32) -> Result<(bool, Option<u64>), RepositoryError> {
        let found = self.cache.find_all(id)?;
        if let Some(length) = self.assumed.get(id) {
            return Ok((true, Some(*length)));
        }
        let mut held = false;
        for location in &found {
            held |= self.trusted.contains(&location.pack) && self.opens(location.pack, location.segment, depth)?;
            if held {
                break;
            }
        }
        Ok((held, found.first().map(|location| location.length.into())))
    }

    /// The bases of the segments that hold a chunk.
    pub(super) fn bases(&self, id: &ChunkId) -> Result<Vec<ChunkId>, RepositoryError> {
        let mut bases = Vec::new();
        if self.based.is_empty() {
            return Ok(bases);
        }
        for location in self.cache.find_all(id)?.iter().filter(|location| self.based.contains(&location.pack)) {
            bases
                .extend(self.cache.segment(&location.pack, location.segment)?.into_iter().flat_map(|entry| entry.base));
        }
        Ok(bases)
    }

    /// Whether the bases of a segment are held.
    fn opens(&mut self, pack: PackId, segment: u32, depth: u32) -> Result<bool, RepositoryError> {
        if !self.based.contains(&pack) {
            return Ok(true);
        }
        if let Some(known) = self.segments.get(&(pack, segment)) {
            return Ok(*known);
        }
        let bases = self.cache.segment(&pack, segment)?.map(|entry| entry.base).unwrap_or_default();
        let mut opens = bases.is_empty() || depth > 0;
        for base in &bases {
            opens = opens && self.look(base, depth - 1)?.0;
        }
        self.segments.insert((pack, segment), opens);
        Ok(opens)
    }
}
