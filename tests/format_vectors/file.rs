//! One vector as a text file: fields, a blank line, bytes in hexadecimal.

use infrahub_backup::id::{bytes_of_hex, hex_of};

/// Bytes in one line of hexadecimal.
const LINE_BYTES: usize = 48;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vector {
    pub name: String,
    pub kind: String,
    pub expect: String,
    fields: Vec<(String, String)>,
    pub bytes: Vec<u8>,
}

impl Vector {
    pub fn new(name: &str, kind: &str, expect: &str, comment: &str, bytes: Vec<u8>) -> Self {
        let fields = vec![("comment".to_owned(), comment.to_owned())];
        Self { name: name.to_owned(), kind: kind.to_owned(), expect: expect.to_owned(), fields, bytes }
    }

    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.fields.push((key.to_owned(), value.into()));
        self
    }

    pub fn with_hex(self, key: &str, value: &[u8]) -> Self {
        self.with(key, hex_of(value))
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub fn text_of(&self, key: &str) -> &str {
        self.get(key).unwrap_or_else(|| panic!("{} has no field `{key}`", self.name))
    }

    pub fn hex(&self, key: &str) -> Vec<u8> {
        bytes_of_hex(self.text_of(key)).unwrap_or_else(|| panic!("{}: `{key}` is not hexadecimal", self.name))
    }

    pub fn array<const N: usize>(&self, key: &str) -> [u8; N] {
        self.hex(key).try_into().unwrap_or_else(|_| panic!("{}: `{key}` is not {N} bytes", self.name))
    }

    pub fn text(&self) -> String {
        let mut text = format!("kind: {}\nexpect: {}\n", self.kind, self.expect);
        for (key, value) in &self.fields {
            text.push_str(&format!("{key}: {value}\n"));
        }
        text.push('\n');
        for line in self.bytes.chunks(LINE_BYTES) {
            text.push_str(&hex_of(line));
            text.push('\n');
        }
        text
    }

    pub fn parse(name: &str, text: &str) -> Self {
        let (head, body) = text.split_once("\n\n").unwrap_or_else(|| panic!("{name} has no blank line"));
        let split = |line: &str| line.split_once(": ").map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut fields: Vec<(String, String)> =
            head.lines().map(|line| split(line).unwrap_or_else(|| panic!("{name}: `{line}` is no field"))).collect();
        let mut take = |key: &str| {
            let at = fields.iter().position(|(name, _)| name == key);
            fields.remove(at.unwrap_or_else(|| panic!("{name} has no `{key}`"))).1
        };
        let (kind, expect) = (take("kind"), take("expect"));
        let bytes = bytes_of_hex(&body.lines().collect::<String>()).unwrap_or_else(|| panic!("{name}: no hexadecimal"));
        Self { name: name.to_owned(), kind, expect, fields, bytes }
    }
}
