//! Writing components into files of a folder instead of a deployment.
//!
//! Holds: nothing that is there is overwritten, and a file has its name only when it is whole and durable.

use std::path::{Path, PathBuf};

use super::{RestoredComponent, Run, facts};
use crate::component::artifact_store::restore::Overwrite;
use crate::env::random_bytes;
use crate::error::{Error, ErrorKind};
use crate::format::manifest::{ComponentRecord, Layout};
use crate::id::hex_of;
use crate::ops::streams::Output;

/// Name of a component below the folder of `--to-files`.
pub(super) fn file_name(record: &ComponentRecord) -> String {
    match record.layout {
        Layout::Tree => record.name.clone(),
        Layout::Plain | Layout::Neo4jDump { .. } => format!("{}.dump", record.name),
    }
}

/// Refuses to overwrite anything, and to fill the disk.
pub(super) fn free_folder(folder: &Path, records: &[ComponentRecord]) -> Result<PathBuf, Error> {
    for record in records {
        // Component names come from a manifest, which other machines write.
        if record.name.contains(['/', '\0']) || record.name.starts_with('.') || record.name.is_empty() {
            let text = format!("component name `{}` cannot be a file name", record.name.escape_debug());
            return Err(Error::new(ErrorKind::Incompatible, text));
        }
        let path = folder.join(file_name(record));
        if path.symlink_metadata().is_ok() {
            return Err(Error::new(ErrorKind::Usage, format!("`{}` is already there", path.display())));
        }
    }
    let needed = records.iter().map(|record| record.sizes.logical_bytes).sum();
    check_space(folder, needed)?;
    Ok(folder.to_owned())
}

/// Refuses if the file system of `path`, or of the nearest folder above that exists, has less than `needed` bytes free.
pub(super) fn check_space(path: &Path, needed: u64) -> Result<(), Error> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let Some(there) = absolute.ancestors().find(|path| path.is_dir()) else { return Ok(()) };
    let Ok(stat) = rustix::fs::statvfs(there) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= needed {
        return Ok(());
    }
    let text = format!("`{}` has {free} bytes free, {needed} are needed", there.display());
    Err(Error::new(ErrorKind::Unavailable, text))
}

impl Run<'_> {
    pub(super) async fn to_folder(
        &self,
        folder: &Path,
        records: &[ComponentRecord],
    ) -> Result<Vec<RestoredComponent>, Error> {
        let io = |path: &Path, error| {
            Error::with_source(ErrorKind::Unavailable, format!("`{}` cannot be written", path.display()), error)
        };
        let made = tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).await;
        made.map_err(|error| io(folder, error))?;
        let mut restored = Vec::new();
        for record in records {
            let path = folder.join(file_name(record));
            let step = self.recorder.begin(self.context, "write", &record.name);
            let result = match record.layout {
                Layout::Tree => self.tree(record, &path, Overwrite::Refuse).await,
                Layout::Plain | Layout::Neo4jDump { .. } => self.file(record, &path).await,
            };
            restored.push(self.recorder.end_with(self.context, step, result, facts)?);
        }
        Ok(restored)
    }

    /// Writes a dump beside its name, and gives it its name when it is whole and durable.
    async fn file(&self, record: &ComponentRecord, path: &Path) -> Result<RestoredComponent, Error> {
        use tokio::io::AsyncWriteExt as _;
        let tag = hex_of(&random_bytes::<4>(self.context.entropy()));
        let part = path.with_extension(format!("dump.{tag}.part"));
        let io = |error| {
            Error::with_source(ErrorKind::Unavailable, format!("`{}` cannot be written", part.display()), error)
        };
        let mut output = Output::open(&self.reader, record)?;
        // A dump in clear is nobody else's business; and nothing that lies there under this name is followed.
        let mut file =
            tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).await.map_err(io)?;
        let written = async {
            let mut bytes = 0;
            while let Some(piece) = self.context.cancel.or(output.next()).await?? {
                file.write_all(&piece).await.map_err(io)?;
                bytes += piece.len() as u64;
                self.progress(record, bytes);
            }
            file.sync_all().await.map_err(io)?;
            tokio::fs::rename(&part, path).await.map_err(io)?;
            if let Some(folder) = path.parent() {
                tokio::fs::File::open(folder).await.map_err(io)?.sync_all().await.map_err(io)?;
            }
            Ok::<u64, Error>(bytes)
        };
        let result = written.await;
        self.context.events.progress_done("restore", &record.name);
        if result.is_err() {
            // The error is about the file; that its rest cannot be removed adds nothing.
            let _ = tokio::fs::remove_file(&part).await;
        }
        Ok(RestoredComponent {
            name: record.name.clone(),
            bytes: result?,
            files: None,
            counts_match: None,
            notes: vec![],
            problems: vec![],
        })
    }
}
