//! Why an archive is refused.

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It has no bytes.
    #[error("it is empty")]
    Empty,
    /// It begins as nothing that the predecessor wrote.
    #[error("it is neither a `.tar.gz` nor an encrypted archive: its first byte is {first:#04x}")]
    Unknown {
        /// Its first byte.
        first: u8,
    },
    /// It is encrypted, and there is no key.
    #[error("it is encrypted, and no key for it was given")]
    NoKey,
    /// There is a key, and it is not encrypted.
    #[error("a key was given to decrypt it with, and it is not encrypted")]
    NotEncrypted,
    /// The head of an encrypted archive says what cannot be.
    #[error("the head of its encryption is wrong: {what}")]
    Head {
        /// What is wrong.
        what: &'static str,
    },
    /// A chunk of an encrypted archive does not open.
    #[error("chunk {chunk} of its encryption does not open: {why}")]
    Chunk {
        /// Which, from 0.
        chunk: u64,
        /// What that means.
        why: &'static str,
    },
    /// The compression is damaged.
    #[error("its compression is damaged")]
    Compression {
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It ends early.
    #[error("it is cut short: it ends inside of {inside}")]
    Truncated {
        /// Where.
        inside: &'static str,
    },
    /// It goes on behind its end.
    #[error("bytes follow behind the end of {what}")]
    Trailing {
        /// The end of what.
        what: &'static str,
    },
    /// The tar is not one.
    #[error("its tar is damaged at byte {at}: {what}")]
    Tar {
        /// What is wrong.
        what: &'static str,
        /// The place in the tar.
        at: u64,
    },
    /// A member may not be in an archive.
    #[error("its member `{name}` is refused: {why}")]
    Member {
        /// The name, made printable.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// The metadata cannot be read.
    #[error("its `backup_information.json` cannot be read")]
    Information {
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The metadata say what cannot be.
    #[error("its `backup_information.json` is refused: {what}")]
    Inconsistent {
        /// What is wrong.
        what: String,
    },
    /// A dump is not what the metadata say.
    #[error("its member `{name}` is damaged: it hashes to {found}, and its metadata say {expected}")]
    Checksum {
        /// The name below `backup/`.
        name: String,
        /// The SHA-256 that the metadata name.
        expected: String,
        /// The SHA-256 of what came.
        found: String,
    },
    /// The metadata name what is not there.
    #[error("its metadata name `{name}`, which is missing")]
    Missing {
        /// The name below `backup/`.
        name: String,
    },
    /// What is given to a writer is not what was promised.
    #[error("`{name}` was promised with {expected} bytes and has {found}")]
    Length {
        /// The name below `backup/`.
        name: String,
        /// The promise.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A key cannot be used.
    #[error("the key is refused: {what}")]
    Key {
        /// What is wrong.
        what: &'static str,
    },
}
