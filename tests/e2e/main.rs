//! The binary against a real PostgreSQL and a real Neo4j Community.
//!
//! `INFRAHUB_TEST_PARTS` names the folder of scripts that bring them up (`tests/parts`); without it each test prints what it
//! did not test.

mod deployment;
mod secrets;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use deployment::Deployment;
use rustix::process::Signal;
use serde_json::Value;
use support::{Sandbox, added, found, wait_until};

/// Founds the repository and makes the first snapshot; its id.
fn first_snapshot(sandbox: &Sandbox) -> String {
    sandbox.run(["create", "--init"]).ok();
    sandbox.snapshots().remove(0)
}

/// The newest report of an operation.
fn newest_report(sandbox: &Sandbox, operation: &str) -> Value {
    let reports = reports(sandbox);
    reports.into_iter().rfind(|report| report["operation"] == operation).expect("there is such a report")
}

/// All reports, oldest first.
fn reports(sandbox: &Sandbox) -> Vec<Value> {
    let listed = sandbox.run(["report", "list", "--json"]).ok().json();
    let rows = found(&listed, "reports").or_else(|| listed.as_array()).expect("a list of reports");
    let show = |row: &Value| sandbox.run(["report", "show", row["id"].as_str().expect("an id"), "--json"]).ok().json();
    rows.iter().map(show).collect()
}

/// The step of a report that did `action` to `target`.
#[track_caller]
fn step<'a>(report: &'a Value, action: &str, target: &str) -> &'a Value {
    let steps = found(report, "steps").expect("a report has steps");
    let step = steps.iter().find(|step| step["action"] == action && step["target"] == target);
    let step = step.unwrap_or_else(|| panic!("no step `{action} {target}` in {report:#}"));
    let time = |name: &str| step[name].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()).expect("a time");
    assert!(time("start") <= time("end"), "{step:#}");
    assert_eq!(step["outcome"], "done", "{step:#}");
    step
}

#[test]
fn everything_comes_back() {
    let Some(real) = Deployment::take("that everything comes back") else { return };
    let sandbox = real.sandbox();
    let mut said = Vec::new();
    let mut run = |arguments: &[&str]| {
        let ran = sandbox.run(arguments).ok();
        said.push(format!("{}{}", ran.text(), ran.err));
    };
    let before = real.content();
    eprintln!("{:?}, {} artifacts", before.databases, before.artifacts.len());
    run(&["create", "--init", "-v", "-v"]);
    real.assert_running();
    let id = sandbox.snapshots().remove(0);

    for (part, artifact) in [("postgres", "many/7"), ("neo4j", "objects/plain.json")] {
        real.seed(part, &["mutate", "1"]);
        fs::write(real.artifacts().join(artifact), "changed").expect("an artifact");
    }
    real.seed("postgres", &["delete"]);
    real.seed("neo4j", &["delete"]);
    fs::remove_dir_all(real.artifacts().join("many")).expect("artifacts");
    fs::write(real.artifacts().join("new"), "not there before").expect("an artifact");
    let emptied = real.content();
    assert_eq!(emptied.databases["NEO4J_NODES"], "0");
    assert_eq!(emptied.databases["POSTGRES_ROWS"], "0");

    run(&["restore", &id, "--yes", "-v", "-v"]);
    real.assert_running();
    before.assert_same(&real.content());
    let snapshots = sandbox.snapshots();
    assert_eq!(snapshots.len(), 2, "the safety snapshot is missing");

    // What was there before the restore comes back as well.
    let rows = |real: &Deployment| real.seed("postgres", &["checksum"])["POSTGRES_ROWS"].clone();
    for (snapshot, expected) in [(&snapshots[1], &emptied), (&id, &before)] {
        run(&["restore", snapshot, "--yes", "--no-safety-snapshot", "--component", "task-manager-db"]);
        assert_eq!(rows(&real), expected.databases["POSTGRES_ROWS"]);
    }

    let reports = reports(&sandbox);
    let first = |operation: &str| reports.iter().find(|report| report["operation"] == operation).expect("a report");
    let create = first("create");
    for service in ["database", "infrahub-server"] {
        step(create, "stop", service);
        step(create, "start", service);
    }
    let command = |component: &str| step(create, "dump", component)["command"].as_str().expect("a command").to_owned();
    assert!(command("database").contains("neo4j-admin database dump neo4j"));
    assert!(command("task-manager-db").contains("pg_dump"));
    let nodes = &step(create, "inspect", "database")["numbers"]["nodes"];
    assert_eq!(nodes.to_string(), before.databases["NEO4J_NODES"]);
    let rows: u64 = number_of_rows(step(create, "inspect", "task-manager-db"));
    assert_eq!(rows.to_string(), before.databases["POSTGRES_ROWS"]);
    for component in ["database", "task-manager-db"] {
        let numbers = &step(first("restore"), "load", component)["numbers"];
        assert!(numbers["bytes"].as_u64().expect("a number") > 10_000, "{numbers}");
    }

    run(&["verify", "--depth", "data"]);
    run(&["snapshots", "show", "latest", "--json"]);
    run(&["environment", "detect"]);
    let reports: Vec<String> = reports.iter().map(Value::to_string).collect();
    secrets::assert_nowhere("what it said", said.join("\n").as_bytes());
    secrets::assert_nowhere("the reports", reports.join("\n").as_bytes());
    for folder in ["repository", "state", "cache"] {
        secrets::assert_not_below(&sandbox.path(folder));
    }
    sandbox.assert_clean();
}

