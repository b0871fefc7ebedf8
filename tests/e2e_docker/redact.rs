//! `create --redact`: what is stored, what stays as it was, and what is left when it goes wrong.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::project::Project;
use crate::support::{Sandbox, Started, unwrapped, wait_until};

/// In every long value, and in nothing else.
const MARK: &str = "known-secret-of-the-graph";

/// Values of which two nodes each have one: long texts, short ones, lists, numbers. `pair` tells which belong together.
const VALUES: [&str; 4] = [
    "UNWIND range(1, 600) AS i CREATE (:AttributeValue {pair: i % 300, is_default: i % 2 = 0, \
     value: 'known-secret-of-the-graph ' + (i % 300) + ' longer than what a record of properties has room for'})",
    "UNWIND range(1, 400) AS i CREATE (:AttributeValue {pair: 1000 + i % 200, value: 's3cret/' + (i % 200), text: 'kept'})",
    "UNWIND range(1, 100) AS i CREATE (:AttributeValue {pair: 2000 + i % 50, \
     value: ['known-secret-of-the-graph', 'in a list, and one of them is number ' + (i % 50)]})",
    "UNWIND range(1, 100) AS i CREATE (:AttributeValue {pair: 3000 + i % 50, value: i % 50}), (:AttributeValue {pair: -1})",
];

/// Properties of every type that Neo4j has, on nodes that stay as they are.
const KEPT: &str = "UNWIND range(1, 50) AS i CREATE (:Kept {at: point({x: i, y: 2.5}), deep: point({x: i, y: 1, z: 0}), \
    day: date('2025-01-01'), far: date('+999999-01-01'), hour: localtime('12:00'), zone: time('12:00+01:00'), \
    local: localdatetime('2025-01-01T00:00'), moment: datetime('2025-01-01T00:00[Europe/Paris]'), \
    span: duration('P1M2DT3.5S'), half: 0.5, zero: 0.0, small: i, large: i * 1000000000000, yes: true, empty: '', \
    hex: '0123456789abcdef0123456789abcdef', word: 'WORD', mail: 'a@b.c', utf: 'ünïcødé ☃', latin: 'Größe', \
    bits: [true, false, true], numbers: [1, 2, i], large_numbers: range(1, 60), words: ['a', 'b' + i], halves: [0.5, 0.0], \
    text: 'a text that is so long that it has a record of its own, as it does not fit into that of its node ' + i})";

const ALL_KEPT: &str = "MATCH (n:Kept) WITH n ORDER BY n.small WITH n, keys(n) AS names UNWIND names AS name \
    WITH n, name ORDER BY n.small, name RETURN collect([name, n[name]])";

const INDEXES: [&str; 4] = [
    "CREATE INDEX redact_range FOR (n:AttributeValue) ON (n.value)",
    "CREATE TEXT INDEX redact_text FOR (n:AttributeValue) ON (n.value)",
    "CREATE FULLTEXT INDEX redact_words FOR (n:AttributeValue) ON EACH [n.value]",
    "CREATE CONSTRAINT redact_one FOR (n:Kept) REQUIRE n.small IS UNIQUE",
];

fn seed(real: &Project) {
    for statement in VALUES {
        real.cypher(statement);
    }
    real.cypher(KEPT);
}

/// How many values there are, how many different ones, and how many at most belong to one pair.
fn shape(real: &Project) -> String {
    real.cypher(
        "MATCH (n:AttributeValue) WITH n.pair AS pair, count(n) AS nodes, count(n.value) AS values, \
         collect(DISTINCT n.value) AS different WITH sum(nodes) AS nodes, sum(values) AS values, \
         max(size(different)) AS most, collect(different) AS all UNWIND all AS one UNWIND one AS value \
         RETURN nodes, values, most, count(DISTINCT value)",
    )
}

/// Everything about the graph that must not change while it is redacted.
fn graph(real: &Project) -> String {
    real.cypher("MATCH (n:AttributeValue) WITH n ORDER BY n.pair, elementId(n) RETURN collect([n.pair, n.value])")
}

