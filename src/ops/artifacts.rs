//! A folder of artifact files on its way into the repository.
//!
//! A file whose state is the one of the last run is not read again, if all its chunks are still there. One that changes
//! while it is read is read again, a few times; then it is a problem, and problems fail the component unless told otherwise.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::streams::{Stored, add_counts};
use super::{Context, Progress};
use crate::component::artifact_store::scan::{FileState, ScanError, Scanned, ScannedEntry, SourceFolder, is_unchanged};
use crate::error::{Error, ErrorKind};
use crate::format::FormatError;
use crate::format::bytes::{FieldReader, put_chunk_ids, put_count};
use crate::format::config::ProfileName;
use crate::format::manifest::{Layout, Sizes, StreamRecord};
use crate::format::tree::{ContentRoot, FileContent, TreeEncoder, TreeEntry};
use crate::id::RunId;
use crate::limits::INPUT_BLOCK_SIZE_MAX;
use crate::repository::Repository;
use crate::repository::chunks::ChunkReader;
use crate::repository::session::{ComponentWriter, InputBlock, OpenStream, WriteSession};
use crate::repository::stream::ChunkIds;
use crate::tree_entry::{Entry, EntryKind, FileTime, printable};

/// How often a file that changes while it is read is tried.
const ATTEMPTS: u32 = 3;
/// Entries that are scanned in one go.
const SCAN_BATCH: usize = 128;
/// Encoded entries that are collected before they are cut, in bytes.
const TREE_BLOCK: usize = 64 << 10;
/// Problems that are told one by one.
const PROBLEMS_TOLD: usize = 20;

/// What a folder's backup found beside its content.
pub struct FolderStored {
    /// What was stored.
    pub stored: Stored,
    /// Entries that should be there and are not.
    pub problems: Vec<String>,
}

/// Stores the folder `path` as component `component`.
pub async fn store(
    context: &Context,
    repository: &Arc<Repository>,
    session: &WriteSession,
    deployment: &str,
    component: &str,
    path: &Path,
    run: RunId,
) -> Result<FolderStored, Error> {
    let key = format!("{deployment}\0{component}");
    let started = context.clock().now();
    let last_started = repository.cache().last_file_run(&key).map_err(cache_error)?;
    let source = open_folder(component, path).await?;
    let writer = session.component().await;
    let tree = writer.tree();
    let mut folder = Folder {
        context,
        repository,
        session,
        reader: Arc::new(ChunkReader::new(Arc::clone(repository), Arc::clone(&context.executor))),
        component,
        key,
        run,
        last_started: last_started.map(|ns| jiff::Timestamp::from_nanosecond(ns.into()).unwrap_or_default()),
        source: Arc::clone(&source),
        writer,
        tree,
        encoder: TreeEncoder::new(),
        pending: Vec::new(),
        states: Vec::new(),
        sizes: Sizes { files: Some(0), files_unchanged: Some(0), ..Sizes::default() },
        done_bytes: 0,
        warnings: Vec::new(),
        problems: Vec::new(),
    };
    folder.walk().await?;
    let stored = folder.finish(started).await?;
    context.events.progress_done("dump", component);
    Ok(stored)
}

fn cache_error(error: crate::repository::cache::CacheError) -> Error {
    Error::from(crate::repository::RepositoryError::Cache(error))
}

async fn open_folder(component: &str, path: &Path) -> Result<Arc<SourceFolder>, Error> {
    let path = path.to_owned();
    let opened = blocking(move || SourceFolder::open(&path)).await;
    Ok(Arc::new(opened.map_err(|error| scan_error(component, error))?))
}

fn scan_error(component: &str, error: ScanError) -> Error {
    Error::with_source(ErrorKind::Source, format!("component `{component}` cannot be read"), error)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("file work does not panic")
}

struct Folder<'a> {
    context: &'a Context,
    repository: &'a Arc<Repository>,
    session: &'a WriteSession,
    reader: Arc<ChunkReader>,
    component: &'a str,
    key: String,
    run: RunId,
    last_started: Option<jiff::Timestamp>,
    source: Arc<SourceFolder>,
    writer: ComponentWriter,
    tree: OpenStream,
    encoder: TreeEncoder,
    pending: Vec<u8>,
    states: Vec<(Vec<u8>, Vec<u8>)>,
    sizes: Sizes,
    done_bytes: u64,
    warnings: Vec<String>,
    problems: Vec<String>,
}