#[test]
fn a_deployment_id_is_reset_by_bolt_before_the_application_starts() {
    let Some(real) = Deployment::take("a new deployment id by bolt") else { return };
    let sandbox = real.sandbox();
    let counts = || {
        let sums = real.seed("neo4j", &["checksum"]);
        (sums["NEO4J_NODES"].clone(), sums["NEO4J_RELATIONSHIPS"].clone())
    };
    let before = counts();
    real.cypher("MATCH (root:Root) SET root.uuid = 'old-id'");
    sandbox.run(["create", "--init", "--component", "database"]).ok();
    let id = sandbox.snapshots().remove(0);
    real.cypher("MATCH (root:Root) SET root.uuid = 'another'");
    let restore = ["restore", &id, "--yes", "--no-safety-snapshot", "--reset-deployment-id", "--json"];
    let restored = sandbox.run(restore).ok().json();
    assert_eq!(restored["deployment_id"]["old"], "old-id");
    let new = restored["deployment_id"]["new"].as_str().expect("an id");
    assert_eq!(real.cypher("MATCH (root:Root) RETURN root.uuid"), format!("\"{new}\""));
    let report = reports(&sandbox).pop().expect("a report");
    let time = |action: &str, target: &str, name: &str| {
        step(&report, action, target)[name].as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time")
    };
    let (begin, end) = ("start", "end");
    assert!(time("start", "database", end) <= time("reset-deployment-id", "database", begin));
    assert!(time("reset-deployment-id", "database", end) <= time("start", "infrahub-server", begin));
    real.assert_running();
    assert_eq!(counts(), before);

    // Without an address there is nothing to ask: told before anything is touched.
    let config = std::fs::read_to_string(sandbox.path("infrahub-backup.toml")).expect("a configuration");
    let (head, rest) = config.split_once("[component.neo4j]").expect("the section");
    let (_, rest) = rest.split_once("\n\n").expect("the next component");
    let head = head.replace("kind = \"neo4j\"\n", "kind = \"neo4j\"\nedition = \"community\"\n");
    sandbox.write("infrahub-backup.toml", format!("{head}\n{rest}"));
    let refused = sandbox.run(restore).with_code(2);
    refused.says(&["no bolt address of component `database` is known", "nothing was touched", "[component.neo4j]"]);
    real.assert_running();
    assert_eq!(real.cypher("MATCH (root:Root) RETURN root.uuid"), format!("\"{new}\""));
}

