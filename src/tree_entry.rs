//! What one entry of a folder tree is, and which entries may follow each other.
//!
//! Both wings need this: the field reads and writes folders, the vault keeps entries. It is pure: no file is touched.
//!
//! Paths are bytes, relative, with `/` between components. **Order**: component by component, each compared as bytes;
//! the same as comparing the paths as bytes with `/` taken as smaller than every other byte. Thereby a directory comes
//! directly before everything below it, and the root folder, whose path is empty, comes first.
//!
//! Holds: what passes [`Entry::check`] names nothing outside of the tree. Does not: say whether a hard link's first path
//! is a file of the tree; whoever restores looks.

use std::cmp::Ordering;
use std::fmt::Write;

use crate::limits::TREE_PATH_SIZE_MAX;

/// Permission bits, setuid, setgid and sticky: all of a mode that an entry keeps.
pub const MODE_MASK: u32 = 0o7777;

const NANOSECONDS_PER_SECOND: u32 = 1_000_000_000;

/// A moment as file systems keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileTime {
    /// Seconds since 1970-01-01 UTC, negative before.
    pub seconds: i64,
    /// Nanoseconds after that second, below 10⁹.
    pub nanoseconds: u32,
}

impl FileTime {
    /// Nanoseconds since 1970-01-01 UTC.
    pub fn as_nanoseconds(self) -> i128 {
        i128::from(self.seconds) * i128::from(NANOSECONDS_PER_SECOND) + i128::from(self.nanoseconds)
    }
}

/// What is kept about an entry of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryMeta {
    /// Bits of [`MODE_MASK`].
    pub mode: u32,
    /// The owner; never `u32::MAX`, which tells chown to change nothing.
    pub uid: u32,
    /// The group; never `u32::MAX`.
    pub gid: u32,
    /// When the content last changed.
    pub mtime: FileTime,
}

/// What an entry is. `F` is what the user of the type knows about a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind<F> {
    /// A regular file.
    File(F),
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, as it stands there; may lead anywhere or nowhere.
        target: Vec<u8>,
    },
    /// A further name of a file that came earlier in the tree.
    HardLink {
        /// That file's path.
        first: Vec<u8>,
    },
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<F> {
    /// Path below the root folder; empty for the root folder itself.
    pub path: Vec<u8>,
    /// Mode, owner and time.
    pub meta: EntryMeta,
    /// What it is.
    pub kind: EntryKind<F>,
}

/// Why an entry, or its place in a tree, is refused. Paths are as [`printable`] writes them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Longer than [`TREE_PATH_SIZE_MAX`].
    #[error("a path of {size} bytes is longer than {TREE_PATH_SIZE_MAX}")]
    PathTooLong {
        /// Its length in bytes.
        size: usize,
    },
    /// Begins with `/`.
    #[error("path `{path}` is absolute")]
    PathAbsolute {
        /// The path.
        path: String,
    },
    /// Has two `/` in a row or ends with one.
    #[error("path `{path}` has an empty component")]
    PathEmptyComponent {
        /// The path.
        path: String,
    },
    /// Has a component `.` or `..`.
    #[error("path `{path}` has a component of dots")]
    PathDots {
        /// The path.
        path: String,
    },
    /// Has a zero byte.
    #[error("path `{path}` has a zero byte")]
    PathNul {
        /// The path.
        path: String,
    },
    /// Has bits outside of [`MODE_MASK`].
    #[error("mode {mode:o} of `{path}` is more than permission bits")]
    Mode {
        /// The path.
        path: String,
        /// The mode.
        mode: u32,
    },
    /// Owner or group is `u32::MAX`.
    #[error("owner {uid}:{gid} of `{path}` is no owner")]
    Owner {
        /// The path.
        path: String,
        /// The owner.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// A whole second or more.
    #[error("{nanoseconds} nanoseconds in the time of `{path}` are a second or more")]
    Nanoseconds {
        /// The path.
        path: String,
        /// What it says.
        nanoseconds: u32,
    },
    /// A symbolic link to nothing, to more than [`TREE_PATH_SIZE_MAX`] bytes, or to a zero byte.
    #[error("the target of the symbolic link `{path}` is empty, too long or has a zero byte")]
    SymlinkTarget {
        /// The path of the link.
        path: String,
    },
    /// A hard link whose first path does not stand before it.
    #[error("hard link `{path}` names `{first}`, which is not earlier in the tree")]
    LinkNotEarlier {
        /// The path of the link.
        path: String,
        /// The path it names.
        first: String,
    },
    /// The first entry is not the root folder.
    #[error("the tree begins with `{path}` and not with its root folder")]
    RootMissing {
        /// The path of the first entry.
        path: String,
    },
    /// Not after the entry before it.
    #[error("path `{path}` does not come after `{previous}`")]
    Order {
        /// The path.
        path: String,
        /// The path before it.
        previous: String,
    },
    /// Its directory is not in the tree.
    #[error("the directory of `{path}` is not in the tree")]
    ParentMissing {
        /// The path.
        path: String,
    },
    /// What should be its directory is something else.
    #[error("what `{path}` lies in is not a directory")]
    ParentNotDirectory {
        /// The path.
        path: String,
    },
}

