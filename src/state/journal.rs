//! What a running operation has stopped, written down before it is done, so that a killed run can be put right.
//!
//! One file for each deployment, one JSON object a line, each fsynced before the call that wrote it returns. A finished
//! run removes its file; a file that is there while nobody holds the lock was left by a run that was killed.
//!
//! Holds: a last line without its end was never acknowledged, and counts as not written. Damage anywhere else is an
//! error. A journal that tells of an unfinished run is never overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DeploymentLock, FILE_MODE, State, StateError, io_error, read_if_there, sync_parent};
use crate::deployment::{DockerWay, Way};
use crate::env::{Clock, SystemClock};
use crate::id::RunId;

/// One thing that happened, or is about to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum JournalEntry {
    /// These services ran when the operation began, in the order in which they start.
    WasRunning {
        /// The services.
        services: Vec<String>,
    },
    /// A service is about to be stopped.
    Stopping {
        /// The service.
        service: String,
        /// Those of its parts that ran. None in journals of earlier versions: then it is all of them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        parts: Vec<String>,
    },
    /// A service has been stopped.
    Stopped {
        /// The service.
        service: String,
    },
    /// A service is about to be started.
    Starting {
        /// The service.
        service: String,
    },
    /// A service has been started.
    Started {
        /// The service.
        service: String,
    },
    /// A service that was stopped is not there any more: nothing is left to be started.
    Gone {
        /// The service.
        service: String,
    },
    /// Files are about to be made in the running containers of a service, and are removed before the operation ends.
    Inside {
        /// The service.
        service: String,
    },
    /// The content of a component is about to be destroyed and replaced.
    Replacing {
        /// The component.
        component: String,
    },
    /// The content of a component has been replaced.
    Replaced {
        /// The component.
        component: String,
    },
    /// Services whose content must go before they start again, once the content of any component has been replaced.
    ToClear {
        /// The services.
        services: Vec<String>,
    },
    /// That was done.
    Cleared,
    /// The deployment shall have a new id, once the content of this component has been replaced.
    ToResetId {
        /// The component.
        component: String,
    },
    /// It has one.
    IdReset,
    /// A copy of a component is about to be made in a place of its own, beside the deployment.
    ToCopy {
        /// The component.
        component: String,
    },
    /// The operation came to a part of its own.
    Phase {
        /// The part.
        name: String,
    },
}

/// The first line of a journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Beginning {
    deployment: String,
    operation: String,
    run: RunId,
    config_path: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    docker: Option<DockerWay>,
    since: Timestamp,
}

impl Beginning {
    fn way(&self) -> Option<Way> {
        let config = self.config_path.clone().map(Way::Config);
        config.or_else(|| self.docker.clone().map(Way::Docker))
    }
}

/// The journal of an operation that runs. Dropped without [`Journal::close`], it stays for `resume`.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

/// A journal that a killed run left, or that a living one is writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenJournal {
    /// The deployment.
    pub deployment: String,
    /// What was being done.
    pub operation: String,
    /// By which run.
    pub run: RunId,
    /// How the run reached the deployment, if it had to.
    pub way: Option<Way>,
    /// When the run began.
    pub since: Timestamp,
    /// What it wrote down, in order.
    pub entries: Vec<JournalEntry>,
    /// Services that ran before and, as far as is known, do not now; in the order in which they start.
    pub services_to_start: Vec<String>,
}

impl OpenJournal {
    /// Services that were asked to stop, without a word on whether they did.
    pub fn going_down(&self) -> BTreeSet<&str> {
        let mut going_down = BTreeSet::new();
        for entry in &self.entries {
            match entry {
                JournalEntry::Stopping { service, .. } => {
                    going_down.insert(service.as_str());
                }
                JournalEntry::Stopped { service } => {
                    going_down.remove(service.as_str());
                }
                JournalEntry::WasRunning { .. }
                | JournalEntry::Starting { .. }
                | JournalEntry::Started { .. }
                | JournalEntry::Gone { .. }
                | JournalEntry::Inside { .. }
                | JournalEntry::Replacing { .. }
                | JournalEntry::Replaced { .. }
                | JournalEntry::ToClear { .. }
                | JournalEntry::Cleared
                | JournalEntry::ToResetId { .. }
                | JournalEntry::IdReset
                | JournalEntry::ToCopy { .. }
                | JournalEntry::Phase { .. } => {}
            }
        }
        going_down
    }

