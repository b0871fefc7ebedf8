//! What can be wrong with a dump.

use std::fmt;

/// Which bytes an offset counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The stream as it came.
    Stream,
    /// The header between the container and the tar, after decompression.
    Header,
    /// The tar, after decompression and without the header.
    Tar,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "stream",
            Self::Header => "header inside",
            Self::Tar => "tar inside",
        })
    }
}

/// Why bytes are not a whole dump of Neo4j, or cannot become one again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpFormatError {
    /// Not one byte came.
    #[error("the dump is empty")]
    Empty,
    /// The first bytes are of no known container.
    #[error("not a dump of Neo4j: it begins with the bytes `{found}` at byte 0")]
    Unknown {
        /// The first bytes, in hexadecimal.
        found: String,
    },
    /// It ends too early.
    #[error("the dump ends inside {inside}, at byte {at} of the {layer}")]
    Truncated {
        /// What was being read.
        inside: &'static str,
        /// Which bytes `at` counts.
        layer: Layer,
        /// Where it ends.
        at: u64,
    },
    /// It goes on after its end.
    #[error("bytes follow the end of the dump, at byte {at} of the {layer}")]
    Trailing {
        /// Which bytes `at` counts.
        layer: Layer,
        /// The first byte too much.
        at: u64,
    },
    /// The compressed bytes break the rules of their format, or do not have the checksum that stands behind them.
    #[error("the compressed bytes are damaged before byte {at} of the stream")]
    Compression {
        /// The end of the bytes that were being decompressed.
        at: u64,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The frame or member around the compressed bytes is not as Neo4j writes it.
    #[error("the compression begins with {what}, at byte {at} of the stream")]
    CompressionHeader {
        /// What is found there.
        what: &'static str,
        /// Where.
        at: u64,
    },
    /// The header before the tar is not as Neo4j writes it.
    #[error("the header of the dump has {what}, at byte {at} of the {}", Layer::Header)]
    Header {
        /// What is found there.
        what: &'static str,
        /// Where.
        at: u64,
    },
    /// The tar breaks the rules of its format.
    #[error("the tar in the dump has {what}, at byte {at} of the {}", Layer::Tar)]
    Tar {
        /// What is found there.
        what: &'static str,
        /// Where.
        at: u64,
    },
    /// There is more between the data of two members than is taken into memory.
    #[error("the tar in the dump has more than {max} bytes between two files, at byte {at} of the {}", Layer::Tar)]
    GapTooLarge {
        /// The limit, in bytes.
        max: usize,
        /// Where.
        at: u64,
    },
    /// The container names another number than was seen.
    #[error("the dump names {expected} {what} and holds {found}")]
    Count {
        /// `files` or `bytes`.
        what: &'static str,
        /// What its header says.
        expected: u64,
        /// What was seen.
        found: u64,
    },
    /// There is no file in it.
    #[error("the dump holds no file")]
    NoFiles,
    /// A call after an error.
    #[error("the dump was already refused")]
    Spent,
    /// The recorded header does not belong to the recorded container.
    #[error("the recorded header of {found} bytes is not one of a container of kind `{kind}`")]
    Prefix {
        /// The recorded kind.
        kind: super::ContainerKind,
        /// Length of the recorded header, in bytes.
        found: usize,
    },
    /// The compressor did not take the bytes.
    #[error("the dump cannot be compressed")]
    Compress {
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The recorded headers end too early.
    #[error("the headers of the dump end inside {inside}, at byte {at} of them")]
    FramesTruncated {
        /// What was being read.
        inside: &'static str,
        /// Where they end.
        at: u64,
    },
    /// The recorded headers go on after their last frame.
    #[error("bytes follow the last of the dump's headers, at byte {at} of them")]
    FramesTrailing {
        /// The first byte too much.
        at: u64,
    },
    /// A recorded gap is longer than one can be.
    #[error("the headers of the dump name a gap of {found} bytes where at most {max} can be, at byte {at} of them")]
    FrameTooLarge {
        /// The length it names.
        found: u64,
        /// The limit, in bytes.
        max: usize,
        /// Where.
        at: u64,
    },
}
