//! Pure codecs between stored bytes and types: no I/O, no clock, no entropy, no keys.
//!
//! Holds: every decoder refuses what its encoder cannot have written, and allocates no more than the input allows.
//! Normative text: `format-spec/`.

pub mod bytes;
pub mod config;
pub mod envelope;
pub mod identity;
pub mod index;
pub mod key_file;
pub mod key_slot;
pub mod layout;
pub mod lease;
pub mod manifest;
pub mod mark;
pub mod report;
pub mod tree;
mod unique;

/// Version of the repository format that this code reads and writes.
pub const FORMAT_VERSION: u8 = 1;

/// Why bytes are not a valid object. Display names what is wrong and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The input ends inside a field.
    #[error("the {what} ends early, {missing} bytes are missing")]
    Truncated {
        /// What was decoded.
        what: &'static str,
        /// How many bytes are missing.
        missing: usize,
    },
    /// Bytes are left after the last field.
    #[error("{extra} bytes follow the end of the {what}")]
    Trailing {
        /// What was decoded.
        what: &'static str,
        /// How many bytes are left.
        extra: usize,
    },
    /// The first bytes are not this project's.
    #[error("the {what} does not begin with the bytes of this format")]
    Magic {
        /// What was decoded.
        what: &'static str,
    },
    /// A newer or unknown version.
    #[error("the {what} has format version {found}, this program knows {known}")]
    Version {
        /// What was decoded.
        what: &'static str,
        /// The version found.
        found: u64,
        /// The version known.
        known: u8,
    },
    /// A count or length beyond its limit.
    #[error("{what} is {found}, the limit is {limit}")]
    Limit {
        /// The field.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The largest (or smallest) value allowed.
        limit: u64,
    },
    /// A field with a value that means nothing.
    #[error("{what} is not valid: {why}")]
    Invalid {
        /// The field.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A reader must know these features and this one does not.
    #[error("the repository needs features that this program does not know: {names}")]
    Features {
        /// The unknown names.
        names: String,
    },
}

/// Decodes a JSON document of this format.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<T, FormatError> {
    serde_json::from_slice(body).map_err(|error| FormatError::Invalid { what, why: error.to_string() })
}

/// Decodes a JSON document that has a `format`: a newer one is told as such, even if its fields are others.
pub(crate) fn from_versioned_json<T: serde::de::DeserializeOwned>(
    what: &'static str,
    body: &[u8],
) -> Result<T, FormatError> {
    #[derive(serde::Deserialize)]
    struct Peek {
        format: u64,
    }
    let Peek { format } = from_json(what, body)?;
    if format != u64::from(FORMAT_VERSION) {
        return Err(FormatError::Version { what, found: format, known: FORMAT_VERSION });
    }
    from_json::<unique::Unique>(what, body)?;
    from_json(what, body)
}

/// Encodes a JSON document of this format: one line, no trailing line feed.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("the documents of this format have string keys and finite numbers")
}
