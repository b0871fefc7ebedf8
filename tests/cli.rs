//! The program as its users meet it: exit codes, what stands on standard output and on standard error.
//!
//! Every test has folders of its own for state, cache and configuration, and an environment without variables.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use infrahub_backup::cli::exit;
use serde_json::Value;
use tempfile::TempDir;

const DATABASE: &[u8] = include_bytes!("../src/demo/database-day1.dump");
const TASK_MANAGER: &[u8] = include_bytes!("../src/demo/task-manager-db-day1.dump");

/// One user on one machine.
struct Machine {
    folder: TempDir,
}

/// What a run said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["work", "home"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infrahub-backup"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.path("home")).env("USER", "tester");
        command.args(arguments).current_dir(self.path("work")).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, &[])
    }

    fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
        said(self.command(arguments).envs(variables.iter().copied()).output().expect("it starts"))
    }

    /// Runs with the repository and its key file.
    fn opened(&self, arguments: &[&str]) -> Said {
        self.run_with(
            arguments,
            &[("INFRAHUB_REPO", &self.text("repo")), ("INFRAHUB_KEY_FILE", &self.text("repo.key"))],
        )
    }

    fn init(&self) {
        self.opened(&["init", "--no-password"]).ends(0);
    }

    fn create(&self) -> Value {
        fs::write(self.path("n.dump"), DATABASE).unwrap();
        fs::write(self.path("p.dump"), TASK_MANAGER).unwrap();
        fs::create_dir_all(self.path("art/sub")).unwrap();
        fs::write(self.path("art/sub/file"), b"content").unwrap();
        let paths = [self.text("n.dump"), self.text("p.dump"), self.text("art")];
        let line = ["create", "from-files", "--json", "--tag", "why=test", "--neo4j-path", &paths[0]];
        let said = self.opened(&[&line[..], &["--postgres-path", &paths[1], "--artifacts-path", &paths[2]]].concat());
        said.ends(0).json()
    }
}

fn said(output: Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: output.status.code().expect("an exit code"), out: text(output.stdout), err: text(output.stderr) }
}

impl Said {
    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\n--- standard output\n{}\n--- standard error\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn tells(self, text: &str) -> Self {
        assert!(self.err.contains(text), "`{text}` is not in:\n{}", self.err);
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in:\n{}", self.out))
    }
}

fn files_below(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| if path.is_dir() { files_below(&path) } else { 1 })
        .sum()
}

#[test]
fn help_lists_the_commands() {
    let said = Machine::new().run(&["--help"]).ends(0);
    for command in
        ["init", "create", "snapshots", "restore", "dump", "verify", "drill", "prune", "report", "resume", "demo"]
    {
        assert!(said.out.contains(&format!("\n  {command} ")), "{command} is not in:\n{}", said.out);
    }
}

#[test]
fn without_arguments_it_helps_and_ends_well() {
    assert!(Machine::new().run(&[]).ends(0).out.contains("Usage:"));
}

#[test]
fn an_unknown_argument_is_a_usage_error() {
    Machine::new().run(&["create", "typo"]).ends(2);
    Machine::new().run(&["verify", "--depht", "data"]).ends(2);
    Machine::new().run(&["craete"]).ends(2);
}

#[test]
fn a_variable_that_is_no_truth_value_is_a_usage_error_that_names_it() {
    Machine::new().run_with(&["snapshots"], &[("INFRAHUB_JSON", "perhaps")]).ends(2).tells("INFRAHUB_JSON");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    Machine::new().run_with(&["version"], &[("INFRAHUB_JSON", ""), ("INFRAHUB_LOG_FORMAT", "")]).ends(0);
}

#[test]
fn what_the_predecessor_reached_and_this_does_not_is_said_so() {
    let machine = Machine::new();
    machine.run(&["create", "--k8s-namespace", "x"]).ends(1).tells("the Kubernetes provider is not built yet");
    let archive = ["--backend", "tarball", "create", "from-files", "--neo4j-path", "x"];
    machine.run(&[&archive[..], &["--redact"]].concat()).ends(2).tells("`--redact` needs a deployment on Docker");
}

