//! Where a restored tree grows, and how it takes the target's place.
//!
//! *Beside*: a new sibling of the target, which one rename (an exchange, if the target exists) puts in its place.
//! *Inside*: where the target itself cannot be renamed, a new folder in it, whose entries are swapped one by one with
//! the target's; an error half way is undone, but a killed process leaves the old entries in `.old-<tag>`.
//!
//! Holds: when [`Place::swap`] errs, the target has its old content, unless the error is
//! [`RestoreError::NotUndone`]; old content is never removed here.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, StatxAttributes, StatxFlags};
use rustix::fs::{mkdirat, renameat, renameat_with, statx};
use rustix::io::Errno;

use super::beneath;
use super::restore::{Overwrite, RestoreError};

/// The folder that a tree is restored to, and the new one where it grows.
#[derive(Debug)]
pub(super) struct Place {
    target: PathBuf,
    exists: bool,
    overwrite: Overwrite,
    /// Whether the new folder is in the target and not beside it.
    pub(super) inside: bool,
    /// The folder that has the new one in it: the target or its parent.
    base: OwnedFd,
    base_path: PathBuf,
    staging: Vec<u8>,
    old: Vec<u8>,
}

impl Place {
    /// Judges the target and makes the new folder, mode 0700.
    pub(super) fn make(target: &Path, overwrite: Overwrite, tag: u32, inside: bool) -> Result<Self, RestoreError> {
        let (target, exists) = resolve(target)?;
        if exists && overwrite == Overwrite::Refuse && !names(&open(&target)?, &target)?.is_empty() {
            return Err(RestoreError::TargetNotEmpty { target });
        }
        if inside || (exists && is_mount_point(&target)?) {
            return Self::make_inside(target, overwrite, tag);
        }
        match Self::make_beside(target.clone(), exists, overwrite, tag) {
            Err(RestoreError::Target { source, .. }) if exists && may_not_write(&source) => {
                Self::make_inside(target, overwrite, tag)
            }
            made => made,
        }
    }

    fn make_beside(target: PathBuf, exists: bool, overwrite: Overwrite, tag: u32) -> Result<Self, RestoreError> {
        let base_path = target.parent().expect("a root folder is a mount point").to_owned();
        let name = target.file_name().expect("a resolved path ends with a name").as_bytes();
        let staging = [name, format!(".restore-{tag:08x}").as_bytes()].concat();
        let old = [name, format!(".old-{tag:08x}").as_bytes()].concat();
        let place = Self { base: open(&base_path)?, target, exists, overwrite, inside: false, base_path, staging, old };
        place.make_folder(&place.staging)?;
        Ok(place)
    }

    fn make_inside(target: PathBuf, overwrite: Overwrite, tag: u32) -> Result<Self, RestoreError> {
        let staging = format!(".restore-{tag:08x}").into_bytes();
        let old = format!(".old-{tag:08x}").into_bytes();
        let (base, base_path) = (open(&target)?, target.clone());
        let place = Self { target, exists: true, overwrite, inside: true, base, base_path, staging, old };
        place.make_folder(&place.staging)?;
        Ok(place)
    }

    /// Opens the new folder.
    pub(super) fn open_staging(&self) -> Result<OwnedFd, RestoreError> {
        beneath::open_directory(&self.base, &self.staging).map_err(|e| self.failed("open", &self.staging, e))
    }

    /// The target itself; only meaningful inside.
    pub(super) fn base(&self) -> &OwnedFd {
        &self.base
    }

    /// Whether a top-level entry of this name would collide with our own folders.
    pub(super) fn is_own_name(&self, name: &[u8]) -> bool {
        self.inside && (name == self.staging || name == self.old)
    }

    /// Removes the new folder, or what is left of it.
    pub(super) fn remove_staging(&self) -> Result<(), RestoreError> {
        self.remove(&self.staging)
    }

    /// Puts the new content in the target's place and runs `finish`, which may still refuse.
    pub(super) fn swap(&self, finish: impl FnOnce() -> Result<(), RestoreError>) -> Result<(), RestoreError> {
        if self.inside {
            return self.swap_entries(finish);
        }
        finish()?;
        self.swap_folders()
    }

    /// Makes a swap durable.
    pub(super) fn sync(&self) -> Result<(), RestoreError> {
        rustix::fs::syncfs(&self.base).map_err(|error| self.failed("sync", b"", error))
    }

    /// Removes the old content after a swap; where it is, if that was not possible.
    pub(super) fn remove_old(&self) -> Option<PathBuf> {
        // After a swap the new folder's name has nothing, or old content that could not be given its own name.
        let old = self.remove(&self.old).err().map(|_| &self.old);
        let staging = self.remove(&self.staging).err().map(|_| &self.staging);
        old.or(staging).map(|name| self.base_path.join(std::ffi::OsStr::from_bytes(name)))
    }

    fn swap_folders(&self) -> Result<(), RestoreError> {
        let target = self.target.file_name().expect("a resolved path ends with a name").as_bytes();
        let failed = |error| self.failed("rename", &self.staging, error);
        if !self.exists || self.overwrite == Overwrite::Refuse {
            // Rename replaces an empty folder only: whatever came there meanwhile makes it err.
            return renameat(&self.base, &self.staging[..], &self.base, target).map_err(failed);
        }
        match renameat_with(&self.base, &self.staging[..], &self.base, target, RenameFlags::EXCHANGE) {
            Ok(()) => {
                // The swap is done; if the old content cannot be given its own name, it is removed under this one.
                let _ = self.rename_new(&self.base, &self.staging, &self.base, &self.old);
                Ok(())
            }
            Err(Errno::INVAL | Errno::NOSYS) => self.swap_in_two_steps(target).map_err(failed),
            Err(error) => Err(failed(error)),
        }
    }

