//! What of snapshots is not there any more: chunks, byte ranges of streams, files.
//!
//! Nothing here stops at the first thing that is missing: what lies behind it is looked at all the same, as far as it can be
//! found. A chunk is *held* if a pack holds it that is there and was not found damaged, and so are the bases of its segment.
//!
//! Does not: bring anything back (`repair`), or decide.

mod holdings;
mod ids;
mod ranges;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

pub use self::holdings::Holdings;
use self::ids::Ids;
use self::ranges::Ranges;
use super::RepositoryError;
use super::chunks::ChunkReader;
use crate::format::envelope::ObjectType;
use crate::format::manifest::{ComponentStatus, Layout, Manifest, StreamRecord};
use crate::format::tree::{ContentRoot, FileContent, TreeDecoder};
use crate::id::{ChunkId, SnapshotId};
use crate::limits::BASE_DEPTH_MAX;
use crate::tree_entry::{EntryKind, printable};

/// A file of which bytes are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileLoss {
    /// Its path in the component, for people.
    pub path: String,
    /// The bytes of it that are lost.
    pub ranges: Vec<Range<u64>>,
}

/// A stream of which bytes are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamLoss {
    /// The component.
    pub component: String,
    /// The stream.
    pub stream: String,
    /// The bytes of it that are lost.
    pub ranges: Vec<Range<u64>>,
    /// The files that it lists of which bytes are lost.
    pub files: Vec<FileLoss>,
    /// Whether it lists more files, which cannot be known any more.
    pub more_files: bool,
}

/// A snapshot of which something is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotLoss {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its streams of which something is lost.
    pub streams: Vec<StreamLoss>,
}

/// What snapshots refer to and nothing holds.
#[derive(Debug, Default)]
pub struct Lacking {
    /// Chunks that are not held, with the kind of pack that they belong in. Some may still be read from a damaged pack.
    pub chunks: BTreeMap<ChunkId, ObjectType>,
    /// Chunks that such are compressed against, and that are not held either.
    pub bases: BTreeMap<ChunkId, ObjectType>,
    /// Snapshots that refer to them.
    pub snapshots: Vec<SnapshotLoss>,
}

/// Takes chunk ids, with how deep the segment may be that each is read from.
pub type Visit<'a> = dyn FnMut(&ChunkId, u32) -> Result<(), RepositoryError> + Send + 'a;

/// Walks over snapshots whatever is missing.
pub struct Walker {
    readers: Vec<Arc<ChunkReader>>,
    holdings: Holdings,
    /// Roots of which nothing is missing, with their lengths: snapshots share most of their files.
    whole: HashSet<(u8, Vec<ChunkId>, u64)>,
    /// Bases that were visited, with how deep they may be.
    bases: HashMap<ChunkId, u32>,
    lacking: Lacking,
}

impl Walker {
    /// Reads recipes and trees with the first of the `readers` that can.
    pub fn new(readers: Vec<Arc<ChunkReader>>, holdings: Holdings) -> Self {
        Self { readers, holdings, whole: HashSet::new(), bases: HashMap::new(), lacking: Lacking::default() }
    }

    /// What the snapshots that were walked lack, and the holdings.
    pub fn finish(self) -> (Lacking, Holdings) {
        (self.lacking, self.holdings)
    }

    /// Walks over all of a snapshot. Every chunk that can be found is shown to `visit`, bases included; one may come more than
    /// once.
    pub async fn snapshot(
        &mut self,
        id: SnapshotId,
        manifest: &Manifest,
        visit: &mut Visit<'_>,
    ) -> Result<(), RepositoryError> {
        let mut streams = Vec::new();
        for component in manifest.components.iter().filter(|component| component.status != ComponentStatus::Failed) {
            for stream in &component.streams {
                let mut loss = StreamLoss {
                    component: component.name.clone(),
                    stream: stream.name.clone(),
                    ranges: vec![],
                    files: vec![],
                    more_files: false,
                };
                if matches!(component.layout, Layout::Tree) {
                    self.tree(stream, &mut loss, visit).await?;
                } else {
                    loss.ranges = self.content(&stream.root, stream.length, visit).await?;
                }
                if !loss.ranges.is_empty() || !loss.files.is_empty() || loss.more_files {
                    streams.push(loss);
                }
            }
        }
        if !streams.is_empty() {
            self.lacking.snapshots.push(SnapshotLoss { id, streams });
        }
        Ok(())
    }

