//! The custom format of `pg_dump`: is it whole, and where do its data blocks begin?
//!
//! [`CustomFormatCheck`] watches a dump go by. It reads the header and the table of contents, follows the data blocks,
//! and announces the start of each one, so that the chunker can cut where a table begins. Layout, for the format versions
//! 1.12 to 1.16 (PostgreSQL 9.0 to 18): `pg_backup_archiver.c` and `pg_backup_custom.c` of PostgreSQL, and real dumps.
//!
//! Holds: a check that ends well saw every data block that the table of contents promises, to its end, in the order of
//! the table, and nothing behind the last. Memory is bounded by what the table of contents says of entries with data, and
//! that table by [`TOC_SIZE_MAX`]; nothing is reserved for bytes that did not come.
//!
//! Does not: decompress data or look into it. The format has no checksum: a changed byte in a table is not seen here.

mod entry;
mod error;
mod scanner;

use serde::{Deserialize, Serialize};

pub use error::CustomFormatError;

use entry::{Entry, Field};
use scanner::{Scanner, Token, Want};

/// Largest table of contents that is read, in bytes: 64 MiB, a hundred thousand tables.
pub const TOC_SIZE_MAX: u64 = 64 << 20;

/// How the data of a dump is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CustomCompression {
    /// Not at all (`-Z0`).
    None,
    /// zlib.
    Gzip,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// What a whole dump says of itself, and what was seen in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomFormatInfo {
    /// Version of the format, such as `1.14`.
    pub format_version: String,
    /// Version of the server it was taken from.
    pub server_version: String,
    /// Version of the `pg_dump` that wrote it.
    pub pg_dump_version: String,
    /// Name of the database.
    pub database: String,
    /// How its data is compressed.
    pub compression: CustomCompression,
    /// Entries of the table of contents.
    pub toc_entries: u64,
    /// Data blocks; as many cuts were announced.
    pub data_blocks: u64,
    /// Large objects in them.
    pub large_objects: u64,
    /// Bytes of data as they stand in the blocks, compressed if the dump is.
    pub data_bytes: u64,
}

/// Takes the offset in the stream, in bytes, at which a data block begins.
pub type Cut<'a> = &'a mut dyn FnMut(u64);

/// Checks a dump that is pushed through it.
///
/// After an error nothing more can be had from it: every later call is [`CustomFormatError::Spent`].
pub struct CustomFormatCheck {
    scanner: Scanner,
    step: Step,
    minor: u8,
    offset_size: usize,
    info: CustomFormatInfo,
    entry: Entry,
    entries_left: u64,
    /// The entries that have data, in the order of the table.
    promised: Vec<Promise>,
    toc_start: u64,
    spent: bool,
}

/// A data block that the table of contents promises.
#[derive(Debug)]
struct Promise {
    dump_id: i64,
    tag: String,
    large_objects: bool,
}

/// What the next token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Magic,
    Version,
    Compression,
    Date { left: u8 },
    Database,
    ServerVersion,
    DumpVersion,
    EntryCount,
    Entry(Field),
    BlockType,
    BlockId { large_objects: bool },
    LargeObject,
    PieceLength { large_objects: bool },
    Piece { large_objects: bool },
    End,
}

impl CustomFormatCheck {
    /// Before the first byte.
    pub fn new() -> Self {
        Self {
            scanner: Scanner::new(Want::Bytes(5)),
            step: Step::Magic,
            minor: 0,
            offset_size: 0,
            info: CustomFormatInfo {
                format_version: String::new(),
                server_version: String::new(),
                pg_dump_version: String::new(),
                database: String::new(),
                compression: CustomCompression::None,
                toc_entries: 0,
                data_blocks: 0,
                large_objects: 0,
                data_bytes: 0,
            },
            entry: Entry::default(),
            entries_left: 0,
            promised: Vec::new(),
            toc_start: 0,
            spent: false,
        }
    }

    /// Takes the next bytes of the dump, as many as there are, and calls `cut` for each data block that begins in them.
    ///
    /// # Errors
    /// As soon as the bytes cannot be the beginning of a dump in the custom format.
    pub fn push(&mut self, mut input: &[u8], cut: Cut) -> Result<(), CustomFormatError> {
        if self.spent {
            return Err(CustomFormatError::Spent);
        }
        let result = self.take(&mut input, cut);
        self.spent = result.is_err();
        result
    }

