//! Every MUST of the specification has an id, and a vector or test that shows it, or a reason why there is none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Requirements of which nothing is shown yet. The number only gets smaller.
const UNSHOWN_MAX: usize = 1;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

struct Row {
    id: String,
    words: String,
    shown_by: Vec<String>,
}

fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(root().join("format-spec/requirements.md")).expect("the table is there");
    let rows = text.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, words, shown] = cells[..] else { panic!("`{line}` is no row") };
        let shown_by = shown.split(", ").map(str::to_owned).collect();
        Row { id: id.to_owned(), words: words.to_owned(), shown_by }
    })
    .collect()
}

/// The numbered pages as one line each, by their numbers.
fn pages() -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(root().join("format-spec"))
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    paths.sort();
    let page = |path: PathBuf| {
        let number = path.file_name()?.to_str()?.get(..2)?.to_owned();
        let words: Vec<String> =
            std::fs::read_to_string(&path).expect("text").split_whitespace().map(str::to_owned).collect();
        number.parse::<u8>().ok().map(|_| (number, words.join(" ")))
    };
    paths.into_iter().filter_map(page).collect()
}

/// Names of all tests, and of all vectors.
fn known() -> BTreeSet<String> {
    let (mut known, mut folders) =
        (BTreeSet::new(), ["src", "tests", "format-spec/vectors"].map(|name| root().join(name)).to_vec());
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if path.is_dir() => folders.push(path),
                Some("txt") => drop(known.insert(stem)),
                Some("rs") => {
                    let text = std::fs::read_to_string(&path).expect("text");
                    let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
                    known.extend(names.map(str::to_owned));
                }
                Some(_) | None => {}
            }
        }
    }
    known
}

#[test]
fn every_requirement_stands_in_the_table_in_its_place() {
    let rows = rows();
    let mut expected = Vec::new();
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        let places: Vec<usize> = text.match_indices("MUST").map(|(at, _)| at).collect();
        for (number, at) in (1..).zip(places) {
            let id = format!("{page}.{number}");
            match rows.iter().find(|row| row.id == id) {
                None => wrong.push(format!(
                    "{id} is not in the table: …{}…",
                    text.get(at.saturating_sub(60)..at + 40).unwrap_or("MUST")
                )),
                Some(row) => {
                    let within = row.words.find("MUST").expect("the words of a requirement have a MUST");
                    let start = at.checked_sub(within);
                    if !start.is_some_and(|start| text[start..].starts_with(&row.words)) {
                        wrong.push(format!("{id} does not stand in `{}`", row.words));
                    }
                }
            }
            expected.push(id);
        }
    }
    wrong.extend(
        rows.iter().filter(|row| !expected.contains(&row.id)).map(|row| format!("{} is no requirement", row.id)),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(rows.len(), expected.len());
}

#[test]
fn what_shows_a_requirement_exists() {
    let known = known();
    let (mut wrong, mut unshown) = (Vec::new(), Vec::new());
    for row in rows() {
        if row.shown_by[0].starts_with("none: ") {
            unshown.push(row.id);
            continue;
        }
        for name in row.shown_by.iter().filter(|name| !known.contains(*name)) {
            wrong.push(format!("{}: there is no vector or test `{name}`", row.id));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(unshown.len() <= UNSHOWN_MAX, "nothing shows {unshown:?}");
}
