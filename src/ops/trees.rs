//! Reading artifact trees, and putting them back.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::{Context, Progress};
use crate::component::artifact_store::restore::{Overwrite, RestoreError, TreeRestorer, TreeSummary};
use crate::env::random_bytes;
use crate::error::{Error, ErrorKind};
use crate::format::manifest::ComponentRecord;
use crate::format::tree::{TreeDecoder, TreeEntry};
use crate::repository::chunks::ChunkReader;
use crate::repository::stream::StreamReader;
use crate::tree_entry::EntryKind;

/// The entries of a tree, in order.
pub struct TreeReader {
    stream: StreamReader,
    decoder: Option<TreeDecoder>,
    ready: VecDeque<TreeEntry>,
}

impl TreeReader {
    /// Opens the tree of `component`.
    pub fn open(reader: &Arc<ChunkReader>, component: &ComponentRecord) -> Result<Self, Error> {
        let record = component.stream("tree").ok_or_else(|| {
            Error::new(ErrorKind::Damaged, format!("component `{}` has no stream `tree`", component.name))
        })?;
        let stream = StreamReader::new(Arc::clone(reader), &record.root, record.length)?;
        Ok(Self { stream, decoder: Some(TreeDecoder::new()), ready: VecDeque::new() })
    }

    /// The next entry.
    pub async fn next(&mut self) -> Result<Option<TreeEntry>, Error> {
        let broken = |error| Error::with_source(ErrorKind::Damaged, "the stored tree is not valid", error);
        while self.ready.is_empty() {
            match self.stream.next().await? {
                Some(bytes) => {
                    let decoder = self.decoder.as_mut().expect("the tree has not ended");
                    self.ready.extend(decoder.push(&bytes).map_err(broken)?);
                }
                None => {
                    if let Some(decoder) = self.decoder.take() {
                        decoder.finish().map_err(broken)?;
                    }
                    return Ok(None);
                }
            }
        }
        Ok(self.ready.pop_front())
    }
}

/// Puts a tree into `target`, whole or not at all.
pub async fn restore_tree(
    context: &Context,
    reader: &Arc<ChunkReader>,
    component: &ComponentRecord,
    target: &Path,
    overwrite: Overwrite,
) -> Result<TreeSummary, Error> {
    let tag = u32::from_le_bytes(random_bytes(context.entropy()));
    let (context, reader, component) = (context.clone(), Arc::clone(reader), component.clone());
    let target = target.to_owned();
    let handle = tokio::runtime::Handle::current();
    // Files are written by one blocking thread, which asks the runtime for the bytes.
    let work = tokio::task::spawn_blocking(move || {
        let mut restorer = TreeRestorer::new(&target, overwrite, tag).map_err(|error| refused(&component, error))?;
        let filled = fill(&context, &handle, &reader, &component, &mut restorer);
        context.events.progress_done("restore", &component.name);
        match filled {
            Ok(()) => restorer.commit().map_err(|error| refused(&component, error)),
            Err(error) => {
                if let Err(left) = restorer.abort() {
                    context.warn(left.to_string());
                }
                Err(error)
            }
        }
    });
    work.await.expect("restoring files does not panic")
}

fn refused(component: &ComponentRecord, error: RestoreError) -> Error {
    Error::with_source(ErrorKind::Unavailable, format!("the files of `{}` cannot be put back", component.name), error)
}

fn fill(
    context: &Context,
    handle: &tokio::runtime::Handle,
    reader: &Arc<ChunkReader>,
    component: &ComponentRecord,
    restorer: &mut TreeRestorer,
) -> Result<(), Error> {
    let mut tree = TreeReader::open(reader, component)?;
    let mut done_bytes = 0;
    while let Some(entry) = handle.block_on(tree.next())? {
        context.cancel.check()?;
        let EntryKind::File(content) = &entry.kind else {
            restorer.put(&entry).map_err(|error| refused(component, error))?;
            continue;
        };
        let mut bytes = StreamReader::new(Arc::clone(reader), &content.root, content.size)?;
        let mut file = restorer.begin_file(&entry, content.size).map_err(|error| refused(component, error))?;
        while let Some(piece) = handle.block_on(bytes.next())? {
            file.write(&piece).map_err(|error| refused(component, error))?;
            done_bytes += piece.len() as u64;
            let (target, total_bytes) = (component.name.clone(), Some(component.sizes.logical_bytes));
            context.events.progress(&Progress { action: "restore", target, done_bytes, total_bytes });
        }
        file.finish().map_err(|error| refused(component, error))?;
    }
    Ok(())
}
