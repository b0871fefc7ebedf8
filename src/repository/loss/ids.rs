//! The chunk ids of a stream whose recipe may have holes.

use std::collections::VecDeque;

use super::Visit;
use super::Walker;
use crate::format::envelope::ObjectType;
use crate::format::tree::ContentRoot;
use crate::id::ChunkId;
use crate::repository::RepositoryError;

/// The chunk ids of a stream, in order; `None` for those that are not known any more.
pub(super) struct Ids {
    levels: Vec<Level>,
}

#[derive(Default)]
struct Level {
    ids: VecDeque<Option<ChunkId>>,
    /// The beginning of an id whose rest is in the next chunk of the recipe.
    partial: Vec<u8>,
    /// Whether a part of that beginning is lost.
    spoiled: bool,
}

impl Level {
    fn take(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let whole = self.partial.len() / ChunkId::SIZE * ChunkId::SIZE;
        for id in self.partial[..whole].as_chunks::<{ ChunkId::SIZE }>().0 {
            let spoiled = std::mem::take(&mut self.spoiled);
            self.ids.push_back((!spoiled).then(|| ChunkId::from_bytes(*id)));
        }
        self.partial.drain(..whole);
    }

    /// Passes over `length` bytes that are lost.
    fn skip(&mut self, length: u64) {
        let size = ChunkId::SIZE as u64;
        let all = self.partial.len() as u64 + length;
        self.ids.extend((0..all / size).map(|_| None));
        self.partial = vec![0; usize::try_from(all % size).expect("less than an id")];
        self.spoiled = !self.partial.is_empty();
    }
}

impl Ids {
    /// The ids below `root`.
    pub fn new(root: &ContentRoot) -> Self {
        let mut levels: Vec<Level> = Vec::new();
        levels.resize_with(usize::from(root.depth) + 1, Level::default);
        levels[0].ids.extend(root.chunks.iter().copied().map(Some));
        Self { levels }
    }

    /// The next one.
    pub async fn next(
        &mut self,
        walker: &mut Walker,
        visit: &mut Visit<'_>,
    ) -> Result<Option<Option<ChunkId>>, RepositoryError> {
        let last = self.levels.len() - 1;
        loop {
            if let Some(id) = self.levels[last].ids.pop_front() {
                return Ok(Some(id));
            }
            let Some(above) = (0..last).rev().find(|level| !self.levels[*level].ids.is_empty()) else {
                return Ok(None);
            };
            let id = self.levels[above].ids.pop_front().expect("found not empty");
            let mut length = None;
            if let Some(id) = &id {
                length = walker.met(id, ObjectType::TreePack, visit)?.1;
            }
            match (walker.read(id).await?, length) {
                (Some(bytes), _) => self.levels[above + 1].take(&bytes),
                (None, Some(length)) => self.levels[above + 1].skip(length),
                // Where the next id begins is not known: the rest is lost.
                (None, None) => {
                    self.levels.iter_mut().for_each(|level| *level = Level::default());
                    self.levels[last].ids.push_back(None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_behind_a_lost_part_of_a_recipe_are_found_at_their_places() {
        let ids: Vec<ChunkId> = (0..6).map(|n| ChunkId::from_bytes([n; 32])).collect();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
        let mut level = Level::default();
        level.take(&bytes[..40]);
        level.skip(50);
        level.take(&bytes[90..]);
        let found: Vec<Option<ChunkId>> = level.ids.into_iter().collect();
        assert_eq!(found, [Some(ids[0]), None, None, Some(ids[3]), Some(ids[4]), Some(ids[5])]);
    }
}
