//! The values of which the format is made, read as bytes come.
//!
//! An integer is a sign byte (0 or 1) and four bytes, least first. A text is an integer, its length, and its bytes; a
//! negative length means "no text".

use super::error::CustomFormatError;
use crate::id::hex_of;

/// Bytes of a text that are kept; the rest is passed over. No name in PostgreSQL is longer than 63 bytes.
const TEXT_KEPT_MAX: usize = 1024;
const INT_SIZE: usize = 5;

/// How the next value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// So many bytes, at least one.
    Bytes(usize),
    /// An integer.
    Int,
    /// A text.
    Text,
    /// The bytes announced with [`Scanner::rest`].
    Rest,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Bytes(Vec<u8>),
    Int(i64),
    Text(Option<Vec<u8>>),
    Rest,
}

pub(super) struct Scanner {
    want: Want,
    /// Bytes of the value at hand; of a text, those kept.
    held: Vec<u8>,
    /// Bytes of a text, or of a rest, that are still to come; `None` while a text's length is read.
    left: Option<u64>,
    at: u64,
    token_start: u64,
}

impl Scanner {
    pub fn new(want: Want) -> Self {
        Self { want, held: Vec::new(), left: None, at: 0, token_start: 0 }
    }

    /// Bytes that were taken.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Where the value at hand began.
    pub fn token_start(&self) -> u64 {
        self.token_start
    }

    /// Whether no byte of the next value was taken yet.
    pub fn is_between(&self) -> bool {
        self.at == self.token_start
    }

    /// Says how the next value is written.
    pub fn expect(&mut self, want: Want) {
        self.want = want;
        self.token_start = self.at;
        self.held.clear();
        if want != Want::Rest {
            self.left = None;
        }
    }

    /// Says how long the next [`Want::Rest`] is: at least one byte.
    pub fn rest(&mut self, length: u64) {
        self.left = Some(length);
    }

    /// What is not a dump in the custom format, by its first bytes.
    pub fn not_custom(&self) -> CustomFormatError {
        match self.held.as_slice() {
            found if found.len() < 5 && b"PGDMP".starts_with(found) => {
                CustomFormatError::TruncatedHeader { at: self.at }
            }
            b"toc.d" => CustomFormatError::TarFormat,
            b"--\n--" => CustomFormatError::PlainFormat,
            found => CustomFormatError::NotCustom { found: hex_of(found) },
        }
    }

    /// Takes what belongs to the value at hand; gives the value once it is whole.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<Token>, CustomFormatError> {
        match self.want {
            Want::Bytes(size) => Ok(self.hold(input, size).then(|| Token::Bytes(self.held.clone()))),
            Want::Int => match self.hold(input, INT_SIZE) {
                true => self.int().map(|value| Some(Token::Int(value))),
                false => Ok(None),
            },
            Want::Text => self.text(input),
            Want::Rest => Ok(self.pass(input, 0).then_some(Token::Rest)),
        }
    }

    fn text(&mut self, input: &mut &[u8]) -> Result<Option<Token>, CustomFormatError> {
        if self.left.is_none() {
            if !self.hold(input, INT_SIZE) {
                return Ok(None);
            }
            let Ok(length) = u64::try_from(self.int()?) else {
                return Ok(Some(Token::Text(None)));
            };
            self.left = Some(length);
            self.held.clear();
        }
        Ok(self.pass(input, TEXT_KEPT_MAX).then(|| Token::Text(Some(std::mem::take(&mut self.held)))))
    }

    /// Holds bytes until `size` are held; says whether they are.
    fn hold(&mut self, input: &mut &[u8], size: usize) -> bool {
        let (taken, rest) = input.split_at(input.len().min(size - self.held.len()));
        self.held.extend_from_slice(taken);
        self.at += taken.len() as u64;
        *input = rest;
        self.held.len() == size
    }

    /// Passes over the bytes that are left, holding up to `kept` of them; says whether none is left.
    fn pass(&mut self, input: &mut &[u8], kept: usize) -> bool {
        let left = self.left.unwrap_or(0);
        let (taken, rest) = input.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(input.len()));
        self.held.extend(taken.iter().take(kept.saturating_sub(self.held.len())));
        self.at += taken.len() as u64;
        *input = rest;
        let left = left - taken.len() as u64;
        self.left = Some(left);
        left == 0
    }

    fn int(&self) -> Result<i64, CustomFormatError> {
        let [sign, magnitude @ ..] = *self.held.first_chunk::<INT_SIZE>().expect("a whole integer is held");
        let magnitude = i64::from(u32::from_le_bytes(magnitude));
        match sign {
            0 => Ok(magnitude),
            1 => Ok(-magnitude),
            _ => {
                let at = self.at - INT_SIZE as u64;
                Err(CustomFormatError::Malformed { what: "an integer without a sign", at })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_whole_only_with_its_last_byte() {
        let mut scanner = Scanner::new(Want::Text);
        let mut bytes: &[u8] = &[0, 2, 0, 0, 0, b'a'];
        assert_eq!(scanner.take(&mut bytes), Ok(None));
        assert_eq!(scanner.take(&mut b"b and more".as_slice()), Ok(Some(Token::Text(Some(b"ab".to_vec())))));
        assert_eq!(scanner.at(), 7);
    }

    #[test]
    fn a_long_text_is_kept_only_at_its_start() {
        let mut scanner = Scanner::new(Want::Text);
        let mut bytes = vec![0, 0, 0, 1, 0];
        bytes.extend(vec![b'x'; 1 << 16]);
        let Ok(Some(Token::Text(Some(text)))) = scanner.take(&mut bytes.as_slice()) else { panic!("no text") };
        assert_eq!(text.len(), TEXT_KEPT_MAX);
    }
}
