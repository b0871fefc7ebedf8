//! `restore --migrate-format`, and what passes for Neo4j Enterprise.
//!
//! That edition is not to be had here: its place is taken by a server of Community whose `cypher-shell` says that it is
//! Enterprise, and by a `neo4j-admin database migrate` that only writes down how it was called (`tests/parts/docker/stand-in`).
//! So these tests show what is run when, as whom and on which data, not what Enterprise does. Its backups: [`crate::enterprise`].

use crate::project::Project;
use crate::support::Sandbox;
use crate::{reports, steps};

const MIGRATE: [&str; 5] = ["--yes", "--no-safety-snapshot", "--migrate-format", "--component", "database"];

/// Restores into a project.
fn restore(sandbox: &Sandbox, project: &Project, id: &str, more: &[&str]) -> crate::support::Ran {
    let words = ["restore", id, "--project", project.name()];
    sandbox.run([&words[..], more].concat())
}

#[test]
fn a_dump_of_community_goes_into_what_passes_for_enterprise_and_is_migrated_there_before_it_starts() {
    let Some(real) = Project::take("a migration into the block format, with a stand-in") else { return };
    let sandbox = real.sandbox();
    let before = real.content();
    let create = ["create", "--init", "--component", "database", "--neo4jmetadata", "users"];
    sandbox.run(create).ok().says(&["`--neo4jmetadata` has no effect on `database`: it is Neo4j Community"]);
    let id = sandbox.snapshots().remove(0);

    let running = real.running();
    restore(&sandbox, &real, &id, &MIGRATE).with_code(1).says(&["Community", "nothing was touched", "leave out"]);
    let files = ["--migrate-format", "--yes", "--to-files", "out"];
    restore(&sandbox, &real, &id, &files).with_code(2).says(&["--migrate-format", "files are written"]);
    assert_eq!(real.running(), running);
    assert!(sandbox.journals().is_empty());

    let enterprise =
        Project::take_enterprise("a migration into the block format, with a stand-in").expect("the first is up");
    enterprise.spoil();
    let running = enterprise.running();
    let planned = restore(&sandbox, &enterprise, &id, &[&MIGRATE[..], &["--dry-run"]].concat()).ok().text();
    assert!(planned.contains("bring the store of `database` into the format `block`"), "{planned}");
    assert_eq!(enterprise.running(), running);
    let log = "cat /data/stand-in.log 2>/dev/null || echo none";
    assert_eq!(enterprise.sh("database", log), "none");

    restore(&sandbox, &enterprise, &id, &MIGRATE).ok();
    enterprise.assert_running();
    assert_eq!(enterprise.content()[..2], before[..2]);
    // As whom the data belongs to, on this volume, once.
    assert_eq!(enterprise.sh("database", log), "7474 database migrate --to-format=block neo4j");
    let report = reports(&sandbox).pop().expect("a report");
    let time = |action: &str, name: &str| {
        let mut found = steps(&report, action).filter(|step| step["target"] == "database");
        let step = found.next().unwrap_or_else(|| panic!("no {action}: {report:#}"));
        step[name].as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time")
    };
    assert!(time("stop", "end") <= time("load", "start") && time("load", "start") <= time("migrate", "start"));
    assert!(time("migrate", "end") <= time("start", "start"));

    enterprise.sh("database", "touch /data/migrate-fails");
    let failed = restore(&sandbox, &enterprise, &id, &MIGRATE).with_code(1);
    failed.says(&["the migration of component `database` did not end well", "the stand-in does not migrate"]);
    enterprise.assert_running();
    // Loaded and not migrated is neither what was asked for nor what was there.
    assert_eq!(sandbox.journals().len(), 1);
    sandbox.run(["resume"]).ok().says(&["neither the old nor the new"]);
}
