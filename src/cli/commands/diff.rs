//! `snapshots diff`: what changed from one snapshot to another.

use serde::Serialize;

use super::documents::{SnapshotDocument, snapshot_status};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render;
use crate::cli::session::Session;
use crate::format::manifest::ComponentStatus;
use crate::ops::diff::{Changed, ComponentDifference, Counts, Difference, FileChange, Files, Side, diff};
use crate::repository::chunk_set::Amount;
use crate::repository::snapshots::Snapshot;

/// Files of each list, and counts of each component, that people are told. JSON has them all.
const SHOWN_MAX: usize = 20;

/// What `snapshots diff --json` prints.
#[derive(Serialize)]
struct Document<'a> {
    a: SnapshotDocument<'a>,
    b: SnapshotDocument<'a>,
    #[serde(flatten)]
    difference: &'a Difference,
}

/// `snapshots diff`
pub async fn run(session: &Session, a: &str, b: &str) -> Result<Exit, Failure> {
    let repository = session.open().await?;
    let deployment = session.settings.deployment_name();
    let a = session.snapshot(&repository, a, deployment.as_deref()).await?;
    let b = session.snapshot(&repository, b, deployment.as_deref()).await?;
    let files_max = if session.out.json { usize::MAX } else { SHOWN_MAX };
    let difference = diff(&session.context, &repository, &a, &b, files_max).await?;
    let documents = [&a, &b].map(|snapshot| SnapshotDocument::new(snapshot, false));
    let [document_a, document_b] = documents;
    let document = Document { a: document_a, b: document_b, difference: &difference };
    session.out.result(&document, || text(&a, &b, &difference))?;
    Ok(Exit::Done)
}

fn text(a: &Snapshot, b: &Snapshot, difference: &Difference) -> String {
    let heading = |letter: char, snapshot: &Snapshot| {
        let manifest = &snapshot.manifest;
        let (created, status) = (render::time(manifest.created_at), snapshot_status(snapshot));
        format!("{letter}  {}  {created}  {status}  {}\n", snapshot.id.short(), manifest.deployment)
    };
    let components: String = difference.components.iter().map(component).collect();
    let together =
        format!("together: {} only in a, {} only in b\n", amount(&difference.only_in_a), amount(&difference.only_in_b));
    heading('a', a) + &heading('b', b) + &components + &together
}

fn amount(amount: &Amount) -> String {
    format!("{} in {} chunks", render::size(amount.bytes), amount.chunks)
}

fn component(component: &ComponentDifference) -> String {
    let kind = component.b.as_ref().or(component.a.as_ref()).map_or("", |side| side.kind.as_str());
    let mut lines = vec![
        format!("{} ({kind})", component.name),
        format!("  logical    {}", both(component.a.as_ref().map(logical), component.b.as_ref().map(logical))),
        format!("  only in a  {}", amount(&component.only_in_a)),
        format!("  only in b  {}", amount(&component.only_in_b)),
    ];
    let version = |side: &Option<Side>| side.as_ref().and_then(|side| side.version.clone());
    if version(&component.a) != version(&component.b) {
        lines.push(format!("  server     {}", both(version(&component.a), version(&component.b))));
    }
    let changed: Vec<_> = component.counts.iter().filter(|(_, counts)| counts.a != counts.b).collect();
    let count = |(name, counts): &(&String, &Counts)| {
        let number = |count: Option<u64>| count.map(|count| count.to_string());
        format!("  count      {name} {}", both(number(counts.a), number(counts.b)))
    };
    lines.extend(changed.iter().take(SHOWN_MAX).map(count));
    lines.extend(more(changed.len()));
    if changed.is_empty() && !component.counts.is_empty() {
        lines.push(format!("  count      all {} as before", component.counts.len()));
    }
    component.files.iter().for_each(|files| lines.extend(file_lines(files)));
    lines.join("\n") + "\n"
}

fn logical(side: &Side) -> String {
    match side.status {
        ComponentStatus::Complete => render::size(side.logical_bytes),
        ComponentStatus::Partial => format!("{} (partial)", render::size(side.logical_bytes)),
        ComponentStatus::Failed => "failed".to_owned(),
    }
}

/// `before -> after`, or one of them where they are the same.
fn both(a: Option<String>, b: Option<String>) -> String {
    let shown = |side: Option<String>| side.unwrap_or_else(|| "none".to_owned());
    if a == b { shown(a) } else { format!("{} -> {}", shown(a), shown(b)) }
}

/// The line for what is not shown of a list of `count`.
fn more(count: usize) -> Option<String> {
    count.checked_sub(SHOWN_MAX).filter(|more| *more > 0).map(|more| format!("  and {more} more: --json tells them"))
}

fn file_lines(files: &Files) -> Vec<String> {
    let mut lines = vec![format!(
        "  files      {} added, {} removed, {} changed, {} as before",
        files.added.count, files.removed.count, files.changed.count, files.unchanged
    )];
    for (mark, list) in [('+', &files.added), ('-', &files.removed), ('~', &files.changed)] {
        lines.extend(list.files.iter().take(SHOWN_MAX).map(|file| file_line(mark, file)));
        lines.extend(unlisted(list));
    }
    lines
}

fn unlisted(list: &Changed) -> Option<String> {
    usize::try_from(list.count).map_or(None, more)
}

fn file_line(mark: char, file: &FileChange) -> String {
    let (a, b) = (file.a_bytes.map(render::size), file.b_bytes.map(render::size));
    let size = match (a, b) {
        (Some(a), Some(b)) => both(Some(a), Some(b)),
        (Some(size), None) | (None, Some(size)) => size,
        (None, None) => "a link".to_owned(),
    };
    let differs = if file.differs.is_empty() { String::new() } else { format!(" ({})", file.differs.join(", ")) };
    format!("  {mark} {}  {size}{differs}", file.path)
}
