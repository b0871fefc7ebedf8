//! The walls of the house, which the compiler does not know: who may import whom, who may print, who may look at the
//! environment.
//!
//! The table of imports is the one in `docs/design/architecture.md`, "Who may import whom": it is read here, so that text
//! and code cannot differ. Only code that ships is judged; `#[cfg(test)]` items and `*_tests.rs` files are not.
//!
//! Does not: understand Rust. It blanks comments and literals and looks for paths, which is enough because no module here
//! hides another behind a macro or a re-export.

#[path = "architecture/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use source::{Source, imports, lines_with, ships, sources};

/// The page that has the table.
const PAGE: &str = include_str!("../docs/design/architecture.md");

/// How bytes are kept; the field wing must not know it.
const VAULT: [&str; 5] = ["format", "chunker", "seal", "storage", "repository"];

/// Where bytes come from; the vault wing must not know it.
const FIELD: [&str; 3] = ["deployment", "provider", "component"];

/// Most lines of one file, tests in it included.
const LINES_MAX: usize = 700;

/// Files above [`LINES_MAX`], with their size when they were let in and the reason. The list only gets shorter.
const LONG: [(&str, usize, &str); 0] = [];

/// Where the environment is looked at outside of `cli`, and why that is right.
const ENVIRONMENT: [(&str, &str); 1] =
    [("src/provider/secret.rs", "the configuration file names the variable that holds a secret")];

/// Modules that are pure: no file, no network, no clock, no entropy, no thread.
const PURE: [&str; 6] = ["chunker", "format", "id", "limits", "retention", "tree_entry"];

/// The modules of the table, each with what it may import.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let section = PAGE.split("## Who may import whom").nth(1).expect("the page has the section");
    let rows: Vec<(Vec<String>, String)> = section
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut cells = line.trim_matches('|').split('|');
            let mut cell = || cells.next().expect("a row has two cells").to_owned();
            (names(&cell()), cell())
        })
        .collect();
    let all: BTreeSet<String> = rows.iter().flat_map(|(modules, _)| modules.clone()).collect();
    let allowed = |cell: &str| -> BTreeSet<String> {
        let named: BTreeSet<String> = names(cell).into_iter().collect();
        if cell.contains("everything but") { all.difference(&named).cloned().collect() } else { named }
    };
    let mut table = BTreeMap::new();
    for (modules, cell) in &rows {
        for module in modules {
            let mut others = allowed(cell);
            others.remove(module);
            table.insert(module.clone(), others);
        }
    }
    table
}

/// The names in backticks.
fn names(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn listed(violations: Vec<String>, rule: &str) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

#[test]
fn no_module_imports_what_the_table_does_not_allow() {
    let table = table();
    let mut violations = Vec::new();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        let Some(allowed) = table.get(module) else {
            violations.push(format!("{}: module `{module}` is not in the table", source.path));
            continue;
        };
        for (line, imported) in imports(&source) {
            if imported != module && !allowed.contains(&imported) {
                violations.push(format!("{}:{line}: `{module}` may not import `{imported}`", source.path));
            }
        }
    }
    listed(violations, "imports against docs/design/architecture.md");
}

#[test]
fn every_module_of_the_table_exists() {
    let known: BTreeSet<String> = sources().iter().filter_map(|source| source.module().map(str::to_owned)).collect();
    let gone = table().into_keys().filter(|module| !known.contains(module)).collect();
    listed(gone, "modules of the table that are not in src");
}

#[test]
fn the_table_keeps_the_wings_apart() {
    let table = table();
    let mut violations = Vec::new();
    for (modules, strangers) in
        [(&FIELD[..], &VAULT[..]), (&VAULT[..], &FIELD[..]), (&["storage"][..], &["format"][..])]
    {
        for module in modules {
            for stranger in strangers.iter().filter(|stranger| table[*module].contains(**stranger)) {
                violations.push(format!("`{module}` is allowed `{stranger}`"));
            }
        }
    }
    for (module, allowed) in &table {
        if allowed.contains("cli") && module != "main" {
            violations.push(format!("`{module}` is allowed `cli`"));
        }
    }
    listed(violations, "the table itself breaks a rule");
}

#[test]
fn only_cli_prints() {
    let words = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];
    listed(found_outside(&["cli"], &words), "printing belongs to src/cli");
}

#[test]
fn only_cli_looks_at_the_environment_and_the_home_folder() {
    let words = ["std::env", "env::var", "env::var_os", "env::vars", "home_dir", "env::temp_dir", "env::current_dir"];
    let mut found = found_outside(&["cli", "main"], &words);
    found.retain(|violation| !ENVIRONMENT.iter().any(|(path, _)| violation.starts_with(path)));
    listed(found, "the environment belongs to src/cli");
}

#[test]
fn time_and_chance_come_only_through_env() {
    let words = ["Timestamp::now", "SystemTime::now", "Zoned::now", "getrandom::", "OsRng"];
    listed(found_outside(&["env", "cli"], &words), "use env::Clock and env::Entropy");
}

