//! One damaged object of each kind, in each way: `verify` names it and what it hurts, and `restore` refuses before it touches
//! anything or delivers exact bytes.
//!
//! What cannot be known: a lease, the newest report, the newest mark, or a manifest that no other one names, that is missing
//! altogether: nothing names them but their own name (of a manifest knows who has seen it). The only key slot, when it is
//! missing: `verify` says that there is none. A pack of trees that only helps to rebuild an index hurts no stream.

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::tree::{self, Facts};
use support::{Sandbox, found, package_file, unwrapped};

/// Ways to damage an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Flipped,
    FirstByteFlipped,
    Truncated,
    Missing,
    Swapped,
}

const ALL: [Damage; 5] =
    [Damage::Flipped, Damage::FirstByteFlipped, Damage::Truncated, Damage::Missing, Damage::Swapped];

/// A repository with two snapshots of files, and what they must restore to.
struct Files {
    sandbox: Sandbox,
    artifacts: BTreeMap<PathBuf, Facts>,
}

impl Files {
    fn new() -> Self {
        let sandbox = Sandbox::with_repository();
        let artifacts = sandbox.path("artifacts");
        fs::create_dir(&artifacts).expect("a folder");
        tree::write_odd(&artifacts, 10);
        let files = Self { artifacts: BTreeMap::new(), sandbox };
        files.create("day1");
        files.create("day2");
        // A report that others follow can be missed.
        files.sandbox.assert_clean();
        let artifacts = tree::facts(&artifacts);
        Self { artifacts, ..files }
    }

    fn create(&self, day: &str) {
        let mut arguments = vec!["create".into(), "from-files".into(), "--artifacts-path".into()];
        arguments.push(self.sandbox.path("artifacts").into_os_string());
        for (flag, component) in [("--neo4j-path", "database"), ("--postgres-path", "task-manager-db")] {
            arguments.push(flag.into());
            arguments.push(dump(component, day).into_os_string());
        }
        self.sandbox.run(arguments).ok();
    }

    /// Objects of a kind. The newest report is left out: that it is missing cannot be known.
    fn objects(&self, kind: &str) -> Vec<String> {
        let mut names: Vec<String> =
            self.sandbox.objects().into_keys().filter(|name| name.starts_with(&format!("{kind}/"))).collect();
        if kind == "reports" {
            let modified =
                |name: &String| self.object(name).metadata().and_then(|meta| meta.modified()).expect("there");
            names.sort_by_key(modified);
            names.pop();
        }
        names
    }

    fn object(&self, name: &str) -> PathBuf {
        self.sandbox.repository.join(name)
    }

    /// Runs `look` while `name` is damaged.
    fn while_damaged(&self, name: &str, damage: Damage, look: impl FnOnce()) {
        let path = self.object(name);
        let good = fs::read(&path).expect("the object is there");
        let write = |bytes: &[u8]| fs::write(&path, bytes).expect("the object can be overwritten");
        match damage {
            Damage::Flipped => {
                let mut bad = good.clone();
                bad[good.len() / 2] ^= 0x20;
                write(&bad);
            }
            Damage::FirstByteFlipped => {
                let mut bad = good.clone();
                bad[0] ^= 1;
                write(&bad);
            }
            Damage::Truncated => write(&good[..good.len() * 2 / 3]),
            Damage::Missing => fs::remove_file(&path).expect("the object can be removed"),
            Damage::Swapped => write(&fs::read(self.object(&self.another(name))).expect("another object")),
        }
        let there = self.sandbox.objects();
        look();
        fs::write(&path, good).expect("the object is put back");
        // The evidence of having looked: hundreds of reports would make each look slower than the last.
        for evidence in support::added(&there, &self.sandbox.objects()).into_keys().filter(|added| added != name) {
            fs::remove_file(self.object(&evidence)).expect("a report");
        }
    }

    /// Another object, of the same kind if there is one.
    fn another(&self, name: &str) -> String {
        let kind = name.split('/').next().expect("a kind");
        let others = self.sandbox.objects().into_keys().filter(|other| other != name);
        others.min_by_key(|other| !other.starts_with(&format!("{kind}/"))).expect("there are other objects")
    }

    /// What `verify` finds, and its exit code.
    fn verify(&self) -> (Option<i32>, Vec<Value>, String) {
        let ran = self.sandbox.run(["verify", "--depth", "data", "--json"]);
        let document: Value = serde_json::from_slice(&ran.out).unwrap_or_default();
        (
            ran.code,
            found(&document, "findings").cloned().unwrap_or_default(),
            ran.err + &String::from_utf8_lossy(&ran.out),
        )
    }

    /// A restore of either day gives exact bytes, or refuses and writes nothing. Says how often it refused.
    #[track_caller]
    fn assert_restore_is_exact_or_refuses(&self, what: &str) -> usize {
        let mut refused = 0;
        for (id, day) in self.ids().into_iter().zip(["day1", "day2"]) {
            let out = self.sandbox.path("restored");
            let _ = fs::remove_dir_all(&out);
            let restore = ["restore", &id, "--yes", "--to-files"].map(OsStr::new);
            let ran = self.sandbox.run(restore.into_iter().chain([out.as_os_str()]));
            if ran.code == Some(0) {
                self.assert_exact(&out, day, what);
            } else {
                refused += 1;
                assert!(
                    !out.exists() || out.read_dir().unwrap().next().is_none(),
                    "{what}: refused too late: {}",
                    ran.err
                );
                assert_ne!(ran.code, None, "{what}");
                assert!(!ran.err.contains("panicked"), "{what}: {}", ran.err);
            }
        }
        refused
    }

