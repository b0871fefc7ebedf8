//! Which bytes of a stream are lost, though the length of what is lost may not be known.

use std::ops::Range;

/// Collects which bytes of a stream are lost, though the length of what is lost may not be known.
#[derive(Default)]
pub(super) struct Ranges {
    /// Before the first gap of unknown length.
    before: Vec<Range<u64>>,
    /// Where the first such gap begins.
    gap: Option<u64>,
    /// Behind the last such gap, counted from its end.
    behind: Vec<Range<u64>>,
    /// Bytes since the beginning, or since the last gap.
    at: u64,
}

impl Ranges {
    pub fn chunk(&mut self, length: u64, held: bool) {
        let range = self.at..self.at + length;
        self.at = range.end;
        if !held {
            let ranges = if self.gap.is_some() { &mut self.behind } else { &mut self.before };
            push_merged(ranges, range);
        }
    }

    pub fn gap(&mut self) {
        let at = self.at;
        self.gap.get_or_insert(at);
        self.behind.clear();
        self.at = 0;
    }

    /// The ranges, in a stream of `length` bytes. Between two gaps all counts as lost: where it belongs is not known.
    pub fn finish(self, length: u64) -> Vec<Range<u64>> {
        let mut ranges = self.before;
        match self.gap {
            Some(start) => {
                let end = length.saturating_sub(self.at).max(start);
                push_merged(&mut ranges, start..end);
                self.behind.into_iter().for_each(|range| {
                    push_merged(&mut ranges, range.start + end..range.end + end);
                });
            }
            None if self.at != length => push_merged(&mut ranges, self.at.min(length)..self.at.max(length)),
            None => {}
        }
        ranges
    }
}

fn push_merged(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_told_to_the_byte() {
        let mut ranges = Ranges::default();
        for (length, held) in [(10, true), (20, false), (5, false), (7, true)] {
            ranges.chunk(length, held);
        }
        assert_eq!(ranges.finish(42), vec![Range { start: 10, end: 35 }]);
    }

    #[test]
    fn the_length_of_one_gap_follows_from_the_rest() {
        let mut ranges = Ranges::default();
        ranges.chunk(10, true);
        ranges.gap();
        ranges.gap();
        ranges.chunk(4, true);
        ranges.chunk(6, false);
        ranges.chunk(8, true);
        assert_eq!(ranges.finish(100), [10..82, 86..92]);
    }

    #[test]
    fn a_stream_of_another_length_is_hurt_where_it_ends() {
        let mut ranges = Ranges::default();
        ranges.chunk(10, true);
        assert_eq!(ranges.finish(12), vec![Range { start: 10, end: 12 }]);
    }
}
