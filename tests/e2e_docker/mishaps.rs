//! What goes wrong around a backup on a real engine: stops that are under way, replicas, services and volumes that are not as
//! they were, servers that run and are broken, containers of somebody else.

use std::fs;
use std::io::Write as _;

use rustix::process::Signal;

use crate::project::Project;
use crate::support::{Sandbox, wait_until};

const WORKERS: [&str; 2] = ["task-worker-1", "task-worker-2"];

impl Project {
    /// One container of this project, by its name behind the project's.
    fn named(&self, name: &str) -> String {
        format!("{}-{name}", self.name())
    }

    /// Whether these run.
    fn run(&self, names: [&str; 2]) -> [bool; 2] {
        let state = |name: &str| self.docker(&["inspect", "--format", "{{.State.Running}}", &self.named(name)]);
        names.map(|name| state(name) == "true")
    }
}

/// Kills a `create` while it dumps the database.
fn killed_during_a_dump(real: &Project, sandbox: &Sandbox) {
    let running = sandbox.start("create", ["create"]);
    real.wait_for_ours();
    running.signal(Signal::KILL);
    running.wait();
}

/// Whether an open journal has an entry of this kind for this service.
fn noted(sandbox: &Sandbox, entry: &str, service: &str) -> bool {
    sandbox.journals().concat().iter().any(|line| line["entry"] == entry && line["service"] == service)
}

#[test]
fn a_database_that_was_still_closing_when_its_backup_was_killed_is_started_when_it_has_closed() {
    let Some(real) = Project::take("a kill while the database closes") else { return };
    let sandbox = real.sandbox();
    sandbox.run(["init", "--no-password"]).ok();
    let running = sandbox.start("create", ["create"]);
    wait_until("the first service stops", || {
        sandbox.journals().concat().iter().any(|line| line["entry"] == "stopping")
    });
    // From here on it does not close, however it is asked.
    real.sh("database", "pkill -STOP java");
    wait_until("the database stops", || noted(&sandbox, "stopping", "database"));
    running.signal(Signal::KILL);
    running.wait();
    let resuming = sandbox.start("resume", ["resume"]);
    let said = || fs::read_to_string(sandbox.path("resume.err")).unwrap_or_default();
    wait_until("the stop is joined", || said().contains("`database` was asked to stop and may still be closing"));
    assert!(real.runs("database"));
    real.sh("database", "pkill -CONT java");
    resuming.wait().ok();
    real.assert_running();
    assert!(sandbox.journals().is_empty());
}

#[test]
fn exactly_the_replicas_that_were_stopped_run_again_and_one_that_was_removed_holds_up_nothing() {
    let Some(real) = Project::take("replicas of which not all run") else { return };
    let sandbox = real.sandbox();
    sandbox.run(["init", "--no-password"]).ok();
    real.docker(&["stop", &real.named("task-worker-2")]);
    sandbox.run(["create"]).ok();
    assert_eq!(real.run(WORKERS), [true, false], "what was down before stays down");

    real.docker(&["start", &real.named("task-worker-2")]);
    killed_during_a_dump(&real, &sandbox);
    assert_eq!(real.run(WORKERS), [false, false]);
    real.docker(&["start", &real.named("task-worker-1")]);
    sandbox.run(["resume"]).ok();
    real.assert_running();

    killed_during_a_dump(&real, &sandbox);
    real.docker(&["rm", "-f", &real.named("task-worker-1")]);
    let resumed = sandbox.run(["resume", "--json"]).ok();
    assert!(resumed.err.contains("task-worker-1 of `task-worker` was stopped and is not there any more"));
    assert!(real.runs("database") && real.runs("infrahub-server"));
    assert_eq!(real.docker(&["inspect", "--format", "{{.State.Running}}", &real.named("task-worker-2")]), "true");

    killed_during_a_dump(&real, &sandbox);
    real.docker(&["rm", "-f", &real.named("task-worker-2")]);
    let resumed = sandbox.run(["resume", "--json"]).ok().json();
    assert_eq!(resumed[0]["gone"], serde_json::json!(["task-worker"]));
    assert!(real.runs("database") && real.runs("infrahub-server"));
    assert!(sandbox.journals().is_empty());
}

