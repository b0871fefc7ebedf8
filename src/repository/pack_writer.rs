//! Filling packs and putting them into the store.
//!
//! One [`PackWriter`] serves all streams of a session. It holds at most one open pack of each kind; a full one is named,
//! put, and only then counts: [`PackReceipt`]s are made here and nowhere else. A put that failed fails the session.
//!
//! A slow store holds `push` back once all its slots are taken, unless there is a stage: then full packs wait on disk,
//! sealed, and the components need not.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::RepositoryError;
use super::cut::PlainSegment;
use super::executor::{Executor, run};
use crate::env::Entropy;
use crate::format::envelope::ObjectType;
use crate::format::index::{ChunkEntry, PackEntry, PackFooter, SegmentEntry, SegmentKind};
use crate::format::layout;
use crate::id::{ChunkId, ObjectId};
use crate::limits::{CHUNK_SIZE_MAX, PACK_SIZE_TARGET};
use crate::seal::keys::Keys;
use crate::seal::pack::{CodedSegment, PackSealer};
use crate::storage::{Store, StoreError};

/// Description of a pack above which it is closed, in bytes: it must fit one chunk of a tree pack.
const DESCRIPTION_SIZE_MAX: usize = 512 << 10;
const _: () = assert!((DESCRIPTION_SIZE_MAX as u64) < CHUNK_SIZE_MAX);

/// What a segment's fields and each chunk add to a description, in bytes.
const SEGMENT_FIELDS: usize = 18;
const CHUNK_FIELDS: usize = 36;

/// A pack that is durable in the store.
#[derive(Debug)]
pub struct PackReceipt(PackEntry);

impl PackReceipt {
    /// What is in the pack.
    pub fn into_entry(self) -> PackEntry {
        self.0
    }
}

/// Where sealed packs wait when the store is slow.
#[derive(Debug, Clone)]
pub struct Stage {
    /// An existing folder.
    pub path: PathBuf,
    /// Packs that may wait there.
    pub packs_max: usize,
}

struct OpenPack {
    sealer: PackSealer,
    segments: Vec<SegmentEntry>,
    description_size: usize,
}

/// What it is made from; the same for a whole session.
#[derive(Clone)]
pub struct PackContext {
    /// Seal.
    pub keys: Arc<Keys>,
    /// Salts and nonces.
    pub entropy: Arc<dyn Entropy>,
    /// Where packs go.
    pub store: Arc<dyn Store>,
    /// Hashes whole packs.
    pub executor: Arc<dyn Executor>,
}

/// Fills packs and puts them.
pub struct PackWriter {
    context: PackContext,
    content: Option<OpenPack>,
    tree: Option<OpenPack>,
    slots: Arc<Semaphore>,
    stage: Option<(Stage, Arc<Semaphore>)>,
    puts: JoinSet<Result<PackReceipt, RepositoryError>>,
    done: Vec<PackReceipt>,
    stored_bytes: u64,
}

impl PackWriter {
    /// Puts as many packs at a time as the store likes.
    pub fn new(context: PackContext, stage: Option<Stage>) -> Self {
        let slots = Arc::new(Semaphore::new(context.store.capabilities().concurrency.clamp(1, 2)));
        let stage = stage.map(|stage| {
            let waiting = Arc::new(Semaphore::new(stage.packs_max));
            (stage, waiting)
        });
        Self { context, content: None, tree: None, slots, stage, puts: JoinSet::new(), done: vec![], stored_bytes: 0 }
    }

    /// Bytes of sealed packs handed to the store so far.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Seals one coded segment into the open pack of its kind.
    pub async fn push(&mut self, segment: &PlainSegment, coded: CodedSegment) -> Result<u64, RepositoryError> {
        let base = (segment.base.depth, segment.base.chunks.clone());
        self.push_as(segment.kind, SegmentKind::Chunks, segment.chunks.clone(), base, coded).await
    }

    async fn push_as(
        &mut self,
        kind: ObjectType,
        content: SegmentKind,
        chunks: Vec<ChunkEntry>,
        (depth, base): (u8, Vec<ChunkId>),
        coded: CodedSegment,
    ) -> Result<u64, RepositoryError> {
        let stored = coded.stored_length();
        let added = SEGMENT_FIELDS + ChunkId::SIZE * base.len() + CHUNK_FIELDS * chunks.len();
        if self.is_full_for(kind, stored, added) {
            self.close(kind).await?;
        }
        let PackContext { keys, entropy, .. } = &self.context;
        let slot = if kind == ObjectType::ContentPack { &mut self.content } else { &mut self.tree };
        let open = slot.get_or_insert_with(|| OpenPack {
            sealer: PackSealer::new(keys, &**entropy, kind, usize::try_from(PACK_SIZE_TARGET).expect("8 MiB fit")),
            segments: vec![],
            description_size: ObjectId::SIZE + 9,
        });
        let offset = open.sealer.push(&**entropy, &coded);
        let stored_length = u32::try_from(stored).expect("segments are a few MiB");
        open.segments.push(SegmentEntry { kind: content, offset, stored_length, depth, base, chunks });
        open.description_size += added;
        Ok(stored as u64)
    }

    fn is_full_for(&self, kind: ObjectType, stored: usize, added: usize) -> bool {
        let open = if kind == ObjectType::ContentPack { &self.content } else { &self.tree };
        open.as_ref().is_some_and(|open| {
            let description = open.description_size + added;
            // A tree pack ends with its own description; compressed or not, it must fit.
            let footer = if kind == ObjectType::TreePack { description + 64 } else { 0 };
            description > DESCRIPTION_SIZE_MAX || (open.sealer.size() + stored + footer) as u64 > PACK_SIZE_TARGET
        })
    }

