//! `snapshots/<id>`: one manifest, the only commit point of a snapshot.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::ProfileName;
use super::tree::ContentRoot;
use super::{FormatError, from_versioned_json, to_json};
use crate::id::{ObjectId, RunId, SnapshotId};

/// Whether the service was stopped while its stream was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Everything that writes was stopped.
    Quiesced,
    /// Taken from the running service, consistent in itself.
    Online,
    /// Given as a file or on standard input: when it was taken is not known.
    Given,
}

/// How a component came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComponentStatus {
    /// All of it is in the snapshot.
    Complete,
    /// Some of it could not be read (`--allow-partial`); its warnings say what.
    Partial,
    /// It failed and the snapshot was made without it (`--allow-partial`).
    Failed,
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Its beginning.
    pub start: Timestamp,
    /// Its end.
    pub end: Timestamp,
}

/// One stored stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamRecord {
    /// `content`, `headers` or `tree`.
    pub name: String,
    /// How it was cut.
    pub profile: ProfileName,
    /// Its length in bytes.
    pub length: u64,
    /// Its chunks, or the recipe that lists them.
    pub root: ContentRoot,
}

/// What a component's streams are together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Layout {
    /// The stream `content` is the dump, byte for byte.
    Plain,
    /// A Neo4j dump: `headers` and `content` interleave to a tar, which `container` wraps.
    Neo4jDump {
        /// How to wrap it again.
        container: serde_json::Value,
    },
    /// A folder: the stream `tree` lists its entries and their chunks.
    Tree,
}

/// What was counted of a component.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Bytes that a restore gives back.
    pub logical_bytes: u64,
    /// Bytes that this snapshot added to the repository, compressed and sealed, metadata not counted.
    pub added_bytes: u64,
    /// Bytes of plaintext that the repository already held.
    pub shared_bytes: u64,
    /// Chunks in all.
    pub chunks: u64,
    /// Chunks that were new.
    pub new_chunks: u64,
    /// Artifact files, where it is a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Artifact files that were not read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_unchanged: Option<u64>,
}

/// One component of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentRecord {
    /// `database`, `task-manager-db`, `artifacts`, or what a bespoke deployment calls it.
    pub name: String,
    /// `neo4j`, `postgres`, `artifacts`, `opaque`.
    pub kind: String,
    /// How it came out.
    pub status: ComponentStatus,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Whether it was stopped.
    pub consistency: Consistency,
    /// When it was taken.
    pub window: Window,
    /// What its streams are together.
    pub layout: Layout,
    /// Its streams.
    pub streams: Vec<StreamRecord>,
    /// What was counted while it was stored.
    pub sizes: Sizes,
    /// Version of the server, as it says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `community` or `enterprise`, where there are editions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edition: Option<String>,
    /// Nodes, relationships, rows: to compare after a restore.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u64>,
    /// What was noticed and does not make it incomplete: files passed over, a stream kept raw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl ComponentRecord {
    /// The stream of that name.
    pub fn stream(&self, name: &str) -> Option<&StreamRecord> {
        self.streams.iter().find(|stream| stream.name == name)
    }
}

/// Tag of a snapshot that a restore made of what it was about to replace.
pub const SAFETY_TAG: &str = "safety";

/// Tag of a snapshot in whose graph the values of attributes were replaced; its value is `true`.
pub const REDACTED_TAG: &str = "redacted";

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version of this document.
    pub format: u8,
    /// The deployment, which groups snapshots.
    pub deployment: String,
    /// When the operation began: the moment that the snapshot is named after.
    pub created_at: Timestamp,
    /// When the manifest was made.
    pub finished_at: Timestamp,
    /// The run that made it.
    pub run: RunId,
    /// A manifest that the store has later than this must be confirmed to count.
    pub lease_deadline: Timestamp,
    /// The newest manifest that the writer knew, of any deployment: links history.
    pub previous: Option<SnapshotId>,
    /// Host name of the machine that made it.
    pub host: String,
    /// Version of the program.
    pub tool: String,
    /// Version of Infrahub, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infrahub_version: Option<String>,
    /// The index objects that its run wrote: so that a missing one can be named.
    pub indexes: Vec<ObjectId>,
    /// Its components, in the order in which they were dumped.
    pub components: Vec<ComponentRecord>,
    /// What the user marked it with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

impl Manifest {
    /// The body's bytes.
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads the body back.
    pub fn decode(body: &[u8]) -> Result<Self, FormatError> {
        let manifest: Self = from_versioned_json("manifest", body)?;
        let names: BTreeSet<&str> = manifest.components.iter().map(|component| component.name.as_str()).collect();
        if names.len() != manifest.components.len() {
            return Err(FormatError::Invalid { what: "the manifest", why: "two components have one name".to_owned() });
        }
        for component in &manifest.components {
            let names: BTreeSet<&str> = component.streams.iter().map(|stream| stream.name.as_str()).collect();
            if names.len() != component.streams.len() {
                let why = format!("two streams of component `{}` have one name", component.name);
                return Err(FormatError::Invalid { what: "the manifest", why });
            }
        }
        Ok(manifest)
    }

    /// Whether every component came out whole.
    pub fn is_complete(&self) -> bool {
        self.components.iter().all(|component| component.status == ComponentStatus::Complete)
    }

    /// Whether a restore made it of what it was about to replace: never what "the latest" means.
    pub fn is_safety(&self) -> bool {
        self.tags.contains_key(SAFETY_TAG)
    }

    /// Whether the values of attributes were replaced in its graph: never what "the latest" means.
    pub fn is_redacted(&self) -> bool {
        self.tags.get(REDACTED_TAG).is_some_and(|value| value == "true")
    }

    /// The component of that name.
    pub fn component(&self, name: &str) -> Option<&ComponentRecord> {
        self.components.iter().find(|component| component.name == name)
    }
}