#[test]
fn what_another_machines_run_works_in_is_left_alone() {
    let Some(real) = Project::take("containers of another machine's run") else { return };
    let sandbox = real.sandbox();
    sandbox.run(["create", "--init"]).ok();
    let fact = fs::read_to_string(sandbox.path("state/infrahub-backup/facts/owner.json")).expect("the owner is known");
    let fact: serde_json::Value = serde_json::from_str(&fact).expect("JSON");
    let owner = fact["owner"].as_str().expect("a text");
    let made_by = |owner: &str| {
        let project = format!("infrahub-backup.project={}", real.name());
        let owner = format!("infrahub-backup.owner={owner}");
        let image = "infrahub-backup-tests/server";
        real.docker(&["run", "-d", "--network", "none", "--label", &project, "--label", &owner, image])
    };
    let (theirs, ours) = (made_by("somebody-else"), made_by(owner));
    // Nothing is stopped for this one.
    sandbox.run(["create", "--component", "task-manager-db"]).ok();
    let left = real.ours();
    real.docker(&["rm", "-f", &theirs]);
    assert!(theirs.starts_with(&left) && !left.is_empty(), "left: {left}, ours {ours}, theirs {theirs}");
    real.assert_running();
}

#[test]
fn a_load_that_fails_costs_no_queue_and_resume_empties_what_a_killed_restore_left() {
    let Some(real) = Project::take("a queue behind a failed load") else { return };
    let sandbox = real.sandbox();
    let before = real.content();
    sandbox.run(["create", "--init"]).ok();
    let id = sandbox.snapshots().remove(0);
    let restore = ["restore", &id, "--yes", "--no-safety-snapshot", "--component", "database"];
    let queue = || real.sh("message-queue", "cat /var/lib/rabbitmq/mnesia/queue 2>/dev/null || echo none");

    let running = sandbox.start("restore", restore);
    wait_until("the load began", || real.commands_of_ours().contains("database load"));
    real.docker(&["rm", "-f", &real.ours()]);
    running.wait().with_code(1);
    assert_eq!(queue(), "old", "the load did not end well");
    sandbox.run(["resume"]).ok();

    let running = sandbox.start("restore", restore);
    wait_until("the load began", || real.commands_of_ours().contains("database load"));
    running.signal(Signal::KILL);
    running.wait();
    // As if it had been killed just behind the load.
    let journals = sandbox.path("state/infrahub-backup/journals");
    let journal = fs::read_dir(journals).expect("journals").next().expect("one").expect("an entry").path();
    let mut journal = fs::OpenOptions::new().append(true).open(journal).expect("it is there");
    writeln!(journal, r#"{{"entry":"replaced","component":"database"}}"#).expect("it takes a line");
    let resumed = sandbox.run(["resume"]);
    assert!(resumed.err.contains("emptied `/var/lib/rabbitmq` of `message-queue`"), "{}", resumed.err);
    wait_until("the queue runs", || real.runs("message-queue"));
    assert_eq!(queue(), "none");
    sandbox.run(restore).ok();
    real.assert_running();
    assert_eq!(real.content(), before);
}

#[test]
fn a_database_that_runs_and_is_broken_is_restored_over_and_whatever_can_be_read_is_backed_up_before() {
    let Some(real) = Project::take("a broken database") else { return };
    let sandbox = real.sandbox();
    let before = real.content();
    sandbox.run(["create", "--init"]).ok();
    let id = sandbox.snapshots().remove(0);

    // Down, but whole: it is in the safety snapshot.
    real.docker(&["stop", &real.container("infrahub-server"), &real.container("database")]);
    let restored = sandbox.run(["restore", &id, "--yes", "--component", "database", "--json"]).ok();
    assert!(restored.err.contains("`database` now first, if it can be read"), "{}", restored.err);
    let snapshots = sandbox.snapshots();
    assert_eq!(snapshots.len(), 2, "the safety snapshot is missing");
    let shown = sandbox.run(["snapshots", "show", &snapshots[1], "--json"]).ok().json();
    assert_eq!(shown["status"], "complete", "{shown:#}");
    assert!(!real.runs("database") && !real.runs("infrahub-server"), "they did not run before");
    real.docker(&["start", &real.container("infrahub-server")]);

    // Running, but broken.
    real.docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--volumes-from",
        &real.container("database"),
        "--entrypoint",
        "sh",
        "infrahub-backup-tests/neo4j",
        "-c",
        "cd /data/databases/neo4j && for f in neostore*; do echo rubbish >\"$f\"; done",
    ]);
    real.docker(&["start", &real.container("database")]);
    wait_until("it serves", || {
        let health = ["inspect", "--format", "{{.State.Health.Status}}", &real.container("database")];
        real.docker(&health) == "healthy"
    });
    sandbox.run(["create"]).with_code(1);
    let restored = sandbox.run(["restore", &id, "--yes"]).ok();
    for line in
        ["do NOT back up what is in `database` now", "back up what is there now first: task-manager-db, artifacts"]
    {
        assert!(restored.err.contains(line), "{}", restored.err);
    }
    real.assert_running();
    assert_eq!(real.content(), before);
    assert_eq!(sandbox.snapshots().len(), 3, "the safety snapshot is missing");
}

