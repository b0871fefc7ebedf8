//! The tree of a component that is being stored, wherever its files come from.
//!
//! Holds: entries come in the order of trees; what a run saw of its files is known to the next one only if the run ended.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, ErrorKind};
use crate::format::config::ProfileName;
use crate::format::manifest::{Layout, Sizes, StreamRecord};
use crate::format::tree::{ContentRoot, FileContent, TreeEncoder, TreeEntry, TreeError};
use crate::id::RunId;
use crate::ops::census::Census;
use crate::ops::streams::{Stored, add_counts};
use crate::ops::{Context, Progress};
use crate::repository::Repository;
use crate::repository::cache::CacheError;
use crate::repository::chunks::ChunkReader;
use crate::repository::session::{ComponentWriter, InputBlock, OpenStream, WriteSession};
use crate::repository::stream::ChunkIds;
use crate::tree_entry::{Entry, EntryKind, EntryMeta};

/// Encoded entries that are collected before they are cut, in bytes.
const TREE_BLOCK: usize = 64 << 10;
/// States of files that are collected before they are written.
const STATES_BATCH: usize = 1000;
/// Problems that are told one by one.
const PROBLEMS_TOLD: usize = 20;

/// Whose files are stored, and where to.
#[derive(Clone, Copy)]
pub struct Storing<'a> {
    /// What every operation needs.
    pub context: &'a Context,
    /// Where to.
    pub repository: &'a Arc<Repository>,
    /// What is being written there.
    pub session: &'a WriteSession,
    /// The deployment that the component is of.
    pub deployment: &'a str,
    /// The component.
    pub component: &'a str,
    /// The run.
    pub run: RunId,
    /// Sees which files there are, if anybody wants to know.
    pub census: Option<&'a Census>,
}

/// What a component's backup found beside its content.
pub struct FolderStored {
    /// What was stored.
    pub stored: Stored,
    /// Entries that should be there and are not.
    pub problems: Vec<String>,
    /// What the source was asked, units in their names; empty for a folder.
    pub requests: Vec<(&'static str, u64)>,
}

/// Takes a tree's entries and contents.
pub struct Sink<'a> {
    storing: Storing<'a>,
    reader: Arc<ChunkReader>,
    /// What the cache knows these files under.
    key: String,
    started: jiff::Timestamp,
    last_started: Option<jiff::Timestamp>,
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

fn cache_error(error: CacheError) -> Error {
    Error::from(crate::repository::RepositoryError::Cache(error))
}

impl<'a> Sink<'a> {
    /// Begins. What was seen of another `place` says nothing about this one.
    pub async fn open(storing: Storing<'a>, place: &str) -> Result<Self, Error> {
        let Storing { context, repository, session, deployment, component, .. } = storing;
        let key = match place {
            "" => format!("{deployment}\0{component}"),
            place => format!("{deployment}\0{component}\0{place}"),
        };
        let last_started = repository.cache().last_file_run(&key).map_err(cache_error)?;
        let writer = session.component().await;
        let tree = writer.tree();
        Ok(Self {
            storing,
            reader: Arc::new(ChunkReader::new(Arc::clone(repository), Arc::clone(&context.executor))),
            key,
            started: context.clock().now(),
            last_started: last_started.map(|ns| jiff::Timestamp::from_nanosecond(ns.into()).unwrap_or_default()),
            writer,
            tree,
            encoder: TreeEncoder::new(),
            pending: Vec::new(),
            states: Vec::new(),
            sizes: Sizes { files: Some(0), files_unchanged: Some(0), ..Sizes::default() },
            done_bytes: 0,
            warnings: Vec::new(),
            problems: Vec::new(),
        })
    }

    /// What every operation needs.
    pub fn context(&self) -> &'a Context {
        self.storing.context
    }

