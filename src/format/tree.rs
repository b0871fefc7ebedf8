//! The stream of entries that describes a folder tree, and one entry of it.
//!
//! A tree stream is a row of entries and nothing else; integers are little endian. The first entry is the root folder:
//! a directory whose path is empty. The entries are strictly ascending in the order of [`crate::tree_entry`]: component
//! by component as bytes, that is `/` before every other byte, so that a directory stands directly before its subtree.
//!
//! ```text
//! entry     = kind u8 | mode u32 | uid u32 | gid u32 | mtime seconds i64 | mtime nanoseconds u32
//!           | path length u16 | path | what the kind adds
//! 1 file      size u64 | content root
//! 2 directory nothing
//! 3 symlink   target length u16 | target
//! 4 hard link first length u16 | path of the file's first name
//! content root = depth u8 | n u16 | n × 32-byte chunk id
//! ```
//!
//! A content root of depth 0 lists the file's chunks in order; of depth d, the chunks of a recipe that is read like
//! the content of a root of depth d − 1. A file of size 0 has depth 0 and no chunks; every other file has at least one.
//! A hard link repeats the mode, owner and time of its file; readers take them from the file. That its first path is a
//! file is not known to this codec, which keeps one path in memory: whoever restores must see there a regular file, opened
//! without following links.
//!
//! Holds: every stream that decodes is what the encoder writes for the same entries; encoder and decoder refuse the same.
//! Does not: read recipes or chunks; touch files.

use serde::{Deserialize, Serialize};

use crate::id::ChunkId;
use crate::limits::{RECIPE_DEPTH_MAX, RECIPE_INLINE_MAX, TREE_PATH_SIZE_MAX};
use crate::tree_entry::{self, Entry, EntryError, EntryKind, EntryMeta, EntrySequence, FileTime};

const KIND_FILE: u8 = 1;
const KIND_DIRECTORY: u8 = 2;
const KIND_SYMLINK: u8 = 3;
const KIND_HARD_LINK: u8 = 4;

const _: () = assert!(TREE_PATH_SIZE_MAX <= u16::MAX as usize, "a path's length must fit its field");
const _: () = assert!(RECIPE_INLINE_MAX <= u16::MAX as usize, "a content root's count must fit its field");

/// Where the bytes of a stream or file begin to be found: a few chunks, or a recipe's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "UncheckedContentRoot")]
pub struct ContentRoot {
    /// Recipes between `chunks` and the content, at most [`RECIPE_DEPTH_MAX`]; 0: `chunks` are the content.
    pub depth: u8,
    /// In order, at most [`RECIPE_INLINE_MAX`]; none only for empty content, at depth 0.
    pub chunks: Vec<ChunkId>,
}

#[derive(Deserialize)]
struct UncheckedContentRoot {
    depth: u8,
    chunks: Vec<ChunkId>,
}

/// Why a content root is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentRootError {
    /// More than [`RECIPE_DEPTH_MAX`].
    #[error("a content root of depth {depth} is deeper than {RECIPE_DEPTH_MAX}")]
    Depth {
        /// What it says.
        depth: u8,
    },
    /// More than [`RECIPE_INLINE_MAX`].
    #[error("a content root of {count} chunks has more than {RECIPE_INLINE_MAX}")]
    Count {
        /// What it says.
        count: usize,
    },
    /// A recipe of nothing; empty content has depth 0.
    #[error("a content root of depth {depth} has no chunks")]
    EmptyRecipe {
        /// What it says.
        depth: u8,
    },
}

impl ContentRoot {
    /// The recipe below it, as a stream of its own; `None` where the root lists all chunks itself.
    pub fn recipe(&self) -> Option<Self> {
        Some(Self { depth: self.depth.checked_sub(1)?, chunks: self.chunks.clone() })
    }

    /// Whether it keeps to the limits.
    ///
    /// # Errors
    /// Each [`ContentRootError`].
    pub fn check(&self) -> Result<(), ContentRootError> {
        check_root_numbers(self.depth, self.chunks.len())
    }
}

impl TryFrom<UncheckedContentRoot> for ContentRoot {
    type Error = ContentRootError;

    fn try_from(UncheckedContentRoot { depth, chunks }: UncheckedContentRoot) -> Result<Self, ContentRootError> {
        let root = Self { depth, chunks };
        root.check()?;
        Ok(root)
    }
}

fn check_root_numbers(depth: u8, count: usize) -> Result<(), ContentRootError> {
    if depth > RECIPE_DEPTH_MAX {
        return Err(ContentRootError::Depth { depth });
    }
    if count > RECIPE_INLINE_MAX {
        return Err(ContentRootError::Count { count });
    }
    if depth > 0 && count == 0 {
        return Err(ContentRootError::EmptyRecipe { depth });
    }
    Ok(())
}

