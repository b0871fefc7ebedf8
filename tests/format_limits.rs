//! The numbers of the format stand in three places, `src/limits.rs`, `format-spec/limits.toml` and the text of the
//! specification, and must be the same in all.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use infrahub_backup::limits;

/// Constants of `src/limits.rs` that a repository does not show.
const NOT_OF_THE_FORMAT: [&str; 3] = ["INPUT_BLOCK_SIZE_MAX", "INPUT_BLOCKS_AHEAD", "FILE_RECENT"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A limit as the specification writes it: `7`, or `1..=7`.
fn range(range: &RangeInclusive<u32>) -> String {
    format!("{}..={}", range.start(), range.end())
}

fn in_code() -> BTreeMap<&'static str, String> {
    macro_rules! numbers {
        ($($name:ident),* $(,)?) => { [$((stringify!($name), limits::$name.to_string())),*] };
    }
    let numbers = numbers![
        CHUNK_SIZE_MAX,
        SEGMENT_SIZE_TARGET,
        SEGMENT_SIZE_MAX,
        SEGMENT_BASE_SIZE_MAX,
        BASE_DEPTH_MAX,
        SEGMENT_SEAL_OVERHEAD,
        PACK_SIZE_MAX,
        OBJECT_SIZE_MAX,
        OBJECT_PLAIN_SIZE_MAX,
        CLEAR_OBJECT_SIZE_MAX,
        RECIPE_DEPTH_MAX,
        RECIPE_INLINE_MAX,
        TREE_PATH_SIZE_MAX,
        META_CHUNK_SIZE_MIN,
        GAP_SIZE_MAX,
        PREFIX_SIZE_MAX,
        PACK_SIZE_TARGET,
        INDEX_FLUSH_CHUNKS,
        INDEX_CHUNKS_MAX,
        ARGON2_MEMORY_KIB,
        ARGON2_PASSES,
        ARGON2_LANES,
    ];
    let others = [
        ("LEASE_PERIOD", limits::LEASE_PERIOD.as_secs().to_string()),
        ("LEASE_PERIOD_MAX", limits::LEASE_PERIOD_MAX.as_secs().to_string()),
        ("MARGIN_MAX", limits::MARGIN_MAX.as_secs().to_string()),
        ("MARK_KEEP", limits::MARK_KEEP.as_secs().to_string()),
        ("ARGON2_MEMORY_KIB_RANGE", range(&limits::ARGON2_MEMORY_KIB_RANGE)),
        ("ARGON2_PASSES_RANGE", range(&limits::ARGON2_PASSES_RANGE)),
        ("ARGON2_LANES_RANGE", range(&limits::ARGON2_LANES_RANGE)),
    ];
    numbers.into_iter().chain(others).collect()
}

fn in_toml() -> BTreeMap<String, String> {
    let table: toml::Table = read(&path("format-spec/limits.toml")).parse().expect("limits.toml is TOML");
    let written = |entry: &toml::Value| match entry.get("value") {
        Some(value) => value.to_string(),
        None => format!("{}..={}", entry["min"], entry["max"]),
    };
    for (name, entry) in &table {
        assert!(entry.get("unit").is_some_and(toml::Value::is_str), "{name} has no unit");
    }
    table.iter().map(|(name, entry)| (name.clone(), written(entry))).collect()
}

/// Every `` `NAME` = number `` in the text: where, name, number.
fn in_text() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path("format-spec")).expect("the specification is there") {
        let file = entry.expect("listed").path();
        if file.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = read(&file);
        for (at, _) in text.match_indices("` = ") {
            let name = text[..at].rsplit('`').next().expect("a split has a last part");
            let is_limit =
                name.len() > 2 && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
            if is_limit {
                let number = text[at + 4..].split(|c: char| !(c.is_ascii_digit() || ".=".contains(c)));
                let number =
                    number.map(|number| number.trim_end_matches('.')).next().expect("a split has a first part");
                let place = file.file_name().expect("a file").to_string_lossy().into_owned();
                found.push((place, name.to_owned(), number.to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_limit_of_the_code_stands_in_limits_toml_with_its_value() {
    let code: BTreeMap<String, String> = in_code().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(in_toml(), code);
}

#[test]
fn no_constant_of_the_code_is_forgotten() {
    let source = read(&path("src/limits.rs"));
    let constants = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let known: BTreeSet<&str> = in_code().into_keys().chain(NOT_OF_THE_FORMAT).collect();
    let found: BTreeSet<&str> = constants.collect();
    assert_eq!(found, known, "a new constant belongs into limits.toml or into NOT_OF_THE_FORMAT");
}

#[test]
fn every_number_that_the_text_names_is_the_one_of_limits_toml() {
    let limits = in_toml();
    let text = in_text();
    for (place, name, number) in &text {
        assert_eq!(Some(number), limits.get(name), "{place} says {name} = {number}");
    }
    let named: BTreeSet<&String> = text.iter().map(|(_, name, _)| name).collect();
    assert_eq!(named, limits.keys().collect(), "the text must name every limit with its number");
}
