//! Sealed bytes on their way: neighbouring segments of a pack in one read, several reads at once.
//!
//! A store that is far away takes tens of milliseconds for any read, long or short. So what a stream needs next is fetched
//! in few long reads before it is asked for, and whoever loads a segment looks here first.
//!
//! Holds: bytes stay for as long as the stream that fetched them needs them, so that the memory is the stream's to bound.
//! Nobody waits here: what is not here, or did not arrive, is read again by whoever needs it, and judged then.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::chunks::ChunkReader;
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::id::PackId;

/// Longest read, in bytes, except for one segment that is longer: two or three segments.
pub const FETCH_SIZE_MAX: u64 = 3 << 20;

/// Reads under way or waiting to be used. With a round trip of 50 ms this and [`FETCH_SIZE_MAX`] give 240 MiB a second.
pub const FETCHES_AHEAD: usize = 4;

/// Bytes between two segments that are read and thrown away rather than asked around: less than a round trip costs.
const GAP_SIZE_MAX: u64 = 64 << 10;

/// A part of a pack that holds segments that are needed soon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Kind of the pack.
    pub kind: ObjectType,
    /// The pack.
    pub pack: PackId,
    /// The segments, in order.
    pub segments: Vec<u32>,
    /// From the first byte of the first segment to the last byte of the last.
    pub range: Range<u64>,
}

impl Stretch {
    /// Makes `other` part of this one if both are read better at once.
    pub fn take_in(&mut self, other: &Self) -> bool {
        if (self.kind, self.pack) != (other.kind, other.pack) {
            return false;
        }
        if self.segments.last() == other.segments.first() {
            return true;
        }
        let near = other.range.start.checked_sub(self.range.end).is_some_and(|gap| gap <= GAP_SIZE_MAX);
        if !near || other.range.end - self.range.start > FETCH_SIZE_MAX {
            return false;
        }
        self.segments.extend(&other.segments);
        self.range.end = other.range.end;
        true
    }
}

/// The bytes of a stretch, once they arrived; `None` if they did not.
#[derive(Debug)]
pub struct Fetched {
    stretch: Stretch,
    bytes: OnceCell<Option<Bytes>>,
}

/// What is there, by segment.
#[derive(Debug, Default)]
pub struct Ahead(Mutex<HashMap<(PackId, u32), Weak<Fetched>>>);

impl Ahead {
    /// The bytes in `range` of a pack, if the segment was fetched and is still needed by the stream that fetched it.
    pub fn get(&self, pack: PackId, segment: u32, range: &Range<u64>) -> Option<Bytes> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fetched = known.get(&(pack, segment))?.upgrade()?;
        let bytes = fetched.bytes.get()?.as_ref()?;
        let inside = |at: u64| usize::try_from(at.checked_sub(fetched.stretch.range.start)?).ok();
        let (start, end) = (inside(range.start)?, inside(range.end)?);
        (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
    }

    /// What fetches a stretch: what is under way or there already, if that has all its segments, so that a stream that goes to and
    /// fro between segments reads each once.
    fn claim(&self, stretch: Stretch) -> Arc<Fetched> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = stretch.segments.first().and_then(|segment| known.get(&(stretch.pack, *segment))?.upgrade());
        if let Some(fetched) = first
            && stretch.segments.iter().all(|segment| fetched.stretch.segments.contains(segment))
        {
            return fetched;
        }
        let fetched = Arc::new(Fetched { stretch, bytes: OnceCell::new() });
        let Stretch { pack, segments, .. } = &fetched.stretch;
        known.retain(|_, held| held.strong_count() > 0);
        known.extend(segments.iter().map(|segment| ((*pack, *segment), Arc::downgrade(&fetched))));
        fetched
    }
}

impl ChunkReader {
    /// Fetches a stretch, and what opens its pack. `None` if all of it is decoded. If it cannot be read, whoever needs it learns why.
    pub(super) async fn fetch(&self, stretch: Stretch) -> Option<Arc<Fetched>> {
        if stretch.segments.iter().all(|segment| self.is_decoded(&stretch.pack, *segment)) {
            return None;
        }
        let (kind, pack) = (stretch.kind, stretch.pack);
        let fetched = self.ahead().claim(stretch);
        let arriving = fetched.bytes.get_or_init(|| async {
            let range = fetched.stretch.range.clone();
            self.repository().store().get_range(&layout::object(kind, &pack), range).await.ok()
        });
        let _ = futures::future::join(self.opener(kind, pack), arriving).await;
        Some(fetched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(pack: u8, segment: u32, range: Range<u64>) -> Stretch {
        let pack = PackId::from_bytes([pack; 32]);
        Stretch { kind: ObjectType::ContentPack, pack, segments: vec![segment], range }
    }

    #[test]
    fn neighbours_of_one_pack_are_read_at_once() {
        let mut first = stretch(1, 0, 100..1000);
        assert!(first.take_in(&stretch(1, 1, 1000..2000)));
        assert!(first.take_in(&stretch(1, 1, 1000..2000)), "the same segment again");
        assert!(first.take_in(&stretch(1, 3, 3000..4000)), "a small gap");
        assert_eq!((first.segments, first.range), (vec![0, 1, 3], 100..4000));
    }

    #[test]
    fn what_is_far_or_behind_or_elsewhere_or_too_much_is_read_by_itself() {
        let mut first = stretch(1, 5, 1000..2000);
        let far = 2000 + GAP_SIZE_MAX + 1;
        let others = [
            stretch(2, 6, 2000..3000),
            stretch(1, 4, 0..1000),
            stretch(1, 9, far..far + 1),
            stretch(1, 6, 2000..1001 + FETCH_SIZE_MAX),
        ];
        assert!(others.iter().all(|other| !first.take_in(other)));
        assert_eq!(first, stretch(1, 5, 1000..2000));
    }

    #[test]
    fn bytes_are_there_for_as_long_as_somebody_holds_them() {
        let ahead = Ahead::default();
        let stretch = stretch(1, 0, 10..14);
        let fetched = ahead.claim(stretch.clone());
        assert_eq!(ahead.get(stretch.pack, 0, &(11..13)), None, "under way");
        fetched.bytes.set(Some(Bytes::from_static(b"abcd"))).expect("nobody else fetches");
        assert_eq!(ahead.get(stretch.pack, 0, &(11..13)).as_deref(), Some(&b"bc"[..]));
        for outside in [9..12, 12..15] {
            assert_eq!(ahead.get(stretch.pack, 0, &outside), None);
        }
        assert_eq!(ahead.get(stretch.pack, 1, &(11..13)), None);
        drop(fetched);
        assert_eq!(ahead.get(stretch.pack, 0, &(11..13)), None);
    }

    #[test]
    fn what_is_under_way_is_not_fetched_again_unless_more_is_wanted() {
        let ahead = Ahead::default();
        let mut both = stretch(1, 0, 0..10);
        assert!(both.take_in(&stretch(1, 1, 10..20)));
        let fetched = ahead.claim(both.clone());
        for again in [stretch(1, 0, 0..10), stretch(1, 1, 10..20), both.clone()] {
            assert!(Arc::ptr_eq(&ahead.claim(again), &fetched));
        }
        assert!(both.take_in(&stretch(1, 2, 20..30)));
        let more = ahead.claim(both);
        assert!(!Arc::ptr_eq(&more, &fetched));
        assert!(Arc::ptr_eq(&ahead.claim(stretch(1, 0, 0..10)), &more), "the newer one has it as well");
    }
}
