//! Walks the tar of an archive: entries, their data, its end.
//!
//! Holds: only files and folders come out, everything else is refused; the tar ended with two zero blocks, and nothing but zeros came
//! behind them. Does not: know which names may be there.

use bytes::Bytes;

use super::error::ArchiveError;
use crate::tar_header::{self, BLOCK_SIZE, padding, pax_size, pax_value};

/// Longest pax records of one member, in bytes.
const PAX_SIZE_MAX: u64 = 64 << 10;

/// Most members. Real archives have five.
const MEMBERS_MAX: u64 = 10_000;

/// What comes by.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A file or folder begins.
    Entry(Entry),
    /// The next bytes of the file.
    Data(Bytes),
    /// The file is whole.
    FileEnd,
}

/// A file or folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its name, as it stands there.
    pub name: String,
    /// Length of a file; `None` for a folder.
    pub size: Option<u64>,
}

enum State {
    /// A header block, or the first of the two zero blocks.
    Header,
    /// Pax records, and the padding behind them.
    Pax { body: Vec<u8>, size: usize, left: u64 },
    /// Data of a file, and the padding behind it.
    Data { left: u64, padding: u64 },
    /// Padding behind data or records.
    Padding { left: u64 },
    /// The second zero block.
    LastBlock,
    /// Behind both zero blocks.
    End,
}

/// The walk.
pub(super) struct Walk {
    state: State,
    block: Vec<u8>,
    at: u64,
    members: u64,
    /// What pax records say of the next member.
    next: Option<(Option<u64>, Option<Vec<u8>>)>,
}

impl Walk {
    pub fn new() -> Self {
        Self { state: State::Header, block: Vec::with_capacity(BLOCK_SIZE), at: 0, members: 0, next: None }
    }

