//! Sets of content chunks, as bits per pack: an eighth of a byte for each chunk, however many snapshots refer to it.
//!
//! Holds: a chunk that several packs hold is the same member wherever it was met, as long as the index stays as it is.
//! Does not: count recipes and trees, which no restore gives back; read any content.

use std::collections::HashMap;

use serde::Serialize;

use super::cache::{Cache, Location};
use super::survey::Bits;
use super::{RepositoryError, missing};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::id::{ChunkId, PackId};

/// Content chunks.
#[derive(Debug, Default)]
pub struct ChunkSet(HashMap<PackId, Bits>);

/// How much a set holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Chunks.
    pub chunks: u64,
    /// Their plaintext together, in bytes.
    pub bytes: u64,
}

impl ChunkSet {
    /// Adds a chunk, unless it is one of a recipe or a tree.
    ///
    /// # Errors
    /// [`RepositoryError::MissingChunk`] if no index names it.
    pub fn insert(&mut self, cache: &Cache, id: &ChunkId) -> Result<(), RepositoryError> {
        let found = cache.find_all(id)?;
        let place = |location: &&Location| (location.pack, location.position);
        let first = found.iter().min_by_key(place).ok_or(RepositoryError::MissingChunk { id: *id })?;
        if first.kind == ObjectType::ContentPack {
            self.0.entry(first.pack).or_default().set(first.position);
        }
        Ok(())
    }

    /// Adds all that `other` holds.
    pub fn extend(&mut self, other: &Self) {
        for (pack, bits) in &other.0 {
            self.0.entry(*pack).or_default().extend(bits);
        }
    }

    /// How much of this is not in `other`.
    ///
    /// # Errors
    /// Damage if the index lost a pack meanwhile.
    pub fn amount_without(&self, other: &Self, cache: &Cache) -> Result<Amount, RepositoryError> {
        let mut amount = Amount::default();
        for (pack, bits) in &self.0 {
            let only = other.0.get(pack).map_or_else(|| bits.clone(), |there| bits.without(there));
            if only.count() == 0 {
                continue;
            }
            let entry = cache.pack(pack)?.ok_or_else(|| missing(&layout::object(ObjectType::ContentPack, pack)))?;
            let chunks = entry.segments.iter().flat_map(|segment| &segment.chunks);
            for (_, chunk) in (0u32..).zip(chunks).filter(|(position, _)| only.contains(*position)) {
                amount.chunks += 1;
                amount.bytes += u64::from(chunk.length);
            }
        }
        Ok(amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::index::{ChunkEntry, Index, PackEntry, SegmentEntry, SegmentKind};
    use crate::id::ObjectId;

    fn chunk(number: u8) -> ChunkId {
        ChunkId::from_bytes([number; 32])
    }

    /// A pack of segments of chunks, each of 100 bytes and its number.
    fn pack(name: &str, kind: ObjectType, segments: &[&[u8]]) -> PackEntry {
        let entry = |number: &u8| ChunkEntry { id: chunk(*number), length: 100 + u32::from(*number) };
        let segment = |(offset, numbers): (u32, &&[u8])| SegmentEntry {
            kind: SegmentKind::Chunks,
            offset,
            stored_length: 100,
            depth: 0,
            base: vec![],
            chunks: numbers.iter().map(entry).collect(),
        };
        let segments = (108..).step_by(100).zip(segments).map(segment).collect();
        PackEntry { id: ObjectId::of(name.as_bytes()), kind, stored_size: 1000, segments }
    }

    fn set(cache: &Cache, numbers: &[u8]) -> ChunkSet {
        let mut set = ChunkSet::default();
        numbers.iter().for_each(|number| set.insert(cache, &chunk(*number)).expect("it is in the index"));
        set
    }

    #[test]
    fn what_is_not_in_the_other_counts_once_wherever_it_lies() {
        let cache = Cache::temporary().expect("a temporary database");
        let content = ObjectType::ContentPack;
        // Chunk 3 is in both packs.
        let packs = vec![
            pack("a", content, &[&[1, 2], &[3]]),
            pack("b", content, &[&[3, 4]]),
            pack("t", ObjectType::TreePack, &[&[9]]),
        ];
        cache.add_index(&ObjectId::of(b"index"), &Index { supersedes: vec![], packs }).expect("added");
        let (old, new) = (set(&cache, &[1, 2, 3]), set(&cache, &[2, 3, 4, 4, 9]));
        assert_eq!(new.amount_without(&old, &cache).expect("known"), Amount { chunks: 1, bytes: 104 });
        assert_eq!(old.amount_without(&new, &cache).expect("known"), Amount { chunks: 1, bytes: 101 });
        let mut both = set(&cache, &[1]);
        both.extend(&new);
        assert_eq!(both.amount_without(&ChunkSet::default(), &cache).expect("known").chunks, 4);
        assert!(matches!(both.insert(&cache, &chunk(7)), Err(RepositoryError::MissingChunk { .. })));
    }
}