    /// The component.
    pub fn component(&self) -> &'a str {
        self.storing.component
    }

    /// When the last run that ended began.
    pub fn last_started(&self) -> Option<jiff::Timestamp> {
        self.last_started
    }

    /// Tells what should be looked at.
    pub fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// Tells of an entry that is there and could not be kept.
    pub fn problem(&mut self, path: &[u8], text: String) {
        if let Some(census) = self.storing.census {
            census.see_named(path);
        }
        self.problems.push(text);
    }

    /// What the last run kept of the file at `path`.
    pub fn known(&self, path: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.storing.repository.cache().file(&self.key, path).map_err(cache_error)
    }

    /// A content of `size` bytes that an earlier run stored, if all of it is still there.
    pub async fn still_there(&self, size: u64, root: ContentRoot) -> Result<Option<FileContent>, Error> {
        let stored = self.stored_size(&root).await?;
        Ok((stored == Some(size)).then_some(FileContent { size, root }))
    }

    /// Length of what is below `root`; `None` if any chunk of it is no longer there.
    async fn stored_size(&self, root: &ContentRoot) -> Result<Option<u64>, Error> {
        let mut ids = ChunkIds::new(Arc::clone(&self.reader), root)?;
        let mut size = 0;
        for id in if root.depth > 0 { &root.chunks[..] } else { &[] } {
            if self.storing.session.stored_length(id)?.is_none() {
                return Ok(None);
            }
        }
        loop {
            match ids.next().await {
                Ok(Some(id)) => match self.storing.session.stored_length(&id)? {
                    Some(length) => size += length,
                    None => return Ok(None),
                },
                Ok(None) => return Ok(Some(size)),
                Err(_) => return Ok(None),
            }
        }
    }

    /// Counts a file that was not read.
    pub fn count_unchanged(&mut self, size: u64) {
        *self.sizes.files_unchanged.get_or_insert(0) += 1;
        self.sizes.logical_bytes += size;
        self.sizes.shared_bytes += size;
    }

    /// Takes an entry; a file's content was stored.
    pub async fn put(&mut self, entry: &TreeEntry) -> Result<(), Error> {
        if let Some(census) = self.storing.census {
            match &entry.kind {
                EntryKind::Directory => {}
                EntryKind::File(content) => census.see(&entry.path, content.size, entry.meta.mtime),
                EntryKind::Symlink { .. } | EntryKind::HardLink { .. } => census.see(&entry.path, 0, entry.meta.mtime),
            }
        }
        self.encoder.push(entry, &mut self.pending).map_err(|error| self.not_described(error))?;
        if self.pending.len() >= TREE_BLOCK {
            self.write_tree().await?;
        }
        Ok(())
    }

    fn not_described(&self, error: TreeError) -> Error {
        let text = format!("component `{}` cannot be described", self.storing.component);
        Error::with_source(ErrorKind::Source, text, error)
    }

    async fn write_tree(&mut self) -> Result<(), Error> {
        let bytes = Bytes::from(std::mem::take(&mut self.pending));
        let block = InputBlock { bytes, border: false, permit: None };
        Ok(self.writer.write(&mut self.tree, block).await?)
    }

    /// Begins the content of a file.
    pub fn begin(&mut self) -> OpenStream {
        self.writer.content(ProfileName::Files)
    }

    /// Appends to a content.
    pub async fn write(&mut self, stream: &mut OpenStream, bytes: Bytes) -> Result<(), Error> {
        let block = InputBlock { bytes, border: false, permit: None };
        Ok(self.writer.write(stream, block).await?)
    }

    /// Ends a content that was read whole.
    pub async fn end(&mut self, stream: OpenStream) -> Result<FileContent, Error> {
        let (root, counts) = self.writer.end(stream).await?;
        add_counts(&mut self.sizes, counts);
        Ok(FileContent { size: counts.bytes, root })
    }

    /// Takes a file whose content is stored; `state` is what the next run will know of it.
    pub async fn keep(
        &mut self,
        path: Vec<u8>,
        meta: EntryMeta,
        content: FileContent,
        state: Vec<u8>,
    ) -> Result<(), Error> {
        *self.sizes.files.get_or_insert(0) += 1;
        self.states.push((path.clone(), state));
        if self.states.len() >= STATES_BATCH {
            self.write_states();
        }
        self.done_bytes += content.size;
        let (target, done_bytes) = (self.storing.component.to_owned(), self.done_bytes);
        self.storing.context.events.progress(&Progress { action: "dump", target, done_bytes, total_bytes: None });
        self.put(&Entry { path, meta, kind: EntryKind::File(content) }).await
    }

    fn write_states(&mut self) {
        let (states, cache) = (std::mem::take(&mut self.states), self.storing.repository.cache());
        self.storing.repository.cached(cache.put_files(&self.key, self.storing.run.as_bytes(), &states));
    }

    /// Ends the tree.
    pub async fn finish(mut self) -> Result<FolderStored, Error> {
        self.write_tree().await?;
        let ended = std::mem::take(&mut self.encoder).finish();
        ended.map_err(|error| self.not_described(error))?;
        self.write_states();
        let (root, counts) = self.writer.end(self.tree).await?;
        self.sizes.added_bytes = self.writer.finish().await?;
        let started = i64::try_from(self.started.as_nanosecond()).unwrap_or(0);
        let Storing { context, repository, component, run, .. } = self.storing;
        repository.cached(repository.cache().finish_files(&self.key, run.as_bytes(), started));
        let tree = StreamRecord { name: "tree".to_owned(), profile: ProfileName::Meta, length: counts.bytes, root };
        if self.problems.len() > PROBLEMS_TOLD {
            self.warnings.push(format!("{} entries could not be read", self.problems.len()));
            self.problems.truncate(PROBLEMS_TOLD);
        }
        context.events.progress_done("dump", component);
        let stored = Stored { streams: vec![tree], layout: Layout::Tree, sizes: self.sizes, warnings: self.warnings };
        Ok(FolderStored { stored, problems: self.problems, requests: vec![] })
    }
}
