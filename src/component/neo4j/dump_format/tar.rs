//! Walks a tar as it comes by, and parts the data of its members from everything else.

use super::GAP_SIZE_MAX;
use super::error::{DumpFormatError, Layer};
use super::unwrap::UnwrapSink;
use crate::tar_header::{BLOCK_SIZE, Entry, padding, pax_size, read};

/// What a whole tar held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    /// Regular files.
    pub files: u64,
    /// Sum of their sizes, in bytes.
    pub data_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// A header block, or the first of the two zero blocks.
    Header,
    /// The body of a pax or long-name entry and its padding: bytes still to come, and the body's place in the gap.
    Body { entry: Entry, left: u64, start: usize, size: usize },
    /// Data of a member still to come, and the padding behind it.
    Data { left: u64, padding: u64 },
    /// Padding still to come.
    Padding { left: u64 },
    /// The second zero block.
    LastBlock,
    /// Behind both zero blocks: only zeros may follow.
    End,
}

/// The walk. The block being read stands at the end of the gap.
pub(super) struct TarWalk {
    state: State,
    gap: Vec<u8>,
    block_start: usize,
    at: u64,
    global_size: Option<u64>,
    next_size: Option<u64>,
    /// Whether an entry was seen that describes a member which did not come yet.
    described: bool,
    totals: Totals,
}

impl TarWalk {
    pub fn new() -> Self {
        Self {
            state: State::Header,
            gap: Vec::new(),
            block_start: 0,
            at: 0,
            global_size: None,
            next_size: None,
            described: false,
            totals: Totals { files: 0, data_bytes: 0 },
        }
    }

    pub fn push(&mut self, mut input: &[u8], out: &mut dyn UnwrapSink) -> Result<(), DumpFormatError> {
        while !input.is_empty() {
            match self.state {
                State::Header => {
                    if self.block(&mut input)? {
                        self.header(out)?;
                    }
                }
                State::Body { entry, left, start, size } => {
                    let left = left - self.keep(&mut input, left)?;
                    self.state = State::Body { entry, left, start, size };
                    if left == 0 {
                        self.body(entry, start, size)?;
                    }
                }
                State::Data { left, padding } => {
                    let left = left - self.data(&mut input, left, out);
                    self.state = match left {
                        0 => self.padding(padding),
                        left => State::Data { left, padding },
                    };
                }
                State::Padding { left } => {
                    let left = left - self.keep(&mut input, left)?;
                    self.state = self.padding(left);
                }
                State::LastBlock => {
                    if self.block(&mut input)? {
                        self.last_block()?;
                    }
                }
                State::End => self.end(&mut input)?,
            }
        }
        Ok(())
    }

    pub fn finish(self, out: &mut dyn UnwrapSink) -> Result<Totals, DumpFormatError> {
        let inside = match self.state {
            State::Header if self.gap.len() == self.block_start => "its list of files",
            State::Header => "a header of the tar",
            State::Body { .. } => "an extended header of the tar",
            State::Data { .. } => "the data of a file",
            State::Padding { .. } => "the padding behind a file",
            State::LastBlock => "the end mark of the tar",
            State::End if padding(self.at) != 0 => "the last block of the tar",
            State::End => {
                out.frame(&self.gap, 0);
                return Ok(self.totals);
            }
        };
        Err(DumpFormatError::Truncated { inside, layer: Layer::Tar, at: self.at })
    }

    /// Moves up to `wanted` bytes from `input` to the gap.
    fn keep(&mut self, input: &mut &[u8], wanted: u64) -> Result<u64, DumpFormatError> {
        let (taken, rest) = input.split_at(at_most(input, wanted));
        if self.gap.len() + taken.len() > GAP_SIZE_MAX {
            return Err(DumpFormatError::GapTooLarge { max: GAP_SIZE_MAX, at: self.at });
        }
        self.gap.extend_from_slice(taken);
        self.at += taken.len() as u64;
        *input = rest;
        Ok(taken.len() as u64)
    }

    /// Moves up to `left` bytes from `input` to the sink.
    fn data(&mut self, input: &mut &[u8], left: u64, out: &mut dyn UnwrapSink) -> u64 {
        let (taken, rest) = input.split_at(at_most(input, left));
        out.data(taken);
        self.at += taken.len() as u64;
        self.totals.data_bytes += taken.len() as u64;
        *input = rest;
        taken.len() as u64
    }

    /// Whether the block at the end of the gap is whole.
    fn block(&mut self, input: &mut &[u8]) -> Result<bool, DumpFormatError> {
        let missing = BLOCK_SIZE - (self.gap.len() - self.block_start);
        self.keep(input, missing as u64)?;
        Ok(self.gap.len() - self.block_start == BLOCK_SIZE)
    }