impl<F> Entry<F> {
    /// Whether the entry by itself may stand in a tree.
    ///
    /// # Errors
    /// Every [`EntryError`] but those that need the entries before.
    pub fn check(&self) -> Result<(), EntryError> {
        check_path(&self.path)?;
        check_meta(&self.path, &self.meta)?;
        match &self.kind {
            EntryKind::File(_) | EntryKind::Directory => Ok(()),
            EntryKind::Symlink { target } => check_symlink_target(&self.path, target),
            EntryKind::HardLink { first } => check_first_path(&self.path, first),
        }
    }
}

/// Whether `path` stays inside of a tree. The empty path is the root folder.
///
/// # Errors
/// The `Path…` variants of [`EntryError`].
pub fn check_path(path: &[u8]) -> Result<(), EntryError> {
    let shown = || printable(path);
    if path.len() > TREE_PATH_SIZE_MAX {
        return Err(EntryError::PathTooLong { size: path.len() });
    }
    if path.contains(&0) {
        return Err(EntryError::PathNul { path: shown() });
    }
    if path.is_empty() {
        return Ok(());
    }
    if path.starts_with(b"/") {
        return Err(EntryError::PathAbsolute { path: shown() });
    }
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" => return Err(EntryError::PathEmptyComponent { path: shown() }),
            b"." | b".." => return Err(EntryError::PathDots { path: shown() }),
            [..] => {}
        }
    }
    Ok(())
}

fn check_meta(path: &[u8], meta: &EntryMeta) -> Result<(), EntryError> {
    if meta.mode & !MODE_MASK != 0 {
        return Err(EntryError::Mode { path: printable(path), mode: meta.mode });
    }
    if meta.uid == u32::MAX || meta.gid == u32::MAX {
        return Err(EntryError::Owner { path: printable(path), uid: meta.uid, gid: meta.gid });
    }
    if meta.mtime.nanoseconds >= NANOSECONDS_PER_SECOND {
        return Err(EntryError::Nanoseconds { path: printable(path), nanoseconds: meta.mtime.nanoseconds });
    }
    Ok(())
}

fn check_symlink_target(path: &[u8], target: &[u8]) -> Result<(), EntryError> {
    if target.is_empty() || target.len() > TREE_PATH_SIZE_MAX || target.contains(&0) {
        return Err(EntryError::SymlinkTarget { path: printable(path) });
    }
    Ok(())
}

fn check_first_path(path: &[u8], first: &[u8]) -> Result<(), EntryError> {
    check_path(first)?;
    // The empty path is the root folder: earlier, but never a file.
    if first.is_empty() || compare_paths(first, path) != Ordering::Less {
        return Err(EntryError::LinkNotEarlier { path: printable(path), first: printable(first) });
    }
    Ok(())
}