#[test]
fn pure_modules_touch_nothing_outside() {
    let words = ["std::fs", "std::net", "std::process", "std::thread", "std::time::Instant", "tokio::", "rustix::"];
    let pure = sources().into_iter().filter(|source| source.module().is_some_and(|module| PURE.contains(&module)));
    listed(pure.flat_map(|source| found_in(&source, &words)).collect(), "these modules do no input or output");
}

#[test]
fn nothing_unwraps_outside_tests() {
    let found = sources().iter().flat_map(|source| found_in(source, &[".unwrap()"])).collect();
    listed(found, "use `?`, or `expect` with the invariant");
}

#[test]
fn no_file_is_longer_than_one_can_read() {
    let mut violations = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        let allowed = LONG.iter().find(|(path, ..)| *path == source.path).map_or(LINES_MAX, |(_, lines, _)| *lines);
        if lines > allowed {
            violations.push(format!("{}: {lines} lines, {allowed} are allowed", source.path));
        }
    }
    listed(violations, "look for the seam");
}

#[test]
fn every_file_says_what_it_is() {
    let silent = |source: &&Source| !source.text.starts_with("//! ");
    listed(sources().iter().filter(silent).map(|source| source.path.clone()).collect(), "files without a header");
}

#[test]
fn unsafe_code_is_forbidden() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("src/lib.rs")).expect("the library has a root");
    assert!(ships(&text).contains("#![forbid(unsafe_code)]"));
}

/// Where tests may do what the compiler cannot check, and why.
const UNSAFE: [(&str, &str); 1] = [("tests/decoders.rs", "an allocator that counts")];

#[test]
fn what_the_compiler_cannot_check_is_denied_and_each_exception_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("Cargo.toml")).expect("a package");
    assert!(text.contains("[lints.rust]") && text.contains("unsafe_code = \"deny\""));
    let (mut found, mut folders) =
        (Vec::new(), ["src", "tests", "benches", "fuzz"].map(|name| root.join(name)).to_vec());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let skipped = ["target", "corpus", "artifacts"].iter().any(|name| entry.ends_with(name));
            if entry.is_dir() && !skipped {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&entry).expect("text");
                let name = entry.strip_prefix(root).expect("below").to_string_lossy().into_owned();
                let permits = ["#![allow(", "#[allow(", "#[expect("].map(|lint| format!("{lint}unsafe_code)]"));
                found.extend(permits.iter().filter(|permit| text.contains(*permit)).map(|_| name.clone()));
            }
        }
    }
    assert_eq!(found, UNSAFE.map(|(path, _)| path));
}

fn found_outside(modules: &[&str], words: &[&str]) -> Vec<String> {
    let outside = |source: &Source| source.module().is_none_or(|module| !modules.contains(&module));
    sources().iter().filter(|source| outside(source)).flat_map(|source| found_in(source, words)).collect()
}

fn found_in(source: &Source, words: &[&str]) -> Vec<String> {
    let found = lines_with(&ships(&source.text), words);
    found.into_iter().map(|(line, word)| format!("{}:{line}: {word}", source.path)).collect()
}

// What judges must be judged: each planted fault is found, each innocent look-alike is not.

fn imports_of(path: &str, text: &str) -> Vec<String> {
    let source = Source { path: path.to_owned(), text: text.to_owned() };
    imports(&source).into_iter().map(|(_, module)| module).collect()
}

#[test]
fn a_path_in_a_group_or_in_the_middle_of_a_line_is_an_import() {
    let text = "use crate::{format::{a, b}, seal::c};\nfn f() -> crate::ops::X { crate::cli::run() }";
    assert_eq!(imports_of("src/storage/local.rs", text), ["format", "seal", "ops", "cli"]);
}

#[test]
fn a_super_chain_that_leaves_its_module_is_an_import() {
    assert_eq!(imports_of("src/storage/local/disk.rs", "use super::super::super::format::X;"), ["format"]);
    assert_eq!(imports_of("src/storage/local/disk.rs", "use super::super::StoreError;"), [""; 0]);
    assert_eq!(imports_of("src/error.rs", "use super::{cli, ops::X};"), ["cli", "ops"]);
}

#[test]
fn comments_texts_and_tests_import_nothing() {
    let text = "//! [`crate::cli`]\n/* crate::ops */ const A: &str = \"crate::seal\"; const B: &str = r#\"\"crate::id\"#;\n\
                #[cfg(test)]\nmod tests { use crate::cli::X; fn f() { '{'; } }\nuse crate::format::Y;";
    assert_eq!(imports_of("src/seal/mod.rs", text), ["format"]);
}

#[test]
fn a_word_is_found_only_as_a_word() {
    let text = "sprintln!(); println!(\"print!\");\nlet printable = 1;";
    let found = lines_with(&ships(text), &["println!", "print!"]);
    assert_eq!(found, [(1, "println!".to_owned())]);
}
