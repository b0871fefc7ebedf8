//! The stream in which the frames of an unwrapped dump are kept.
//!
//! A frame is `u32` length of the gap, the gap, `u64` length of the data that follows it in the tar; little-endian. The
//! last frame, and only it, is followed by no data.

use super::GAP_SIZE_MAX;
use super::error::DumpFormatError;

const GAP_LENGTH_SIZE: usize = 4;
const DATA_LENGTH_SIZE: usize = 8;

/// What stands before a file's data in the tar, and how long that data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Everything since the data before.
    pub gap: Vec<u8>,
    /// Length of the data that comes next, in bytes; zero at the end of the tar.
    pub data_length: u64,
}

/// Appends a frame to `out`.
///
/// # Panics
/// If `gap` is longer than [`GAP_SIZE_MAX`], which no gap of an [`Unwrapper`](super::Unwrapper) is.
pub fn encode_frame(gap: &[u8], data_length: u64, out: &mut Vec<u8>) {
    assert!(gap.len() <= GAP_SIZE_MAX, "an unwrapper gives no longer gap");
    let gap_length = u32::try_from(gap.len()).expect("the limit of a gap is below 4 GiB");
    out.extend_from_slice(&gap_length.to_le_bytes());
    out.extend_from_slice(gap);
    out.extend_from_slice(&data_length.to_le_bytes());
}

/// Reads the frames of a stream that is pushed through it.
///
/// After an error nothing more can be had from it: every later call is [`DumpFormatError::Spent`].
#[derive(Debug, Default)]
pub struct FrameDecoder {
    /// Bytes that were pushed.
    at: u64,
    /// The frame being read, without whole frames before it.
    buffer: Vec<u8>,
    /// Whether the last frame was read.
    ended: bool,
    spent: bool,
}

impl FrameDecoder {
    /// Before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and appends the frames that end in them to `out`.
    ///
    /// # Errors
    /// If a gap is too long, or if bytes follow the last frame.
    pub fn push(&mut self, mut input: &[u8], out: &mut Vec<Frame>) -> Result<(), DumpFormatError> {
        if self.spent {
            return Err(DumpFormatError::Spent);
        }
        while !input.is_empty() {
            let missing = self.missing().inspect_err(|_| self.spent = true)?;
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.buffer.extend_from_slice(taken);
            self.at += taken.len() as u64;
            input = rest;
            if let Some(frame) = self.whole() {
                self.ended = frame.data_length == 0;
                self.buffer.clear();
                out.push(frame);
            }
        }
        Ok(())
    }

    /// Says that no more bytes come.
    ///
    /// # Errors
    /// Unless the last frame was read.
    pub fn finish(self) -> Result<(), DumpFormatError> {
        if self.spent {
            return Err(DumpFormatError::Spent);
        }
        if self.ended {
            return Ok(());
        }
        let inside = if self.buffer.is_empty() { "their list" } else { "a frame" };
        Err(DumpFormatError::FramesTruncated { inside, at: self.at })
    }

    /// How many bytes are needed for the next step: the length of the gap, then the rest of the frame.
    fn missing(&self) -> Result<usize, DumpFormatError> {
        if self.ended {
            return Err(DumpFormatError::FramesTrailing { at: self.at });
        }
        let Some(length) = self.gap_length() else {
            return Ok(GAP_LENGTH_SIZE - self.buffer.len());
        };
        if length > GAP_SIZE_MAX {
            let at = self.at - GAP_LENGTH_SIZE as u64;
            return Err(DumpFormatError::FrameTooLarge { found: length as u64, max: GAP_SIZE_MAX, at });
        }
        Ok(GAP_LENGTH_SIZE + length + DATA_LENGTH_SIZE - self.buffer.len())
    }

    fn gap_length(&self) -> Option<usize> {
        let length = u32::from_le_bytes(*self.buffer.first_chunk()?);
        Some(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn whole(&self) -> Option<Frame> {
        let length = self.gap_length().filter(|length| *length <= GAP_SIZE_MAX)?;
        let (gap, data_length) = self.buffer[GAP_LENGTH_SIZE..].split_at_checked(length)?;
        Some(Frame { gap: gap.to_vec(), data_length: u64::from_le_bytes(data_length.try_into().ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_frame(b"header", 7, &mut bytes);
        encode_frame(b"", 1 << 40, &mut bytes);
        encode_frame(&[0; 1024], 0, &mut bytes);
        bytes
    }

    #[test]
    fn frames_come_back_from_single_bytes() {
        let (mut decoder, mut frames) = (FrameDecoder::new(), Vec::new());
        for byte in stream() {
            decoder.push(&[byte], &mut frames).unwrap();
        }
        decoder.finish().unwrap();
        let lengths: Vec<_> = frames.iter().map(|frame| (frame.gap.len(), frame.data_length)).collect();
        assert_eq!(lengths, [(6, 7), (0, 1 << 40), (1024, 0)]);
    }

    #[test]
    fn headers_cut_off_anywhere_are_refused() {
        let bytes = stream();
        for end in 0..bytes.len() {
            let mut decoder = FrameDecoder::new();
            decoder.push(&bytes[..end], &mut Vec::new()).unwrap();
            assert!(matches!(decoder.finish(), Err(DumpFormatError::FramesTruncated { at, .. }) if at == end as u64));
        }
    }

    #[test]
    fn a_byte_behind_the_last_frame_is_refused_for_good() {
        let mut decoder = FrameDecoder::new();
        decoder.push(&stream(), &mut Vec::new()).unwrap();
        assert!(matches!(decoder.push(&[0], &mut Vec::new()), Err(DumpFormatError::FramesTrailing { .. })));
        assert!(matches!(decoder.finish(), Err(DumpFormatError::Spent)));
    }

    #[test]
    fn a_gap_of_four_gigabytes_is_refused_before_it_is_awaited() {
        let mut decoder = FrameDecoder::new();
        let result = decoder.push(&[255, 255, 255, 255, 0], &mut Vec::new());
        assert!(matches!(result, Err(DumpFormatError::FrameTooLarge { at: 0, .. })));
    }
}
