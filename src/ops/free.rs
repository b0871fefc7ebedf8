//! What must be free before a restore begins: names, and room.

use std::path::{Path, PathBuf};

use super::restore::file_name;
use crate::error::{Error, ErrorKind};
use crate::format::manifest::ComponentRecord;

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
