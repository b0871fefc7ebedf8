//! One walk over the chunks of a stream: does each resolve, into a pack that is whole?

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::super::chunks::ChunkReader;
use super::super::stream::ChunkIds;
use super::super::{Damage, RepositoryError, with_causes};
use super::view::View;
use crate::format::tree::{ContentRoot, FileContent, TreeDecoder};
use crate::id::{ChunkId, PackId};
use crate::tree_entry::{EntryKind, printable};

/// Roots that were walked without a fault, with the length that was expected: snapshots share most of their files.
pub(super) type Sound = HashSet<(u8, Vec<ChunkId>, u64)>;

/// One walk.
pub(super) struct Walk<'a> {
    pub reader: &'a Arc<ChunkReader>,
    pub view: &'a View,
    pub hurt_packs: &'a HashSet<PackId>,
    pub name: &'a str,
    /// Packs without which a chunk is nowhere, and that are not whole.
    pub hurt: BTreeSet<PackId>,
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

    /// A chunk is whole if any pack that holds it is.
    fn one(&mut self, id: &ChunkId) -> Result<u64, RepositoryError> {
        let found = self.reader.repository().cache().find_all(id)?;
        let first = found.first().ok_or(RepositoryError::MissingChunk { id: *id })?;
        let named = |pack: &PackId| self.view.packs().contains_key(pack);
        let whole = |pack: &PackId| named(pack) && !self.hurt_packs.contains(pack);
        if !found.iter().any(|location| whole(&location.pack)) {
            let blamed = found.iter().find(|location| named(&location.pack)).unwrap_or(first);
            self.hurt.insert(blamed.pack);
        }
        Ok(first.length.into())
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
