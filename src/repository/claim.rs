//! Deciding deduplication in one locked step: a chunk is stored, on its way, or yours to store.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::RepositoryError;
use super::cache::Cache;
use crate::format::index::PackEntry;
use crate::id::{ChunkId, PackId};

/// Who stores a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is in a pack that is there.
    Stored,
    /// This session met it before.
    InFlight,
    /// Nobody yet: the caller must.
    Yours,
}

/// Names a component of a session.
pub type Owner = u32;

/// The chunks of one write session. Clones share them.
///
/// Lock order: `in_flight`, then `present`.
#[derive(Clone)]
pub struct Claims {
    cache: Arc<Cache>,
    present: Arc<RwLock<HashSet<PackId>>>,
    in_flight: Arc<Mutex<HashMap<ChunkId, Owner>>>,
}

impl Claims {
    /// Looks chunks up in `cache`, and trusts only packs that are `present` in the store.
    pub fn new(cache: Arc<Cache>, present: HashSet<PackId>) -> Self {
        Self { cache, present: Arc::new(RwLock::new(present)), in_flight: Arc::default() }
    }

    /// Decides for one chunk of `length` bytes that component `owner` met.
    pub fn claim(&self, owner: Owner, id: &ChunkId, length: u64) -> Result<Claim, RepositoryError> {
        let mut in_flight = self.in_flight();
        if in_flight.contains_key(id) {
            return Ok(Claim::InFlight);
        }
        if self.is_stored(id, length)? {
            return Ok(Claim::Stored);
        }
        in_flight.insert(*id, owner);
        Ok(Claim::Yours)
    }

    /// Length of a chunk that is in a pack that is there.
    pub fn stored_length(&self, id: &ChunkId) -> Result<Option<u64>, RepositoryError> {
        let found = self.cache.find_all(id)?;
        Ok(found.iter().find(|location| self.is_present(&location.pack)).map(|location| location.length.into()))
    }

    /// Takes over packs that are durable and in an index: their chunks need not be remembered here any more.
    pub fn settle(&self, packs: &[PackEntry]) {
        let mut in_flight = self.in_flight();
        let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
        for pack in packs {
            present.insert(pack.id);
            let chunks = pack.segments.iter().flat_map(|segment| &segment.chunks);
            for chunk in chunks {
                in_flight.remove(&chunk.id);
            }
        }
    }

    /// Forgets the claims of a component that was given up, and its open segments with it. What of it is packed all the
    /// same may be stored once more if it is met again, which costs only space.
    ///
    /// Components of a session come one after the other, so that nobody relied on these claims yet.
    pub fn abandon(&self, owner: Owner) {
        self.in_flight().retain(|_, other| *other != owner);
    }

    /// Whether every chunk that was claimed is in a pack that is durable and in an index.
    pub fn all_settled(&self) -> bool {
        self.in_flight().is_empty()
    }

    fn is_stored(&self, id: &ChunkId, length: u64) -> Result<bool, RepositoryError> {
        let found = self.cache.find_all(id)?;
        Ok(found.iter().any(|location| u64::from(location.length) == length && self.is_present(&location.pack)))
    }

    /// Whether a pack is there and may be relied on.
    pub fn is_present(&self, pack: &PackId) -> bool {
        self.present.read().unwrap_or_else(PoisonError::into_inner).contains(pack)
    }

    fn in_flight(&self) -> MutexGuard<'_, HashMap<ChunkId, Owner>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