    #[track_caller]
    fn assert_exact(&self, out: &Path, day: &str, what: &str) {
        let restored = |component: &str| fs::read(out.join(format!("{component}.dump"))).expect("a dump");
        let given = |component: &str| fs::read(dump(component, day)).expect("a dump");
        let same = restored("task-manager-db") == given("task-manager-db");
        assert!(same, "{what}: other bytes in `task-manager-db` of {day}");
        let same = unwrapped(&restored("database")) == unwrapped(&given("database"));
        assert!(same, "{what}: other bytes in `database` of {day}");
        tree::assert_same(&tree::facts(&out.join("artifacts")), &self.artifacts);
    }

    /// The snapshots' ids from the time when nothing was damaged.
    fn ids(&self) -> Vec<String> {
        let file = self.sandbox.path("ids");
        if !file.exists() {
            fs::write(&file, self.sandbox.snapshots().join("\n")).expect("a file");
        }
        fs::read_to_string(&file).expect("a file").lines().map(str::to_owned).collect()
    }
}

fn dump(component: &str, day: &str) -> PathBuf {
    package_file(&format!("src/demo/{component}-{day}.dump"))
}

/// Damages every object of `kind` in every way that `knowable` allows: `verify` ends with 4 and names it.
#[track_caller]
fn assert_found(kind: &str, hurts_streams: bool, knowable: impl Fn(Damage) -> bool) {
    let files = Files::new();
    assert_eq!(files.ids().len(), 2);
    assert_eq!(files.assert_restore_is_exact_or_refuses("nothing is damaged"), 0);
    let objects = files.objects(kind);
    assert!(!objects.is_empty(), "there is no object below `{kind}`");
    let (mut wrong, mut hurtful) = (Vec::new(), 0);
    for name in &objects {
        for damage in ALL.into_iter().filter(|damage| knowable(*damage)) {
            let what = format!("{name} {damage:?}");
            files.while_damaged(name, damage, || {
                let (code, findings, said) = files.verify();
                let by_name = if (kind, damage) == ("keys", Damage::Missing) { "keys/" } else { name };
                if code != Some(4) || !said.contains(by_name) {
                    wrong.push(format!("{what}: verify ended with {code:?} and said:\n{said}"));
                }
                let refused = files.assert_restore_is_exact_or_refuses(&what);
                hurtful += refused;
                let hurts: Vec<String> = findings.iter().map(|finding| finding["hurts"].to_string()).collect();
                let streams = ["database stream", "task-manager-db stream", "artifacts stream"];
                let told = streams.iter().any(|stream| hurts.iter().any(|hurt| hurt.contains(stream)));
                if hurts_streams && refused > 0 && !told {
                    wrong.push(format!("{what}: a restore refused, verify names no stream that is hurt:\n{said}"));
                }
            });
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_eq!(hurtful > 0, HURTFUL.contains(&kind), "{hurtful} restores refused while `{kind}` was damaged");
    files.sandbox.assert_clean();
}

/// Kinds of objects without which something cannot be restored.
const HURTFUL: [&str; 6] = ["config", "keys", "packs", "trees", "index", "snapshots"];

#[test]
fn a_damaged_config_is_named_and_nothing_wrong_is_restored() {
    assert_found("config", false, |_| true);
}

#[test]
fn a_damaged_key_slot_is_named_and_nothing_wrong_is_restored() {
    assert_found("keys", false, |_| true);
}

#[test]
fn a_damaged_pack_is_named_with_the_streams_it_hurts_and_nothing_wrong_is_restored() {
    assert_found("packs", true, |_| true);
}

#[test]
fn a_damaged_tree_pack_is_named_with_the_streams_it_hurts_and_nothing_wrong_is_restored() {
    assert_found("trees", true, |_| true);
}

#[test]
fn a_damaged_index_is_named_with_the_streams_it_hurts_and_nothing_wrong_is_restored() {
    assert_found("index", true, |_| true);
}

#[test]
fn a_damaged_manifest_is_named_and_nothing_wrong_is_restored() {
    assert_found("snapshots", false, |_| true);
}

#[test]
fn a_damaged_report_is_named_and_hurts_no_restore() {
    assert_found("reports", false, |_| true);
}

#[test]
fn a_damaged_lease_is_named_and_hurts_no_restore() {
    assert_found("leases", false, |damage| damage != Damage::Missing);
}

#[test]
fn a_stranger_among_the_packs_is_named() {
    let files = Files::new();
    fs::create_dir_all(files.object("packs/00")).expect("a folder");
    fs::write(files.object("packs/00/stranger"), "x").expect("a file");
    let (code, findings, said) = files.verify();
    assert_eq!(code, Some(4), "{said}");
    assert!(findings.iter().any(|finding| finding["object"] == "packs/00/stranger"), "{said}");
}

#[test]
fn a_damaged_pack_leaves_a_running_deployment_untouched() {
    let scripted = support::scripted::Scripted::new("site");
    scripted.sandbox.run(["create"]).ok();
    let id = scripted.sandbox.snapshots().remove(0);
    let pack = scripted.sandbox.objects().into_keys().find(|name| name.starts_with("packs/")).expect("a pack");
    let path = scripted.sandbox.repository.join(pack);
    let mut bytes = fs::read(&path).expect("a pack");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("a pack");
    for name in ["stop-database", "stop-infrahub-server", "load-database", "load-queue"] {
        scripted.hook(name, "touch $here/touched");
    }
    let (before, database) = (tree::facts(&scripted.artifacts()), fs::read(scripted.content("database")).unwrap());
    scripted.sandbox.run(["restore", &id, "--yes"]).with_code(4);
    assert!(!scripted.marker("touched").exists(), "a service was stopped, or something loaded");
    tree::assert_same(&tree::facts(&scripted.artifacts()), &before);
    assert!(fs::read(scripted.content("database")).unwrap() == database);
    scripted.assert_running();
}