    /// Those parts of a service that were stopped; none if the journal does not tell.
    pub fn parts_of(&self, wanted: &str) -> Vec<String> {
        let mut stopped: Vec<String> = Vec::new();
        for entry in &self.entries {
            if let JournalEntry::Stopping { service, parts } = entry
                && service == wanted
            {
                stopped.extend(parts.iter().filter(|part| !stopped.contains(part)).cloned().collect::<Vec<_>>());
            } else if let JournalEntry::Started { service } = entry
                && service == wanted
            {
                stopped.clear();
            }
        }
        stopped
    }

    /// Services in whose containers files may be left.
    pub fn worked_inside(&self) -> BTreeSet<&str> {
        let mut services = BTreeSet::new();
        for entry in &self.entries {
            if let JournalEntry::Inside { service } = entry {
                services.insert(service.as_str());
            }
        }
        services
    }

    /// Services whose content speaks of what is not there any more.
    pub fn left_to_clear(&self) -> &[String] {
        let replaced = self.entries.iter().any(|entry| matches!(entry, JournalEntry::Replaced { .. }));
        let cleared = self.entries.iter().any(|entry| matches!(entry, JournalEntry::Cleared));
        let named = self.entries.iter().find_map(|entry| match entry {
            JournalEntry::ToClear { services } => Some(services.as_slice()),
            _ => None,
        });
        named.filter(|_| replaced && !cleared).unwrap_or_default()
    }

    /// The component that was replaced and holds the id of its snapshot, although the deployment was to get a new one.
    pub fn id_not_reset(&self) -> Option<&str> {
        let wanted = self.entries.iter().find_map(|entry| match entry {
            JournalEntry::ToResetId { component } => Some(component),
            _ => None,
        })?;
        let replaced =
            |entry: &JournalEntry| matches!(entry, JournalEntry::Replaced { component } if component == wanted);
        let reset = self.entries.contains(&JournalEntry::IdReset);
        (!reset && self.entries.iter().any(replaced)).then_some(wanted)
    }

    /// Whether a copy of something may be left beside the deployment.
    pub fn may_have_copies(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry, JournalEntry::ToCopy { .. }))
    }

    /// Components whose replacing began and did not end.
    pub fn half_replaced(&self) -> BTreeSet<&str> {
        let mut half = BTreeSet::new();
        for entry in &self.entries {
            match entry {
                JournalEntry::Replacing { component } => {
                    half.insert(component.as_str());
                }
                JournalEntry::Replaced { component } => {
                    half.remove(component.as_str());
                }
                JournalEntry::WasRunning { .. }
                | JournalEntry::Stopping { .. }
                | JournalEntry::Stopped { .. }
                | JournalEntry::Starting { .. }
                | JournalEntry::Started { .. }
                | JournalEntry::Gone { .. }
                | JournalEntry::Inside { .. }
                | JournalEntry::ToClear { .. }
                | JournalEntry::Cleared
                | JournalEntry::ToResetId { .. }
                | JournalEntry::IdReset
                | JournalEntry::ToCopy { .. }
                | JournalEntry::Phase { .. } => {}
            }
        }
        half
    }
}