/// Rows of all tables, as an inspection counted them.
fn number_of_rows(step: &Value) -> u64 {
    let numbers = step["numbers"].as_object().expect("numbers");
    let tables = numbers.iter().filter(|(name, _)| name.starts_with("public."));
    tables.map(|(_, rows)| rows.as_u64().expect("a number")).sum()
}

#[test]
fn a_restored_postgresql_stream_is_the_dump_byte_for_byte() {
    let Some(real) = Deployment::take("the bytes of a real PostgreSQL dump") else { return };
    let sandbox = real.sandbox();
    sandbox.run(["create", "--init", "--component", "task-manager-db"]).ok();
    let captured = fs::read(real.captured("task-manager-db")).expect("the dump was captured");
    let id = sandbox.snapshots().remove(0);
    let dumped = sandbox.run(["dump", &id, "task-manager-db"]).ok().out;
    assert!(captured.starts_with(b"PGDMP") && captured.len() > 1_000_000, "{} bytes", captured.len());
    assert!(dumped == captured, "{} bytes came back of {}", dumped.len(), captured.len());
}

#[test]
fn a_restored_neo4j_dump_loads_into_a_second_server_with_identical_files() {
    let Some(real) = Deployment::take("that a second Neo4j loads the dump") else { return };
    let sandbox = real.sandbox();
    let before = real.seed("neo4j", &["checksum"]);
    sandbox.run(["create", "--init", "--component", "database"]).ok();
    let id = sandbox.snapshots().remove(0);
    let dumped = sandbox.write("database.dump", sandbox.run(["dump", &id, "database"]).ok().out);
    let captured = real.captured("database");

    let second = real.bring_up("neo4j", "second");
    assert!(real.neo4j("stop", "second"));
    let home = PathBuf::from(&second["NEO4J_HOME"]);
    load(&home, &captured);
    let original = store_files(&home);
    fs::remove_dir_all(home.join("data/databases/neo4j")).expect("the loaded store");
    load(&home, &dumped);
    let restored = store_files(&home);
    assert!(original.len() > 20, "{original:?}");
    assert_eq!(original, restored);

    real.bring_up("neo4j", "second");
    let after = real.seed_in("neo4j", "second", &["checksum"]);
    assert!(real.neo4j("stop", "second"));
    assert_eq!(before, after);
}

/// Loads a dump into the home of a server that is stopped.
fn load(home: &Path, dump: &Path) {
    let mut admin = Command::new(home.join("bin/neo4j-admin"));
    admin.args(["database", "load", "neo4j", "--from-stdin", "--overwrite-destination=true"]);
    let loaded = admin.stdin(fs::File::open(dump).expect("a dump")).stdout(Stdio::null()).output();
    let loaded = loaded.expect("neo4j-admin starts");
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
}

/// Hashes of the files of a store and its transaction logs.
fn store_files(home: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for folder in ["data/databases/neo4j", "data/transactions/neo4j"] {
        for name in support::files_below(&home.join(folder)).into_keys() {
            let bytes = fs::read(home.join(folder).join(&name)).expect("a file of the store");
            files.insert(format!("{folder}/{name}"), blake3::hash(&bytes).to_hex().to_string());
        }
    }
    files
}

#[test]
fn a_second_create_of_an_unchanged_deployment_adds_almost_nothing() {
    let Some(real) = Deployment::take("what an unchanged real deployment adds") else { return };
    let sandbox = real.sandbox();
    let empty = BTreeMap::new();
    first_snapshot(&sandbox);
    let after_first = sandbox.objects();
    sandbox.run(["create"]).ok();
    let after_second = sandbox.objects();
    let bytes = |objects: &BTreeMap<String, u64>| objects.values().sum::<u64>();
    let first = bytes(&added(&empty, &after_first));
    let second = added(&after_first, &after_second);
    eprintln!("the first create stored {first} bytes, the second {}: {second:?}", bytes(&second));
    assert!(bytes(&second) <= first / 1000 + (64 << 10), "{} bytes after {first}: {second:?}", bytes(&second));

    let copied = newest_report(&sandbox, "create");
    let numbers = &step(&copied, "copy", "artifacts")["numbers"];
    assert!(numbers["files"].as_u64().expect("a number") > 200);
    assert_eq!(numbers["files"], numbers["files_unchanged"], "artifact files were read again");
    sandbox.assert_clean();
}

