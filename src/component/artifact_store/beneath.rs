//! Reaching what lies beneath a folder, component by component, never through a symbolic link.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, Stat, openat, statat};
use rustix::io::{Errno, Result};

use crate::tree_entry::{EntryMeta, FileTime, MODE_MASK};

/// How every directory is opened.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens the directory `path` beneath `folder`; the empty path is `folder` itself.
///
/// # Errors
/// `NOTDIR` or `LOOP` if a component is no directory, which a symbolic link never is.
pub(super) fn open_directory(folder: impl AsFd, path: &[u8]) -> Result<OwnedFd> {
    let mut found = openat(folder, ".", DIRECTORY, Mode::empty())?;
    for component in path.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
        found = openat(&found, component, DIRECTORY, Mode::empty())?;
    }
    Ok(found)
}

/// The state of `name` in `folder`, not of what it may link to; `None` if there is nothing.
pub(super) fn state_of(folder: impl AsFd, name: &[u8]) -> Result<Option<Stat>> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All names in `folder` except `.` and `..`, in the order of bytes.
pub(super) fn names_in(folder: impl AsFd) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What `stat` says of mode, owner and content time.
pub(super) fn meta_of(stat: &Stat) -> EntryMeta {
    EntryMeta {
        mode: stat.st_mode & MODE_MASK,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: file_time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// A time of `stat`. The nanoseconds' type differs between machines.
pub(super) fn file_time<N: TryInto<u32>>(seconds: i64, nanoseconds: N) -> FileTime {
    // A value that does not fit is no nanosecond count; the largest is refused when the entry is checked.
    FileTime { seconds, nanoseconds: nanoseconds.try_into().unwrap_or(u32::MAX) }
}
