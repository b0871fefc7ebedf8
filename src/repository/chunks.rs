//! Reading chunks: a segment is fetched, opened, decompressed against its base, and every chunk in it hashed again, once.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::ahead::{Ahead, Stretch};
use super::cache::Location;
use super::described::Described;
use super::executor::{Executor, run};
use super::{Damage, Repository, RepositoryError, missing, seal_damage};
use crate::format::envelope::ObjectType;
use crate::format::index::{ChunkEntry, SegmentEntry};
use crate::format::layout;
use crate::id::{ChunkId, ObjectName, PackId};
use crate::limits::{BASE_DEPTH_MAX, SEGMENT_BASE_SIZE_MAX};
use crate::seal::keys::Keys;
use crate::seal::pack::PackOpener;
use crate::storage::StoreError;

/// Decoded segments that are kept, in bytes: what a stretch of a stream is based on, after some days. Source:
/// `docs/benchmarks.md`.
const SEGMENTS_KEPT_BYTES: u64 = 40 << 20;
/// Pack keys that are kept.
const OPENERS_KEPT: u64 = 256;

/// How often a reader brings the index up to date because a pack is gone: a repository that misses many packs must not be
/// listed for each.
const LOOKS_AGAIN_MAX: u32 = 8;

/// Where a segment is: its pack and its ordinal.
type Place = (PackId, u32);

/// A decoded segment; every chunk in it has the hash that it should.
#[derive(Debug)]
pub struct OpenSegment {
    plain: Bytes,
    chunks: HashMap<ChunkId, std::ops::Range<usize>>,
}

impl OpenSegment {
    /// The plaintext of one chunk.
    pub fn chunk(&self, id: &ChunkId) -> Option<Bytes> {
        self.chunks.get(id).map(|range| self.plain.slice(range.clone()))
    }
}

/// A map that forgets what it met longest ago, once all that is in it weighs too much.
struct Recent<K, V> {
    entries: HashMap<K, (V, u64)>,
    order: VecDeque<K>,
    weight: u64,
    weight_max: u64,
}

impl<K: std::hash::Hash + Eq + Copy, V: Clone> Recent<K, V> {
    fn new(weight_max: u64) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), weight: 0, weight_max }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        let value = self.entries.get(key)?.0.clone();
        if self.order.back() != Some(key) {
            self.order.retain(|known| known != key);
            self.order.push_back(*key);
        }
        Some(value)
    }

    fn get_or_insert_with(&mut self, key: K, weight: u64, make: impl FnOnce() -> V) -> V {
        if let Some(value) = self.get(&key) {
            return value;
        }
        self.weight += weight;
        while self.weight > self.weight_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.weight -= self.entries.remove(&oldest).map_or(0, |(_, weight)| weight);
        }
        let value = make();
        self.entries.insert(key, (value.clone(), weight));
        self.order.push_back(key);
        value
    }
}

type SegmentCell = Arc<OnceCell<Arc<OpenSegment>>>;
type OpenerCell = Arc<OnceCell<Arc<PackOpener>>>;

/// Reads chunks of a repository whose index is in the cache.
pub struct ChunkReader {
    repository: Arc<Repository>,
    executor: Arc<dyn Executor>,
    /// Whether segments of tree packs are taken from the local cache and kept there.
    cached: bool,
    /// How often the index was brought up to date because a pack was gone.
    looked_again: AtomicU32,
    /// Sealed bytes that streams fetched before they need them.
    ahead: Ahead,
    segments: Mutex<Recent<Place, SegmentCell>>,
    openers: Mutex<Recent<PackId, OpenerCell>>,
    described: Described,
}

impl ChunkReader {
    /// A reader for `repository` that takes all from the store.
    pub fn new(repository: Arc<Repository>, executor: Arc<dyn Executor>) -> Self {
        let segments = Mutex::new(Recent::new(SEGMENTS_KEPT_BYTES));
        let openers = Mutex::new(Recent::new(OPENERS_KEPT));
        let described = Described::new(Arc::clone(repository.cache()));
        let (looked_again, ahead) = (AtomicU32::new(0), Ahead::default());
        Self { repository, executor, cached: false, looked_again, ahead, segments, openers, described }
    }

