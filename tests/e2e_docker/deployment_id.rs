//! `restore --reset-deployment-id` on a real engine.

use rustix::process::Signal;
use serde_json::Value;

use crate::project::{NEO4J_PASSWORD, Project};
use crate::support::{Sandbox, wait_until};
use crate::{reports, steps};

const ROOT: &str = "MATCH (root:Root) RETURN root.uuid";

/// A snapshot of a graph whose deployment has the id `old-id`.
fn with_root(real: &Project) -> (Sandbox, String) {
    let sandbox = real.sandbox();
    real.cypher("CREATE (:Root {uuid: 'old-id', updated_at: '2026-01-01T00:00:00Z'})");
    sandbox.run(["create", "--init"]).ok();
    let id = sandbox.snapshots().remove(0);
    (sandbox, id)
}

fn time(step: &Value, name: &str) -> jiff::Timestamp {
    step[name].as_str().expect("a time").parse().expect("a time")
}

#[test]
fn a_new_id_is_there_before_what_reads_it_starts() {
    let Some(real) = Project::take("a new deployment id on Docker") else { return };
    let (sandbox, id) = with_root(&real);
    let running = real.running();
    let planned = sandbox.run(["restore", &id, "--reset-deployment-id", "--dry-run"]).ok().text();
    assert!(planned.contains("give the deployment a new id: `uuid` of the node labelled `Root`"), "{planned}");
    assert_eq!((real.running(), real.cypher(ROOT)), (running, "\"old-id\"".to_owned()));

    let restored =
        sandbox.run(["restore", &id, "--yes", "--no-safety-snapshot", "--reset-deployment-id", "--json"]).ok();
    let (mut said, restored) = (restored.err.clone(), restored.json());
    let new = restored["deployment_id"]["new"].as_str().expect("an id").to_owned();
    assert_eq!(restored["deployment_id"]["old"], "old-id");
    assert_eq!((new.len(), &new[14..15]), (36, "4"), "{new}");
    assert_eq!(real.cypher(ROOT), format!("\"{new}\""));
    let updated = real.cypher("MATCH (root:Root) RETURN datetime(root.updated_at) > datetime('2026-01-01T00:00:00Z')");
    assert_eq!(updated, "true");
    real.assert_running();

    let report = reports(&sandbox).pop().expect("a report");
    let reset = steps(&report, "reset-deployment-id").next().expect("the step");
    assert_eq!(reset["outcome"], "done");
    let note = reset["note"].as_str().expect("a note");
    assert!(note.contains("old-id") && note.contains(&new), "{note}");
    for step in steps(&report, "start") {
        let (first, start) = (step["target"] == "database", time(step, "start"));
        assert_eq!(start < time(reset, "start"), first, "{step:#}");
        assert!(first || start >= time(reset, "end"), "{step:#}");
    }
    said += &report.to_string();
    assert!(!said.contains(NEO4J_PASSWORD), "the password was told");

    // Another one each time, and of everything else what the snapshot holds.
    sandbox
        .run(["restore", &id, "--yes", "--no-safety-snapshot", "--reset-deployment-id", "--component", "database"])
        .ok();
    assert_ne!(real.cypher(ROOT), format!("\"{new}\""));
    assert_eq!(real.cypher("MATCH (n:Item) RETURN count(n)"), "3000");
}

#[test]
fn what_cannot_be_reset_is_refused_before_anything_is_touched() {
    let Some(real) = Project::take("a deployment id that cannot be reset") else { return };
    let (sandbox, id) = with_root(&real);
    let reset = ["restore", &id, "--yes", "--no-safety-snapshot", "--reset-deployment-id"];
    let running = real.running();
    for other in [["--component", "task-manager-db"], ["--exclude", "database"]] {
        sandbox.run([&reset[..], &other].concat()).with_code(2).says(&["--reset-deployment-id", "no graph database"]);
    }
    sandbox.run([&reset[..], &["--to-files", "out"]].concat()).with_code(2).says(&["files are written"]);
    assert_eq!(real.running(), running);
    real.docker(&["stop", &real.container("infrahub-server"), &real.container("database")]);
    let running = real.running();
    sandbox.run(reset).with_code(1).says(&["`database` does not run", "nothing was touched", "docker compose up -d"]);
    assert_eq!(real.running(), running);
    assert!(sandbox.journals().is_empty());
}

#[test]
fn a_graph_without_a_root_is_restored_and_runs_and_the_error_says_how_to_go_on() {
    let Some(real) = Project::take("a graph without a deployment id") else { return };
    let sandbox = real.sandbox();
    let before = real.content();
    sandbox.run(["create", "--init"]).ok();
    let id = sandbox.snapshots().remove(0);
    let restored = sandbox.run(["restore", &id, "--yes", "--no-safety-snapshot", "--reset-deployment-id"]);
    restored.with_code(3).says(&["was not reset", "0 nodes labelled `Root`", "SET root.uuid = randomUUID()"]);
    real.assert_running();
    assert!(sandbox.journals().is_empty());
    assert_eq!(real.content(), before);
    let report = reports(&sandbox).pop().expect("a report");
    assert_eq!(steps(&report, "reset-deployment-id").next().expect("the step")["outcome"], "failed");
}

#[test]
fn a_restore_killed_before_the_reset_is_told_by_resume() {
    let Some(real) = Project::take("a kill before a deployment id is reset") else { return };
    let (sandbox, id) = with_root(&real);
    let running = sandbox.start(
        "restore",
        ["restore", &id, "--yes", "--no-safety-snapshot", "--reset-deployment-id", "--component", "database"],
    );
    let starting = || {
        let journals = sandbox.journals().concat();
        journals.iter().any(|line| line["entry"] == "starting" && line["service"] == "database")
    };
    wait_until("the database starts", starting);
    running.signal(Signal::KILL);
    running.wait();
    sandbox.run(["resume"]).ok().says(&["the deployment id was not reset", "SET root.uuid = randomUUID()"]);
    real.assert_running();
    assert_eq!(real.cypher(ROOT), "\"old-id\"");
    assert!(sandbox.journals().is_empty());
}
