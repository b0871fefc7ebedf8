//! What each stage of `create` costs, alone and together: `cargo bench --bench stages [-- MIB]`.
//!
//! One line for each stage: MB of plaintext a second, on one thread unless it says otherwise. The input is made from a
//! seed, so that two runs measure the same bytes. `benches/README.md` tells what each number decides.
//!
//! Does not: touch a disk, or judge. A number is compared by a person, on the same machine.

#[path = "../tests/support/backup.rs"]
mod backup;

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use infrahub_backup::chunker::{Chunker, CutSizes};
use infrahub_backup::env::{Clock, SystemClock, SystemEntropy};
use infrahub_backup::format::config::ProfileName;
use infrahub_backup::format::envelope::ObjectType;
use infrahub_backup::id::{ChunkId, ObjectId, SnapshotId};
use infrahub_backup::limits::{INPUT_BLOCK_SIZE_MAX, PACK_SIZE_MAX, SEGMENT_SIZE_TARGET};
use infrahub_backup::repository::budget::{BUDGET_BYTES_DEFAULT, Budget};
use infrahub_backup::repository::chunks::ChunkReader;
use infrahub_backup::repository::claim::Claims;
use infrahub_backup::repository::executor::RayonExecutor;
use infrahub_backup::repository::session::{InputBlock, SessionOptions};
use infrahub_backup::repository::stream::StreamReader;
use infrahub_backup::repository::{Outside, Repository};
use infrahub_backup::seal::pack::{CodedSegment, PackSealer};
use infrahub_backup::storage::Store;
use infrahub_backup::storage::object::RemoteStore;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Input if not said otherwise, in MiB: a second or so for the slowest stage, and more than all caches of a CPU.
const INPUT_MIB_DEFAULT: usize = 256;

/// Rounds of each stage; the fastest counts, since noise only ever slows down.
const ROUNDS: usize = 3;

fn main() -> Result<()> {
    // cargo adds `--bench`.
    let size = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(INPUT_MIB_DEFAULT);
    let input = Bytes::from(database_like(size << 20));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let repository = runtime.block_on(founded());

    println!("{size} MiB of rows, fastest of {ROUNDS} rounds, {} threads to burn", rayon_threads());
    println!("{:<28} {:>9}  notes", "stage", "MB/s");
    let lengths = chunk(&repository, &input);
    let ids = hash(&repository, &input, &lengths);
    let coded = compress(&input, &lengths);
    seal(&repository, &input, &coded);
    claim(&repository, &input, &ids, &lengths);
    whole(&runtime, &input)
}

/// Rows as a database dumps them: compressible about as well, and no two alike.
fn database_like(size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 256);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for row in 0_u64.. {
        if bytes.len() >= size {
            break;
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let noise = state >> 16;
        let level = 10 * (1 + row % 4);
        let line = format!(
            "{row}\t{:08x}-run\t{level}\tRendered artifact {noise:012x} for device {:04x} of branch main\tCOMPLETED\n",
            row / 50,
            noise % 9000,
        );
        bytes.extend_from_slice(line.as_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn rayon_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

async fn founded() -> Arc<Repository> {
    let store: Arc<dyn Store> = Arc::new(RemoteStore::memory());
    let key = backup::found(&store, &Outside::system()).await;
    backup::opened(&store, &key, None, &Outside::system()).await
}

/// Runs `work` a few times and tells the fastest; gives what it made last.
fn measure<T>(stage: &str, bytes: usize, note: impl Fn(&T) -> String, mut work: impl FnMut() -> T) -> T {
    let (mut fastest, mut made) = (Duration::MAX, None);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        made = Some(black_box(work()));
        fastest = fastest.min(start.elapsed());
    }
    let made = made.expect("there are rounds");
    tell(stage, bytes, fastest, &note(&made));
    made
}

fn tell(stage: &str, bytes: usize, took: Duration, note: &str) {
    println!("{stage:<28} {:>9.0}  {note}", bytes as f64 / 1e6 / took.as_secs_f64());
}

fn chunk(repository: &Repository, input: &Bytes) -> Vec<usize> {
    let profile = repository.config().profiles.dump;
    let size = |bytes: u32| usize::try_from(bytes).expect("usize has 32 bits or more");
    let sizes =
        CutSizes { min: size(profile.min), avg: size(profile.avg), max: size(profile.max), level: profile.level };
    let chunker = Chunker::new(sizes, repository.keys().cut_seed());
    let mean = |lengths: &Vec<usize>| format!("{} chunks, mean {} bytes", lengths.len(), input.len() / lengths.len());
    measure("chunk", input.len(), mean, || chunker.lengths(input, true))
}

fn pieces<'a>(input: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    lengths.iter().scan(0, |at, length| {
        let piece = &input[*at..*at + length];
        *at += length;
        Some(piece)
    })
}

fn hash(repository: &Repository, input: &Bytes, lengths: &[usize]) -> Vec<ChunkId> {
    let keys = repository.keys();
    measure(
        "hash (chunk ids)",
        input.len(),
        |_| "keyed BLAKE3".to_owned(),
        || pieces(input, lengths).map(|piece| keys.chunk_id(piece)).collect(),
    )
}

