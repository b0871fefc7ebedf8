//! Checking what a restore will need, before it touches anything.
//!
//! Every byte is read, opened and hashed once, to nowhere; with `fast`, every chunk is only found in a pack that is there.

use std::sync::Arc;

use super::streams::Output;
use super::trees::TreeReader;
use super::{Context, Progress};
use crate::error::Error;
use crate::format::manifest::{ComponentRecord, Layout};
use crate::repository::Repository;
use crate::repository::chunks::ChunkReader;
use crate::repository::stream::{ChunkIds, StreamReader};
use crate::tree_entry::EntryKind;

/// Reads all that a component needs once, to nowhere; with `fast` only sees that it is listed.
pub(super) async fn check_record(
    context: &Context,
    repository: &Arc<Repository>,
    reader: &Arc<ChunkReader>,
    record: &ComponentRecord,
    fast: bool,
) -> Result<(), Error> {
    let mut checker = Checker { context, record, done_bytes: 0 };
    let checked = async {
        if fast {
            return checker.listed(repository, reader).await;
        }
        match record.layout {
            Layout::Tree => checker.tree(reader).await,
            Layout::Plain | Layout::Neo4jDump { .. } => checker.stream(reader).await,
        }
    };
    let result = context.cancel.or(checked).await.and_then(|result| result);
    context.events.progress_done("check", &record.name);
    result.map_err(|error| error.context(format!("component `{}` cannot be restored from this snapshot", record.name)))
}

struct Checker<'a> {
    context: &'a Context,
    record: &'a ComponentRecord,
    done_bytes: u64,
}

impl Checker<'_> {
    fn count(&mut self, bytes: usize) {
        self.done_bytes += bytes as u64;
        self.context.events.progress(&Progress {
            action: "check",
            target: self.record.name.clone(),
            done_bytes: self.done_bytes,
            total_bytes: Some(self.record.sizes.logical_bytes),
        });
    }

    async fn stream(&mut self, reader: &Arc<ChunkReader>) -> Result<(), Error> {
        // Joined as it will be, only not compressed.
        let mut output = Output::open_bare(reader, self.record)?;
        while let Some(piece) = output.next().await? {
            self.count(piece.len());
        }
        Ok(())
    }

    async fn tree(&mut self, reader: &Arc<ChunkReader>) -> Result<(), Error> {
        let mut tree = TreeReader::open(reader, self.record)?;
        while let Some(entry) = tree.next().await? {
            if let EntryKind::File(content) = &entry.kind {
                let mut bytes = StreamReader::new(Arc::clone(reader), &content.root, content.size)?;
                while let Some(piece) = bytes.next().await? {
                    self.count(piece.len());
                }
            }
        }
        Ok(())
    }

    /// Every chunk is in a pack that is there at its length.
    async fn listed(&mut self, repository: &Arc<Repository>, reader: &Arc<ChunkReader>) -> Result<(), Error> {
        if !matches!(self.record.layout, Layout::Tree) {
            Output::open(reader, self.record)?;
        }
        let present = repository.present_packs().await?;
        let mut roots: Vec<_> = self.record.streams.iter().map(|stream| stream.root.clone()).collect();
        if matches!(self.record.layout, Layout::Tree) {
            let mut tree = TreeReader::open(reader, self.record)?;
            while let Some(entry) = tree.next().await? {
                if let EntryKind::File(content) = entry.kind {
                    roots.push(content.root);
                }
            }
        }
        for root in roots {
            let mut ids = ChunkIds::new(Arc::clone(reader), &root)?;
            while let Some(id) = ids.next().await? {
                let found = repository.cache().find_all(&id).map_err(crate::repository::RepositoryError::Cache)?;
                if !found.iter().any(|location| present.contains(&location.pack)) {
                    return Err(crate::repository::RepositoryError::MissingChunk { id }.into());
                }
            }
        }
        Ok(())
    }
}