#[test]
fn a_key_file_inside_the_repository_is_refused_before_anything_is_made() {
    let machine = Machine::new();
    let key = machine.text("repo/my.key");
    machine
        .run(&["init", "--no-password", "--repo", &machine.text("repo"), "--key-file", &key])
        .ends(2)
        .tells("inside");
    assert!(!machine.path("repo").exists());
}

#[test]
fn a_key_file_inside_the_folder_of_backups_is_refused_before_anything_is_made() {
    let machine = Machine::new();
    let (folder, key) = (machine.text("backups"), machine.text("backups/my.key"));
    machine.run(&["init", "--no-password", "--backup-dir", &folder, "--key-file", &key]).ends(2).tells("inside");
    assert!(!machine.path("backups").exists());
}

#[test]
fn a_key_file_that_is_there_is_not_overwritten() {
    let machine = Machine::new();
    fs::write(machine.path("repo.key"), "mine").unwrap();
    machine.opened(&["init", "--no-password"]).ends(2);
    assert_eq!(fs::read(machine.path("repo.key")).unwrap(), b"mine");
    assert!(!machine.path("repo").exists());
}

#[test]
fn a_second_init_leaves_the_repository_as_it_is() {
    let machine = Machine::new();
    machine.init();
    let before = files_below(&machine.path("repo"));
    machine.run(&["init", "--no-password", "--repo", &machine.text("repo")]).ends(2).tells("already a repository");
    assert_eq!(files_below(&machine.path("repo")), before);
}

#[test]
fn the_key_file_of_the_users_folder_is_found_again() {
    let machine = Machine::new();
    let repo = machine.text("repo");
    let made = machine.run(&["init", "--no-password", "--json", "--repo", &repo]).ends(0).json();
    assert!(Path::new(made["key_file"].as_str().unwrap()).starts_with(machine.path("home")));
    machine.run(&["snapshots", "--repo", &repo]).ends(0);
}

#[test]
fn a_dry_run_of_init_makes_nothing() {
    let machine = Machine::new();
    machine.opened(&["init", "--no-password", "--dry-run"]).ends(0);
    assert!(!machine.path("repo").exists() && !machine.path("repo.key").exists());
}

#[test]
fn a_wrong_password_ends_with_12() {
    let machine = Machine::new();
    let repo = machine.text("repo");
    machine.run_with(&["init", "--repo", &repo], &[("INFRAHUB_REPO_PASSWORD", "right")]).ends(0);
    machine.run_with(&["snapshots", "--repo", &repo], &[("INFRAHUB_REPO_PASSWORD", "right")]).ends(0);
    let said = machine.run_with(&["snapshots", "--repo", &repo], &[("INFRAHUB_REPO_PASSWORD", "hunter2")]).ends(12);
    assert!(!said.err.contains("hunter2"));
    machine.run(&["snapshots", "--repo", &repo]).ends(12).tells("nobody can be asked");
}

#[test]
fn a_flag_beats_a_variable_and_two_variables_are_refused() {
    let machine = Machine::new();
    machine.init();
    let (repo, key) = (machine.text("repo"), machine.text("repo.key"));
    let wrong = ("INFRAHUB_REPO_PASSWORD", "wrong");
    machine.run_with(&["snapshots", "--repo", &repo, "--key-file", &key], &[wrong]).ends(0);
    machine.run_with(&["snapshots", "--repo", &repo], &[wrong, ("INFRAHUB_KEY_FILE", &key)]).ends(2).tells("both say");
}

#[test]
fn the_configuration_file_names_repository_and_key() {
    let machine = Machine::new();
    machine.init();
    let config = "[deployment]\nname = \"site-1\"\n[repository]\nurl = \"../repo\"\nkey_file = \"../repo.key\"\n\
                  [[component]]\nname = \"x\"\nkind = \"opaque\"\ndump = [\"echo\", \"x\"]\nload = [\"cat\"]\n";
    fs::write(machine.path("work/infrahub-backup.toml"), config).unwrap();
    machine.run(&["snapshots", "list"]).ends(0);
    assert!(machine.run(&["environment", "detect"]).ends(0).out.contains("site-1"));
}

#[test]
fn a_place_without_a_repository_ends_with_10() {
    let machine = Machine::new();
    machine.run(&["snapshots", "--repo", &machine.text("nothing")]).ends(10).tells("hint: make one");
    assert!(!machine.path("nothing").exists());
}

