//! What the tests of the binary share: a sandbox with folders of its own, the binary run inside it, and what it left.
//!
//! Holds: nothing outside of the sandbox is read or written by the binary: environment, home, state and cache are its own.
//! Does not: know any deployment; see [`scripted`].

// Each test target uses a part of this.
#![allow(dead_code)]

pub mod grants;
pub mod scripted;
pub mod secrets;
pub mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long something that must happen may take before the test gives up. Not a claim about speed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A folder of its own for one user of the binary.
pub struct Sandbox {
    folder: tempfile::TempDir,
    /// The repository that commands get by `--repo`.
    pub repository: PathBuf,
    /// The key file that commands get by `--key-file`.
    pub key: PathBuf,
    variables: Vec<(String, String)>,
}

impl Sandbox {
    /// An empty one.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("ibk-").tempdir().expect("a folder for the test");
        let path = fs::canonicalize(folder.path()).expect("it is there");
        fs::create_dir(path.join("home")).expect("a home");
        let (repository, key) = (path.join("repository"), path.join("key"));
        Self { folder, repository, key, variables: Vec::new() }
    }

    /// One with a repository in it.
    pub fn with_repository() -> Self {
        let sandbox = Self::new();
        sandbox.run(["init", "--no-password"]).ok();
        sandbox
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.folder.path()).expect("it is there").join(name)
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("the sandbox takes a file");
        path
    }

    /// Commands get this variable as well.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// The binary with these arguments, in this sandbox.
    pub fn command<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Command {
        self.command_of(Command::new(env!("CARGO_BIN_EXE_infrahub-backup")), arguments)
    }

    /// The same behind another program, which `command` begins.
    pub fn command_of<I: IntoIterator<Item: AsRef<OsStr>>>(&self, mut command: Command, arguments: I) -> Command {
        command.args(arguments).arg("--repo").arg(&self.repository).arg("--key-file").arg(&self.key);
        self.confined(command)
    }

    /// The binary with these arguments, and nothing that opens the repository.
    pub fn command_without_key<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infrahub-backup"));
        command.args(arguments).arg("--repo").arg(&self.repository);
        self.confined(command)
    }

    /// The binary with these arguments, and nothing that names a repository.
    pub fn command_without_repository<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infrahub-backup"));
        command.args(arguments);
        self.confined(command)
    }

    fn confined(&self, mut command: Command) -> Command {
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.path("home"));
        for (name, folder) in [("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache")]
        {
            command.env(name, self.path(folder));
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.path("")).stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub fn run<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Ran {
        Ran::of(self.command(arguments))
    }

    /// Runs the binary with `input` on its standard input.
    pub fn run_with_input<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I, input: &Path) -> Ran {
        let mut command = self.command(arguments);
        command.stdin(fs::File::open(input).expect("the input is there"));
        Ran::of(command)
    }

    /// Starts the binary in the background; its output is kept in `NAME.out` and `NAME.err`.
    pub fn start<I: IntoIterator<Item: AsRef<OsStr>>>(&self, name: &str, arguments: I) -> Started {
        let (out, err) = (self.path(&format!("{name}.out")), self.path(&format!("{name}.err")));
        let mut command = self.command(arguments);
        command.stdout(fs::File::create(&out).expect("a file")).stderr(fs::File::create(&err).expect("a file"));
        Started { shown: format!("{command:?}"), child: command.spawn().expect("the binary starts"), out, err }
    }

    /// Ids of the snapshots, as the binary lists them; oldest first.
    pub fn snapshots(&self) -> Vec<String> {
        let listed = self.run(["snapshots", "list", "--json"]).ok().json();
        let rows = found(&listed, "snapshots").or_else(|| listed.as_array()).expect("a list of snapshots");
        let id = |row: &Value| row["id"].as_str().expect("a snapshot has an id").to_owned();
        rows.iter().map(id).collect()
    }

    /// The whole repository is checked, every byte of it, and nothing is found.
    pub fn assert_clean(&self) {
        let verified = self.run(["verify", "--depth", "data", "--json"]).ok().json();
        assert_eq!(found(&verified, "findings"), Some(&vec![]), "{verified:#}");
    }

    /// Files of the repository with their sizes, by name.
    pub fn objects(&self) -> BTreeMap<String, u64> {
        files_below(&self.repository)
    }

    /// Journals of killed runs, as lines.
    pub fn journals(&self) -> Vec<Vec<Value>> {
        let folder = self.path("state/infrahub-backup/journals");
        let Ok(entries) = fs::read_dir(folder) else { return vec![] };
        let text = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        let lines = |text: String| text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        entries.map(|entry| lines(text(entry.expect("an entry").path()))).collect()
    }

    /// The last phase in the only journal; `None` if there is no journal, or it tells of none.
    pub fn last_phase(&self) -> Option<String> {
        let journals = self.journals();
        let last = journals.first()?.iter().rfind(|line| line["entry"] == "phase")?;
        Some(last["name"].as_str().expect("a phase has a name").to_owned())
    }
}

