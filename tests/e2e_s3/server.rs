//! The servers, one of each kind for all tests of this target, taken down when this process ends, however it ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use infrahub_backup::storage::object::RemoteStore;
use infrahub_backup::storage::remote::{self, RemotePlace, Service, Variables};

/// A running server.
pub struct Server {
    /// `http://127.0.0.1:PORT`
    pub endpoint: String,
    /// The access key.
    pub key: String,
    /// The secret.
    pub secret: String,
    // Takes the server down when its standard input ends, which is when this process does.
    _janitor: Child,
    _folder: PathBuf,
}

/// Waits until the test process is gone, then takes the server down.
const JANITOR: &str = r#"
cat
"$1/s3.sh" down "$2"
rm -rf "$2"
"#;

/// A kind of server, which comes up when it is first asked for.
pub struct Kind {
    name: &'static str,
    running: OnceLock<Option<Server>>,
}

/// Keeps versions and locks, on disk.
pub static VERSITYGW: Kind = Kind::new("versitygw");
/// Keeps versions and locks, in memory.
pub static MOTO: Kind = Kind::new("moto");
/// Answers a put of a taken name as it should, and lets several creators win.
pub static S3S_FS: Kind = Kind::new("s3s-fs");

static FOLDERS: AtomicUsize = AtomicUsize::new(0);

impl Kind {
    const fn new(name: &'static str) -> Self {
        Self { name, running: OnceLock::new() }
    }

    /// The server; `None` if there are no real parts to test with.
    pub fn take(&self, untested: &str) -> Option<&Server> {
        let running = self.running.get_or_init(|| {
            let parts = PathBuf::from(std::env::var_os("INFRAHUB_TEST_PARTS")?);
            Some(Server::up(self.name, &std::path::absolute(parts).expect("a folder")))
        });
        if running.is_none() {
            eprintln!("not tested, since INFRAHUB_TEST_PARTS does not name the scripts of real parts: {untested}");
        }
        running.as_ref()
    }
}

impl Server {
    fn up(name: &str, parts: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("ibk-s3-").tempdir().expect("a folder").keep();
        let janitor = Command::new("setsid")
            .args(["sh", "-c", JANITOR, "janitor"])
            .args([parts, &folder])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a shell");
        let up = Command::new(parts.join("s3.sh")).arg("up").arg(name).arg(&folder).output().expect("the script runs");
        assert!(up.status.success(), "{name}: {}", String::from_utf8_lossy(&up.stderr));
        let said = String::from_utf8(up.stdout).expect("text");
        let values: BTreeMap<&str, &str> = said.lines().filter_map(|line| line.split_once('=')).collect();
        Self {
            endpoint: values["S3_ENDPOINT"].to_owned(),
            key: values["S3_ACCESS_KEY"].to_owned(),
            secret: values["S3_SECRET_KEY"].to_owned(),
            _janitor: janitor,
            _folder: folder,
        }
    }

    /// The keys, as variables.
    pub fn variables(&self) -> Variables {
        let mut variables = Variables::default();
        variables.set("AWS_ACCESS_KEY_ID", &self.key);
        variables.set("AWS_SECRET_ACCESS_KEY", &self.secret);
        variables
    }

    /// A store in a folder of its own in this bucket.
    pub fn store(&self, bucket: &str) -> RemoteStore {
        self.store_at(&self.endpoint, bucket)
    }

    /// The same, reached by way of another endpoint.
    pub fn store_at(&self, endpoint: &str, bucket: &str) -> RemoteStore {
        let service = Service::S3 { endpoint: Some(endpoint.to_owned()), region: None };
        let place = RemotePlace { service, bucket: bucket.to_owned(), prefix: new_folder() };
        remote::open(&place, &self.variables()).expect("the settings fit together")
    }
}

/// A folder that no other test uses.
pub fn new_folder() -> String {
    format!("tests/{}-{}", std::process::id(), FOLDERS.fetch_add(1, Ordering::Relaxed))
}