#[test]
fn create_into_an_empty_place_wants_to_be_told_init() {
    let machine = Machine::new();
    fs::write(machine.path("p.dump"), TASK_MANAGER).unwrap();
    let (repo, dump) = (machine.text("repo"), machine.text("p.dump"));
    let line = ["create", "from-files", "--postgres-path", &dump, "--repo", &repo];
    machine.run(&line).ends(10).tells("create --init");
    machine.run(&[&line[..], &["--init"]].concat()).ends(0).tells("its key file is");
    machine.run(&["snapshots", "--repo", &repo]).ends(0);
}

#[test]
fn a_plakar_repository_ends_with_10_and_names_the_way_out() {
    let machine = Machine::new();
    fs::create_dir_all(machine.path("repo/packfiles/00")).unwrap();
    fs::write(machine.path("repo/packfiles/00/aa"), "x").unwrap();
    fs::write(machine.path("repo/CONFIG"), "x").unwrap();
    machine.opened(&["snapshots"]).ends(10).tells("readable with plakar");
    machine.run(&["init", "--no-password", "--repo", &machine.text("repo")]).ends(10).tells("readable with plakar");
}

#[test]
fn a_share_that_is_not_mounted_is_not_backed_up_into() {
    let machine = Machine::new();
    machine.init();
    fs::rename(machine.path("repo"), machine.path("unmounted")).unwrap();
    fs::create_dir(machine.path("repo")).unwrap();
    fs::write(machine.path("p.dump"), TASK_MANAGER).unwrap();
    let dump = machine.text("p.dump");
    machine.opened(&["create", "--init", "from-files", "--postgres-path", &dump]).ends(10).tells("unmounted share?");
    assert_eq!(files_below(&machine.path("repo")), 0);
}

#[test]
fn another_repository_at_the_place_is_refused_unless_accepted() {
    let machine = Machine::new();
    machine.init();
    let other = Machine::new();
    other.init();
    fs::rename(machine.path("repo"), machine.path("old")).unwrap();
    fs::rename(other.path("repo"), machine.path("repo")).unwrap();
    let (repo, key) = (machine.text("repo"), other.text("repo.key"));
    let line = ["snapshots", "--repo", &repo, "--key-file", &key];
    machine.run(&line).ends(10).tells("holds repository");
    machine.run(&[&line[..], &["--accept-new-repository"]].concat()).ends(0);
    machine.run(&line).ends(0);
}

#[test]
fn the_list_has_the_promised_shape() {
    let machine = Machine::new();
    machine.init();
    let created = machine.create();
    let list = machine.opened(&["snapshots", "list", "--json"]).ends(0).json();
    let [snapshot] = list.as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!(snapshot["id"], created["id"]);
    assert_eq!(snapshot["id"].as_str().unwrap().len(), 64);
    assert_eq!(snapshot["status"], "complete");
    assert_eq!(snapshot["deployment"], "files");
    assert_eq!(snapshot["tags"]["why"], "test");
    assert_eq!(snapshot["hold"], false);
    assert!(snapshot["created_at"].as_str().unwrap().ends_with('Z'));
    let names: Vec<_> =
        snapshot["components"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 3);
    for component in snapshot["components"].as_array().unwrap() {
        for size in ["logical_bytes", "added_bytes", "shared_bytes"] {
            assert!(component[size].is_u64(), "{size} in {component}");
        }
    }
}

#[test]
fn the_predecessors_keys_are_in_the_list_where_its_flags_are() {
    let machine = Machine::new();
    machine.init();
    machine.create();
    let list = machine.opened(&["snapshots", "list", "--log-format", "json", "--backend", "plakar"]).ends(0).json();
    for key in ["backup_id", "date", "neo4j_edition", "snapshots", "id"] {
        assert!(!list[0][key].is_null(), "{key}");
    }
}

#[test]
fn a_dump_is_what_was_given() {
    let machine = Machine::new();
    machine.init();
    machine.create();
    let output = |arguments: &[&str]| {
        let keys = [("INFRAHUB_REPO", machine.text("repo")), ("INFRAHUB_KEY_FILE", machine.text("repo.key"))];
        machine.command(arguments).envs(keys).output().unwrap().stdout
    };
    assert!(output(&["dump", "latest", "task-manager-db"]) == TASK_MANAGER);
    assert_eq!(output(&["dump", "latest", "artifacts", "sub/file"]), b"content");
}

