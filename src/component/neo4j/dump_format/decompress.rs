//! Decompression of a container, piece by piece. One zstd frame or one gzip member, whole, checked, and nothing behind it.

use std::io;

use flate2::{Crc, Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder, Operation};

use super::error::{DumpFormatError, Layer};
use super::kind::Compression;
use super::{PIECE_SIZE, ZSTD_WINDOW_LOG_MAX};

/// Takes a decompressed piece.
pub(super) type Emit<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), DumpFormatError>;

/// The decompressor of one container.
pub(super) enum Decompressor {
    None,
    Zstd(Box<Zstd>),
    Gzip(Box<Gzip>),
}

impl Decompressor {
    pub fn new(compression: Compression) -> Result<Self, DumpFormatError> {
        Ok(match compression {
            Compression::None => Self::None,
            Compression::Zstd => Self::Zstd(Box::new(Zstd::new()?)),
            Compression::Gzip => Self::Gzip(Box::new(Gzip::new())),
        })
    }

    /// Decompresses `input`, whose first byte is byte `at` of the stream.
    pub fn push(&mut self, input: &[u8], at: u64, emit: Emit) -> Result<(), DumpFormatError> {
        match self {
            Self::None => input.chunks(PIECE_SIZE).try_for_each(emit),
            Self::Zstd(zstd) => zstd.push(input, at, emit),
            Self::Gzip(gzip) => gzip.push(input, at, emit),
        }
    }

    /// Whether the stream, `at` bytes long, may end here.
    pub fn finish(&self, at: u64) -> Result<(), DumpFormatError> {
        let inside = match self {
            Self::None => return Ok(()),
            Self::Zstd(zstd) if zstd.ended => return Ok(()),
            Self::Zstd(_) => "the zstd frame",
            Self::Gzip(gzip) if matches!(gzip.state, GzipState::Ended) => return Ok(()),
            Self::Gzip(_) => "the gzip member",
        };
        Err(DumpFormatError::Truncated { inside, layer: Layer::Stream, at })
    }
}

/// The first bytes of a zstd frame that are looked at here: its magic and its descriptor.
const ZSTD_HEAD_SIZE: usize = 5;
/// The bit of the descriptor that says that a checksum of the contents follows (RFC 8878, 3.1.1.1.1).
const ZSTD_CHECKSUM_FLAG: u8 = 1 << 2;

pub(super) struct Zstd {
    decoder: Decoder<'static>,
    head: Vec<u8>,
    piece: Vec<u8>,
    ended: bool,
}

impl Zstd {
    fn new() -> Result<Self, DumpFormatError> {
        let new = || {
            let mut decoder = Decoder::new()?;
            decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
            Ok(decoder)
        };
        let decoder = new().map_err(|source| DumpFormatError::Compression { at: 0, source })?;
        Ok(Self { decoder, head: Vec::new(), piece: vec![0; PIECE_SIZE], ended: false })
    }

    fn push(&mut self, mut input: &[u8], mut at: u64, emit: Emit) -> Result<(), DumpFormatError> {
        self.look_at_head(input, at)?;
        while !self.ended {
            let damaged = |source| DumpFormatError::Compression { at: at + input.len() as u64, source };
            let done = self.decoder.run_on_buffers(input, &mut self.piece).map_err(damaged)?;
            input = &input[done.bytes_read..];
            at += done.bytes_read as u64;
            self.ended = done.remaining == 0;
            if done.bytes_written > 0 {
                emit(&self.piece[..done.bytes_written])?;
            }
            if input.is_empty() && done.bytes_written < self.piece.len() {
                return Ok(());
            }
        }
        if input.is_empty() { Ok(()) } else { Err(DumpFormatError::Trailing { layer: Layer::Stream, at }) }
    }

    /// Refuses what the decoder would take: skippable frames, frames of old versions, and frames without a checksum.
    fn look_at_head(&mut self, input: &[u8], at: u64) -> Result<(), DumpFormatError> {
        if self.head.len() == ZSTD_HEAD_SIZE {
            return Ok(());
        }
        let start = at - self.head.len() as u64;
        let wrong = |what| Err(DumpFormatError::CompressionHeader { what, at: start });
        self.head.extend(input.iter().take(ZSTD_HEAD_SIZE - self.head.len()));
        let magic = [0x28, 0xb5, 0x2f, 0xfd];
        if !self.head.iter().zip(magic).all(|(found, expected)| *found == expected) {
            return wrong("bytes that are no zstd frame");
        }
        match self.head.get(4) {
            Some(descriptor) if descriptor & ZSTD_CHECKSUM_FLAG == 0 => wrong("a zstd frame without a checksum"),
            Some(_) | None => Ok(()),
        }
    }
}

/// Longest header of a gzip member, in bytes. Java writes 10.
const GZIP_HEADER_SIZE_MAX: usize = 64 << 10;
/// CRC-32 and length of the contents.
const GZIP_TRAILER_SIZE: usize = 8;

enum GzipState {
    Header(Vec<u8>),
    Body,
    Trailer(Vec<u8>),
    Ended,
}

