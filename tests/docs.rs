//! The documents: every relative link leads somewhere, every command that they tell to type exists, every whole
//! configuration file in them is one.
//!
//! Does not: look at links to the web, or at flags (the help transcripts of the command line do).

use std::path::{Path, PathBuf};

use infrahub_backup::provider::config::BespokeConfig;

/// The commands of this release, as the command line knows them.
const COMMANDS: [&str; 23] = [
    "completion",
    "create",
    "demo",
    "drill",
    "dump",
    "environment",
    "export",
    "forget",
    "import",
    "init",
    "key",
    "keygen",
    "prune",
    "replicate",
    "repair",
    "report",
    "restore",
    "resume",
    "snapshots",
    "status",
    "taskmanager",
    "verify",
    "version",
];

/// Subcommands of those that have some.
const SUBCOMMANDS: [(&str, &[&str]); 6] = [
    ("create", &["from-files"]),
    ("environment", &["detect", "list"]),
    ("key", &["add", "export", "list", "remove", "rotate"]),
    ("report", &["export", "list", "show", "verify"]),
    ("snapshots", &["diff", "hold", "list", "release", "show", "tag"]),
    ("taskmanager", &["flush"]),
];

/// Folders that hold no documents of ours.
const SKIPPED: [&str; 3] = ["target", "node_modules", ".git"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All documents, by their paths from the root.
fn documents() -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder can be read") {
            let path = entry.expect("an entry can be read").path();
            let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
            if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
                folders.push(path);
            } else if name.ends_with(".md") {
                let text = std::fs::read_to_string(&path).expect("a document is text");
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 10, "the documents are where they were");
    found.sort();
    found
}

/// A document without its fenced blocks.
fn prose(text: &str) -> String {
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// Targets of links that are files.
fn relative_links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
        .map(str::to_owned)
        .collect()
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn problem_of(document: &Path, link: &str) -> Option<String> {
    let (path, wanted) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() {
        document.to_owned()
    } else {
        document.parent().expect("a document lies in a folder").join(path)
    };
    if !target.exists() {
        return Some("is not there".to_owned());
    }
    if wanted.is_empty() || target.extension().is_none_or(|extension| extension != "md") {
        return None;
    }
    let text = std::fs::read_to_string(&target).expect("a document is text");
    let has = prose(&text).lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == wanted);
    (!has).then(|| format!("has no heading `{wanted}`"))
}

/// What stands behind each `infrahub-backup` that begins a command: its words up to the first flag or upper-case name.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in text.lines() {
        for (at, name) in line.match_indices("infrahub-backup ") {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || "-_./".contains(c)) && !line[..at].ends_with('/') {
                continue;
            }
            found.push(words_of(&line[at + name.len()..]));
        }
    }
    found
}

/// The subcommands that begin `rest`; flags before them, with their values, are passed over.
fn words_of(rest: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut all = rest.split_whitespace();
    while let Some(word) = all.next() {
        if word.starts_with("--") && words.is_empty() {
            // Flags without a value stand behind the command in our documents.
            all.next();
            continue;
        }
        let bare = word.trim_end_matches(|c: char| !c.is_alphanumeric());
        if bare.is_empty()
            || bare.starts_with('-')
            || !bare.chars().all(|c| c.is_ascii_lowercase() || c == '-')
            || words.len() == 2
        {
            break;
        }
        words.push(bare.to_owned());
        if bare != word {
            break;
        }
    }
    words
}

fn command_problem(words: &[String]) -> Option<String> {
    let command = words.first()?;
    if !COMMANDS.contains(&command.as_str()) {
        return Some(format!("there is no command `{command}`"));
    }
    let (_, known) = SUBCOMMANDS.iter().find(|(name, _)| name == command)?;
    let second = words.get(1)?;
    (!known.contains(&second.as_str())).then(|| format!("`{command}` has no subcommand `{second}`"))
}

/// Code in a document: fenced blocks, and spans in backticks.
fn code(text: &str) -> String {
    let fenced =
        text.split("\n```").skip(1).step_by(2).map(|block| block.split_once('\n').map_or("", |(_, code)| code));
    let spans = prose(text);
    let spans = spans.split('`').skip(1).step_by(2);
    fenced.chain(spans).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_relative_link_leads_to_something() {
    let mut problems = Vec::new();
    for (document, text) in documents() {
        for link in relative_links(&prose(&text)) {
            if let Some(problem) = problem_of(&document, &link) {
                problems
                    .push(format!("{}: `{link}` {problem}", document.strip_prefix(root()).expect("below").display()));
            }
        }
    }
    assert!(problems.is_empty(), "broken links:\n  {}", problems.join("\n  "));
}

#[test]
fn every_command_in_the_documents_exists() {
    let (mut problems, mut seen) = (Vec::new(), 0);
    for (document, text) in documents() {
        for words in commands(&code(&text)) {
            seen += 1;
            if let Some(problem) = command_problem(&words) {
                problems.push(format!("{}: {problem}", document.strip_prefix(root()).expect("below").display()));
            }
        }
    }
    assert!(seen > 20, "only {seen} commands were found: does this test still look at the right places?");
    assert!(problems.is_empty(), "commands that do not exist:\n  {}", problems.join("\n  "));
}

#[test]
fn every_configuration_file_in_the_documents_is_valid() {
    let (mut problems, mut seen) = (Vec::new(), 0);
    for (document, text) in documents() {
        let blocks = text.split("\n```toml\n").skip(1).filter_map(|rest| rest.split("\n```").next());
        for block in blocks.filter(|block| block.contains("[deployment]")) {
            seen += 1;
            if let Err(error) = BespokeConfig::parse(block, &document) {
                problems.push(error.to_string());
            }
        }
    }
    assert!(seen > 0, "the README shows a configuration file");
    assert!(problems.is_empty(), "configuration files that are refused:\n  {}", problems.join("\n  "));
}

#[test]
fn no_document_names_a_path_of_somebodys_machine() {
    let mut problems = Vec::new();
    for (document, text) in documents() {
        for part in ["/root/", "/home/", "/Users/"] {
            if text.contains(part) {
                problems.push(format!("{}: {part}", document.strip_prefix(root()).expect("below").display()));
            }
        }
    }
    assert!(problems.is_empty(), "paths of somebody's machine:\n  {}", problems.join("\n  "));
}

// What judges must be judged.

#[test]
fn a_command_that_does_not_exist_is_found() {
    let problem = |text: &str| commands(text).iter().find_map(|words| command_problem(words));
    assert_eq!(problem("infrahub-backup polish --keep-last 3"), Some("there is no command `polish`".to_owned()));
    assert_eq!(
        problem("infrahub-backup --repo R snapshots merge A B"),
        Some("`snapshots` has no subcommand `merge`".to_owned())
    );
    assert_eq!(problem("$ infrahub-backup restore latest --yes"), None);
    assert_eq!(problem("infrahub-backup create from-files --neo4j-path F; infrahub-backup verify"), None);
}

#[test]
fn a_link_to_nothing_is_found() {
    let here = root().join("README.md");
    assert_eq!(relative_links("[a](b.md) [c](https://example.org) ![d](e.png#f)"), ["b.md", "e.png#f"]);
    assert!(problem_of(&here, "no-such-file.md").is_some());
    assert!(problem_of(&here, "docs/design/architecture.md#who-may-import-whom").is_none());
    assert!(problem_of(&here, "docs/design/architecture.md#no-such-heading").is_some());
}