    /// Ends the open pack of `kind` and begins to put it.
    async fn close(&mut self, kind: ObjectType) -> Result<(), RepositoryError> {
        let open = if kind == ObjectType::ContentPack { self.content.take() } else { self.tree.take() };
        let Some(OpenPack { sealer, segments, .. }) = open else { return Ok(()) };
        let stored = match kind {
            ObjectType::ContentPack => sealer.finish(),
            _ => sealer.finish_with_footer(&*self.context.entropy, &PackFooter::encode(&segments)),
        };
        let bytes = Bytes::from(stored);
        let hashed = bytes.clone();
        let id = run(&self.context.executor, move || ObjectId::of(&hashed)).await;
        let stored_size = u32::try_from(bytes.len()).expect("packs are a few MiB");
        self.stored_bytes += u64::from(stored_size);
        let entry = PackEntry { id, kind, stored_size, segments };
        if kind == ObjectType::ContentPack {
            self.describe(&entry).await?;
        }
        self.put(entry, bytes).await
    }

    /// Keeps the description of a content pack in a tree pack, so that the index can be rebuilt without the content key.
    async fn describe(&mut self, entry: &PackEntry) -> Result<(), RepositoryError> {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        self.keep_description(&bytes).await
    }

    /// Keeps an encoded description.
    pub async fn keep_description(&mut self, bytes: &[u8]) -> Result<(), RepositoryError> {
        let id = self.context.keys.chunk_id(bytes);
        let length = u32::try_from(bytes.len()).expect("descriptions are bounded");
        let coded = CodedSegment::encode(bytes, &[]);
        let chunks = vec![ChunkEntry { id, length }];
        Box::pin(self.push_as(ObjectType::TreePack, SegmentKind::PackEntry, chunks, (0, vec![]), coded)).await?;
        Ok(())
    }

    async fn put(&mut self, entry: PackEntry, bytes: Bytes) -> Result<(), RepositoryError> {
        while let Some(joined) = self.puts.try_join_next() {
            self.done.push(joined.expect("puts do not panic")?);
        }
        let store = Arc::clone(&self.context.store);
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            self.puts.spawn(put_pack(store, entry, bytes, slot));
            return Ok(());
        }
        let Some((stage, waiting)) = &self.stage else {
            let slot = Arc::clone(&self.slots).acquire_owned().await.expect("the slots are never closed");
            self.puts.spawn(put_pack(store, entry, bytes, slot));
            return Ok(());
        };
        let place = Arc::clone(waiting).acquire_owned().await.expect("the stage is never closed");
        let path = stage.path.join(entry.id.to_hex());
        write_staged(&path, &bytes).await?;
        drop(bytes);
        let slots = Arc::clone(&self.slots);
        self.puts.spawn(async move {
            let slot = slots.acquire_owned().await.expect("the slots are never closed");
            let bytes = read_staged(&path, &entry.id).await?;
            let receipt = put_pack(store, entry, bytes, slot).await?;
            remove_staged(&path).await?;
            drop(place);
            Ok(receipt)
        });
        Ok(())
    }

    /// The packs that became durable since this was asked last.
    pub fn take_done(&mut self) -> Vec<PackReceipt> {
        std::mem::take(&mut self.done)
    }

    /// Chunks in packs that are durable and not yet taken.
    pub fn done_chunks(&self) -> usize {
        self.done.iter().map(|receipt| receipt.0.chunk_count()).sum()
    }

    /// Ends the open packs and waits until every pack is durable.
    pub async fn flush(&mut self) -> Result<Vec<PackReceipt>, RepositoryError> {
        self.close(ObjectType::ContentPack).await?;
        self.close(ObjectType::TreePack).await?;
        while let Some(joined) = self.puts.join_next().await {
            self.done.push(joined.expect("puts do not panic")?);
        }
        Ok(self.take_done())
    }
}

async fn put_pack(
    store: Arc<dyn Store>,
    entry: PackEntry,
    bytes: Bytes,
    slot: OwnedSemaphorePermit,
) -> Result<PackReceipt, RepositoryError> {
    let name = layout::object(entry.kind, &entry.id);
    match store.put_new(&name, bytes).await {
        // The name is the hash of the bytes: who put them before does not matter.
        Ok(()) | Err(StoreError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    drop(slot);
    Ok(PackReceipt(entry))
}

fn stage_error(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> RepositoryError + use<> {
    let path = path.to_owned();
    move |source| RepositoryError::Stage { path, source }
}

async fn write_staged(path: &std::path::Path, bytes: &[u8]) -> Result<(), RepositoryError> {
    tokio::fs::write(path, bytes).await.map_err(stage_error(path))
}

/// What waited on disk is checked: the store must not get what a bad disk made of it.
async fn read_staged(path: &std::path::Path, id: &ObjectId) -> Result<Bytes, RepositoryError> {
    let bytes = tokio::fs::read(path).await.map_err(stage_error(path))?;
    if ObjectId::of(&bytes) != *id {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "the staged pack changed on disk");
        return Err(stage_error(path)(source));
    }
    Ok(Bytes::from(bytes))
}

async fn remove_staged(path: &std::path::Path) -> Result<(), RepositoryError> {
    tokio::fs::remove_file(path).await.map_err(stage_error(path))
}