    /// A reader that takes recipes and trees from the local cache where they were read before: for who asks what is needed,
    /// not whether it is whole.
    pub fn cached(repository: Arc<Repository>, executor: Arc<dyn Executor>) -> Self {
        Self { cached: true, ..Self::new(repository, executor) }
    }

    /// The same, which keeps so many bytes of decoded segments at most.
    pub fn keeping(self, bytes: u64) -> Self {
        Self { segments: Mutex::new(Recent::new(bytes)), ..self }
    }

    /// The same, which takes the index as the cache says it, also where something is not there.
    pub fn as_indexed(self) -> Self {
        Self { looked_again: AtomicU32::new(LOOKS_AGAIN_MAX), ..self }
    }

    /// The repository.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// What streams fetched before they need it.
    pub(super) fn ahead(&self) -> &Ahead {
        &self.ahead
    }

    /// Where a segment lies, if it is to be fetched from the store before it is needed.
    pub(super) fn stretch(
        &self,
        kind: ObjectType,
        pack: PackId,
        segment: u32,
    ) -> Result<Option<Stretch>, RepositoryError> {
        // What the local cache may have is not fetched on suspicion.
        if self.cached && kind == ObjectType::TreePack {
            return Ok(None);
        }
        let described = self.described.pack(&pack)?;
        let entry = described.as_deref().and_then(|pack| pack.segment(segment));
        Ok(entry.map(|entry| Stretch { kind, pack, segments: vec![segment], range: entry.range() }))
    }

    /// Where a chunk is: in one of the packs that an index names for it.
    pub fn locate(&self, id: &ChunkId) -> Result<Location, RepositoryError> {
        self.described.locate(id)?.ok_or(RepositoryError::MissingChunk { id: *id })
    }

    /// The plaintext of one chunk, whose hash was checked. Tries every pack that holds it.
    ///
    /// A task of its own does it: a reader that is not read on, and had begun to load a segment, would otherwise keep
    /// everybody waiting who needs that segment too.
    pub async fn chunk(self: &Arc<Self>, id: &ChunkId) -> Result<Bytes, RepositoryError> {
        let (reader, id) = (Arc::clone(self), *id);
        let reading = tokio::spawn(async move { reader.chunk_at_depth(&id, BASE_DEPTH_MAX).await });
        reading.await.expect("reading a chunk does not panic")
    }

    /// The plaintexts of chunks that follow each other in a stream, as [`ChunkReader::chunk`] gives them.
    pub async fn chunks(self: &Arc<Self>, ids: Vec<ChunkId>) -> Result<Vec<Bytes>, RepositoryError> {
        let reader = Arc::clone(self);
        let reading = tokio::spawn(async move {
            let mut chunks = Vec::with_capacity(ids.len());
            for id in &ids {
                chunks.push(reader.chunk_at_depth(id, BASE_DEPTH_MAX).await?);
            }
            Ok(chunks)
        });
        reading.await.expect("reading chunks does not panic")
    }

    /// Whether a segment is decoded, and kept.
    pub(super) fn is_decoded(&self, pack: &PackId, segment: u32) -> bool {
        lock(&self.segments).get(&(*pack, segment)).is_some_and(|cell| cell.initialized())
    }

    /// Reads a segment and hashes its chunks, if it is not at hand, where both was done; gives their number.
    pub(super) async fn check_segment(
        self: &Arc<Self>,
        kind: ObjectType,
        pack: PackId,
        ordinal: u32,
    ) -> Result<u64, RepositoryError> {
        let reader = Arc::clone(self);
        let reading = tokio::spawn(async move { reader.segment(kind, pack, ordinal, BASE_DEPTH_MAX).await });
        Ok(reading.await.expect("reading a segment does not panic")?.chunks.len() as u64)
    }

    /// The segment that holds the first chunk of a segment's base; `None` without a base, or if it is nowhere.
    pub(super) fn first_base(&self, pack: &PackId, ordinal: u32) -> Result<Option<Place>, RepositoryError> {
        let described = self.described.pack(pack)?;
        let first = described.as_deref().and_then(|pack| pack.segment(ordinal)?.base.first().copied());
        let Some(first) = first else { return Ok(None) };
        Ok(self.described.locate(&first)?.map(|location| (location.pack, location.segment)))
    }

