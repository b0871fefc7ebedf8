//! Compose projects on a real Docker engine: real databases, and placeholders for all else.
//!
//! One for all tests of this target, since a Neo4j takes ten seconds to start; a test has it for itself while it holds what
//! [`Project::take`] gave. It is taken down when this process ends, however it ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::support::{Sandbox, wait_until};

/// Odd on purpose, so that an encoding that is forgotten somewhere shows. Compose's own files take no `$` and no quotes.
pub const NEO4J_PASSWORD: &str = "n@o/4 jü%:pass";
/// As [`NEO4J_PASSWORD`].
pub const POSTGRES_PASSWORD: &str = "p+g s/l&ö%:pass";

/// The label of containers that a backup makes for itself.
const OURS: &str = "infrahub-backup.project";

/// Waits until the test process is gone, then takes a project down.
const JANITOR: &str = r#"cat; "$1/docker.sh" down "$2"; rm -rf "${2%/*}""#;

/// A project that runs.
pub struct Project {
    folder: PathBuf,
    environment: BTreeMap<String, String>,
    // Takes it down when its standard input ends, which is when this process does, or when this is dropped.
    janitor: Child,
}

static SHARED: OnceLock<Option<Mutex<Project>>> = OnceLock::new();
static ENTERPRISE: OnceLock<Option<Mutex<Project>>> = OnceLock::new();

fn parts() -> Option<PathBuf> {
    let parts = PathBuf::from(std::env::var_os("INFRAHUB_TEST_PARTS")?);
    Some(std::path::absolute(parts).expect("a folder"))
}