/// What a tree keeps of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// Length in bytes.
    pub size: u64,
    /// Where the bytes are.
    pub root: ContentRoot,
}

/// One entry of a tree stream.
pub type TreeEntry = Entry<FileContent>;

/// Why a tree stream is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// An entry, or its place, breaks the rules of trees.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The kind is none of the four.
    #[error("a tree entry has the reserved kind {kind}")]
    ReservedKind {
        /// What it says.
        kind: u8,
    },
    /// A file's content root breaks its limits.
    #[error("the content root of `{path}` is refused")]
    ContentRoot {
        /// The file.
        path: String,
        /// Which limit.
        #[source]
        source: ContentRootError,
    },
    /// A size without chunks, or chunks without a size.
    #[error("file `{path}` of {size} bytes has {chunks} chunks in its content root")]
    SizeAndChunks {
        /// The file.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// Chunks in its content root.
        chunks: usize,
    },
    /// The stream ends inside an entry.
    #[error("the tree ends {bytes} bytes into an entry")]
    Truncated {
        /// Bytes of the entry that were there.
        bytes: usize,
    },
    /// The stream has no entry, not even the root folder.
    #[error("the tree is empty, without its root folder")]
    Empty,
}

/// Writes a tree stream.
#[derive(Debug, Default)]
pub struct TreeEncoder {
    sequence: EntrySequence,
}

impl TreeEncoder {
    /// Begins a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the next entry to `out`.
    ///
    /// # Errors
    /// All that [`TreeDecoder::push`] refuses; `out` and the encoder are unchanged then.
    pub fn push(&mut self, entry: &TreeEntry, out: &mut Vec<u8>) -> Result<(), TreeError> {
        check_entry(entry)?;
        self.sequence.accept(&entry.path, matches!(entry.kind, EntryKind::Directory))?;
        write_entry(entry, out);
        Ok(())
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`TreeError::Empty`].
    pub fn finish(self) -> Result<(), TreeError> {
        if self.sequence.has_root() { Ok(()) } else { Err(TreeError::Empty) }
    }
}

/// Reads a tree stream that comes in pieces of any size. Keeps at most one entry.
#[derive(Debug, Default)]
pub struct TreeDecoder {
    sequence: EntrySequence,
    /// What came of an entry that is not whole yet; after an error, begins with the refused entry.
    pending: Vec<u8>,
}

impl TreeDecoder {
    /// Begins a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece and gives the entries that it completes.
    ///
    /// # Errors
    /// Each [`TreeError`] but `Truncated` and `Empty`. The stream is refused for good: further pushes err again.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<TreeEntry>, TreeError> {
        self.pending.extend_from_slice(piece);
        let mut entries = Vec::new();
        let mut consumed = 0;
        let result = loop {
            match self.next_entry(consumed) {
                Ok(Some((entry, size))) => {
                    consumed += size;
                    entries.push(entry);
                }
                Ok(None) => break Ok(entries),
                Err(error) => break Err(error),
            }
        };
        self.pending.drain(..consumed);
        result
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`TreeError::Truncated`] and [`TreeError::Empty`].
    pub fn finish(self) -> Result<(), TreeError> {
        if !self.pending.is_empty() {
            return Err(TreeError::Truncated { bytes: self.pending.len() });
        }
        if self.sequence.has_root() { Ok(()) } else { Err(TreeError::Empty) }
    }

    fn next_entry(&mut self, start: usize) -> Result<Option<(TreeEntry, usize)>, TreeError> {
        let mut cursor = Cursor { rest: &self.pending[start..] };
        let whole = cursor.rest.len();
        let entry = match read_entry(&mut cursor) {
            Ok(entry) => entry,
            Err(Stop::NeedsMore) => return Ok(None),
            Err(Stop::Refused(error)) => return Err(error),
        };
        let size = whole - cursor.rest.len();
        check_entry(&entry)?;
        self.sequence.accept(&entry.path, matches!(entry.kind, EntryKind::Directory))?;
        Ok(Some((entry, size)))
    }
}

fn check_entry(entry: &TreeEntry) -> Result<(), TreeError> {
    entry.check()?;
    match &entry.kind {
        EntryKind::File(content) => check_content(&entry.path, content),
        EntryKind::Directory | EntryKind::Symlink { .. } | EntryKind::HardLink { .. } => Ok(()),
    }
}

fn check_content(path: &[u8], content: &FileContent) -> Result<(), TreeError> {
    let shown = || tree_entry::printable(path);
    content.root.check().map_err(|source| TreeError::ContentRoot { path: shown(), source })?;
    let chunks = content.root.chunks.len();
    if (content.size == 0) != (chunks == 0) {
        return Err(TreeError::SizeAndChunks { path: shown(), size: content.size, chunks });
    }
    Ok(())
}

