//! What goes to standard output: text or one JSON document.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use crate::error::ErrorKind;

/// Standard output.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    /// Whether results are JSON.
    pub json: bool,
    /// Whether only what must be looked at is told.
    pub quiet: bool,
}

impl Out {
    /// Writes what an operation did, and gives its exit. For people who want to be told only what must be looked at, plain
    /// success goes without saying.
    pub fn done(self, exit: Exit, document: &impl Serialize, text: impl FnOnce() -> String) -> Result<Exit, Failure> {
        if self.json || !self.quiet || exit != Exit::Done {
            self.result(document, text)?;
        }
        Ok(exit)
    }

    /// Writes what somebody asked to see: the document, or the lines.
    pub fn result(self, document: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json {
            let document = serde_json::to_string_pretty(document).expect("a document is plain data");
            write(&format!("{document}\n"))
        } else {
            write(&text())
        }
    }
}

/// Writes text to standard output. That the reader went away (`| head`) is no failure: it has what it wanted.
pub fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("standard output could not be written", error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The error of a stream whose reader went away before its end.
pub fn reader_gone() -> Failure {
    Failure::new(ErrorKind::Incomplete, "standard output was closed before everything was written")
}

/// Bytes for people: decimal units, three digits.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // Precision is lost far behind the digits that are shown.
    #[expect(clippy::cast_precision_loss)]
    let mut number = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if number < 999.5 {
            break;
        }
        number /= 1000.0;
        unit = next;
    }
    if number < 9.995 {
        format!("{number:.2} {unit}")
    } else if number < 99.95 {
        format!("{number:.1} {unit}")
    } else {
        format!("{number:.0} {unit}")
    }
}

/// A moment for people and scripts: UTC, whole seconds.
pub fn time(moment: Timestamp) -> String {
    format!("{moment:.0}")
}

/// A length of time for people, in its two largest units: `3 d 4 h`.
pub fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (length, unit) in UNITS {
        if left >= length {
            parts.push(format!("{} {unit}", left / length));
            left %= length;
        } else if !parts.is_empty() {
            break;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

/// Milliseconds for people: `1.234 s`; from a minute on as a [`span`].
pub fn millis(millis: u64) -> String {
    if millis < 60_000 { format!("{}.{:03} s", millis / 1000, millis % 1000) } else { span(millis / 1000) }
}

/// Rows under a heading, in columns as wide as needed; the columns in `right` are aligned right.
pub fn table(heading: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&heading).chain(rows).collect();
    let widths: Vec<usize> =
        (0..heading.len()).map(|column| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    all.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let shown = [0, 999, 1000, 12_345, 999_499, 999_999, 5_000_000_000].map(size);
        assert_eq!(shown, ["0 B", "999 B", "1.00 kB", "12.3 kB", "999 kB", "1.00 MB", "5.00 GB"]);
    }

    #[test]
    fn spans_have_two_units() {
        let shown = [0, 59, 60, 3661, 86_400, 273_600, 86_460].map(span);
        assert_eq!(shown, ["0 s", "59 s", "1 min", "1 h 1 min", "1 d", "3 d 4 h", "1 d"]);
    }

    #[test]
    fn milliseconds_are_told_up_to_a_minute() {
        assert_eq!([0, 59_999, 60_000, 3_661_000].map(millis), ["0.000 s", "59.999 s", "1 min", "1 h 1 min"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &[1], &rows), "NAME   N\na      1\nlong  22\n");
    }
}
