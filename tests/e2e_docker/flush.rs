//! Flushing the task manager: the real engine, and a stand-in for Prefect that keeps its runs in a file.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::project::Project;
use crate::support::{Ran, Sandbox};

fn run(id: u32, name: &str, state: &str, days_old: Option<i64>) -> Value {
    let start = days_old.map(|days| (Timestamp::now() - SignedDuration::from_hours(24 * days)).to_string());
    json!({ "id": format!("{id}"), "name": name, "state_type": state, "start_time": start })
}

fn tell(real: &Project, runs: &[Value]) {
    real.sh("task-manager", &format!("echo '{}' >/run/tasks.json", json!(runs)));
}

/// Ids and states of the runs that are there.
fn left(real: &Project) -> Vec<(String, String)> {
    let runs: Vec<Value> = serde_json::from_str(&real.sh("task-manager", "cat /run/tasks.json")).expect("an array");
    let text = |run: &Value, key: &str| run[key].as_str().expect("a text").to_owned();
    runs.iter().map(|run| (text(run, "id"), text(run, "state_type"))).collect()
}

fn ids(left: &[(String, String)]) -> Vec<&str> {
    left.iter().map(|(id, _)| id.as_str()).collect()
}

fn called(sandbox: &Sandbox, program: &Path, arguments: &[&str]) -> Ran {
    // The flags of the sandbox stand before: behind `--` they would be none.
    let mut command = sandbox.command_of(Command::new(program), Vec::<&str>::new());
    command.args(arguments);
    Ran::of(command)
}

#[test]
fn old_runs_are_deleted_and_one_that_stays_is_told() {
    let Some(real) = Project::take("flushing flow runs") else { return };
    let sandbox = real.sandbox();
    let before = real.running();
    let mut runs = vec![
        run(0, "Merge", "COMPLETED", Some(31)),
        run(1, "Stuck", "FAILED", Some(90)),
        run(2, "Sync", "CANCELLED", Some(40)),
        run(3, "Import", "FAILED", Some(31)),
        run(4, "Sync", "COMPLETED", Some(10)),
        run(5, "Sync", "CRASHED", Some(90)),
        run(6, "Sync", "RUNNING", Some(90)),
        run(7, "Never", "CANCELLED", None),
        run(8, "Sync", "SCHEDULED", Some(90)),
    ];
    tell(&real, &runs);
    let would = sandbox.run(["taskmanager", "flush", "flow-runs", "--dry-run", "--json"]).ok().json();
    assert_eq!((&would["found"], &would["flushed"], &would["dry_run"]), (&json!(4), &json!(0), &json!(true)));
    assert_eq!(left(&real).len(), runs.len());

    let said = sandbox.run(["taskmanager", "flush", "flow-runs", "--json"]).with_code(3);
    said.says(&["flow run `Stuck` (1) stays: the task manager answers 500"]);
    assert_eq!(ids(&left(&real)), ["1", "4", "5", "6", "7", "8"]);

    runs.remove(1);
    tell(&real, &runs);
    let flushed = sandbox.run(["taskmanager", "flush", "flow-runs", "5", "1", "--json"]).ok().json();
    assert_eq!(ids(&left(&real)), ["5", "6", "7", "8"]);
    assert_eq!((&flushed["found"], &flushed["flushed"], &flushed["failed"]), (&json!(4), &json!(4), &json!(0)));
    assert_eq!((&flushed["action"], &flushed["deployment"]), (&json!("delete"), &json!(real.name())));
    assert_eq!(real.running(), before, "something was stopped");
}

#[test]
fn stale_runs_crash_also_by_the_name_of_the_predecessors_second_program() {
    let Some(real) = Project::take("flushing stale runs") else { return };
    let sandbox = real.sandbox();
    let runs = [
        run(0, "Old", "RUNNING", Some(3)),
        run(1, "Young", "RUNNING", Some(1)),
        run(2, "Ended", "COMPLETED", Some(90)),
        run(3, "Waiting", "PENDING", Some(90)),
    ];
    tell(&real, &runs);
    let program = sandbox.path("infrahub-taskmanager");
    symlink(env!("CARGO_BIN_EXE_infrahub-backup"), &program).expect("a link");
    let states = |real: &Project| left(real).into_iter().map(|(_, state)| state).collect::<Vec<_>>();
    let would = called(&sandbox, &program, &["flush", "stale-runs", "--dry-run"]).ok().text();
    assert!(would.starts_with("1 flow runs that started before "), "{would}");
    assert_eq!(states(&real), ["RUNNING", "RUNNING", "COMPLETED", "PENDING"]);
    called(&sandbox, &program, &["flush", "stale-runs"]).ok();
    assert_eq!(states(&real), ["CRASHED", "RUNNING", "COMPLETED", "PENDING"]);
    // Less than none is the default, as it was; none is what started before now.
    called(&sandbox, &program, &["flush", "stale-runs", "--", "-5"]).ok().says(&["-5 days"]);
    assert_eq!(states(&real), ["CRASHED", "RUNNING", "COMPLETED", "PENDING"]);
    sandbox.run(["taskmanager", "flush", "stale-runs", "0"]).ok();
    assert_eq!(states(&real), ["CRASHED", "CRASHED", "COMPLETED", "PENDING"]);

    let listed = called(&sandbox, &program, &["environment", "list"]).ok().text();
    assert!(listed.contains(&format!("  {}\n", real.name())), "{listed}");
    called(&sandbox, &program, &["create"]).with_code(2);
}

#[test]
fn a_task_manager_that_cannot_be_asked_is_an_error_that_says_what_to_do() {
    let Some(real) = Project::take("flushing where the task manager does not answer") else { return };
    let sandbox = real.sandbox();
    let flush = ["taskmanager", "flush", "flow-runs"];
    real.sh("task-manager", "echo rubbish >/run/tasks.json");
    sandbox.run(flush).with_code(1).says(&["`task-manager` did not", "HTTP Error 500", "docker compose logs"]);
    real.docker(&["stop", "-t", "1", &real.container("task-manager")]);
    let refused = sandbox.run(flush).with_code(1);
    real.docker(&["start", &real.container("task-manager")]);
    refused.says(&["no container of service `task-manager`", "docker compose up -d task-manager"]);
}