    fn whole_block(&self) -> &[u8; BLOCK_SIZE] {
        self.gap[self.block_start..].first_chunk().expect("the block at the end of the gap is whole")
    }

    fn header(&mut self, out: &mut dyn UnwrapSink) -> Result<(), DumpFormatError> {
        if is_zero(self.whole_block()) {
            if self.described {
                return self.wrong("an extended header without its file");
            }
            self.block_start = self.gap.len();
            self.state = State::LastBlock;
            return Ok(());
        }
        let (entry, size) = read(self.whole_block()).or_else(|what| self.wrong(what))?;
        match entry {
            Entry::File => self.file(size, out),
            Entry::Folder | Entry::Other => self.other(size),
            Entry::PaxNext | Entry::PaxGlobal | Entry::LongName => self.description(entry, size),
        }
    }

    fn file(&mut self, size: u64, out: &mut dyn UnwrapSink) -> Result<(), DumpFormatError> {
        let size = self.real_size(size);
        self.totals.files += 1;
        if size == 0 {
            self.state = self.padding(0);
            return Ok(());
        }
        out.frame(&self.gap, size);
        out.cut();
        self.gap.clear();
        self.state = State::Data { left: size, padding: padding(size) };
        Ok(())
    }

    fn other(&mut self, size: u64) -> Result<(), DumpFormatError> {
        if self.real_size(size) != 0 {
            return self.wrong("a member that cannot have data and names a size");
        }
        self.state = self.padding(0);
        Ok(())
    }

    /// An entry that describes the next member, or all later ones.
    fn description(&mut self, entry: Entry, size: u64) -> Result<(), DumpFormatError> {
        if size > GAP_SIZE_MAX as u64 {
            return Err(DumpFormatError::GapTooLarge { max: GAP_SIZE_MAX, at: self.at });
        }
        let start = self.gap.len();
        let size_in_memory = usize::try_from(size).expect("the size is below the limit of a gap");
        self.described |= entry != Entry::PaxGlobal;
        self.state = match size + padding(size) {
            0 => self.padding(0),
            left => State::Body { entry, left, start, size: size_in_memory },
        };
        Ok(())
    }

    fn body(&mut self, entry: Entry, start: usize, size: usize) -> Result<(), DumpFormatError> {
        let body = &self.gap[start..start + size];
        let named = match entry {
            Entry::PaxNext | Entry::PaxGlobal => pax_size(body).or_else(|what| self.wrong(what))?,
            Entry::File | Entry::Folder | Entry::Other | Entry::LongName => None,
        };
        match entry {
            Entry::PaxGlobal => self.global_size = named.or(self.global_size),
            Entry::PaxNext | Entry::File | Entry::Folder | Entry::Other | Entry::LongName => {
                self.next_size = named.or(self.next_size);
            }
        }
        self.state = self.padding(0);
        Ok(())
    }

    /// The size of the member whose header names `size`: pax records win.
    fn real_size(&mut self, size: u64) -> u64 {
        self.described = false;
        self.next_size.take().or(self.global_size).unwrap_or(size)
    }

    /// The state with `left` bytes of padding to come; none of them is the next header.
    fn padding(&mut self, left: u64) -> State {
        self.block_start = self.gap.len();
        if left == 0 { State::Header } else { State::Padding { left } }
    }

    fn last_block(&mut self) -> Result<(), DumpFormatError> {
        if !is_zero(self.whole_block()) {
            return self.wrong("one zero block where two end it");
        }
        if self.totals.files == 0 {
            return Err(DumpFormatError::NoFiles);
        }
        self.state = State::End;
        Ok(())
    }

    fn end(&mut self, input: &mut &[u8]) -> Result<(), DumpFormatError> {
        if let Some(place) = input.iter().position(|byte| *byte != 0) {
            return Err(DumpFormatError::Trailing { layer: Layer::Tar, at: self.at + place as u64 });
        }
        self.keep(input, u64::MAX).map(|_| ())
    }

    /// The error of the block that was just read.
    fn wrong<T>(&self, what: &'static str) -> Result<T, DumpFormatError> {
        Err(DumpFormatError::Tar { what, at: self.at - BLOCK_SIZE as u64 })
    }
}

fn at_most(input: &[u8], wanted: u64) -> usize {
    usize::try_from(wanted).unwrap_or(usize::MAX).min(input.len())
}

fn is_zero(block: &[u8; BLOCK_SIZE]) -> bool {
    block.iter().all(|byte| *byte == 0)
}
