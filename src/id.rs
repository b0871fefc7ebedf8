//! Identifiers: distinct types over bytes, with one written form, lower-case hexadecimal.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not an identifier of the wanted length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {digits} hexadecimal digits")]
pub struct ParseIdError {
    text: String,
    digits: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $size]);

        impl $name {
            /// Length in bytes.
            pub const SIZE: usize = $size;

            /// Takes the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $size]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }

            /// The written form: lower-case hexadecimal, two digits a byte.
            pub fn to_hex(&self) -> String {
                hex_of(&self.0)
            }

            /// The first eight digits, for people.
            pub fn short(&self) -> String {
                hex_of(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = || ParseIdError { text: text.to_owned(), digits: $size * 2 };
                let bytes = bytes_of_hex(text).ok_or_else(error)?;
                Ok(Self(bytes.try_into().map_err(|_| error())?))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_hex())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// Names a chunk: BLAKE3 of its plaintext, keyed with the repository's id key.
    ChunkId, 32
}
id! {
    /// Names a stored object: BLAKE3 of its stored bytes, without a key.
    ObjectId, 32
}
id! {
    /// Names a repository: random, made by `init`.
    RepositoryId, 16
}
id! {
    /// Names a key slot: random, kept when the slot's object is written anew.
    SlotId, 16
}
id! {
    /// Names one run of one operation: random.
    RunId, 16
}

/// A snapshot is named by the object of its manifest.
pub type SnapshotId = ObjectId;
/// A pack is named by its object.
pub type PackId = ObjectId;

impl ObjectId {
    /// The name that these stored bytes must have.
    pub fn of(stored: &[u8]) -> Self {
        Self(*blake3::hash(stored).as_bytes())
    }
}

/// The name of an object inside a store: parts of `a-z`, `0-9`, `-`, `_` and `.`, joined by `/`, relative, never `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// Takes a name that the caller built from identifiers.
    ///
    /// # Panics
    /// If the name breaks the rule above: names are built by the repository, never taken from outside.
    pub fn new(name: impl Into<String>) -> Self {
        Self::parse(name.into()).expect("the repository builds valid object names")
    }

    /// Takes a name found in a store; `None` if it breaks the rule above.
    pub fn parse(name: String) -> Option<Self> {
        let part_ok = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
        };
        name.split('/').all(part_ok).then_some(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part of the name.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().expect("a split has a last part")
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lower-case hexadecimal of `bytes`.
pub fn hex_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The bytes that `text` writes in lower-case hexadecimal; `None` for anything else, upper case included.
pub fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_written_form() {
        let id = ObjectId::of(b"stored");
        assert_eq!(id.to_hex().parse(), Ok(id));
    }

    #[test]
    fn upper_case_odd_and_short_texts_are_refused() {
        let hex = ObjectId::of(b"stored").to_hex();
        for text in [hex.to_uppercase(), hex[1..].to_owned(), hex[2..].to_owned(), format!("{}zz", &hex[2..])] {
            assert!(text.parse::<ObjectId>().is_err(), "{text}");
        }
    }
}