    /// What a `prune` moved while this reader was at work is found where it is now.
    async fn chunk_at_depth(&self, id: &ChunkId, depth: u32) -> Result<Bytes, RepositoryError> {
        match self.chunk_where_known(id, depth).await {
            Err(error) if is_gone(&error) && self.looked_again.fetch_add(1, Ordering::Relaxed) < LOOKS_AGAIN_MAX => {
                self.repository.sync_index().await?;
                self.chunk_where_known(id, depth).await
            }
            other => other,
        }
    }

    async fn chunk_where_known(&self, id: &ChunkId, depth: u32) -> Result<Bytes, RepositoryError> {
        if let Some(location) = self.described.find(id).filter(|location| location.is_within(depth)) {
            match self.segment(location.kind, location.pack, location.segment, depth).await {
                Ok(segment) => {
                    if let Some(bytes) = segment.chunk(id) {
                        return Ok(bytes);
                    }
                }
                // Another pack may hold it; below, all are tried, and judged.
                Err(RepositoryError::Damaged(_) | RepositoryError::MissingChunk { .. }) => {
                    self.described.forget(&location.pack);
                }
                Err(error) => return Err(error),
            }
        }
        self.chunk_anywhere(id, depth).await
    }

    async fn chunk_anywhere(&self, id: &ChunkId, depth: u32) -> Result<Bytes, RepositoryError> {
        let mut result = Err(RepositoryError::MissingChunk { id: *id });
        // In some packs it may be deeper than who asks may go.
        let found = self.repository.cache().find_all(id)?;
        for location in found.into_iter().filter(|location| location.is_within(depth)) {
            match self.segment(location.kind, location.pack, location.segment, depth).await {
                Ok(segment) => match segment.chunk(id) {
                    Some(bytes) => return Ok(bytes),
                    None => continue,
                },
                Err(RepositoryError::Damaged(damage)) => {
                    // It may be the base of the segment that cannot be read, in another pack.
                    let own = layout::object(location.kind, &location.pack).as_str() == damage.object;
                    if own && damage.layer != "presence" {
                        self.repository.cached(self.repository.cache().set_damaged(&location.pack, true));
                    }
                    result = Err(damage.into());
                }
                // The base of the segment; another pack may hold the chunk in another one.
                Err(error @ RepositoryError::MissingChunk { .. }) => result = Err(error),
                Err(error) => return Err(error),
            }
        }
        result
    }

    async fn segment(
        &self,
        kind: ObjectType,
        pack: PackId,
        ordinal: u32,
        depth: u32,
    ) -> Result<Arc<OpenSegment>, RepositoryError> {
        let described = self.described.pack(&pack)?;
        let length = described.as_deref().and_then(|pack| pack.segment(ordinal)).map_or(0, SegmentEntry::plain_length);
        let cell = lock(&self.segments).get_or_insert_with((pack, ordinal), length, SegmentCell::default);
        // Whoever waits for a base has a greater depth than what it waits for, also in a forged index (`Location::is_within`): nobody waits
        // for himself.
        let loaded = cell.get_or_try_init(|| self.load(kind, pack, ordinal, depth)).await?;
        Ok(Arc::clone(loaded))
    }

    async fn load(
        &self,
        kind: ObjectType,
        pack: PackId,
        ordinal: u32,
        depth: u32,
    ) -> Result<Arc<OpenSegment>, RepositoryError> {
        let name = layout::object(kind, &pack);
        let entry = self.described.pack(&pack)?.and_then(|pack| pack.segment(ordinal).cloned());
        let entry = entry.ok_or_else(|| RepositoryError::Damaged(missing(&name)))?;
        let keeps = self.cached && kind == ObjectType::TreePack;
        if keeps
            && let Some(plain) = self.repository.cache().tree_segment(&pack, ordinal)?
            && let Ok(segment) = hashed(self.repository.keys(), &name, ordinal, &entry, plain)
        {
            return Ok(Arc::new(segment));
        }
        let opener = self.opener(kind, pack).await?;
        let base = self.base(&name, &entry, depth).await?;
        let range = entry.range();
        let sealed = match self.ahead.get(pack, ordinal, &range) {
            Some(sealed) => sealed,
            None => self.range(&name, range).await?,
        };
        let keys = Arc::clone(self.repository.keys());
        let opened = run(&self.executor, move || open_segment(&keys, &name, &opener, ordinal, &entry, &sealed, &base));
        let opened = opened.await?;
        if keeps {
            self.repository.cached(self.repository.cache().put_tree_segment(&pack, ordinal, &opened.plain));
        }
        Ok(Arc::new(opened))
    }

