//! Artifact files on their way into the repository: a folder here, a bucket in [`bucket`].
//!
//! A file whose state is the one of the last run is not read again, if all its chunks are still there. One that changes
//! while it is read is read again, a few times; then it is a problem, and problems fail the component unless told otherwise.

pub mod bucket;
pub mod put_back;
mod sink;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use self::sink::Sink;
pub use self::sink::{FolderStored, Storing};
use crate::component::artifact_store::scan::{FileState, ScanError, Scanned, ScannedEntry, SourceFolder, is_unchanged};
use crate::error::{Error, ErrorKind};
use crate::format::FormatError;
use crate::format::bytes::{FieldReader, put_chunk_ids, put_count};
use crate::format::tree::{ContentRoot, FileContent};
use crate::limits::INPUT_BLOCK_SIZE_MAX;
use crate::tree_entry::{Entry, EntryKind, FileTime, printable};

/// How often a file that changes while it is read is tried.
const ATTEMPTS: u32 = 3;
/// Entries that are scanned in one go.
const SCAN_BATCH: usize = 128;

/// Stores the folder `path`.
pub async fn store(storing: Storing<'_>, path: &Path) -> Result<FolderStored, Error> {
    let source = open_folder(storing.component, path).await?;
    let sink = Sink::open(storing, "").await?;
    let mut folder = Folder { sink, source };
    folder.walk().await?;
    folder.sink.finish().await
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
    sink: Sink<'a>,
    source: Arc<SourceFolder>,
}

impl Folder<'_> {
    async fn walk(&mut self) -> Result<(), Error> {
        let source = Arc::clone(&self.source);
        let mut scan =
            blocking(move || source.scan()).await.map_err(|error| scan_error(self.sink.component(), error))?;
        loop {
            self.sink.context().cancel.check()?;
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
                        self.sink.warn(format!("`{}` is a {reason} and was passed over", printable(&path)));
                    }
                    Scanned::Problem { path, error } => self.problem(&path, &error),
                }
            }
        }
    }

    fn problem(&mut self, path: &[u8], error: &dyn std::error::Error) {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        self.sink.problem(path, format!("`{}`: {error}{cause}", printable(path)));
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
        self.sink.put(&Entry { path, meta, kind }).await?;
        Ok(true)
    }

    async fn file(&mut self, found: ScannedEntry) -> Result<bool, Error> {
        let mut found = found;
        if let Some(content) = self.unchanged(&found).await? {
            self.sink.count_unchanged(content.size);
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
        let state = encode_state(&found.state, &content.root);
        let Entry { path, meta, .. } = found.entry;
        self.sink.keep(path, meta, content, state).await
    }

    /// The content that the last run stored, if the file has not changed since and all of it is still there.
    async fn unchanged(&self, found: &ScannedEntry) -> Result<Option<FileContent>, Error> {
        let Some(started) = self.sink.last_started() else { return Ok(None) };
        let Some(bytes) = self.sink.known(&found.entry.path)? else { return Ok(None) };
        let Ok((state, root)) = decode_state(&bytes) else { return Ok(None) };
        if !is_unchanged(&found.state, &state, started) {
            return Ok(None);
        }
        self.sink.still_there(found.state.size, root).await
    }

    /// Reads and stores a file. The inner error is about the file, the outer one about everything else.
    async fn read(&mut self, found: &ScannedEntry) -> Result<Result<FileContent, ScanError>, Error> {
        let (source, path, state) = (Arc::clone(&self.source), found.entry.path.clone(), found.state);
        let mut file = match blocking(move || source.open_checked(&path, &state)).await {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let mut stream = self.sink.begin();
        loop {
            self.sink.context().cancel.check()?;
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
                Ok(bytes) => self.sink.write(&mut stream, Bytes::from(bytes)).await?,
                Err(error) => return Ok(Err(error)),
            }
        }
        if let Err(error) = blocking(move || file.finish()).await {
            return Ok(Err(error));
        }
        Ok(Ok(self.sink.end(stream).await?))
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
