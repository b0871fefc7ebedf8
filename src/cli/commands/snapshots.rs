//! `snapshots`: what there is.

use std::collections::BTreeSet;

use serde_json::json;

use crate::cli::args::SnapshotsCommand;
use crate::cli::commands::documents::{SnapshotDocument, component_status, snapshot_status};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render::{self, Out};
use crate::cli::session::Session;
use crate::cli::wants_predecessor_json;
use crate::format::manifest::{ComponentRecord, Consistency};
use crate::ops::forget::{self, Change};
use crate::repository::snapshots::Snapshot;

/// `snapshots`, `snapshots list`, `snapshots show`
pub async fn run(session: &Session, command: Option<SnapshotsCommand>) -> Result<Exit, Failure> {
    match command.unwrap_or(SnapshotsCommand::List { deployment: None }) {
        SnapshotsCommand::List { deployment } => list(session, deployment.as_deref()).await,
        SnapshotsCommand::Show { id } => show(session, &id).await,
        SnapshotsCommand::Diff { a, b } => super::diff::run(session, &a, &b).await,
        SnapshotsCommand::Hold { ids } => change(session, &ids, Change::Hold, "held").await,
        SnapshotsCommand::Release { ids } => change(session, &ids, Change::Release, "released").await,
        SnapshotsCommand::Tag { id, tags } => {
            let set = |(key, value): (String, String)| (key, (!value.is_empty()).then_some(value));
            let change_of = Change::Tag(tags.into_iter().map(set).collect());
            change(session, &[id], change_of, "tagged").await
        }
    }
}

/// Changes something about snapshots that stay.
async fn change(session: &Session, texts: &[String], what: Change, done: &str) -> Result<Exit, Failure> {
    let repository = session.open().await?;
    let mut ids = BTreeSet::new();
    for text in texts {
        ids.insert(session.snapshot(&repository, text, session.settings.deployment_name().as_deref()).await?.id);
    }
    let report = forget::change(&session.context, &repository, &ids, &what).await?;
    session.out.done(Exit::Done, &json!({ "snapshots": ids, "done": done, "report": report }), || {
        ids.iter().map(|id| format!("{done} snapshot {}\n", id.short())).collect()
    })
}

async fn list(session: &Session, deployment: Option<&str>) -> Result<Exit, Failure> {
    let repository = session.open().await?;
    let (mut snapshots, damages) = session.snapshots(&repository).await?;
    snapshots.retain(|snapshot| deployment.is_none_or(|name| snapshot.manifest.deployment == name));
    let predecessor = wants_predecessor_json(session.settings.global());
    let documents: Vec<_> = snapshots.iter().map(|snapshot| SnapshotDocument::new(snapshot, predecessor)).collect();
    let out = Out { json: session.out.json || predecessor, ..session.out };
    out.result(&documents, || list_text(&snapshots))?;
    Ok(if damages == 0 { Exit::Done } else { Exit::Damage })
}

/// The list, for people.
pub fn list_text(snapshots: &[Snapshot]) -> String {
    if snapshots.is_empty() {
        return "there are no snapshots\n".to_owned();
    }
    let row = |snapshot: &Snapshot| {
        let manifest = &snapshot.manifest;
        let sum = |size: fn(&ComponentRecord) -> u64| render::size(manifest.components.iter().map(size).sum());
        let names: Vec<_> = manifest.components.iter().map(|component| component.name.as_str()).collect();
        let tags: Vec<_> = manifest.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            snapshot.id.short(),
            render::time(manifest.created_at),
            snapshot_status(snapshot).to_owned(),
            manifest.deployment.clone(),
            sum(|component| component.sizes.logical_bytes),
            sum(|component| component.sizes.added_bytes),
            sum(|component| component.sizes.shared_bytes),
            names.join(","),
            tags.join(","),
        ]
    };
    let rows: Vec<_> = snapshots.iter().map(row).collect();
    let heading = ["ID", "CREATED", "STATUS", "DEPLOYMENT", "LOGICAL", "ADDED", "SHARED", "COMPONENTS", "TAGS"];
    render::table(&heading, &[4, 5, 6], &rows)
}

async fn show(session: &Session, id: &str) -> Result<Exit, Failure> {
    let repository = session.open().await?;
    let snapshot = session.snapshot(&repository, id, None).await?;
    session.out.result(&SnapshotDocument::new(&snapshot, false), || show_text(&snapshot))?;
    Ok(Exit::Done)
}

fn show_text(snapshot: &Snapshot) -> String {
    let manifest = &snapshot.manifest;
    let mut lines = vec![
        format!("snapshot    {}", snapshot.id),
        format!("status      {}", snapshot_status(snapshot)),
        format!("deployment  {}", manifest.deployment),
        format!("created     {}", render::time(manifest.created_at)),
        format!("finished    {}", render::time(manifest.finished_at)),
        format!("made by     {} on {}", manifest.tool, manifest.host),
    ];
    lines.extend(manifest.infrahub_version.iter().map(|version| format!("infrahub    {version}")));
    lines.extend(manifest.tags.iter().map(|(key, value)| format!("tag         {key}={value}")));
    manifest.components.iter().for_each(|component| lines.extend(component_lines(component)));
    lines.join("\n") + "\n"
}

fn component_lines(component: &ComponentRecord) -> Vec<String> {
    let sizes = &component.sizes;
    let consistency = match component.consistency {
        Consistency::Quiesced => "taken while it was stopped",
        Consistency::Online => "taken while it ran",
        Consistency::Given => "given as a dump",
    };
    let mut lines = vec![
        String::new(),
        format!("component {} ({}), {}, {consistency}", component.name, component.kind, component_status(component)),
        format!("  from       {} to {}", render::time(component.window.start), render::time(component.window.end)),
        format!("  logical    {} bytes", sizes.logical_bytes),
        format!("  added      {} bytes", sizes.added_bytes),
        format!("  shared     {} bytes", sizes.shared_bytes),
    ];
    let server: Vec<&str> = component.version.as_deref().into_iter().chain(component.edition.as_deref()).collect();
    if !server.is_empty() {
        lines.push(format!("  server     {}", server.join(", ")));
    }
    if let Some(files) = sizes.files {
        lines.push(format!("  files      {files}, {} not read again", sizes.files_unchanged.unwrap_or(0)));
    }
    lines.extend(component.counts.iter().map(|(name, count)| format!("  count      {name} {count}")));
    lines.extend(component.warnings.iter().map(|warning| format!("  warning    {warning}")));
    lines.extend(component.failure.iter().map(|failure| format!("  failure    {failure}")));
    lines
}
