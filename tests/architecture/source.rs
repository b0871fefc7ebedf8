//! Source files as `architecture.rs` sees them: code that ships, without comments, texts and tests.

use std::path::Path;

/// One file under `src`.
pub struct Source {
    /// Its path from the root of the project, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
}

impl Source {
    /// Its module path: `src/seal/pack.rs` is `seal`, `pack`; the crate's roots have none.
    fn module_path(&self) -> Vec<&str> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        if path == "lib" || path == "main" { vec![] } else { path.split('/').collect() }
    }

    /// The module of the table that it belongs to; `None` for `lib.rs`, which only names modules.
    pub fn module(&self) -> Option<&str> {
        match self.path.as_str() {
            "src/lib.rs" => None,
            "src/main.rs" => Some("main"),
            _ => self.module_path().first().copied(),
        }
    }
}

/// All files under `src` that ship.
pub fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut folders) = (Vec::new(), vec![root.join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources can be read") {
            let path = entry.expect("an entry can be read").path();
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).expect("a source is text");
                found.push(Source { path: name, text });
            }
        }
    }
    assert!(found.len() > 20, "the sources are where they were");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Modules at the root of the crate that a file names, with the line of each.
pub fn imports(source: &Source) -> Vec<(usize, String)> {
    let text = ships(&source.text);
    let depth = source.module_path().len();
    let mut found = Vec::new();
    for (start, _) in text.match_indices("::") {
        let before = &text[..start];
        let word = before.rfind(|c: char| !is_word(c)).map_or(0, |at| at + 1);
        let begins = !before[..word].ends_with("::");
        let root = match &before[word..] {
            "crate" | "infrahub_backup" => begins,
            // A chain of `super` reaches the root when it is as long as the module is deep.
            "super" => supers(before) == depth,
            _ => false,
        };
        if root {
            let line = before.lines().count();
            found.extend(names_at(&text[start + 2..]).into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// How many `super` end a text, joined by `::`.
fn supers(text: &str) -> usize {
    let mut rest = text;
    let mut count = 0;
    while let Some(shorter) = rest.strip_suffix("super") {
        count += 1;
        match shorter.strip_suffix("::") {
            Some(before) => rest = before,
            None => break,
        }
    }
    count
}

/// The name that a path goes on with, or the first names in its group.
fn names_at(text: &str) -> Vec<String> {
    let text = text.trim_start();
    let word = |text: &str| text.chars().take_while(|c| is_word(*c)).collect::<String>();
    let names = match text.strip_prefix('{') {
        None => vec![word(text)],
        Some(group) => first_names(group),
    };
    // Types and functions at the root are no modules; `super` goes on and is met again.
    names.into_iter().filter(|name| name.starts_with(char::is_lowercase) && name != "super" && name != "self").collect()
}

/// The first name of each path of a group whose opening brace was just read.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut part, mut names) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(std::mem::take(&mut part)),
            _ if depth == 0 => part.push(c),
            _ => {}
        }
    }
    names.push(part);
    names.iter().map(|part| part.trim().chars().take_while(|c| is_word(*c)).collect()).collect()
}

/// Lines that have one of these words, from 1.
pub fn lines_with(text: &str, words: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for word in words {
            let whole = |at: usize| {
                let before = line[..at].chars().next_back();
                !word.starts_with(is_word) || before.is_none_or(|c| !is_word(c))
            };
            if line.match_indices(word).any(|(at, _)| whole(at)) {
                found.push((number + 1, (*word).to_owned()));
            }
        }
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text with comments, literals and `#[cfg(test)]` items blanked; lines keep their numbers.
pub fn ships(text: &str) -> String {
    let mut code: Vec<char> = without_literals(text);
    let test: Vec<char> = "#[cfg(test)]".chars().collect();
    let mut at = 0;
    while at + test.len() <= code.len() {
        if code[at..at + test.len()] != test[..] {
            at += 1;
            continue;
        }
        let end = end_of_item(&code, at + test.len());
        blank(&mut code[at..end]);
        at = end;
    }
    code.into_iter().collect()
}

fn blank(code: &mut [char]) {
    for c in code.iter_mut().filter(|c| **c != '\n') {
        *c = ' ';
    }
}

/// Behind the item that begins at `at`: its semicolon or its closing brace.
fn end_of_item(code: &[char], at: usize) -> usize {
    let mut depth = 0;
    for (index, c) in code.iter().enumerate().skip(at) {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return index + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return index + 1,
            _ => {}
        }
    }
    code.len()
}

fn without_literals(text: &str) -> Vec<char> {
    let mut code: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < code.len() {
        let end = literal_end(&code, at);
        match end {
            Some(end) => {
                blank(&mut code[at..end]);
                at = end;
            }
            None => at += 1,
        }
    }
    code
}

/// Behind the comment or literal that begins at `at`; `None` if none does.
fn literal_end(code: &[char], at: usize) -> Option<usize> {
    let is = |offset: usize, c: char| code.get(at + offset) == Some(&c);
    let after_word = at > 0 && is_word(code[at - 1]);
    match code[at] {
        '/' if is(1, '/') => Some(position(code, at, "\n").unwrap_or(code.len())),
        '/' if is(1, '*') => Some(position(code, at + 2, "*/").map_or(code.len(), |end| end + 2)),
        '"' => Some(quoted_end(code, at + 1, '"')),
        'r' if !after_word || code[at - 1] == 'b' => {
            let hashes = code[at + 1..].iter().take_while(|c| **c == '#').count();
            let close: String = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let open = at + 1 + hashes;
            (code.get(open) == Some(&'"'))
                .then(|| position(code, open + 1, &close).map_or(code.len(), |end| end + close.len()))
        }
        // A character; anything else behind the mark is a lifetime.
        '\'' if is(1, '\\') => Some(quoted_end(code, at + 1, '\'')),
        '\'' if is(2, '\'') => Some(at + 3),
        _ => None,
    }
}

fn quoted_end(code: &[char], mut at: usize, quote: char) -> usize {
    while at < code.len() && code[at] != quote {
        at += if code[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(code.len())
}

fn position(code: &[char], from: usize, wanted: &str) -> Option<usize> {
    let wanted: Vec<char> = wanted.chars().collect();
    code.get(from..)?.windows(wanted.len()).position(|part| part == wanted).map(|offset| from + offset)
}
