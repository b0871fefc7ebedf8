//! The streams of earlier snapshots that a new stream takes the place of: which of them its chunks are compressed against.
//!
//! A base from yesterday differs least, but each step of a chain must be decoded. So a chunk is based on the youngest of some
//! earlier streams whose chunk at its place is not too deep yet. With streams 1, 2, 4, 8 and 16 snapshots back that makes a binary
//! tree by itself: half of the days are one day away from their base, a quarter two, an eighth four, and no chain gets longer
//! than [`super::parent::CHAIN_MAX`]. Decision 16.
//!
//! Does not: read content.

use std::ops::Range;

use super::parent::{BaseChunk, Parent};
use crate::id::ChunkId;

/// How many snapshots back the streams are that a stream looks for bases in; beyond the last, the oldest.
pub const DISTANCES: [usize; 5] = [1, 2, 4, 8, 16];

/// Earlier streams, the youngest first.
#[derive(Debug, Default)]
pub struct Lineage(Vec<Parent>);

impl Lineage {
    /// In the order of age, the youngest first.
    pub fn new(parents: Vec<Parent>) -> Self {
        Self(parents)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes them known as far as a stream needs it that will go on to `offset`.
    pub async fn read_to(&mut self, offset: u64) {
        for parent in &mut self.0 {
            parent.read_to(offset).await;
        }
    }

    /// Where in the youngest something is expected that is at `offset` in the new stream.
    pub fn expected(&self, offset: u64) -> u64 {
        self.0.first().map_or(0, |parent| parent.expected(offset))
    }

    /// Whether a chunk that begins at `offset` in the new stream is one of theirs: then it need not be stored.
    pub fn shares(&mut self, id: &ChunkId, offset: u64, length: u64) -> bool {
        // All are asked: each learns where it is.
        let mut shared = false;
        for parent in &mut self.0 {
            shared |= parent.shares(id, offset, length);
        }
        shared
    }

    /// Where in the youngest a chunk is, if it is one of its: what is new ends there.
    pub fn find(&self, id: &ChunkId, length: u64) -> Option<u64> {
        self.0.first()?.find(id, length)
    }

    /// The chunks that are the base of `piece` of the new stream, a chunk of a run of new ones; none if nothing was at its place,
    /// or all of it is too deep.
    pub fn near(&mut self, piece: &Range<u64>, run: &Run) -> Vec<BaseChunk> {
        self.0.iter_mut().for_each(|parent| parent.align(piece.start, piece.end - piece.start));
        let Some(youngest) = self.0.first() else { return vec![] };
        let parts = run.parts(piece, &(youngest.expected(piece.start)..youngest.expected(piece.end)));
        if parts.iter().all(Range::is_empty) {
            return vec![];
        }
        let (mut base, mut whole) = (Vec::new(), true);
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let (near, all) = youngest.near(part);
            base.extend(near);
            whole &= all;
        }
        for elder in &self.0[1..] {
            if whole {
                return base;
            }
            let mut places = elder.places(youngest, &parts);
            if places.is_empty() {
                places.push(elder.expected(piece.start)..elder.expected(piece.end));
            }
            whole = true;
            for place in &places {
                let (near, all) = elder.near(place);
                base.extend(near);
                whole &= all;
            }
        }
        if !whole {
            base.extend(self.0[0].behind_near(&parts[0]));
        }
        base
    }
}

/// A run of new chunks, and what is behind it.
#[derive(Debug)]
pub struct Run {
    /// Where it begins in the youngest of the earlier streams.
    pub from: u64,
    /// Where it ends in the new stream.
    pub end: u64,
    /// Where the shared chunk behind it is in the youngest; `None` if none was met yet.
    pub next: Option<u64>,
}

impl Run {
    /// What a piece of the run takes the place of, as the shared chunks before the run (`forth`) and behind it say. Both parts
    /// are empty where something was put in between.
    fn parts(&self, piece: &Range<u64>, forth: &Range<u64>) -> [Range<u64>; 2] {
        let Some(next) = self.next else { return [forth.clone(), 0..0] };
        let back = |at: u64| next.saturating_sub(self.end - at).max(self.from.min(next));
        [forth.start.min(next)..forth.end.min(next), back(piece.start)..back(piece.end)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run at 1000 to 1300 of the new stream; what it replaces begins at 900 of the earlier one.
    fn run(next: Option<u64>) -> Run {
        Run { from: 900, end: 1300, next }
    }

    #[test]
    fn a_piece_takes_the_place_that_both_ends_of_its_run_agree_on() {
        assert_eq!(run(Some(1200)).parts(&(1100..1200), &(1000..1100)), [1000..1100, 1000..1100]);
    }

    #[test]
    fn a_piece_behind_something_that_was_inserted_is_found_from_the_end() {
        assert_eq!(run(Some(950)).parts(&(1250..1300), &(1150..1200)), [950..950, 900..950]);
    }

    #[test]
    fn what_was_put_in_between_takes_no_place() {
        let parts = run(Some(900)).parts(&(1100..1200), &(1000..1100));
        assert!(parts.iter().all(Range::is_empty), "{parts:?}");
    }

    #[test]
    fn where_no_end_is_known_the_beginning_counts() {
        assert_eq!(run(None).parts(&(1100..1200), &(1000..1100)), [1000..1100, 0..0]);
    }
}