fn write_entry(entry: &TreeEntry, out: &mut Vec<u8>) {
    let EntryMeta { mode, uid, gid, mtime } = entry.meta;
    out.push(match &entry.kind {
        EntryKind::File(_) => KIND_FILE,
        EntryKind::Directory => KIND_DIRECTORY,
        EntryKind::Symlink { .. } => KIND_SYMLINK,
        EntryKind::HardLink { .. } => KIND_HARD_LINK,
    });
    for number in [mode, uid, gid] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&mtime.seconds.to_le_bytes());
    out.extend_from_slice(&mtime.nanoseconds.to_le_bytes());
    write_bytes(&entry.path, out);
    match &entry.kind {
        EntryKind::File(content) => {
            out.extend_from_slice(&content.size.to_le_bytes());
            out.push(content.root.depth);
            write_length(content.root.chunks.len(), out);
            for chunk in &content.root.chunks {
                out.extend_from_slice(chunk.as_bytes());
            }
        }
        EntryKind::Directory => {}
        EntryKind::Symlink { target } => write_bytes(target, out),
        EntryKind::HardLink { first } => write_bytes(first, out),
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn write_length(length: usize, out: &mut Vec<u8>) {
    let length = u16::try_from(length).expect("paths and content roots are checked before they are written");
    out.extend_from_slice(&length.to_le_bytes());
}

/// Why no entry was read.
enum Stop {
    NeedsMore,
    Refused(TreeError),
}

fn refused(error: impl Into<TreeError>) -> Stop {
    Stop::Refused(error.into())
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Stop::NeedsMore)?;
        self.rest = rest;
        Ok(*head)
    }

    fn bytes(&mut self, size: usize) -> Result<&'a [u8], Stop> {
        let (head, rest) = self.rest.split_at_checked(size).ok_or(Stop::NeedsMore)?;
        self.rest = rest;
        Ok(head)
    }

    fn number(&mut self) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn length(&mut self) -> Result<usize, Stop> {
        Ok(usize::from(u16::from_le_bytes(self.array()?)))
    }
}

/// Lengths are judged before what they count is waited for, so that no more than one valid entry is ever kept.
fn read_entry(cursor: &mut Cursor<'_>) -> Result<TreeEntry, Stop> {
    let [kind] = cursor.array()?;
    if !(KIND_FILE..=KIND_HARD_LINK).contains(&kind) {
        return Err(refused(TreeError::ReservedKind { kind }));
    }
    let (mode, uid, gid) = (cursor.number()?, cursor.number()?, cursor.number()?);
    let seconds = i64::from_le_bytes(cursor.array()?);
    let mtime = FileTime { seconds, nanoseconds: cursor.number()? };
    let size = cursor.length()?;
    if size > TREE_PATH_SIZE_MAX {
        return Err(refused(EntryError::PathTooLong { size }));
    }
    let path = cursor.bytes(size)?.to_vec();
    let kind = match kind {
        KIND_FILE => EntryKind::File(read_content(cursor, &path)?),
        KIND_DIRECTORY => EntryKind::Directory,
        KIND_SYMLINK => EntryKind::Symlink { target: read_target(cursor, &path)? },
        _ => EntryKind::HardLink { first: read_first(cursor)? },
    };
    Ok(Entry { path, meta: EntryMeta { mode, uid, gid, mtime }, kind })
}

fn read_content(cursor: &mut Cursor<'_>, path: &[u8]) -> Result<FileContent, Stop> {
    let size = u64::from_le_bytes(cursor.array()?);
    let [depth] = cursor.array()?;
    let count = cursor.length()?;
    check_root_numbers(depth, count)
        .map_err(|source| refused(TreeError::ContentRoot { path: tree_entry::printable(path), source }))?;
    let chunks = (0..count).map(|_| Ok(ChunkId::from_bytes(cursor.array()?))).collect::<Result<_, Stop>>()?;
    Ok(FileContent { size, root: ContentRoot { depth, chunks } })
}

fn read_target(cursor: &mut Cursor<'_>, path: &[u8]) -> Result<Vec<u8>, Stop> {
    let size = cursor.length()?;
    if size > TREE_PATH_SIZE_MAX {
        return Err(refused(EntryError::SymlinkTarget { path: tree_entry::printable(path) }));
    }
    Ok(cursor.bytes(size)?.to_vec())
}

fn read_first(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, Stop> {
    let size = cursor.length()?;
    if size > TREE_PATH_SIZE_MAX {
        return Err(refused(EntryError::PathTooLong { size }));
    }
    Ok(cursor.bytes(size)?.to_vec())
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
