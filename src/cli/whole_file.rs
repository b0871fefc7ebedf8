//! Files that appear whole, and when they are durable.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::env::{SystemEntropy, random_bytes};
use crate::id::hex_of;
use crate::storage::local::{publish, sync_folder};

/// What is done with a file that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// It is replaced.
    Replaced,
    /// It stays, and that is an error of kind [`io::ErrorKind::AlreadyExists`].
    Kept,
}

/// Writes a file of this mode beside its name, and gives it its name when it is durable.
pub fn write(path: &Path, bytes: &[u8], mode: u32, there: There) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", hex_of(&random_bytes::<8>(&SystemEntropy))));
    let part = path.with_file_name(name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        match there {
            There::Replaced => fs::rename(&part, path)?,
            There::Kept => publish(&part, path)?,
        }
        sync_folder(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    };
    let written = write();
    // A link leaves it, and so does an error, which explains more than what cannot be removed; a rename does not.
    let _ = fs::remove_file(&part);
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_there_is_replaced_or_kept_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"first", 0o600, There::Kept).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(write(&path, b"second", 0o600, There::Kept).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write(&path, b"third", 0o600, There::Replaced).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write(&folder.path().join("none/file"), b"", 0o600, There::Replaced).is_err());
    }
}
