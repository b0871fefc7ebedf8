//! Writing a snapshot: a session, its components, and the order of its commit.
//!
//! The order is ownership: [`PacksDurable`] comes only from [`WriteSession::flush`], [`IndexDurable`] only from
//! [`WriteSession::write_index`], and [`WriteSession::commit`] takes it. So no manifest can exist before its index, and no
//! index before its packs.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use super::budget::{Budget, BytePermit};
use super::chunks::ChunkReader;
use super::claim::{Claim, Claims, Owner};
use super::cut::{Base, CutContext, CutCounts, OpenSegments, PlainSegment, StreamState};
use super::executor::{Executor, run};
use super::lineage::Lineage;
use super::pack_writer::{PackContext, PackReceipt, PackWriter, Stage};
use super::parent::Parent;
use super::{Repository, RepositoryError};
use crate::format::config::ProfileName;
use crate::format::envelope::ObjectType;
use crate::format::index::{Index, PackEntry};
use crate::format::manifest::{Manifest, StreamRecord};
use crate::format::tree::ContentRoot;
use crate::id::{ChunkId, ObjectId, PackId, SnapshotId};
use crate::limits::{INDEX_FLUSH_CHUNKS, SEGMENT_SIZE_TARGET};
use crate::seal::pack::CodedSegment;

/// A segment that is at least this many times as long as what a base makes of it is not tried without one.
const BASE_PAYS: usize = 4;

/// Decoded segments that are kept while writing, in bytes: what a region of a stream is based on.
const BASES_KEPT_BYTES: u64 = 24 << 20;

/// Bases that are read at the same time: neighbours lie in the same segments, and each step of a chain holds some.
const BASES_AT_ONCE: usize = 2;

/// Bytes of a stream on their way to be cut, with the right to hold them.
#[derive(Debug)]
pub struct InputBlock {
    /// The bytes.
    pub bytes: Bytes,
    /// Whether a new chunk must begin with them.
    pub border: bool,
    /// The right to hold them; `None` where another value holds it.
    pub permit: Option<BytePermit>,
}

/// All packs of a session are in the store.
#[derive(Debug)]
pub struct PacksDurable {
    packs: Vec<PackEntry>,
}

impl PacksDurable {
    /// The packs that are not in an index yet.
    pub fn ids(&self) -> HashSet<PackId> {
        self.packs.iter().map(|pack| pack.id).collect()
    }
}

/// All packs of a session are in the store and in an index.
#[derive(Debug)]
pub struct IndexDurable {
    indexes: Vec<ObjectId>,
}

impl IndexDurable {
    /// The index objects that this session wrote.
    pub fn indexes(&self) -> &[ObjectId] {
        &self.indexes
    }
}

/// How a session works.
#[derive(Clone)]
pub struct SessionOptions {
    /// Bytes of plaintext in memory.
    pub budget: Budget,
    /// Where CPU work runs.
    pub executor: Arc<dyn Executor>,
    /// Where sealed packs wait when the store is slow.
    pub stage: Option<Stage>,
}

struct Shared {
    cut: CutContext,
    options: SessionOptions,
    /// Reads what segments are compressed against.
    bases: Arc<ChunkReader>,
    /// Lets few bases be read at a time.
    reading_bases: Semaphore,
    packs: Mutex<PackWriter>,
    /// Segments being compressed, sealed and packed. They belong to the session: what was claimed in them is relied on, even
    /// when the component that met it first is given up.
    jobs: Mutex<JoinSet<Result<(), RepositoryError>>>,
    indexes: Mutex<Vec<ObjectId>>,
    components: AtomicU32,
}

impl Shared {
    /// Waits for all segments that are on their way.
    async fn join_jobs(&self) -> Result<(), RepositoryError> {
        let mut jobs = self.jobs.lock().await;
        while let Some(joined) = jobs.join_next().await {
            joined.expect("segment jobs do not panic")?;
        }
        Ok(())
    }
}

