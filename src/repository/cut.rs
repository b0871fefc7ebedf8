//! The CPU side of writing: bytes to chunks, chunks to segments, chunk lists to recipes. No waiting in here.
//!
//! A [`StreamState`] is one stream being cut; [`OpenSegments`] are the segments of one component that are being filled.
//! Both are moved into a job and back. What is full comes out as [`PlainSegment`]s.

use std::collections::HashSet;
use std::ops::Range;

use crate::chunker::{Chunker, CutSizes};
use crate::format::config::{Profile, ProfileName, Profiles};
use crate::format::envelope::ObjectType;
use crate::format::index::ChunkEntry;
use crate::format::tree::ContentRoot;
use crate::id::ChunkId;
use crate::limits::{BASE_DEPTH_MAX, RECIPE_INLINE_MAX, SEGMENT_BASE_SIZE_MAX, SEGMENT_SIZE_MAX, SEGMENT_SIZE_TARGET};
use crate::seal::keys::Keys;

use super::RepositoryError;
use super::claim::{Claim, Claims, Owner};
use super::lineage::{Lineage, Run};
use super::parent::BaseChunk;

/// A full segment on its way to be compressed.
#[derive(Debug)]
pub struct PlainSegment {
    /// Which packs it goes to.
    pub kind: ObjectType,
    /// Its plaintext.
    pub bytes: Vec<u8>,
    /// Its chunks.
    pub chunks: Vec<ChunkEntry>,
    /// What it is to be compressed against.
    pub base: Base,
}

/// The chunks that a segment is compressed against, one behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base {
    /// In order.
    pub chunks: Vec<ChunkId>,
    /// Their length together, in bytes.
    pub bytes: u64,
    /// Depth of a segment with this base; 0: there is none.
    pub depth: u8,
}

/// What cutting needs to know, the same for a whole session.
pub struct CutContext {
    /// Gives chunks their identity.
    pub keys: std::sync::Arc<Keys>,
    /// Knows which chunks are there.
    pub claims: Claims,
    profiles: [Chunker; 3],
}

impl CutContext {
    /// For a repository's keys and profiles.
    pub fn new(keys: std::sync::Arc<Keys>, profiles: &Profiles, claims: Claims) -> Self {
        let seed = keys.cut_seed();
        let chunker = |profile: Profile| Chunker::new(sizes(profile), seed);
        let profiles = [chunker(profiles.dump), chunker(profiles.files), chunker(profiles.meta)];
        Self { keys, claims, profiles }
    }

    fn chunker(&self, profile: ProfileName) -> &Chunker {
        match profile {
            ProfileName::Dump => &self.profiles[0],
            ProfileName::Files => &self.profiles[1],
            ProfileName::Meta => &self.profiles[2],
        }
    }
}

fn sizes(profile: Profile) -> CutSizes {
    let size = |bytes: u32| usize::try_from(bytes).expect("usize has 32 bits or more");
    CutSizes { min: size(profile.min), avg: size(profile.avg), max: size(profile.max), level: profile.level }
}

/// The segments of one component that are being filled: for content, and for recipes and trees, one of each depth.
#[derive(Debug, Default)]
pub struct OpenSegments {
    owner: Owner,
    /// By depth: a chunk whose base is deep must not make its neighbours deep.
    content: [Filling; DEPTHS],
    tree: [Filling; DEPTHS],
    full: Vec<PlainSegment>,
}

/// Chunks of a region, on average: 2 MiB of a dump. With twice as many, more must be kept to read one.
const REGION_CHUNKS: u64 = 128;

/// Depths that a segment may have, 0 included.
const DEPTHS: usize = BASE_DEPTH_MAX as usize + 1;

#[derive(Debug, Default)]
struct Filling {
    bytes: Vec<u8>,
    chunks: Vec<ChunkEntry>,
    base: Base,
    in_base: HashSet<ChunkId>,
}

impl Filling {
    fn push(&mut self, id: ChunkId, chunk: &[u8]) {
        // With a base it ends with its region, mostly long before it is full.
        if self.bytes.capacity() == 0 && self.base.depth == 0 {
            self.bytes.reserve_exact(usize::try_from(SEGMENT_SIZE_TARGET).expect("a MiB fits"));
        }
        let length = u32::try_from(chunk.len()).expect("chunks are at most a MiB");
        self.bytes.extend_from_slice(chunk);
        self.chunks.push(ChunkEntry { id, length });
    }

    fn is_full(&self) -> bool {
        self.bytes.len() as u64 >= SEGMENT_SIZE_TARGET
    }