impl Journal {
    /// Begins the journal of an operation; durable on return.
    ///
    /// # Errors
    /// [`StateError::Unfinished`] if a killed run left one: that must be resumed first.
    pub fn begin(lock: &DeploymentLock, operation: &str, run: RunId, way: Option<Way>) -> Result<Self, StateError> {
        let deployment = lock.deployment().to_owned();
        let path = lock.state.journal_path(&deployment);
        if let Some(left) = lock.state.open_journal(&deployment)? {
            return Err(StateError::Unfinished { deployment, operation: left.operation, path });
        }
        lock.tell_operation(operation)?;
        let since = SystemClock.now();
        let (config_path, docker) = match way {
            Some(Way::Config(path)) => (Some(path), None),
            Some(Way::Docker(way)) => (None, Some(way)),
            None => (None, None),
        };
        let beginning = Beginning { deployment, operation: operation.to_owned(), run, config_path, docker, since };
        // Truncating loses nothing: whatever is there never got its first line, so its run had not begun.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&path);
        let file = file.map_err(|source| io_error("make", &path, source))?;
        let mut journal = Self { file, path };
        journal.append(&beginning)?;
        sync_parent(&journal.path).map_err(|source| io_error("make", &journal.path, source))?;
        Ok(journal)
    }

    /// Goes on with the journal that a killed run left; `None` if there is none.
    ///
    /// # Errors
    /// As for [`State::open_journal`].
    pub fn resume(lock: &DeploymentLock) -> Result<Option<(Self, OpenJournal)>, StateError> {
        let path = lock.state.journal_path(lock.deployment());
        let Some((left, whole)) = read_journal(&path)? else {
            return Ok(None);
        };
        check_owner(&path, &left, lock.deployment())?;
        let open = || {
            let file = OpenOptions::new().append(true).open(&path)?;
            // A torn last line would run into the next one.
            file.set_len(whole)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = open().map_err(|source| io_error("open", &path, source))?;
        Ok(Some((Self { file, path }, left)))
    }

    /// Writes one entry down; durable on return.
    ///
    /// # Errors
    /// [`StateError::Io`]; then what the entry announces must not be done.
    pub fn note(&mut self, entry: JournalEntry) -> Result<(), StateError> {
        self.append(&entry)
    }

    /// Ends the journal of an operation that left nothing to put right; durable on return.
    ///
    /// # Errors
    /// [`StateError::Io`] if the file cannot be removed.
    pub fn close(self) -> Result<(), StateError> {
        let remove = || {
            fs::remove_file(&self.path)?;
            sync_parent(&self.path)
        };
        remove().map_err(|source| io_error("remove", &self.path, source))
    }

    fn append<T: Serialize>(&mut self, line: &T) -> Result<(), StateError> {
        let mut write = || -> io::Result<()> {
            // A path that is not UTF-8 has no JSON.
            let mut bytes = serde_json::to_vec(line).map_err(io::Error::other)?;
            bytes.push(b'\n');
            let whole = self.file.metadata()?.len();
            let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_all());
            if written.is_err() {
                // Half a line (a full disk) must not run into the next one. What the first error says is what matters.
                let _ = self.file.set_len(whole);
                let _ = self.file.seek(io::SeekFrom::Start(whole));
            }
            written
        };
        write().map_err(|source| io_error("write", &self.path, source))
    }
}

impl State {
    /// The journal that a run of this deployment left; `None` if the last one finished.
    ///
    /// # Errors
    /// [`StateError::Damaged`] if a line other than a torn last one cannot be read.
    pub fn open_journal(&self, deployment: &str) -> Result<Option<OpenJournal>, StateError> {
        let path = self.journal_path(deployment);
        let Some((left, _)) = read_journal(&path)? else {
            return Ok(None);
        };
        check_owner(&path, &left, deployment)?;
        Ok(Some(left))
    }

    /// The journals of all deployments that are open, those of running operations among them; by deployment.
    ///
    /// # Errors
    /// As for [`State::open_journal`].
    pub fn list_open(&self) -> Result<Vec<OpenJournal>, StateError> {
        let folder = self.root.join("journals");
        let paths = || fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let mut open = Vec::new();
        for path in paths().map_err(|source| io_error("list", &folder, source))? {
            open.extend(read_journal(&path)?.map(|(journal, _)| journal));
        }
        open.sort_by(|a, b| a.deployment.cmp(&b.deployment));
        Ok(open)
    }

    fn journal_path(&self, deployment: &str) -> PathBuf {
        self.file_for("journals", "", deployment, ".jsonl")
    }
}