    /// The bytes below `root`, which should be `length` in all, that are lost.
    async fn content(
        &mut self,
        root: &ContentRoot,
        length: u64,
        visit: &mut Visit<'_>,
    ) -> Result<Vec<Range<u64>>, RepositoryError> {
        let key = (root.depth, root.chunks.clone(), length);
        if self.whole.contains(&key) {
            return Ok(vec![]);
        }
        let (mut ids, mut ranges) = (Ids::new(root), Ranges::default());
        while let Some(id) = ids.next(self, visit).await? {
            self.leaf(id, ObjectType::ContentPack, &mut ranges, visit)?;
        }
        let ranges = ranges.finish(length);
        if ranges.is_empty() {
            self.whole.insert(key);
        }
        Ok(ranges)
    }

    /// One chunk of a stream; `None`: one whose name is not known any more.
    fn leaf(
        &mut self,
        id: Option<ChunkId>,
        kind: ObjectType,
        ranges: &mut Ranges,
        visit: &mut Visit<'_>,
    ) -> Result<bool, RepositoryError> {
        let Some(id) = id else {
            ranges.gap();
            return Ok(false);
        };
        let (held, length) = self.met(&id, kind, visit)?;
        match length {
            Some(length) => ranges.chunk(length, held),
            None => ranges.gap(),
        }
        Ok(held)
    }

    /// Whether a chunk is held, and its length if an index names it.
    fn met(
        &mut self,
        id: &ChunkId,
        kind: ObjectType,
        visit: &mut Visit<'_>,
    ) -> Result<(bool, Option<u64>), RepositoryError> {
        let mut queue = vec![(*id, BASE_DEPTH_MAX)];
        while let Some((id, depth)) = queue.pop() {
            visit(&id, depth)?;
            for (base, depth) in self.holdings.bases(&id)? {
                let known = self.bases.entry(base).or_insert(u32::MAX);
                if depth < *known {
                    *known = depth;
                    queue.push((base, depth));
                }
            }
        }
        let (held, length) = self.holdings.look(id, BASE_DEPTH_MAX)?;
        if !held {
            self.lacking.chunks.insert(*id, kind);
            self.lacks_bases(id, kind)?;
        }
        Ok((held, length))
    }

    /// Notes what keeps a chunk from being read, of what it is compressed against.
    fn lacks_bases(&mut self, id: &ChunkId, kind: ObjectType) -> Result<(), RepositoryError> {
        let mut queue = self.holdings.bases(id)?;
        while let Some((base, depth)) = queue.pop() {
            if !self.holdings.look(&base, depth)?.0 && self.lacking.bases.insert(base, kind).is_none() {
                queue.extend(self.holdings.bases(&base)?);
            }
        }
        Ok(())
    }

    async fn tree(
        &mut self,
        stream: &StreamRecord,
        loss: &mut StreamLoss,
        visit: &mut Visit<'_>,
    ) -> Result<(), RepositoryError> {
        let (mut ids, mut ranges) = (Ids::new(&stream.root), Ranges::default());
        let mut decoder = TreeDecoder::new();
        while let Some(id) = ids.next(self, visit).await? {
            self.leaf(id, ObjectType::TreePack, &mut ranges, visit)?;
            if loss.more_files {
                continue;
            }
            let Some(bytes) = self.read(id).await? else {
                loss.more_files = true;
                continue;
            };
            match decoder.push(&bytes) {
                Ok(entries) => {
                    for entry in entries {
                        if let EntryKind::File(content) = &entry.kind {
                            self.file(&entry.path, content, loss, visit).await?;
                        }
                    }
                }
                Err(_) => loss.more_files = true,
            }
        }
        loss.more_files |= decoder.finish().is_err();
        loss.ranges = ranges.finish(stream.length);
        Ok(())
    }

    async fn file(
        &mut self,
        path: &[u8],
        content: &FileContent,
        loss: &mut StreamLoss,
        visit: &mut Visit<'_>,
    ) -> Result<(), RepositoryError> {
        let ranges = self.content(&content.root, content.size, visit).await?;
        if !ranges.is_empty() {
            loss.files.push(FileLoss { path: printable(path), ranges });
        }
        Ok(())
    }

    /// The plaintext of a chunk of a recipe or tree, if it can still be read.
    async fn read(&self, id: Option<ChunkId>) -> Result<Option<Bytes>, RepositoryError> {
        let Some(id) = id else { return Ok(None) };
        for reader in &self.readers {
            match reader.chunk(&id).await {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(RepositoryError::Damaged(_) | RepositoryError::MissingChunk { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}
