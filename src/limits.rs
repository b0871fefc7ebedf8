//! Every size, count and time limit of the repository format and the pipeline, with its unit and its reason.
//!
//! Normative copies stand in `format-spec/limits.toml`; a test compares the two. Nothing here depends on anything else.

use std::time::Duration;

/// Largest plaintext of one chunk, in bytes: 1 MiB.
///
/// Twice this is the floor of what one stream needs in memory. Readers refuse more.
pub const CHUNK_SIZE_MAX: u64 = 1 << 20;

/// Plaintext after which a segment is closed, in bytes: 1 MiB. A segment holds whole chunks, so that its plaintext is
/// below this plus one chunk.
pub const SEGMENT_SIZE_TARGET: u64 = 1 << 20;

/// Largest plaintext of one segment, in bytes: what [`SEGMENT_SIZE_TARGET`] and one more chunk can reach.
pub const SEGMENT_SIZE_MAX: u64 = SEGMENT_SIZE_TARGET + CHUNK_SIZE_MAX;

/// Largest base (compression prefix) of one segment, in bytes of plaintext.
pub const SEGMENT_BASE_SIZE_MAX: u64 = 2 << 20;

/// Most bases that must be decoded, one behind the other, before a segment can be.
pub const BASE_DEPTH_MAX: u32 = 4;

/// Bytes that sealing a segment adds: 24 of nonce and 16 of tag.
pub const SEGMENT_SEAL_OVERHEAD: u64 = 24 + 16;

/// Largest pack, in bytes as stored: 16 MiB.
///
/// Two open packs, the puts in flight and one Argon2id unlock must fit the promise of 150 MB resident memory.
pub const PACK_SIZE_MAX: u64 = 16 << 20;

/// Size at which writers close a pack, in bytes: 8 MiB, so that two open packs and two on their way take half of what
/// readers accept.
pub const PACK_SIZE_TARGET: u64 = 8 << 20;
const _: () = assert!(PACK_SIZE_TARGET <= PACK_SIZE_MAX && SEGMENT_SIZE_MAX + 4096 <= PACK_SIZE_TARGET);

/// Largest object of any other kind, in bytes as stored: 64 MiB. What a reader takes into memory unseen.
pub const OBJECT_SIZE_MAX: u64 = 64 << 20;

/// Largest plaintext of one sealed metadata object after decompression, in bytes.
pub const OBJECT_PLAIN_SIZE_MAX: u64 = 128 << 20;

/// Largest clear object (config, key slot, key file), in bytes.
pub const CLEAR_OBJECT_SIZE_MAX: u64 = 1 << 20;

/// Most levels of recipes between a manifest and the chunks of a stream.
///
/// Level one lists 32 768 chunks per MiB; four levels are beyond any stream that 64 bits can count.
pub const RECIPE_DEPTH_MAX: u8 = 4;

/// Most chunk ids that a manifest or a tree entry holds itself; a longer list becomes a recipe.
pub const RECIPE_INLINE_MAX: usize = 64;

/// Longest path of one artifact file, in bytes.
pub const TREE_PATH_SIZE_MAX: usize = 4096;

/// Shortest chunk that a profile for recipes and trees may ask for, in bytes: 32 ids, so that [`RECIPE_DEPTH_MAX`] levels
/// are beyond any stream.
pub const META_CHUNK_SIZE_MIN: u32 = 1 << 10;

/// Longest gap between the data of two members of a Neo4j dump's tar, in bytes: 1 MiB. Real ones are a few KiB.
pub const GAP_SIZE_MAX: usize = 1 << 20;

/// Longest header between a Neo4j container's start and its tar, in bytes: 64 KiB.
pub const PREFIX_SIZE_MAX: usize = 64 << 10;

/// New chunks after which a running `create` writes an index object and forgets them, so that memory stays flat.
pub const INDEX_FLUSH_CHUNKS: usize = 50_000;

/// Most chunks in one index object. Readers refuse more.
pub const INDEX_CHUNKS_MAX: usize = 1_000_000;

/// Largest piece in which bytes of a stream cross from tokio to the threads, in bytes.
pub const INPUT_BLOCK_SIZE_MAX: usize = 256 << 10;

/// Input blocks that wait between the reading of a stream and its cutting.
pub const INPUT_BLOCKS_AHEAD: usize = 4;

/// How long one lease lets a run put manifests that are not late; a further lease object extends it.
pub const LEASE_PERIOD: Duration = Duration::from_secs(6 * 3600);
/// Longest lease that a reader accepts: a dead run must not hold `prune` up for longer.
pub const LEASE_PERIOD_MAX: Duration = Duration::from_secs(24 * 3600);
const _: () = assert!(LEASE_PERIOD.as_secs() <= LEASE_PERIOD_MAX.as_secs());

/// How far listings may lag and clocks may differ while packs are deleted, at most; half of a shorter grace period.
pub const MARGIN_MAX: Duration = Duration::from_secs(600);

/// How long a condemned pack stays condemned after it is gone: a deleter that slept may still delete it, so that nobody may
/// make its name anew.
pub const MARK_KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// Argon2id memory of a new passphrase slot, in KiB: 64 MiB (RFC 9106, second recommended option).
pub const ARGON2_MEMORY_KIB: u32 = 64 << 10;
/// Argon2id passes of a new passphrase slot (RFC 9106, second recommended option).
pub const ARGON2_PASSES: u32 = 3;
/// Argon2id lanes of a new passphrase slot (RFC 9106, second recommended option).
pub const ARGON2_LANES: u32 = 4;
/// Least and most Argon2id memory that a reader accepts, in KiB; less is weak, more is an attack on the reader.
pub const ARGON2_MEMORY_KIB_RANGE: std::ops::RangeInclusive<u32> = 8192..=(1 << 20);
/// Least and most Argon2id passes that a reader accepts.
pub const ARGON2_PASSES_RANGE: std::ops::RangeInclusive<u32> = 1..=16;
/// Most Argon2id lanes that a reader accepts.
pub const ARGON2_LANES_RANGE: std::ops::RangeInclusive<u32> = 1..=16;

/// A file changed less than this before the last run began may have changed again within the clock's grain.
pub const FILE_RECENT: Duration = Duration::from_secs(2);

const _: () = assert!(
    SEGMENT_SIZE_MAX + SEGMENT_SEAL_OVERHEAD + 4096 <= PACK_SIZE_MAX,
    "a pack must hold one segment that does not compress"
);
const _: () = assert!(CHUNK_SIZE_MAX <= SEGMENT_SIZE_MAX, "a segment must hold one chunk");
