//! A real deployment: PostgreSQL, Neo4j Community, a folder of artifacts with odd names, and a stand-in for the application.
//!
//! One for all tests of this target, since a Neo4j takes ten seconds to start; a test has it for itself while it holds what
//! [`Deployment::take`] gave. It is taken down when this process ends, however it ends.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::support::tree::{self, Facts};
use crate::support::{Sandbox, package_file};

/// Odd on purpose: what must never be seen should look different in every encoding.
pub const NEO4J_PASSWORD: &str = "n@o/4 jü%:pass";
/// As [`NEO4J_PASSWORD`].
pub const POSTGRES_PASSWORD: &str = "p+g s'q\"l/ö%:pass";
const USER: &str = "keeper";

/// Stands for Infrahub's own server: a process that runs.
const APPLICATION: &str = r#"#!/bin/sh
here=${0%/*} pid=${0%/*}/pid
running() { [ -s "$pid" ] && kill -0 "$(cat "$pid")" 2>/dev/null; }
case $1 in
stop) running && kill "$(cat "$pid")"; rm -f "$pid" ;;
start) running && exit 0; setsid sleep 7200 >/dev/null 2>&1 </dev/null & echo $! >"$pid" ;;
probe) running ;;
esac
"#;

/// Runs the dump, keeps what it gave beside it, and does what a hook says.
const DUMP: &str = r#"#!/bin/bash
# dump NAME COMMAND...
set -o pipefail
here=${0%/*} name=$1
shift
[ ! -e "$here/hook-$name" ] || . "$here/hook-$name"
"$@" | tee "$here/$name.captured"
"#;

/// Waits until the test process is gone, then takes everything down.
const JANITOR: &str = r#"
cat
"$1/neo4j.sh" down "$2/neo4j"
"$1/neo4j.sh" down "$2/second"
"$1/postgres.sh" down "$2/postgres"
"$2/application" stop
rm -rf "$2"
"#;

/// The real parts.
pub struct Deployment {
    folder: PathBuf,
    parts: PathBuf,
    environment: BTreeMap<String, String>,
    // Takes everything down when its standard input ends, which is when this process does.
    _janitor: Child,
}

static SHARED: OnceLock<Option<Mutex<Deployment>>> = OnceLock::new();

impl Deployment {
    /// The deployment, for one test at a time, in good order; `None` if there are no real parts to test with.
    pub fn take(untested: &str) -> Option<MutexGuard<'static, Self>> {
        let shared = SHARED.get_or_init(|| {
            let parts = PathBuf::from(std::env::var_os("INFRAHUB_TEST_PARTS")?);
            Some(Mutex::new(Self::up(std::path::absolute(parts).expect("a folder"))))
        });
        let Some(shared) = shared else {
            eprintln!("not tested, since INFRAHUB_TEST_PARTS does not name the scripts of real parts: {untested}");
            return None;
        };
        // A test that failed says nothing about the next one.
        let deployment = shared.lock().unwrap_or_else(PoisonError::into_inner);
        deployment.put_right();
        Some(deployment)
    }

    fn up(parts: PathBuf) -> Self {
        let folder = tempfile::Builder::new().prefix("ibk-e2e-").tempdir().expect("a folder").keep();
        let folder = fs::canonicalize(folder).expect("it is there");
        let janitor = Command::new("sh")
            .args(["-c", JANITOR])
            .args(["janitor".as_ref(), parts.as_os_str(), folder.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let mut deployment = Self { folder, parts, environment: BTreeMap::new(), _janitor: janitor };
        for (part, seed) in [("postgres", "20000"), ("neo4j", "5500")] {
            let shown = deployment.bring_up(part, part);
            deployment.environment.extend(shown);
            deployment.seed(part, &["fill", seed]);
        }
        deployment.add_users();
        fs::create_dir(deployment.artifacts()).expect("a folder");
        deployment.write_script("application", APPLICATION);
        deployment.write_script("dump", DUMP);
        deployment.application("start");
        deployment
    }

    /// Brings up a part in the folder `name`; what it says of itself.
    pub fn bring_up(&self, part: &str, name: &str) -> BTreeMap<String, String> {
        let mut command = Command::new(self.parts.join(format!("{part}.sh")));
        command.arg("up").arg(self.folder.join(name)).env("NEO4J_PREALLOCATE", "false");
        let shown = told(command);
        let upper = part.to_uppercase();
        let value = |key: &str| shown[&format!("{upper}_{key}")].clone();
        eprintln!("{part} {} runs as process {}", value("VERSION"), value("PID"));
        shown
    }

    fn write_script(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(self.folder.join(name), text).expect("a script");
        fs::set_permissions(self.folder.join(name), fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// Users with passwords of our own, since those of the parts are known to everybody.
    fn add_users(&self) {
        let password = POSTGRES_PASSWORD.replace('\'', "''");
        self.sql("postgres", &format!("create role {USER} superuser login password '{password}'"));
        let body = serde_json::json!({ "statements": [{
            "statement": format!("CREATE USER {USER} SET PASSWORD $password CHANGE NOT REQUIRED"),
            "parameters": { "password": NEO4J_PASSWORD },
        }]});
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail-with-body", "--netrc-file", &self.environment["NEO4J_NETRC"]]);
        curl.args(["-H", "Content-Type: application/json", "--data-binary", &body.to_string()]);
        curl.arg(format!("{}/db/system/tx/commit", self.environment["NEO4J_HTTP"]));
        let answer = curl.output().expect("curl starts");
        let text = String::from_utf8_lossy(&answer.stdout);
        assert!(text.contains("\"errors\":[]"), "{text}");
    }

    fn sql(&self, database: &str, statement: &str) {
        let mut psql = Command::new(Path::new(&self.environment["POSTGRES_BIN"]).join("psql"));
        psql.env("PGPASSFILE", &self.environment["POSTGRES_PASSFILE"]).args(["-X", "-q", "-h", "127.0.0.1"]);
        psql.args(["-p", &self.environment["POSTGRES_PORT"], "-U", "postgres", "-d", database, "-c", statement]);
        assert!(psql.status().expect("psql starts").success());
    }

    /// After a test that broke something: no hooks, everything running.
    fn put_right(&self) {
        for name in ["database", "task-manager-db"] {
            let _ = fs::remove_file(self.folder.join(format!("hook-{name}")));
        }
        self.bring_up("postgres", "postgres");
        self.bring_up("neo4j", "neo4j");
        self.application("start");
        let artifacts = self.artifacts();
        fs::remove_dir_all(&artifacts).expect("the artifacts can be removed");
        fs::create_dir(&artifacts).expect("a folder");
        tree::write_odd(&artifacts, 200);
    }

    /// A sandbox whose configuration describes this deployment, without a repository.
    pub fn sandbox(&self) -> Sandbox {
        let mut sandbox = Sandbox::new();
        sandbox.write("neo4j-password", format!("{NEO4J_PASSWORD}\n"));
        sandbox.write("postgres-password", format!("{POSTGRES_PASSWORD}\n"));
        let config = self.config(&sandbox);
        let config = sandbox.write("infrahub-backup.toml", config);
        sandbox.set("INFRAHUB_CONFIG", config.display().to_string());
        // The scripts of the parts keep what they installed there.
        let cache = std::env::var("INFRAHUB_TEST_CACHE").unwrap_or_else(|_| {
            let home = || format!("{}/.cache", std::env::var("HOME").unwrap_or_default());
            let folder = std::env::var("XDG_CACHE_HOME").ok().filter(|folder| !folder.is_empty());
            format!("{}/infrahub-backup-tests", folder.unwrap_or_else(home))
        });
        sandbox.set("INFRAHUB_TEST_CACHE", cache);
        for name in ["PARTS_LOG", "JAVA_HOME"] {
            if let Ok(value) = std::env::var(name) {
                sandbox.set(name, value);
            }
        }
        sandbox
    }

    fn config(&self, sandbox: &Sandbox) -> String {
        let (folder, parts) = (self.folder.display(), self.parts.display());
        let value = |name: &str| &self.environment[name];
        format!(
            r#"[deployment]
name = "real"

[[service]]
name = "database"
stop = ["{parts}/neo4j.sh", "stop", "{folder}/neo4j"]
start = ["{parts}/neo4j.sh", "start", "{folder}/neo4j"]
probe = ["{parts}/neo4j.sh", "probe", "{folder}/neo4j"]
ready = ["{parts}/neo4j.sh", "status", "{folder}/neo4j"]

[[service]]
name = "infrahub-server"
stop = ["{folder}/application", "stop"]
start = ["{folder}/application", "start"]
probe = ["{folder}/application", "probe"]

[[component]]
name = "database"
kind = "neo4j"
service = "database"
also_stop = ["infrahub-server"]
dump = ["{folder}/dump", "database", "{admin}", "database", "dump", "neo4j", "--to-stdout"]
load = ["{admin}", "database", "load", "neo4j", "--from-stdin", "--overwrite-destination=true"]
[component.neo4j]
uri = "{uri}"
user = "{USER}"
password = {{ file = "{secrets}/neo4j-password" }}

[[component]]
name = "task-manager-db"
kind = "postgres"
also_stop_for_load = ["infrahub-server"]
dump = ["{folder}/dump", "task-manager-db", "{bin}/pg_dump", "--no-password", "--format=custom", "--compress=0"]
[component.postgres]
host = "127.0.0.1"
port = {port}
user = "{USER}"
password = {{ command = ["cat", "{secrets}/postgres-password"] }}
database = "prefect"
bin = "{bin}"

[[component]]
name = "artifacts"
kind = "artifacts"
service = "infrahub-server"
path = "{folder}/artifacts"
"#,
            admin = value("NEO4J_ADMIN"),
            uri = value("NEO4J_URI"),
            port = value("POSTGRES_PORT"),
            bin = value("POSTGRES_BIN"),
            secrets = sandbox.path("").display(),
        )
    }

    /// The folder of artifacts.
    pub fn artifacts(&self) -> PathBuf {
        self.folder.join("artifacts")
    }

    /// A path in the folder of all this; `$here` in hooks.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What the last dump of a component gave.
    pub fn captured(&self, component: &str) -> PathBuf {
        self.folder.join(format!("{component}.captured"))
    }

    /// `script` runs at the beginning of a component's dump, as bash; `$@` is the real command.
    pub fn hook(&self, component: &str, script: &str) {
        fs::write(self.folder.join(format!("hook-{component}")), script).expect("a hook");
    }

    /// The hook is gone.
    pub fn unhook(&self, component: &str) {
        fs::remove_file(self.folder.join(format!("hook-{component}"))).expect("the hook was there");
    }

    /// Runs the script that fills, changes, empties or sums up a database.
    pub fn seed(&self, part: &str, arguments: &[&str]) -> BTreeMap<String, String> {
        self.seed_in(part, part, arguments)
    }

    /// The same for a part in the folder `name`.
    pub fn seed_in(&self, part: &str, name: &str, arguments: &[&str]) -> BTreeMap<String, String> {
        let mut command = Command::new(package_file(&format!("tests/fixtures/seed/{part}/seed.sh")));
        told({
            command.arg(arguments[0]).arg(self.folder.join(name)).args(&arguments[1..]);
            command
        })
    }

    /// The last line of what a statement gives.
    #[track_caller]
    pub fn cypher(&self, statement: &str) -> String {
        let mut shell = Command::new(&self.environment["NEO4J_CYPHER_SHELL"]);
        shell.env("NEO4J_USERNAME", USER).env("NEO4J_PASSWORD", NEO4J_PASSWORD).env("HOME", &self.folder);
        shell.args(["--format", "plain", "-a", &self.environment["NEO4J_URI"], statement]);
        let output = shell.stderr(Stdio::inherit()).output().expect("cypher-shell starts");
        assert!(output.status.success(), "{statement}");
        String::from_utf8_lossy(&output.stdout).lines().next_back().unwrap_or_default().to_owned()
    }

    /// Everything that a restore must bring back.
    pub fn content(&self) -> Content {
        let mut databases = self.seed("postgres", &["checksum"]);
        databases.extend(self.seed("neo4j", &["checksum"]));
        Content { databases, artifacts: tree::facts(&self.artifacts()) }
    }

    /// Does one thing with a Neo4j's script: `start`, `stop`, `probe`; whether it ended well.
    pub fn neo4j(&self, action: &str, name: &str) -> bool {
        let script = self.parts.join("neo4j.sh");
        Command::new(script).arg(action).arg(self.folder.join(name)).status().expect("the script starts").success()
    }

    /// The same with the stand-in.
    pub fn application(&self, action: &str) -> bool {
        Command::new(self.folder.join("application")).arg(action).status().expect("the script starts").success()
    }

    /// All services run.
    #[track_caller]
    pub fn assert_running(&self) {
        assert!(self.neo4j("probe", "neo4j"), "Neo4j does not run");
        assert!(self.application("probe"), "the application does not run");
    }
}

/// What is in the deployment.
pub struct Content {
    /// Sums and counts of the databases.
    pub databases: BTreeMap<String, String>,
    /// The artifacts.
    pub artifacts: BTreeMap<PathBuf, Facts>,
}

impl Content {
    /// Both are the same.
    #[track_caller]
    pub fn assert_same(&self, other: &Self) {
        assert_eq!(self.databases, other.databases);
        tree::assert_same(&self.artifacts, &other.artifacts);
    }
}

/// Runs a script that prints `KEY=VALUE` lines.
fn told(mut command: Command) -> BTreeMap<String, String> {
    let output = command.stderr(Stdio::inherit()).output().expect("the script starts");
    assert!(output.status.success(), "{command:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
