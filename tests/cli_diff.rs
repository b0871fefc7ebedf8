//! `snapshots diff`: what changed is told to the byte, without reading content, and by any key.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::{Value, json};
use support::{Ran, Sandbox, noise, package_file};

/// A sandbox with a folder `data` of some files.
fn world() -> Sandbox {
    let sandbox = Sandbox::with_repository();
    fs::create_dir_all(sandbox.path("data/sub")).expect("made");
    for (name, size) in [("gone", 20_000), ("grows", 30_000), ("mode", 4000), ("same", 50_000), ("time", 6000)] {
        sandbox.write(&format!("data/sub/{name}"), noise(name, size));
    }
    symlink("sub/same", sandbox.path("data/link")).expect("made");
    sandbox
}

fn back_up(sandbox: &Sandbox, day: &str) {
    let database = package_file(&format!("src/demo/database-{day}.dump")).display().to_string();
    let create =
        ["create", "from-files", "--deployment", "site", "--artifacts-path", "data", "--neo4j-path", &database];
    sandbox.run(create).ok();
}

/// Two snapshots, between which each kind of change happened once.
fn changed() -> Sandbox {
    let sandbox = world();
    back_up(&sandbox, "day1");
    fs::remove_file(sandbox.path("data/sub/gone")).expect("removed");
    sandbox.write("data/sub/grows", noise("grown", 35_000));
    sandbox.write("data/sub/new", noise("new", 10_000));
    fs::set_permissions(sandbox.path("data/sub/mode"), fs::Permissions::from_mode(0o640)).expect("changed");
    let touched = fs::File::options().write(true).open(sandbox.path("data/sub/time")).expect("there");
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("touched");
    fs::remove_file(sandbox.path("data/link")).expect("removed");
    symlink("sub/time", sandbox.path("data/link")).expect("made");
    back_up(&sandbox, "day2");
    sandbox
}

fn component(difference: &Value, name: &str) -> Value {
    let all = difference["components"].as_array().expect("components");
    all.iter().find(|component| component["name"] == name).expect("it is told").clone()
}

#[test]
fn each_change_is_told_once_and_bytes_are_exact() {
    let sandbox = changed();
    let ids = sandbox.snapshots();
    let difference = sandbox.run(["snapshots", "diff", &ids[0][..12], "latest", "--json"]).ok().json();
    assert_eq!((&difference["a"]["id"], &difference["b"]["id"]), (&json!(ids[0]), &json!(ids[1])));
    let artifacts = component(&difference, "artifacts");
    let files = &artifacts["files"];
    assert_eq!(
        files["added"],
        json!({ "count": 1, "files": [{ "path": "sub/new", "a_bytes": null, "b_bytes": 10_000 }] })
    );
    assert_eq!(
        files["removed"],
        json!({ "count": 1, "files": [{ "path": "sub/gone", "a_bytes": 20_000, "b_bytes": null }] })
    );
    let differ = [
        json!({ "path": "link", "a_bytes": null, "b_bytes": null, "differs": ["target"] }),
        json!({ "path": "sub/grows", "a_bytes": 30_000, "b_bytes": 35_000, "differs": ["content"] }),
        json!({ "path": "sub/mode", "a_bytes": 4000, "b_bytes": 4000, "differs": ["mode"] }),
    ];
    assert_eq!(files["changed"], json!({ "count": 3, "files": differ }));
    assert_eq!(files["unchanged"], 2, "a new time alone is no change");
    // Random bytes share no chunk, so that the chunks are those of the files that went and came.
    assert_eq!(artifacts["only_in_a"]["bytes"], 50_000);
    assert_eq!(artifacts["only_in_b"]["bytes"], 45_000);
    let database = component(&difference, "database");
    let bytes = |side: &str| database[side]["bytes"].as_u64().expect("bytes");
    assert!(bytes("only_in_b") > 0 && bytes("only_in_b") < database["b"]["logical_bytes"].as_u64().expect("bytes"));
    assert_eq!(difference["only_in_a"]["bytes"], 50_000 + bytes("only_in_a"));
    assert_eq!(difference["only_in_b"]["bytes"], 45_000 + bytes("only_in_b"));
    // The other way round it is the same, seen from there.
    let back = sandbox.run(["snapshots", "diff", &ids[1], &ids[0], "--json"]).ok().json();
    assert_eq!(back["only_in_a"], difference["only_in_b"]);
    assert_eq!(component(&back, "artifacts")["files"]["added"]["files"][0]["path"], "sub/gone");
}

