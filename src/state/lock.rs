//! One operation at a time for each deployment of this machine.
//!
//! The lock is the kernel's (`flock`), so that it goes with the process that holds it, however that ends. What the file
//! holds is for people only. The file stays: removing a lock file lets two processes lock two files of one name.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{FILE_MODE, State, StateError, io_error};
use crate::env::{Clock, SystemClock};

/// How often a waiting process asks again; `flock` itself cannot wait for a limited time.
const RETRY_PERIOD: Duration = Duration::from_millis(100);

/// Most bytes read from a lock file, which others may have written.
const HOLDER_SIZE_MAX: u64 = 4096;

/// Who works on a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// The host that process runs on.
    pub host: String,
    /// What it does; not known before its journal begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Since when it has held the lock.
    pub since: Timestamp,
}

/// For error texts: who it is, or nothing.
pub fn by(holder: Option<&Holder>) -> String {
    let Some(Holder { pid, host, operation, since }) = holder else {
        return String::new();
    };
    let operation = operation.as_ref().map(|operation| format!(" for `{operation}`")).unwrap_or_default();
    format!(" by process {pid} on `{host}`{operation} since {since}")
}

/// The right to work on a deployment, until it is dropped or the process ends.
#[derive(Debug)]
pub struct DeploymentLock {
    file: File,
    path: PathBuf,
    holder: Holder,
    pub(super) state: State,
    pub(super) deployment: String,
}

impl State {
    /// Takes the lock of a deployment; blocks up to `wait` if somebody else has it (`None`: not at all).
    ///
    /// # Errors
    /// [`StateError::Busy`] with whoever has it.
    pub fn lock_deployment(&self, deployment: &str, wait: Option<Duration>) -> Result<DeploymentLock, StateError> {
        let path = self.file_for("locks", "", deployment, ".lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(|source| io_error("open", &path, source))?;
        if !wait_for(&file, wait.unwrap_or_default()).map_err(|errno| io_error("lock", &path, errno.into()))? {
            return Err(StateError::Busy { deployment: deployment.to_owned(), holder: holder_of(&path) });
        }
        let holder = Holder {
            pid: std::process::id(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            operation: None,
            since: SystemClock.now(),
        };
        let lock = DeploymentLock { file, path, holder, state: self.clone(), deployment: deployment.to_owned() };
        lock.tell(&lock.holder)?;
        Ok(lock)
    }
}

impl DeploymentLock {
    /// The deployment.
    pub fn deployment(&self) -> &str {
        &self.deployment
    }

    /// Tells whoever waits what is being done.
    ///
    /// # Errors
    /// [`StateError::Io`] if the lock file cannot be written.
    pub fn tell_operation(&self, operation: &str) -> Result<(), StateError> {
        self.tell(&Holder { operation: Some(operation.to_owned()), ..self.holder.clone() })
    }

    fn tell(&self, holder: &Holder) -> Result<(), StateError> {
        let text = serde_json::to_vec(holder).expect("a holder is plain data");
        let write = || {
            self.file.set_len(0)?;
            self.file.write_all_at(&text, 0)
        };
        write().map_err(|source| io_error("write", &self.path, source))
    }
}

impl Drop for DeploymentLock {
    fn drop(&mut self) {
        // Unlocked by hand: a child process that is just being started may share the open file for a moment.
        let _ = self.file.set_len(0);
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Asks for the lock until it is given or `wait` is over.
fn wait_for(file: &File, wait: Duration) -> Result<bool, Errno> {
    let mut left = wait;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if left.is_zero() => return Ok(false),
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(errno),
        }
        let pause = left.min(RETRY_PERIOD);
        std::thread::sleep(pause);
        left -= pause;
    }
}

/// What the lock file tells, which may be nothing: its holder may be writing just now.
fn holder_of(path: &Path) -> Option<Holder> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(HOLDER_SIZE_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_locker_hears_who_was_first() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let lock = state.lock_deployment("d", None).unwrap();
        lock.tell_operation("create").unwrap();
        let Err(StateError::Busy { holder: Some(holder), .. }) = state.lock_deployment("d", None) else {
            panic!("the lock was given twice");
        };
        assert_eq!((holder.pid, holder.operation.as_deref()), (std::process::id(), Some("create")));
    }

    #[test]
    fn a_lock_is_free_after_its_drop() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        drop(state.lock_deployment("d", None).unwrap());
        state.lock_deployment("d", None).unwrap();
    }

    #[test]
    fn deployments_do_not_wait_for_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let _lock = state.lock_deployment("d", None).unwrap();
        state.lock_deployment("e", None).unwrap();
    }

    #[test]
    fn a_locker_that_waits_gets_the_lock_when_it_becomes_free() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let lock = state.lock_deployment("d", None).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| state.lock_deployment("d", Some(Duration::from_secs(60))).map(drop));
            std::thread::sleep(Duration::from_millis(50));
            drop(lock);
            waiting.join().unwrap().unwrap();
        });
    }
}