pub(super) struct Gzip {
    state: GzipState,
    inflate: Decompress,
    crc: Crc,
    piece: Vec<u8>,
}

impl Gzip {
    fn new() -> Self {
        Self {
            state: GzipState::Header(Vec::new()),
            inflate: Decompress::new(false),
            crc: Crc::new(),
            piece: vec![0; PIECE_SIZE],
        }
    }

    fn push(&mut self, mut input: &[u8], mut at: u64, emit: Emit) -> Result<(), DumpFormatError> {
        while !input.is_empty() {
            let taken = match &mut self.state {
                GzipState::Header(head) => {
                    let (taken, whole) = take_header(head, input, at)?;
                    if whole {
                        self.state = GzipState::Body;
                    }
                    taken
                }
                GzipState::Body => self.inflate(input, at, emit)?,
                GzipState::Trailer(trailer) => {
                    let taken = input.len().min(GZIP_TRAILER_SIZE - trailer.len());
                    trailer.extend_from_slice(&input[..taken]);
                    if trailer.len() == GZIP_TRAILER_SIZE {
                        check_trailer(trailer, &self.crc, at + taken as u64)?;
                        self.state = GzipState::Ended;
                    }
                    taken
                }
                GzipState::Ended => {
                    return Err(DumpFormatError::Trailing { layer: Layer::Stream, at });
                }
            };
            input = &input[taken..];
            at += taken as u64;
        }
        Ok(())
    }

    /// Inflates until `input` is used up or the body ends; gives how much was taken.
    fn inflate(&mut self, input: &[u8], at: u64, emit: Emit) -> Result<usize, DumpFormatError> {
        let mut taken = 0;
        loop {
            let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(&input[taken..], &mut self.piece, FlushDecompress::None);
            let damaged = |error: flate2::DecompressError| damaged_gzip(at + input.len() as u64, error.into());
            let status = status.map_err(damaged)?;
            taken += usize_of(self.inflate.total_in() - in_before);
            let written = usize_of(self.inflate.total_out() - out_before);
            if written > 0 {
                self.crc.update(&self.piece[..written]);
                emit(&self.piece[..written])?;
            }
            if matches!(status, Status::StreamEnd) {
                self.state = GzipState::Trailer(Vec::new());
                return Ok(taken);
            }
            if taken == input.len() && written < self.piece.len() {
                return Ok(taken);
            }
            if written == 0 && self.inflate.total_in() == in_before {
                return Err(damaged_gzip(at + taken as u64, io::Error::other("the decompressor makes no progress")));
            }
        }
    }
}

fn usize_of(count: u64) -> usize {
    usize::try_from(count).expect("one step takes and gives no more than its buffers hold")
}

fn damaged_gzip(at: u64, source: io::Error) -> DumpFormatError {
    DumpFormatError::Compression { at, source }
}

/// Adds `input` to the header; gives how much of it belongs to the header and whether that is whole now.
fn take_header(head: &mut Vec<u8>, input: &[u8], at: u64) -> Result<(usize, bool), DumpFormatError> {
    let before = head.len();
    let start = at - before as u64;
    head.extend(input.iter().take(GZIP_HEADER_SIZE_MAX - before));
    match gzip_header_size(head) {
        Ok(Some(size)) => Ok((size - before, true)),
        Ok(None) if head.len() == GZIP_HEADER_SIZE_MAX => {
            Err(DumpFormatError::CompressionHeader { what: "a gzip header that does not end", at: start })
        }
        Ok(None) => Ok((head.len() - before, false)),
        Err(what) => Err(DumpFormatError::CompressionHeader { what, at: start }),
    }
}

/// Length of the gzip header at the start of `head` (RFC 1952, 2.3), `None` while it is not whole.
fn gzip_header_size(head: &[u8]) -> Result<Option<usize>, &'static str> {
    if !head.iter().zip([0x1f, 0x8b, 8]).all(|(found, expected)| *found == expected) {
        return Err("bytes that are no gzip member");
    }
    let Some(fixed) = head.first_chunk::<10>() else {
        return Ok(None);
    };
    let flags = fixed[3];
    if flags & 0xe0 != 0 {
        return Err("a gzip header with unknown flags");
    }
    let mut size = 10;
    if flags & 4 != 0 {
        let Some(extra) = head[size..].first_chunk::<2>() else {
            return Ok(None);
        };
        size += 2 + usize::from(u16::from_le_bytes(*extra));
    }
    for _ in 0..(flags >> 3 & 1) + (flags >> 4 & 1) {
        let Some(text) = head.get(size..).and_then(|rest| rest.iter().position(|byte| *byte == 0)) else {
            return Ok(None);
        };
        size += text + 1;
    }
    size += usize::from(flags & 2);
    Ok((head.len() >= size).then_some(size))
}

fn check_trailer(trailer: &[u8], crc: &Crc, at: u64) -> Result<(), DumpFormatError> {
    let expected = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat();
    if trailer == expected {
        return Ok(());
    }
    let source = io::Error::new(io::ErrorKind::InvalidData, "checksum or length differ from the contents");
    Err(DumpFormatError::Compression { at, source })
}
