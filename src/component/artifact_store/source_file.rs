//! One file of a scanned folder: whether it changed since a run, and reading it so that a change cannot go unseen.
//!
//! Holds: a [`SourceFile`] that finishes gave the content of one state, as far as size, times and inode can tell.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use jiff::Timestamp;
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;

use super::beneath;
use super::scan::ScanError;
use crate::limits::FILE_RECENT;
use crate::tree_entry::{FileTime, name_of, parent_of, printable};

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    /// Length in bytes; of anything but a file, what the file system says.
    pub size: u64,
    /// When the content last changed; anybody who may write the file can set it.
    pub mtime: FileTime,
    /// When content, mode, owner or names last changed; only the clock sets it.
    pub ctime: FileTime,
    /// Number of the inode within its device.
    pub inode: u64,
    /// The device; its number may change whenever it is mounted.
    pub device: u64,
}

impl FileState {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: beneath::file_time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: beneath::file_time(stat.st_ctime, stat.st_ctime_nsec),
            inode: stat.st_ino,
            device: stat.st_dev,
        }
    }

    /// What differs from `other`, in the order of meaning.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        let same = [
            ("inode", self.inode == other.inode && self.device == other.device),
            ("size", self.size == other.size),
            ("modification time", self.mtime == other.mtime),
            ("change time", self.ctime == other.ctime),
        ];
        same.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
    }
}

/// Whether a file in state `now` has the content that the last run read in state `last`.
///
/// Both times must lie more than [`FILE_RECENT`] before the start of that run: a younger file may have been changed again
/// within one tick of the file system's clock, with every number equal. The device does not count: its number changes
/// over mounts and container starts, and two files with equal inode, size and both times to the nanosecond on different
/// devices are copies of one file system.
pub fn is_unchanged(now: &FileState, last: &FileState, last_run_started: Timestamp) -> bool {
    let recent = i128::try_from(FILE_RECENT.as_nanos()).expect("a few seconds fit");
    let settled = |time: FileTime| time.as_nanoseconds() < last_run_started.as_nanosecond() - recent;
    let same = FileState { device: last.device, ..*now } == *last;
    same && settled(now.mtime) && settled(now.ctime)
}

/// A file open for reading, in the state that the scan saw.
#[derive(Debug)]
pub struct SourceFile {
    file: File,
    path: String,
    state: FileState,
    read_bytes: u64,
}

impl SourceFile {
    /// Opens `path` beneath `root`.
    pub(super) fn open(root: &OwnedFd, path: &[u8], state: &FileState) -> Result<Self, ScanError> {
        let shown = printable(path);
        let file = open_nofollow(root, path).map_err(|error| match error {
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR => ScanError::Changed { path: shown.clone(), what: "kind" },
            _ => ScanError::Io { action: "open", path: shown.clone(), source: error.into() },
        })?;
        let opened = Self { file: File::from(file), path: shown, state: *state, read_bytes: 0 };
        opened.check_state()?;
        Ok(opened)
    }

    /// Reads the next bytes; 0 at the end.
    ///
    /// # Errors
    /// [`ScanError::Io`].
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ScanError> {
        loop {
            match self.file.read(buffer) {
                Ok(size) => {
                    self.read_bytes += u64::try_from(size).expect("a length fits 64 bits");
                    return Ok(size);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(ScanError::Io { action: "read", path: self.path.clone(), source });
                }
            }
        }
    }

    /// Confirms that what was read is the whole file in the state that the scan saw.
    ///
    /// # Errors
    /// [`ScanError::Changed`]: what was read must not be kept.
    pub fn finish(self) -> Result<(), ScanError> {
        self.check_state()?;
        if self.read_bytes != self.state.size {
            return Err(ScanError::Changed { path: self.path, what: "number of bytes read" });
        }
        Ok(())
    }

    fn check_state(&self) -> Result<(), ScanError> {
        let stat = fstat(&self.file).map_err(|error| ScanError::Io {
            action: "examine",
            path: self.path.clone(),
            source: error.into(),
        })?;
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.state.difference(&FileState::of(&stat)),
            _ => Some("kind"),
        };
        what.map_or(Ok(()), |what| Err(ScanError::Changed { path: self.path.clone(), what }))
    }
}

/// Non-blocking, because a fifo may have taken the file's place: opening one would wait for a writer for ever.
pub(super) fn open_nofollow(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let folder = beneath::open_directory(root, parent_of(path).unwrap_or_default())?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat(&folder, name_of(path), flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner may leave the access time alone.
        Err(Errno::PERM) => openat(&folder, name_of(path), flags, Mode::empty()),
        opened => opened,
    }
}
