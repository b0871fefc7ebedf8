//! The formats in which `neo4j-admin` writes a database: a container around a tar.
//!
//! A dump is unwrapped before it is stored, because a compressed one shares no chunk with yesterday's, and is wrapped
//! again before it is loaded. [`Unwrapper`] gives the bytes of the tar's members to one stream and everything else to
//! frames ([`FrameDecoder`] reads them back), so that gap, data, gap, data … is the exact tar again; [`Wrapper`] makes
//! the container from that.
//!
//! Holds: an unwrapping that ends well saw a whole dump — the checksum of the compression, the two zero blocks of the
//! tar, the counts that the container names — because `neo4j-admin database load` deletes the old store before it looks
//! at the new one. Memory is bounded by the decompressor's window and one gap ([`GAP_SIZE_MAX`]).
//!
//! Does not: read or write anything, nor know what the members of the tar mean. The compressed bytes of a container are
//! not kept: what [`Wrapper`] writes is the same tar, compressed anew.
//!
//! Source of the layouts: `org.neo4j.dbms.archive` of Neo4j 5.26.30, and real dumps.

mod decompress;
mod error;
mod frames;
mod kind;
mod prefix;
mod tar;
mod unwrap;
mod wrap;

pub use error::{DumpFormatError, Layer};
pub use frames::{Frame, FrameDecoder, encode_frame};
pub use kind::{ContainerInfo, ContainerKind, RECOGNISE_SIZE, recognise};
pub use unwrap::{UnwrapSink, Unwrapper};
pub use wrap::Wrapper;

pub use crate::limits::{GAP_SIZE_MAX, PREFIX_SIZE_MAX};

/// Largest window of a zstd frame that is unwrapped, as the power of two: 128 MiB. Neo4j writes 2 MiB.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Largest piece in which unwrapped bytes reach the sink, in bytes: 128 KiB, the largest block of zstd.
const PIECE_SIZE: usize = 128 << 10;
const _: () = assert!(PIECE_SIZE <= crate::limits::INPUT_BLOCK_SIZE_MAX, "a piece must fit the pipeline");