#[test]
fn a_create_killed_during_the_dump_of_neo4j_is_put_right_by_resume() {
    let Some(real) = Deployment::take("a kill during a real dump") else { return };
    let sandbox = real.sandbox();
    let before = real.content();
    let id = first_snapshot(&sandbox);
    // The first bytes have come when the binary dies.
    let kill = r#""$@" | { head -c 10000; kill -9 $PPID; cat >/dev/null; }; exit"#;
    real.hook("database", kill);
    assert_eq!(sandbox.run(["create"]).code, None);
    assert!(!real.neo4j("probe", "neo4j") && !real.application("probe"), "both were stopped when it was killed");
    assert_eq!(sandbox.last_phase().as_deref(), Some("dump"));
    assert_eq!(sandbox.snapshots(), [id]);
    // The orphaned dump has the store locked until it ends.
    wait_until("the orphaned dump ended", || !is_dumping(&real));
    sandbox.run(["resume"]).ok();
    real.assert_running();
    before.assert_same(&real.content());
    real.unhook("database");
    sandbox.run(["create"]).ok();
    assert_eq!(sandbox.snapshots().len(), 2);
    sandbox.assert_clean();
}

/// Whether a dump of the first Neo4j is under way.
fn is_dumping(real: &Deployment) -> bool {
    let home = real.path("neo4j").display().to_string();
    let processes = fs::read_dir("/proc").expect("Linux");
    processes.flatten().any(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains(&home) && line.contains("database") && line.contains("--to-stdout")
    })
}

