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
use std::ops::Range;
use std::sync::Arc;

use super::RepositoryError;
use super::cache::{Cache, Location};
use super::chunks::ChunkReader;
use super::claim::Claims;
use super::stream::ChunkIds;
use crate::format::index::PackEntry;
use crate::format::tree::ContentRoot;
use crate::id::{ChunkId, PackId};

/// How far ahead of the place that is expected the parent is known, in bytes: what was deleted in between may be this long.
const AHEAD: u64 = 64 << 20;

/// How far behind the last shared chunk it is kept, in bytes.
const BEHIND: u64 = 1 << 20;

/// On either side of what a chunk replaces, this much more belongs to its base, in bytes. 4 and 16 KiB made days larger.
const MARGIN: u64 = 8 << 10;

/// How far from where it is expected a chunk of the same length is looked for, in bytes.
const ALIGN: u64 = 64 << 10;

/// Chunks that are kept at most: what was inserted in between may be as long as these together.
const WINDOW_CHUNKS_MAX: usize = 200_000;

/// How deep a segment gets at most, in bases. Readers accept [`crate::limits::BASE_DEPTH_MAX`]; each step multiplies what a
/// restore has to decode. Source: `docs/benchmarks.md`.
pub const CHAIN_MAX: u32 = 4;
const _: () = assert!(CHAIN_MAX <= crate::limits::BASE_DEPTH_MAX);

/// Among so many chunks next to a place one is looked for that an elder stream has as well.
const NEIGHBOURS_MAX: usize = 64;

/// Packs whose chunks are kept at hand: neighbours in a stream are neighbours in packs.
const PACKS_KEPT: usize = 4;

/// The same in what a segment was compressed against, where the place is only known in proportion.
const MARGIN_BEHIND: u64 = 48 << 10;

/// A chunk of the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseChunk {
    /// Its identity.
    pub id: ChunkId,
    /// Its length, in bytes.
    pub length: u32,
    /// Depth of its segment.
    pub depth: u8,
}

/// A chunk of the parent, at its place.
#[derive(Clone)]
struct ParentChunk {
    facts: Facts,
    /// Where it begins in the parent.
    offset: u64,
}

impl ParentChunk {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.facts.chunk.length)
    }
}

/// What the index says of a chunk.
#[derive(Clone)]
struct Facts {
    chunk: BaseChunk,
    /// Whether this session relies on its segment.
    relied_on: bool,
    /// If its segment is as deep as one may be: what that was compressed against.
    behind: Option<Behind>,
}

/// The base of a segment, and a place in the segment.
#[derive(Clone)]
struct Behind {
    base: Arc<[ChunkId]>,
    /// Bytes of the segment before the chunk, and in all.
    at: u64,
    plain: u64,
}

/// A pack whose chunks are at hand.
struct KnownPack {
    id: PackId,
    chunks: HashMap<ChunkId, Facts>,
}

