//! Small facts: which repository a deployment goes to, where a repository was seen, and its last head.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{State, StateError, io_error, read_if_there, replace};
use crate::id::{ObjectId, RepositoryId, SnapshotId};

/// A repository told of under a name.
#[derive(Serialize, Deserialize)]
struct Named {
    name: String,
    repository: RepositoryId,
}

#[derive(Serialize, Deserialize)]
struct Head {
    head: SnapshotId,
}

impl State {
    /// The repository that was seen at a place. `location` holds no secret: it is written down.
    pub fn repository_at(&self, location: &str) -> Result<Option<RepositoryId>, StateError> {
        self.named("location-", location)
    }

    /// Remembers the repository that was seen at a place. `location` holds no secret: it is written down.
    pub fn set_repository_at(&self, location: &str, repository: RepositoryId) -> Result<(), StateError> {
        self.set_named("location-", location, repository)
    }

    /// The newest snapshot that this machine saw in a repository at a place: a replica, which has the same id, may lag.
    pub fn last_head(&self, repository: RepositoryId, location: &str) -> Result<Option<SnapshotId>, StateError> {
        Ok(read_fact::<Head>(&self.head_path(repository, location))?.map(|fact| fact.head))
    }

    /// Remembers the newest snapshot of a repository at a place.
    pub fn set_last_head(&self, repository: RepositoryId, location: &str, head: SnapshotId) -> Result<(), StateError> {
        write_fact(&self.head_path(repository, location), &Head { head })
    }

    fn head_path(&self, repository: RepositoryId, location: &str) -> PathBuf {
        let place = ObjectId::of(location.as_bytes());
        self.root.join("facts").join(format!("head-{repository}-{}.json", place.short()))
    }

    fn named(&self, prefix: &str, name: &str) -> Result<Option<RepositoryId>, StateError> {
        let path = self.file_for("facts", prefix, name, ".json");
        match read_fact::<Named>(&path)? {
            Some(fact) if fact.name != name => {
                Err(StateError::Foreign { path, found: fact.name, expected: name.to_owned() })
            }
            fact => Ok(fact.map(|fact| fact.repository)),
        }
    }

    fn set_named(&self, prefix: &str, name: &str, repository: RepositoryId) -> Result<(), StateError> {
        let path = self.file_for("facts", prefix, name, ".json");
        write_fact(&path, &Named { name: name.to_owned(), repository })
    }
}

fn read_fact<T: DeserializeOwned>(path: &std::path::Path) -> Result<Option<T>, StateError> {
    let Some(bytes) = read_if_there(path)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|source| {
        let line = source.line();
        StateError::Damaged { path: path.to_owned(), line, source }
    })
}

fn write_fact<T: Serialize>(path: &std::path::Path, fact: &T) -> Result<(), StateError> {
    let bytes = serde_json::to_vec(fact).expect("a fact is plain data");
    replace(path, &bytes).map_err(|source| io_error("write", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: RepositoryId = RepositoryId::from_bytes([1; 16]);
    const TWO: RepositoryId = RepositoryId::from_bytes([2; 16]);

    #[test]
    fn a_fact_is_the_last_one_told_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        state.set_repository_at("a", ONE).unwrap();
        state.set_repository_at("a", TWO).unwrap();
        assert_eq!(state.repository_at("a").unwrap(), Some(TWO));
        assert_eq!(state.repository_at("b").unwrap(), None);
    }

    #[test]
    fn each_repository_has_its_head() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        state.set_last_head(ONE, "here", ObjectId::of(b"head")).unwrap();
        assert_eq!(state.last_head(ONE, "here").unwrap(), Some(ObjectId::of(b"head")));
        assert_eq!(state.last_head(TWO, "here").unwrap(), None);
        assert_eq!(state.last_head(ONE, "the replica").unwrap(), None);
    }

    #[test]
    fn a_damaged_fact_is_an_error_and_not_an_unknown_one() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        state.set_last_head(ONE, "here", ObjectId::of(b"head")).unwrap();
        std::fs::write(state.head_path(ONE, "here"), "").unwrap();
        assert!(matches!(state.last_head(ONE, "here"), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn replacing_a_fact_leaves_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        state.set_repository_at("a", ONE).unwrap();
        state.set_repository_at("a", TWO).unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("facts")).unwrap().count(), 1);
    }
}