    /// Says that no more bytes come.
    ///
    /// # Errors
    /// Unless the dump is whole.
    pub fn finish(mut self) -> Result<CustomFormatInfo, CustomFormatError> {
        if self.spent {
            return Err(CustomFormatError::Spent);
        }
        let at = self.scanner.at();
        if at == 0 {
            return Err(CustomFormatError::Empty);
        }
        let toc_entries = self.info.toc_entries;
        match self.step {
            Step::End => {
                self.info.data_blocks = self.promised.len() as u64;
                Ok(self.info)
            }
            Step::Magic => Err(self.scanner.not_custom()),
            Step::Version
            | Step::Compression
            | Step::Date { .. }
            | Step::Database
            | Step::ServerVersion
            | Step::DumpVersion
            | Step::EntryCount => Err(CustomFormatError::TruncatedHeader { at }),
            Step::Entry(_) => {
                let entry = toc_entries - self.entries_left + 1;
                Err(CustomFormatError::TruncatedToc { entry, entries: toc_entries, at })
            }
            Step::BlockType if self.scanner.is_between() => {
                let Promise { dump_id, tag, .. } = self.promise();
                Err(CustomFormatError::DataBlockMissing { dump_id: *dump_id, tag: tag.clone(), at })
            }
            Step::BlockType
            | Step::BlockId { .. }
            | Step::LargeObject
            | Step::PieceLength { .. }
            | Step::Piece { .. } => {
                let Promise { dump_id, tag, .. } = self.promise();
                Err(CustomFormatError::TruncatedData { dump_id: *dump_id, tag: tag.clone(), at })
            }
        }
    }

    fn take(&mut self, input: &mut &[u8], cut: Cut) -> Result<(), CustomFormatError> {
        while !input.is_empty() {
            if self.step == Step::End {
                return Err(CustomFormatError::TrailingBytes { at: self.scanner.at() });
            }
            let token = self.scanner.take(input)?;
            let in_toc = matches!(self.step, Step::Entry(_));
            if in_toc && self.scanner.at() - self.toc_start > TOC_SIZE_MAX {
                return Err(CustomFormatError::TocTooLarge { max: TOC_SIZE_MAX, at: self.scanner.at() });
            }
            if let Some(token) = token {
                self.step = self.advance(token, cut)?;
                self.scanner.expect(self.wanted());
            }
        }
        Ok(())
    }

    /// How the token of the current step is written.
    fn wanted(&self) -> Want {
        match self.step {
            Step::Magic => Want::Bytes(5),
            Step::Version => Want::Bytes(6),
            // Since 1.15 a byte names the algorithm; before, the level was there.
            Step::Compression if self.minor >= 15 => Want::Bytes(1),
            Step::Compression | Step::Date { .. } | Step::EntryCount => Want::Int,
            Step::Database | Step::ServerVersion | Step::DumpVersion => Want::Text,
            Step::Entry(field) => field.wanted(self.offset_size),
            Step::BlockType => Want::Bytes(1),
            Step::BlockId { .. } | Step::LargeObject | Step::PieceLength { .. } => Want::Int,
            Step::Piece { .. } => Want::Rest,
            Step::End => Want::Bytes(1),
        }
    }

    /// Judges the token of the current step; gives the next step.
    fn advance(&mut self, token: Token, cut: Cut) -> Result<Step, CustomFormatError> {
        Ok(match (self.step, token) {
            (Step::Magic, Token::Bytes(magic)) => {
                if !magic.starts_with(b"PGDMP") {
                    return Err(self.scanner.not_custom());
                }
                Step::Version
            }
            (Step::Version, Token::Bytes(bytes)) => self.version(&bytes)?,
            (Step::Compression, token) => {
                self.info.compression = self.compression(token)?;
                Step::Date { left: 7 }
            }
            (Step::Date { left: 1 }, _) => Step::Database,
            (Step::Date { left }, _) => Step::Date { left: left - 1 },
            (Step::Database, Token::Text(text)) => {
                self.info.database = self.required(text)?;
                Step::ServerVersion
            }
            (Step::ServerVersion, Token::Text(text)) => {
                self.info.server_version = self.required(text)?;
                Step::DumpVersion
            }
            (Step::DumpVersion, Token::Text(text)) => {
                self.info.pg_dump_version = self.required(text)?;
                Step::EntryCount
            }
            (Step::EntryCount, Token::Int(count)) => self.entry_count(count)?,
            (Step::Entry(field), token) => self.field(field, token)?,
            (Step::BlockType, Token::Bytes(kind)) => {
                let step = self.block_type(kind[0])?;
                cut(self.scanner.token_start());
                step
            }
            (Step::BlockId { large_objects }, Token::Int(id)) => self.block_id(large_objects, id)?,
            (Step::LargeObject, Token::Int(0)) => self.next_block(),
            (Step::LargeObject, Token::Int(_)) => {
                self.info.large_objects += 1;
                Step::PieceLength { large_objects: true }
            }
            (Step::PieceLength { large_objects: true }, Token::Int(0)) => Step::LargeObject,
            (Step::PieceLength { large_objects: false }, Token::Int(0)) => self.next_block(),
            (Step::PieceLength { large_objects }, Token::Int(length)) => {
                let length = u64::try_from(length).map_err(|_| self.malformed("a piece of data of negative length"))?;
                self.info.data_bytes += length;
                self.scanner.rest(length);
                Step::Piece { large_objects }
            }
            (Step::Piece { large_objects }, _) => Step::PieceLength { large_objects },
            (_, Token::Bytes(_) | Token::Int(_) | Token::Text(_) | Token::Rest) => {
                return Err(self.malformed("an unexpected value"));
            }
        })
    }

