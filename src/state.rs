//! What this machine must remember beyond one run: who works on a deployment, what a run stopped, which repository
//! belongs where.
//!
//! Three kinds of files in one folder: `locks/`, held by the living; `journals/`, left by the killed; `facts/`, small and
//! replaced whole. Every write is fsynced before the call returns. Names of deployments and places are hashed into file
//! names, and stand in clear inside the files.
//!
//! Holds: a fact that cannot be read is an error, never "not known": facts guard against a swapped or rolled-back
//! repository. A journal is never overwritten; only its deployment's lock holder writes it.
//! Does not: keep secrets, or anything that a lost disk must not take along.

mod facts;
mod journal;
mod lock;

pub use facts::{Seen, SeenMark};
pub use journal::{Journal, JournalEntry, OpenJournal};
pub use lock::{DeploymentLock, Holder};

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::env::{SystemEntropy, random_bytes};
use crate::id::hex_of;

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Why the state folder did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Somebody else works on the deployment.
    #[error("deployment `{deployment}` is in use{}", lock::by(holder.as_ref()))]
    Busy {
        /// The deployment.
        deployment: String,
        /// Who it is, if the lock file tells.
        holder: Option<Holder>,
    },
    /// A killed run left a journal, and what it stopped has not been started again.
    #[error("deployment `{deployment}` has an unfinished `{operation}`, told of in `{path}`")]
    Unfinished {
        /// The deployment.
        deployment: String,
        /// What the killed run did.
        operation: String,
        /// The journal.
        path: PathBuf,
    },
    /// A file does not hold what this module writes.
    #[error("`{path}` is damaged at line {line}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What was found.
        #[source]
        source: serde_json::Error,
    },
    /// A file belongs to another name with the same hash.
    #[error("`{path}` belongs to `{found}`, not to `{expected}`")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// Anything else.
    #[error("could not {action} `{path}`")]
    Io {
        /// What was to be done, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The state folder.
#[derive(Debug, Clone)]
pub struct State {
    root: PathBuf,
}

impl State {
    /// Opens the folder; makes it, readable by its owner only, if it is not there.
    ///
    /// # Errors
    /// [`StateError::Io`] if it cannot be made.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StateError> {
        let root = path.into();
        for part in ["", "locks", "journals", "facts"] {
            let folder = if part.is_empty() { root.clone() } else { root.join(part) };
            make_folder(&folder).map_err(|source| io_error("make", &folder, source))?;
        }
        Ok(Self { root })
    }

    /// The file for a name of any length and any characters.
    fn file_for(&self, folder: &str, prefix: &str, name: &str, suffix: &str) -> PathBuf {
        let hash = blake3::hash(name.as_bytes());
        self.root.join(folder).join(format!("{prefix}{}{suffix}", hex_of(&hash.as_bytes()[..8])))
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { action, path: path.to_owned(), source }
}

/// Makes a folder and its parents, durable on return.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(parent)?;
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder(parent)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    sync_folder(path.parent().expect("a state file lies in a folder"))
}

/// Makes a file that is not there yet, whole; one that is there stays as it is.
fn add(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let staged = path.with_extension(format!("{}.new", hex_of(&random_bytes::<8>(&SystemEntropy))));
    replace(&staged, bytes)?;
    let linked = match fs::hard_link(&staged, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    };
    fs::remove_file(&staged)?;
    linked?;
    sync_parent(path)
}

/// Replaces a file whole: after a kill or a power loss it holds the old bytes or the new ones.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let staged = path.with_extension(format!("{}.new", hex_of(&random_bytes::<8>(&SystemEntropy))));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        sync_parent(path)
    };
    write().inspect_err(|_| {
        // After the rename there is nothing to remove; before, what stays is small and never read.
        let _ = fs::remove_file(&staged);
    })
}

/// The whole file; `None` if there is none.
fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error("read", path, source)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_owner_may_enter_the_state_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/state");
        State::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn opening_twice_keeps_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        State::open(folder.path())
            .unwrap()
            .set_repository_at("place", crate::id::RepositoryId::from_bytes([1; 16]))
            .unwrap();
        assert!(State::open(folder.path()).unwrap().repository_at("place").unwrap().is_some());
    }
}