/// One run that writes. Dropping it leaves packs that nobody refers to, nothing else.
pub struct WriteSession {
    repository: Arc<Repository>,
    shared: Arc<Shared>,
}

impl WriteSession {
    /// Begins; `present` are the packs that are in the store.
    pub(super) fn new(
        repository: Arc<Repository>,
        present: HashSet<PackId>,
        options: SessionOptions,
    ) -> Result<Self, RepositoryError> {
        let keys = Arc::clone(repository.keys());
        let claims = Claims::new(Arc::clone(repository.cache()), present)?;
        let context = PackContext {
            keys: Arc::clone(&keys),
            entropy: Arc::clone(repository.entropy()),
            store: Arc::clone(repository.store()),
            executor: Arc::clone(&options.executor),
        };
        let packs = Mutex::new(PackWriter::new(context, options.stage.clone()));
        let cut = CutContext::new(keys, &repository.config().profiles, claims);
        let (jobs, indexes, components) = (Mutex::default(), Mutex::default(), AtomicU32::new(0));
        let bases = ChunkReader::cached(Arc::clone(&repository), Arc::clone(&options.executor));
        let bases = Arc::new(bases.keeping(BASES_KEPT_BYTES));
        let reading_bases = Semaphore::new(BASES_AT_ONCE);
        let shared = Arc::new(Shared { cut, options, bases, reading_bases, packs, jobs, indexes, components });
        Ok(Self { repository, shared })
    }

    /// The budget of plaintext in memory.
    pub fn budget(&self) -> &Budget {
        &self.shared.options.budget
    }

    /// Length of a chunk that is stored in a pack that is there.
    pub fn stored_length(&self, id: &ChunkId) -> Result<Option<u64>, RepositoryError> {
        self.shared.cut.claims.stored_length(id)
    }

    /// Begins a component.
    pub async fn component(&self) -> ComponentWriter {
        let permit = self.budget().acquire_component().await;
        let owner = self.shared.components.fetch_add(1, Ordering::Relaxed);
        ComponentWriter {
            repository: Arc::clone(&self.repository),
            shared: Arc::clone(&self.shared),
            owner,
            segments: OpenSegments::new(owner),
            added_bytes: Arc::default(),
            finished: false,
            _permit: permit,
        }
    }

    /// Waits until every pack is in the store.
    pub async fn flush(&self) -> Result<PacksDurable, RepositoryError> {
        self.shared.join_jobs().await?;
        let receipts = self.shared.packs.lock().await.flush().await?;
        Ok(PacksDurable { packs: receipts.into_iter().map(PackReceipt::into_entry).collect() })
    }

    /// Puts the index of what is durable and not yet indexed.
    pub async fn write_index(&self, packs: PacksDurable) -> Result<IndexDurable, RepositoryError> {
        put_index(&self.repository, &self.shared, packs.packs).await?;
        Ok(IndexDurable { indexes: std::mem::take(&mut *self.shared.indexes.lock().await) })
    }

    /// Puts the manifest: from here on there is a snapshot.
    pub async fn commit(self, manifest: &Manifest, index: &IndexDurable) -> Result<SnapshotId, RepositoryError> {
        assert_eq!(manifest.indexes, index.indexes, "a manifest names the indexes of its run");
        assert!(self.shared.cut.claims.all_settled(), "every chunk that this session claimed is in an index");
        self.repository.put_object(ObjectType::Manifest, &manifest.encode()).await
    }

    /// Keeps the description of a content pack anew.
    pub async fn keep_description(&self, bytes: &[u8]) -> Result<(), RepositoryError> {
        self.shared.packs.lock().await.keep_description(bytes).await
    }

    /// Bytes of sealed packs so far.
    pub async fn stored_bytes(&self) -> u64 {
        self.shared.packs.lock().await.stored_bytes()
    }
}

