//! An archive as it comes by: decrypted, decompressed, unpacked, and held against what its metadata say.
//!
//! Metadata come first in everything that the predecessor wrote, since it packs a folder in the order of its names: so each file is
//! known before it comes, and is compared when it ends.
//!
//! Holds: [`ArchiveReader::finish`] succeeds only if every layer ended where it says, every file that the metadata name was there
//! once, and each hashed to what they say. A dump that they do not name is refused.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Buf, Bytes, BytesMut};
use flate2::bufread::GzDecoder;

use super::encryption::{Opener, VERSION};
use super::error::ArchiveError;
use super::information::Information;
use super::keys::PrivateKey;
use super::tar::{Entry, Item, Walk};
use super::{INFORMATION, NEO4J, PIECE_SIZE, POSTGRES, TOP};
use crate::id::hex_of;

/// Largest metadata, in bytes: a hundred times the real ones.
const INFORMATION_SIZE_MAX: u64 = 64 << 10;

/// The first byte of a gzip file.
const GZIP: u8 = 0x1f;

/// What an archive holds, in the order in which it comes.
#[derive(Debug)]
pub enum Event {
    /// What it says of itself, first.
    Information(Box<Information>),
    /// A file begins.
    Begin(Member),
    /// The next bytes of it.
    Data(Bytes),
    /// It is whole, and hashed to what the metadata say.
    End,
}

/// A file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path below `backup/`.
    pub name: String,
    /// Its length in bytes, as its header says.
    pub size: u64,
}

/// Reads an archive that is fed to it.
pub struct ArchiveReader {
    layers: Layers,
    walk: Walk,
    piece: Bytes,
    information: Option<Information>,
    current: Current,
    seen: BTreeSet<String>,
}

/// The file that is coming by.
enum Current {
    None,
    Information(Vec<u8>),
    /// One that has a checksum.
    Named {
        name: String,
        hash: Box<Context>,
        expected: String,
    },
}

impl ArchiveReader {
    /// A reader that decrypts with `key`. Without one, an encrypted archive is refused; with one, a plain one is.
    pub fn new(key: Option<PrivateKey>) -> Self {
        Self {
            layers: Layers::new(key),
            walk: Walk::new(),
            piece: Bytes::new(),
            information: None,
            current: Current::None,
            seen: BTreeSet::new(),
        }
    }

    /// Takes the next bytes of the archive. Only after [`ArchiveReader::event`] gave `None`.
    pub fn feed(&mut self, bytes: Bytes) {
        self.layers.input = bytes;
    }

    /// What comes next; `None` if more bytes must be fed first, or all were.
    ///
    /// # Errors
    /// If it is not a whole archive; nothing that it gave may count then.
    pub fn event(&mut self) -> Result<Option<Event>, ArchiveError> {
        loop {
            while let Some(item) = self.walk.next(&mut self.piece)? {
                if let Some(event) = self.take(item)? {
                    return Ok(Some(event));
                }
            }
            match self.layers.next()? {
                Some(piece) => self.piece = piece,
                None => return Ok(None),
            }
        }
    }

    /// Ends the archive: all its bytes were fed, and all events taken.
    ///
    /// # Errors
    /// If it is not whole.
    pub fn finish(&mut self) -> Result<(), ArchiveError> {
        self.layers.finish()?;
        self.walk.finish()?;
        let Some(information) = &self.information else {
            return Err(ArchiveError::Missing { name: INFORMATION.to_owned() });
        };
        match information.checksums.keys().find(|name| !self.seen.contains(*name)) {
            Some(name) => Err(ArchiveError::Missing { name: name.escape_debug().to_string() }),
            None => Ok(()),
        }
    }

    fn take(&mut self, item: Item) -> Result<Option<Event>, ArchiveError> {
        match item {
            Item::Entry(entry) => self.begin(&entry),
            Item::Data(bytes) => Ok(match &mut self.current {
                Current::Information(body) => {
                    body.extend_from_slice(&bytes);
                    None
                }
                Current::Named { hash, .. } => {
                    hash.update(&bytes);
                    Some(Event::Data(bytes))
                }
                Current::None => None,
            }),
            Item::FileEnd => self.end(),
        }
    }

    fn begin(&mut self, entry: &Entry) -> Result<Option<Event>, ArchiveError> {
        let refused = |why| Err(ArchiveError::Member { name: entry.name.escape_debug().to_string(), why });
        let Some(name) = inside(&entry.name) else { return refused("it is not below `backup/`") };
        let Some(size) = entry.size else {
            return if matches!(name, "" | NEO4J) {
                Ok(None)
            } else {
                refused("there is no such folder in an archive")
            };
        };
        if !self.seen.insert(name.to_owned()) {
            return refused("it comes twice");
        }
        let Some(information) = &self.information else {
            if name != INFORMATION {
                return refused("it comes before `backup_information.json`; pack it again with `tar --sort=name`");
            }
            if size > INFORMATION_SIZE_MAX {
                return refused("it is larger than 64 KiB");
            }
            self.current = Current::Information(Vec::new());
            return Ok(None);
        };
        let Some(expected) = information.checksums.get(name).cloned() else {
            return refused("`backup_information.json` has no checksum of it");
        };
        let in_its_place = name == POSTGRES || name.strip_prefix(NEO4J).is_some_and(|rest| rest.starts_with('/'));
        if !in_its_place {
            return refused("there is no such file in an archive");
        }
        let name = name.to_owned();
        self.current = Current::Named { name: name.clone(), hash: Box::new(Context::new(&SHA256)), expected };
        Ok(Some(Event::Begin(Member { name, size })))
    }