#[test]
fn a_snapshot_does_not_differ_from_itself() {
    let sandbox = changed();
    let difference = sandbox.run(["snapshots", "diff", "latest", "latest", "--json"]).ok().json();
    let nothing = json!({ "chunks": 0, "bytes": 0 });
    assert_eq!((&difference["only_in_a"], &difference["only_in_b"]), (&nothing, &nothing));
    let none = json!({ "count": 0, "files": [] });
    let files = json!({ "added": none, "removed": none, "changed": none, "unchanged": 6 });
    assert_eq!(component(&difference, "artifacts")["files"], files);
}

#[test]
fn a_component_that_only_one_has_is_told_with_all_its_files() {
    let sandbox = world();
    let database = package_file("src/demo/database-day1.dump").display().to_string();
    sandbox.run(["create", "from-files", "--deployment", "site", "--neo4j-path", &database]).ok();
    back_up(&sandbox, "day1");
    let ids = sandbox.snapshots();
    let artifacts = component(&sandbox.run(["snapshots", "diff", &ids[0], &ids[1], "--json"]).ok().json(), "artifacts");
    assert_eq!(artifacts["a"], Value::Null);
    assert_eq!(artifacts["files"]["added"]["count"], 6);
    assert_eq!(artifacts["only_in_b"]["bytes"], 110_000);
}

#[test]
fn people_are_told_so_much_and_json_has_the_rest() {
    let sandbox = world();
    back_up(&sandbox, "day1");
    for number in 0..25 {
        sandbox.write(&format!("data/many-{number:02}"), noise(&number.to_string(), 100));
    }
    sandbox.write("data/odd\nname", noise("odd", 100));
    back_up(&sandbox, "day1");
    let ids = sandbox.snapshots();
    let told = sandbox.run(["snapshots", "diff", &ids[0], &ids[1]]).ok().text();
    assert_eq!(told.lines().filter(|line| line.starts_with("  + ")).count(), 20, "{told}");
    assert!(told.contains("  files      26 added, 0 removed, 0 changed, 6 as before\n"), "{told}");
    assert!(told.contains("  and 6 more: --json tells them\n"), "{told}");
    let whole = sandbox.run(["snapshots", "diff", &ids[0], &ids[1], "--json"]).ok().json();
    let added = component(&whole, "artifacts")["files"]["added"]["files"].clone();
    assert_eq!(added.as_array().map(Vec::len), Some(26));
    assert!(added.as_array().expect("files").iter().any(|file| file["path"] == "odd\\nname"), "{added}");
}

fn as_key(sandbox: &mut Sandbox, key: &str, arguments: &[&str]) -> Ran {
    let other = sandbox.path(key);
    let own = std::mem::replace(&mut sandbox.key, other);
    let ran = sandbox.run(arguments);
    sandbox.key = own;
    ran
}

#[test]
fn keys_that_open_no_content_tell_the_same_and_no_content_is_read() {
    let mut sandbox = changed();
    for role in ["writer", "auditor"] {
        sandbox.run(["key", "add", "--role", role, "--new-key-file", role]).ok();
    }
    let ids = sandbox.snapshots();
    let line = ["snapshots", "diff", &ids[0], &ids[1], "--json", "--no-cache"];
    let whole = sandbox.run(line).ok().json();
    // Without any content pack.
    fs::rename(sandbox.repository.join("packs"), sandbox.path("packs")).expect("moved away");
    for key in ["key", "writer", "auditor"] {
        assert_eq!(as_key(&mut sandbox, key, &line).ok().json(), whole, "{key}");
    }
}

#[test]
fn a_tree_that_is_lost_is_damage_and_a_snapshot_that_is_not_there_is_an_error() {
    let sandbox = changed();
    let ids = sandbox.snapshots();
    sandbox.run(["snapshots", "diff", &ids[0], "0000000"]).with_code(1).says(&["names 0 snapshots"]);
    sandbox.run(["snapshots", "diff", &ids[0]]).with_code(2);
    fs::rename(sandbox.repository.join("trees"), sandbox.path("trees")).expect("moved away");
    let refused = sandbox.run(["snapshots", "diff", &ids[0], &ids[1], "--no-cache"]).with_code(4);
    refused.says(&["the chunks of component `", "it is missing"]);
}
