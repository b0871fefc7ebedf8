//! Neo4j Enterprise in a container that goes on running: `neo4j-admin database backup` and `restore` inside it.
//!
//! Both know files only. Holds: those are in a folder of their own in the container, which is removed on every way out, and after
//! a kill by whoever comes next. Commands run as whoever owns the data. Nothing of what is there is touched before all of a
//! backup is in the container; from then on the one database is stopped until [`OnlineRestore::serve`], since nobody must read
//! half of it. Does not: restore into a cluster, where a database is seeded.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::shell::{SYSTEM, Shell};
use super::{Metadata, QUERY_TIMEOUT};
use crate::component::{ComponentError, DumpStream, ExitOk, LoadStream, Served};
use crate::env::{Clock as _, SystemClock};
use crate::provider::docker::{DATABASE, DockerError, DockerProvider, User};
use crate::provider::exec::{self, CommandSpec, Ended, ExecError, ProcessInput, ProcessOutput};

/// How long the server may take to stop or start a database, in seconds, and how long it is asked to.
const STATEMENT_SECONDS: u64 = 300;
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(STATEMENT_SECONDS + 60);

/// How often a database that comes or goes is looked at, and how long it may take.
const STATUS_PERIOD: Duration = Duration::from_millis(500);
const STATUS_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Where the image keeps scripts: `restore` leaves that of users and roles below.
const SCRIPTS: &str = "/data/scripts";

/// Runs a command that makes files in a folder. A disk that is full would stop the database as well: room for all of it is
/// wanted first, since the command copies before it compresses.
const MAKE: &str = r#"# Backs up into a folder of its own.
umask 077
mkdir -- "$0" || exit
need=$(du -sk -- "$1" 2>/dev/null | { read -r kib _; echo "$kib"; })
free=$(df -Pk -- "$0" 2>/dev/null | { read -r _; read -r _ _ _ free _; echo "$free"; })
if [ "${need:-0}" -gt "${free:-${need:-0}}" ]; then
    echo "no space is left in the container: up to $need KiB are needed in /tmp, $free are free" >&2
    exit 1
fi
shift
exec "$@" >&2"#;

