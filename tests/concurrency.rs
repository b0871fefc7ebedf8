//! Several runs at once, on one repository or on one deployment.

mod support;

use std::fs;

use support::scripted::Scripted;
use support::{Sandbox, wait_until};

/// A second deployment that is backed up into the repository of the first, from another machine as it were.
fn two_deployments() -> (Scripted, Scripted) {
    let first = Scripted::new("first");
    let mut sandbox = Sandbox::new();
    sandbox.repository.clone_from(&first.sandbox.repository);
    sandbox.key.clone_from(&first.sandbox.key);
    let second = Scripted::inside(sandbox, "second");
    (first, second)
}

#[test]
fn two_deployments_back_up_into_one_repository_at_once() {
    let (first, second) = two_deployments();
    // Each dump waits until the other has begun, so that they are under way together.
    for (mine, other) in [(&first, &second), (&second, &first)] {
        let (here, there) = (mine.marker("dumping"), other.marker("dumping"));
        let script = format!("touch {}; until [ -e {} ]; do sleep 0.01; done", here.display(), there.display());
        mine.hook("dump-database", &script);
    }
    let (one, two) = (first.sandbox.start("create", ["create"]), second.sandbox.start("create", ["create"]));
    one.wait().ok();
    two.wait().ok();
    let snapshots = first.sandbox.snapshots();
    assert_eq!(snapshots.len(), 2);
    first.assert_as_before(&snapshots);
    second.assert_as_before(&snapshots);
    for scripted in [&first, &second] {
        let name = fs::read_to_string(scripted.sandbox.path("infrahub-backup.toml")).expect("a configuration");
        let name = if name.contains("\"first\"") { "first" } else { "second" };
        let out = scripted.sandbox.path("restored");
        let restore = ["restore", "latest", "--yes", "--deployment", name, "--to-files"];
        scripted.sandbox.run(restore.iter().map(std::ffi::OsStr::new).chain([out.as_os_str()])).ok();
        assert_eq!(fs::read(out.join("queue.dump")).unwrap(), fs::read(scripted.content("queue")).unwrap());
        support::tree::assert_same(
            &support::tree::facts(&out.join("artifacts")),
            &support::tree::facts(&scripted.artifacts()),
        );
    }
}

#[test]
fn a_second_create_of_one_deployment_ends_with_11_or_waits() {
    let scripted = Scripted::new("site");
    scripted.hook("dump-database", "touch $here/dumping; until [ -e $here/go ]; do sleep 0.01; done");
    let first = scripted.sandbox.start("first", ["create"]);
    wait_until("the first is under way", || scripted.marker("dumping").exists());
    let refused = scripted.sandbox.run(["create"]).with_code(11);
    let holder = format!("{}", first.pid());
    refused.says(&["site", &holder]);
    let mut second = scripted.sandbox.start("second", ["create", "--wait", "10m"]);
    assert!(!second.has_ended());
    fs::write(scripted.marker("go"), "").expect("a file");
    first.wait().ok();
    second.wait().ok();
    let snapshots = scripted.sandbox.snapshots();
    assert_eq!(snapshots.len(), 2);
    scripted.assert_as_before(&snapshots);
}

#[test]
fn a_restore_of_a_deployment_that_is_backed_up_ends_with_11_and_touches_nothing() {
    let scripted = Scripted::new("site");
    scripted.sandbox.run(["create"]).ok();
    scripted.hook("dump-database", "touch $here/dumping; until [ -e $here/go ]; do sleep 0.01; done");
    scripted.hook("load-database", "touch $here/loaded");
    let create = scripted.sandbox.start("create", ["create"]);
    wait_until("the backup is under way", || scripted.marker("dumping").exists());
    scripted.sandbox.run(["restore", "latest", "--yes"]).with_code(11);
    assert!(!scripted.marker("loaded").exists());
    fs::write(scripted.marker("go"), "").expect("a file");
    create.wait().ok();
    scripted.assert_running();
}
