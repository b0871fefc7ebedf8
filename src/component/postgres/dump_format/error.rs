//! What can be wrong with a dump in the custom format.

/// Why bytes are not a whole dump of `pg_dump` in its custom format. Offsets are in bytes from the start of the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CustomFormatError {
    /// Not one byte came.
    #[error("the dump is empty")]
    Empty,
    /// It does not begin with `PGDMP`.
    #[error("not a dump in the custom format: it begins with the bytes `{found}` where `PGDMP` must stand, at byte 0")]
    NotCustom {
        /// The first bytes, in hexadecimal.
        found: String,
    },
    /// It is an SQL script.
    #[error("the dump is in the plain format where the custom format is needed (`pg_dump --format=custom`)")]
    PlainFormat,
    /// It is a tar.
    #[error("the dump is in the tar format where the custom format is needed (`pg_dump --format=custom`)")]
    TarFormat,
    /// It is the table of contents of a directory or tar.
    #[error(
        "the dump is the table of contents of the directory or tar format where the custom format is needed \
         (`pg_dump --format=custom`)"
    )]
    DirectoryFormat,
    /// Another version of the format.
    #[error("version {major}.{minor} of the custom format is not known (1.12 to 1.16 are), at byte 5")]
    UnsupportedVersion {
        /// The version's first number.
        major: u8,
        /// The version's second number.
        minor: u8,
    },
    /// It breaks the rules of the format.
    #[error("the dump has {what} at byte {at}")]
    Malformed {
        /// What is found there.
        what: &'static str,
        /// Where.
        at: u64,
    },
    /// The table of contents is longer than is read.
    #[error("the table of contents has more than {max} bytes, at byte {at}")]
    TocTooLarge {
        /// The limit, in bytes.
        max: u64,
        /// Where.
        at: u64,
    },
    /// It ends in its header.
    #[error("the dump ends inside its header, at byte {at}")]
    TruncatedHeader {
        /// Where it ends.
        at: u64,
    },
    /// It ends in its table of contents.
    #[error("the dump ends inside entry {entry} of the {entries} of its table of contents, at byte {at}")]
    TruncatedToc {
        /// The entry, counted from one.
        entry: u64,
        /// How many there are.
        entries: u64,
        /// Where it ends.
        at: u64,
    },
    /// It ends in a data block.
    #[error("the dump ends inside the data of entry {dump_id} (`{tag}`), at byte {at}")]
    TruncatedData {
        /// The entry's dump id.
        dump_id: i64,
        /// The entry's name.
        tag: String,
        /// Where it ends.
        at: u64,
    },
    /// It ends before a data block.
    #[error("the dump ends before the data of entry {dump_id} (`{tag}`), at byte {at}")]
    DataBlockMissing {
        /// The entry's dump id.
        dump_id: i64,
        /// The entry's name.
        tag: String,
        /// Where it ends.
        at: u64,
    },
    /// Another data block than the next one in the table of contents.
    #[error("the dump has the data of entry {found} where that of entry {expected} (`{tag}`) must stand, at byte {at}")]
    UnexpectedBlock {
        /// The dump id that is next in the table of contents.
        expected: i64,
        /// The name of that entry.
        tag: String,
        /// The dump id in the block.
        found: i64,
        /// Where.
        at: u64,
    },
    /// It goes on after its end.
    #[error("bytes follow the last data block of the dump, at byte {at}")]
    TrailingBytes {
        /// The first byte too much.
        at: u64,
    },
    /// A call after an error.
    #[error("the dump was already refused")]
    Spent,
}