fn check_owner(path: &Path, journal: &OpenJournal, deployment: &str) -> Result<(), StateError> {
    if journal.deployment == deployment {
        return Ok(());
    }
    let (found, expected) = (journal.deployment.clone(), deployment.to_owned());
    Err(StateError::Foreign { path: path.to_owned(), found, expected })
}

/// What a journal tells, and the length in bytes of its whole lines; `None` if not even its first line is whole.
fn read_journal(path: &Path) -> Result<Option<(OpenJournal, u64)>, StateError> {
    let Some(bytes) = read_if_there(path)? else {
        return Ok(None);
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut lines = bytes[..whole].split_inclusive(|byte| *byte == b'\n').zip(1..);
    let Some((first, _)) = lines.next() else {
        return Ok(None);
    };
    let damaged = |line, source| StateError::Damaged { path: path.to_owned(), line, source };
    let begin: Beginning = serde_json::from_slice(first).map_err(|source| damaged(1, source))?;
    let entries = lines
        .map(|(text, line)| serde_json::from_slice(text).map_err(|source| damaged(line, source)))
        .collect::<Result<Vec<JournalEntry>, _>>()?;
    let journal = OpenJournal {
        way: begin.way(),
        deployment: begin.deployment,
        operation: begin.operation,
        run: begin.run,
        since: begin.since,
        services_to_start: services_to_start(&entries),
        entries,
    };
    Ok(Some((journal, whole as u64)))
}

/// Services that were running and have not been started since they were last about to be stopped.
fn services_to_start(entries: &[JournalEntry]) -> Vec<String> {
    let mut running: Vec<&String> = Vec::new();
    let mut down = BTreeMap::new();
    for entry in entries {
        match entry {
            JournalEntry::WasRunning { services } => {
                for service in services {
                    if !running.contains(&service) {
                        running.push(service);
                    }
                }
            }
            JournalEntry::Stopping { service, .. } | JournalEntry::Stopped { service } => {
                down.insert(service, true);
            }
            JournalEntry::Started { service } | JournalEntry::Gone { service } => {
                down.insert(service, false);
            }
            JournalEntry::Starting { .. }
            | JournalEntry::Inside { .. }
            | JournalEntry::Replacing { .. }
            | JournalEntry::Replaced { .. }
            | JournalEntry::ToClear { .. }
            | JournalEntry::Cleared
            | JournalEntry::ToResetId { .. }
            | JournalEntry::IdReset
            | JournalEntry::ToCopy { .. }
            | JournalEntry::Phase { .. } => {}
        }
    }
    running.into_iter().filter(|service| down.get(service) == Some(&true)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: RunId = RunId::from_bytes([7; 16]);

    fn stopping(service: &str) -> JournalEntry {
        JournalEntry::Stopping { service: service.to_owned(), parts: vec![] }
    }

    fn stopping_parts(service: &str, parts: &[&str]) -> JournalEntry {
        let parts = parts.iter().map(|part| (*part).to_owned()).collect();
        JournalEntry::Stopping { service: service.to_owned(), parts }
    }

    fn started(service: &str) -> JournalEntry {
        JournalEntry::Started { service: service.to_owned() }
    }

    fn was_running(services: &[&str]) -> JournalEntry {
        JournalEntry::WasRunning { services: services.iter().map(|name| (*name).to_owned()).collect() }
    }

    /// A state folder in which a run of deployment `d` was killed after `entries`.
    fn killed(entries: &[JournalEntry]) -> (tempfile::TempDir, State) {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let lock = state.lock_deployment("d", None).unwrap();
        let mut journal = Journal::begin(&lock, "create", RUN, Some(Way::Config("/etc/d.toml".into()))).unwrap();
        for entry in entries {
            journal.note(entry.clone()).unwrap();
        }
        drop(lock);
        (folder, state)
    }

    fn tear(state: &State, torn: &str) {
        let mut file = OpenOptions::new().append(true).open(state.journal_path("d")).unwrap();
        file.write_all(torn.as_bytes()).unwrap();
    }

    #[test]
    fn what_was_noted_is_there_after_a_kill() {
        let entries = [was_running(&["a", "b"]), stopping("b")];
        let (_folder, state) = killed(&entries);
        let left = state.open_journal("d").unwrap().unwrap();
        assert_eq!(
            (left.operation.as_str(), left.run, left.way),
            ("create", RUN, Some(Way::Config("/etc/d.toml".into())))
        );
        assert_eq!(left.entries, entries);
        assert_eq!(left.services_to_start, ["b"]);
    }

    #[test]
    fn a_journal_tells_the_way_back_to_a_compose_project() {
        use crate::deployment::{Endpoint, TlsFiles};
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let lock = state.lock_deployment("d", None).unwrap();
        let tls = Some(TlsFiles::in_folder(Path::new("/certs")));
        let endpoint = Endpoint { host: "tcp://h:2376".to_owned(), tls };
        let way = Way::Docker(DockerWay { endpoint, project: "infrahub".to_owned() });
        Journal::begin(&lock, "create", RUN, Some(way.clone())).unwrap();
        assert_eq!(state.open_journal("d").unwrap().unwrap().way, Some(way));
    }

    #[test]
    fn a_journal_tells_which_parts_of_a_service_were_stopped_since_it_last_started() {
        let entries = [
            was_running(&["a", "b"]),
            stopping_parts("a", &["a-1"]),
            started("a"),
            stopping_parts("a", &["a-2", "a-3"]),
            stopping_parts("b", &["b-1"]),
            stopping_parts("a", &["a-3", "a-4"]),
        ];
        let (_folder, state) = killed(&entries);
        let left = state.open_journal("d").unwrap().unwrap();
        assert_eq!(left.parts_of("a"), ["a-2", "a-3", "a-4"]);
        assert!(left.parts_of("c").is_empty());
    }

    #[test]
    fn a_journal_of_an_earlier_version_tells_no_parts() {
        let (_folder, state) = killed(&[was_running(&["a"])]);
        tear(&state, "{\"entry\":\"stopping\",\"service\":\"a\"}\n");
        let left = state.open_journal("d").unwrap().unwrap();
        assert_eq!((left.services_to_start.clone(), left.parts_of("a")), (vec!["a".to_owned()], vec![]));
    }

    #[test]
    fn a_queue_is_left_to_clear_from_when_anything_was_replaced_until_that_was_done() {
        let to_clear = || JournalEntry::ToClear { services: vec!["queue".to_owned()] };
        let replaced = || JournalEntry::Replaced { component: "database".to_owned() };
        let left = |entries: &[JournalEntry]| {
            let (_folder, state) = killed(entries);
            state.open_journal("d").unwrap().unwrap().left_to_clear().to_vec()
        };
        assert!(left(&[to_clear()]).is_empty());
        assert_eq!(left(&[to_clear(), replaced()]), ["queue"]);
        assert!(left(&[to_clear(), replaced(), JournalEntry::Cleared]).is_empty());
    }

    #[test]
    fn an_id_is_left_to_reset_from_when_its_component_was_replaced_until_that_was_done() {
        let to_reset = || JournalEntry::ToResetId { component: "database".to_owned() };
        let replaced = |component: &str| JournalEntry::Replaced { component: component.to_owned() };
        let left = |entries: &[JournalEntry]| {
            let (_folder, state) = killed(entries);
            state.open_journal("d").unwrap().unwrap().id_not_reset().map(str::to_owned)
        };
        assert_eq!(left(&[to_reset(), replaced("other")]), None);
        assert_eq!(left(&[to_reset(), replaced("database")]).as_deref(), Some("database"));
        assert_eq!(left(&[to_reset(), replaced("database"), JournalEntry::IdReset]), None);
        assert_eq!(left(&[replaced("database")]), None);
    }

    #[test]
    fn a_journal_tells_where_files_may_be_left() {
        let inside = || JournalEntry::Inside { service: "database".to_owned() };
        let (_folder, state) = killed(&[inside(), inside()]);
        let left = state.open_journal("d").unwrap().unwrap();
        assert_eq!(left.worked_inside().into_iter().collect::<Vec<_>>(), ["database"]);
        assert!(left.services_to_start.is_empty());
    }

    #[test]
    fn a_service_that_is_gone_is_not_started() {
        let gone = JournalEntry::Gone { service: "a".to_owned() };
        let (_folder, state) = killed(&[was_running(&["a", "b"]), stopping("b"), stopping("a"), gone]);
        assert_eq!(state.open_journal("d").unwrap().unwrap().services_to_start, ["b"]);
    }

    #[test]
    fn a_torn_last_line_is_ignored() {
        let (_folder, state) = killed(&[was_running(&["a"]), stopping("a")]);
        tear(&state, r#"{"entry":"started","ser"#);
        assert_eq!(state.open_journal("d").unwrap().unwrap().services_to_start, ["a"]);
    }

    #[test]
    fn a_damaged_line_that_is_not_the_last_is_an_error() {
        let (_folder, state) = killed(&[was_running(&["a"])]);
        tear(&state, "{\"entry\":\n{\"entry\":\"phase\",\"name\":\"dump\"}\n");
        assert!(matches!(state.open_journal("d"), Err(StateError::Damaged { line: 3, .. })));
    }

    #[test]
    fn a_resumed_journal_goes_on_behind_its_last_whole_line() {
        let (_folder, state) = killed(&[was_running(&["a"]), stopping("a")]);
        tear(&state, r#"{"entry":"sto"#);
        let lock = state.lock_deployment("d", None).unwrap();
        let (mut journal, _) = Journal::resume(&lock).unwrap().unwrap();
        journal.note(started("a")).unwrap();
        let left = state.open_journal("d").unwrap().unwrap();
        assert_eq!((left.entries.len(), left.services_to_start.len()), (3, 0));
    }

    #[test]
    fn a_closed_journal_is_gone() {
        let (_folder, state) = killed(&[]);
        let lock = state.lock_deployment("d", None).unwrap();
        Journal::resume(&lock).unwrap().unwrap().0.close().unwrap();
        assert_eq!(state.open_journal("d").unwrap(), None);
        assert!(state.list_open().unwrap().is_empty());
    }

    #[test]
    fn a_run_does_not_begin_over_one_that_was_killed() {
        let (_folder, state) = killed(&[was_running(&["a"]), stopping("a")]);
        let lock = state.lock_deployment("d", None).unwrap();
        let refused = Journal::begin(&lock, "prune", RUN, None);
        assert!(matches!(refused, Err(StateError::Unfinished { .. })), "{refused:?}");
        assert_eq!(state.open_journal("d").unwrap().unwrap().operation, "create");
    }

    #[test]
    fn a_run_killed_before_its_first_line_was_whole_stands_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        fs::write(state.journal_path("d"), r#"{"deployment":"#).unwrap();
        assert_eq!(state.open_journal("d").unwrap(), None);
        let lock = state.lock_deployment("d", None).unwrap();
        Journal::begin(&lock, "create", RUN, None).unwrap();
        assert!(state.open_journal("d").unwrap().is_some());
    }

    #[test]
    fn all_open_journals_are_listed() {
        let (_folder, state) = killed(&[]);
        let lock = state.lock_deployment("another", None).unwrap();
        Journal::begin(&lock, "restore", RUN, None).unwrap();
        let deployments: Vec<_> = state.list_open().unwrap().into_iter().map(|left| left.deployment).collect();
        assert_eq!(deployments, ["another", "d"]);
    }

    #[test]
    fn only_services_that_ran_and_are_down_are_started_again() {
        let entries = [
            was_running(&["a", "b", "c", "d"]),
            stopping("d"),
            stopping("x"),
            stopping("c"),
            started("c"),
            stopping("b"),
            started("b"),
            stopping("b"),
            JournalEntry::Starting { service: "b".to_owned() },
        ];
        assert_eq!(services_to_start(&entries), ["b", "d"]);
    }
}
