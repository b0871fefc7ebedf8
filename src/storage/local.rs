//! A store in a folder of a local or mounted file system.
//!
//! An object is written to `staging/` below the root, fsynced, and then hard-linked to its name: the link either makes
//! the name or finds it taken, so that nothing is ever overwritten and nobody sees half an object. The folder is
//! fsynced before a put or a delete returns, and so is every folder made on the way.
//!
//! Holds: files are 0600 and folders 0700, whatever the umask. What a kill leaves behind lies in `staging/`, is never
//! listed and goes with [`Store::sweep`]. Symbolic links inside the repository count as not there.
//! Opening and reading write nothing: a read-only file system will do.
//! Does not: lock, retry, or remove folders that became empty.

mod disk;

pub use self::disk::{publish, sync_folder};

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::io::Errno;

use super::{Capabilities, Deletion, ObjectInfo, ObjectName, Store, StoreError};
use crate::env::{Clock, SystemClock, SystemEntropy, random_bytes};
use crate::id::hex_of;

/// The folder below the root where objects are written before they get their name. No object can be called so.
const STAGING: &str = "staging";

/// Puts that pay to run at the same time: fsyncs of a few files share one journal commit, more only queue.
const CONCURRENCY: usize = 4;

/// A store in a folder.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: Arc<Root>,
    durable: bool,
}

impl LocalStore {
    /// Makes the folder, with its parents, where they are missing, and opens it. Blocks for a few file system calls.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] and [`StoreError::NoSpace`] as for a put, [`StoreError::Io`] otherwise.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let root = std::path::absolute(path).map_err(|source| place_error("make", path, source))?;
        disk::make_folder_and_parents(&root).map_err(|source| match write_error("make", &root, ".", source) {
            StoreError::Io { source, .. } => place_error("make", &root, source),
            known => known,
        })?;
        Self::open(root)
    }

    /// Opens a folder that is there. Writes nothing.
    ///
    /// # Errors
    /// [`StoreError::Io`] if there is no such folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let open = || -> io::Result<PathBuf> {
            let root = std::path::absolute(path)?;
            if std::fs::metadata(&root)?.is_dir() { Ok(root) } else { Err(io::ErrorKind::NotADirectory.into()) }
        };
        let path = open().map_err(|source| place_error("open", path, source))?;
        Ok(Self { root: Arc::new(Root { path, durable_folders: Mutex::default() }), durable: true })
    }

    /// Makes a folder whose content lives no longer than this process needs it. It declares that, so that nothing remembers it.
    ///
    /// # Errors
    /// As [`LocalStore::create`].
    pub fn scratch(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Ok(Self { durable: false, ..Self::create(path)? })
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        name: &str,
        work: impl FnOnce(&Root) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let root = Arc::clone(&self.root);
        let done = tokio::task::spawn_blocking(move || work(&root)).await;
        done.unwrap_or_else(|lost| match lost.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(shut_down) => Err(self.root.io_error(action, name, io::Error::other(shut_down))),
        })
    }
}

#[async_trait]
impl Store for LocalStore {
    fn location(&self) -> String {
        self.root.location()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { concurrency: CONCURRENCY, create_only: true, durable: self.durable }
    }

    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let owned = name.clone();
        self.blocking("write", name.as_str(), move |root| root.put_new(&owned, &bytes)).await
    }

    async fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError> {
        let owned = name.clone();
        self.blocking("read", name.as_str(), move |root| root.get(&owned, size_max)).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let owned = name.clone();
        self.blocking("read", name.as_str(), move |root| root.get_range(&owned, range)).await
    }

    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        let owned = name.clone();
        self.blocking("read", name.as_str(), move |root| Ok(root.open_object(&owned)?.1)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let owned = prefix.trim_end_matches('/').to_owned();
        self.blocking("list", prefix, move |root| {
            disk::list(&root.path, &owned, STAGING).map_err(|source| root.io_error("list", &owned, source))
        })
        .await
    }

    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        let owned = name.clone();
        self.blocking("delete", name.as_str(), move |root| root.delete(&owned)).await?;
        Ok(Deletion::Gone)
    }

    async fn sweep(&self, older_than: Duration) -> Result<u64, StoreError> {
        self.blocking("sweep", STAGING, move |root| {
            disk::sweep(&root.path.join(STAGING), older_than, SystemClock.now())
                .map_err(|source| root.write_error("sweep", STAGING, source))
        })
        .await
    }
}

/// The blocking side: the folder, and which folders below it this process knows to be durable.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    /// Folders whose own entry in their parent was fsynced by this process. A folder that is merely there may have
    /// been made by somebody who was killed before the fsync.
    durable_folders: Mutex<HashSet<PathBuf>>,
}

