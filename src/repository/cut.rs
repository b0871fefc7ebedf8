//! The CPU side of writing: bytes to chunks, chunks to segments, chunk lists to recipes. No waiting in here.
//!
//! A [`StreamState`] is one stream being cut; [`OpenSegments`] are the segments of one component that are being filled.
//! Both are moved into a job and back. What is full comes out as [`PlainSegment`]s.

use std::collections::HashSet;

use crate::chunker::{Chunker, CutSizes};
use crate::format::config::{Profile, ProfileName, Profiles};
use crate::format::envelope::ObjectType;
use crate::format::index::ChunkEntry;
use crate::format::tree::ContentRoot;
use crate::id::ChunkId;
use crate::limits::{BASE_DEPTH_MAX, RECIPE_INLINE_MAX, SEGMENT_BASE_SIZE_MAX, SEGMENT_SIZE_TARGET};
use crate::seal::keys::Keys;

use super::RepositoryError;
use super::claim::{Claim, Claims, Owner};
use super::parent::{BaseChunk, Parent};

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

/// The segments of one component that are being filled: for content one of each depth, and one for recipes and trees.
#[derive(Debug, Default)]
pub struct OpenSegments {
    owner: Owner,
    /// By depth: a chunk whose base is deep must not make its neighbours deep.
    content: [Filling; DEPTHS],
    tree: Filling,
    full: Vec<PlainSegment>,
}

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
        if self.bytes.capacity() == 0 {
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
        let filling = if kind == ObjectType::ContentPack { &mut self.content[0] } else { &mut self.tree };
        filling.push(id, chunk);
        if filling.is_full() {
            self.full.extend(filling.take(kind));
        }
    }

    /// Adds a chunk of content to a segment that is compressed against the chunks `near`.
    pub fn push_near(&mut self, id: ChunkId, chunk: &[u8], near: &[BaseChunk]) {
        let kind = ObjectType::ContentPack;
        let Some(depth) = near.iter().map(|chunk| chunk.depth + 1).max() else { return self.push(kind, id, chunk) };
        let filling = &mut self.content[usize::from(depth)];
        if filling.base.bytes + filling.base_grows(near) > SEGMENT_BASE_SIZE_MAX {
            self.full.extend(filling.take(kind));
        }
        filling.add_base(near, depth);
        filling.push(id, chunk);
        if filling.is_full() {
            self.full.extend(filling.take(kind));
        }
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
        self.full.extend(self.tree.take(ObjectType::TreePack));
        self.take_full()
    }
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

/// One stream being cut.
#[derive(Debug)]
pub struct StreamState {
    kind: ObjectType,
    profile: ProfileName,
    buffer: Vec<u8>,
    recipe: Recipe,
    counts: CutCounts,
    parent: Option<Box<Parent>>,
}

impl StreamState {
    /// A stream whose chunks go to packs of `kind`.
    pub fn new(kind: ObjectType, profile: ProfileName) -> Self {
        let (buffer, recipe, counts) = (Vec::new(), Recipe::default(), CutCounts::default());
        Self { kind, profile, buffer, recipe, counts, parent: None }
    }

    /// It takes the place of `parent`.
    pub fn follow(&mut self, parent: Parent) {
        self.parent = Some(Box::new(parent));
    }

    /// Makes the parent known for the next `length` bytes.
    pub async fn read_parent(&mut self, length: u64) {
        if let Some(parent) = &mut self.parent {
            parent.read_to(self.counts.bytes + self.buffer.len() as u64 + length).await;
        }
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
            let shared = self.parent.as_mut().is_some_and(|parent| parent.shares(&id, offset, length as u64));
            let claim = match shared {
                true => Claim::Stored,
                false => context.claims.claim(out.owner, &id, length as u64)?,
            };
            match (claim, &mut self.parent) {
                (Claim::Yours, None) => out.push(self.kind, id, chunk),
                (Claim::Yours, Some(parent)) => {
                    let near = parent.near(offset, length as u64);
                    out.push_near(id, chunk, &near);
                }
                (Claim::Stored | Claim::InFlight, _) => self.counts.shared_bytes += length as u64,
            }
            self.counts.new_chunks += u64::from(claim == Claim::Yours);
            self.recipe.push(context, out, id)?;
        }
        self.buffer.drain(..at);
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
        if self.longer.is_none() {
            return Ok(ContentRoot { depth: 0, chunks: self.ids });
        }
        self.spill(context, out)?;
        let longer = self.longer.expect("checked above");
        let (root, _) = longer.stream.finish(context, out)?;
        Ok(ContentRoot { depth: root.depth + 1, chunks: root.chunks })
    }
}