/// Sizes of all files below `folder`, by their names in it.
pub fn files_below(folder: &Path) -> BTreeMap<String, u64> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder that can be read") {
            let path = entry.expect("an entry").path();
            let meta = path.symlink_metadata().expect("it is there");
            if meta.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("it lies below").to_string_lossy().into_owned();
                files.insert(name, meta.len());
            }
        }
    }
    files
}

/// The first array under the key `name`, however deep.
pub fn found<'a>(value: &'a Value, name: &str) -> Option<&'a Vec<Value>> {
    match value {
        Value::Object(fields) => {
            let here = fields.get(name).and_then(Value::as_array);
            here.or_else(|| fields.values().find_map(|field| found(field, name)))
        }
        Value::Array(items) => items.iter().find_map(|item| found(item, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// A run that ended.
pub struct Ran {
    shown: String,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its standard error.
    pub err: String,
}

impl Ran {
    /// Runs `command` to its end.
    pub fn of(mut command: Command) -> Self {
        let output = command.output().expect("the program starts");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { shown: format!("{command:?}"), code: output.status.code(), out: output.stdout, err }
    }

    /// It must have ended well.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.with_code(0)
    }

    /// It must have ended with this code.
    #[track_caller]
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}\n{}", self.shown, self.text(), self.err);
        self
    }

    /// Its standard error must hold each of these.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.err.contains(text), "no `{text}` in what it said:\n{}\n{}", self.shown, self.err);
        }
        self
    }

    /// Its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Its standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}\n{}", self.shown, self.text(), self.err))
    }
}

/// A run in the background.
pub struct Started {
    shown: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Started {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_some()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("the process is there until it is waited for");
    }

    /// Kills it as `kill -9` does.
    pub fn kill(mut self) -> Ran {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ran {
        let status = self.child.wait().expect("a child can be waited for");
        let out = fs::read(&self.out).expect("its output is there");
        let err = String::from_utf8_lossy(&fs::read(&self.err).expect("its output is there")).into_owned();
        Ran { shown: self.shown, code: status.code(), out, err }
    }
}

/// Waits until `happened`; panics with `what` if it does not.
#[track_caller]
pub fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let since = Instant::now();
    while !happened() {
        assert!(since.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A file of this package.
pub fn package_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The tar inside of a Neo4j dump: a dump is wrapped anew when it goes out, and its compressed bytes differ.
#[track_caller]
pub fn unwrapped(dump: &[u8]) -> Vec<u8> {
    let frame = dump.strip_prefix(b"DZV1").expect("a Neo4j dump that zstd compressed");
    zstd::decode_all(frame).expect("a zstd frame")
}

/// What is in `after` and not in `before`.
pub fn added(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let known: BTreeSet<&String> = before.keys().collect();
    after.iter().filter(|(name, _)| !known.contains(name)).map(|(name, size)| (name.clone(), *size)).collect()
}

/// Bytes that are the same on every run and do not compress: a counter, hashed.
pub fn noise(seed: &str, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
