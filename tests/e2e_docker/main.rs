//! The binary against Compose projects on a real Docker engine.
//!
//! `INFRAHUB_TEST_PARTS` names the folder of scripts that bring them up (`tests/parts`); without it each test prints what it
//! did not test.

mod bucket;
mod census;
mod cut;
mod deployment_id;
mod edition;
mod enterprise;
mod flush;
mod mishaps;
mod project;
mod redact;
#[path = "../e2e_s3/server.rs"]
#[expect(dead_code, reason = "stores of repositories and other kinds of servers are tested in `e2e_s3`")]
mod s3_server;
mod speed;
#[path = "../support/mod.rs"]
mod support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use project::{NEO4J_PASSWORD, POSTGRES_PASSWORD, Project};
use rustix::process::Signal;
use serde_json::Value;
use support::{Sandbox, found, wait_until};

/// What must be told within five seconds.
const SOON: Duration = Duration::from_secs(5);

/// All reports, oldest first.
fn reports(sandbox: &Sandbox) -> Vec<Value> {
    let listed = sandbox.run(["report", "list", "--json"]).ok().json();
    let rows = found(&listed, "reports").or_else(|| listed.as_array()).expect("a list of reports");
    let show = |row: &Value| sandbox.run(["report", "show", row["id"].as_str().expect("an id"), "--json"]).ok().json();
    rows.iter().map(show).collect()
}

/// The steps of a report that did `action`, by target.
fn steps<'a>(report: &'a Value, action: &'a str) -> impl Iterator<Item = &'a Value> {
    let steps = found(report, "steps").expect("a report has steps");
    steps.iter().filter(move |step| step["action"] == action)
}

fn targets(report: &Value, action: &str) -> Vec<String> {
    let mut names: Vec<String> =
        steps(report, action).map(|step| step["target"].as_str().expect("a text").to_owned()).collect();
    names.sort();
    names
}

#[test]
fn everything_comes_back() {
    let Some(real) = Project::take("that everything comes back on Docker") else { return };
    let sandbox = real.sandbox();
    let before = real.content();
    let mut said = sandbox.run(["create", "--init", "-v", "-v"]).ok().err;
    real.assert_running();
    let policy =
        real.docker(&["inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", &real.container("database")]);
    assert_eq!(policy, "no", "the database came back although nothing but the backup starts it");
    let id = sandbox.snapshots().remove(0);

    real.spoil();
    let spoilt = real.content();
    assert!(before.iter().zip(&spoilt).all(|(before, spoilt)| before != spoilt), "{spoilt:?}");
    // Half of the rows are gone.
    sandbox.run(["create", "--allow-shrink"]).ok();
    said += &sandbox.run(["restore", &id, "--yes", "-v", "-v"]).ok().err;
    real.assert_running();
    assert_eq!(real.content(), before);
    assert_eq!(sandbox.snapshots().len(), 3, "the safety snapshot is missing");
    assert_eq!(real.sh("cache", "ls -A /data"), "", "the cache was not emptied");
    assert_eq!(real.sh("message-queue", "ls -A /var/lib/rabbitmq"), "", "the queue was not emptied");

    let reports = reports(&sandbox);
    let create = &reports[0];
    let stopped = ["database", "infrahub-server", "task-manager", "task-manager-background-svc", "task-worker"];
    assert_eq!(targets(create, "stop"), stopped);
    assert_eq!(targets(create, "start"), stopped);
    for step in steps(create, "start") {
        assert!(step["numbers"]["down_ms"].as_u64().expect("a number") > 0, "{step:#}");
    }
    said += &reports.iter().map(Value::to_string).collect::<String>();
    for password in [NEO4J_PASSWORD, POSTGRES_PASSWORD] {
        assert!(!said.contains(password), "a password was told");
    }
    sandbox.assert_clean();
}

#[test]
fn a_create_killed_during_the_dump_is_put_right_by_resume() {
    let Some(real) = Project::take("a kill during a dump on Docker") else { return };
    let sandbox = real.sandbox();
    let before = real.content();
    sandbox.run(["init", "--no-password"]).ok();
    let running = sandbox.start("create", ["create"]);
    real.wait_for_ours();
    running.signal(Signal::KILL);
    assert_eq!(running.wait().code, None);
    assert!(!real.runs("database") && !real.runs("infrahub-server"), "they were stopped when it was killed");
    assert_eq!(sandbox.journals().len(), 1);
    // What the killed run left holds the database's lock, whether it still runs or not.
    assert_ne!(real.ours(), "");
    sandbox.run(["resume"]).ok();
    real.assert_running();
    assert!(sandbox.snapshots().is_empty());
    assert_eq!(real.content(), before);
    sandbox.run(["create"]).ok();
    sandbox.assert_clean();
}

