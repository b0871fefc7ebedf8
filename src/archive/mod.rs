//! The predecessor's archives: `infrahub_backup_YYYYMMDD_HHMMSS.tar.gz`, and the same encrypted, `.tar.gz.enc`.
//!
//! [`ArchiveReader`] takes the bytes of one as they come and gives its parts; [`ArchiveWriter`] makes one; [`keys`] reads and
//! makes the key files of its encryption. What the layout is, is told in docs/reference/archives.md.
//!
//! Holds: a reader that ended well saw a whole archive, in which every dump hashed to what its metadata say. Before that, nothing
//! that it gave may count. Memory is bounded by one encrypted chunk and what its limits allow, whatever the input says.
//!
//! Does not: read or write files, or know what is inside of a dump.

mod encryption;
mod error;
mod information;
pub mod keys;
mod reader;
mod tar;
mod writer;

pub use encryption::{HEADER_SIZE, Sealer};
pub use error::ArchiveError;
pub use information::{DATABASE, Information, METADATA_VERSION, TASK_MANAGER};
pub use reader::{ArchiveReader, Event, Member};
pub use writer::ArchiveWriter;

/// The folder at the top of every archive.
const TOP: &str = "backup";

/// Name of the metadata below it.
const INFORMATION: &str = "backup_information.json";

/// Name of the PostgreSQL dump below it.
pub const POSTGRES: &str = "prefect.dump";

/// The folder of what Neo4j wrote, below it.
pub const NEO4J: &str = "database";

/// Largest piece of a member's data, in bytes.
const PIECE_SIZE: usize = 128 << 10;
const _: () = assert!(PIECE_SIZE <= crate::limits::INPUT_BLOCK_SIZE_MAX, "a piece must fit the pipeline");
