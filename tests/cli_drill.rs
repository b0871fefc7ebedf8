//! `drill`: what it restores, what it refuses to restore into, what it leaves, and what `status` tells of it.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;
use support::scripted::{SERVICES, Scripted};
use support::{Sandbox, files_below, noise, unwrapped, wait_until};

/// How slow a store must be for a drill to be met in the middle: a few seconds for all that is in it.
const SLOW: &str = "200kB";

/// A deployment with one snapshot, and a folder for scratch files.
fn world() -> Scripted {
    let scripted = Scripted::new("site");
    scripted.sandbox.run(["create"]).ok();
    fs::create_dir(scripted.sandbox.path("files")).expect("made");
    scripted
}

/// The reports of drills, oldest first.
fn reports(sandbox: &Sandbox) -> Vec<Value> {
    let listed = sandbox.run(["report", "list", "--json"]).ok().json();
    let all = listed.as_array().expect("a list").clone();
    all.into_iter().filter(|report| report["operation"] == "drill").collect()
}

fn stages(steps: &Value) -> Vec<String> {
    let steps = steps.as_array().expect("steps").iter();
    steps
        .map(|step| format!("{} {}", step["action"].as_str().expect("text"), step["target"].as_str().expect("text")))
        .collect()
}

fn left(scripted: &Scripted) -> Vec<PathBuf> {
    let entries = fs::read_dir(scripted.sandbox.path("files")).expect("a folder");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// Flips a byte in the middle of the largest content pack.
fn damage(sandbox: &Sandbox) {
    let packs = sandbox.objects().into_iter().filter(|(name, _)| name.starts_with("packs/"));
    let (name, size) = packs.max_by_key(|(_, size)| *size).expect("a pack");
    let path = sandbox.repository.join(name);
    let mut bytes = fs::read(&path).expect("there");
    bytes[usize::try_from(size / 2).expect("small")] ^= 1;
    fs::write(&path, bytes).expect("written");
}

#[test]
fn a_drill_into_files_times_each_stage_leaves_its_evidence_and_nothing_else() {
    let scripted = world();
    let sandbox = &scripted.sandbox;
    let drilled = sandbox.run(["drill", "--scratch", "files", "--rto", "1h", "--json"]).ok().json();
    assert_eq!(drilled["snapshot"], sandbox.snapshots()[0].as_str());
    let each = |action: &str| ["database", "queue", "artifacts"].map(|name| format!("{action} {name}")).to_vec();
    let begun = vec!["open repository".to_owned(), "choose latest".to_owned()];
    let ended = vec!["recover scratch files".to_owned(), "clean scratch files".to_owned()];
    let expected = [begun, each("check"), each("write"), each("decode"), ended].concat();
    assert_eq!(stages(&drilled["stages"]), expected);
    assert_eq!((&drilled["rto_met"], &drilled["cleaned"]), (&Value::Bool(true), &Value::Bool(true)));
    let report = &reports(sandbox)[0];
    assert_eq!((&report["id"], &report["outcome"]), (&drilled["report"], &Value::from("done")));
    assert_eq!(stages(&report["steps"])[..expected.len()], expected);
    assert_eq!(report["deployment"], "site");
    let recovery = report["steps"].as_array().expect("steps").iter().find(|step| step["action"] == "recover");
    let numbers = &recovery.expect("it is told")["numbers"];
    assert_eq!((&numbers["elapsed_ms"], &numbers["rto_ms"]), (&drilled["elapsed_ms"], &Value::from(3_600_000)));
    // 40 artifacts, each of its size, and two dumps.
    let artifacts: u64 = files_below(&scripted.artifacts()).values().sum();
    let sizes = drilled["components"].as_array().expect("components").clone();
    assert_eq!((&sizes[2]["bytes"], &sizes[2]["files"]), (&Value::from(artifacts), &Value::from(40)));
    assert_eq!(left(&scripted), Vec::<PathBuf>::new());
    scripted.assert_running();
    let told = sandbox.run(["drill", "--scratch", "files", "--rto", "1h"]).ok().text();
    assert!(told.contains("restored and checked") && told.contains("within the objective of 1 h"), "{told}");
}

#[test]
fn an_objective_that_is_missed_ends_with_5_and_status_remembers_it() {
    let scripted = world();
    let sandbox = &scripted.sandbox;
    let never = sandbox.run(["status", "--rto", "30d"]).with_code(5);
    assert!(
        never.text().contains("no drill yet") && never.text().contains("OBJECTIVE MISSED: site"),
        "{}",
        never.text()
    );
    for rto in ["0s", "1ms"] {
        let missed = sandbox.run(["drill", "--scratch", "files", "--rto", rto, "--json"]).with_code(5).json();
        assert_eq!(missed["rto_met"], false);
    }
    assert_eq!(reports(sandbox)[1]["outcome"], "done", "nothing is wrong with what was restored");
    let status = sandbox.run(["status", "--rto", "1ms", "--json", "--prometheus", "m.prom"]).with_code(5).json();
    assert_eq!((&status["rto_missed"][0], &status["rto_ms"]), (&Value::from("site"), &Value::from(1)));
    let drill = &status["deployments"][0]["last_drill"];
    assert_eq!((&drill["outcome"], &drill["target"]), (&Value::from("done"), &Value::from("scratch files")));
    assert_eq!(
        (&drill["report"], &drill["snapshot"]),
        (&reports(sandbox)[1]["id"], &Value::from(sandbox.snapshots()[0].as_str()))
    );
    let metrics = fs::read_to_string(sandbox.path("m.prom")).expect("a file");
    for line in [
        "infrahub_backup_drill_last_done{deployment=\"site\"} 1",
        "infrahub_backup_recovery_objective_missed{deployment=\"site\"} 1",
        "# TYPE infrahub_backup_drill_last_recovery_seconds gauge",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    sandbox.run(["status", "--rto", "1h", "--rpo", "1d"]).ok();
}

#[test]
fn damage_ends_with_4_is_kept_as_evidence_and_leaves_no_files() {
    for fast in [&[][..], &["--fast"][..]] {
        let scripted = world();
        let sandbox = &scripted.sandbox;
        damage(sandbox);
        let line = [&["drill", "--scratch", "files", "--rto", "1h", "--json"][..], fast].concat();
        let drilled = sandbox.run(line).with_code(4).json();
        assert_eq!(drilled["findings"].as_array().map(Vec::len), Some(1), "{drilled}");
        assert_eq!(drilled["rto_met"], false);
        let report = &reports(sandbox)[0];
        assert_eq!((&report["outcome"], &report["findings"]), (&Value::from("failed"), &drilled["findings"]));
        assert_eq!(left(&scripted), Vec::<PathBuf>::new());
        let status = sandbox.run(["status", "--rto", "1h"]).with_code(5).text();
        assert!(status.contains("failed: into scratch files"), "{status}");
    }
}

#[test]
fn a_dry_run_and_keys_that_read_no_content_restore_nothing() {
    let mut scripted = world();
    let planned = scripted.sandbox.run(["drill", "--scratch", "files", "--dry-run", "--json"]).ok().json();
    assert!(planned["plan"].as_array().is_some_and(|plan| plan.len() == 3), "{planned}");
    scripted.sandbox.run(["drill", "--scratch", "none"]).with_code(2).says(&["is no folder"]);
    scripted.sandbox.run(["drill", "--scratch", "files", "--at", "2000-01-01T00:00:00Z"]).with_code(1);
    scripted.sandbox.run(["key", "add", "--role", "writer", "--new-key-file", "writer"]).ok();
    let writer = scripted.sandbox.path("writer");
    let reader = std::mem::replace(&mut scripted.sandbox.key, writer);
    scripted.sandbox.run(["drill", "--scratch", "files"]).with_code(12).says(&["may not read content"]);
    scripted.sandbox.key = reader;
    assert_eq!(left(&scripted), Vec::<PathBuf>::new());
    assert!(reports(&scripted.sandbox).is_empty());
}

/// Starts a slow drill, and waits until it writes.
fn begun(scripted: &Scripted) -> support::Started {
    let line = ["drill", "--scratch", "files", "--fast", "--no-cache", "--limit-download", SLOW];
    let started = scripted.sandbox.start("drill", line);
    wait_until("it writes", || left(scripted).iter().any(|folder| !files_below(folder).is_empty()));
    started
}

#[test]
fn a_killed_drill_into_files_leaves_one_private_folder_and_the_next_one_tells_of_it() {
    let scripted = world();
    assert_eq!(begun(&scripted).kill().code, None);
    let folders = left(&scripted);
    assert_eq!(folders.len(), 1, "{folders:?}");
    let name = folders[0].file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with("infrahub-drill-"), "{name}");
    assert_eq!(fs::metadata(&folders[0]).expect("there").permissions().mode() & 0o777, 0o700);
    assert!(reports(&scripted.sandbox).is_empty());
    assert!(scripted.sandbox.journals().is_empty());
    scripted.sandbox.run(["drill", "--scratch", "files"]).ok().says(&[&name, "a killed one left it; remove it"]);
    assert_eq!(left(&scripted), folders);
    scripted.sandbox.assert_clean();
}

#[test]
fn an_interrupted_drill_removes_its_files_and_says_so_in_its_report() {
    let scripted = world();
    let started = begun(&scripted);
    started.signal(Signal::TERM);
    started.wait().with_code(130);
    assert_eq!(left(&scripted), Vec::<PathBuf>::new());
    assert_eq!(reports(&scripted.sandbox)[0]["outcome"], "failed");
}

/// A second deployment beside the first, with scripts of its own.
struct Scratch {
    folder: PathBuf,
    config: PathBuf,
}

impl Scratch {
    fn new(scripted: &Scripted, section: &str) -> Self {
        let folder = scripted.sandbox.path("scratch");
        fs::create_dir_all(folder.join("artifacts")).expect("made");
        for script in ["service", "dump", "load"] {
            fs::copy(scripted.marker(script), folder.join(script)).expect("copied");
        }
        for content in ["database", "queue"] {
            fs::write(folder.join(format!("{content}.content")), "scratch").expect("written");
        }
        let live = fs::read_to_string(scripted.sandbox.path("infrahub-backup.toml")).expect("there");
        let own =
            live.replace(&scripted.sandbox.path("deployment").display().to_string(), &folder.display().to_string());
        let config = scripted.sandbox.write("scratch.toml", own.replace("\"site\"", "\"rehearsal\"") + section);
        let scratch = Self { folder, config };
        SERVICES.iter().for_each(|service| assert!(scratch.service("start", service)));
        scratch
    }

    fn service(&self, action: &str, service: &str) -> bool {
        let script = self.folder.join("service");
        std::process::Command::new("sh").arg(script).args([action, service]).status().expect("sh starts").success()
    }

    fn change(&self, change: impl Fn(String) -> String) {
        let text = fs::read_to_string(&self.config).expect("there");
        fs::write(&self.config, change(text)).expect("written");
    }

    fn is_untouched(&self) -> bool {
        let content = |name: &str| fs::read(self.folder.join(name)).expect("there");
        content("database.content") == b"scratch" && content("queue.content") == b"scratch"
    }

    fn runs(&self) -> bool {
        SERVICES.iter().all(|service| self.service("probe", service))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for service in SERVICES {
            let _ = self.service("stop", service);
        }
    }
}

const DRILL: [&str; 4] = ["drill", "--target-config", "scratch.toml", "--json"];

#[test]
fn a_drill_into_a_scratch_deployment_restores_all_of_it_and_not_a_byte_of_the_other_changes() {
    let scripted = world();
    let scratch = Scratch::new(&scripted, "[scratch]\n");
    let before = files_below(&scripted.sandbox.path("deployment"));
    let drilled = scripted.sandbox.run(DRILL).ok().json();
    assert_eq!((&drilled["target"], &drilled["cleaned"]), (&Value::from("deployment rehearsal"), &Value::Null));
    let content = |folder: PathBuf, name: &str| fs::read(folder.join(name)).expect("there");
    let live = scripted.sandbox.path("deployment");
    let dump = |folder: PathBuf| unwrapped(&content(folder, "database.content"));
    assert!(dump(scratch.folder.clone()) == dump(live.clone()), "the database differs");
    assert!(content(scratch.folder.clone(), "queue.content") == content(live.clone(), "queue.content"));
    assert_eq!(files_below(&scratch.folder.join("artifacts")), files_below(&live.join("artifacts")));
    assert_eq!(files_below(&live), before);
    assert!(scratch.runs());
    scripted.assert_running();
    let done = stages(&reports(&scripted.sandbox)[0]["steps"]);
    for step in [
        "check queue",
        "stop database",
        "copy artifacts",
        "load database",
        "load queue",
        "recover deployment rehearsal",
    ] {
        assert!(done.contains(&step.to_owned()), "{step} is not in {done:?}");
    }
    // It is what was drilled, not a backup of the scratch deployment, so that it can be drilled again.
    scripted.sandbox.run(DRILL).ok();
    assert_eq!(scripted.sandbox.snapshots().len(), 1);
}

#[test]
fn what_was_restored_is_taken_away_by_the_command_that_says_how() {
    let scripted = world();
    let clean = |script: &str| format!("[scratch]\nclean = [\"sh\", \"-c\", \"{script}\"]\n");
    let emptied = scripted.sandbox.path("scratch/queue.content");
    let scratch = Scratch::new(&scripted, &clean(&format!("rm {}", emptied.display())));
    assert_eq!(scripted.sandbox.run(DRILL).ok().json()["cleaned"], true);
    assert!(!emptied.exists());
    assert!(stages(&reports(&scripted.sandbox)[0]["steps"]).contains(&"clean rehearsal".to_owned()));
    // A command that fails leaves content where nobody expects it.
    scratch.change(|text| text.replace("\"rm ", "\"exit 9; rm "));
    let not_cleaned = scripted.sandbox.run(DRILL).with_code(3).says(&["is still there", "exit"]);
    assert_eq!(not_cleaned.json()["cleaned"], false);
    assert_eq!(reports(&scripted.sandbox)[1]["outcome"], "incomplete");
}

#[test]
fn nothing_is_restored_into_what_is_not_marked_or_looks_like_something_that_is_needed() {
    let scripted = world();
    let scratch = Scratch::new(&scripted, "");
    let refused = |why: &str| {
        scripted.sandbox.run(DRILL).with_code(2).says(&["is no scratch deployment", why, "nothing was touched"]);
        assert!(scratch.is_untouched(), "{why}");
    };
    refused("has no section `[scratch]`");
    scratch.change(|text| text + "[scratch]\n");
    scratch.change(|text| text.replace("\"rehearsal\"", "\"site\""));
    refused("the snapshot is of a deployment of this name");
    scratch.change(|text| text.replace("\"site\"", "\"rehearsal\""));
    // Also with no word of the other configuration: what is backed up here is needed.
    scripted.sandbox.run(["create", "from-files", "--artifacts-path", "files", "--deployment", "rehearsal"]).ok();
    let first = scripted.sandbox.snapshots().remove(0);
    scripted
        .sandbox
        .run(["drill", &first, "--target-config", "scratch.toml"])
        .with_code(2)
        .says(&["is a backup of it"]);
    assert!(scratch.is_untouched());
    let last = scripted.sandbox.snapshots().remove(1);
    scripted.sandbox.run(["forget", &last]).ok();
    let live = scripted.sandbox.path("deployment").display().to_string();
    let own = scratch.folder.display().to_string();
    for name in ["load\", \"database", "artifacts", "service\", \"stop"] {
        scratch.change(|text| text.replace(&format!("{own}/{name}"), &format!("{live}/{name}")));
        refused("it shares with `site`");
        scratch.change(|text| text.replace(&format!("{live}/{name}"), &format!("{own}/{name}")));
    }
    assert!(reports(&scripted.sandbox).is_empty());
    scripted.assert_running();
    scripted.sandbox.run(DRILL).ok();
}

#[test]
fn a_load_that_fails_ends_with_1_and_its_report_says_so() {
    let scripted = world();
    let scratch = Scratch::new(&scripted, "[scratch]\nclean = [\"false\"]\n");
    fs::write(scratch.folder.join("hook-load-queue"), "echo no room >&2; exit 7").expect("a hook");
    scripted.sandbox.run(DRILL).with_code(1).says(&["rehearsal", "no room"]);
    let report = &reports(&scripted.sandbox)[0];
    assert_eq!(report["outcome"], "failed");
    let failed = report["steps"].as_array().expect("steps").iter().filter(|step| step["outcome"] == "failed");
    let failed: Vec<_> = failed.map(|step| step["action"].as_str().expect("text")).collect();
    assert_eq!(failed, ["load", "recover"], "it is not taken away before somebody looked");
    assert!(scratch.runs());
    scripted.sandbox.run(["status", "--rto", "1h"]).with_code(5);
}

#[test]
fn a_killed_drill_into_a_scratch_deployment_is_resumed_like_a_restore() {
    let scripted = world();
    let scratch = Scratch::new(&scripted, "[scratch]\n");
    fs::write(scratch.folder.join("hook-load-database"), "kill -9 $PPID; exit 1").expect("a hook");
    assert_eq!(scripted.sandbox.run(DRILL).code, None);
    assert!(!scratch.runs());
    scripted.assert_running();
    let resumed = scripted.sandbox.run(["resume", "--json"]).ok().json();
    assert_eq!(
        (&resumed[0]["deployment"], &resumed[0]["operation"]),
        (&Value::from("rehearsal"), &Value::from("drill"))
    );
    assert!(scratch.runs());
    assert!(scripted.sandbox.journals().is_empty());
    fs::remove_file(scratch.folder.join("hook-load-database")).expect("removed");
    scripted.sandbox.write("deployment/artifacts/objects/0", noise("later", 100));
    scripted.sandbox.run(DRILL).ok();
    scripted.sandbox.assert_clean();
}
