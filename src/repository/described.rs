//! Descriptions of packs at hand: neighbours in a stream are neighbours in packs, so that most chunks are found without asking
//! the local cache.
//!
//! Holds: what is said of a pack is what an index says of it; packs never change. Does not: know every pack that holds a chunk,
//! or whether a pack is still there. Who does not find it there calls [`Described::forget`] and asks the cache.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cache::{Cache, CacheError, Location};
use crate::format::index::{PackEntry, SegmentEntry};
use crate::id::{ChunkId, PackId};

/// Descriptions that are kept, each with what finds its chunks: usually a fifth of a MiB, at most one.
const PACKS_KEPT: usize = 32;

/// The beginning of a chunk id, as it is: ids are keyed hashes, so that it is as good as any hash of it.
#[derive(Debug, Default)]
struct Beginning(u64);

impl Hasher for Beginning {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only numbers are hashed");
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

fn beginning(id: &ChunkId) -> u64 {
    u64::from_le_bytes(id.as_bytes()[..8].try_into().expect("an id has 32 bytes"))
}

/// What the index says of a pack, and where in it each chunk is.
#[derive(Debug)]
pub struct DescribedPack {
    entry: PackEntry,
    /// By the beginning of the id: segment, place in the segment, place in the pack.
    places: HashMap<u64, [u32; 3], BuildHasherDefault<Beginning>>,
}

impl DescribedPack {
    fn new(entry: PackEntry) -> Self {
        let mut places = HashMap::with_capacity_and_hasher(entry.chunk_count(), BuildHasherDefault::default());
        let mut position = 0;
        for (ordinal, segment) in (0u32..).zip(&entry.segments) {
            for (nth, chunk) in (0u32..).zip(&segment.chunks) {
                places.entry(beginning(&chunk.id)).or_insert([ordinal, nth, position]);
                position += 1;
            }
        }
        Self { entry, places }
    }

    /// What the index says of one segment.
    pub fn segment(&self, ordinal: u32) -> Option<&SegmentEntry> {
        self.entry.segments.get(index(ordinal))
    }

    fn find(&self, id: &ChunkId) -> Option<Location> {
        let [segment, nth, position] = *self.places.get(&beginning(id))?;
        let entry = self.segment(segment)?;
        let chunk = entry.chunks.get(index(nth)).filter(|chunk| chunk.id == *id)?;
        let (pack, kind, length, depth) = (self.entry.id, self.entry.kind, chunk.length, entry.depth);
        Some(Location { pack, kind, segment, position, length, depth })
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).expect("usize has 32 bits or more")
}

/// The descriptions that were used last.
pub struct Described {
    cache: Arc<Cache>,
    /// The one that was used last is first.
    packs: Mutex<VecDeque<Arc<DescribedPack>>>,
}

impl Described {
    /// None yet.
    pub fn new(cache: Arc<Cache>) -> Self {
        Self { cache, packs: Mutex::default() }
    }

    /// What the index says of a pack.
    pub fn pack(&self, id: &PackId) -> Result<Option<Arc<DescribedPack>>, CacheError> {
        if let Some(known) = self.first(|pack| (pack.entry.id == *id).then(|| Arc::clone(pack))) {
            return Ok(Some(known));
        }
        let Some(entry) = self.cache.pack(id)? else { return Ok(None) };
        let pack = Arc::new(DescribedPack::new(entry));
        let mut packs = self.lock();
        packs.retain(|known| known.entry.id != *id);
        packs.truncate(PACKS_KEPT - 1);
        packs.push_front(Arc::clone(&pack));
        Ok(Some(pack))
    }

    /// Where a chunk is, if one of the descriptions at hand tells.
    pub fn find(&self, id: &ChunkId) -> Option<Location> {
        self.first(|pack| pack.find(id))
    }