    fn end(&mut self) -> Result<Option<Event>, ArchiveError> {
        match std::mem::replace(&mut self.current, Current::None) {
            Current::Information(body) => {
                let information = Information::decode(&body)?;
                self.information = Some(information.clone());
                Ok(Some(Event::Information(Box::new(information))))
            }
            Current::Named { name, hash, expected } => {
                let found = hex_of(hash.finish().as_ref());
                if found == expected {
                    return Ok(Some(Event::End));
                }
                Err(ArchiveError::Checksum { name: name.escape_debug().to_string(), expected, found })
            }
            Current::None => Ok(None),
        }
    }
}

/// The part of a member's name below `backup/`; `None` if it leads elsewhere.
fn inside(name: &str) -> Option<&str> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let name = name.strip_suffix('/').unwrap_or(name);
    if name.split('/').any(|part| matches!(part, "" | "." | "..") || part.contains(['\\', '\0'])) {
        return None;
    }
    match name.strip_prefix(TOP)? {
        "" => Some(""),
        rest => rest.strip_prefix('/'),
    }
}

/// From the bytes of the file to those of its tar.
struct Layers {
    key: Option<PrivateKey>,
    input: Bytes,
    opener: Option<Opener>,
    inflate: Option<GzDecoder<Feed>>,
    /// Whether the gzip member has ended.
    ended: bool,
}

impl Layers {
    fn new(key: Option<PrivateKey>) -> Self {
        Self { key, input: Bytes::new(), opener: None, inflate: None, ended: false }
    }

    /// The next bytes of the tar; `None` if more input is needed, or there is no more.
    fn next(&mut self) -> Result<Option<Bytes>, ArchiveError> {
        loop {
            if let Some(inflate) = self.inflate.as_mut().filter(|_| !self.ended) {
                match step(inflate)? {
                    Step::Piece(piece) => return Ok(Some(piece)),
                    Step::Hungry => {}
                    Step::Ended => self.ended = true,
                }
            }
            let left_over = self.inflate.as_ref().is_some_and(|inflate| !inflate.get_ref().bytes.is_empty());
            if self.ended && left_over {
                return Err(ArchiveError::Trailing { what: "its compressed part" });
            }
            let Some(bytes) = self.compressed()? else { return Ok(None) };
            if self.inflate.is_none() {
                if bytes[0] != GZIP {
                    return Err(ArchiveError::Unknown { first: bytes[0] });
                }
                self.inflate = Some(GzDecoder::new(Feed::default()));
            }
            self.inflate.as_mut().expect("made above").get_mut().bytes = bytes;
        }
    }

    /// The next bytes of the gzip file, never none of them.
    fn compressed(&mut self) -> Result<Option<Bytes>, ArchiveError> {
        if self.opener.is_none() && self.inflate.is_none() {
            let Some(first) = self.input.first() else { return Ok(None) };
            match (*first, self.key.take()) {
                (VERSION, Some(key)) => self.opener = Some(Opener::new(key)),
                (VERSION, None) => return Err(ArchiveError::NoKey),
                (GZIP, None) => {}
                (GZIP, Some(_)) => return Err(ArchiveError::NotEncrypted),
                (first, _) => return Err(ArchiveError::Unknown { first }),
            }
        }
        match &mut self.opener {
            Some(opener) => opener.next(&mut self.input),
            None => Ok(Some(std::mem::take(&mut self.input)).filter(|bytes| !bytes.is_empty())),
        }
    }

    fn finish(&mut self) -> Result<(), ArchiveError> {
        if let Some(opener) = &self.opener {
            opener.finish()?;
        }
        match &self.inflate {
            None => Err(ArchiveError::Empty),
            Some(_) if self.ended => Ok(()),
            Some(_) => Err(ArchiveError::Truncated { inside: "its compressed part" }),
        }
    }
}

enum Step {
    Piece(Bytes),
    Hungry,
    Ended,
}

fn step(inflate: &mut GzDecoder<Feed>) -> Result<Step, ArchiveError> {
    let mut piece = BytesMut::zeroed(PIECE_SIZE);
    match inflate.read(&mut piece) {
        Ok(0) => Ok(Step::Ended),
        Ok(size) => {
            piece.truncate(size);
            Ok(Step::Piece(piece.freeze()))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Hungry),
        Err(source) => Err(ArchiveError::Compression { source }),
    }
}

/// Bytes that were fed; a reader that wants more is told to come again.
#[derive(Default)]
struct Feed {
    bytes: Bytes,
}

impl Read for Feed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let size = self.fill_buf()?.read(out)?;
        self.consume(size);
        Ok(size)
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.bytes.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(&self.bytes) }
    }

    fn consume(&mut self, size: usize) {
        self.bytes.advance(size);
    }
}
