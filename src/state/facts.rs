//! Small facts: where a repository was seen, and how far its history went.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{State, StateError, add, io_error, read_if_there, replace};
use crate::env::{SystemEntropy, random_bytes};
use crate::id::{ObjectId, RepositoryId, SnapshotId, hex_of};

/// A repository told of under a name.
#[derive(Serialize, Deserialize)]
struct Named {
    name: String,
    repository: RepositoryId,
}

/// How far the history of a repository went when this machine last looked: what is there later must go on from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The newest snapshot.
    pub head: Option<SnapshotId>,
    /// The newest mark.
    pub mark: Option<SeenMark>,
    /// The newest generation of config; 0 if none was seen.
    pub config_generation: u32,
}

/// One mark, and what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenMark {
    /// Its number.
    pub number: u32,
    /// BLAKE3 of its body.
    pub digest: ObjectId,
}

/// Who the runs of this state folder are, to others.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Owner {
    owner: String,
}

impl State {
    /// What tells the runs of this state folder from those of all others, on what they leave elsewhere. Random, made once.
    pub fn owner(&self) -> Result<String, StateError> {
        let path = self.root.join("facts").join("owner.json");
        if let Some(fact) = read_fact::<Owner>(&path)? {
            return Ok(fact.owner);
        }
        let made = Owner { owner: hex_of(&random_bytes::<8>(&SystemEntropy)) };
        let bytes = serde_json::to_vec(&made).expect("a fact is plain data");
        add(&path, &bytes).map_err(|source| io_error("write", &path, source))?;
        // Another run may have been first.
        Ok(read_fact::<Owner>(&path)?.unwrap_or(made).owner)
    }

    /// The repository that was seen at a place. `location` holds no secret: it is written down.
    pub fn repository_at(&self, location: &str) -> Result<Option<RepositoryId>, StateError> {
        self.named("location-", location)
    }

    /// Remembers the repository that was seen at a place. `location` holds no secret: it is written down.
    pub fn set_repository_at(&self, location: &str, repository: RepositoryId) -> Result<(), StateError> {
        self.set_named("location-", location, repository)
    }

    /// What this machine saw of a repository at a place: a replica, which has the same id, may lag.
    pub fn seen(&self, repository: RepositoryId, location: &str) -> Result<Seen, StateError> {
        Ok(read_fact(&self.seen_path(repository, location))?.unwrap_or_default())
    }

    /// Remembers what was seen of a repository at a place. Of two runs at once one may be forgotten: then a little less is noticed.
    pub fn see(
        &self,
        repository: RepositoryId,
        location: &str,
        change: impl FnOnce(&mut Seen),
    ) -> Result<(), StateError> {
        let before = self.seen(repository, location)?;
        let mut seen = before.clone();
        change(&mut seen);
        if seen == before { Ok(()) } else { write_fact(&self.seen_path(repository, location), &seen) }
    }

    /// Remembers the newest snapshot of a repository at a place.
    pub fn set_last_head(&self, repository: RepositoryId, location: &str, head: SnapshotId) -> Result<(), StateError> {
        self.see(repository, location, |seen| seen.head = Some(head))
    }

    /// Remembers nothing more of a repository at a place.
    pub fn forget_seen(&self, repository: RepositoryId, location: &str) -> Result<(), StateError> {
        let path = self.seen_path(repository, location);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", &path, source)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn seen_path(&self, repository: RepositoryId, location: &str) -> PathBuf {
        let place = ObjectId::of(location.as_bytes());
        self.root.join("facts").join(format!("seen-{repository}-{}.json", place.short()))
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
        assert_eq!(state.seen(ONE, "here").unwrap().head, Some(ObjectId::of(b"head")));
        assert_eq!(state.seen(TWO, "here").unwrap(), Seen::default());
        assert_eq!(state.seen(ONE, "the replica").unwrap(), Seen::default());
    }

    #[test]
    fn what_was_seen_is_forgotten_only_when_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        state.see(ONE, "here", |seen| seen.config_generation = 3).unwrap();
        state.set_last_head(ONE, "here", ObjectId::of(b"head")).unwrap();
        assert_eq!(state.seen(ONE, "here").unwrap().config_generation, 3);
        state.forget_seen(ONE, "here").unwrap();
        state.forget_seen(ONE, "here").unwrap();
        assert_eq!(state.seen(ONE, "here").unwrap(), Seen::default());
    }

    #[test]
    fn a_damaged_fact_is_an_error_and_not_an_unknown_one() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        state.set_last_head(ONE, "here", ObjectId::of(b"head")).unwrap();
        std::fs::write(state.seen_path(ONE, "here"), "").unwrap();
        assert!(matches!(state.seen(ONE, "here"), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn each_state_folder_has_one_owner_for_good() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let owners = folders.each_ref().map(|folder| State::open(folder.path()).unwrap().owner().unwrap());
        assert_ne!(owners[0], owners[1]);
        assert_eq!(State::open(folders[0].path()).unwrap().owner().unwrap(), owners[0]);
        assert_eq!(std::fs::read_dir(folders[0].path().join("facts")).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_somebody_else_was_first_to_add_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fact");
        add(&path, b"first").unwrap();
        add(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
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
