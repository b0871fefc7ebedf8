//! One walk over the chunks of a stream: does each resolve, into a pack that is whole?

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::super::chunks::ChunkReader;
use super::super::stream::ChunkIds;
use super::super::{Damage, RepositoryError, with_causes};
use super::view::View;
use crate::format::index::SegmentEntry;
use crate::format::tree::{ContentRoot, FileContent, TreeDecoder};
use crate::id::{ChunkId, PackId};
use crate::limits::BASE_DEPTH_MAX;
use crate::tree_entry::{EntryKind, printable};

/// Roots that were walked without a fault, with the length that was expected: snapshots share most of their files.
pub(super) type Sound = HashSet<(u8, Vec<ChunkId>, u64)>;

/// One walk.
pub(super) struct Walk<'a> {
    pub reader: &'a Arc<ChunkReader>,
    pub view: &'a View,
    pub hurt_packs: &'a HashSet<PackId>,
    pub name: &'a str,
    /// Packs that have segments with bases.
    pub based: &'a BTreeSet<PackId>,
    /// Packs without which a chunk is nowhere, and that are not whole.
    pub hurt: BTreeSet<PackId>,
    /// Of segments with bases, the pack that their bases miss.
    pub segments: HashMap<(PackId, u32), Option<PackId>>,
}

impl Walk<'_> {
    /// Resolves every chunk below `root`; gives their lengths together.
    pub async fn ids(&mut self, root: &ContentRoot) -> Result<u64, RepositoryError> {
        let mut ids = ChunkIds::new(Arc::clone(self.reader), root)?;
        let mut length = 0;
        while let Some(id) = ids.next().await? {
            length += self.one(&id)?;
        }
        Ok(length)
    }

    /// A chunk is whole if any pack that holds it is, and what its segment there is based on.
    fn one(&mut self, id: &ChunkId) -> Result<u64, RepositoryError> {
        // Almost all chunks are whole in the first place where they are, which neighbours share: that needs no look-up each.
        let location = self.reader.locate(id)?;
        if self.is_whole(&location.pack) && self.blame_bases(location.pack, location.segment)?.is_none() {
            return Ok(location.length.into());
        }
        let (length, blamed) = self.blame(id, BASE_DEPTH_MAX)?;
        self.hurt.extend(blamed);
        Ok(length)
    }

    /// The length of a chunk, and the pack that it misses, if it is nowhere whole.
    fn blame(&mut self, id: &ChunkId, depth: u32) -> Result<(u64, Option<PackId>), RepositoryError> {
        let found = self.reader.repository().cache().find_all(id)?;
        let first = found.first().ok_or(RepositoryError::MissingChunk { id: *id })?;
        let length = u64::from(first.length);
        let mut blamed = None;
        for location in found.iter().filter(|location| location.is_within(depth)) {
            let named = self.view.packs().contains_key(&location.pack);
            let missed = match self.is_whole(&location.pack) {
                true => self.blame_bases(location.pack, location.segment)?,
                false => Some(location.pack).filter(|_| named),
            };
            match missed {
                None if named => return Ok((length, None)),
                missed => blamed = blamed.or(missed),
            }
        }
        Ok((length, blamed.or(Some(first.pack))))
    }

    /// Whether an index names a pack, and nothing was found to be wrong with it.
    fn is_whole(&self, pack: &PackId) -> bool {
        self.view.packs().contains_key(pack) && !self.hurt_packs.contains(pack)
    }

    fn blame_bases(&mut self, pack: PackId, segment: u32) -> Result<Option<PackId>, RepositoryError> {
        if !self.based.contains(&pack) {
            return Ok(None);
        }
        if let Some(known) = self.segments.get(&(pack, segment)) {
            return Ok(*known);
        }
        let entry = self.reader.repository().cache().segment(&pack, segment)?;
        let mut missed = None;
        for (base, depth) in entry.iter().flat_map(SegmentEntry::bases) {
            missed = match self.blame(&base, depth) {
                Ok((_, missed)) => missed,
                // In no index.
                Err(RepositoryError::MissingChunk { .. }) => Some(pack),
                Err(error) => return Err(error),
            };
            if missed.is_some() {
                break;
            }
        }
        self.segments.insert((pack, segment), missed);
        Ok(missed)
    }

    /// Decodes a tree and resolves the chunks of its files; gives the tree's length.
    pub async fn tree(&mut self, root: &ContentRoot, sound: &mut Sound) -> Result<u64, RepositoryError> {
        let mut ids = ChunkIds::new(Arc::clone(self.reader), root)?;
        let mut decoder = TreeDecoder::new();
        let mut found = 0;
        let object = self.name.to_owned();
        let damage = |error: &dyn std::error::Error| Damage {
            object: object.clone(),
            layer: "tree",
            problem: with_causes(error),
        };
        while let Some(id) = ids.next().await? {
            self.one(&id)?;
            let bytes = self.reader.chunk(&id).await?;
            found += bytes.len() as u64;
            for entry in decoder.push(&bytes).map_err(|error| damage(&error))? {
                if let EntryKind::File(content) = &entry.kind {
                    self.file(&entry.path, content, sound).await?;
                }
            }
        }
        decoder.finish().map_err(|error| damage(&error))?;
        Ok(found)
    }

    async fn file(&mut self, path: &[u8], content: &FileContent, sound: &mut Sound) -> Result<(), RepositoryError> {
        let key = (content.root.depth, content.root.chunks.clone(), content.size);
        if sound.contains(&key) {
            return Ok(());
        }
        let before = self.hurt.len();
        let length = self.ids(&content.root).await?;
        if length != content.size {
            let path = printable(path);
            let problem = format!("the chunks of `{path}` add up to {length} bytes, not to {}", content.size);
            return Err(Damage { object: self.name.to_owned(), layer: "tree", problem }.into());
        }
        if self.hurt.len() == before {
            sound.insert(key);
        }
        Ok(())
    }
}