fn volumes(real: &Project) -> String {
    real.docker(&["volume", "ls", "-q"])
}

/// What the dump of the database in a snapshot is made of, unwrapped.
fn files_of(sandbox: &Sandbox, id: &str) -> Vec<u8> {
    let folder = format!("files-{}", &id[..8]);
    sandbox.run(["restore", id, "--yes", "--component", "database", "--to-files", &folder]).ok();
    let mut found =
        fs::read_dir(sandbox.path(&folder)).expect("it was written").map(|entry| entry.expect("one").path());
    unwrapped(&fs::read(found.next().expect("a dump")).expect("it can be read"))
}

fn holds(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

fn names(value: &Value, text: &str) -> bool {
    value.as_array().expect("a list").iter().any(|line| line.as_str().is_some_and(|line| line.contains(text)))
}

#[test]
fn a_redacted_snapshot_holds_no_value_and_what_runs_stays_as_it_is() {
    let Some(real) = Project::take("redacting on Docker") else { return };
    let sandbox = real.sandbox();
    for statement in INDEXES {
        real.cypher(statement);
    }
    seed(&real);
    let (before, shape_before, there) = (graph(&real), shape(&real), volumes(&real));
    let kept = real.cypher(ALL_KEPT);
    sandbox.run(["create", "--init"]).ok();
    let whole = sandbox.snapshots().remove(0);
    assert!(holds(&files_of(&sandbox, &whole), MARK), "else what follows shows nothing");

    let planned = sandbox.run(["create", "--redact", "--dry-run", "--json"]).ok().json();
    assert!(
        names(&planned["plan"], "redact `database`") && names(&planned["plan"], "the database itself stays as it is")
    );
    assert!(names(&planned["plan"], "`task-manager-db` is NOT redacted"), "{planned:#}");
    sandbox.run(["create", "--redact", "--exclude", "database"]).with_code(2).says(&["the graph", "left out"]);

    // `--force` does not change what runs either.
    let created = sandbox.run(["create", "--redact", "--force", "--json"]).ok().json();
    real.assert_running();
    assert_eq!((graph(&real), volumes(&real)), (before, there));
    assert_eq!(real.cypher(ALL_KEPT), kept);
    assert_eq!((&created["redacted"], &created["tags"]["redacted"]), (&Value::Bool(true), &Value::from("true")));
    for name in ["task-manager-db", "artifacts"] {
        assert!(names(&created["warnings"], &format!("`{name}` is NOT redacted")), "{created:#}");
    }
    let redacted = created["id"].as_str().expect("an id");
    let listed = sandbox.run(["snapshots", "list", "--json"]).ok().json();
    assert_eq!((&listed[0]["redacted"], &listed[1]["redacted"]), (&Value::Null, &Value::Bool(true)));
    let files = files_of(&sandbox, redacted);
    assert!(!holds(&files, MARK), "a value is in the dump");
    assert!(holds(&files, "a text that is so long that it has a record of its own"), "what is no value was redacted");
    let archive = sandbox.run(["export", redacted, "--json"]).ok().json();
    let archive = archive["archive"].as_str().expect("a path").to_owned();
    let imported = sandbox.run(["import", "--dry-run", "--json", &archive]).ok().json();
    assert_eq!(imported[0]["tags"]["redacted"], "true");

    // Nobody gets it by accident, and who wants it is told what it is.
    let latest = sandbox.run(["snapshots", "show", "latest", "--json"]).ok().json();
    assert_eq!(latest["id"], whole.as_str());
    let restored = sandbox.run(["restore", redacted, "--yes", "--component", "database"]).ok().says(&["REDACTED"]);
    assert!(restored.text().contains("counts are those of the snapshot"), "{}", restored.text());
    assert_eq!(shape(&real), shape_before, "equal values stay equal, different ones different");
    assert_eq!(real.cypher(ALL_KEPT), kept);
    let left = format!("MATCH (n:AttributeValue) WHERE toString(n.value) CONTAINS '{MARK}' RETURN count(n)");
    assert_eq!(real.cypher(&left), "0");
    let found = "CALL db.index.fulltext.queryNodes('redact_words', 'secret') YIELD node RETURN count(node)";
    assert_eq!(real.cypher(found), "0");
    assert_eq!(
        real.cypher(
            "SHOW INDEXES YIELD name, state WHERE name STARTS WITH 'redact' AND state = 'ONLINE' RETURN count(*)"
        ),
        "4"
    );
    check_store(&real);
    real.cypher("DROP CONSTRAINT redact_one");
    for index in ["redact_range", "redact_text", "redact_words"] {
        real.cypher(&format!("DROP INDEX {index}"));
    }
    sandbox.assert_clean();
}

/// What Neo4j says about the store when it looks at all of it.
fn check_store(real: &Project) {
    let database = real.container("database");
    real.docker(&["stop", "--time", "60", &database]);
    let volumes = ["run", "--rm", "--network", "none", "--hostname", "localhost", "--volumes-from", &database];
    let check = ["--user", "7474:7474", "infrahub-backup-tests/neo4j", "neo4j-admin", "database", "check", "neo4j"];
    real.docker(&[&volumes[..], &check].concat());
    real.docker(&["start", &database]);
    wait_until("it serves", || {
        let health = ["inspect", "--format", "{{.State.Health.Status}}", &database];
        real.docker(&health) == "healthy"
    });
}

/// Starts a redacted backup and waits until what runs runs again while the copy is redacted.
fn redacting(real: &Project, sandbox: &Sandbox) -> Started {
    let running = sandbox.start("create", ["create", "--redact"]);
    wait_until("the copy is made", || real.commands_of_ours().contains("Loads a dump") && !real.runs("database"));
    wait_until("services run again", || real.runs("database") && real.runs("infrahub-server"));
    assert_ne!(real.ours(), "", "the copy is redacted when services run again");
    running
}

#[test]
fn a_redaction_that_is_killed_or_interrupted_or_fails_leaves_no_copy_and_no_snapshot() {
    let Some(real) = Project::take("redactions that go wrong on Docker") else { return };
    let sandbox = real.sandbox();
    sandbox.run(["init", "--no-password"]).ok();
    seed(&real);
    let (before, there) = (graph(&real), volumes(&real));

    let running = redacting(&real, &sandbox);
    running.signal(Signal::KILL);
    running.wait();
    assert_eq!(sandbox.journals().len(), 1);
    assert_ne!(volumes(&real), there, "the volume of the copy is there");
    sandbox.run(["resume"]).ok();
    real.assert_running();
    assert_eq!(volumes(&real), there);

    // Somebody removed the container, and not its volume.
    let running = redacting(&real, &sandbox);
    running.signal(Signal::KILL);
    running.wait();
    real.docker(&["rm", "-f", &real.ours()]);
    assert_ne!(volumes(&real), there);
    sandbox.run(["resume"]).ok();
    let unnamed: Vec<String> = volumes(&real).lines().map(str::to_owned).collect();
    let left: Vec<&String> = unnamed.iter().filter(|name| !there.lines().any(|line| line == name.as_str())).collect();
    for volume in &left {
        // What the image declares beside `/data`: it has no label, and nothing was written there.
        let empty =
            ["run", "--rm", "--network", "none", "-v", &format!("{volume}:/left"), "infrahub-backup-tests/server"];
        assert_eq!(real.docker(&[&empty[..], &["find", "/left", "-type", "f"]].concat()), "");
        real.docker(&["volume", "rm", volume]);
    }

    let running = redacting(&real, &sandbox);
    running.signal(Signal::TERM);
    running.wait().with_code(130);
    real.assert_running();
    assert_eq!(volumes(&real), there);

    let running = redacting(&real, &sandbox);
    real.docker(&["rm", "-f", "-v", &real.ours()]);
    running.wait().with_code(1).says(&["the redaction of component `database` did not end well"]);
    real.assert_running();
    assert_eq!((graph(&real), volumes(&real)), (before, there));
    assert!(sandbox.journals().is_empty() && sandbox.snapshots().is_empty());
}
