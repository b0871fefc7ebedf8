//! The file system calls of the local store: what is written how, and in which order it becomes durable.
//!
//! Everything here blocks and speaks `io::Error`; the store above names the object and judges the error.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::storage::{ObjectInfo, ObjectName};

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Makes one folder; `false` if it was there. What is there but no folder, a symbolic link included, is an error.
pub fn make_folder(path: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Ok(()) => {
            force_mode(&File::open(path)?, FOLDER_MODE)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::symlink_metadata(path)?.is_dir() {
                Ok(false)
            } else {
                Err(io::ErrorKind::NotADirectory.into())
            }
        }
        Err(error) => Err(error),
    }
}

/// Makes a folder outside any store, with its parents; all durable on return. Symbolic links are followed here.
pub fn make_folder_and_parents(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().ok_or(io::ErrorKind::NotADirectory)?;
    make_folder_and_parents(parent)?;
    make_folder(path)?;
    sync_folder(parent)
}

/// Sets the mode where the umask or an inherited list took something of it.
fn force_mode(file: &File, mode: u32) -> io::Result<()> {
    if file.metadata()?.mode() & 0o777 == mode {
        return Ok(());
    }
    match file.set_permissions(Permissions::from_mode(mode)) {
        // A file system without modes, such as FAT: whoever mounted it decided who may read.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::PERM | Errno::OPNOTSUPP)) => Ok(()),
        done => done,
    }
}

/// Makes the entries of a folder durable.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // A file system that knows no fsync of folders, such as some network mounts, answers so; it has no other way.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::OPNOTSUPP)) => Ok(()),
        done => done,
    }
}

/// Whether anything, a dangling symbolic link included, has this path.
pub fn is_taken(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A file in `staging/`, which goes when this does: by then it has another name, or nobody needs it.
pub struct Staged(PathBuf);

impl Staged {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Nothing to be done about a failure: the sweep takes what stays.
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes `bytes` to a new file and fsyncs it.
pub fn write_staged(path: PathBuf, bytes: &[u8]) -> io::Result<Staged> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path)?;
    let staged = Staged(path);
    force_mode(&file, FILE_MODE)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(staged)
}

/// Gives the staged file its name, or finds the name taken (`AlreadyExists`); never replaces anything.
pub fn publish(staged: &Path, target: &Path) -> io::Result<()> {
    match fs::hard_link(staged, target) {
        Ok(()) => Ok(()),
        // On a network file system the answer to a link can get lost and the repeated call find its own work.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if is_same_file(staged, target) {
                Ok(())
            } else {
                Err(error)
            }
        }
        Err(error) if lacks_hard_links(&error) => rename_new(staged, target),
        Err(error) => Err(error),
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::symlink_metadata(one), fs::symlink_metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// `EPERM` is what Linux answers on FAT; where it means a refusal, the rename is refused too.
fn lacks_hard_links(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS))
}

/// The way for file systems without hard links.
fn rename_new(staged: &Path, target: &Path) -> io::Result<()> {
    match renameat_with(CWD, staged, CWD, target, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the file system has neither hard links nor renames that refuse to replace a file",
        )),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens the regular file at `name` below `root`, with its length; `None` if there is none, or if a symbolic link
/// stands in the way.
pub fn open_regular(root: &Path, name: &str) -> io::Result<Option<(File, u64)>> {
    if !has_real_parents(root, name)? {
        return Ok(None);
    }
    // Without NONBLOCK, opening a pipe that somebody put there would wait for ever.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(root.join(name)) {
        Ok(file) => file,
        Err(error) if is_absence(&error) || Errno::from_io_error(&error) == Some(Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, metadata.len())))
}

