//! Putting a tree back under a target folder.
//!
//! The tree grows in a new folder that nobody else may enter and takes the target's place only in
//! [`TreeRestorer::commit`]; see `place.rs` for how, and for what a kill in between leaves.
//!
//! Holds: nothing outside of the new folder is written, whatever paths and links the tree has: every component is opened
//! without following links and every entry must be new. The target is whole or untouched.
//! Does not: read trees or contents; restore access times, extended attributes or holes.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::beneath;
use super::place::Place;
use crate::tree_entry::{Entry, EntryError, EntryKind, EntryMeta, EntrySequence, name_of, parent_of, printable};

const SETUID_SETGID: u32 = 0o6000;

/// What to do with a target that has content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Refuse it; only a missing or empty target is restored to.
    Refuse,
    /// Replace all of it by the tree.
    Replace,
}

/// Why a tree could not be put back. Paths of entries are as [`printable`] writes them.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The target has content.
    #[error("target `{}` is not empty", target.display())]
    TargetNotEmpty {
        /// The target.
        target: PathBuf,
    },
    /// The target or one of our folders beside or in it.
    #[error("the system did not {action} `{}`", target.display())]
    Target {
        /// What was to be done, as a verb.
        action: &'static str,
        /// The folder or entry.
        target: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The swap stopped half way and could not be undone.
    #[error("target `{}` is mixed, the rest of its old content is in `{}`", target.display(), old.display())]
    NotUndone {
        /// The target.
        target: PathBuf,
        /// Where what did not move back is.
        old: PathBuf,
        /// What stopped the swap.
        #[source]
        source: Box<RestoreError>,
    },
    /// An entry breaks the rules of trees.
    #[error("an entry of the tree is refused")]
    Entry {
        /// Which rule.
        #[source]
        source: EntryError,
    },
    /// The entry has the name of one of our own folders.
    #[error("`{path}` has the name of a folder that this restore needs")]
    NameTaken {
        /// The entry.
        path: String,
    },
    /// A hard link to something that is not a file of the tree.
    #[error("hard link `{path}` names `{first}`, which is not a file of the tree")]
    LinkTarget {
        /// The entry.
        path: String,
        /// What it names.
        first: String,
    },
    /// The system refused.
    #[error("the system did not {action} `{path}`")]
    Io {
        /// What was to be done, as a verb.
        action: &'static str,
        /// The entry.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Content and size differ.
    #[error("file `{path}` got {written} of {size} bytes")]
    Size {
        /// The entry.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// Bytes that were to be written.
        written: u64,
    },
    /// A file was begun and not finished, or an entry erred.
    #[error("the restored tree is not complete: `{path}`")]
    Incomplete {
        /// The last entry that did not end well; the root if none came.
        path: String,
    },
}

/// What was restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeSummary {
    /// Regular files, each counted once.
    pub files: u64,
    /// Directories, the root folder included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Bytes in files.
    pub bytes: u64,
    /// Entries whose owner or group could not be set.
    pub owners_not_set: u64,
    /// Files that lost setuid or setgid, because the bits would have given another owner's rights.
    pub special_bits_not_set: u64,
    /// The old content, if it could not be removed.
    pub old_kept: Option<PathBuf>,
}

/// Restores one tree. Entries come in the order of trees, the root folder first.
#[derive(Debug)]
pub struct TreeRestorer {
    place: Place,
    staging: OwnedFd,
    sequence: EntrySequence,
    /// Their modes and times are set last: a read-only directory takes no files, and each file changes its time.
    directories: Vec<(Vec<u8>, EntryMeta)>,
    /// The directory of the last entry.
    current: Option<(Vec<u8>, OwnedFd)>,
    /// The entry that is begun and has not ended well.
    incomplete: Option<String>,
    summary: TreeSummary,
    swapped: bool,
}

impl TreeRestorer {
    /// Makes the new folder `<target>.restore-<tag>`, or, if the target is a mount point or its parent may not be
    /// written, `.restore-<tag>` in the target. A target that is a symbolic link is followed. `tag` is written as 8 hexadecimal
    /// digits.
    ///
    /// # Errors
    /// [`RestoreError::TargetNotEmpty`] and [`RestoreError::Target`]; also if a folder of that name is there.
    pub fn new(target: &Path, overwrite: Overwrite, tag: u32) -> Result<Self, RestoreError> {
        Self::at(Place::make(target, overwrite, tag, false)?)
    }

    /// Like [`TreeRestorer::new`], but always inside of the target, which must exist.
    ///
    /// # Errors
    /// As there.
    pub fn new_inside(target: &Path, overwrite: Overwrite, tag: u32) -> Result<Self, RestoreError> {
        Self::at(Place::make(target, overwrite, tag, true)?)
    }

    fn at(place: Place) -> Result<Self, RestoreError> {
        Ok(Self {
            staging: place.open_staging()?,
            place,
            sequence: EntrySequence::default(),
            directories: Vec::new(),
            current: None,
            incomplete: Some(printable(b"")),
            summary: TreeSummary::default(),
            swapped: false,
        })
    }