    fn swap_in_two_steps(&self, target: &[u8]) -> rustix::io::Result<()> {
        self.rename_new(&self.base, target, &self.base, &self.old)?;
        self.rename_new(&self.base, &self.staging, &self.base, target).inspect_err(|_| {
            let _ = self.rename_new(&self.base, &self.old, &self.base, target);
        })
    }

    fn swap_entries(&self, finish: impl FnOnce() -> Result<(), RestoreError>) -> Result<(), RestoreError> {
        let staging = self.open_staging()?;
        self.make_folder(&self.old)?;
        let old = beneath::open_directory(&self.base, &self.old).map_err(|e| self.failed("open", &self.old, e))?;
        let mut moved = Vec::new();
        let swapped = self.move_all(&self.base, &old, &mut moved).and_then(|()| {
            if !moved.is_empty() && self.overwrite == Overwrite::Refuse {
                return Err(RestoreError::TargetNotEmpty { target: self.target.clone() });
            }
            let out = moved.len();
            let result = self.move_all(&staging, &self.base, &mut moved).and_then(|()| finish());
            result.map_err(|error| self.undo_or(error, &self.base, &staging, moved.drain(out..)))
        });
        let result = swapped.map_err(|error| self.undo_or(error, &old, &self.base, moved.drain(..)));
        if result.is_err() {
            // Goes only if it is empty: all is back.
            let _ = rustix::fs::unlinkat(&self.base, &self.old[..], AtFlags::REMOVEDIR);
        }
        result
    }

    fn move_all(&self, from: &OwnedFd, to: &OwnedFd, moved: &mut Vec<Vec<u8>>) -> Result<(), RestoreError> {
        for name in names(from, &self.target)? {
            if name == self.staging || name == self.old {
                continue;
            }
            self.rename_new(from, &name, to, &name).map_err(|error| self.failed("rename", &name, error))?;
            moved.push(name);
        }
        Ok(())
    }

    /// Moves `names` back, from `from` to `to`; gives `error`, or that this did not work.
    fn undo_or(
        &self,
        error: RestoreError,
        from: &OwnedFd,
        to: &OwnedFd,
        names: impl DoubleEndedIterator<Item = Vec<u8>>,
    ) -> RestoreError {
        let undone = names.rev().filter(|name| self.rename_new(from, name, to, name).is_err()).count() == 0;
        if undone {
            return error;
        }
        let old = self.base_path.join(std::ffi::OsStr::from_bytes(&self.old));
        RestoreError::NotUndone { target: self.target.clone(), old, source: Box::new(error) }
    }

    /// Renames to a name that must be free.
    fn rename_new(&self, from: &OwnedFd, name: &[u8], to: &OwnedFd, new: &[u8]) -> rustix::io::Result<()> {
        match renameat_with(from, name, to, new, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => match beneath::state_of(to, new)? {
                Some(_) => Err(Errno::EXIST),
                None => renameat(from, name, to, new),
            },
            renamed => renamed,
        }
    }

    fn make_folder(&self, name: &[u8]) -> Result<(), RestoreError> {
        mkdirat(&self.base, name, Mode::RWXU).map_err(|error| self.failed("create", name, error))
    }

    fn remove(&self, name: &[u8]) -> Result<(), RestoreError> {
        let path = self.base_path.join(std::ffi::OsStr::from_bytes(name));
        match std::fs::remove_dir_all(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(source) => Err(RestoreError::Target { action: "remove", target: path, source }),
        }
    }

    fn failed(&self, action: &'static str, name: &[u8], error: Errno) -> RestoreError {
        let target = self.base_path.join(std::ffi::OsStr::from_bytes(name));
        RestoreError::Target { action, target, source: error.into() }
    }
}

/// The target without symbolic links, and whether it exists.
fn resolve(target: &Path) -> Result<(PathBuf, bool), RestoreError> {
    let failed = |source| RestoreError::Target { action: "resolve", target: target.to_owned(), source };
    match target.canonicalize() {
        Ok(resolved) if resolved.is_dir() => return Ok((resolved, true)),
        Ok(_) => return Err(failed(ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let name = target.file_name().ok_or_else(|| failed(ErrorKind::InvalidInput.into()))?;
    if target.is_symlink() {
        return Err(failed(ErrorKind::NotADirectory.into()));
    }
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((parent.canonicalize().map_err(failed)?.join(name), false))
}

fn open(path: &Path) -> Result<OwnedFd, RestoreError> {
    rustix::fs::open(path, beneath::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|error| RestoreError::Target {
        action: "open",
        target: path.to_owned(),
        source: error.into(),
    })
}

fn names(folder: &OwnedFd, path: &Path) -> Result<Vec<Vec<u8>>, RestoreError> {
    beneath::names_in(folder).map_err(|error| RestoreError::Target {
        action: "list",
        target: path.to_owned(),
        source: error.into(),
    })
}

/// Bind mounts keep the device number, so the kernel is asked; an old one does not know, then the numbers must do.
fn is_mount_point(target: &Path) -> Result<bool, RestoreError> {
    let Some(parent) = target.parent() else { return Ok(true) };
    let folder = open(target)?;
    if let Ok(stat) = statx(&folder, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
        && stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
    {
        return Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    let device = |path: &Path| {
        rustix::fs::stat(path).map(|stat| stat.st_dev).map_err(|e| RestoreError::Target {
            action: "examine",
            target: path.to_owned(),
            source: e.into(),
        })
    };
    Ok(device(target)? != device(parent)?)
}

fn may_not_write(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}