/// Whether every folder on the way from `root` to `name` is there and is a folder, not a symbolic link to one.
fn has_real_parents(root: &Path, name: &str) -> io::Result<bool> {
    let mut path = root.to_owned();
    let Some((folders, _)) = name.rsplit_once('/') else {
        return Ok(true);
    };
    for part in folders.split('/') {
        path.push(part);
        if !is_real_folder(&path)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_real_folder(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if is_absence(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Removes the file at `name` below `root`; durable on return.
pub fn remove(root: &Path, name: &str) -> io::Result<()> {
    if !has_real_parents(root, name)? {
        return Ok(());
    }
    let path = root.join(name);
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if is_absence(&error) => {}
        Err(error) => return Err(error),
    }
    // Also when it was gone already: whoever removed it may have been killed before the fsync.
    sync_folder(path.parent().expect("an object lies in the root or below"))
}

/// All regular files below `root/prefix` whose names are object names, but for the folder `hidden` in the root.
pub fn list(root: &Path, prefix: &str, hidden: &str) -> io::Result<Vec<ObjectInfo>> {
    let mut found = Vec::new();
    if !prefix.is_empty() {
        let valid = ObjectName::parse(prefix.to_owned()).is_some() && prefix.split('/').next() != Some(hidden);
        if !valid || !has_real_parents(root, prefix)? || !is_real_folder(&root.join(prefix))? {
            return Ok(found);
        }
    }
    let mut folders = vec![prefix.to_owned()];
    while let Some(folder) = folders.pop() {
        list_folder(root, &folder, hidden, &mut folders, &mut found)?;
    }
    Ok(found)
}

fn list_folder(
    root: &Path,
    folder: &str,
    hidden: &str,
    folders: &mut Vec<String>,
    found: &mut Vec<ObjectInfo>,
) -> io::Result<()> {
    let entries = match fs::read_dir(root.join(folder)) {
        Ok(entries) => entries,
        Err(error) if is_absence(&error) && !folder.is_empty() => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Some(name) = child_name(folder, &entry) else {
            continue;
        };
        if name.as_str() == hidden {
            continue;
        }
        // Of the entry itself: a symbolic link is neither a folder nor a file here.
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if is_absence(&error) => continue,
            Err(error) => return Err(error),
        };
        if metadata.is_dir() {
            folders.push(name.as_str().to_owned());
        } else if metadata.is_file() {
            found.push(ObjectInfo { name, size: metadata.len(), modified: modified_at(&metadata)? });
        }
    }
    Ok(())
}

fn child_name(folder: &str, entry: &fs::DirEntry) -> Option<ObjectName> {
    let name = entry.file_name().into_string().ok()?;
    ObjectName::parse(if folder.is_empty() { name } else { format!("{folder}/{name}") })
}

fn modified_at(metadata: &fs::Metadata) -> io::Result<Timestamp> {
    Timestamp::try_from(metadata.modified()?).map_err(io::Error::other)
}

/// Removes what lies in `staging` and was last written at least `older_than` before `now`; says how many files.
pub fn sweep(staging: &Path, older_than: Duration, now: Timestamp) -> io::Result<u64> {
    if !is_real_folder(staging)? {
        return Ok(0);
    }
    let mut swept = 0;
    for entry in fs::read_dir(staging)? {
        let entry = entry?;
        if is_stale(&entry, older_than, now)? && removed(&entry.path())? {
            swept += 1;
        }
    }
    if swept > 0 {
        sync_folder(staging)?;
    }
    Ok(swept)
}

fn is_stale(entry: &fs::DirEntry, older_than: Duration, now: Timestamp) -> io::Result<bool> {
    let metadata = match entry.metadata() {
        Ok(metadata) => metadata,
        Err(error) if is_absence(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let age = now.duration_since(modified_at(&metadata)?);
    let limit = SignedDuration::try_from(older_than).unwrap_or(SignedDuration::MAX);
    Ok(!metadata.is_dir() && age >= limit)
}

/// `false` if the put that owned the file finished in between.
fn removed(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if is_absence(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_without_hard_links_refuses_a_taken_name() {
        let folder = tempfile::tempdir().unwrap();
        let (staged, target) = (folder.path().join("staged"), folder.path().join("target"));
        fs::write(&staged, "new").unwrap();
        fs::write(&target, "old").unwrap();
        let error = rename_new(&staged, &target).unwrap_err();
        assert_eq!((error.kind(), fs::read(&target).unwrap()), (io::ErrorKind::AlreadyExists, b"old".to_vec()));
    }

    #[test]
    fn the_way_without_hard_links_gives_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let (staged, target) = (folder.path().join("staged"), folder.path().join("target"));
        fs::write(&staged, "new").unwrap();
        rename_new(&staged, &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn a_link_whose_answer_got_lost_counts_as_made() {
        let folder = tempfile::tempdir().unwrap();
        let (staged, target) = (folder.path().join("staged"), folder.path().join("target"));
        fs::write(&staged, "new").unwrap();
        fs::hard_link(&staged, &target).unwrap();
        publish(&staged, &target).unwrap();
    }

    #[test]
    fn a_put_that_does_not_get_its_name_leaves_no_staging_file() {
        let folder = tempfile::tempdir().unwrap();
        let staged = write_staged(folder.path().join("staged"), b"new").unwrap();
        assert!(publish(staged.path(), &folder.path().join("no/such/folder")).is_err());
        drop(staged);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