    /// Whether the tree grows inside of the target, whose entries will be swapped one by one.
    pub fn is_inside(&self) -> bool {
        self.place.inside
    }

    /// Puts back an entry that is not a file.
    ///
    /// # Errors
    /// Each but those of the target; the restore cannot be committed after one.
    ///
    /// # Panics
    /// If it is a file: those go through [`TreeRestorer::begin_file`].
    pub fn put<F>(&mut self, entry: &Entry<F>) -> Result<(), RestoreError> {
        self.begin(entry)?;
        match &entry.kind {
            EntryKind::File(_) => panic!("a file is put back by `begin_file`"),
            EntryKind::Directory => self.put_directory(entry)?,
            EntryKind::Symlink { target } => self.put_symlink(&entry.path, &entry.meta, target)?,
            EntryKind::HardLink { first } => self.put_hard_link(&entry.path, first)?,
        }
        self.incomplete = None;
        Ok(())
    }

    /// Creates a file that will get `size` bytes.
    ///
    /// # Errors
    /// Each but those of the target; the restore cannot be committed after one, nor before the file is finished.
    pub fn begin_file<F>(&mut self, entry: &Entry<F>, size: u64) -> Result<FileWriter<'_>, RestoreError> {
        self.begin(entry)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = self.parent(&entry.path)?;
        let file = rustix::fs::openat(folder, name_of(&entry.path), flags, Mode::RUSR | Mode::WUSR)
            .map_err(failed("create", &entry.path))?;
        let (path, meta) = (entry.path.clone(), entry.meta);
        Ok(FileWriter { restorer: self, file: File::from(file), path, meta, size, written: 0 })
    }

    /// Sets what is left to set, makes all durable and puts the tree in the target's place.
    ///
    /// # Errors
    /// After each but [`RestoreError::NotUndone`] the target has its old content; only when the last sync or (inside)
    /// the last setting of the target's time errs, it has the new content, and the old may be left in
    /// `<target>.old-<tag>` (inside: `.old-<tag>`).
    pub fn commit(mut self) -> Result<TreeSummary, RestoreError> {
        if let Some(path) = self.incomplete.take() {
            return Err(RestoreError::Incomplete { path });
        }
        self.current = None;
        let directories = std::mem::take(&mut self.directories);
        // A directory that may not be written cannot be moved to another parent by its owner: inside, the top ones wait.
        let is_late = |path: &[u8]| self.place.inside && !path.contains(&b'/');
        let (late, early): (Vec<_>, Vec<_>) = directories.into_iter().rev().partition(|(path, _)| is_late(path));
        let mut summary = std::mem::take(&mut self.summary);
        finish_directories(&self.staging, &early, &mut summary)?;
        rustix::fs::syncfs(&self.staging).map_err(failed("sync", b""))?;
        self.place.swap(|| finish_directories(self.place.base(), &late, &mut summary))?;
        self.swapped = true;
        self.place.sync()?;
        summary.old_kept = self.place.remove_old();
        if let Some((_, root)) = late.last() {
            // Removing our own folders from the target gave it a new time.
            rustix::fs::futimens(self.place.base(), &times_of(root)).map_err(failed("set the time of", b""))?;
        }
        Ok(summary)
    }

    /// Removes the new folder; the target stays as it is.
    ///
    /// # Errors
    /// [`RestoreError::Target`] names what is left.
    pub fn abort(mut self) -> Result<(), RestoreError> {
        self.swapped = true;
        self.place.remove_staging()
    }

    fn begin<F>(&mut self, entry: &Entry<F>) -> Result<(), RestoreError> {
        self.incomplete = Some(printable(&entry.path));
        let refused = |source| RestoreError::Entry { source };
        entry.check().map_err(refused)?;
        self.sequence.accept(&entry.path, matches!(entry.kind, EntryKind::Directory)).map_err(refused)?;
        if self.place.is_own_name(&entry.path) {
            return Err(RestoreError::NameTaken { path: printable(&entry.path) });
        }
        Ok(())
    }

    fn parent(&mut self, path: &[u8]) -> Result<&OwnedFd, RestoreError> {
        let parent = parent_of(path).unwrap_or_default();
        let current = match self.current.take() {
            Some(current) if current.0 == parent => current,
            Some(_) | None => {
                let folder = beneath::open_directory(&self.staging, parent).map_err(failed("open", parent))?;
                (parent.to_vec(), folder)
            }
        };
        Ok(&self.current.insert(current).1)
    }

    fn put_directory<F>(&mut self, entry: &Entry<F>) -> Result<(), RestoreError> {
        if !entry.path.is_empty() {
            let folder = self.parent(&entry.path)?;
            rustix::fs::mkdirat(folder, name_of(&entry.path), Mode::RWXU).map_err(failed("create", &entry.path))?;
        }
        self.directories.push((entry.path.clone(), entry.meta));
        self.summary.directories += 1;
        Ok(())
    }

    fn put_symlink(&mut self, path: &[u8], meta: &EntryMeta, target: &[u8]) -> Result<(), RestoreError> {
        let name = name_of(path);
        let folder = self.parent(path)?;
        rustix::fs::symlinkat(target, folder, name).map_err(failed("create", path))?;
        let chown = |uid, gid| rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
        let owned = set_owner(meta, chown).map_err(failed("set the owner of", path))?;
        rustix::fs::utimensat(folder, name, &times_of(meta), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the time of", path))?;
        self.summary.owners_not_set += u64::from(!owned);
        self.summary.symlinks += 1;
        Ok(())
    }

    fn put_hard_link(&mut self, path: &[u8], first: &[u8]) -> Result<(), RestoreError> {
        let refused = || RestoreError::LinkTarget { path: printable(path), first: printable(first) };
        let parent = parent_of(first).unwrap_or_default();
        let first_folder = beneath::open_directory(&self.staging, parent).map_err(|_| refused())?;
        let state = beneath::state_of(&first_folder, name_of(first)).map_err(failed("examine", first))?;
        if state.is_none_or(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile) {
            return Err(refused());
        }
        let folder = self.parent(path)?;
        rustix::fs::linkat(&first_folder, name_of(first), folder, name_of(path), AtFlags::empty())
            .map_err(failed("link", path))?;
        self.summary.hard_links += 1;
        Ok(())
    }
}