    /// How much longer the base gets with these chunks, in bytes.
    fn base_grows(&self, near: &[BaseChunk]) -> u64 {
        let new = near.iter().filter(|chunk| !self.in_base.contains(&chunk.id));
        new.map(|chunk| u64::from(chunk.length)).sum()
    }

    fn add_base(&mut self, near: &[BaseChunk], depth: u8) {
        self.base.depth = depth;
        for chunk in near {
            if self.in_base.insert(chunk.id) {
                self.base.chunks.push(chunk.id);
                self.base.bytes += u64::from(chunk.length);
            }
        }
    }

    fn take(&mut self, kind: ObjectType) -> Option<PlainSegment> {
        let Self { bytes, chunks, base, .. } = std::mem::take(self);
        (!chunks.is_empty()).then_some(PlainSegment { kind, bytes, chunks, base })
    }
}

impl OpenSegments {
    /// The segments of component `owner`.
    pub fn new(owner: Owner) -> Self {
        Self { owner, ..Self::default() }
    }

    /// Adds a chunk to the segment of its kind.
    pub fn push(&mut self, kind: ObjectType, id: ChunkId, chunk: &[u8]) {
        self.push_near(kind, id, chunk, &[]);
    }

    /// Adds a chunk to a segment of its kind that is compressed against the chunks `near`.
    pub fn push_near(&mut self, kind: ObjectType, id: ChunkId, chunk: &[u8], near: &[BaseChunk]) {
        // Longer than any base may be, if chunks are: then it has none.
        let length: u64 = near.iter().map(|chunk| u64::from(chunk.length)).sum();
        let near = if length > SEGMENT_BASE_SIZE_MAX { &[] } else { near };
        let depth = near.iter().map(|chunk| chunk.depth + 1).max().unwrap_or(0);
        let fillings = if kind == ObjectType::ContentPack { &mut self.content } else { &mut self.tree };
        let filling = &mut fillings[usize::from(depth)];
        if filling.base.bytes + filling.base_grows(near) > SEGMENT_BASE_SIZE_MAX {
            self.full.extend(filling.take(kind));
        }
        filling.add_base(near, depth);
        filling.push(id, chunk);
        if filling.is_full() {
            self.full.extend(filling.take(kind));
        }
    }

    /// Ends the segments of a kind that have a base, if a region of a stream ends with the chunk `last`.
    pub fn end_region(&mut self, kind: ObjectType, last: &ChunkId) {
        if !ends_region(last) {
            return;
        }
        let fillings = if kind == ObjectType::ContentPack { &mut self.content } else { &mut self.tree };
        self.full.extend(fillings[1..].iter_mut().filter_map(|filling| filling.take(kind)));
    }

    /// Whether a segment is full.
    pub fn has_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// The segments that are full.
    pub fn take_full(&mut self) -> Vec<PlainSegment> {
        std::mem::take(&mut self.full)
    }

    /// All segments, full or not.
    pub fn finish(&mut self) -> Vec<PlainSegment> {
        let content = self.content.iter_mut().filter_map(|filling| filling.take(ObjectType::ContentPack));
        self.full.extend(content);
        self.full.extend(self.tree.iter_mut().filter_map(|filling| filling.take(ObjectType::TreePack)));
        self.take_full()
    }
}

/// Whether a region of a stream ends with a chunk: the same places on most days, whatever moved.
///
/// Bases of a segment lie in its region, and theirs in the same one, so that a restore decodes what a region is based on and
/// goes on to the next. Segments that reach as far as they find chunks overlap each other in chains across the stream, and each
/// needs more than can be kept: a dump took a hundred times as long.
fn ends_region(last: &ChunkId) -> bool {
    u64::from_le_bytes(last.as_bytes()[..8].try_into().expect("an id has 32 bytes")).is_multiple_of(REGION_CHUNKS)
}

/// What was counted of one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CutCounts {
    /// Bytes of the stream.
    pub bytes: u64,
    /// Bytes in chunks that were there before.
    pub shared_bytes: u64,
    /// Chunks.
    pub chunks: u64,
    /// Chunks that were not there before.
    pub new_chunks: u64,
}

/// New chunks, one behind the other, that wait until it is known what follows them.
#[derive(Debug, Default)]
struct NewRun {
    chunks: Vec<(ChunkId, Range<u64>)>,
    bytes: Vec<u8>,
}

impl NewRun {
    fn push(&mut self, id: ChunkId, offset: u64, chunk: &[u8]) {
        self.chunks.push((id, offset..offset + chunk.len() as u64));
        self.bytes.extend_from_slice(chunk);
    }