#[test]
fn sigterm_during_the_dump_ends_with_130_and_everything_running() {
    let Some(real) = Project::take("SIGTERM during a dump on Docker") else { return };
    let sandbox = real.sandbox();
    sandbox.run(["init", "--no-password"]).ok();
    let running = sandbox.start("create", ["create"]);
    real.wait_for_ours();
    running.signal(Signal::TERM);
    running.wait().with_code(130);
    real.assert_running();
    assert!(sandbox.journals().is_empty() && sandbox.snapshots().is_empty());
}

#[test]
fn a_dump_whose_container_vanishes_leaves_no_snapshot_and_everything_running() {
    let Some(real) = Project::take("a container that vanishes during a dump") else { return };
    let sandbox = real.sandbox();
    sandbox.run(["init", "--no-password"]).ok();
    let running = sandbox.start("create", ["create"]);
    let dumping = real.wait_for_ours();
    real.docker(&["rm", "-f", &dumping]);
    running.wait().with_code(1).says(&["database"]);
    real.assert_running();
    assert!(sandbox.journals().is_empty() && sandbox.snapshots().is_empty());
}

#[test]
fn a_restore_killed_during_the_load_is_accepted_by_resume_and_done_again() {
    let Some(real) = Project::take("a kill during a load on Docker") else { return };
    let sandbox = real.sandbox();
    let before = real.content();
    sandbox.run(["create", "--init"]).ok();
    let id = sandbox.snapshots().remove(0);
    let restore = ["restore", &id, "--yes", "--no-safety-snapshot", "--component", "database"];
    let running = sandbox.start("restore", restore);
    // The first ones empty the cache and the queue; this one loads.
    wait_until("the load began", || real.commands_of_ours().contains("database load"));
    running.signal(Signal::KILL);
    running.wait();
    sandbox.run(["create"]).with_code(3).says(&["neither the old nor the new"]);
    sandbox.run(["resume"]).ok();
    sandbox.run(restore).ok();
    real.assert_running();
    assert_eq!(real.content(), before);
}

#[test]
fn of_two_projects_the_right_one_is_touched() {
    let Some(real) = Project::take("two Compose projects side by side") else { return };
    // A policy that would start the database again while it is dumped.
    let second = Project::up("two", "always", "community").expect("the first is up");
    let sandbox = real.sandbox_without_name();
    let listed = sandbox.run(["environment", "list"]).ok().text();
    assert!(listed.contains(&format!("  {}\n", real.name())) && listed.contains(&format!("  {}\n", second.name())));
    sandbox.run(["create", "--init"]).with_code(1).says(&["more than one", real.name(), second.name(), "--project"]);
    let (untouched, touched) = (real.running(), second.running());
    sandbox.run(["create", "--init", "--project", second.name()]).ok();
    assert_eq!(real.running(), untouched);
    assert_ne!(second.running(), touched);
    second.assert_running();
    let shown = sandbox.run(["snapshots", "show", "latest", "--json"]).ok().json();
    assert_eq!(shown["deployment"], second.name());
    second.down();
}

#[test]
fn a_project_that_does_not_exist_is_an_error_that_lists_those_that_do() {
    let Some(real) = Project::take("a project that does not exist") else { return };
    let sandbox = real.sandbox();
    let before = real.running();
    // The beginning of a name is no name.
    let half = &real.name()[..real.name().len() - 1];
    let refused = sandbox.run(["create", "--init", "--project", half]).with_code(1);
    refused.says(&[&format!("no Compose project `{half}`"), real.name(), "environment list"]);
    assert_eq!(real.running(), before);
}

#[test]
fn an_engine_that_does_not_answer_is_told_within_five_seconds() {
    let mut sandbox = Sandbox::new();
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = format!("tcp://{}", silent.local_addr().expect("an address"));
    for host in [host.as_str(), "unix:///no/such.sock", "tcp://127.0.0.1:1"] {
        sandbox.set("DOCKER_HOST", host);
        let since = Instant::now();
        let refused = sandbox.run(["environment", "detect"]).with_code(1);
        assert!(since.elapsed() < SOON, "{host}: {:?}", since.elapsed());
        refused.says(&[host, "does not answer", "DOCKER_HOST="]);
    }
}