#[test]
fn a_sound_repository_verifies_and_a_damaged_one_ends_with_4() {
    let machine = Machine::new();
    machine.init();
    let id = machine.create()["id"].as_str().unwrap().to_owned();
    machine.opened(&["verify", "--depth", "data"]).ends(0);
    machine.opened(&["snapshots", "show", &id[..6]]).ends(0);
    let pack = first_file(&machine.path("repo/packs"));
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, bytes).unwrap();
    let found = machine.opened(&["verify", "--depth", "data", "--json"]).ends(4).json();
    assert!(!found["findings"].as_array().unwrap().is_empty());
}

#[test]
fn verify_of_one_snapshot_reads_only_the_packs_that_it_needs() {
    let machine = Machine::new();
    machine.init();
    let back_up = |content: &str| {
        let folder = machine.path("art");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), content.repeat(1000)).unwrap();
        let path = machine.text("art");
        let said = machine.opened(&["create", "from-files", "--json", "--artifacts-path", &path]).ends(0).json();
        said["id"].as_str().unwrap().to_owned()
    };
    let first = back_up("first");
    let of_first = pack_files(&machine);
    let second = back_up("second");
    let of_second: Vec<PathBuf> = pack_files(&machine).into_iter().filter(|pack| !of_first.contains(pack)).collect();
    let whole = machine.opened(&["verify", &first, "--depth", "data", "--json"]).ends(0).json();
    let number = |document: &Value, name: &str| document[name].as_u64().unwrap();
    assert_eq!(number(&whole, "packs_read"), of_first.len() as u64, "{whole:#}");
    let told = whole["not_checked"].as_array().unwrap().iter().find(|told| told["what"] == "packs").unwrap();
    assert_eq!((told["reason"].as_str(), number(told, "count")), (Some("not-asked-for"), of_second.len() as u64));
    of_second.iter().for_each(|pack| spoil(pack));
    machine.opened(&["verify", &first, "--depth", "data"]).ends(0);
    machine.opened(&["verify", &second, "--depth", "data"]).ends(4);
    // A machine that has no recipe of it in its cache cannot know what it needs.
    let read = machine.opened(&["verify", &second, "--depth", "data", "--no-cache", "--json"]).ends(4).json();
    assert_eq!(number(&read, "packs_read"), number(&read, "packs"), "{read:#}");
}

#[test]
fn quiet_says_nothing_of_a_success_and_all_that_must_be_looked_at() {
    let machine = Machine::new();
    machine.init();
    machine.create();
    let path = machine.text("art");
    let create = ["create", "from-files", "--artifacts-path", &path];
    let quiet = |arguments: &[&str]| machine.opened(&[arguments, &["--quiet"]].concat());
    let hold = ["snapshots", "hold", "latest"];
    for arguments in
        [&create[..], &["verify"], &["verify", "--without-key"], &hold, &["forget", "--keep-last", "1"], &["prune"]]
    {
        let said = quiet(arguments).ends(0);
        assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""), "{arguments:?}");
    }
    // What somebody asks to see is no news of a success.
    for arguments in [&["snapshots"][..], &["report"], &["prune", "--dry-run"], &["snapshots", "show", "latest"]] {
        assert_ne!(quiet(arguments).ends(0).out, "", "{arguments:?}");
    }
    assert_eq!(quiet(&["verify", "--json"]).ends(0).json()["findings"], serde_json::json!([]));
    spoil(&first_file(&machine.path("repo/packs")));
    let found = quiet(&["verify", "--depth", "data"]).ends(4);
    assert!(found.out.contains("damage in packs/"), "{}", found.out);
}

#[test]
fn quiet_still_says_where_a_new_key_file_is() {
    let machine = Machine::new();
    let said = machine.opened(&["init", "--no-password", "--quiet"]).ends(0);
    assert!(said.out.contains(&machine.text("repo.key")), "{}", said.out);
}

