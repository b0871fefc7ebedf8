//! Every chunk that snapshots refer to: directly, by recipes, by trees.
//!
//! Snapshots share most of their recipes. Each recipe chunk is read once, whatever number of snapshots it is in: what an
//! expanded one looks like at its edges is remembered, because the border of a chunk may lie inside of an id.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::RepositoryError;
use super::chunks::ChunkReader;
use super::stream::ChunkIds;
use crate::format::manifest::{ComponentRecord, ComponentStatus, Layout, Manifest};
use crate::format::tree::{ContentRoot, TreeDecoder};
use crate::id::ChunkId;
use crate::tree_entry::EntryKind;

/// Takes chunk ids; one may come more than once.
pub type Visit<'a> = dyn FnMut(&ChunkId) -> Result<(), RepositoryError> + Send + 'a;

/// The edges of an expanded recipe chunk: bytes before its first whole id, and behind its last.
struct Edges {
    head: Vec<u8>,
    tail: Vec<u8>,
}

/// Walks over snapshots and remembers where it was.
pub struct Reach {
    reader: Arc<ChunkReader>,
    /// Roots whose chunks were all visited.
    roots: HashSet<(u8, Vec<ChunkId>)>,
    /// Recipe chunks whose ids were all visited, by the number of bytes of an id that came before them.
    recipes: HashMap<(ChunkId, usize), Edges>,
}

impl Reach {
    /// Nothing was visited yet.
    pub fn new(reader: Arc<ChunkReader>) -> Self {
        Self { reader, roots: HashSet::new(), recipes: HashMap::new() }
    }

    /// Visits every chunk of a snapshot that was not visited as a part of an earlier one.
    pub async fn snapshot(&mut self, manifest: &Manifest, visit: &mut Visit<'_>) -> Result<(), RepositoryError> {
        for component in &manifest.components {
            self.component(component, visit).await?;
        }
        Ok(())
    }

    /// The same of one component; one that failed has none.
    pub async fn component(
        &mut self,
        component: &ComponentRecord,
        visit: &mut Visit<'_>,
    ) -> Result<(), RepositoryError> {
        if component.status == ComponentStatus::Failed {
            return Ok(());
        }
        for stream in &component.streams {
            let is_tree = matches!(component.layout, Layout::Tree);
            if self.root(&stream.root, visit).await? && is_tree {
                self.tree(&stream.root, visit).await?;
            }
        }
        Ok(())
    }

    /// Visits the chunks below a root; `false` if that was done before.
    async fn root(&mut self, root: &ContentRoot, visit: &mut Visit<'_>) -> Result<bool, RepositoryError> {
        if !self.roots.insert((root.depth, root.chunks.clone())) {
            return Ok(false);
        }
        let mut ids = root.chunks.clone();
        for _ in 1..root.depth {
            // Lists of recipe chunks are a thousandth of what they describe.
            ids.iter().try_for_each(&mut *visit)?;
            ids = self.parsed(&ids).await?;
        }
        ids.iter().try_for_each(&mut *visit)?;
        if root.depth > 0 {
            self.recipe(&ids, visit).await?;
        }
        Ok(true)
    }

    async fn parsed(&self, chunks: &[ChunkId]) -> Result<Vec<ChunkId>, RepositoryError> {
        let mut bytes = Vec::new();
        for id in chunks {
            bytes.extend_from_slice(&self.reader.chunk(id).await?);
        }
        let (ids, rest) = bytes.as_chunks::<{ ChunkId::SIZE }>();
        if !rest.is_empty() {
            return Err(cut_id().into());
        }
        Ok(ids.iter().map(|id| ChunkId::from_bytes(*id)).collect())
    }

    /// Visits the ids that these chunks of a recipe hold.
    async fn recipe(&mut self, chunks: &[ChunkId], visit: &mut Visit<'_>) -> Result<(), RepositoryError> {
        let mut partial: Vec<u8> = Vec::new();
        for chunk in chunks {
            let phase = partial.len();
            if let Some(edges) = self.recipes.get(&(*chunk, phase)) {
                partial.extend_from_slice(&edges.head);
                if let Ok(id) = <[u8; ChunkId::SIZE]>::try_from(&partial[..]) {
                    visit(&ChunkId::from_bytes(id))?;
                }
                partial.clone_from(&edges.tail);
                continue;
            }
            let bytes = self.reader.chunk(chunk).await?;
            let head = (ChunkId::SIZE - phase) % ChunkId::SIZE;
            let whole = bytes.len() >= head;
            partial.extend_from_slice(&bytes);
            let (ids, rest) = partial.as_chunks::<{ ChunkId::SIZE }>();
            ids.iter().try_for_each(|id| visit(&ChunkId::from_bytes(*id)))?;
            let tail = rest.to_vec();
            if whole {
                let head = bytes[..head].to_vec();
                self.recipes.insert((*chunk, phase), Edges { head, tail: tail.clone() });
            }
            partial = tail;
        }
        if partial.is_empty() { Ok(()) } else { Err(cut_id().into()) }
    }

    /// Visits the chunks of the files that a tree lists.
    async fn tree(&mut self, root: &ContentRoot, visit: &mut Visit<'_>) -> Result<(), RepositoryError> {
        let mut ids = ChunkIds::new(Arc::clone(&self.reader), root)?;
        let mut decoder = TreeDecoder::new();
        let damage = |error: &dyn std::error::Error| super::Damage {
            object: "a tree".to_owned(),
            layer: "tree",
            problem: super::with_causes(error),
        };
        while let Some(id) = ids.next().await? {
            let bytes = self.reader.chunk(&id).await?;
            for entry in decoder.push(&bytes).map_err(|error| damage(&error))? {
                if let EntryKind::File(content) = &entry.kind {
                    self.root(&content.root, visit).await?;
                }
            }
        }
        decoder.finish().map_err(|error| damage(&error).into())
    }
}

fn cut_id() -> super::Damage {
    let problem = "its length is not a multiple of an id".to_owned();
    super::Damage { object: "a recipe".to_owned(), layer: "recipe", problem }
}
