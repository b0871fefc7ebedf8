//! `reports/<id>`: the evidence of one operation.
//!
//! Reports are chained: each names the newest one that its writer knew.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{FormatError, from_versioned_json, to_json};
use crate::id::{ObjectId, RunId, SnapshotId};

/// How an operation or a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As planned.
    Done,
    /// In part.
    Incomplete,
    /// Not.
    Failed,
}

/// One step of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What was done: `stop`, `dump`, `load`, `check`, …
    pub action: String,
    /// To what: a service, a component, the repository.
    pub target: String,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// The command that ran, secrets masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What it said, secrets masked: the last lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// Numbers: bytes, counts, with the unit in the name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub numbers: BTreeMap<String, u64>,
    /// Anything else worth telling; the error, where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The evidence of one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Format version of this document.
    pub format: u8,
    /// `create`, `restore`, `verify`, …
    pub operation: String,
    /// Its run.
    pub run: RunId,
    /// The newest report that the writer knew.
    pub previous: Option<ObjectId>,
    /// The deployment, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// The snapshots that were made, read or checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotId>,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// Host name.
    pub host: String,
    /// Name of the user who ran it.
    pub user: String,
    /// Version of the program.
    pub tool: String,
    /// What was planned, line by line.
    pub plan: Vec<String>,
    /// What was done.
    pub steps: Vec<Step>,
    /// Damage that was found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Packs that a `verify` read whole and found sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// Why it failed: the error and its causes, one a line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub error: Vec<String>,
}

/// Packs that were read whole and found sound, after the report's `start`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verified {
    /// Every segment was opened and every chunk in it hashed.
    pub opened: PackPrefixes,
    /// Only their names were compared: content, with a key that does not open it.
    pub hashed: PackPrefixes,
}

/// The first eight bytes of pack ids, in ascending order; written as base64 of all of them, one behind the other.
///
/// A hundred thousand packs take 1.1 MB so, and 6.7 MB as whole ids in hexadecimal. That two of a hundred thousand packs
/// share eight bytes has a probability of one in three thousand million; then one of them is taken for as fresh as the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackPrefixes(Vec<u64>);

impl PackPrefixes {
    /// Those of `prefixes`, sorted, each once.
    pub fn new(prefixes: impl IntoIterator<Item = u64>) -> Self {
        let mut prefixes: Vec<u64> = prefixes.into_iter().collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        Self(prefixes)
    }

    /// All of them.
    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }
}

impl Serialize for PackPrefixes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|prefix| prefix.to_be_bytes()).collect();
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for PackPrefixes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
        let (prefixes, rest) = bytes.as_chunks::<8>();
        let prefixes: Vec<u64> = prefixes.iter().map(|prefix| u64::from_be_bytes(*prefix)).collect();
        if rest.is_empty() && prefixes.is_sorted_by(|a, b| a < b) {
            return Ok(Self(prefixes));
        }
        Err(serde::de::Error::custom("not the first eight bytes of ids, ascending, each once"))
    }
}

/// One fact about damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Name of the object.
    pub object: String,
    /// Which check found it: `presence`, `length`, `name`, `envelope`, `seal`, `signature`, `decode`, `chunk`, `recipe`, `tree`,
    /// `rehearsal`.
    pub layer: String,
    /// What is wrong.
    pub problem: String,
    /// What it hurts: `SNAPSHOT COMPONENT STREAM`, as far as is known.
    pub hurts: Vec<String>,
    /// What to do.
    pub remedy: String,
}

impl Report {
    /// The body's bytes.
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads the body back.
    pub fn decode(body: &[u8]) -> Result<Self, FormatError> {
        from_versioned_json("report", body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_packs_read_back_and_are_refused_out_of_order() {
        let prefixes = PackPrefixes::new([7, u64::MAX, 7, 1]);
        let text = serde_json::to_string(&prefixes).expect("a text");
        assert_eq!(text, "\"AAAAAAAAAAEAAAAAAAAAB///////////\"");
        assert_eq!(serde_json::from_str::<PackPrefixes>(&text).expect("read"), prefixes);
        for wrong in ["\"AAAAAAAAAAcAAAAAAAAAAQ==\"", "\"AAAAAAAAAAcAAAAAAAAABw==\"", "\"AAAA\"", "\"%\""] {
            assert!(serde_json::from_str::<PackPrefixes>(wrong).is_err(), "{wrong}");
        }
    }
}