#[test]
fn a_budget_without_a_key_warns_in_one_line_that_it_takes_the_same_packs_each_time() {
    let machine = Machine::new();
    machine.init();
    machine.create();
    let warned = |more: &[&str]| {
        let said = machine.opened(&[&["verify", "--without-key", "--budget", "1MB", "--quiet"], more].concat()).ends(0);
        said.err.lines().filter(|line| line.contains("--shard or --sample")).count()
    };
    assert_eq!((warned(&[]), warned(&["--shard", "1/2"]), warned(&["--sample", "50%"])), (1, 0, 0));
}

fn pack_files(machine: &Machine) -> Vec<PathBuf> {
    ["repo/packs", "repo/trees"].iter().flat_map(|folder| all_files(&machine.path(folder))).collect()
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { all_files(&path) } else { vec![path] }).collect()
}

/// Changes every byte and not the length.
fn spoil(file: &Path) {
    let bytes: Vec<u8> = fs::read(file).unwrap().iter().map(|byte| byte ^ 1).collect();
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
}

fn first_file(folder: &Path) -> PathBuf {
    let path = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    if path.is_dir() { first_file(&path) } else { path }
}

#[test]
fn restore_without_yes_and_without_a_terminal_touches_nothing() {
    let machine = Machine::new();
    machine.init();
    machine.create();
    let to = machine.text("to");
    machine.opened(&["restore", "latest", "--to-files", &to]).ends(2).tells("--yes");
    machine.opened(&["restore", "--to-files", &to, "--dry-run"]).ends(0);
    assert!(!machine.path("to").exists());
}

#[test]
fn restored_files_are_what_was_given() {
    let machine = Machine::new();
    machine.init();
    machine.create();
    machine.opened(&["restore", "--to-files", &machine.text("to"), "--yes"]).ends(0);
    assert!(fs::read(machine.path("to/task-manager-db.dump")).unwrap() == TASK_MANAGER);
    assert_eq!(fs::read(machine.path("to/artifacts/sub/file")).unwrap(), b"content");
}

#[test]
fn a_snapshot_that_is_not_there_is_said_so() {
    let machine = Machine::new();
    machine.init();
    machine.opened(&["snapshots", "show", "abcdef"]).ends(1).tells("hint: see what there is");
    machine.opened(&["restore", "--at", "2020-01-01 00:00", "--to-files", "x", "--yes"]).ends(1);
}

#[test]
fn every_operation_leaves_a_report() {
    let machine = Machine::new();
    machine.init();
    machine.create();
    let list = machine.opened(&["report", "list", "--json"]).ends(0).json();
    assert!(list.as_array().unwrap().iter().any(|report| report["operation"] == "create"), "{list}");
    machine.opened(&["report", "show", "latest"]).ends(0);
}

#[test]
fn an_error_in_json_is_one_line() {
    let machine = Machine::new();
    let said = machine.run(&["--log-format", "json", "snapshots", "--repo", &machine.text("nothing")]).ends(10);
    let error: Value = serde_json::from_str(said.err.trim()).expect("one line of JSON");
    assert_eq!(error["level"], "error");
    assert!(error["hint"].is_string() && error["time"].is_string());
}

#[test]
fn nothing_to_resume_is_no_error() {
    Machine::new().run(&["resume"]).ends(0);
}

#[test]
fn a_completion_script_is_written() {
    assert!(Machine::new().run(&["completion", "bash"]).ends(0).out.contains("infrahub-backup"));
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let machine = Machine::new();
    let mut child =
        machine.command(&["completion", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let said = said(child.wait_with_output().unwrap());
    assert!(!said.err.contains("panic"), "{}", said.err);
}

#[test]
fn the_demo_restores_what_it_backed_up_and_leaves_nothing_behind() {
    let machine = Machine::new();
    fs::create_dir(machine.path("tmp")).unwrap();
    let said = machine.run_with(&["demo"], &[("TMPDIR", &machine.text("tmp"))]).ends(0);
    assert_eq!(said.out.matches(": the same").count(), 3, "{}", said.out);
    assert_eq!(fs::read_dir(machine.path("tmp")).unwrap().count(), 0);
    assert_eq!(files_below(&machine.path("home")), 0);
}

/// With UPDATE_DOCS set, writes the page instead.
#[test]
fn the_page_of_exit_codes_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/exit-codes.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, exit::document()).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), exit::document());
}
