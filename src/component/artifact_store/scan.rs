//! Walking a folder in the order of trees.
//!
//! Holds: no symbolic link is followed below the top folder (the top folder itself may be one); a directory is given only
//! when all its names could be read, and directly before its subtree; two scans of an unchanged folder are equal.
//! Memory is the names of the directories from the top to the current one, plus one path per file with several names.
//! One descriptor is open per level of depth; a tree deeper than the process may open files gives a problem, not a gap.
//! What lies on another device is walked like the rest: [`FileState::device`] tells.
//! Does not: decide whether a problem ends the run.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;

use super::beneath;
use super::source_file;
pub use super::source_file::{FileState, SourceFile, is_unchanged};
use crate::tree_entry::{Entry, EntryError, EntryKind, join_path, printable};

/// Why a folder, or something in it, could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The top folder is not there, no folder, or not readable.
    #[error("folder `{}` cannot be scanned", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The system refused.
    #[error("the system did not {action} `{path}`")]
    Io {
        /// What was to be done, as a verb.
        action: &'static str,
        /// Path below the top folder.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it was when it was scanned.
    #[error("`{path}` changed while it was read: its {what}")]
    Changed {
        /// Path below the top folder.
        path: String,
        /// What differs.
        what: &'static str,
    },
    /// It is there but no tree can hold it.
    #[error("`{path}` cannot be kept in a tree")]
    Entry {
        /// Path below the top folder.
        path: String,
        /// Why not.
        #[source]
        source: EntryError,
    },
}

/// An entry as the scan saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedEntry {
    /// Path, mode, owner, time and kind.
    pub entry: Entry<()>,
    /// What tells its state from a later one.
    pub state: FileState,
}

/// One step of a scan.
#[derive(Debug)]
pub enum Scanned {
    /// Something that a tree keeps.
    Entry(ScannedEntry),
    /// Something that has no content to keep.
    Skipped {
        /// Path below the top folder.
        path: Vec<u8>,
        /// `socket`, `fifo`, `device` or `unknown kind`.
        reason: &'static str,
    },
    /// Something that should be kept but could not be read; with all below it.
    Problem {
        /// Path below the top folder.
        path: Vec<u8>,
        /// Why.
        error: ScanError,
    },
}

/// A folder that is backed up.
#[derive(Debug)]
pub struct SourceFolder {
    root: OwnedFd,
    path: PathBuf,
}

impl SourceFolder {
    /// Opens the top folder.
    ///
    /// # Errors
    /// [`ScanError::Folder`].
    pub fn open(path: &Path) -> Result<Self, ScanError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| ScanError::Folder { path: path.to_owned(), source: error.into() })?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// Begins a walk. Its first step is the top folder itself.
    ///
    /// # Errors
    /// [`ScanError::Folder`].
    pub fn scan(&self) -> Result<Scan, ScanError> {
        let failed = |error: Errno| ScanError::Folder { path: self.path.clone(), source: error.into() };
        let folder = openat(&self.root, ".", beneath::DIRECTORY, Mode::empty()).map_err(failed)?;
        let stat = fstat(&folder).map_err(failed)?;
        let names = beneath::names_in(&folder).map_err(failed)?.into_iter();
        let level = Level { folder, path: Vec::new(), names };
        Ok(Scan { root: Some(stat), levels: vec![level], first_names: HashMap::new() })
    }

    /// The state of a file now; `None` if it is gone or no longer a regular file.
    ///
    /// # Errors
    /// [`ScanError::Io`].
    pub fn look(&self, path: &[u8]) -> Result<Option<ScannedEntry>, ScanError> {
        let opened = match source_file::open_nofollow(&self.root, path) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(Self::unread(path, error)),
        };
        let stat = fstat(&opened).map_err(|error| Self::unread(path, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let entry = Entry { path: path.to_vec(), meta: beneath::meta_of(&stat), kind: EntryKind::File(()) };
        Ok(Some(ScannedEntry { entry, state: FileState::of(&stat) }))
    }

    fn unread(path: &[u8], error: Errno) -> ScanError {
        ScanError::Io { action: "read", path: printable(path), source: error.into() }
    }

    /// Opens a scanned file for reading, if it is still in `state`.
    ///
    /// # Errors
    /// [`ScanError::Changed`] (also when it is gone) and [`ScanError::Io`].
    pub fn open_checked(&self, path: &[u8], state: &FileState) -> Result<SourceFile, ScanError> {
        SourceFile::open(&self.root, path, state)
    }
}