/// The order of a tree: component by component, as bytes.
pub fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    // No path that passes `check_path` has a zero byte, so that zero is free to stand for `/`.
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(rank).cmp(b.iter().map(rank))
}

/// The path of the directory that `path` lies in; `None` for the root folder.
pub fn parent_of(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    Some(path.iter().rposition(|byte| *byte == b'/').map_or(&[], |slash| &path[..slash]))
}

/// The last component of `path`; empty for the root folder.
pub fn name_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(path, |slash| &path[slash + 1..])
}

/// `name` inside the directory `folder`.
pub fn join_path(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() {
        return name.to_vec();
    }
    [folder, b"/", name].concat()
}

/// `path` for people: valid UTF-8 as it is, everything else and what a terminal would not show escaped; the root as `.`.
pub fn printable(path: &[u8]) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '"' => text.push(c),
                _ => text.extend(c.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("a String takes any text");
        }
    }
    text
}

/// Watches the order of a tree's entries, in memory of one path and its depth.
///
/// Because a directory comes directly before its subtree, the directories that may still get entries are those on the
/// path of the last entry.
#[derive(Debug, Default)]
pub struct EntrySequence {
    previous: Option<Vec<u8>>,
    /// Lengths of the prefixes of `previous` that are directories, ascending; the first is the root's, 0.
    directories: Vec<usize>,
}

impl EntrySequence {
    /// Takes the next entry's path, which must have passed [`check_path`].
    ///
    /// # Errors
    /// [`EntryError::RootMissing`], `Order`, `ParentMissing`, `ParentNotDirectory`; nothing is changed then.
    pub fn accept(&mut self, path: &[u8], is_directory: bool) -> Result<(), EntryError> {
        let depth = match &self.previous {
            None => Self::check_root(path, is_directory)?,
            Some(previous) => self.check_place(previous, path)?,
        };
        self.directories.truncate(depth);
        if is_directory {
            self.directories.push(path.len());
        }
        self.previous = Some(path.to_vec());
        Ok(())
    }

    /// Whether the root folder has come.
    pub fn has_root(&self) -> bool {
        self.previous.is_some()
    }

    fn check_root(path: &[u8], is_directory: bool) -> Result<usize, EntryError> {
        if path.is_empty() && is_directory {
            return Ok(0);
        }
        Err(EntryError::RootMissing { path: printable(path) })
    }

    /// How many of the open directories are still open for `path`.
    fn check_place(&self, previous: &[u8], path: &[u8]) -> Result<usize, EntryError> {
        if compare_paths(previous, path) != Ordering::Less {
            return Err(EntryError::Order { path: printable(path), previous: printable(previous) });
        }
        let parent = parent_of(path).expect("only the root has no parent, and nothing sorts before the root");
        let open = self.directories.iter().rposition(|length| previous[..*length] == *parent);
        match open {
            Some(index) => Ok(index + 1),
            None if previous == parent => Err(EntryError::ParentNotDirectory { path: printable(path) }),
            None => Err(EntryError::ParentMissing { path: printable(path) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_comes_directly_before_its_subtree() {
        let mut paths: Vec<&[u8]> = vec![b"a.txt", b"a/b", b"b", b"a", b"", b"a/b/c", b"a-", b"a/b!"];
        paths.sort_by(|a, b| compare_paths(a, b));
        let expected: Vec<&[u8]> = vec![b"", b"a", b"a/b", b"a/b/c", b"a/b!", b"a-", b"a.txt", b"b"];
        assert_eq!(paths, expected);
    }

    #[test]
    fn parent_and_name_join_to_the_path() {
        for path in [&b"a"[..], b"a/b", b"a/b/c"] {
            assert_eq!(join_path(parent_of(path).unwrap(), name_of(path)), path);
        }
        assert_eq!(parent_of(b""), None);
    }

    #[test]
    fn a_path_is_shown_without_anything_that_moves_a_terminal() {
        assert_eq!(printable("ä\x1b[2J\u{202e}'".as_bytes()), "ä\\u{1b}[2J\\u{202e}'");
        assert_eq!(printable(b"a\xff\n"), "a\\xff\\n");
    }
}
