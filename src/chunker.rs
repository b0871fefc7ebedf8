//! Content-defined cutting: bytes in, chunk lengths out.
//!
//! FastCDC (2020) from the `fastcdc` crate, with the repository's seed XORed into its gear table. That table is public,
//! so call the cutting seeded and claim no secrecy. Holds: the lengths add up to what was pushed, wherever the pushes
//! were split; a border (member of a tar, table of a dump) always ends a chunk.

use std::borrow::Cow;

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};

/// Sizes of one profile, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutSizes {
    /// Shortest chunk, except at a border.
    pub min: usize,
    /// Target of the cut masks.
    pub avg: usize,
    /// Longest chunk.
    pub max: usize,
    /// Normalisation level, 0 to 3.
    pub level: u8,
}

/// Cuts streams of one profile.
#[derive(Debug, Clone)]
pub struct Chunker {
    sizes: CutSizes,
    gear: Cow<'static, [u64]>,
    gear_shifted: Cow<'static, [u64]>,
    mask_strict: u64,
    mask_relaxed: u64,
}

impl Chunker {
    /// A chunker for these sizes and this seed.
    pub fn new(sizes: CutSizes, seed: u64) -> Self {
        let level = match sizes.level {
            0 => Normalization::Level0,
            1 => Normalization::Level1,
            2 => Normalization::Level2,
            _ => Normalization::Level3,
        };
        let (mask_strict, mask_relaxed) = select_masks(sizes.avg, level);
        let (gear, gear_shifted) = get_gear_with_seed(seed);
        Self { sizes, gear, gear_shifted, mask_strict, mask_relaxed }
    }

    /// Longest chunk, in bytes: with so many bytes at hand the next cut is certain.
    pub fn size_max(&self) -> usize {
        self.sizes.max
    }

    /// Length of the first chunk of `bytes`, which must reach to a border or hold at least [`Chunker::size_max`] bytes.
    pub fn next_length(&self, bytes: &[u8]) -> usize {
        let (_, length) = cut_gear(
            bytes,
            self.sizes.min,
            self.sizes.avg,
            self.sizes.max,
            self.mask_strict,
            self.mask_relaxed,
            self.mask_strict << 1,
            self.mask_relaxed << 1,
            &self.gear,
            &self.gear_shifted,
        );
        length
    }

    /// Lengths of the chunks of `bytes` that are certain; with `to_end` the rest is cut, too, as before a border.
    pub fn lengths(&self, bytes: &[u8], to_end: bool) -> Vec<usize> {
        let mut lengths = Vec::new();
        let mut rest = bytes;
        while rest.len() >= self.sizes.max || (to_end && !rest.is_empty()) {
            let length = self.next_length(rest);
            lengths.push(length);
            rest = &rest[length..];
        }
        lengths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZES: CutSizes = CutSizes { min: 64, avg: 256, max: 1024, level: 1 };

    fn cut_in_pieces(bytes: &[u8], piece: usize) -> Vec<usize> {
        let chunker = Chunker::new(SIZES, 7);
        let (mut buffer, mut lengths) = (Vec::new(), Vec::new());
        for part in bytes.chunks(piece) {
            buffer.extend_from_slice(part);
            let cut = chunker.lengths(&buffer, false);
            buffer.drain(..cut.iter().sum::<usize>());
            lengths.extend(cut);
        }
        lengths.extend(chunker.lengths(&buffer, true));
        lengths
    }

    proptest! {
        #[test]
        fn cuts_do_not_depend_on_how_the_input_was_split(bytes in proptest::collection::vec(any::<u8>(), 0..20_000), piece in 1usize..5000) {
            let whole = Chunker::new(SIZES, 7).lengths(&bytes, true);
            prop_assert_eq!(whole.iter().sum::<usize>(), bytes.len());
            prop_assert_eq!(cut_in_pieces(&bytes, piece), whole);
        }
    }

    #[test]
    fn an_insert_changes_only_chunks_around_it() {
        let bytes: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut changed = bytes.clone();
        changed.splice(100_000..100_000, [1, 2, 3]);
        let chunker = Chunker::new(SIZES, 7);
        let ends = |bytes: &[u8]| {
            let lengths = chunker.lengths(bytes, true);
            lengths
                .iter()
                .scan(0, |at, n| {
                    *at += n;
                    Some(bytes.len() - *at)
                })
                .collect::<std::collections::BTreeSet<_>>()
        };
        let (before, after) = (ends(&bytes), ends(&changed));
        assert!(after.difference(&before).filter(|from_end| **from_end < 90_000).count() == 0);
    }
}