    /// The compression prefix of a segment: its base chunks, one behind the other.
    async fn base(&self, name: &ObjectName, entry: &SegmentEntry, depth: u32) -> Result<Vec<u8>, RepositoryError> {
        let mut base = Vec::new();
        if entry.base.is_empty() {
            return Ok(base);
        }
        let damage = |problem: &str| Damage { object: name.to_string(), layer: "decode", problem: problem.to_owned() };
        let below = u32::from(entry.depth).checked_sub(1).filter(|below| *below < depth);
        let below = below.ok_or_else(|| damage("its bases are deeper than their description says"))?;
        for id in &entry.base {
            base.extend_from_slice(&Box::pin(self.chunk_at_depth(id, below)).await?);
            if base.len() as u64 > SEGMENT_BASE_SIZE_MAX {
                return Err(damage("its base is longer than allowed").into());
            }
        }
        Ok(base)
    }

    pub(super) async fn opener(&self, kind: ObjectType, pack: PackId) -> Result<Arc<PackOpener>, RepositoryError> {
        let cell = lock(&self.openers).get_or_insert_with(pack, 1, OpenerCell::default);
        let opener = cell
            .get_or_try_init(|| async {
                let name = layout::object(kind, &pack);
                let head = self.range(&name, 0..PackOpener::head_size(kind) as u64).await?;
                match PackOpener::new(self.repository.keys(), kind, &head) {
                    Ok(opener) => Ok(Arc::new(opener)),
                    Err(error @ crate::seal::SealError::NoKey { .. }) => {
                        // Only a pack that is what its name says tells of a key; a damaged head may name any.
                        self.repository.get_stored(kind, &pack).await?;
                        Err(self.repository.unsupported(error))
                    }
                    Err(error) => Err(seal_damage(&name, error).into()),
                }
            })
            .await?;
        Ok(Arc::clone(opener))
    }

    async fn range(&self, name: &ObjectName, range: std::ops::Range<u64>) -> Result<Bytes, RepositoryError> {
        match self.repository.store().get_range(name, range).await {
            Ok(bytes) => Ok(bytes),
            Err(StoreError::NotFound { .. }) => Err(missing(name).into()),
            Err(error @ StoreError::TooShort { .. }) => {
                let problem = error.to_string();
                Err(Damage { object: name.to_string(), layer: "length", problem }.into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether something was not where the index says; a fresher index may say better.
fn is_gone(error: &RepositoryError) -> bool {
    match error {
        RepositoryError::Damaged(damage) => damage.layer == "presence",
        RepositoryError::MissingChunk { .. } => true,
        _ => false,
    }
}

/// Opens a sealed segment and hashes each of its chunks.
pub(super) fn open_segment(
    keys: &Keys,
    name: &ObjectName,
    opener: &PackOpener,
    ordinal: u32,
    entry: &SegmentEntry,
    sealed: &[u8],
    base: &[u8],
) -> Result<OpenSegment, Damage> {
    let plain = opener
        .unseal(ordinal, entry.offset, sealed, base, entry.plain_length())
        .map_err(|error| seal_damage(name, error))?;
    hashed(keys, name, ordinal, entry, plain)
}

/// Hashes each chunk of a decoded segment.
fn hashed(
    keys: &Keys,
    name: &ObjectName,
    ordinal: u32,
    entry: &SegmentEntry,
    plain: Vec<u8>,
) -> Result<OpenSegment, Damage> {
    if plain.len() as u64 != entry.plain_length() {
        let problem = format!("segment {ordinal} has {} bytes of plaintext", plain.len());
        return Err(Damage { object: name.to_string(), layer: "decode", problem });
    }
    let mut chunks = HashMap::with_capacity(entry.chunks.len());
    let mut at = 0;
    for ChunkEntry { id, length } in &entry.chunks {
        let end = at + usize::try_from(*length).expect("usize has 32 bits or more");
        if keys.chunk_id(&plain[at..end]) != *id {
            let problem = format!("chunk {} in segment {ordinal} has another hash", id.short());
            return Err(Damage { object: name.to_string(), layer: "chunk", problem });
        }
        chunks.insert(*id, at..end);
        at = end;
    }
    Ok(OpenSegment { plain: Bytes::from(plain), chunks })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