#[derive(Debug)]
struct Level {
    folder: OwnedFd,
    path: Vec<u8>,
    names: std::vec::IntoIter<Vec<u8>>,
}

/// A walk in progress.
#[derive(Debug)]
pub struct Scan {
    /// The top folder's state until it has been given.
    root: Option<Stat>,
    levels: Vec<Level>,
    /// Device and inode of files with several names, and the name that came first.
    first_names: HashMap<(u64, u64), Vec<u8>>,
}

impl Scan {
    /// Tells that the content of a file that was given is not kept: if it has a further name, that one becomes the file.
    pub fn forget(&mut self, state: &FileState) {
        self.first_names.remove(&(state.device, state.inode));
    }

    fn give(path: Vec<u8>, stat: &Stat, kind: EntryKind<()>) -> Scanned {
        let entry = Entry { path, meta: beneath::meta_of(stat), kind };
        match entry.check() {
            Ok(()) => Scanned::Entry(ScannedEntry { entry, state: FileState::of(stat) }),
            Err(source) => {
                let error = ScanError::Entry { path: printable(&entry.path), source };
                Scanned::Problem { path: entry.path, error }
            }
        }
    }

    /// `None` if it vanished.
    fn visit(&mut self, name: &[u8]) -> Option<Scanned> {
        let level = self.levels.last().expect("names come from a level");
        let path = join_path(&level.path, name);
        let visited = beneath::state_of(&level.folder, name).and_then(|stat| match stat {
            Some(stat) => self.visit_kind(path.clone(), name, &stat),
            None => Ok(None),
        });
        visited.unwrap_or_else(|error| self.problem_unless_gone(path, name, error))
    }

    fn visit_kind(&mut self, path: Vec<u8>, name: &[u8], stat: &Stat) -> rustix::io::Result<Option<Scanned>> {
        let skipped = |path, reason| Ok(Some(Scanned::Skipped { path, reason }));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Some(self.visit_file(path, stat))),
            FileType::Directory => self.visit_directory(path, name).map(Some),
            FileType::Symlink => {
                let level = self.levels.last().expect("names come from a level");
                let target = readlinkat(&level.folder, name, Vec::new())?.into_bytes();
                Ok(Some(Self::give(path, stat, EntryKind::Symlink { target })))
            }
            FileType::Socket => skipped(path, "socket"),
            FileType::Fifo => skipped(path, "fifo"),
            FileType::CharacterDevice | FileType::BlockDevice => skipped(path, "device"),
            FileType::Unknown => skipped(path, "unknown kind"),
        }
    }

    fn visit_file(&mut self, path: Vec<u8>, stat: &Stat) -> Scanned {
        if stat.st_nlink < 2 {
            return Self::give(path, stat, EntryKind::File(()));
        }
        let key = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.first_names.get(&key) {
            return Self::give(path, stat, EntryKind::HardLink { first: first.clone() });
        }
        let given = Self::give(path, stat, EntryKind::File(()));
        if let Scanned::Entry(file) = &given {
            self.first_names.insert(key, file.entry.path.clone());
        }
        given
    }

    /// State and names are taken from the opened directory, so that they belong to the same one.
    fn visit_directory(&mut self, path: Vec<u8>, name: &[u8]) -> rustix::io::Result<Scanned> {
        let level = self.levels.last().expect("names come from a level");
        let folder = openat(&level.folder, name, beneath::DIRECTORY, Mode::empty())?;
        let stat = fstat(&folder)?;
        let names = beneath::names_in(&folder)?.into_iter();
        let given = Self::give(path.clone(), &stat, EntryKind::Directory);
        if matches!(given, Scanned::Entry(_)) {
            self.levels.push(Level { folder, path, names });
        }
        Ok(given)
    }

    fn problem_unless_gone(&self, path: Vec<u8>, name: &[u8], error: Errno) -> Option<Scanned> {
        let level = self.levels.last().expect("names come from a level");
        if error == Errno::NOENT && matches!(beneath::state_of(&level.folder, name), Ok(None)) {
            return None;
        }
        let error = ScanError::Io { action: "read", path: printable(&path), source: error.into() };
        Some(Scanned::Problem { path, error })
    }
}

impl Iterator for Scan {
    type Item = Scanned;

    fn next(&mut self) -> Option<Scanned> {
        if let Some(stat) = self.root.take() {
            return Some(Self::give(Vec::new(), &stat, EntryKind::Directory));
        }
        loop {
            match self.levels.last_mut()?.names.next() {
                Some(name) => {
                    if let Some(scanned) = self.visit(&name) {
                        return Some(scanned);
                    }
                }
                None => {
                    self.levels.pop();
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
