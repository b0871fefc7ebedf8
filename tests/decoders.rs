//! Decoders of bytes that come from elsewhere: every seed and thousands of mutations of the seeds neither panic, nor make a
//! decoder take more memory than the input allows, nor are accepted and then say something else.
//!
//! The mutations are the same in every run. `fuzz/run` looks for others, for as long as one likes.

// The allocator is asked how much a decoder takes, and only an allocator of one's own can tell. It passes everything on.
#![allow(unsafe_code)]

#[path = "decoders/all.rs"]
mod decoders;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use decoders::{ALL, Decoder};

/// Mutations of the seeds of one decoder.
const MUTATIONS: usize = 1500;

/// Largest input, in bytes: that of the seeds, and some more.
const INPUT_SIZE_MAX: usize = 64 << 10;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, which counts for each thread.
struct Counting;

fn count(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

fn size(layout: Layout) -> isize {
    isize::try_from(layout.size()).expect("no layout is larger")
}

// SAFETY: all calls are passed on with the arguments that they came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout));
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-size(layout));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes that `work` had at one time beyond what there was before.
fn peak_of(work: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    work();
    usize::try_from(PEAK.get() - before).expect("it does not shrink")
}

/// Numbers that nobody chose, the same in every run.
struct Chance(blake3::OutputReader);

impl Chance {
    fn of(seed: &str) -> Self {
        Self(blake3::Hasher::new().update(seed.as_bytes()).finalize_xof())
    }

    fn below(&mut self, end: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % end.max(1) as u64).expect("it is below a usize")
    }
}

/// What decoders trip over: ends of ranges, little endian.
const INTERESTING: [u32; 8] = [0, 1, 0x7f, 0xff, 0xffff, 1 << 20, 0x7fff_ffff, u32::MAX];

fn mutated(seeds: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = seeds[chance.below(seeds.len())].clone();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len());
        let span = chance.below(16).min(bytes.len() - at);
        match chance.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(chance.below(256)).expect("a byte"),
            2 => drop(bytes.drain(at..at + span)),
            3 => bytes.truncate(at),
            4 => drop(bytes.splice(at..at, bytes[at..at + span].to_vec())),
            5 => {
                let other = &seeds[chance.below(seeds.len())];
                let from = chance.below(other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let number = INTERESTING[chance.below(INTERESTING.len())].to_le_bytes();
                let width = [1, 2, 4][chance.below(3)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
        }
    }
    bytes.truncate(INPUT_SIZE_MAX);
    bytes
}

/// What is wrong with a decoder on this input.
fn fault(decoder: &Decoder, input: &[u8]) -> Option<String> {
    let mut peak = 0;
    let ran = catch_unwind(AssertUnwindSafe(|| peak = peak_of(|| (decoder.run)(input))));
    let most = decoder.least + decoder.factor * input.len();
    match ran {
        Err(_) => Some("it panicked".to_owned()),
        Ok(()) if peak > most => Some(format!("it took {peak} bytes of memory, {most} are allowed")),
        Ok(()) => None,
    }
}

/// Keeps an input that found something, so that it can be committed to `fuzz/found`.
fn keep(decoder: &Decoder, input: &[u8]) -> PathBuf {
    let name = format!("{}-{}", decoder.name, &blake3::hash(input).to_hex()[..16]);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, input).expect("written");
    path
}

#[test]
fn no_decoder_trips_over_its_seeds_or_their_mutations() {
    let mut faults = Vec::new();
    for decoder in &ALL {
        let seeds = decoder.seeds();
        assert!(seeds.len() > 1, "{} has no seeds", decoder.name);
        let mut chance = Chance::of(decoder.name);
        let mutations: Vec<Vec<u8>> = (0..MUTATIONS).map(|_| mutated(&seeds, &mut chance)).collect();
        for input in seeds.iter().chain(&mutations) {
            if let Some(fault) = fault(decoder, input) {
                faults.push(format!("{}: {fault}: {}", decoder.name, keep(decoder, input).display()));
                break;
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_decoder_that_takes_too_much_or_panics_is_found() {
    let greedy = |bytes: &[u8]| drop(Vec::<u8>::with_capacity(bytes.len() << 20));
    let decoder = |run| Decoder { run, ..ALL[0] };
    assert!(fault(&decoder(greedy), b"four").is_some_and(|fault| fault.contains("bytes of memory")));
    assert_eq!(fault(&decoder(|_| panic!("it trips")), b"four"), Some("it panicked".to_owned()));
    assert_eq!(fault(&decoder(|_| {}), b"four"), None);
}

#[test]
fn every_decoder_has_a_fuzz_target_and_every_target_a_decoder() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let files = std::fs::read_dir(folder).expect("the targets are there");
    let mut targets: Vec<String> = files
        .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    targets.sort();
    let mut names: Vec<&str> = ALL.iter().map(|decoder| decoder.name).collect();
    names.sort_unstable();
    assert_eq!(targets, names);
}

/// Writes the seeds for `fuzz/run`.
#[test]
fn seeds_are_written_where_they_are_asked_for() {
    let Some(folder) = std::env::var_os("INFRAHUB_FUZZ_SEEDS").map(PathBuf::from) else { return };
    for decoder in &ALL {
        let folder = folder.join(decoder.name);
        std::fs::create_dir_all(&folder).expect("a folder");
        for seed in decoder.seeds() {
            std::fs::write(folder.join(&blake3::hash(&seed).to_hex()[..16]), seed).expect("written");
        }
    }
}
