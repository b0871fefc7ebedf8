//! Backups of Neo4j Enterprise: made while everything runs, and restored through the server.
//!
//! That edition is not to be had here. Its place is taken by a server of Community that passes for it, and by scripts for what
//! Community lacks (`tests/parts/docker/stand-in`): they take the arguments that Neo4j's manual tells, and refuse what it says is
//! refused. So these tests show what is run when, as whom, on what, and what is left behind; not what Enterprise does.

use rustix::process::Signal;

use crate::project::{NEO4J_PASSWORD, Project};
use crate::support::{Sandbox, Started, wait_until};
use crate::{reports, steps, targets};

impl Project {
    /// What stood-in commands of Enterprise were called, and as whom.
    fn calls(&self) -> Vec<String> {
        let log = self.sh("database", "cat /data/stand-in.log 2>/dev/null; rm -f /data/stand-in.log");
        log.lines().map(str::to_owned).collect()
    }

    /// Nothing of ours is in the container of the database: neither files nor processes.
    #[track_caller]
    fn assert_nothing_inside(&self) {
        assert_eq!(self.sh("database", "ls -d /tmp/infrahub-backup* 2>/dev/null || echo none"), "none");
        assert_eq!(self.sh("database", "pgrep -f '[i]nfrahub-backup' || echo none"), "none");
    }

    fn users(&self) -> String {
        self.cypher_in("system", "SHOW USERS YIELD user RETURN collect(user) AS users")
    }

    /// Makes the next `backup` or `restore` wait in its middle.
    fn hold(&self, what: &str) {
        self.sh("database", &format!("rm -f /data/waiting; touch /data/{what}-waits"));
    }

    fn wait_for_its_middle(&self) {
        wait_until("it is in the middle", || self.sh("database", "ls /data/waiting 2>/dev/null || echo no") != "no");
    }

    fn let_go(&self, what: &str) {
        self.sh("database", &format!("rm -f /data/{what}-waits /data/waiting"));
    }
}

/// Starts a command that waits in the middle of what the stand-in does.
fn in_the_middle(real: &Project, sandbox: &Sandbox, what: &str, words: &[&str]) -> Started {
    real.hold(what);
    let running = sandbox.start(words[0], words);
    real.wait_for_its_middle();
    running
}

#[test]
fn a_backup_stops_nothing_and_a_restore_brings_data_users_and_roles_back() {
    let Some(real) = Project::take_enterprise("backups of Enterprise, with a stand-in") else { return };
    let sandbox = real.sandbox();
    real.cypher_in("system", "CREATE USER alice IF NOT EXISTS SET PASSWORD 'something long'");
    let (before, running) = (real.content(), real.running());
    sandbox.run(["create", "--init", "--neo4jmetadata", "everything"]).with_code(2).says(&["all, none, users, roles"]);
    let planned = sandbox.run(["create", "--init", "--dry-run"]).ok().text();
    assert!(!planned.contains("stop ") && planned.contains("wait until no task runs"), "{planned}");

    let mut said = sandbox.run(["create", "--init", "--neo4jmetadata", "users", "-v", "-v"]).ok().err;
    assert_eq!(real.running(), running, "something was stopped");
    real.assert_nothing_inside();
    let calls = real.calls();
    let [call] = &calls[..] else { panic!("{calls:?}") };
    let backup =
        "7474 database backup --expand-commands --type=FULL --include-metadata=users --to-path=/tmp/infrahub-backup.";
    assert!(call.starts_with(backup) && call.ends_with(" neo4j"), "{call}");
    let report = reports(&sandbox).pop().expect("a report");
    assert_eq!((targets(&report, "stop"), targets(&report, "start")), (vec![], vec![]));
    let dump = steps(&report, "dump").find(|step| step["target"] == "database").expect("a dump");
    assert!(dump["command"].as_str().expect("a text").contains("--include-metadata=users"), "{dump:#}");
    let id = sandbox.snapshots().remove(0);
    let shown = sandbox.run(["snapshots", "show", &id]).ok().text();
    assert!(shown.contains("enterprise") && shown.contains("complete"), "{shown}");

    real.spoil();
    real.cypher_in("system", "DROP USER alice");
    let restored = sandbox.run(["restore", &id, "--yes", "--json", "-v", "-v"]).ok();
    said += &restored.err;
    assert_eq!(real.content(), before);
    assert!(real.users().contains("alice"), "{}", real.users());
    real.assert_running();
    real.assert_nothing_inside();
    assert_eq!(real.sh("database", "ls -A /data/scripts/neo4j"), "", "the script with its passwords is left");
    let database = |lines: &[String]| lines.iter().find(|line| line.contains("-database-")).cloned();
    assert_eq!(database(&real.running()), database(&running), "the server was stopped");
    assert_eq!(sandbox.snapshots().len(), 2, "the safety snapshot is missing");
    let calls = real.calls();
    let [safety, restore] = &calls[..] else { panic!("{calls:?}") };
    assert!(safety.contains("--include-metadata=all"), "{safety}");
    let begins =
        "7474 database restore --expand-commands --overwrite-destination=true --from-path=/tmp/infrahub-backup.";
    assert!(restore.starts_with(begins) && restore.ends_with(".backup neo4j"), "{restore}");
    what_was_run_when(&sandbox);

    said += &reports(&sandbox).iter().map(serde_json::Value::to_string).collect::<String>();
    assert!(!said.contains(NEO4J_PASSWORD) && !said.contains("from-the-stand-in"), "a password was told");
    without_users_and_into_the_block_format(&real, &sandbox);
    sandbox.assert_clean();
}

