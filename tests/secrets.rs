//! The secrets that open a repository are nowhere but where the user put them: not in what is said or written, not in
//! arguments, not in what children get; and no core image is made of who holds them.

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use infrahub_backup::format::key_file::KeyFile;
use infrahub_backup::repository::keys::Added;
use infrahub_backup::seal::change::NewSlot;
use infrahub_backup::seal::keys::{KeyParts, Keys};
use infrahub_backup::seal::slot::{Credential, NewCredential, NewRepository};
use support::scripted::Scripted;
use support::secrets::{Secrets, Watcher};
use support::{Ran, Sandbox, package_file, wait_until};

// Odd on purpose: what must never be seen should look different in every encoding.
const FIRST: &str = "f+r's \"t/ pä%ss:wörd";
const SECOND: &str = "s€c'ond \\p@ss?word&";
const WRONG: &str = "wr+ong= pä'ssw/ord";
const BUCKET_SECRET: &str = "b/uck+et sec\"ret/kéy";

const BINARY: &str = env!("CARGO_BIN_EXE_infrahub-backup");

/// Fails to compile where `$type` has the trait: then two implementations fit.
macro_rules! lacks {
    ($($type:ty),+; $($bound:path),+) => { lacks!(@ ($($type),+) ($($bound),+)); };
    (@ ($($type:ty),+) $bounds:tt) => { $(lacks!(@@ $type, $bounds);)+ };
    (@@ $type:ty, ($($bound:path),+)) => { $(const _: fn() = || {
        trait Ambiguous<A> { fn it() {} }
        impl<T: ?Sized> Ambiguous<()> for T {}
        struct Has;
        impl<T: ?Sized + $bound> Ambiguous<Has> for T {}
        let _ = <$type as Ambiguous<_>>::it;
    };)+ };
}

lacks!(Keys, KeyParts, KeyFile, Credential, NewCredential, NewRepository, NewSlot, Added;
    std::fmt::Debug, std::fmt::Display, serde::Serialize);
lacks!(infrahub_backup::provider::secret::Secret; std::fmt::Display, serde::Serialize);

/// A deployment, a repository that a password opens, and everything that was said.
struct World {
    scripted: Scripted,
    said: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.path("secrets")).expect("a folder");
        for (name, password) in [("first", FIRST), ("second", SECOND), ("wrong", WRONG)] {
            sandbox.write(&format!("secrets/{name}"), format!("{password}\n"));
        }
        Self { scripted: Scripted::inside(sandbox, "site"), said: Vec::new() }
    }

    fn sandbox(&self) -> &Sandbox {
        &self.scripted.sandbox
    }

    /// Runs the binary with these arguments and variables.
    fn run(&mut self, code: i32, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
        let repo = self.sandbox().repository.display().to_string();
        let mut command = Command::new(BINARY);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.sandbox().path("home")).env("INFRAHUB_REPO", repo);
        for (name, folder) in [("CONFIG", "config"), ("STATE", "state"), ("CACHE", "cache")] {
            command.env(format!("XDG_{name}_HOME"), self.sandbox().path(folder));
        }
        command.env("INFRAHUB_CONFIG", self.sandbox().path("infrahub-backup.toml"));
        command.envs(variables.iter().copied()).args(arguments).args(["-v", "-v"]);
        command.current_dir(self.sandbox().path("")).stdin(Stdio::null());
        let ran = Ran::of(command).with_code(code);
        self.said.extend_from_slice(&ran.out);
        self.said.extend_from_slice(ran.err.as_bytes());
        ran
    }

    fn run_first(&mut self, arguments: &[&str]) -> Ran {
        let arguments = [arguments, &["--password-file", "secrets/first"]].concat();
        self.run(0, &[], &arguments)
    }

    /// Back up, restore, verify, change keys.
    fn work(&mut self) {
        let day2 = package_file("src/demo/task-manager-db-day2.dump").display().to_string();
        self.run(0, &[], &["init", "--password-file", "secrets/first"]);
        self.run(0, &[("INFRAHUB_REPO_PASSWORD", FIRST)], &["create", "--log-format", "json"]);
        let by_command = ["create", "from-files", "--postgres-path", &day2, "--password-command", "cat secrets/first"];
        self.run(0, &[], &by_command);
        self.run_first(&["key", "add", "--role", "reader", "--new-password-file", "secrets/second", "--label", "two"]);
        self.run_first(&[
            "key",
            "add",
            "--role",
            "writer",
            "--new-key-file",
            "secrets/writer.key",
            "--label",
            "writer",
        ]);
        self.run(0, &[("INFRAHUB_KEY_FILE", "secrets/writer.key")], &["create", "--json"]);
        self.run_first(&["restore", "latest", "--yes", "--to-files", "out"]);
        self.run(0, &[("INFRAHUB_REPO_PASSWORD", SECOND)], &["restore", "latest", "--yes", "--deployment", "site"]);
        self.run_first(&["verify", "--depth", "data", "--json"]);
        self.run_first(&["key", "rotate", "--content", "--json"]);
        self.run_first(&["key", "remove", "writer"]);
        self.run_first(&["key", "list", "--json"]);
        self.run_first(&["snapshots", "show", "latest", "--json"]);
        let reports = self.run_first(&["report", "list", "--json"]).json();
        for report in support::found(&reports, "reports").or_else(|| reports.as_array()).expect("reports").clone() {
            self.run_first(&["report", "show", report["id"].as_str().expect("an id"), "--json"]);
        }
    }

    /// Everything that goes wrong with what was given.
    fn fail(&mut self) {
        for variable in [FIRST, WRONG] {
            // Two that say what opens it, and one that does not.
            self.run(
                2,
                &[("INFRAHUB_REPO_PASSWORD", variable), ("INFRAHUB_KEY_FILE", "secrets/first")],
                &["snapshots"],
            );
        }
        self.run(12, &[("INFRAHUB_REPO_PASSWORD", WRONG)], &["snapshots", "--json"]);
        self.run(12, &[], &["create", "--password-file", "secrets/wrong", "--log-format", "json"]);
        self.run(12, &[], &["restore", "latest", "--yes", "--password-command", "cat secrets/wrong secrets/wrong"]);
        // Prints the password where only errors belong, and fails.
        self.run(12, &[], &["verify", "--password-command", "cat secrets/first >&2; exit 3"]);
        self.run(12, &[], &["snapshots", "--key-file", "secrets/first"]);
        self.run(12, &[], &["snapshots", "--key-file", "secrets/writer.key"]);
        self.run(1, &[("INFRAHUB_REPO_PASSWORD", FIRST)], &["dump", "latest", "nothing-of-this-name"]);
        let bucket = [
            ("INFRAHUB_REPO", "s3://bucket/prefix"),
            ("INFRAHUB_REPO_PASSWORD", FIRST),
            ("AWS_ACCESS_KEY_ID", "somebody"),
            ("AWS_SECRET_ACCESS_KEY", BUCKET_SECRET),
            ("INFRAHUB_S3_ENDPOINT", "http://127.0.0.1:9"),
        ];
        self.run(1, &bucket, &["snapshots"]);
    }
}

