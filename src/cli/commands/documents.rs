//! The JSON documents of results. Their fields are promised in `docs/reference/json.md`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::format::manifest::{ComponentRecord, ComponentStatus};
use crate::format::report::Report;
use crate::id::{ObjectId, SnapshotId};
use crate::repository::snapshots::Snapshot;

/// One snapshot.
#[derive(Debug, Serialize)]
pub struct SnapshotDocument<'a> {
    id: SnapshotId,
    created_at: Timestamp,
    finished_at: Timestamp,
    status: &'static str,
    deployment: &'a str,
    components: Vec<ComponentDocument<'a>>,
    tags: &'a BTreeMap<String, String>,
    hold: bool,
    host: &'a str,
    tool: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    infrahub_version: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    redacted: bool,
    /// Keys of the predecessor, where they are asked for.
    #[serde(flatten)]
    predecessor: Option<PredecessorDocument<'a>>,
}

/// One component of a snapshot.
#[derive(Debug, Serialize)]
struct ComponentDocument<'a> {
    name: &'a str,
    kind: &'a str,
    status: &'static str,
    logical_bytes: u64,
    added_bytes: u64,
    shared_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a str>,
}

/// What the predecessor's list has beside the names that both share.
#[derive(Debug, Serialize)]
struct PredecessorDocument<'a> {
    backup_id: String,
    date: String,
    neo4j_edition: &'a str,
    snapshots: Vec<PredecessorSnapshot<'a>>,
}

#[derive(Debug, Serialize)]
struct PredecessorSnapshot<'a> {
    snapshot_id: String,
    component: &'a str,
}

/// How a snapshot that is listed came out, in one word.
pub fn snapshot_status(snapshot: &Snapshot) -> &'static str {
    if snapshot.quarantined { "quarantined" } else { status(snapshot.is_complete()) }
}

/// Whether a snapshot is whole, in one word.
pub fn status(complete: bool) -> &'static str {
    if complete { "complete" } else { "incomplete" }
}

/// How a component came out, in one word.
pub fn component_status(component: &ComponentRecord) -> &'static str {
    match component.status {
        ComponentStatus::Complete => "complete",
        ComponentStatus::Partial => "partial",
        ComponentStatus::Failed => "failed",
    }
}

impl<'a> SnapshotDocument<'a> {
    /// The document of a snapshot.
    pub fn new(snapshot: &'a Snapshot, predecessor: bool) -> Self {
        let manifest = &snapshot.manifest;
        let component = |record: &'a ComponentRecord| ComponentDocument {
            name: &record.name,
            kind: &record.kind,
            status: component_status(record),
            logical_bytes: record.sizes.logical_bytes,
            added_bytes: record.sizes.added_bytes,
            shared_bytes: record.sizes.shared_bytes,
            files: record.sizes.files,
            failure: record.failure.as_deref(),
        };
        Self {
            id: snapshot.id,
            created_at: manifest.created_at,
            finished_at: manifest.finished_at,
            status: snapshot_status(snapshot),
            deployment: &manifest.deployment,
            components: manifest.components.iter().map(component).collect(),
            tags: &manifest.tags,
            hold: snapshot.held,
            host: &manifest.host,
            tool: &manifest.tool,
            infrahub_version: manifest.infrahub_version.as_deref(),
            redacted: manifest.is_redacted(),
            predecessor: predecessor.then(|| PredecessorDocument::new(snapshot)),
        }
    }
}

impl<'a> PredecessorDocument<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let manifest = &snapshot.manifest;
        let short = snapshot.id.to_hex()[..16].to_owned();
        let part =
            |record: &'a ComponentRecord| PredecessorSnapshot { snapshot_id: short.clone(), component: &record.name };
        Self {
            backup_id: manifest.created_at.strftime("%Y%m%d_%H%M%S").to_string(),
            date: format!("{:.0}", manifest.created_at),
            neo4j_edition: manifest.components.iter().find_map(|record| record.edition.as_deref()).unwrap_or(""),
            snapshots: manifest.components.iter().map(part).collect(),
        }
    }
}

/// A report with its id.
#[derive(Debug, Serialize)]
pub struct ReportDocument<'a> {
    /// Its id.
    pub id: ObjectId,
    /// What it says.
    #[serde(flatten)]
    pub report: &'a Report,
}