impl Project {
    /// The shared project, for one test at a time, running and filled; `None` if there are no real parts to test with.
    pub fn take(untested: &str) -> Option<MutexGuard<'static, Self>> {
        Self::take_shared(&SHARED, "one", "community", untested)
    }

    /// The same with a database that passes for Neo4j Enterprise.
    pub fn take_enterprise(untested: &str) -> Option<MutexGuard<'static, Self>> {
        let project = Self::take_shared(&ENTERPRISE, "enterprise", "enterprise", untested)?;
        project.sh("database", "rm -rf /data/*-waits /data/*-fails /data/*-breaks /data/waiting /data/stand-in*");
        Some(project)
    }

    fn take_shared(
        shared: &'static OnceLock<Option<Mutex<Self>>>,
        name: &str,
        edition: &str,
        untested: &str,
    ) -> Option<MutexGuard<'static, Self>> {
        let shared = shared.get_or_init(|| Some(Mutex::new(Self::up(name, "no", edition)?)));
        let Some(shared) = shared else {
            eprintln!("not tested, since INFRAHUB_TEST_PARTS does not name the scripts of real parts: {untested}");
            return None;
        };
        // A test that failed says nothing about the next one.
        let project = shared.lock().unwrap_or_else(PoisonError::into_inner);
        project.bring_up("no", edition);
        if edition == "enterprise" {
            // A test that failed may have left it stopped.
            project.sh("database", "rm -f /data/stand-in/stopped");
        }
        project.fill();
        Some(project)
    }

    /// Another project, whose database has this restart policy and says that it is of this edition.
    pub fn up(name: &str, restart: &str, edition: &str) -> Option<Self> {
        let parts = parts()?;
        let folder = tempfile::Builder::new().prefix("ibk-docker-").tempdir().expect("a folder").keep();
        // The name of the folder is that of the project.
        let folder = folder.join(format!("ibk-{name}-{}", std::process::id()));
        let janitor = Command::new("sh")
            .args(["-c", JANITOR])
            .args(["janitor".as_ref(), parts.as_os_str(), folder.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let mut project = Self { folder, environment: BTreeMap::new(), janitor };
        project.environment = project.bring_up(restart, edition);
        Some(project)
    }

    fn bring_up(&self, restart: &str, edition: &str) -> BTreeMap<String, String> {
        let mut script = Command::new(parts().expect("it was up").join("docker.sh"));
        script.arg("up").arg(&self.folder).env("RESTART", restart).env("EDITION", edition);
        script.env("NEO4J_PASSWORD", NEO4J_PASSWORD).env("POSTGRES_PASSWORD", POSTGRES_PASSWORD);
        let output = script.stderr(Stdio::inherit()).output().expect("the script starts");
        assert!(output.status.success(), "{script:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.environment["DOCKER_PROJECT"]
    }

    /// Where its engine is.
    pub fn engine(&self) -> &str {
        &self.environment["DOCKER_HOST"]
    }

    /// A sandbox whose binary finds the project.
    pub fn sandbox(&self) -> Sandbox {
        let mut sandbox = self.sandbox_without_name();
        sandbox.set("INFRAHUB_PROJECT", self.name());
        sandbox
    }

    /// A sandbox whose binary finds the engine only.
    pub fn sandbox_without_name(&self) -> Sandbox {
        let mut sandbox = Sandbox::new();
        sandbox.set("DOCKER_HOST", &self.environment["DOCKER_HOST"]);
        sandbox
    }

    /// What the engine's own command line says.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> String {
        let mut docker = Command::new("docker");
        docker.args(arguments).envs(["DOCKER_HOST", "DOCKER_CONFIG"].map(|name| (name, &self.environment[name])));
        let output = docker.stdin(Stdio::null()).output().expect("docker starts");
        assert!(output.status.success(), "{docker:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// The container of a service.
    pub fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.name())
    }

    /// Runs a script in the container of a service.
    #[track_caller]
    pub fn sh(&self, service: &str, script: &str) -> String {
        self.docker(&["exec", &self.container(service), "sh", "-c", script])
    }

    /// The last row of what a statement gives, as JSON, its values joined by `, `.
    #[track_caller]
    pub fn cypher(&self, statement: &str) -> String {
        self.cypher_in("neo4j", statement)
    }

    /// The same in another database. By HTTP, because a `cypher-shell` takes seconds to start.
    #[track_caller]
    pub fn cypher_in(&self, database: &str, statement: &str) -> String {
        let user = BASE64_STANDARD.encode(format!("neo4j:{NEO4J_PASSWORD}"));
        let body = serde_json::json!({ "statements": [{ "statement": statement }] });
        let said = self.docker(&[
            "exec",
            &self.container("database"),
            "wget",
            "-qO-",
            "--header=Content-Type: application/json",
            &format!("--header=Authorization: Basic {user}"),
            &format!("--post-data={body}"),
            &format!("http://127.0.0.1:7474/db/{database}/tx/commit"),
        ]);
        let said: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(said["errors"], serde_json::json!([]), "{statement}");
        let rows = said["results"][0]["data"].as_array().expect("rows");
        let values = |row: &Value| -> Vec<String> {
            row["row"].as_array().expect("a row").iter().map(Value::to_string).collect()
        };
        rows.last().map(|row| values(row).join(", ")).unwrap_or_default()
    }

    /// What a statement gives.
    #[track_caller]
    pub fn sql(&self, statement: &str) -> String {
        let password = format!("PGPASSWORD={POSTGRES_PASSWORD}");
        let psql = ["psql", "-XqAt", "-h", "localhost", "-U", "postgres", "-d", "prefect", "-c", statement];
        let container = self.container("task-manager-db");
        self.docker(&[&["exec", "-e", &password, &container][..], &psql].concat())
    }

    /// Puts known content into everything.
    pub fn fill(&self) {
        self.cypher("MATCH (n) DETACH DELETE n");
        self.cypher("UNWIND range(1, 3000) AS i CREATE (:Item {value: i})-[:OF {since: i}]->(:Kind {name: 'k' + i})");
        self.sql("DROP TABLE IF EXISTS flow; CREATE TABLE flow (id int PRIMARY KEY, text text)");
        self.sql("INSERT INTO flow SELECT i, md5(i::text) FROM generate_series(1, 20000) i");
        let store = "cd /opt/infrahub/storage; find . -mindepth 1 -delete; mkdir -p a/b; umask 027";
        let files = "for i in $(seq 50); do echo \"object $i\" >a/$i; done; echo deep >'a/b/ü d'; ln -s a/1 link";
        self.sh("infrahub-server", &format!("{store}; {files}"));
        self.sh("infrahub-server", "rm -f /usr/lib/python3/dist-packages/infrahub.py");
        self.sh("task-manager", "rm -f /run/tasks.json");
        self.sh("cache", "echo old >/data/dump.rdb");
        self.sh("message-queue", "mkdir -p /var/lib/rabbitmq/mnesia; echo old >/var/lib/rabbitmq/mnesia/queue");
    }

    /// Everything that a restore must bring back.
    pub fn content(&self) -> Vec<String> {
        let files = "cd /opt/infrahub/storage; find . -printf '%P %y %m %U:%G %l\n' | sort; \
                     find . -type f -print0 | sort -z | xargs -0 -r sha256sum";
        vec![
            self.cypher("MATCH (n) RETURN count(n), sum(n.value), count(DISTINCT n.name)"),
            self.cypher("MATCH ()-[r]->() RETURN count(r), sum(r.since)"),
            self.sql("SELECT count(*), md5(string_agg(text, '' ORDER BY id)) FROM flow"),
            self.sh("infrahub-server", files),
        ]
    }

    /// Changes everything.
    pub fn spoil(&self) {
        self.cypher("MATCH (n:Kind) DETACH DELETE n");
        self.sql("DELETE FROM flow WHERE id % 2 = 0; UPDATE flow SET text = 'x' WHERE id < 100");
        self.sh("infrahub-server", "cd /opt/infrahub/storage; rm -r a/b a/1; echo new >new; echo changed >a/2");
    }

    /// Names of the containers that run, and since when.
    pub fn running(&self) -> Vec<String> {
        let filter = format!("label=com.docker.compose.project={}", self.name());
        let ids = self.docker(&["ps", "-q", "--no-trunc", "--filter", &filter]);
        let ids: Vec<&str> = ids.lines().collect();
        let shown = self.docker(&[&["inspect", "--format", "{{.Name}} {{.State.StartedAt}}"][..], &ids].concat());
        let mut lines: Vec<String> = shown.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// All nine containers run, the database serves, and nothing of ours is left.
    #[track_caller]
    pub fn assert_running(&self) {
        let running = self.running();
        assert_eq!(running.len(), 9, "{running:?}");
        assert_eq!(self.ours(), "", "containers are left");
        // HTTP goes past the stand-in of Enterprise, which takes no questions while its database is stopped.
        self.sh("database", "test ! -e /data/stand-in/stopped");
        self.cypher("RETURN 1");
    }

    /// Containers that a backup made for itself.
    pub fn ours(&self) -> String {
        let filter = format!("label={OURS}={}", self.name());
        self.docker(&["ps", "-aq", "--filter", &filter])
    }

    /// What runs in them.
    pub fn commands_of_ours(&self) -> String {
        let filter = format!("label={OURS}={}", self.name());
        self.docker(&["ps", "--no-trunc", "--format", "{{.Command}}", "--filter", &filter])
    }

    /// Waits until a backup dumps or loads the database; the container that it does that in.
    #[track_caller]
    pub fn wait_for_ours(&self) -> String {
        let filter = format!("label={OURS}={}", self.name());
        let running = || self.docker(&["ps", "-q", "--filter", &filter]);
        wait_until("a container of the backup runs", || !running().is_empty());
        running()
    }

    /// Whether the container of a service runs.
    pub fn runs(&self, service: &str) -> bool {
        self.docker(&["inspect", "--format", "{{.State.Running}}", &self.container(service)]) == "true"
    }

    /// Takes it down and waits for that.
    pub fn down(mut self) {
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}