async fn put_index(
    repository: &Arc<Repository>,
    shared: &Shared,
    packs: Vec<PackEntry>,
) -> Result<(), RepositoryError> {
    // A stage may hold many packs: an index must stay within what readers accept.
    let (mut group, mut chunks) = (Vec::new(), 0);
    for pack in packs {
        chunks += pack.chunk_count();
        group.push(pack);
        if chunks >= INDEX_FLUSH_CHUNKS {
            put_one_index(repository, shared, std::mem::take(&mut group)).await?;
            chunks = 0;
        }
    }
    if group.is_empty() { Ok(()) } else { put_one_index(repository, shared, group).await }
}

async fn put_one_index(
    repository: &Arc<Repository>,
    shared: &Shared,
    packs: Vec<PackEntry>,
) -> Result<(), RepositoryError> {
    let index = Index { supersedes: vec![], packs };
    let id = repository.put_object(ObjectType::Index, &index.encode()).await?;
    repository.cached(repository.cache().add_index(&id, &index));
    shared.cut.claims.settle(&index.packs);
    shared.indexes.lock().await.push(id);
    Ok(())
}

/// The bytes of a segment's base; none if they cannot be read: that costs room, never a backup.
async fn base_of(shared: &Shared, segment: &PlainSegment) -> Result<Vec<u8>, RepositoryError> {
    let mut bytes = Vec::with_capacity(usize::try_from(segment.base.bytes).expect("a few MiB"));
    for id in &segment.base.chunks {
        match shared.bases.chunk(id).await {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(RepositoryError::Damaged(_) | RepositoryError::MissingChunk { .. }) => return Ok(vec![]),
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Compresses a segment, against its base if that pays; tells whether it did.
fn encode(plain: &[u8], base: &[u8]) -> (CodedSegment, bool) {
    let coded = CodedSegment::encode(plain, base);
    if base.is_empty() || coded.stored_length() < plain.len() / BASE_PAYS {
        return (coded, !base.is_empty());
    }
    // Reading it back costs more, which must be worth it.
    let alone = CodedSegment::encode(plain, &[]);
    if alone.stored_length() / 10 * 9 < coded.stored_length() { (alone, false) } else { (coded, true) }
}

/// One component being written: its streams share segments, so that small files share them, too.
pub struct ComponentWriter {
    repository: Arc<Repository>,
    shared: Arc<Shared>,
    owner: Owner,
    segments: OpenSegments,
    added_bytes: Arc<AtomicU64>,
    finished: bool,
    _permit: BytePermit,
}

impl Drop for ComponentWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Its segments end here: nobody may rely on the chunks in them.
            self.shared.cut.claims.abandon(self.owner);
        }
    }
}

/// CPU work that writes to the streams of a component.
pub trait StreamWork: Send + 'static {
    /// Does a part of it; `true` if more is left. Should return whenever a segment is full, so that memory stays bounded.
    fn run(&mut self, cutter: &mut Cutter<'_>) -> Result<bool, RepositoryError>;
}

/// The streams of a component, for [`StreamWork`].
pub struct Cutter<'a> {
    streams: &'a mut [StreamState],
    context: &'a CutContext,
    segments: &'a mut OpenSegments,
}

impl Cutter<'_> {
    /// Appends bytes to one of the streams.
    pub fn push(&mut self, stream: usize, bytes: &[u8]) -> Result<(), RepositoryError> {
        self.streams[stream].push(self.context, self.segments, bytes)
    }

    /// Ends the current chunk of one of the streams.
    pub fn border(&mut self, stream: usize) -> Result<(), RepositoryError> {
        self.streams[stream].border(self.context, self.segments)
    }

    /// Whether a segment waits to be sent on.
    pub fn has_full(&self) -> bool {
        self.segments.has_full()
    }
}

/// A stream being written.
#[derive(Debug)]
pub struct OpenStream(Option<StreamState>);

impl ComponentWriter {
    /// Begins a stream of content.
    pub fn content(&self, profile: ProfileName) -> OpenStream {
        OpenStream(Some(StreamState::new(ObjectType::ContentPack, profile)))
    }