#[test]
fn sigterm_during_the_dump_of_neo4j_ends_with_130_and_all_services_running() {
    let Some(real) = Deployment::take("SIGTERM during a real dump") else { return };
    let sandbox = real.sandbox();
    let id = first_snapshot(&sandbox);
    let marker = real.path("half");
    let _ = fs::remove_file(&marker);
    let half = format!(r#""$@" | {{ head -c 10000; touch {}; sleep 600; }}; exit"#, marker.display());
    real.hook("database", &half);
    let running = sandbox.start("create", ["create"]);
    wait_until("half of the dump came", || marker.exists());
    running.signal(Signal::TERM);
    running.wait().with_code(130);
    real.assert_running();
    assert!(sandbox.journals().is_empty());
    assert_eq!(sandbox.snapshots(), [id]);
    sandbox.assert_clean();
}

#[test]
fn services_run_again_before_postgresql_was_read_and_what_they_write_then_is_not_in_the_snapshot() {
    let Some(real) = Deployment::take("that services do not wait for the dump of PostgreSQL") else { return };
    let sandbox = real.sandbox();
    sandbox.run(["init", "--no-password"]).ok();
    let before = real.content();
    let (running, written) = (real.path("running"), real.path("written"));
    // Its first bytes come, and the rest only when the application was started and rows were changed.
    let hook = format!(
        r#"wait_for() {{ n=0; until "$@"; do n=$((n + 1)); [ $n -lt 600 ] || kill -9 $$; sleep 0.2; done; }}
        "$@" | {{ head -c 20000; wait_for $here/application probe; touch {}; wait_for test -e {}; cat; }}
        exit"#,
        running.display(),
        written.display()
    );
    real.hook("task-manager-db", &hook);
    let create = sandbox.start("create", ["create"]);
    wait_until("the application runs while the dump is open", || running.exists());
    real.seed("postgres", &["mutate", "1"]);
    fs::write(&written, "").expect("a marker");
    create.wait().ok();
    real.unhook("task-manager-db");
    // What was counted before the dump and is not so any more may not be what the dump holds: it is no evidence.
    let shown = sandbox.run(["snapshots", "show", "latest"]).ok().text();
    assert!(shown.contains("count      public.flow ") && shown.contains("count      nodes "), "{shown}");
    assert!(!shown.contains("public.log "), "{shown}");
    let after = real.seed("postgres", &["checksum"]);
    assert!(after.iter().any(|(name, value)| before.databases[name] != *value), "nothing was changed");
    sandbox.run(["restore", "latest", "--yes", "--component", "task-manager-db", "--no-safety-snapshot"]).ok();
    before.assert_same(&real.content());
    let create = newest_report(&sandbox, "create");
    let ended = |action: &str, target: &str| step(&create, action, target)["end"].to_string();
    assert!(ended("start", "infrahub-server") < ended("dump", "task-manager-db"), "{create:#}");
    sandbox.assert_clean();
}

#[test]
fn a_pg_dump_that_does_not_begin_costs_its_own_component_only_where_that_is_allowed() {
    let Some(real) = Deployment::take("a pg_dump that does not begin") else { return };
    let sandbox = real.sandbox();
    sandbox.run(["init", "--no-password"]).ok();
    let path = sandbox.path("infrahub-backup.toml");
    let config = fs::read_to_string(&path).expect("a configuration");
    let broken = config.replacen(
        &format!("{}\", \"task-manager-db\"", real.path("dump").display()),
        "/none/pg_dump\", \"x\"",
        1,
    );
    assert_ne!(broken, config);
    fs::write(&path, broken).expect("written");
    sandbox.run(["create"]).with_code(1).says(&["task-manager-db", "/none/pg_dump"]);
    real.assert_running();
    assert_eq!(sandbox.snapshots(), Vec::<String>::new());
    sandbox.run(["create", "--allow-partial"]).with_code(3).says(&["`task-manager-db` failed", "/none/pg_dump"]);
    real.assert_running();
    assert_eq!(sandbox.snapshots().len(), 1);
    sandbox.assert_clean();
}

/// The real `pg_dump`, with this hook around it.
#[track_caller]
fn assert_refused(hook: &str, says: &[&str]) {
    let Some(real) = Deployment::take("a real pg_dump that ends badly") else { return };
    let sandbox = real.sandbox();
    let only = ["create", "--init", "--component", "task-manager-db"];
    sandbox.run(only).ok();
    let snapshots = sandbox.snapshots();
    real.hook("task-manager-db", hook);
    sandbox.run(only).with_code(1).says(&["task-manager-db"]).says(says);
    real.assert_running();
    assert_eq!(sandbox.snapshots(), snapshots);
    sandbox.assert_clean();
}

#[test]
fn a_pg_dump_that_exits_nonzero_after_its_last_byte_leaves_no_snapshot() {
    assert_refused(r#""$@"; exit 3"#, &["3"]);
}

#[test]
fn a_pg_dump_that_is_killed_half_way_leaves_no_snapshot() {
    assert_refused(r#""$@" | head -c 500000; kill -9 $$"#, &["signal 9"]);
}

#[test]
fn a_pg_dump_that_was_truncated_by_a_pipe_leaves_no_snapshot() {
    assert_refused(r#"set +o pipefail; "$@" | head -c 500000; exit 0"#, &["not whole"]);
}

#[test]
fn a_database_that_cannot_be_reached_is_refused_before_anything_is_stopped() {
    let Some(real) = Deployment::take("a database that cannot be reached") else { return };
    let sandbox = real.sandbox();
    sandbox.write("neo4j-password", "not the password");
    let refused = sandbox.run(["create", "--init"]);
    assert_ne!(refused.code, Some(0));
    assert!(!refused.err.contains("stopping"), "{}", refused.err);
    refused.says(&["database"]);
    real.assert_running();
    assert!(sandbox.journals().is_empty());
}