/// What the report of a restore tells.
fn what_was_run_when(sandbox: &Sandbox) {
    let report = reports(sandbox).pop().expect("a report");
    let stopped =
        ["cache", "infrahub-server", "message-queue", "task-manager", "task-manager-background-svc", "task-worker"];
    assert_eq!(targets(&report, "stop"), stopped);
    let time = |action: &str, target: &str, name: &str| {
        let mut found = steps(&report, action).filter(|step| step["target"] == target);
        let step = found.next().unwrap_or_else(|| panic!("no {action}: {report:#}"));
        step[name].as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time")
    };
    assert!(time("stop", "infrahub-server", "end") <= time("load", "database", "start"));
    assert!(time("start-database", "database", "end") <= time("start", "infrahub-server", "start"));
    let started = steps(&report, "start-database").next().expect("a start");
    let log = started["log"].to_string();
    assert!(log.contains("users and roles were brought back by /data/scripts/neo4j/restore_metadata.cypher"), "{log}");
    assert!(log.contains("database `neo4j` is online"), "{log}");
}

fn without_users_and_into_the_block_format(real: &Project, sandbox: &Sandbox) {
    let before = real.content();
    sandbox.run(["create", "--component", "database", "--neo4jmetadata", "none"]).ok();
    let id = sandbox.snapshots().pop().expect("a snapshot");
    real.cypher_in("system", "DROP USER alice");
    real.spoil();
    real.calls();
    let restore = ["restore", &id, "--yes", "--no-safety-snapshot", "--component", "database", "--migrate-format"];
    sandbox.run(restore).ok();
    assert_eq!(real.content()[..2], before[..2]);
    assert!(!real.users().contains("alice"), "the script of an earlier restore ran");
    let calls = real.calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert_eq!(calls[1], "7474 database migrate --expand-commands --to-format=block neo4j");
}

#[test]
fn a_backup_that_ends_in_its_middle_leaves_nothing_inside_and_no_snapshot() {
    let Some(real) = Project::take_enterprise("backups of Enterprise that end early, with a stand-in") else { return };
    let sandbox = real.sandbox();
    sandbox.run(["init", "--no-password"]).ok();
    let running = real.running();
    let create = ["create", "--component", "database"];

    real.sh("database", "touch /data/backup-fails");
    sandbox.run(create).with_code(1).says(&["neo4j-admin database backup", "the stand-in does not backup"]);
    real.sh("database", "rm /data/backup-fails");
    real.assert_nothing_inside();
    assert!(sandbox.journals().is_empty());

    let terminated = in_the_middle(&real, &sandbox, "backup", &create);
    terminated.signal(Signal::TERM);
    terminated.wait().with_code(130);
    real.assert_nothing_inside();
    assert!(sandbox.journals().is_empty());

    let killed = in_the_middle(&real, &sandbox, "backup", &create);
    killed.signal(Signal::KILL);
    assert_eq!(killed.wait().code, None);
    // It goes on, and its files are there.
    assert_ne!(real.sh("database", "pgrep -f '[e]nterprise.py backup' || echo none"), "none");
    assert_ne!(real.sh("database", "ls /tmp/infrahub-backup.*/temporary || echo none"), "none");
    assert_eq!(sandbox.journals().len(), 1);
    sandbox.run(["resume"]).ok().says(&["removed what a killed run left beside and in the services: 1"]);
    real.assert_nothing_inside();
    assert!(sandbox.journals().is_empty() && sandbox.snapshots().is_empty());

    // What is not resumed is removed by the next run.
    let killed = in_the_middle(&real, &sandbox, "backup", &create);
    killed.signal(Signal::KILL);
    killed.wait();
    real.let_go("backup");
    sandbox.run(create).ok();
    real.assert_nothing_inside();
    assert_eq!(real.running(), running, "something was stopped");
}