impl Folder<'_> {
    async fn walk(&mut self) -> Result<(), Error> {
        let source = Arc::clone(&self.source);
        let mut scan = blocking(move || source.scan()).await.map_err(|error| scan_error(self.component, error))?;
        loop {
            self.context.cancel.check()?;
            let (batch, back) = blocking(move || {
                let batch: Vec<Scanned> = scan.by_ref().take(SCAN_BATCH).collect();
                (batch, scan)
            })
            .await;
            scan = back;
            if batch.is_empty() {
                return Ok(());
            }
            for scanned in batch {
                match scanned {
                    Scanned::Entry(found) => {
                        let state = found.state;
                        if !self.entry(found).await? {
                            scan.forget(&state);
                        }
                    }
                    Scanned::Skipped { path, reason } => {
                        self.warnings.push(format!("`{}` is a {reason} and was passed over", printable(&path)));
                    }
                    Scanned::Problem { path, error } => self.problem(&path, &error),
                }
            }
        }
    }

    fn problem(&mut self, path: &[u8], error: &dyn std::error::Error) {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        self.problems.push(format!("`{}`: {error}{cause}", printable(path)));
    }

    /// Keeps one entry; `false` if its content could not be kept.
    async fn entry(&mut self, found: ScannedEntry) -> Result<bool, Error> {
        let Entry { path, meta, kind } = found.entry;
        let kind = match kind {
            EntryKind::Directory => EntryKind::Directory,
            EntryKind::Symlink { target } => EntryKind::Symlink { target },
            EntryKind::HardLink { first } => EntryKind::HardLink { first },
            EntryKind::File(()) => return self.file(ScannedEntry { entry: Entry { path, meta, kind }, ..found }).await,
        };
        self.put(&Entry { path, meta, kind }).await?;
        Ok(true)
    }

    async fn put(&mut self, entry: &TreeEntry) -> Result<(), Error> {
        self.encoder.push(entry, &mut self.pending).map_err(|error| {
            let text = format!("component `{}` cannot be described", self.component);
            Error::with_source(ErrorKind::Source, text, error)
        })?;
        if self.pending.len() >= TREE_BLOCK {
            self.write_tree().await?;
        }
        Ok(())
    }

    async fn write_tree(&mut self) -> Result<(), Error> {
        let bytes = Bytes::from(std::mem::take(&mut self.pending));
        let block = InputBlock { bytes, border: false, permit: None };
        Ok(self.writer.write(&mut self.tree, block).await?)
    }

    async fn file(&mut self, found: ScannedEntry) -> Result<bool, Error> {
        let mut found = found;
        if let Some(content) = self.unchanged(&found).await? {
            *self.sizes.files_unchanged.get_or_insert(0) += 1;
            self.sizes.logical_bytes += content.size;
            self.sizes.shared_bytes += content.size;
            return self.keep(found, content).await.map(|()| true);
        }
        for attempt in 1..=ATTEMPTS {
            match self.read(&found).await? {
                Ok(content) => return self.keep(found, content).await.map(|()| true),
                Err(error @ ScanError::Changed { .. }) if attempt < ATTEMPTS => {
                    let (source, path) = (Arc::clone(&self.source), found.entry.path.clone());
                    match blocking(move || source.look(&path)).await {
                        Ok(Some(now)) => found = now,
                        // Gone between the listing and the reading: as if it had never been listed.
                        Ok(None) => return Ok(false),
                        Err(_) => {
                            self.problem(&found.entry.path, &error);
                            return Ok(false);
                        }
                    }
                }
                Err(error) => {
                    self.problem(&found.entry.path, &error);
                    return Ok(false);
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn keep(&mut self, found: ScannedEntry, content: FileContent) -> Result<(), Error> {
        *self.sizes.files.get_or_insert(0) += 1;
        self.states.push((found.entry.path.clone(), encode_state(&found.state, &content.root)));
        if self.states.len() >= 1000 {
            self.write_states();
        }
        self.done_bytes += content.size;
        let target = self.component.to_owned();
        self.context.events.progress(&Progress {
            action: "dump",
            target,
            done_bytes: self.done_bytes,
            total_bytes: None,
        });
        let Entry { path, meta, .. } = found.entry;
        self.put(&Entry { path, meta, kind: EntryKind::File(content) }).await
    }

    fn write_states(&mut self) {
        let states = std::mem::take(&mut self.states);
        self.repository.cached(self.repository.cache().put_files(&self.key, self.run.as_bytes(), &states));
    }

    /// The content that the last run stored, if the file has not changed since and all of it is still there.
    async fn unchanged(&self, found: &ScannedEntry) -> Result<Option<FileContent>, Error> {
        let Some(started) = self.last_started else { return Ok(None) };
        let Some(bytes) = self.repository.cache().file(&self.key, &found.entry.path).map_err(cache_error)? else {
            return Ok(None);
        };
        let Ok((state, root)) = decode_state(&bytes) else { return Ok(None) };
        if !is_unchanged(&found.state, &state, started) {
            return Ok(None);
        }
        let size = self.stored_size(&root).await?;
        Ok((size == Some(found.state.size)).then_some(FileContent { size: found.state.size, root }))
    }

    /// Length of what is below `root`; `None` if any chunk of it is no longer there.
    async fn stored_size(&self, root: &ContentRoot) -> Result<Option<u64>, Error> {
        let mut ids = ChunkIds::new(Arc::clone(&self.reader), root)?;
        let mut size = 0;
        for id in if root.depth > 0 { &root.chunks[..] } else { &[] } {
            if self.session.stored_length(id)?.is_none() {
                return Ok(None);
            }
        }
        loop {
            match ids.next().await {
                Ok(Some(id)) => match self.session.stored_length(&id)? {
                    Some(length) => size += length,
                    None => return Ok(None),
                },
                Ok(None) => return Ok(Some(size)),
                Err(_) => return Ok(None),
            }
        }
    }

    /// Reads and stores a file. The inner error is about the file, the outer one about everything else.
    async fn read(&mut self, found: &ScannedEntry) -> Result<Result<FileContent, ScanError>, Error> {
        let (source, path, state) = (Arc::clone(&self.source), found.entry.path.clone(), found.state);
        let mut file = match blocking(move || source.open_checked(&path, &state)).await {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let mut stream = self.writer.content(ProfileName::Files);
        loop {
            self.context.cancel.check()?;
            let (result, back) = blocking(move || {
                let mut buffer = vec![0; INPUT_BLOCK_SIZE_MAX.min(usize::try_from(state.size).unwrap_or(0) + 1)];
                let result = file.read(&mut buffer).map(|size| {
                    buffer.truncate(size);
                    buffer
                });
                (result, file)
            })
            .await;
            file = back;
            match result {
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) => {
                    let block = InputBlock { bytes: Bytes::from(bytes), border: false, permit: None };
                    self.writer.write(&mut stream, block).await?;
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        if let Err(error) = blocking(move || file.finish()).await {
            return Ok(Err(error));
        }
        let (root, counts) = self.writer.end(stream).await?;
        add_counts(&mut self.sizes, counts);
        Ok(Ok(FileContent { size: counts.bytes, root }))
    }

    async fn finish(mut self, started: jiff::Timestamp) -> Result<FolderStored, Error> {
        self.write_tree().await?;
        std::mem::take(&mut self.encoder).finish().map_err(|error| {
            Error::with_source(ErrorKind::Source, format!("component `{}` cannot be described", self.component), error)
        })?;
        let (root, counts) = self.writer.end(self.tree).await?;
        self.sizes.added_bytes = self.writer.finish().await?;
        let states = std::mem::take(&mut self.states);
        let (cache, run) = (self.repository.cache(), self.run);
        self.repository.cached(cache.put_files(&self.key, run.as_bytes(), &states));
        let started = i64::try_from(started.as_nanosecond()).unwrap_or(0);
        self.repository.cached(cache.finish_files(&self.key, run.as_bytes(), started));
        let tree = StreamRecord { name: "tree".to_owned(), profile: ProfileName::Meta, length: counts.bytes, root };
        let mut warnings = self.warnings;
        if self.problems.len() > PROBLEMS_TOLD {
            warnings.push(format!("{} entries could not be read", self.problems.len()));
            self.problems.truncate(PROBLEMS_TOLD);
        }
        let stored = Stored { streams: vec![tree], layout: Layout::Tree, sizes: self.sizes, warnings };
        Ok(FolderStored { stored, problems: self.problems })
    }
}

fn encode_state(state: &FileState, root: &ContentRoot) -> Vec<u8> {
    let mut out = Vec::new();
    let FileState { size, mtime, ctime, inode, device } = state;
    out.extend_from_slice(&size.to_le_bytes());
    for time in [mtime, ctime] {
        out.extend_from_slice(&time.seconds.to_le_bytes());
        out.extend_from_slice(&time.nanoseconds.to_le_bytes());
    }
    out.extend_from_slice(&inode.to_le_bytes());
    out.extend_from_slice(&device.to_le_bytes());
    out.push(root.depth);
    put_count(&mut out, root.chunks.len());
    put_chunk_ids(&mut out, &root.chunks);
    out
}

fn decode_state(bytes: &[u8]) -> Result<(FileState, ContentRoot), FormatError> {
    let mut fields = FieldReader::new("state of a file", bytes);
    let size = fields.u64()?;
    let mut time = || -> Result<FileTime, FormatError> {
        Ok(FileTime { seconds: i64::from_le_bytes(fields.array()?), nanoseconds: fields.u32()? })
    };
    let (mtime, ctime) = (time()?, time()?);
    let (inode, device) = (fields.u64()?, fields.u64()?);
    let depth = fields.u8()?;
    let count = fields.count(crate::id::ChunkId::SIZE)?;
    let chunks = fields.chunk_ids(count)?;
    fields.finish()?;
    Ok((FileState { size, mtime, ctime, inode, device }, ContentRoot { depth, chunks }))
}
