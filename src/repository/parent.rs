//! The stream of an earlier snapshot that a new one takes the place of: what lies where.
//!
//! Two dumps of one database are the same but for some regions. The *drift* is how much further behind a place lies in the
//! new stream than in its parent, as the last chunk that both share says. What a new chunk replaces is expected there: its
//! segment is compressed against that. Chunks that both share are recognised here without asking the index.
//!
//! Holds: a chunk is given out only if it is in a pack that this session relies on. A parent that cannot be read costs room,
//! never a backup.
//! Does not: read content.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::RepositoryError;
use super::cache::Cache;
use super::chunks::ChunkReader;
use super::claim::Claims;
use super::stream::ChunkIds;
use crate::format::tree::ContentRoot;
use crate::id::{ChunkId, PackId};
use crate::limits::BASE_DEPTH_MAX;

/// How far ahead of the place that is expected the parent is known, in bytes: what was deleted in between may be this long.
const AHEAD: u64 = 64 << 20;

/// How far behind the last shared chunk it is kept, in bytes.
const BEHIND: u64 = 1 << 20;

/// On either side of what a chunk replaces, this much more belongs to its base, in bytes. Source: the measurements of the
/// design.
const MARGIN: u64 = 16 << 10;

/// Chunks that are kept at most: what was inserted in between may be as long as these together.
const WINDOW_CHUNKS_MAX: usize = 200_000;

/// Packs whose chunks are kept at hand: neighbours in a stream are neighbours in packs.
const PACKS_KEPT: usize = 8;

/// A chunk of the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParentChunk {
    /// Its identity.
    pub id: ChunkId,
    /// Its length, in bytes.
    pub length: u32,
    /// Depth of its segment.
    pub depth: u8,
    /// Where it begins in the parent.
    offset: u64,
    /// Whether it is in a pack that this session relies on.
    relied_on: bool,
}

/// Length of a chunk and depth of its segment.
type Facts = (u32, u8);

/// The parent of a stream, known around the place where the new stream is.
pub struct Parent {
    /// `None` when nothing more of it can be read.
    ids: Option<ChunkIds>,
    cache: Arc<Cache>,
    claims: Claims,
    packs: VecDeque<(PackId, bool, HashMap<ChunkId, Facts>)>,
    window: VecDeque<ParentChunk>,
    /// How many chunks were before the window.
    passed: u64,
    /// Numbers of the chunks in the window; `None` for one that is there more than once.
    numbers: HashMap<ChunkId, Option<u64>>,
    /// Where the window ends in the parent.
    end: u64,
    drift: i64,
}

impl std::fmt::Debug for Parent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parent").field("end", &self.end).field("drift", &self.drift).finish_non_exhaustive()
    }
}

impl Parent {
    /// The stream below `root`.
    pub fn new(reader: &Arc<ChunkReader>, claims: Claims, root: &ContentRoot) -> Result<Self, RepositoryError> {
        Ok(Self {
            ids: Some(ChunkIds::new(Arc::clone(reader), root)?),
            cache: Arc::clone(reader.repository().cache()),
            claims,
            packs: VecDeque::new(),
            window: VecDeque::new(),
            passed: 0,
            numbers: HashMap::new(),
            end: 0,
            drift: 0,
        })
    }

    /// Makes the parent known as far as a stream needs it that will go on to `offset`.
    pub async fn read_to(&mut self, offset: u64) {
        let wanted = self.expected(offset).saturating_add(AHEAD);
        while self.end < wanted {
            let Some(ids) = &mut self.ids else { return };
            let next = ids.next().await;
            let chunk = match next {
                Ok(Some(id)) => self.describe(&id),
                Ok(None) | Err(_) => Ok(None),
            };
            match chunk {
                Ok(Some(chunk)) => self.push(chunk),
                // It ends here, or cannot be read, or what is behind lies at a place that nobody knows.
                Ok(None) | Err(_) => self.ids = None,
            }
        }
    }

    /// Whether a chunk that begins at `offset` in the new stream is one of the parent's: then it need not be stored.
    pub fn shares(&mut self, id: &ChunkId, offset: u64, length: u64) -> bool {
        let Some(number) = self.numbers.get(id) else { return false };
        let Some(number) = number else { return false };
        let Some(chunk) = self.chunk(*number).copied() else { return false };
        if !chunk.relied_on || u64::from(chunk.length) != length {
            return false;
        }
        self.drift = offset.cast_signed().wrapping_sub(chunk.offset.cast_signed());
        self.forget_before(chunk.offset.saturating_sub(BEHIND));
        true
    }

    /// The chunks of the parent that `length` bytes at `offset` in the new stream take the place of, and their neighbours,
    /// that can be a base.
    pub fn near(&self, offset: u64, length: u64) -> impl Iterator<Item = ParentChunk> + '_ {
        let from = self.expected(offset).saturating_sub(MARGIN);
        let to = self.expected(offset + length).saturating_add(MARGIN);
        let first = self.window.partition_point(|chunk| chunk.offset + u64::from(chunk.length) <= from);
        let near = self.window.range(first..).take_while(move |chunk| chunk.offset < to);
        near.filter(|chunk| chunk.relied_on && u32::from(chunk.depth) < BASE_DEPTH_MAX).copied()
    }

    /// Where in the parent something is expected that is at `offset` in the new stream.
    fn expected(&self, offset: u64) -> u64 {
        offset.checked_add_signed(self.drift.saturating_neg()).unwrap_or(0)
    }

    fn chunk(&self, number: u64) -> Option<&ParentChunk> {
        self.window.get(usize::try_from(number.checked_sub(self.passed)?).ok()?)
    }

    fn push(&mut self, chunk: ParentChunk) {
        let number = self.passed + self.window.len() as u64;
        self.numbers.entry(chunk.id).and_modify(|known| *known = None).or_insert(Some(number));
        self.end = chunk.offset + u64::from(chunk.length);
        self.window.push_back(chunk);
        if self.window.len() > WINDOW_CHUNKS_MAX {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(chunk) = self.window.pop_front() {
            self.numbers.remove(&chunk.id);
            self.passed += 1;
        }
    }

    fn forget_before(&mut self, offset: u64) {
        while self.window.front().is_some_and(|chunk| chunk.offset + u64::from(chunk.length) <= offset) {
            self.pop();
        }
    }

    /// The next chunk of the parent; `None` if no index names it.
    fn describe(&mut self, id: &ChunkId) -> Result<Option<ParentChunk>, RepositoryError> {
        let chunk =
            |(length, depth): Facts, relied_on| ParentChunk { id: *id, length, depth, offset: self.end, relied_on };
        for (_, relied_on, chunks) in &self.packs {
            if let Some(facts) = chunks.get(id) {
                return Ok(Some(chunk(*facts, *relied_on)));
            }
        }
        let found = self.cache.find_all(id)?;
        let relied_on = found.iter().find(|location| self.claims.is_present(&location.pack));
        let Some(location) = relied_on.or(found.first()) else { return Ok(None) };
        let Some(entry) = self.cache.pack(&location.pack)? else { return Ok(None) };
        let mut chunks = HashMap::with_capacity(entry.chunk_count());
        for segment in &entry.segments {
            chunks.extend(segment.chunks.iter().map(|chunk| (chunk.id, (chunk.length, segment.depth))));
        }
        let described = chunks.get(id).map(|facts| chunk(*facts, relied_on.is_some()));
        let known = (entry.id, relied_on.is_some(), chunks);
        self.packs.truncate(PACKS_KEPT - 1);
        self.packs.push_front(known);
        Ok(described)
    }
}
