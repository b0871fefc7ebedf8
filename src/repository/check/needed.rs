//! Which packs hold what some snapshots need: who asks for these alone does not want the others read.
//!
//! Holds: too many rather than too few. Every pack that holds a chunk counts, whichever of them a restore would take.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::super::RepositoryError;
use super::super::cache::Cache;
use super::super::chunks::ChunkReader;
use super::super::reach::Reach;
use super::super::snapshots::Snapshot;
use super::Checker;
use crate::format::index::SegmentEntry;
use crate::id::{ChunkId, PackId};
use crate::limits::BASE_DEPTH_MAX;

impl Checker {
    /// Packs that hold something of `snapshots`; `None` if that cannot be told.
    pub(super) async fn needed(&self, snapshots: &[Snapshot]) -> Result<Option<HashSet<PackId>>, RepositoryError> {
        let (repository, executor) = (Arc::clone(&self.repository), Arc::clone(&self.executor));
        let mut reach = Reach::new(Arc::new(ChunkReader::cached(repository, executor)));
        let mut holders = Holders::new(self.repository.cache())?;
        for snapshot in snapshots {
            match reach.snapshot(&snapshot.manifest, &mut |id| holders.chunk(id, BASE_DEPTH_MAX)).await {
                Ok(()) => {}
                // Told when the streams are resolved. What cannot be read may have named any pack.
                Err(RepositoryError::Damaged(_) | RepositoryError::MissingChunk { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        holders.with_bases().map(Some)
    }
}

/// Gathers the packs that hold chunks.
struct Holders<'a> {
    cache: &'a Cache,
    packs: HashSet<PackId>,
    based: BTreeSet<PackId>,
    /// Segments with bases that were met, and the chunks of these bases.
    based_segments: HashSet<(PackId, u32)>,
    queue: Vec<(ChunkId, u32)>,
}

impl<'a> Holders<'a> {
    fn new(cache: &'a Cache) -> Result<Self, RepositoryError> {
        let based = cache.based_packs()?;
        Ok(Self { cache, packs: HashSet::new(), based, based_segments: HashSet::new(), queue: Vec::new() })
    }

    fn chunk(&mut self, id: &ChunkId, depth: u32) -> Result<(), RepositoryError> {
        for location in self.cache.find_all(id)?.into_iter().filter(|location| location.is_within(depth)) {
            self.packs.insert(location.pack);
            if self.based.contains(&location.pack) && self.based_segments.insert((location.pack, location.segment)) {
                let segment = self.cache.segment(&location.pack, location.segment)?;
                self.queue.extend(segment.iter().flat_map(SegmentEntry::bases));
            }
        }
        Ok(())
    }

    /// The packs, those of bases and of theirs included.
    fn with_bases(mut self) -> Result<HashSet<PackId>, RepositoryError> {
        while let Some((id, depth)) = self.queue.pop() {
            self.chunk(&id, depth)?;
        }
        Ok(self.packs)
    }
}