impl Root {
    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn path_of(&self, name: &ObjectName) -> PathBuf {
        self.path.join(name.as_str())
    }

    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        if is_staging(name) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the name belongs to the store itself");
            return Err(self.io_error("write", name.as_str(), source));
        }
        self.try_put_new(name, bytes).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => StoreError::AlreadyExists { name: name.clone(), location: self.location() },
            _ => self.write_error("write", name.as_str(), source),
        })
    }

    fn try_put_new(&self, name: &ObjectName, bytes: &[u8]) -> io::Result<()> {
        let target = self.path_of(name);
        let folder = target.parent().expect("an object lies in the root or below");
        self.make_durable_folder(folder)?;
        let linked = if disk::is_taken(&target)? {
            Err(io::ErrorKind::AlreadyExists.into())
        } else {
            let staging = self.path.join(STAGING);
            self.make_durable_folder(&staging)?;
            let staged = staging.join(hex_of(&random_bytes::<16>(&SystemEntropy)));
            disk::write_staged(staged, bytes).and_then(|staged| disk::publish(staged.path(), &target))
        };
        match &linked {
            // Also for a taken name: its writer may have been killed before this fsync, and callers rely on what is there.
            Ok(()) => disk::sync_folder(folder)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk::sync_folder(folder)?,
            Err(_) => {}
        }
        linked
    }

    /// Makes `folder` and what is missing between the root and it; their entries are durable on return.
    fn make_durable_folder(&self, folder: &Path) -> io::Result<()> {
        if folder == self.path {
            return Ok(());
        }
        let parent = folder.parent().expect("a folder below the root has a parent");
        self.make_durable_folder(parent)?;
        let made = disk::make_folder(folder)?;
        if made || !self.known_folders().contains(folder) {
            disk::sync_folder(parent)?;
            self.known_folders().insert(folder.to_owned());
        }
        Ok(())
    }

    fn known_folders(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.durable_folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open file of an object and its length in bytes.
    fn open_object(&self, name: &ObjectName) -> Result<(std::fs::File, u64), StoreError> {
        let not_found = || StoreError::NotFound { name: name.clone(), location: self.location() };
        if is_staging(name) {
            return Err(not_found());
        }
        match disk::open_regular(&self.path, name.as_str()) {
            Ok(Some(opened)) => Ok(opened),
            Ok(None) => Err(not_found()),
            Err(source) => Err(self.io_error("read", name.as_str(), source)),
        }
    }

    fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError> {
        let (file, size) = self.open_object(name)?;
        if size > size_max {
            let text = format!("it has {size} bytes, more than the {size_max} allowed");
            return Err(self.io_error("read", name.as_str(), io::Error::new(io::ErrorKind::FileTooLarge, text)));
        }
        read_at(&file, 0..size).map_err(|source| self.io_error("read", name.as_str(), source))
    }

    fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (file, size) = self.open_object(name)?;
        if range.end > size {
            return Err(StoreError::TooShort { name: name.clone(), location: self.location(), size, end: range.end });
        }
        read_at(&file, range).map_err(|source| self.io_error("read", name.as_str(), source))
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        if is_staging(name) {
            return Ok(());
        }
        disk::remove(&self.path, name.as_str()).map_err(|source| self.write_error("delete", name.as_str(), source))
    }

    fn io_error(&self, action: &'static str, name: &str, source: io::Error) -> StoreError {
        StoreError::Io { action, name: name.to_owned(), location: self.location(), source }
    }

    fn write_error(&self, action: &'static str, name: &str, source: io::Error) -> StoreError {
        write_error(action, &self.path, name, source)
    }
}

fn is_staging(name: &ObjectName) -> bool {
    name.as_str().split('/').next() == Some(STAGING)
}

/// The bytes of `range`, which the file is known to have.
fn read_at(file: &std::fs::File, range: Range<u64>) -> io::Result<Bytes> {
    let length = range.end.checked_sub(range.start).ok_or(io::ErrorKind::InvalidInput)?;
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

/// What a failed change means.
fn write_error(action: &'static str, root: &Path, name: &str, source: io::Error) -> StoreError {
    let (name, location) = (name.to_owned(), root.display().to_string());
    match Errno::from_io_error(&source) {
        Some(Errno::NOSPC | Errno::DQUOT) => StoreError::NoSpace { action, name, location },
        Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => StoreError::ReadOnly { name, location, source },
        _ => StoreError::Io { action, name, location, source },
    }
}

/// An error about the root itself.
fn place_error(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    let location = "the local file system".to_owned();
    StoreError::Io { action, name: path.display().to_string(), location, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_spent_quota_are_no_space() {
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            let error = write_error("write", Path::new("/r"), "a", errno.into());
            assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
        }
    }

    #[test]
    fn a_refused_change_is_read_only() {
        for errno in [Errno::ROFS, Errno::ACCESS, Errno::PERM] {
            let error = write_error("write", Path::new("/r"), "a", errno.into());
            assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
        }
    }
}
