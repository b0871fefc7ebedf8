//! A deployment of shell scripts: two services that are a `sleep` each, a Neo4j Community whose dump is a file, a queue, and a
//! folder of artifacts.
//!
//! A *hook* is a piece of shell that one of the scripts runs first: `hook("dump-database", "exit 7")`. `$PPID` is the binary.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Sandbox, package_file};

const SERVICE: &str = r#"#!/bin/sh
# service stop|start|probe NAME: something that runs, namely a sleep
here=${0%/*} pid=${0%/*}/pid-$2
[ ! -e "$here/hook-$1-$2" ] || . "$here/hook-$1-$2"
running() { [ -s "$pid" ] && kill -0 "$(cat "$pid")" 2>/dev/null; }
case $1 in
stop) running && kill "$(cat "$pid")"; rm -f "$pid" ;;
start)
    running && exit 0
    setsid sleep 3600 >/dev/null 2>&1 </dev/null &
    echo $! >"$pid.new" && mv "$pid.new" "$pid" ;;
probe) running ;;
esac
"#;

const DUMP: &str = r#"#!/bin/sh
# dump NAME: what `load NAME` was given last
here=${0%/*}
[ ! -e "$here/hook-dump-$1" ] || . "$here/hook-dump-$1"
exec cat "$here/$1.content"
"#;

const LOAD: &str = r#"#!/bin/sh
# load NAME: keeps standard input, if all of it came
here=${0%/*}
[ ! -e "$here/hook-load-$1" ] || . "$here/hook-load-$1"
cat >"$here/$1.new" && mv "$here/$1.new" "$here/$1.content"
"#;

/// The services.
pub const SERVICES: [&str; 2] = ["database", "infrahub-server"];

/// A deployment and who backs it up.
pub struct Scripted {
    /// Where the binary runs.
    pub sandbox: Sandbox,
    folder: PathBuf,
}

impl Scripted {
    /// All of it, running; the repository is there and empty.
    pub fn new(deployment: &str) -> Self {
        Self::inside(Sandbox::with_repository(), deployment)
    }

    /// The same in a sandbox that is there.
    pub fn inside(mut sandbox: Sandbox, deployment: &str) -> Self {
        let folder = sandbox.path("deployment");
        fs::create_dir_all(folder.join("artifacts/objects")).expect("a folder");
        for (name, text) in [("service", SERVICE), ("dump", DUMP), ("load", LOAD)] {
            fs::write(folder.join(name), text).expect("a script");
        }
        let config = sandbox.write("infrahub-backup.toml", config(deployment, &folder));
        sandbox.set("INFRAHUB_CONFIG", config.display().to_string());
        let scripted = Self { sandbox, folder };
        scripted.set_content("database", &package_file("src/demo/database-day1.dump"));
        scripted.set_content("queue", &package_file("src/demo/task-manager-db-day1.dump"));
        for number in 0..40 {
            let path = scripted.artifacts().join(format!("objects/{number}"));
            fs::write(path, super::noise(&format!("artifact {number}"), 5000 + number * 977)).expect("an artifact");
        }
        for service in SERVICES {
            scripted.service("start", service);
        }
        scripted.assert_running();
        scripted
    }

    /// What a component's dump gives.
    pub fn content(&self, component: &str) -> PathBuf {
        self.folder.join(format!("{component}.content"))
    }

    /// From now on a component's dump gives the content of `file`.
    pub fn set_content(&self, component: &str, file: &Path) {
        fs::copy(file, self.content(component)).expect("a dump");
    }

    /// The folder of artifacts.
    pub fn artifacts(&self) -> PathBuf {
        self.folder.join("artifacts")
    }

    /// A file that hooks may use, as they name it: `$here/NAME`.
    pub fn marker(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `script` runs at the beginning of what `name` says: `stop-SERVICE`, `start-SERVICE`, `dump-COMPONENT`, `load-COMPONENT`.
    pub fn hook(&self, name: &str, script: &str) {
        fs::write(self.folder.join(format!("hook-{name}")), script).expect("a hook");
    }

    /// The hook is gone.
    pub fn unhook(&self, name: &str) {
        fs::remove_file(self.folder.join(format!("hook-{name}"))).expect("the hook was there");
    }

    /// Runs the script of a service; whether it ended well.
    pub fn service(&self, action: &str, service: &str) -> bool {
        let script = self.folder.join("service");
        let status = std::process::Command::new("sh").arg(script).args([action, service]).status();
        status.expect("sh starts").success()
    }

    /// All services run.
    #[track_caller]
    pub fn assert_running(&self) {
        for service in SERVICES {
            assert!(self.service("probe", service), "`{service}` does not run");
        }
    }

    /// After something went wrong: the services run, no journal is open, `snapshots` are all there is, nothing is damaged.
    #[track_caller]
    pub fn assert_as_before(&self, snapshots: &[String]) {
        self.assert_running();
        assert!(self.sandbox.journals().is_empty(), "{:?}", self.sandbox.journals());
        assert_eq!(self.sandbox.snapshots(), snapshots);
        self.sandbox.assert_clean();
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        for service in SERVICES {
            let _ = fs::remove_file(self.folder.join(format!("hook-stop-{service}")));
            self.service("stop", service);
        }
    }
}

fn config(deployment: &str, folder: &Path) -> String {
    let folder = folder.display();
    let service = |name: &str| {
        format!(
            r#"
[[service]]
name = "{name}"
stop = ["sh", "{folder}/service", "stop", "{name}"]
start = ["sh", "{folder}/service", "start", "{name}"]
probe = ["sh", "{folder}/service", "probe", "{name}"]
"#
        )
    };
    format!(
        r#"[deployment]
name = "{deployment}"
{}{}
[[component]]
name = "database"
kind = "neo4j"
edition = "community"
service = "database"
also_stop = ["infrahub-server"]
dump = ["sh", "{folder}/dump", "database"]
load = ["sh", "{folder}/load", "database"]

[[component]]
name = "queue"
kind = "opaque"
dump = ["sh", "{folder}/dump", "queue"]
load = ["sh", "{folder}/load", "queue"]

[[component]]
name = "artifacts"
kind = "artifacts"
service = "infrahub-server"
path = "{folder}/artifacts"
"#,
        service("database"),
        service("infrahub-server")
    )
}
