//! What Infrahub's graph names in the artifact store.
//!
//! An attribute keeps each value that it ever had: `(:Attribute)-[:HAS_VALUE]->(:AttributeValue)`. A value is in use where the
//! relation is active and has no end, as those of its attribute and node, on whichever branch. What is not set is the text `NULL`.

use std::time::Duration;

/// How long the question may take: its answer has a row for each value.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Row by row, nothing is sorted or grouped: the server keeps nothing in memory. The attribute is found by its index. A node that was
/// deleted may leave its values open, so its own place in the graph is asked as well.
pub(super) const QUESTION: &str = "MATCH (a:Attribute {name: 'storage_id'})-[r:HAS_VALUE]->(v:AttributeValue) \
    WHERE v.value IS NOT NULL AND v.value <> 'NULL' AND v.value <> '' \
    RETURN toString(v.value) AS id, coalesce(r.status = 'active' AND r.to IS NULL, false) AND EXISTS { \
    MATCH (a)<-[h:HAS_ATTRIBUTE {status: 'active'}]-(:Node)-[p:IS_PART_OF {status: 'active'}]->(:Root) \
    WHERE h.to IS NULL AND p.to IS NULL } AS in_use";

/// Longest row that is understood, in bytes.
const ROW_SIZE_MAX: usize = 64 << 10;

/// Reads the rows that `cypher-shell --format plain` writes: `"id", TRUE`, behind a line of names.
#[derive(Default)]
pub(super) struct Rows {
    pending: Vec<u8>,
    has_names: bool,
}

impl Rows {
    /// Takes what was written next, and hands over whole rows.
    ///
    /// # Errors
    /// The row that has another form, shortened.
    pub(super) fn push(&mut self, piece: &[u8], take: &mut dyn FnMut(&str, bool)) -> Result<(), String> {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(&rest[..end]);
            let row = std::mem::take(&mut self.pending);
            self.row(&row, take)?;
            rest = &rest[end + 1..];
        }
        self.pending.extend_from_slice(rest);
        if self.pending.len() > ROW_SIZE_MAX { Err(shortened(&self.pending)) } else { Ok(()) }
    }

    /// Takes the end.
    ///
    /// # Errors
    /// As [`Rows::push`]. That nothing came is none: without rows there are no names.
    pub(super) fn finish(mut self, take: &mut dyn FnMut(&str, bool)) -> Result<(), String> {
        let row = std::mem::take(&mut self.pending);
        self.row(&row, take)?;
        Ok(())
    }

    fn row(&mut self, row: &[u8], take: &mut dyn FnMut(&str, bool)) -> Result<(), String> {
        let wrong = || shortened(row);
        let text = std::str::from_utf8(row).map_err(|_| wrong())?.trim();
        if text.is_empty() {
            return Ok(());
        }
        if !self.has_names {
            self.has_names = true;
            return if text == "id, in_use" { Ok(()) } else { Err(wrong()) };
        }
        let (id, in_use) = text.rsplit_once(", ").ok_or_else(wrong)?;
        let id = id.strip_prefix('"').and_then(|id| id.strip_suffix('"')).ok_or_else(wrong)?;
        let in_use = match in_use {
            "TRUE" => true,
            "FALSE" => false,
            _ => return Err(wrong()),
        };
        // As it writes texts: these two signs have a `\` before them.
        take(&id.replace("\\\"", "\"").replace("\\\\", "\\"), in_use);
        Ok(())
    }
}

fn shortened(row: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(row).chars().take(80).collect();
    format!("the answer has a row of another form: `{}`", text.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&str]) -> Result<Vec<(String, bool)>, String> {
        let (mut rows, mut found) = (Rows::default(), Vec::new());
        let mut take = |id: &str, in_use: bool| found.push((id.to_owned(), in_use));
        for piece in pieces {
            rows.push(piece.as_bytes(), &mut take)?;
        }
        rows.finish(&mut take)?;
        Ok(found)
    }

    #[test]
    fn rows_are_read_wherever_they_are_cut() {
        let found = read(&["id, in", "_use\n\"18e", "b-1\", TRUE\n\"b, \\\"c\", FA", "LSE"]).unwrap();
        assert_eq!(found, [("18eb-1".to_owned(), true), ("b, \"c".to_owned(), false)]);
        assert_eq!(read(&["id, in_use\n"]).unwrap(), []);
        assert_eq!(read(&[""]).unwrap(), [], "it writes no names where there are no rows");
    }

    #[test]
    fn a_row_of_another_form_is_an_error() {
        for text in ["something\n", "id, in_use\nNULL, TRUE\n", "id, in_use\n\"a\", maybe\n", "id, in_use\n\"a\"\n"] {
            assert!(read(&[text]).unwrap_err().contains("another form"), "{text}");
        }
    }
}
