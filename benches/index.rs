//! The local index at size: how long it takes to open, what it holds in memory, how many chunks it finds in a second.
//!
//! `INFRAHUB_INDEX_CHUNKS=100000000 cargo bench --bench index` makes a synthetic index of that many chunks (default one million)
//! in a folder of its own below INFRAHUB_INDEX_DIR (default: the system's temporary folder; 100 bytes a chunk), opens it in a
//! fresh process, and removes it. What the numbers decide: docs/design/decisions/0006-sqlite-cache.md.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use infrahub_backup::format::envelope::ObjectType;
use infrahub_backup::format::index::{ChunkEntry, Index, PackEntry, SegmentEntry, SegmentKind};
use infrahub_backup::id::{ChunkId, ObjectId};
use infrahub_backup::repository::cache::Cache;

/// Chunks of one index object, of one pack and of one segment, as a backup of a database makes them.
const CHUNKS_OF_AN_INDEX: u64 = 50_000;
const CHUNKS_OF_A_PACK: u64 = 320;
const CHUNKS_OF_A_SEGMENT: u64 = 40;

/// Chunks that are looked up, half of them there.
const LOOKUPS: u64 = 200_000;

/// The `n`th id of `count`, in ascending order over the whole range: so that a B-tree of many gigabytes is made in minutes.
fn chunk_id(n: u64, count: u64) -> ChunkId {
    let mut id = *blake3::hash(&n.to_le_bytes()).as_bytes();
    id[..8].copy_from_slice(&(u64::MAX / count * n).to_be_bytes());
    ChunkId::from_bytes(id)
}

fn pack(first: u64, end: u64, count: u64) -> PackEntry {
    let (mut segments, mut offset) = (Vec::new(), 108);
    for start in (first..end).step_by(usize::try_from(CHUNKS_OF_A_SEGMENT).expect("small")) {
        let chunks = (start..(start + CHUNKS_OF_A_SEGMENT).min(end))
            .map(|n| ChunkEntry { id: chunk_id(n, count), length: 25_000 })
            .collect();
        let stored_length = 180_000;
        segments.push(SegmentEntry {
            kind: SegmentKind::Chunks,
            offset,
            stored_length,
            depth: 0,
            base: vec![],
            chunks,
        });
        offset += stored_length;
    }
    let id = ObjectId::of(&first.to_le_bytes());
    PackEntry { id, kind: ObjectType::ContentPack, stored_size: offset, segments }
}

fn build(path: &Path, count: u64) {
    let cache = Cache::open(path).expect("a cache");
    let began = Instant::now();
    for first in (0..count).step_by(usize::try_from(CHUNKS_OF_AN_INDEX).expect("small")) {
        let end = (first + CHUNKS_OF_AN_INDEX).min(count);
        let packs = (first..end)
            .step_by(usize::try_from(CHUNKS_OF_A_PACK).expect("small"))
            .map(|start| pack(start, (start + CHUNKS_OF_A_PACK).min(end), count))
            .collect();
        let index = Index { supersedes: vec![], packs };
        cache.add_index(&ObjectId::of(&first.to_be_bytes()), &index).expect("added");
    }
    drop(cache);
    let size = std::fs::metadata(path).expect("it is there").len();
    println!("made an index of {count} chunks in {:.0} s: {size} bytes", began.elapsed().as_secs_f64());
}

/// A line of /proc/self/status, in KiB.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(field)).expect("the field is there");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

fn measure(path: &Path, count: u64) {
    let began = Instant::now();
    let cache = Cache::open(path).expect("a cache");
    let indexes = cache.known_indexes().expect("listed").len();
    let packs = cache.packs().expect("listed").len();
    println!("open, {indexes} index objects and {packs} packs listed: {:.2} s", began.elapsed().as_secs_f64());
    println!("resident after opening: {} MiB", memory("VmRSS:") >> 10);
    let began = Instant::now();
    let mut found = 0;
    for n in 0..LOOKUPS {
        let wanted = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % count;
        let mut id = *chunk_id(wanted, count).as_bytes();
        // Every second one is not there: a new chunk of a backup.
        id[31] ^= u8::from(n % 2 == 1);
        found += u64::from(!cache.find_all(&ChunkId::from_bytes(id)).expect("looked up").is_empty());
    }
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(found, LOOKUPS / 2);
    println!("{LOOKUPS} lookups at random, half of them found: {:.0} a second", LOOKUPS as f64 / seconds);
    println!("resident at most: {} MiB", memory("VmHWM:") >> 10);
}

fn main() {
    let count = std::env::var("INFRAHUB_INDEX_CHUNKS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    if let Some(path) = std::env::var_os("INFRAHUB_INDEX_MEASURE") {
        return measure(Path::new(&path), count);
    }
    let place = std::env::var_os("INFRAHUB_INDEX_DIR").map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(place).expect("a folder");
    let path = folder.path().join("cache.sqlite");
    build(&path, count);
    // The second time the file is in the system's memory: a warm cache.
    for _ in 0..2 {
        let this = std::env::current_exe().expect("a program knows itself");
        let status = Command::new(this).env("INFRAHUB_INDEX_MEASURE", &path).status().expect("it starts");
        assert!(status.success());
    }
}
