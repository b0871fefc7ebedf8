//! Deciding deduplication in one locked step: a chunk is stored, on its way, or yours to store.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::RepositoryError;
use super::cache::{Cache, CacheError, Location};
use super::loss::Holdings;
use crate::format::index::PackEntry;
use crate::id::{ChunkId, PackId};
use crate::limits::BASE_DEPTH_MAX;

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
/// Lock order: `in_flight`, then `holdings` or `made`.
#[derive(Clone)]
pub struct Claims {
    cache: Arc<Cache>,
    /// What was there when the session began: it may hold segments whose bases are lost, which a run left that came too late.
    holdings: Arc<Mutex<Holdings>>,
    /// Packs that this session made.
    made: Arc<RwLock<HashSet<PackId>>>,
    in_flight: Arc<Mutex<HashMap<ChunkId, Owner>>>,
}

impl Claims {
    /// Looks chunks up in `cache`, and trusts only packs that are `present` in the store.
    pub fn new(cache: Arc<Cache>, present: HashSet<PackId>) -> Result<Self, CacheError> {
        let holdings = Arc::new(Mutex::new(Holdings::of(Arc::clone(&cache), present)?));
        Ok(Self { cache, holdings, made: Arc::default(), in_flight: Arc::default() })
    }

    /// Decides for one chunk of `length` bytes that component `owner` met.
    pub fn claim(&self, owner: Owner, id: &ChunkId, length: u64) -> Result<Claim, RepositoryError> {
        self.claim_within(owner, id, length, BASE_DEPTH_MAX)
    }

    /// The same for a chunk that may be a base of anything: it counts as stored only where it has no base itself.
    pub fn claim_plain(&self, owner: Owner, id: &ChunkId, length: u64) -> Result<Claim, RepositoryError> {
        self.claim_within(owner, id, length, 0)
    }

    fn claim_within(&self, owner: Owner, id: &ChunkId, length: u64, depth: u32) -> Result<Claim, RepositoryError> {
        let mut in_flight = self.in_flight();
        if in_flight.contains_key(id) {
            return Ok(Claim::InFlight);
        }
        if self.is_stored(id, length, depth)? {
            return Ok(Claim::Stored);
        }
        in_flight.insert(*id, owner);
        Ok(Claim::Yours)
    }

    /// Length of a chunk that is in a pack that is there.
    pub fn stored_length(&self, id: &ChunkId) -> Result<Option<u64>, RepositoryError> {
        for location in self.cache.find_all(id)? {
            if self.is_readable(&location)? {
                return Ok(Some(location.length.into()));
            }
        }
        Ok(None)
    }

    /// Takes over packs that are durable and in an index: their chunks need not be remembered here any more.
    pub fn settle(&self, packs: &[PackEntry]) {
        let mut in_flight = self.in_flight();
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        for pack in packs {
            made.insert(pack.id);
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

    fn is_stored(&self, id: &ChunkId, length: u64, depth: u32) -> Result<bool, RepositoryError> {
        for location in self.cache.find_all(id)? {
            if u64::from(location.length) == length && location.is_within(depth) && self.is_readable(&location)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a chunk can be read from a place that may be relied on.
    pub fn is_readable(&self, location: &Location) -> Result<bool, RepositoryError> {
        if self.made.read().unwrap_or_else(PoisonError::into_inner).contains(&location.pack) {
            return Ok(true);
        }
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner).opens_at(location)
    }

    fn in_flight(&self) -> MutexGuard<'_, HashMap<ChunkId, Owner>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
