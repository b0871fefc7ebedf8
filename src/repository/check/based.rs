//! The second part of reading packs whole: segments that were compressed against others.
//!
//! Segments that share what they are based on follow each other, whatever packs they are in, so that each base is decoded about
//! once and not for each day that is based on it; and a segment that is itself a base is decoded and hashed once for both.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt as _, stream};

use super::super::chunks::ChunkReader;
use super::super::{Damage, RepositoryError};
use super::choice::Candidate;
use crate::format::envelope::ObjectType;
use crate::id::PackId;
use crate::limits::BASE_DEPTH_MAX;

/// Segments that are read and decoded at the same time.
const SEGMENTS_AHEAD: usize = 6;

/// A pack whose bytes were read and whose segments without a base are sound.
pub(super) struct Begun {
    pub candidate: Candidate,
    /// Bytes that were read.
    pub bytes: u64,
    /// Chunks that were hashed.
    pub chunks: u64,
    /// What is wrong with the others.
    pub damages: Vec<Damage>,
}

/// A segment that is left.
struct Left {
    /// The segment at the end of its chain of bases, and its depth: the order in which all are read.
    root: (PackId, u32),
    depth: u8,
    /// Its pack among those that are begun.
    begun: usize,
    kind: ObjectType,
    ordinal: u32,
    stored_length: u32,
}

/// Reads what is left of `packs`; tells `read` the bytes of each segment.
pub(super) async fn finish(
    reader: &Arc<ChunkReader>,
    packs: &mut [Begun],
    mut read: impl FnMut(u64),
) -> Result<(), RepositoryError> {
    let left = in_order(reader, packs)?;
    let ids: Vec<PackId> = packs.iter().map(|pack| pack.candidate.id).collect();
    let reads = stream::iter(left).map(|left| {
        let (reader, pack) = (Arc::clone(reader), ids[left.begun]);
        async move {
            let hashed = reader.check_segment(left.kind, pack, left.ordinal).await;
            (left, hashed)
        }
    });
    let mut reads = reads.buffered(SEGMENTS_AHEAD).boxed();
    while let Some((left, hashed)) = reads.next().await {
        read(left.stored_length.into());
        let pack = &mut packs[left.begun];
        match hashed {
            Ok(chunks) => pack.chunks += chunks,
            // Nobody keeps the base of a segment that no snapshot needs, and whether one does, the streams tell.
            Err(RepositoryError::MissingChunk { .. }) => {}
            Err(RepositoryError::Damaged(damage)) => pack.damages.push(damage),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn in_order(reader: &ChunkReader, packs: &[Begun]) -> Result<Vec<Left>, RepositoryError> {
    let (mut left, mut roots) = (Vec::new(), Roots { reader, known: HashMap::new() });
    for (begun, pack) in packs.iter().enumerate() {
        let id = pack.candidate.id;
        let Some(entry) = reader.repository().cache().pack(&id)? else { continue };
        for (ordinal, segment) in (0u32..).zip(&entry.segments).filter(|(_, segment)| !segment.base.is_empty()) {
            let root = roots.of((id, ordinal), BASE_DEPTH_MAX)?;
            let (kind, depth, stored_length) = (entry.kind, segment.depth, segment.stored_length);
            left.push(Left { root, depth, begun, kind, ordinal, stored_length });
        }
    }
    left.sort_by_key(|left| (left.root, left.depth));
    Ok(left)
}

/// Finds the segment at the end of a chain of bases, by the first chunk of each base.
struct Roots<'a> {
    reader: &'a ChunkReader,
    known: HashMap<(PackId, u32), (PackId, u32)>,
}

impl Roots<'_> {
    /// Where it ends too early, because a base is nowhere or deeper than it says, only the order is worse.
    fn of(&mut self, place: (PackId, u32), depth: u32) -> Result<(PackId, u32), RepositoryError> {
        if let Some(known) = self.known.get(&place) {
            return Ok(*known);
        }
        let below = match depth.checked_sub(1) {
            Some(below) => self.reader.first_base(&place.0, place.1)?.map(|place| (place, below)),
            None => None,
        };
        let root = match below {
            Some((base, depth)) => self.of(base, depth)?,
            None => place,
        };
        self.known.insert(place, root);
        Ok(root)
    }
}