/// Segments as `create` makes them: whole chunks, closed at the target.
fn segments<'a>(input: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let (mut start, mut end, mut made) = (0, 0, Vec::new());
    for length in lengths {
        end += length;
        if (end - start) as u64 >= SEGMENT_SIZE_TARGET {
            made.push(&input[start..end]);
            start = end;
        }
    }
    if end > start {
        made.push(&input[start..end]);
    }
    made
}

fn compress(input: &Bytes, lengths: &[usize]) -> Vec<CodedSegment> {
    let segments = segments(input, lengths);
    let ratio = |coded: &Vec<CodedSegment>| {
        let stored: usize = coded.iter().map(CodedSegment::stored_length).sum();
        format!("to {:.1} %", stored as f64 * 100.0 / input.len() as f64)
    };
    measure("compress (segments)", input.len(), ratio, || {
        segments.iter().map(|segment| CodedSegment::encode(segment, &[])).collect()
    })
}

fn seal(repository: &Repository, input: &Bytes, coded: &[CodedSegment]) {
    let stored: usize = coded.iter().map(CodedSegment::stored_length).sum();
    let capacity = usize::try_from(PACK_SIZE_MAX).expect("16 MiB fit");
    let packs = measure(
        "seal (packs, named)",
        stored,
        |packs: &usize| format!("{packs} packs, MB/s of stored bytes"),
        || {
            let begin = || PackSealer::new(repository.keys(), &SystemEntropy, ObjectType::ContentPack, capacity);
            let (mut sealer, mut packs) = (begin(), 0);
            for segment in coded {
                if (sealer.size() + segment.stored_length()) as u64 > PACK_SIZE_MAX {
                    let full = std::mem::replace(&mut sealer, begin());
                    black_box(ObjectId::of(&full.finish()));
                    packs += 1;
                }
                sealer.push(&SystemEntropy, segment);
            }
            black_box(ObjectId::of(&sealer.finish()));
            packs + 1
        },
    );
    assert!(packs > 0, "{} bytes fill a pack", input.len());
}

fn claim(repository: &Repository, input: &Bytes, ids: &[ChunkId], lengths: &[usize]) {
    let start = Instant::now();
    let claims =
        Claims::new(Arc::clone(repository.cache()), std::collections::HashSet::new()).expect("the cache answers");
    for (id, length) in ids.iter().zip(lengths) {
        black_box(claims.claim(0, id, *length as u64).expect("the cache answers"));
    }
    let took = start.elapsed();
    tell(
        "claim (none known)",
        input.len(),
        took,
        &format!("{:.0} ns a chunk", took.as_nanos() as f64 / ids.len() as f64),
    );
}

/// Stream to durable snapshot, the same again, and back: over a store in memory.
fn whole(runtime: &tokio::runtime::Runtime, input: &Bytes) -> Result<()> {
    let (mut first, mut again, mut back) = (Duration::MAX, Duration::MAX, Duration::MAX);
    let mut stored = (0, 0);
    for _ in 0..ROUNDS {
        runtime.block_on(async {
            let repository = founded().await;
            let start = Instant::now();
            let (id, new) = create(&repository, input).await?;
            first = first.min(start.elapsed());
            let start = Instant::now();
            let (_, more) = create(&repository, input).await?;
            again = again.min(start.elapsed());
            let start = Instant::now();
            let length = read_back(&repository, &id, input).await?;
            back = back.min(start.elapsed());
            assert_eq!(length, input.len(), "what comes back is what went in");
            stored = (new, more);
            Ok::<(), Box<dyn Error>>(())
        })?;
    }
    let note = |stored: u64| format!("{:.1} MB stored, all threads", stored as f64 / 1e6);
    tell("create into memory", input.len(), first, &note(stored.0));
    tell("create, nothing changed", input.len(), again, &note(stored.1));
    tell("read back, hashed", input.len(), back, "all threads");
    Ok(())
}

async fn create(repository: &Arc<Repository>, input: &Bytes) -> Result<(SnapshotId, u64)> {
    let budget = Budget::new(BUDGET_BYTES_DEFAULT)?;
    let options = SessionOptions { budget, executor: Arc::new(RayonExecutor), stage: None };
    let session = repository.write(options).await?;
    let mut component = session.component().await;
    let mut stream = component.content(ProfileName::Dump);
    let mut at = 0;
    while at < input.len() {
        let end = (at + INPUT_BLOCK_SIZE_MAX).min(input.len());
        let permit = session.budget().acquire((end - at) as u64).await;
        let block = InputBlock { bytes: input.slice(at..end), border: false, permit: Some(permit) };
        component.write(&mut stream, block).await?;
        at = end;
    }
    let (record, _) = component.end_as("content", stream).await?;
    component.finish().await?;
    let index = backup::finish(&session).await?;
    let stored = session.stored_bytes().await;
    let manifest = backup::manifest(SystemClock.now(), record, index.indexes());
    Ok((session.commit(&manifest, &index).await?, stored))
}

async fn read_back(repository: &Arc<Repository>, id: &SnapshotId, input: &Bytes) -> Result<usize> {
    let manifest = repository.manifest(id).await?;
    let stream = &manifest.components[0].streams[0];
    let reader = Arc::new(ChunkReader::new(Arc::clone(repository), Arc::new(RayonExecutor)));
    let mut stream = StreamReader::new(reader, &stream.root, stream.length)?;
    let mut length = 0;
    while let Some(piece) = stream.next().await? {
        assert!(input[length..].starts_with(&piece), "byte {length} and following came back different");
        length += piece.len();
    }
    Ok(length)
}