    /// The next thing in `input`, which is used up if there is `None`.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Item>, ArchiveError> {
        loop {
            match &mut self.state {
                State::Header => {
                    let Some(block) = self.block(input) else { return Ok(None) };
                    if let Some(entry) = self.header(&block)? {
                        return Ok(Some(Item::Entry(entry)));
                    }
                }
                State::Pax { body, size, left } => {
                    let taken = take(input, *left);
                    body.extend_from_slice(&taken);
                    *left -= taken.len() as u64;
                    self.at += taken.len() as u64;
                    if *left > 0 {
                        return Ok(None);
                    }
                    let (mut records, size) = (std::mem::take(body), *size);
                    records.truncate(size);
                    self.pax(&records)?;
                }
                State::Data { left: 0, padding } => {
                    self.state = State::Padding { left: *padding };
                    return Ok(Some(Item::FileEnd));
                }
                State::Data { left, .. } => {
                    let taken = take(input, *left);
                    if taken.is_empty() {
                        return Ok(None);
                    }
                    *left -= taken.len() as u64;
                    self.at += taken.len() as u64;
                    return Ok(Some(Item::Data(taken)));
                }
                State::Padding { left: 0 } => self.state = State::Header,
                State::Padding { left } => {
                    let taken = take(input, *left);
                    if taken.is_empty() {
                        return Ok(None);
                    }
                    *left -= taken.len() as u64;
                    self.at += taken.len() as u64;
                }
                State::LastBlock => {
                    let Some(block) = self.block(input) else { return Ok(None) };
                    if block.iter().any(|byte| *byte != 0) {
                        return self.wrong("one zero block where two end it");
                    }
                    self.state = State::End;
                }
                State::End => {
                    if input.iter().any(|byte| *byte != 0) {
                        return Err(ArchiveError::Trailing { what: "its tar" });
                    }
                    input.clear();
                    return Ok(None);
                }
            }
        }
    }

    /// Whether it may end here.
    pub fn finish(&self) -> Result<(), ArchiveError> {
        let inside = match self.state {
            State::Header if self.block.is_empty() => "its list of files",
            State::Header => "a header of its tar",
            State::Pax { .. } => "an extended header of its tar",
            State::Data { .. } => "the data of a file",
            State::Padding { .. } => "the padding behind a file",
            State::LastBlock => "the end mark of its tar",
            State::End => return Ok(()),
        };
        Err(ArchiveError::Truncated { inside })
    }

    /// The next block, if it is whole.
    fn block(&mut self, input: &mut Bytes) -> Option<[u8; BLOCK_SIZE]> {
        let taken = take(input, (BLOCK_SIZE - self.block.len()) as u64);
        self.block.extend_from_slice(&taken);
        self.at += taken.len() as u64;
        let block = *self.block.first_chunk()?;
        self.block.clear();
        Some(block)
    }

    fn header(&mut self, block: &[u8; BLOCK_SIZE]) -> Result<Option<Entry>, ArchiveError> {
        if block.iter().all(|byte| *byte == 0) {
            if self.next.is_some() {
                return self.wrong("an extended header without its file");
            }
            self.state = State::LastBlock;
            return Ok(None);
        }
        let (kind, size) = tar_header::read(block).or_else(|what| self.wrong(what))?;
        self.members += 1;
        if self.members > MEMBERS_MAX {
            return self.wrong("more than 10000 members");
        }
        match kind {
            tar_header::Entry::PaxNext if self.next.is_none() => self.begin_pax(size).map(|()| None),
            tar_header::Entry::PaxNext | tar_header::Entry::PaxGlobal => self.wrong("an extended header out of place"),
            tar_header::Entry::LongName => self.wrong("a long name of GNU's; pack it again with `tar --format=pax`"),
            tar_header::Entry::File | tar_header::Entry::Folder | tar_header::Entry::Other => {
                let (told_size, told_name) = self.next.take().unwrap_or_default();
                let name = told_name.unwrap_or_else(|| tar_header::name(block));
                self.entry(kind, told_size.unwrap_or(size), name).map(Some)
            }
        }
    }

    fn entry(&mut self, kind: tar_header::Entry, size: u64, name: Vec<u8>) -> Result<Entry, ArchiveError> {
        let shown = || String::from_utf8_lossy(&name).escape_debug().to_string();
        let refused = |why| Err(ArchiveError::Member { name: shown(), why });
        let Ok(text) = std::str::from_utf8(&name) else { return refused("its name is not UTF-8") };
        let size = match kind {
            tar_header::Entry::File => {
                self.state = State::Data { left: size, padding: padding(size) };
                Some(size)
            }
            tar_header::Entry::Folder if size == 0 => None,
            tar_header::Entry::Folder => return refused("it is a folder and names a size"),
            _ => return refused("it is neither a file nor a folder"),
        };
        Ok(Entry { name: text.to_owned(), size })
    }

    fn begin_pax(&mut self, size: u64) -> Result<(), ArchiveError> {
        if size > PAX_SIZE_MAX {
            return self.wrong("an extended header of more than 64 KiB");
        }
        let left = size + padding(size);
        let size = usize::try_from(size).expect("below 64 KiB");
        self.state = State::Pax { body: Vec::new(), size, left };
        Ok(())
    }

    fn pax(&mut self, records: &[u8]) -> Result<(), ArchiveError> {
        let value = |key: &[u8]| pax_value(records, key);
        let size = pax_size(records).or_else(|what| self.wrong(what))?;
        let name = value(b"path").or_else(|what| self.wrong(what))?;
        // A sparse file's data are not its content.
        if value(b"GNU.sparse.major").or_else(|what| self.wrong(what))?.is_some() {
            return self.wrong("a sparse file");
        }
        self.next = Some((size, name));
        self.state = State::Header;
        Ok(())
    }

    /// The error of what was just read.
    fn wrong<T>(&self, what: &'static str) -> Result<T, ArchiveError> {
        Err(ArchiveError::Tar { what, at: self.at.saturating_sub(BLOCK_SIZE as u64) })
    }
}

/// Takes up to `wanted` bytes from `input`.
fn take(input: &mut Bytes, wanted: u64) -> Bytes {
    input.split_to(usize::try_from(wanted).unwrap_or(usize::MAX).min(input.len()))
}
