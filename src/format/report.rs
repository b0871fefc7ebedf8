//! `reports/<id>`: the evidence of one operation.
//!
//! Reports are chained: each names the newest one that its writer knew.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
    /// Why it failed: the error and its causes, one a line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub error: Vec<String>,
}

/// One fact about damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Name of the object.
    pub object: String,
    /// Which check found it: `presence`, `length`, `name`, `envelope`, `seal`, `signature`, `decode`, `chunk`, `recipe`, `tree`.
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