impl Drop for TreeRestorer {
    /// A restore that ended with an error leaves no half tree, as far as that can be done without a verdict.
    fn drop(&mut self) {
        if !self.swapped {
            let _ = self.place.remove_staging();
        }
    }
}

/// Takes the bytes of one file.
#[derive(Debug)]
pub struct FileWriter<'a> {
    restorer: &'a mut TreeRestorer,
    file: File,
    path: Vec<u8>,
    meta: EntryMeta,
    size: u64,
    written: u64,
}

impl FileWriter<'_> {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`RestoreError::Size`] for more than the file's size, and [`RestoreError::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.written = self.written.saturating_add(u64::try_from(bytes.len()).expect("a length fits 64 bits"));
        if self.written > self.size {
            return Err(self.wrong_size());
        }
        self.file.write_all(bytes).map_err(|source| RestoreError::Io {
            action: "write",
            path: printable(&self.path),
            source,
        })
    }

    /// Sets owner, mode and time, in this order: chown clears setuid, and nothing may come after the time.
    ///
    /// # Errors
    /// [`RestoreError::Size`] for less than the file's size, and [`RestoreError::Io`].
    pub fn finish(self) -> Result<(), RestoreError> {
        if self.written != self.size {
            return Err(self.wrong_size());
        }
        let summary = &mut self.restorer.summary;
        let owned = set_owner(&self.meta, |uid, gid| rustix::fs::fchown(&self.file, uid, gid))
            .map_err(failed("set the owner of", &self.path))?;
        let mut mode = self.meta.mode;
        if !owned {
            summary.owners_not_set += 1;
            summary.special_bits_not_set += u64::from(mode & SETUID_SETGID != 0);
            mode &= !SETUID_SETGID;
        }
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode)).map_err(failed("set the mode of", &self.path))?;
        rustix::fs::futimens(&self.file, &times_of(&self.meta)).map_err(failed("set the time of", &self.path))?;
        summary.files += 1;
        summary.bytes += self.written;
        self.restorer.incomplete = None;
        Ok(())
    }

    fn wrong_size(&self) -> RestoreError {
        RestoreError::Size { path: printable(&self.path), size: self.size, written: self.written }
    }
}

/// Sets owner, mode and time of directories, which come deepest first.
fn finish_directories(
    base: &OwnedFd,
    directories: &[(Vec<u8>, EntryMeta)],
    summary: &mut TreeSummary,
) -> Result<(), RestoreError> {
    for (path, meta) in directories {
        let folder = beneath::open_directory(base, path).map_err(failed("open", path))?;
        let owned = set_owner(meta, |uid, gid| rustix::fs::fchown(&folder, uid, gid))
            .map_err(failed("set the owner of", path))?;
        summary.owners_not_set += u64::from(!owned);
        rustix::fs::fchmod(&folder, Mode::from_raw_mode(meta.mode)).map_err(failed("set the mode of", path))?;
        rustix::fs::futimens(&folder, &times_of(meta)).map_err(failed("set the time of", path))?;
    }
    Ok(())
}

/// Whether owner and group are set. Only root may give files away; others keep what they create, with the group if they
/// are in it.
fn set_owner(
    meta: &EntryMeta,
    chown: impl Fn(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
) -> rustix::io::Result<bool> {
    let group = Some(Gid::from_raw(meta.gid));
    match chown(Some(Uid::from_raw(meta.uid)), group) {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::INVAL) => {
            // A group that may not be set either is counted with the owner.
            let _ = chown(None, group);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn times_of(meta: &EntryMeta) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: meta.mtime.seconds, tv_nsec: meta.mtime.nanoseconds.into() },
    }
}

fn failed(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> RestoreError {
    let path = printable(path);
    move |error| RestoreError::Io { action, path, source: error.into() }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
