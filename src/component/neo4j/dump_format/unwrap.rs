//! From a container to the data of its files, and the rest in frames.

use super::PREFIX_SIZE_MAX;
use super::decompress::Decompressor;
use super::error::{DumpFormatError, Layer};
use super::kind::{ContainerInfo, ContainerKind, RECOGNISE_SIZE, recognise};
use super::prefix::{self, Prefix, Stop};
use super::tar::TarWalk;
use crate::id::hex_of;

/// Takes what an [`Unwrapper`] finds, in the order of the tar: frame, cut, data, data, frame, cut, data, …, frame.
pub trait UnwrapSink {
    /// Bytes of a file's data: never empty, at most [`crate::limits::INPUT_BLOCK_SIZE_MAX`].
    fn data(&mut self, bytes: &[u8]);

    /// The data of a file begins here. Not called for files without data.
    fn cut(&mut self);

    /// Everything since the data before, and how much data comes next. The last frame has the end of the tar and zero;
    /// no other frame has zero.
    fn frame(&mut self, gap: &[u8], data_length: u64);
}

/// Unwraps a dump that is pushed through it.
///
/// After an error nothing more can be had from it: every later call is [`DumpFormatError::Spent`].
pub struct Unwrapper {
    /// Bytes of the stream that were pushed.
    at: u64,
    stage: Stage,
}

enum Stage {
    /// The first bytes, fewer than [`RECOGNISE_SIZE`].
    Magic(Vec<u8>),
    Open(Box<Open>),
    Spent,
}

struct Open {
    outer: Decompressor,
    inner: Contents,
}

impl Unwrapper {
    /// Before the first byte.
    pub fn new() -> Self {
        Self { at: 0, stage: Stage::Magic(Vec::new()) }
    }

    /// Takes the next bytes of the dump, as many as there are.
    ///
    /// # Errors
    /// As soon as the bytes cannot be the beginning of a dump. What the sink got until then is worth nothing.
    pub fn push(&mut self, input: &[u8], out: &mut dyn UnwrapSink) -> Result<(), DumpFormatError> {
        let result = self.take(input, out);
        if result.is_err() {
            self.stage = Stage::Spent;
        }
        result
    }

    /// Says that no more bytes come.
    ///
    /// # Errors
    /// Unless the dump is whole: compression, tar and counts.
    pub fn finish(self, out: &mut dyn UnwrapSink) -> Result<ContainerInfo, DumpFormatError> {
        match self.stage {
            Stage::Magic(magic) if magic.is_empty() => Err(DumpFormatError::Empty),
            Stage::Magic(_) => {
                Err(DumpFormatError::Truncated { inside: "its first four bytes", layer: Layer::Stream, at: self.at })
            }
            Stage::Open(open) => {
                open.outer.finish(self.at)?;
                open.inner.finish(out)
            }
            Stage::Spent => Err(DumpFormatError::Spent),
        }
    }

    fn take(&mut self, mut input: &[u8], out: &mut dyn UnwrapSink) -> Result<(), DumpFormatError> {
        if let Stage::Magic(magic) = &mut self.stage {
            let taken = input.len().min(RECOGNISE_SIZE - magic.len());
            magic.extend_from_slice(&input[..taken]);
            input = &input[taken..];
            self.at += taken as u64;
            if magic.len() < RECOGNISE_SIZE {
                return Ok(());
            }
            let magic = std::mem::take(magic);
            self.stage = Stage::Open(Box::new(Open::new(&magic, out)?));
        }
        match &mut self.stage {
            Stage::Open(open) => open.push(input, self.at, out)?,
            Stage::Magic(_) | Stage::Spent => return Err(DumpFormatError::Spent),
        }
        self.at += input.len() as u64;
        Ok(())
    }
}

impl Default for Unwrapper {
    fn default() -> Self {
        Self::new()
    }
}

impl Open {
    fn new(magic: &[u8], out: &mut dyn UnwrapSink) -> Result<Self, DumpFormatError> {
        let kind = recognise(magic).ok_or_else(|| DumpFormatError::Unknown { found: hex_of(magic) })?;
        let mut open = Self { outer: Decompressor::new(kind.compression())?, inner: Contents::new(kind) };
        if kind.magic().is_empty() {
            open.push(magic, 0, out)?;
        }
        Ok(open)
    }

    fn push(&mut self, input: &[u8], at: u64, out: &mut dyn UnwrapSink) -> Result<(), DumpFormatError> {
        // Called often enough with nothing, zstd would see a decoder that is stuck.
        if input.is_empty() {
            return Ok(());
        }
        let inner = &mut self.inner;
        self.outer.push(input, at, &mut |piece| inner.push(piece, out))
    }
}

/// The decompressed contents: a header, then the tar.
struct Contents {
    kind: ContainerKind,
    head: Vec<u8>,
    prefix: Option<Prefix>,
    tar: TarWalk,
}

impl Contents {
    fn new(kind: ContainerKind) -> Self {
        Self { kind, head: Vec::new(), prefix: None, tar: TarWalk::new() }
    }

    fn push(&mut self, mut input: &[u8], out: &mut dyn UnwrapSink) -> Result<(), DumpFormatError> {
        if self.prefix.is_none() {
            let before = self.head.len();
            self.head.extend(input.iter().take(PREFIX_SIZE_MAX - before));
            match prefix::parse(self.kind, &self.head) {
                Ok(prefix) => {
                    self.head.truncate(prefix.size);
                    input = &input[prefix.size - before..];
                    self.prefix = Some(prefix);
                }
                Err(Stop::More) if self.head.len() == PREFIX_SIZE_MAX => {
                    return Err(DumpFormatError::Header { what: "more than 65536 bytes", at: PREFIX_SIZE_MAX as u64 });
                }
                Err(Stop::More) => return Ok(()),
                Err(Stop::Wrong(what, at)) => return Err(DumpFormatError::Header { what, at }),
            }
        }
        self.tar.push(input, out)
    }

    fn finish(self, out: &mut dyn UnwrapSink) -> Result<ContainerInfo, DumpFormatError> {
        let Some(prefix) = self.prefix else {
            let at = self.head.len() as u64;
            return Err(DumpFormatError::Truncated { inside: "its header", layer: Layer::Header, at });
        };
        let totals = self.tar.finish(out)?;
        if let Some((files, bytes)) = prefix.counts {
            check_count("files", files, totals.files)?;
            check_count("bytes", bytes, totals.data_bytes)?;
        }
        Ok(ContainerInfo { kind: self.kind, prefix: self.head, files: totals.files, data_bytes: totals.data_bytes })
    }
}

fn check_count(what: &'static str, expected: u64, found: u64) -> Result<(), DumpFormatError> {
    if expected == 0 || expected == found { Ok(()) } else { Err(DumpFormatError::Count { what, expected, found }) }
}