/// Reads the one file of a folder.
const READ: &str = r#"# Reads the backup.
set -- "$1"/*.backup
[ $# = 1 ] && [ -f "$1" ] || { echo "it did not leave one backup, but: $*" >&2; exit 1; }
exec cat -- "$1""#;

/// Writes a file into a folder. The path is among the arguments of what writes: by that it is found if it must be ended.
const WRITE: &str = r#"# Takes the backup.
umask 077
mkdir -- "$0" && exec dd of="$1" bs=256k status=none"#;

/// Runs the script for users and roles, if there is one, and removes it: it holds hashes of passwords.
const USERS_AND_ROLES: &str = r#"# Brings back users and roles.
[ -e "$1" ] || exit 0
cypher-shell --format plain -d system --param "$2" <"$1" >&2 && rm -f -- "$1" && echo done"#;

/// Where the running server's files for us are.
struct Stage {
    provider: Arc<DockerProvider>,
    used: bool,
}

impl Stage {
    fn new(provider: &Arc<DockerProvider>) -> Self {
        Self { provider: Arc::clone(provider), used: false }
    }

    fn path(&self) -> String {
        self.provider.stage()
    }

    /// Removes it; why it is still there, if it is. That is no reason to fail: whoever comes next removes it.
    async fn remove(mut self) -> Option<String> {
        if !std::mem::take(&mut self.used) {
            return None;
        }
        let error = self.provider.remove_stage(DATABASE).await.err()?;
        Some(format!("{error}: the next `create` or `restore` does that"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let (true, Ok(runtime)) = (self.used, tokio::runtime::Handle::try_current()) {
            let provider = Arc::clone(&self.provider);
            runtime.spawn(async move { provider.remove_stage(DATABASE).await });
        }
    }
}

/// What runs inside the container of the running server.
#[derive(Clone)]
pub(super) struct Online {
    pub(super) shell: Shell,
    /// Who owns the data.
    pub(super) user: User,
}

impl Online {
    fn spec(&self, words: &[&str]) -> CommandSpec {
        let mut spec = CommandSpec::new(words.iter().map(|word| (*word).to_owned()).collect());
        spec.place = Some(Arc::new(self.shell.provider.in_service_as(DATABASE, self.user.clone())));
        // It may think for as long as it likes before it says anything.
        spec.stall_timeout = spec.total_timeout;
        spec
    }

    /// `neo4j-admin database …` on the database, what it says going where errors go.
    fn admin(&self, words: &[&str]) -> CommandSpec {
        let before = ["sh", "-c", "exec \"$@\" >&2", "sh", "neo4j-admin", "database"];
        self.spec(&[&before, words, &[&self.shell.database]].concat())
    }

    async fn run(&self, spec: &CommandSpec) -> Result<Ended, ExecError> {
        let mut process = ProcessOutput::start(spec, self.shell.provider.masker()).await?;
        while process.next().await?.is_some() {}
        process.finish().await
    }

    fn failed(&self, action: &'static str, source: ExecError) -> ComponentError {
        ComponentError::Exec { component: self.shell.component.clone(), action, source }
    }

    pub(super) fn dump(&self, metadata: Metadata) -> Box<dyn DumpStream> {
        let stage = Stage::new(&self.shell.provider);
        Box::new(BackupDump { online: self.clone(), metadata, stage, state: State::Before })
    }

    /// Into the block format, the database being stopped.
    pub(super) async fn migrate(&self) -> Result<Vec<String>, ComponentError> {
        let done = self.run(&self.admin(&["migrate", "--expand-commands", "--to-format=block"])).await;
        done.map(|done| done.log).map_err(|source| self.failed("migration", source))
    }

    /// How many servers there are: more than one are a cluster.
    pub(super) async fn servers(&self) -> Result<u64, ComponentError> {
        let question = "SHOW SERVERS YIELD * RETURN count(*) AS servers";
        let row = self.shell.query_in(SYSTEM, question, QUERY_TIMEOUT).await?;
        let wrong = || self.shell.query_error(question, format!("the answer `{row}` has another form").into());
        row.trim().parse().map_err(|_| wrong())
    }

    /// Whether the database is there, and in which state.
    async fn status(&self) -> Result<Option<String>, ComponentError> {
        let name = literal(&self.shell.database.to_lowercase());
        let question = format!("SHOW DATABASES YIELD name, currentStatus WHERE name = {name} RETURN currentStatus");
        let row = self.shell.query_in(SYSTEM, &question, QUERY_TIMEOUT).await?;
        Ok(status_in(&row))
    }

    /// `verb` is `STOP`, `START` or `CREATE`.
    async fn command(&self, verb: &str) -> Result<(), ComponentError> {
        let name = self.shell.database.replace('`', "``");
        let statement = format!("{verb} DATABASE `{name}` WAIT {STATEMENT_SECONDS} SECONDS");
        self.shell.query_in(SYSTEM, &statement, STATEMENT_TIMEOUT).await.map(drop)
    }

    /// Waits until the database is in a state: the server says that it will be, and not always that it is.
    async fn wait_for(&self, wanted: &str) -> Result<(), ComponentError> {
        let since = std::time::Instant::now();
        loop {
            // A question that was not answered in time says nothing about the database.
            let found = self.status().await;
            if found.as_ref().is_ok_and(|found| found.as_deref() == Some(wanted)) {
                return Ok(());
            }
            if since.elapsed() >= STATUS_TIMEOUT {
                let (component, waited) = (self.shell.component.clone(), since.elapsed());
                let found = found?;
                let found = found.as_deref().unwrap_or("not there");
                let source = format!("its database `{}` is {found}, and not {wanted}", self.shell.database).into();
                return Err(ComponentError::NotReady { component, waited, source });
            }
            tokio::time::sleep(STATUS_PERIOD).await;
        }
    }

    fn script(&self) -> String {
        format!("{SCRIPTS}/{}/restore_metadata.cypher", self.shell.database)
    }

    /// Stops the database and replaces it by the backup in `file`.
    async fn replace(&self, file: &str) -> Result<Ended, ComponentError> {
        // That of an earlier restore must not be taken for this one's.
        let old = self.run(&self.spec(&["rm", "-f", "--", &self.script()])).await;
        old.map_err(|source| self.failed("load", source))?;
        if self.status().await?.is_some() {
            self.stop().await?;
        }
        let from = format!("--from-path={file}");
        let words = ["restore", "--expand-commands", "--overwrite-destination=true", &from];
        let done = self.run(&self.admin(&words)).await;
        done.map_err(|source| self.left_stopped(self.failed("load", source)))
    }

    async fn stop(&self) -> Result<(), ComponentError> {
        let stopped = match self.command("STOP").await {
            Ok(()) => self.wait_for("offline").await,
            Err(error) => Err(error),
        };
        if stopped.is_err() {
            // It was not touched. The first error is the one to tell.
            let _ = self.command("START").await;
        }
        stopped
    }

    fn left_stopped(&self, source: ComponentError) -> ComponentError {
        let (component, database) = (self.shell.component.clone(), self.shell.database.clone());
        ComponentError::LeftStopped { component, database, source: Box::new(source) }
    }

    pub(super) async fn load(&self) -> Result<Box<dyn LoadStream>, ComponentError> {
        let mut stage = Stage::new(&self.shell.provider);
        let time = SystemClock.now().strftime("%Y-%m-%dT%H-%M-%S");
        let file = format!("{}/{}-{time}.backup", stage.path(), self.shell.database);
        let spec = CommandSpec {
            stall_timeout: exec::STALL_TIMEOUT_DEFAULT,
            ..self.spec(&["sh", "-c", WRITE, &stage.path(), &file])
        };
        stage.used = true;
        match ProcessInput::start(&spec, self.shell.provider.masker()).await {
            Ok(input) => Ok(Box::new(BackupLoad { online: self.clone(), input, stage, file })),
            Err(error) => {
                stage.remove().await;
                Err(self.failed("load", error))
            }
        }
    }

    /// Brings back users and roles, and starts the database.
    pub(super) async fn serve(&self) -> Result<Served, ComponentError> {
        let mut served = Served::default();
        let existed = self.status().await?.is_some();
        if !existed {
            self.command("CREATE").await.map_err(|error| self.left_stopped(error))?;
        }
        match self.users_and_roles().await {
            Ok(true) => served.ran.push(format!("users and roles were brought back by {}", self.script())),
            Ok(false) => served.ran.push("the backup has no users and roles".to_owned()),
            Err(error) => served.problems.push(error),
        }
        if existed {
            self.command("START").await.map_err(|error| self.left_stopped(error))?;
        }
        self.wait_for("online").await?;
        served.ran.push(format!("database `{}` is online", self.shell.database));
        Ok(served)
    }

    /// Whether there were any; else why they were not brought back.
    async fn users_and_roles(&self) -> Result<bool, String> {
        let mut spec = self.shell.spec.clone();
        let parameter = format!("database => {}", literal(&self.shell.database));
        spec.argv = ["sh", "-c", USERS_AND_ROLES, "sh", &self.script(), &parameter].map(str::to_owned).to_vec();
        spec.total_timeout = STATEMENT_TIMEOUT;
        match exec::run(&spec, self.shell.provider.masker()).await {
            Ok(said) => Ok(!said.stdout.is_empty()),
            Err(error) => Err(format!(
                "users and roles were not brought back as a whole; {} is left in the container of `{DATABASE}`: {}",
                self.script(),
                without_passwords(&error.to_string())
            )),
        }
    }
}

/// A text as Cypher has it.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The state in the last line of an answer, which is the name of the column where there is no row.
fn status_in(row: &str) -> Option<String> {
    Some(row.trim().strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

/// An error may quote the statement that it is about, and that may hold the hash of a password.
fn without_passwords(text: &str) -> String {
    match text.to_ascii_lowercase().find("password '") {
        Some(at) => format!("{}…", &text[..at + "password ".len()]),
        None => text.to_owned(),
    }
}

enum State {
    Before,
    /// The backup is made.
    Making(ProcessOutput),
    /// It was made, and is read.
    Reading(Ended, ProcessOutput),
    /// Something went wrong.
    Over,
}

/// A backup that is made when its first byte is asked for, since making it can be given up only there.
struct BackupDump {
    online: Online,
    metadata: Metadata,
    stage: Stage,
    state: State,
}

impl BackupDump {
    fn failed(&self, source: ExecError) -> ComponentError {
        self.online.failed("dump", source)
    }

    async fn make(&mut self) -> Result<ProcessOutput, ExecError> {
        let online = &self.online;
        let (stage, database) = (self.stage.path(), &online.shell.database);
        let (to, metadata) = (format!("--to-path={stage}"), format!("--include-metadata={}", self.metadata.as_str()));
        let store = format!("{}/{database}", super::container::DATABASES);
        let admin = ["neo4j-admin", "database", "backup", "--expand-commands", "--type=FULL", &metadata, &to, database];
        let spec = online.spec(&[&["sh", "-c", MAKE, &stage, &store], &admin[..]].concat());
        self.stage.used = true;
        ProcessOutput::start(&spec, online.shell.provider.masker()).await
    }

    async fn read(&mut self) -> Result<ProcessOutput, ExecError> {
        let spec = CommandSpec {
            stall_timeout: exec::STALL_TIMEOUT_DEFAULT,
            ..self.online.spec(&["sh", "-c", READ, "sh", &self.stage.path()])
        };
        ProcessOutput::start(&spec, self.online.shell.provider.masker()).await
    }
}

#[async_trait]
impl DumpStream for BackupDump {
    async fn next(&mut self) -> Result<Option<Bytes>, ComponentError> {
        loop {
            // Dropped in the middle, it is over: the process ends, and `abort` removes what it made.
            match std::mem::replace(&mut self.state, State::Over) {
                State::Before => {
                    let making = self.make().await.map_err(|error| self.failed(error))?;
                    self.state = State::Making(making);
                }
                State::Making(mut process) => {
                    while process.next().await.map_err(|error| self.failed(error))?.is_some() {}
                    let made = process.finish().await.map_err(|error| self.failed(error))?;
                    self.state = State::Reading(made, self.read().await.map_err(|error| self.failed(error))?);
                }
                State::Reading(made, mut process) => {
                    let piece = process.next().await;
                    self.state = State::Reading(made, process);
                    return piece.map_err(|error| self.failed(error));
                }
                State::Over => return Ok(None),
            }
        }
    }

    async fn finish(self: Box<Self>) -> Result<ExitOk, ComponentError> {
        let Self { online, stage, state, .. } = *self;
        let ended = match state {
            State::Reading(made, process) => process.finish().await.map(|read| (made, read)),
            State::Before | State::Making(_) | State::Over => {
                Err(ExecError::Unread { command: "neo4j-admin database backup".to_owned(), bytes: 0 })
            }
        };
        let left = stage.remove().await;
        let (made, read) = ended.map_err(|error| online.failed("dump", error))?;
        let log = made.log.into_iter().chain(read.log).chain(left).collect();
        Ok(ExitOk { command: made.command, bytes: read.bytes, elapsed: made.elapsed + read.elapsed, log })
    }

    async fn abort(self: Box<Self>) {
        match self.state {
            State::Making(process) | State::Reading(_, process) => process.abort().await,
            State::Before | State::Over => {}
        }
        self.stage.remove().await;
    }
}

/// A backup on its way into the container.
struct BackupLoad {
    online: Online,
    input: ProcessInput,
    stage: Stage,
    file: String,
}

#[async_trait]
impl LoadStream for BackupLoad {
    async fn write(&mut self, piece: Bytes) -> Result<(), ComponentError> {
        self.input.write(piece).await.map_err(|error| self.online.failed("load", error))
    }

    async fn finish(self: Box<Self>) -> Result<ExitOk, ComponentError> {
        let Self { online, input, stage, file } = *self;
        let replaced = async {
            let taken = input.finish().await.map_err(|error| online.failed("load", error))?;
            Ok((taken, online.replace(&file).await?))
        };
        let replaced: Result<(Ended, Ended), ComponentError> = replaced.await;
        let left = stage.remove().await;
        let (taken, done) = replaced?;
        let log = done.log.into_iter().chain(left).collect();
        Ok(ExitOk { command: done.command, bytes: taken.bytes, elapsed: taken.elapsed + done.elapsed, log })
    }

    async fn abort(self: Box<Self>) {
        self.input.abort().await;
        self.stage.remove().await;
    }
}

/// A server that does not run cannot be asked to restore.
pub(super) fn not_running(shell: &Shell) -> ComponentError {
    let (project, service) = (shell.provider.way().project.clone(), DATABASE.to_owned());
    ComponentError::Docker { component: shell.component.clone(), source: DockerError::NotRunning { project, service } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_cypher_shell_writes_it() {
        assert_eq!(status_in("\"online\"").as_deref(), Some("online"));
        // No row: the last line is that of the names.
        assert_eq!(status_in("currentStatus"), None);
        assert_eq!(status_in(""), None);
    }

    #[test]
    fn a_name_ends_no_text() {
        assert_eq!(literal("neo4j"), "'neo4j'");
        assert_eq!(literal("o'n\\e"), "'o\\'n\\\\e'");
    }

    #[test]
    fn no_hash_of_a_password_is_told() {
        let text = "Invalid input: \"CREATE USER `a` SET ENCRYPTED PASSWORD '1,ab,cd,1024'\"";
        assert_eq!(without_passwords(text), "Invalid input: \"CREATE USER `a` SET ENCRYPTED PASSWORD …");
        assert_eq!(without_passwords("User already exists"), "User already exists");
    }

    /// Runs one of the scripts with `words` behind it.
    fn sh(script: &str, words: &[&str]) -> std::process::Output {
        std::process::Command::new("sh").args(["-c", script]).args(words).output().unwrap()
    }

    #[test]
    fn a_backup_begins_where_there_is_room_for_it_only() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name).display().to_string();
        let made = sh(MAKE, &[&path("a"), &path("no store"), "sh", "-c", "echo said; exit 7"]);
        assert_eq!((made.status.code(), made.stdout.len(), &made.stderr[..]), (Some(7), 0, &b"said\n"[..]));
        // A folder that is there is somebody's.
        assert_eq!(sh(MAKE, &[&path("a"), &path("no store"), "true"]).status.code(), Some(1));
        // As `du` tells of a store of which nobody has room for another.
        let du = parent.path().join("du");
        std::fs::write(&du, "#!/bin/sh\nprintf '99999999999999\\tstore\\n'\n").unwrap();
        std::fs::set_permissions(&du, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let variable = format!("{}:{}", parent.path().display(), std::env::var("PATH").unwrap());
        let mut command = std::process::Command::new("sh");
        let refused =
            command.args(["-c", MAKE, &path("b"), &path("store"), "true"]).env("PATH", variable).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains("no space is left in the container: up to 99999999999999 KiB"), "{said}");
    }

    #[test]
    fn one_backup_is_read_and_not_two() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        assert_eq!(sh(READ, &["sh", &path]).status.code(), Some(1));
        std::fs::write(folder.path().join("a.backup"), "bytes").unwrap();
        assert_eq!(sh(READ, &["sh", &path]).stdout, b"bytes");
        std::fs::write(folder.path().join("b.backup"), "bytes").unwrap();
        let refused = sh(READ, &["sh", &path]);
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
    }
}