    /// Gives the chunks to segments. `next` is where the chunk behind them is in the youngest stream that this one follows.
    fn end(&mut self, kind: ObjectType, lineage: &mut Lineage, out: &mut OpenSegments, next: Option<u64>) {
        let (Some((_, first)), Some((_, last))) = (self.chunks.first(), self.chunks.last()) else { return };
        let run = Run { from: lineage.expected(first.start), end: last.end, next };
        let mut rest = &self.bytes[..];
        for (id, place) in self.chunks.drain(..) {
            let length = usize::try_from(place.end - place.start).expect("a chunk fits the address space");
            let (chunk, behind) = rest.split_at(length);
            rest = behind;
            out.push_near(kind, id, chunk, &lineage.near(&place, &run));
            out.end_region(kind, &id);
        }
        self.bytes.clear();
    }
}

/// One stream being cut.
#[derive(Debug)]
pub struct StreamState {
    kind: ObjectType,
    profile: ProfileName,
    buffer: Vec<u8>,
    recipe: Recipe,
    counts: CutCounts,
    lineage: Lineage,
    run: NewRun,
}

impl StreamState {
    /// A stream whose chunks go to packs of `kind`.
    pub fn new(kind: ObjectType, profile: ProfileName) -> Self {
        let (buffer, recipe, counts) = (Vec::new(), Recipe::default(), CutCounts::default());
        Self { kind, profile, buffer, recipe, counts, lineage: Lineage::default(), run: NewRun::default() }
    }

    /// It takes the place of earlier streams, whose recipes are streams, too.
    pub fn follow(&mut self, streams: Lineage, recipes: Lineage) {
        self.lineage = streams;
        if !recipes.is_empty() {
            let mut stream = StreamState::new(ObjectType::TreePack, ProfileName::Meta);
            stream.lineage = recipes;
            self.recipe.longer = Some(Box::new(Longer { stream }));
        }
    }

    /// Makes the earlier streams known for the next `length` bytes.
    pub async fn read_lineage(&mut self, length: u64) {
        self.lineage.read_to(self.counts.bytes + self.buffer.len() as u64 + length).await;
        if let Some(longer) = &mut self.recipe.longer {
            // Its own recipe follows none: it is a hundredth of it.
            let recipe = &mut longer.stream;
            recipe.lineage.read_to(recipe.counts.bytes + recipe.buffer.len() as u64 + length).await;
        }
    }

    /// Whether no byte was written to it.
    fn is_empty(&self) -> bool {
        self.counts.bytes == 0 && self.buffer.is_empty()
    }

    /// The profile by which it is cut.
    pub fn profile(&self) -> ProfileName {
        self.profile
    }

    /// Appends bytes and cuts what is certain.
    pub fn push(&mut self, context: &CutContext, out: &mut OpenSegments, bytes: &[u8]) -> Result<(), RepositoryError> {
        self.buffer.extend_from_slice(bytes);
        self.cut(context, out, false)
    }

    /// Ends the current chunk: what comes next begins a new one.
    pub fn border(&mut self, context: &CutContext, out: &mut OpenSegments) -> Result<(), RepositoryError> {
        self.cut(context, out, true)
    }

    /// Appends a chunk that is known to be stored, without its bytes.
    pub fn reuse(
        &mut self,
        context: &CutContext,
        out: &mut OpenSegments,
        id: ChunkId,
        length: u64,
    ) -> Result<(), RepositoryError> {
        self.cut(context, out, true)?;
        self.counts.bytes += length;
        self.counts.shared_bytes += length;
        self.counts.chunks += 1;
        self.recipe.push(context, out, id)
    }

    /// Ends the stream.
    pub fn finish(
        mut self,
        context: &CutContext,
        out: &mut OpenSegments,
    ) -> Result<(ContentRoot, CutCounts), RepositoryError> {
        self.cut(context, out, true)?;
        Ok((self.recipe.finish(context, out)?, self.counts))
    }

    fn cut(&mut self, context: &CutContext, out: &mut OpenSegments, to_end: bool) -> Result<(), RepositoryError> {
        let chunker = context.chunker(self.profile);
        let mut at = 0;
        for length in chunker.lengths(&self.buffer, to_end) {
            let chunk = &self.buffer[at..at + length];
            at += length;
            let id = context.keys.chunk_id(chunk);
            let offset = self.counts.bytes;
            self.counts.bytes += length as u64;
            self.counts.chunks += 1;
            let next = self.lineage.find(&id, length as u64);
            if next.is_some() {
                self.run.end(self.kind, &mut self.lineage, out, next);
            }
            let claim = match self.lineage.shares(&id, offset, length as u64) {
                true => Claim::Stored,
                false => context.claims.claim(out.owner, &id, length as u64)?,
            };
            match claim {
                Claim::Yours if self.lineage.is_empty() => out.push(self.kind, id, chunk),
                Claim::Yours => self.run.push(id, offset, chunk),
                Claim::Stored | Claim::InFlight => self.counts.shared_bytes += length as u64,
            }
            if claim != Claim::Yours {
                out.end_region(self.kind, &id);
            } else if self.run.bytes.len() as u64 >= SEGMENT_SIZE_MAX {
                self.run.end(self.kind, &mut self.lineage, out, None);
            }
            self.counts.new_chunks += u64::from(claim == Claim::Yours);
            self.recipe.push(context, out, id)?;
        }
        self.buffer.drain(..at);
        if to_end {
            self.run.end(self.kind, &mut self.lineage, out, None);
        }
        Ok(())
    }
}