    /// Where a chunk is: in a pack that is at hand, or in the first that the cache names, which is at hand from then on.
    pub fn locate(&self, id: &ChunkId) -> Result<Option<Location>, CacheError> {
        if let Some(known) = self.find(id) {
            return Ok(Some(known));
        }
        let first = self.cache.find_all(id)?.into_iter().next();
        if let Some(location) = &first {
            self.pack(&location.pack)?;
        }
        Ok(first)
    }

    /// Forgets a pack: it is not where the index said, and what is at hand may say less than the index says now.
    pub fn forget(&self, id: &PackId) {
        self.lock().retain(|pack| pack.entry.id != *id);
    }

    /// The first answer of a description, which becomes the one that is asked first.
    fn first<T>(&self, ask: impl Fn(&Arc<DescribedPack>) -> Option<T>) -> Option<T> {
        let mut packs = self.lock();
        let (place, answer) = packs.iter().enumerate().find_map(|(place, pack)| Some((place, ask(pack)?)))?;
        if let Some(pack) = packs.remove(place) {
            packs.push_front(pack);
        }
        Some(answer)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<DescribedPack>>> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::envelope::ObjectType;
    use crate::format::index::{ChunkEntry, Index, SegmentKind};
    use crate::id::ObjectId;

    fn segment(offset: u32, ids: &[u8]) -> SegmentEntry {
        let chunk = |id: &u8| ChunkEntry { id: ChunkId::from_bytes([*id; 32]), length: 64 + u32::from(*id) };
        let chunks = ids.iter().map(chunk).collect();
        SegmentEntry { kind: SegmentKind::Chunks, offset, stored_length: 100, depth: 0, base: vec![], chunks }
    }

    fn pack(number: usize, segments: Vec<SegmentEntry>) -> PackEntry {
        let id = ObjectId::of(number.to_string().as_bytes());
        PackEntry { id, kind: ObjectType::ContentPack, stored_size: 1000, segments }
    }

    fn described(packs: Vec<PackEntry>) -> Described {
        let cache = Cache::temporary().expect("a temporary database");
        cache.add_index(&ObjectId::of(b"index"), &Index { supersedes: vec![], packs }).expect("added");
        Described::new(Arc::new(cache))
    }

    #[test]
    fn a_neighbour_of_what_was_located_is_at_hand_at_the_same_place_as_in_the_index() {
        let described = described(vec![pack(0, vec![segment(108, &[1, 2]), segment(208, &[3, 4])])]);
        let [first, last] = [1, 4].map(|id| ChunkId::from_bytes([id; 32]));
        assert_eq!(described.find(&last), None);
        assert!(described.locate(&first).expect("looked up").is_some());
        let found = described.find(&last).expect("at hand");
        assert_eq!(described.cache.find_all(&last).expect("looked up"), [found]);
        assert_eq!((found.segment, found.position, found.length), (1, 3, 68));
    }

    #[test]
    fn another_chunk_whose_id_begins_alike_is_not_taken_for_it() {
        let described = described(vec![pack(0, vec![segment(108, &[1])])]);
        let mut other = [1; 32];
        other[31] = 2;
        described.locate(&ChunkId::from_bytes([1; 32])).expect("looked up");
        assert_eq!(described.find(&ChunkId::from_bytes(other)), None);
    }

    #[test]
    fn what_was_used_longest_ago_is_given_up_and_what_is_forgotten_is_asked_for_again() {
        let ids = || 0..=u8::try_from(PACKS_KEPT).expect("few");
        let described = described(ids().map(|id| pack(id.into(), vec![segment(108, &[id])])).collect());
        let chunk = |id: u8| ChunkId::from_bytes([id; 32]);
        for id in ids() {
            described.locate(&chunk(id)).expect("looked up");
        }
        assert_eq!(described.find(&chunk(0)), None);
        let known = described.find(&chunk(1)).expect("at hand");
        described.forget(&known.pack);
        assert_eq!(described.find(&chunk(1)), None);
        assert_eq!(described.locate(&chunk(1)).expect("looked up"), Some(known));
    }
}