/// The key in a key file.
fn key_in(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).expect("a key file");
    let key = text.lines().last().and_then(|line| line.rsplit(' ').next()).expect("a key");
    base64::engine::general_purpose::STANDARD.decode(key).expect("base64")
}

#[test]
fn what_opens_a_repository_is_nowhere_but_where_the_user_put_it() {
    let mut world = World::new();
    let mark = world.sandbox().path("home").display().to_string().into_bytes();
    let binary = fs::canonicalize(BINARY).expect("the binary");
    // Long enough to be seen, and what the children get goes to a file as well.
    world.scripted.hook("dump-queue", "tr '\\0' '\\n' </proc/$$/environ >\"$here/environment\"; sleep 0.3");
    let watcher = Watcher::start(binary, mark);
    world.work();
    world.fail();
    let seen = watcher.seen();
    let key = key_in(&world.sandbox().path("secrets/writer.key"));
    let secrets = Secrets::new([FIRST, SECOND, WRONG, BUCKET_SECRET].map(str::as_bytes).into_iter().chain([&key[..]]));
    secrets.assert_nowhere("what was said", &world.said);
    for folder in ["repository", "state", "cache", "deployment", "out", "home"] {
        if folder != "home" || world.sandbox().path("home").read_dir().expect("a home").next().is_some() {
            secrets.assert_not_below(&world.sandbox().path(folder));
        }
    }
    let dumps = |arguments: &&Vec<u8>| arguments.windows(6).any(|part| part == b"queue\0");
    assert!(seen.arguments.iter().any(|arguments| dumps(&arguments)), "no dump was seen");
    assert!(seen.environments.keys().any(|arguments| dumps(&arguments)), "no child's environment was seen");
    for arguments in &seen.arguments {
        secrets.assert_nowhere("arguments", arguments);
    }
    for (arguments, environment) in &seen.environments {
        secrets.assert_nowhere(&String::from_utf8_lossy(arguments), environment);
    }
}

/// Ends `command` with a signal that makes core images, once it is `ready`; whether one was made.
fn dumps_core(mut command: Command, ready: impl FnOnce()) -> bool {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    ready();
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::QUIT).expect("it runs");
    child.wait().expect("it ends").core_dumped()
}

/// A shell that becomes the program that its arguments name, with core images of any size allowed.
fn unlimited(program: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited && exec \"$@\"", "sh", program]);
    command
}

#[test]
fn no_core_image_is_made_of_a_process_that_holds_keys() {
    let sandbox = Sandbox::with_repository();
    let mut sleep = unlimited("sleep");
    sleep.arg("60").current_dir(sandbox.path(""));
    if !dumps_core(sleep, || std::thread::sleep(std::time::Duration::from_millis(300))) {
        eprintln!("not tested, since this machine makes no core images: that none is made of this program");
        return;
    }
    let create = sandbox.command_of(unlimited(BINARY), ["create", "from-files", "--postgres-path", "-"]);
    let leases = || fs::read_dir(sandbox.repository.join("leases")).map_or(0, Iterator::count);
    assert!(!dumps_core(create, || wait_until("it has opened the repository", || leases() > 0)));
}