    /// Begins a stream of content that takes the place of earlier ones, the youngest first. Where this slot does not read
    /// content, or they cannot be read, it is like any other.
    pub fn content_after(&self, profile: ProfileName, earlier: &[&ContentRoot]) -> OpenStream {
        let mut state = StreamState::new(ObjectType::ContentPack, profile);
        if self.repository.keys().reads_content() {
            let recipes: Vec<ContentRoot> = earlier.iter().filter_map(|root| root.recipe()).collect();
            state.follow(self.lineage(earlier.iter().copied()), self.lineage(&recipes));
        }
        OpenStream(Some(state))
    }

    fn lineage<'a>(&self, roots: impl IntoIterator<Item = &'a ContentRoot>) -> Lineage {
        let parent = |root| Parent::new(&self.shared.bases, self.shared.cut.claims.clone(), root).ok();
        Lineage::new(roots.into_iter().filter_map(parent).collect())
    }

    /// Begins a stream of metadata: a tree.
    pub fn tree(&self) -> OpenStream {
        OpenStream(Some(StreamState::new(ObjectType::TreePack, ProfileName::Meta)))
    }

    /// Writes bytes.
    pub async fn write(&mut self, stream: &mut OpenStream, block: InputBlock) -> Result<(), RepositoryError> {
        self.step(stream, move |state, context, segments| {
            if block.border {
                state.border(context, segments)?;
            }
            state.push(context, segments, &block.bytes)?;
            drop(block.permit);
            Ok(())
        })
        .await
    }

    /// Appends chunks that [`WriteSession::stored_length`] knows, without their bytes.
    pub async fn reuse(&mut self, stream: &mut OpenStream, chunks: Vec<(ChunkId, u64)>) -> Result<(), RepositoryError> {
        self.step(stream, move |state, context, segments| {
            chunks.into_iter().try_for_each(|(id, length)| state.reuse(context, segments, id, length))
        })
        .await
    }

    /// Does CPU work that writes to several streams, in as many jobs as it takes full segments to be sent on.
    pub async fn drive<W: StreamWork>(
        &mut self,
        streams: &mut Vec<OpenStream>,
        mut work: W,
    ) -> Result<W, RepositoryError> {
        loop {
            let mut states: Vec<StreamState> =
                streams.drain(..).map(|stream| stream.0.expect("a stream is whole between two calls")).collect();
            for state in &mut states {
                state.read_lineage(SEGMENT_SIZE_TARGET).await;
            }
            let mut segments = std::mem::replace(&mut self.segments, OpenSegments::new(self.owner));
            let shared = Arc::clone(&self.shared);
            let (result, states, segments, work_back) = run(&self.shared.options.executor, move || {
                let result =
                    work.run(&mut Cutter { streams: &mut states, context: &shared.cut, segments: &mut segments });
                (result, states, segments, work)
            })
            .await;
            streams.extend(states.into_iter().map(|state| OpenStream(Some(state))));
            self.segments = segments;
            work = work_back;
            let more = result?;
            self.dispatch_full().await?;
            if !more {
                return Ok(work);
            }
        }
    }

    /// Stores one chunk for packs of `kind` without a base, if it does not stand so in a pack that is there. It belongs to no
    /// stream.
    pub async fn store_chunk(&mut self, kind: ObjectType, id: ChunkId, bytes: Bytes) -> Result<(), RepositoryError> {
        let claim = self.shared.cut.claims.claim_plain(self.owner, &id, bytes.len() as u64)?;
        if claim == Claim::Yours {
            self.segments.push(kind, id, &bytes);
        }
        self.dispatch_full().await
    }

    /// Ends a stream.
    pub async fn end(&mut self, mut stream: OpenStream) -> Result<(ContentRoot, CutCounts), RepositoryError> {
        let state = stream.0.take().expect("a stream is whole between two calls");
        let mut segments = std::mem::replace(&mut self.segments, OpenSegments::new(self.owner));
        let shared = Arc::clone(&self.shared);
        let (result, segments) = run(&self.shared.options.executor, move || {
            let result = state.finish(&shared.cut, &mut segments);
            (result, segments)
        })
        .await;
        self.segments = segments;
        let ended = result?;
        self.dispatch_full().await?;
        Ok(ended)
    }

    /// Ends a stream of a dump as a record.
    pub async fn end_as(
        &mut self,
        name: &str,
        stream: OpenStream,
    ) -> Result<(StreamRecord, CutCounts), RepositoryError> {
        let profile = stream.0.as_ref().expect("a stream is whole between two calls").profile();
        let (root, counts) = self.end(stream).await?;
        Ok((StreamRecord { name: name.to_owned(), profile, length: counts.bytes, root }, counts))
    }

    /// Ends the component: all its segments are in packs. Gives the bytes that it added, compressed and sealed.
    pub async fn finish(mut self) -> Result<u64, RepositoryError> {
        let rest = self.segments.finish();
        self.dispatch(rest).await?;
        self.shared.join_jobs().await?;
        self.finished = true;
        Ok(self.added_bytes.load(Ordering::Relaxed))
    }

    async fn step(
        &mut self,
        stream: &mut OpenStream,
        work: impl FnOnce(&mut StreamState, &CutContext, &mut OpenSegments) -> Result<(), RepositoryError> + Send + 'static,
    ) -> Result<(), RepositoryError> {
        let mut state = stream.0.take().expect("a stream is whole between two calls");
        let mut segments = std::mem::replace(&mut self.segments, OpenSegments::new(self.owner));
        let shared = Arc::clone(&self.shared);
        let (result, state, segments) = run(&self.shared.options.executor, move || {
            let result = work(&mut state, &shared.cut, &mut segments);
            (result, state, segments)
        })
        .await;
        stream.0 = Some(state);
        self.segments = segments;
        result?;
        self.dispatch_full().await
    }

    async fn dispatch_full(&mut self) -> Result<(), RepositoryError> {
        let full = self.segments.take_full();
        self.dispatch(full).await
    }

    /// Sends segments to be compressed, sealed and packed. Waits for the budget, and reports what went wrong before.
    async fn dispatch(&mut self, segments: Vec<PlainSegment>) -> Result<(), RepositoryError> {
        while let Some(joined) = self.shared.jobs.lock().await.try_join_next() {
            joined.expect("segment jobs do not panic")?;
        }
        for segment in segments {
            let permit = self.shared.options.budget.acquire(segment.bytes.len() as u64 + segment.base.bytes).await;
            let (repository, shared) = (Arc::clone(&self.repository), Arc::clone(&self.shared));
            let added = Arc::clone(&self.added_bytes);
            let job = async move { store_segment(&repository, &shared, segment, permit, &added).await };
            self.shared.jobs.lock().await.spawn(job);
        }
        Ok(())
    }
}

async fn store_segment(
    repository: &Arc<Repository>,
    shared: &Arc<Shared>,
    mut segment: PlainSegment,
    mut permit: BytePermit,
    added_bytes: &AtomicU64,
) -> Result<(), RepositoryError> {
    let plain = std::mem::take(&mut segment.bytes);
    let reading = shared.reading_bases.acquire().await.expect("never closed");
    let base = base_of(shared, &segment).await?;
    drop(reading);
    let (coded, based) = run(&shared.options.executor, move || encode(&plain, &base)).await;
    if !based {
        segment.base = Base::default();
    }
    permit.shrink_to(coded.stored_length() as u64);
    let mut packs = shared.packs.lock().await;
    let stored = packs.push(&segment, coded).await?;
    added_bytes.fetch_add(stored, Ordering::Relaxed);
    // A long run indexes as it goes, so that memory does not grow with the data.
    if packs.done_chunks() < INDEX_FLUSH_CHUNKS {
        return Ok(());
    }
    let done = packs.take_done().into_iter().map(PackReceipt::into_entry).collect();
    drop(packs);
    put_index(repository, shared, done).await
}