#[test]
fn a_restore_that_ends_in_its_middle_is_told_and_can_be_done_again() {
    let Some(real) = Project::take_enterprise("restores of Enterprise that end early, with a stand-in") else { return };
    let sandbox = real.sandbox();
    let before = real.content();
    sandbox.run(["create", "--init", "--component", "database"]).ok();
    let id = sandbox.snapshots().remove(0);
    let restore = ["restore", &id, "--yes", "--no-safety-snapshot", "--component", "database"];
    real.spoil();

    let killed = in_the_middle(&real, &sandbox, "restore", &restore);
    killed.signal(Signal::KILL);
    killed.wait();
    assert!(real.runs("database") && !real.runs("infrahub-server"));
    sandbox.run(["create"]).with_code(3).says(&["neither the old nor the new", "START DATABASE"]);
    real.let_go("restore");
    sandbox.run(["resume"]).ok().says(&["START DATABASE"]);
    assert_eq!(real.running().len(), 9);
    real.assert_nothing_inside();

    real.sh("database", "touch /data/restore-fails");
    let failed = sandbox.run(restore).with_code(1);
    failed.says(&["keeps its database `neo4j` stopped", "the stand-in does not restore"]);
    assert_eq!(real.running().len(), 9, "what ran before does not");
    real.assert_nothing_inside();
    real.sh("database", "rm /data/restore-fails");

    // With users that cannot be brought back, the data is, and runs.
    sandbox.run(["resume"]).ok();
    sandbox.run(restore).ok();
    assert_eq!(real.content()[..2], before[..2]);
    real.sh("database", "touch /data/script-breaks");
    sandbox.run(["create", "--component", "database"]).ok();
    let broken = sandbox.snapshots().pop().expect("a snapshot");
    let restore = ["restore", &broken, "--yes", "--no-safety-snapshot", "--component", "database", "--json"];
    let restored = sandbox.run(restore).with_code(3);
    let problem = restored.json()["components"][0]["problems"][0].as_str().expect("a problem").to_owned();
    assert!(problem.contains("users and roles were not brought back as a whole"), "{problem}");
    assert!(!(problem + &restored.err).contains("secret-of-the-script"), "a password was told");
    assert_eq!(real.content()[..2], before[..2]);
    real.assert_running();
    assert!(sandbox.journals().is_empty());
}

#[test]
fn a_backup_goes_into_no_community_and_into_no_cluster_and_neither_is_touched() {
    let Some(community) = Project::take("a backup of Enterprise into Community, with a stand-in") else { return };
    let real =
        Project::take_enterprise("a backup of Enterprise into Community, with a stand-in").expect("the first is up");
    let sandbox = real.sandbox();
    sandbox.run(["create", "--init", "--component", "database"]).ok();
    let id = sandbox.snapshots().remove(0);

    let (before, running) = (community.content(), community.running());
    let restore = ["restore", &id, "--yes", "--project", community.name()];
    let refused = sandbox.run(restore).with_code(1);
    refused.says(&[
        "does not fit the target",
        "a backup of Neo4j Enterprise, and the target is Community",
        "nothing was touched",
    ]);
    assert_eq!((community.content(), community.running()), (before, running));

    real.calls();
    real.sh("database", "echo 3 >/data/stand-in/servers");
    let (before, running) = (real.content(), real.running());
    let refused = sandbox.run(["restore", &id, "--yes"]).with_code(1);
    refused.says(&["restoring into a cluster of Neo4j (it has 3 servers) is not built yet"]);
    assert_eq!((real.content(), real.running()), (before, running));
    assert!(real.calls().is_empty() && sandbox.journals().is_empty());
    // It can be backed up.
    sandbox.run(["create", "--component", "database"]).ok();
}
