//! `dump`: one component's stream, or one artifact file, to a writer.

use std::io::Write;
use std::sync::Arc;

use super::streams::Output;
use super::trees::TreeReader;
use super::{Context, Progress};
use crate::error::{Error, ErrorKind};
use crate::format::manifest::{ComponentRecord, ComponentStatus, Layout};
use crate::repository::Repository;
use crate::repository::chunks::ChunkReader;
use crate::repository::snapshots::Snapshot;
use crate::repository::stream::StreamReader;
use crate::tree_entry::{EntryKind, printable};

/// Writes a component, or the artifact file `path` of it, to `out`; gives the bytes written.
///
/// Every byte was checked against its hash before it is written; what is written before damage is met is right, but not all.
pub async fn dump(
    context: &Context,
    repository: &Arc<Repository>,
    snapshot: &Snapshot,
    component: &str,
    path: Option<&[u8]>,
    out: &mut (dyn Write + Send),
) -> Result<u64, Error> {
    repository.keys().check_reads_content().map_err(|source| Error::from(repository.unsupported(source)))?;
    let record = find(snapshot, component)?;
    let reader = Arc::new(ChunkReader::new(Arc::clone(repository), Arc::clone(&context.executor)));
    let mut written = 0;
    let mut write = |bytes: &[u8]| -> Result<(), Error> {
        out.write_all(bytes).map_err(|error| {
            Error::with_source(ErrorKind::Unavailable, "the output does not take the stream", error)
        })?;
        written += bytes.len() as u64;
        let target = component.to_owned();
        let total_bytes = Some(record.sizes.logical_bytes);
        context.events.progress(&Progress { action: "dump", target, done_bytes: written, total_bytes });
        Ok(())
    };
    match (path, &record.layout) {
        (Some(path), Layout::Tree) => {
            let mut file = open_file(&reader, record, path).await?;
            while let Some(piece) = context.cancel.or(file.next()).await?? {
                write(&piece)?;
            }
        }
        (Some(_), Layout::Plain | Layout::Neo4jDump { .. }) => {
            let text = format!("component `{component}` is one stream and has no files");
            return Err(Error::new(ErrorKind::Usage, text));
        }
        (None, _) => {
            let mut output = Output::open(&reader, record)?;
            while let Some(piece) = context.cancel.or(output.next()).await?? {
                write(&piece)?;
            }
        }
    }
    out.flush()
        .map_err(|error| Error::with_source(ErrorKind::Unavailable, "the output does not take the stream", error))?;
    context.events.progress_done("dump", component);
    Ok(written)
}

/// The record of a component that is in the snapshot.
pub(super) fn find<'a>(snapshot: &'a Snapshot, component: &str) -> Result<&'a ComponentRecord, Error> {
    let names = || snapshot.manifest.components.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
    let record = snapshot.manifest.component(component).ok_or_else(|| {
        let text = format!("snapshot {} has no component `{component}`, only {}", snapshot.id.short(), names());
        Error::new(ErrorKind::NotFound, text)
    })?;
    match record.status {
        ComponentStatus::Complete | ComponentStatus::Partial => Ok(record),
        ComponentStatus::Failed => {
            let text = format!("component `{component}` failed when snapshot {} was made", snapshot.id.short());
            Err(Error::new(ErrorKind::NotFound, text))
        }
    }
}

async fn open_file(reader: &Arc<ChunkReader>, record: &ComponentRecord, path: &[u8]) -> Result<StreamReader, Error> {
    let mut tree = TreeReader::open(reader, record)?;
    let mut wanted = path.to_vec();
    while let Some(entry) = tree.next().await? {
        if entry.path != wanted {
            continue;
        }
        match entry.kind {
            EntryKind::File(content) => return Ok(StreamReader::new(Arc::clone(reader), &content.root, content.size)?),
            EntryKind::HardLink { first } => {
                // The first name came earlier: begin again.
                wanted = first;
                tree = TreeReader::open(reader, record)?;
            }
            EntryKind::Directory | EntryKind::Symlink { .. } => {
                let text = format!("`{}` is not a file", printable(path));
                return Err(Error::new(ErrorKind::Usage, text));
            }
        }
    }
    let text = format!("component `{}` has no file `{}`", record.name, printable(path));
    Err(Error::new(ErrorKind::NotFound, text))
}