/// The parent of a stream, known around the place where the new stream is.
pub struct Parent {
    /// `None` when nothing more of it can be read.
    ids: Option<ChunkIds>,
    cache: Arc<Cache>,
    claims: Claims,
    packs: VecDeque<KnownPack>,
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
                Ok(Some(facts)) => self.push(facts),
                // It ends here, or cannot be read, or what is behind lies at a place that nobody knows.
                Ok(None) | Err(_) => self.ids = None,
            }
        }
    }

    /// Where a chunk is, if it need not be stored because it is one of the parent's.
    pub fn find(&self, id: &ChunkId, length: u64) -> Option<u64> {
        let number = (*self.numbers.get(id)?)?;
        let chunk = self.chunk(number)?;
        (chunk.facts.relied_on && u64::from(chunk.facts.chunk.length) == length).then_some(chunk.offset)
    }

    /// Whether a chunk that begins at `offset` in the new stream is one of the parent's: then it need not be stored.
    pub fn shares(&mut self, id: &ChunkId, offset: u64, length: u64) -> bool {
        let Some(parent_offset) = self.find(id, length) else { return false };
        self.drift = offset.cast_signed().wrapping_sub(parent_offset.cast_signed());
        self.forget_before(parent_offset.saturating_sub(BEHIND));
        true
    }

    /// Takes a chunk of this length near the place where one is expected for the same chunk, of which something changed: where
    /// chunks change one behind the other, rows that were deleted would otherwise add up until the place is wrong.
    pub fn align(&mut self, offset: u64, length: u64) {
        let expected = self.expected(offset);
        let alike = self.between(expected.saturating_sub(ALIGN), expected.saturating_add(ALIGN));
        let alike = alike.filter(|chunk| u64::from(chunk.facts.chunk.length) == length);
        if let Some(nearest) = alike.map(|chunk| chunk.offset).min_by_key(|at| at.abs_diff(expected)) {
            self.drift = offset.cast_signed().wrapping_sub(nearest.cast_signed());
        }
    }

    /// The chunks in a part of the parent that can be a base, and its neighbours that do not make it deeper; and whether no
    /// chunk in it is too deep.
    pub fn near(&self, part: &Range<u64>) -> (Vec<BaseChunk>, bool) {
        let depth = |chunk: &ParentChunk| u32::from(chunk.facts.chunk.depth);
        let able = |chunk: &&ParentChunk| depth(chunk) < CHAIN_MAX;
        let Some(deepest) = self.between(part.start, part.end).filter(able).map(depth).max() else {
            return (vec![], self.between(part.start, part.end).next().is_none());
        };
        let whole = self.between(part.start, part.end).all(|chunk| able(&chunk));
        let near = self.between(part.start.saturating_sub(MARGIN), part.end.saturating_add(MARGIN));
        (near.filter(|chunk| depth(chunk) <= deepest).map(|chunk| chunk.facts.chunk).collect(), whole)
    }

    /// Where `parts` of a younger stream were in this one, by the chunks next to them that are in both: what changes every day is between
    /// such, though the new stream shares none of it. None if none is near.
    pub fn places(&self, younger: &Self, parts: &[Range<u64>]) -> Vec<Range<u64>> {
        let mut places: Vec<Range<u64>> = Vec::new();
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let first = younger.window.partition_point(|chunk| chunk.end() <= part.start);
            let behind = younger.window.partition_point(|chunk| chunk.offset < part.end);
            let shift = |chunk: &ParentChunk| {
                let here = self.find(&chunk.facts.chunk.id, chunk.facts.chunk.length.into())?;
                Some(here.cast_signed().wrapping_sub(chunk.offset.cast_signed()))
            };
            let before = younger.window.range(..first).rev().take(NEIGHBOURS_MAX).find_map(shift);
            let after = younger.window.range(behind..).take(NEIGHBOURS_MAX).find_map(shift);
            let moved = |at: u64, by: i64| at.checked_add_signed(by).unwrap_or(0);
            for by in before.into_iter().chain(after) {
                let place = moved(part.start, by)..moved(part.end, by);
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        places
    }

    /// What the chunks that [`Parent::near`] finds too deep are based on themselves.
    pub fn behind_near(&mut self, part: &Range<u64>) -> Vec<BaseChunk> {
        let chunks: Vec<ParentChunk> = self.between(part.start, part.end).cloned().collect();
        let mut near = Vec::new();
        for ParentChunk { facts, .. } in chunks {
            if let Some(behind) = facts.behind {
                near.extend(self.behind(&behind, u64::from(facts.chunk.length)));
            }
        }
        near
    }

    /// The chunks in a part of the parent, but for those that this session does not rely on.
    fn between(&self, from: u64, to: u64) -> impl Iterator<Item = &ParentChunk> {
        let first = self.window.partition_point(|chunk| chunk.end() <= from);
        self.window.range(first..).take_while(move |chunk| chunk.offset < to).filter(|chunk| chunk.facts.relied_on)
    }

    /// The part of a segment's base that a chunk of `length` bytes in the segment was probably compressed against.
    fn behind(&mut self, behind: &Behind, length: u64) -> Vec<BaseChunk> {
        let mut described = Vec::with_capacity(behind.base.len());
        for id in behind.base.iter() {
            match self.describe(id) {
                Ok(Some(facts)) if facts.relied_on => described.push(facts.chunk),
                Ok(_) | Err(_) => return vec![],
            }
        }
        let all: u64 = described.iter().map(|chunk| u64::from(chunk.length)).sum();
        let place = |at: u64| at.saturating_mul(all) / behind.plain.max(1);
        let from = place(behind.at).saturating_sub(MARGIN_BEHIND);
        let to = place(behind.at + length).saturating_add(MARGIN_BEHIND);
        let (mut at, mut near) = (0, Vec::new());
        for chunk in described {
            let end = at + u64::from(chunk.length);
            if end > from && at < to && u32::from(chunk.depth) < CHAIN_MAX {
                near.push(chunk);
            }
            at = end;
        }
        near
    }

    /// Where in the parent something is expected that is at `offset` in the new stream.
    pub fn expected(&self, offset: u64) -> u64 {
        offset.checked_add_signed(self.drift.saturating_neg()).unwrap_or(0)
    }

    fn chunk(&self, number: u64) -> Option<&ParentChunk> {
        self.window.get(usize::try_from(number.checked_sub(self.passed)?).ok()?)
    }

    fn push(&mut self, facts: Facts) {
        let number = self.passed + self.window.len() as u64;
        let chunk = ParentChunk { facts, offset: self.end };
        self.numbers.entry(chunk.facts.chunk.id).and_modify(|known| *known = None).or_insert(Some(number));
        self.end = chunk.end();
        self.window.push_back(chunk);
        if self.window.len() > WINDOW_CHUNKS_MAX {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(chunk) = self.window.pop_front() {
            self.numbers.remove(&chunk.facts.chunk.id);
            self.passed += 1;
        }
    }

    fn forget_before(&mut self, offset: u64) {
        while self.window.front().is_some_and(|chunk| chunk.end() <= offset) {
            self.pop();
        }
    }

    /// What the index says of a chunk; `None` if no index names it.
    fn describe(&mut self, id: &ChunkId) -> Result<Option<Facts>, RepositoryError> {
        for pack in &self.packs {
            if let Some(facts) = pack.chunks.get(id) {
                return Ok(Some(facts.clone()));
            }
        }
        let found = self.cache.find_all(id)?;
        let mut relied_on: Option<&Location> = None;
        for location in &found {
            let better = relied_on.is_none_or(|known| location.depth < known.depth);
            if better && self.claims.is_readable(location)? {
                relied_on = Some(location);
            }
        }
        let Some(location) = relied_on.or(found.first()) else { return Ok(None) };
        let Some(entry) = self.cache.pack(&location.pack)? else { return Ok(None) };
        let pack = KnownPack { id: entry.id, chunks: facts_of(&entry, &self.claims)? };
        let facts = pack.chunks.get(id).cloned();
        self.packs.retain(|known| known.id != pack.id);
        self.packs.truncate(PACKS_KEPT - 1);
        self.packs.push_front(pack);
        Ok(facts)
    }
}

fn facts_of(entry: &PackEntry, claims: &Claims) -> Result<HashMap<ChunkId, Facts>, RepositoryError> {
    let mut facts = HashMap::with_capacity(entry.chunk_count());
    for (ordinal, segment) in (0u32..).zip(&entry.segments) {
        let (pack, kind, depth) = (entry.id, entry.kind, segment.depth);
        let relied_on =
            claims.is_readable(&Location { pack, kind, segment: ordinal, position: 0, length: 0, depth })?;
        let plain = segment.plain_length();
        let base: Option<Arc<[ChunkId]>> =
            (u32::from(segment.depth) >= CHAIN_MAX).then(|| segment.base.as_slice().into());
        let mut at = 0;
        for chunk in &segment.chunks {
            let behind = base.clone().map(|base| Behind { base, at, plain });
            at += u64::from(chunk.length);
            let chunk = BaseChunk { id: chunk.id, length: chunk.length, depth: segment.depth };
            facts.insert(chunk.id, Facts { chunk, relied_on, behind });
        }
    }
    Ok(facts)
}