    fn version(&mut self, bytes: &[u8]) -> Result<Step, CustomFormatError> {
        let [major, minor, _revision, int_size, offset_size, format] =
            *bytes.first_chunk().expect("the scanner gives the six bytes asked for");
        if major != 1 || !(12..=16).contains(&minor) {
            return Err(CustomFormatError::UnsupportedVersion { major, minor });
        }
        match format {
            1 => {}
            // The tar and the directory format both write 3 into their `toc.dat`.
            3 => return Err(CustomFormatError::DirectoryFormat),
            _ => return Err(self.malformed("an unknown format")),
        }
        if int_size != 4 || !(4..=8).contains(&offset_size) {
            return Err(self.malformed("integers of unknown size"));
        }
        self.minor = minor;
        self.offset_size = usize::from(offset_size);
        self.info.format_version = format!("{major}.{minor}");
        Ok(Step::Compression)
    }

    fn compression(&self, token: Token) -> Result<CustomCompression, CustomFormatError> {
        match token {
            Token::Bytes(algorithm) => match algorithm.first() {
                Some(0) => Ok(CustomCompression::None),
                Some(1) => Ok(CustomCompression::Gzip),
                Some(2) => Ok(CustomCompression::Lz4),
                Some(3) => Ok(CustomCompression::Zstd),
                Some(_) | None => Err(self.malformed("an unknown compression")),
            },
            Token::Int(0) => Ok(CustomCompression::None),
            Token::Int(-1..=9) => Ok(CustomCompression::Gzip),
            Token::Int(_) | Token::Text(_) | Token::Rest => Err(self.malformed("an unknown compression")),
        }
    }

    fn entry_count(&mut self, count: i64) -> Result<Step, CustomFormatError> {
        self.info.toc_entries = u64::try_from(count).map_err(|_| self.malformed("a negative number of entries"))?;
        self.entries_left = self.info.toc_entries;
        self.toc_start = self.scanner.at();
        Ok(if count == 0 { Step::End } else { Step::Entry(Field::DumpId) })
    }

    fn field(&mut self, field: Field, token: Token) -> Result<Step, CustomFormatError> {
        let next = self.entry.take(field, token, self.minor).map_err(|what| self.malformed(what))?;
        if let Some(field) = next {
            return Ok(Step::Entry(field));
        }
        let entry = std::mem::take(&mut self.entry);
        if entry.has_data {
            let large_objects = entry.description == "BLOBS";
            self.promised.push(Promise { dump_id: entry.dump_id, tag: entry.tag, large_objects });
        }
        self.entries_left -= 1;
        Ok(match (self.entries_left, self.promised.is_empty()) {
            (0, true) => Step::End,
            (0, false) => Step::BlockType,
            (_, _) => Step::Entry(Field::DumpId),
        })
    }

    fn block_type(&self, found: u8) -> Result<Step, CustomFormatError> {
        let large_objects = match found {
            1 => false,
            3 => true,
            _ => return Err(self.malformed("a data block of unknown type")),
        };
        if large_objects != self.promise().large_objects {
            return Err(self.malformed("a data block of another type than its entry"));
        }
        Ok(Step::BlockId { large_objects })
    }

    fn block_id(&self, large_objects: bool, found: i64) -> Result<Step, CustomFormatError> {
        let Promise { dump_id, tag, .. } = self.promise();
        if found != *dump_id {
            let (expected, at) = (*dump_id, self.scanner.token_start());
            return Err(CustomFormatError::UnexpectedBlock { expected, tag: tag.clone(), found, at });
        }
        Ok(if large_objects { Step::LargeObject } else { Step::PieceLength { large_objects } })
    }

    /// The block at hand is whole.
    fn next_block(&mut self) -> Step {
        self.info.data_blocks += 1;
        if self.info.data_blocks == self.promised.len() as u64 { Step::End } else { Step::BlockType }
    }

    /// The block at hand, or the next one.
    fn promise(&self) -> &Promise {
        let index = usize::try_from(self.info.data_blocks).expect("blocks are counted up to the length of a list");
        self.promised.get(index).expect("blocks are only read while one is promised")
    }

    fn required(&self, text: Option<Vec<u8>>) -> Result<String, CustomFormatError> {
        let text = text.ok_or_else(|| self.malformed("no text where one must be"))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn malformed(&self, what: &'static str) -> CustomFormatError {
        CustomFormatError::Malformed { what, at: self.scanner.token_start() }
    }
}

impl Default for CustomFormatCheck {
    fn default() -> Self {
        Self::new()
    }
}