/// The chunk list of a stream: held while short, itself a stream of ids when longer.
#[derive(Debug, Default)]
struct Recipe {
    ids: Vec<ChunkId>,
    longer: Option<Box<Longer>>,
}

#[derive(Debug)]
struct Longer {
    stream: StreamState,
}

impl Recipe {
    fn push(&mut self, context: &CutContext, out: &mut OpenSegments, id: ChunkId) -> Result<(), RepositoryError> {
        self.ids.push(id);
        if self.ids.len() > RECIPE_INLINE_MAX { self.spill(context, out) } else { Ok(()) }
    }

    fn spill(&mut self, context: &CutContext, out: &mut OpenSegments) -> Result<(), RepositoryError> {
        let longer = self.longer.get_or_insert_with(|| {
            Box::new(Longer { stream: StreamState::new(ObjectType::TreePack, ProfileName::Meta) })
        });
        let bytes: Vec<u8> = self.ids.drain(..).flat_map(|id| *id.as_bytes()).collect();
        longer.stream.push(context, out, &bytes)
    }

    fn finish(mut self, context: &CutContext, out: &mut OpenSegments) -> Result<ContentRoot, RepositoryError> {
        if self.longer.as_ref().is_none_or(|longer| longer.stream.is_empty()) {
            return Ok(ContentRoot { depth: 0, chunks: self.ids });
        }
        self.spill(context, out)?;
        let longer = self.longer.expect("checked above");
        let (root, _) = longer.stream.finish(context, out)?;
        Ok(ContentRoot { depth: root.depth + 1, chunks: root.chunks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: ObjectType = ObjectType::ContentPack;

    fn id(number: u64) -> ChunkId {
        let mut id = [0; ChunkId::SIZE];
        id[..8].copy_from_slice(&number.to_le_bytes());
        ChunkId::from_bytes(id)
    }

    fn base(number: u64, length: u32, depth: u8) -> BaseChunk {
        BaseChunk { id: id(number), length, depth }
    }

    #[test]
    fn the_end_of_a_region_ends_segments_with_a_base_and_no_others() {
        let mut segments = OpenSegments::new(0);
        segments.push(KIND, id(1), b"plain");
        segments.push_near(KIND, id(2), b"based", &[base(9, 64, 0)]);
        segments.end_region(KIND, &id(REGION_CHUNKS + 1));
        assert!(!segments.has_full());
        segments.end_region(KIND, &id(REGION_CHUNKS));
        let ended: Vec<u8> = segments.take_full().iter().map(|segment| segment.base.depth).collect();
        assert_eq!(ended, [1]);
        assert_eq!(segments.finish().len(), 1);
    }

    #[test]
    fn a_base_is_never_longer_than_readers_accept() {
        let mut segments = OpenSegments::new(0);
        let half = u32::try_from(SEGMENT_BASE_SIZE_MAX / 2).expect("a MiB");
        segments.push_near(KIND, id(1), b"alone", &[base(7, half, 0), base(8, half, 0), base(9, 1, 0)]);
        segments.push_near(KIND, id(2), b"first", &[base(7, half, 0), base(8, half, 0)]);
        segments.push_near(KIND, id(3), b"next", &[base(9, 1, 0)]);
        let all = segments.finish();
        assert!(all.iter().all(|segment| segment.base.bytes <= SEGMENT_BASE_SIZE_MAX));
        let mut depths: Vec<u8> = all.iter().map(|segment| segment.base.depth).collect();
        depths.sort_unstable();
        assert_eq!(depths, [0, 1, 1]);
    }

    #[test]
    fn what_has_bases_of_two_depths_is_deeper_than_both() {
        let mut segments = OpenSegments::new(0);
        segments.push_near(KIND, id(1), b"chunk", &[base(8, 64, 0), base(9, 64, 2)]);
        assert_eq!(segments.finish()[0].base.depth, 3);
    }
}