#[test]
fn a_database_that_had_to_be_killed_is_restored_over_all_the_same() {
    let Some(real) = Project::take("a database that is killed behind a restore's back") else { return };
    let sandbox = real.sandbox();
    let before = real.content();
    sandbox.run(["create", "--init"]).ok();
    let id = sandbox.snapshots().remove(0);
    let restore = ["restore", &id, "--yes", "--no-safety-snapshot", "--component", "database"];
    let running = sandbox.start("restore", restore);
    wait_until("the first service stops", || {
        sandbox.journals().concat().iter().any(|line| line["entry"] == "stopping")
    });
    real.sh("database", "pkill -STOP java");
    wait_until("the database stops", || noted(&sandbox, "stopping", "database"));
    real.docker(&["kill", &real.container("database")]);
    let restored = running.wait().ok();
    assert!(restored.err.contains("was killed instead of stopped"), "{}", restored.err);
    real.assert_running();
    assert_eq!(real.content(), before);
}

/// Containers with the labels of a deployment, which never run, and their volume.
struct Shell<'a> {
    real: &'a Project,
    project: &'static str,
}

impl<'a> Shell<'a> {
    fn new(real: &'a Project, project: &'static str, options: &[&str]) -> Self {
        let shell = Self { real, project };
        let options: Vec<&str> = options.iter().flat_map(|option| ["--opt", option]).collect();
        real.docker(&[&["volume", "create"][..], &options, &[project]].concat());
        let label = format!("com.docker.compose.project={project}");
        let volume = format!("{project}:/opt/infrahub/storage:nocopy");
        for service in ["database", "infrahub-server"] {
            let service = format!("com.docker.compose.service={service}");
            real.docker(&[
                "create",
                "--label",
                &label,
                "--label",
                &service,
                "-v",
                &volume,
                "infrahub-backup-tests/server",
            ]);
        }
        shell
    }
}

impl Drop for Shell<'_> {
    fn drop(&mut self) {
        let filter = format!("label=com.docker.compose.project={}", self.project);
        for id in self.real.docker(&["ps", "-aq", "--filter", &filter]).lines() {
            self.real.docker(&["rm", "-f", id]);
        }
        self.real.docker(&["volume", "rm", self.project]);
    }
}

