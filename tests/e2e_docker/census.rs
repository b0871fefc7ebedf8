//! What the graph names in the artifact store, beside what is in it.

use serde_json::json;

use crate::project::Project;
use crate::{reports, steps};

/// Values of `storage_id` as Infrahub keeps them: with the state of their relation, its end, and the end of the node's own.
const NAMED: &str = "CREATE (root:Root) WITH root UNWIND [['there', 'active', null, null], ['gone', 'active', null, null], \
    ['NULL', 'active', null, null], ['replaced', 'active', '2026-11-26T14:30:34Z', null], \
    ['deleted', 'deleted', null, null], ['of a deleted node', 'active', null, '2026-11-26T14:30:34Z']] AS row \
    CREATE (root)<-[:IS_PART_OF {status: 'active', to: row[3]}]-(:Node {kind: 'CoreArtifact'}) \
    -[:HAS_ATTRIBUTE {status: 'active'}]->(:Attribute {name: 'storage_id'}) \
    -[:HAS_VALUE {status: row[1], branch: 'main', to: row[2]}]->(:AttributeValue {value: row[0]})";

#[test]
fn missing_files_and_orphans_are_told_after_a_backup_and_after_a_restore() {
    let Some(real) = Project::take("what the graph names beside what is in the artifact store") else { return };
    let sandbox = real.sandbox();
    real.cypher(NAMED);
    let files = "echo 1 >there; echo 1 >replaced; echo 1234567 >orphan; touch -d '1 hour ago' *; echo new >new";
    real.sh("infrahub-server", &format!("cd /opt/infrahub/storage; find . -mindepth 1 -delete; {files}"));

    let created = sandbox.run(["create", "--init", "--json", "-v"]).ok();
    let created = created.says(&[
        "warning: 1 of 2 files that the graph names are not in the artifact store: `gone`",
        "1 files of the artifact store, 8 bytes, are named nowhere in the graph",
    ]);
    let found = json!({ "named": 2, "missing": 1, "missing_ids": ["gone"], "orphans": 1, "orphan_bytes": 8 });
    assert_eq!(created.json()["storage_ids"], found);
    let report = reports(&sandbox).remove(0);
    let compared = steps(&report, "compare").find(|step| step["target"] == "storage ids").expect("the step");
    let numbers = json!({ "named": 2, "missing": 1, "orphans": 1, "orphan_bytes": 8 });
    assert_eq!((&compared["numbers"], &compared["log"]), (&numbers, &json!(["missing: gone"])));
    let shown = sandbox.run(["snapshots", "show", "latest"]).ok().text();
    assert!(shown.contains("1 of 2 files that the graph names"), "{shown}");

    // Nothing to compare with.
    let created = sandbox.run(["create", "--component", "artifacts", "--json"]).ok();
    assert!(created.json().get("storage_ids").is_none() && !created.err.contains("names"), "{}", created.err);

    let first = sandbox.snapshots().remove(0);
    real.sh("infrahub-server", "cd /opt/infrahub/storage; rm there; echo gone >gone");
    // The database alone: the files are those that are there now, and this one is young.
    let restore = ["restore", &first, "--yes", "--no-safety-snapshot", "--json"];
    let restored = sandbox.run([&restore[..], &["--component", "database"]].concat()).ok();
    let found = json!({ "named": 2, "missing": 1, "missing_ids": ["there"], "orphans": 1, "orphan_bytes": 8 });
    assert_eq!(restored.json()["storage_ids"], found);
    // All of it.
    let restored = sandbox.run(restore).ok().says(&["are not in the artifact store: `gone`"]);
    let found = json!({ "named": 2, "missing": 1, "missing_ids": ["gone"], "orphans": 2, "orphan_bytes": 12 });
    assert_eq!(restored.json()["storage_ids"], found);
    real.assert_running();
}