#[test]
fn artifacts_on_a_volume_that_is_there_only_while_a_container_runs_are_refused() {
    let Some(real) = Project::take("artifact stores on volumes with mounts of their own") else { return };
    let sandbox = real.sandbox_without_name();
    let shell = Shell::new(&real, "ibk-mounted", &["type=tmpfs", "device=tmpfs", "o=size=1m"]);
    let create = ["create", "--init", "--project", shell.project, "--component", "artifacts"];
    sandbox.run(create).with_code(1).says(&["type `tmpfs`", "only while a container runs", "--exclude artifacts"]);
    drop(shell);

    // This one shows a folder of the machine, which is there whatever runs.
    let folder = sandbox.path("store");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("object"), "one").expect("a file");
    let device = format!("device={}", folder.display());
    let shell = Shell::new(&real, "ibk-bound", &["type=none", "o=bind", &device]);
    let create = ["create", "--init", "--project", shell.project, "--component", "artifacts"];
    sandbox.run(create).ok();
    fs::write(folder.join("object"), "two").expect("a file");
    sandbox.run(["restore", "latest", "--project", shell.project, "--component", "artifacts", "--yes"]).ok();
    assert_eq!(fs::read_to_string(folder.join("object")).expect("it is back"), "one");
}

#[test]
fn running_tasks_are_waited_for_before_anything_is_stopped() {
    let Some(real) = Project::take("waiting for running tasks") else { return };
    let sandbox = real.sandbox();
    sandbox.run(["init", "--no-password"]).ok();
    // Three of them count, which is more than one page of the stand-in.
    let run = |id: u32, name: &str, state: &str| format!(r#"{{"id":"{id}","name":"{name}","state_type":"{state}"}}"#);
    let states = [("Merge", "RUNNING"), ("Later", "SCHEDULED"), ("Sync", "PENDING"), ("Import", "RUNNING")];
    let runs: Vec<String> = (0..).zip(states).map(|(id, (name, state))| run(id, name, state)).collect();
    let tell = |text: &str| drop(real.sh("task-manager", &format!("echo '{text}' >/run/tasks.json")));

    tell(&format!("[{}]", runs.join(",")));
    let before = real.running();
    let refused = sandbox.run(["create", "--wait-for-tasks", "6s"]).with_code(11);
    refused.says(&["still runs 3 tasks: `Merge` (running), `Sync` (pending), `Import` (running)", "--force"]);
    assert_eq!(real.running(), before);

    // One that cannot be asked is not taken for one where nothing runs.
    tell("rubbish");
    sandbox.run(["create"]).with_code(1).says(&["whether tasks run is not known", "--force"]);
    assert_eq!(real.running(), before);
    sandbox.run(["create", "--force"]).ok();

    tell(&format!("[{}]", runs.join(",")));
    let before = real.running();
    let waiting = sandbox.start("create", ["create"]);
    let said = || fs::read_to_string(sandbox.path("create.err")).unwrap_or_default();
    wait_until("it waits", || said().contains("waiting for 3 tasks: `Merge` (running)"));
    assert_eq!(real.running(), before);
    tell("[]");
    waiting.wait().ok();
    real.assert_running();
    assert!(sandbox.journals().is_empty());
}

#[test]
fn a_snapshot_knows_the_version_of_infrahub_and_is_made_without_it_where_it_cannot_be_had() {
    let Some(real) = Project::take("the version of Infrahub in snapshots") else { return };
    let sandbox = real.sandbox();
    let create = ["create", "--init", "--component", "task-manager-db", "--json"];
    let created = sandbox.run(create).ok().says(&["warning: the version of Infrahub is not known", "No module named"]);
    assert!(created.json().get("infrahub_version").is_none());

    // What an import says is not the version.
    let module = "import sys; print('old', file=sys.stderr); print('hello'); __version__ = '1.11.9'";
    real.sh("infrahub-server", &format!("echo \"{module}\" >/usr/lib/python3/dist-packages/infrahub.py"));
    let created = sandbox.run(create).ok();
    assert_eq!(created.json()["infrahub_version"], "1.11.9");
    assert!(!created.err.contains("version of Infrahub"), "{}", created.err);
}
