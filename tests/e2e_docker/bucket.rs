//! Artifact stores in buckets: a deployment whose server says so, and a real S3 server.
//!
//! The deployment's containers never run, since only what they are told is asked; the S3 server does.

use std::collections::BTreeMap;
use std::path::PathBuf;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use serde_json::Value;

use crate::project::Project;
use crate::s3_server::{Server, VERSITYGW};
use crate::support::{Sandbox, noise};
use crate::{reports, steps};

/// A deployment that keeps its artifacts in a bucket.
struct Deployment<'a> {
    real: &'a Project,
    project: &'static str,
}

impl<'a> Deployment<'a> {
    fn new(real: &'a Project, project: &'static str) -> Self {
        real.docker(&["network", "create", project]);
        Self { real, project }
    }

    /// Makes the container of a service; `how` is `create` or `run`.
    fn container(&self, how: &[&str], service: &str, variables: &[(&str, &str)], rest: &[&str]) {
        let project = format!("com.docker.compose.project={}", self.project);
        let service = format!("com.docker.compose.service={service}");
        let variables: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let variables: Vec<&str> = variables.iter().flat_map(|variable| ["-e", variable.as_str()]).collect();
        let labels = ["--network", self.project, "--label", &project, "--label", &service];
        self.real.docker(&[how, &labels, &variables, rest].concat());
    }

    /// Makes the services that every deployment has.
    fn services(&self, variables: &[(&str, &str)]) {
        for id in self.ids(&["--filter", "status=created"]) {
            self.real.docker(&["rm", &id]);
        }
        let variables = [&[("INFRAHUB_STORAGE_DRIVER", "s3")], variables].concat();
        self.container(&["create"], "database", &[], &["infrahub-backup-tests/server"]);
        self.container(&["create"], "infrahub-server", &variables, &["infrahub-backup-tests/server"]);
    }

    fn ids(&self, filter: &[&str]) -> Vec<String> {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let found = self.real.docker(&[&["ps", "-aq", "--filter", &project][..], filter].concat());
        found.lines().map(str::to_owned).collect()
    }
}

impl Drop for Deployment<'_> {
    fn drop(&mut self) {
        for id in self.ids(&[]) {
            self.real.docker(&["rm", "-fv", &id]);
        }
        self.real.docker(&["network", "rm", self.project]);
    }
}

/// A bucket as somebody else's client sees it.
struct Bucket {
    s3: AmazonS3,
    runtime: tokio::runtime::Runtime,
}

impl Bucket {
    fn of(server: &Server) -> Self {
        let s3 = AmazonS3Builder::new()
            .with_endpoint(&server.endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name("backup")
            .with_access_key_id(&server.key)
            .with_secret_access_key(&server.secret);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        Self { s3: s3.build().expect("the settings fit together"), runtime }
    }

    fn put(&self, key: &str, content: impl Into<Vec<u8>>) {
        let key = Path::parse(key).expect("a key");
        self.runtime.block_on(self.s3.put(&key, content.into().into())).expect("it takes an object");
    }

    fn delete(&self, key: &str) {
        let key = Path::parse(key).expect("a key");
        self.runtime.block_on(self.s3.delete(&key)).expect("it lets go of an object");
    }

    /// All that is in it.
    fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let listed = futures::TryStreamExt::try_collect::<Vec<_>>(self.s3.list(None));
        let read = async {
            let mut content = BTreeMap::new();
            for object in listed.await.expect("it can be listed") {
                let read = self.s3.get(&object.location).await.expect("it is there").bytes().await;
                content.insert(object.location.to_string(), read.expect("all of it").to_vec());
            }
            content
        };
        self.runtime.block_on(read)
    }
}

/// Keys as Infrahub makes them.
fn key(number: u32) -> String {
    format!("18a{number:05}-6e1c-4d2a-9d3f-0123456789ab")
}

/// What the last `create` of these reports counted for its artifacts.
fn copied(reports: &[Value]) -> &Value {
    let create = reports.iter().rfind(|report| report["operation"] == "create").expect("a report of a create");
    &steps(create, "copy").next().expect("a copy")["numbers"]
}

const ARTIFACTS: [&str; 2] = ["--component", "artifacts"];

fn artifacts<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [words, &ARTIFACTS].concat()
}

#[test]
fn objects_come_back_to_their_bucket_and_unchanged_ones_are_not_read_again() {
    let Some(real) = Project::take("artifacts in a bucket") else { return };
    let server = VERSITYGW.take("artifacts in a bucket").expect("there are real parts");
    let deployment = Deployment::new(&real, "ibk-bucket");
    let host = server.endpoint.trim_start_matches("http://");
    let keys = [("AWS_ACCESS_KEY_ID", server.key.as_str()), ("AWS_SECRET_ACCESS_KEY", server.secret.as_str())];
    let place = [("AWS_S3_BUCKET_NAME", "backup"), ("AWS_S3_ENDPOINT_URL", host), ("AWS_S3_USE_SSL", "false")];
    deployment.services(&[&keys[..], &place].concat());
    let mut sandbox = real.sandbox_without_name();
    sandbox.set("INFRAHUB_PROJECT", deployment.project);

    let bucket = Bucket::of(server);
    for number in 0..40 {
        bucket.put(&key(number), format!("artifact {number}"));
    }
    bucket.put("empty", "");
    bucket.put("large", noise("large", 9 << 20));
    bucket.put("folder/a b/ü%2F+", "deep");
    let first = bucket.content();
    assert_eq!(first.len(), 43);
    let mut said = sandbox.run(artifacts(&["create", "--init", "-v", "-v"])).ok().err;
    let id = sandbox.snapshots().remove(0);
    let all = reports(&sandbox);
    assert_eq!((&copied(&all)["files"], &copied(&all)["gets"]), (&43.into(), &43.into()), "{:#}", copied(&all));

    bucket.delete(&key(0));
    bucket.delete("large");
    // Of the same length.
    bucket.put(&key(1), "artifact x");
    bucket.put(&key(99), "artifact 99");
    said += &sandbox.run(artifacts(&["create", "--allow-shrink"])).ok().err;
    let all = reports(&sandbox);
    let numbers = copied(&all);
    let expected = serde_json::json!({
        "files": 42, "files_unchanged": 40, "lists": 1, "gets": 2, "bytes_down": "artifact xartifact 99".len(),
        "bytes": first.values().map(Vec::len).sum::<usize>() - (9 << 20) - "artifact 0".len() + "artifact 99".len(),
    });
    assert_eq!(*numbers, expected);

    bucket.put("folder/somebody else's", "mine");
    let restored = sandbox.run(["restore", &id, "--yes", "--component", "artifacts", "--json"]).ok();
    let mut expected = first.clone();
    expected.insert("folder/somebody else's".to_owned(), b"mine".to_vec());
    assert_eq!(bucket.content(), expected);
    let notes = restored.json()["components"][0]["notes"].to_string();
    assert!(notes.contains("1 objects that are not in the snapshot were removed"), "{notes}");
    assert!(notes.contains("1 objects in folders of the bucket are not in the snapshot and were left"), "{notes}");
    bucket.delete("folder/somebody else's");

    said += &restored.err;
    said += &reports(&sandbox).iter().map(Value::to_string).collect::<String>();
    assert!(!said.contains(&server.secret), "the secret key was told");
    for name in sandbox.objects().keys().chain(crate::support::files_below(&sandbox.path("state")).keys()) {
        assert!(!name.contains(&server.secret), "{name}");
    }
    sandbox.assert_clean();

    // The other way round: a folder with a link does not fit into a bucket, a bucket's objects fit into a folder.
    let before = bucket.content();
    sandbox.run(["create", "--project", real.name(), "--component", "artifacts"]).ok();
    let linked = sandbox.snapshots().pop().expect("a snapshot of the folder");
    let restore = ["restore", &linked, "--yes", "--component", "artifacts", "--no-safety-snapshot"];
    sandbox.run(restore).with_code(1).says(&["`link` is a symbolic link, which no bucket can hold"]);
    assert_eq!(bucket.content(), before);
    sandbox.run(["restore", &id, "--yes", "--component", "artifacts", "--project", real.name()]).ok();
    real.assert_running();
    let files = real.sh("infrahub-server", "cd /opt/infrahub/storage; find . -type f | wc -l; cat 'folder/a b/ü%2F+'");
    assert_eq!(files, "43\ndeep");

    a_bucket_that_has_the_repository_as_well(&sandbox, server, &bucket);
    a_bucket_that_cannot_be_read(&sandbox, &deployment, &keys);
}

/// The repository is no artifact, and is there after a restore.
fn a_bucket_that_has_the_repository_as_well(sandbox: &Sandbox, server: &Server, bucket: &Bucket) {
    let before = bucket.content();
    let run = |words: &[&str]| {
        let mut command = sandbox.command_without_repository(words);
        command
            .args(["--repo", "s3://backup/own", "--s3-endpoint", &server.endpoint, "--key-file"])
            .arg(sandbox.path("other"));
        command.env("AWS_ACCESS_KEY_ID", &server.key).env("AWS_SECRET_ACCESS_KEY", &server.secret);
        crate::support::Ran::of(command)
    };
    run(&artifacts(&["create", "--init"])).ok();
    let created = run(&artifacts(&["create", "--json"])).ok().json();
    assert_eq!(created["components"][0]["files"], before.len(), "{created:#}");
    bucket.put(&key(100), "new");
    run(&artifacts(&["restore", "latest", "--yes", "--no-safety-snapshot"])).ok();
    let mut after = bucket.content();
    after.retain(|key, _| !key.starts_with("own/"));
    assert_eq!(after, before);
    run(&["verify", "--depth", "data"]).ok();
}

/// It is told before anything else is done, and without any secret.
fn a_bucket_that_cannot_be_read(sandbox: &Sandbox, deployment: &Deployment<'_>, keys: &[(&str, &str)]) {
    let create = artifacts(&["create", "-v", "-v"]);
    // Port 9 of this machine: discard, which nobody runs.
    let closed = [("INFRAHUB_STORAGE_ENDPOINT_URL", "127.0.0.1:9"), ("INFRAHUB_STORAGE_USE_SSL", "0")];
    let bucket = [("INFRAHUB_STORAGE_BUCKET_NAME", "backup")];
    deployment.services(&[keys, &closed, &bucket].concat());
    let refused = sandbox.run(&create).with_code(1);
    let refused =
        refused.says(&["cannot be read from bucket `backup` at http://127.0.0.1:9", "INFRAHUB_STORAGE_ENDPOINT_URL="]);
    assert!(!refused.err.contains("phase: dump") && !refused.err.contains(keys[1].1), "{}", refused.err);

    deployment.services(&[keys, &closed].concat());
    sandbox.run(&create).with_code(1).says(&["neither `INFRAHUB_STORAGE_BUCKET_NAME` nor `AWS_S3_BUCKET_NAME`"]);
    deployment.services(&[&closed[..], &bucket].concat());
    sandbox.run(&create).with_code(1).says(&["no `AWS_ACCESS_KEY_ID`", "--exclude artifacts"]);
}

#[test]
fn a_bucket_whose_server_is_a_service_of_the_project_is_found_in_the_projects_network() {
    let Some(real) = Project::take("a bucket inside the project's network") else { return };
    // Only its program is of use: the server must be inside.
    VERSITYGW.take("a bucket inside the project's network").expect("there are real parts");
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache"));
    let program = format!("{}:/versitygw:ro", cache.join("infrahub-backup-tests/bin/versitygw").display());
    let deployment = Deployment::new(&real, "ibk-bucket-inside");
    let keys = [("AWS_ACCESS_KEY_ID", "inside-key"), ("AWS_SECRET_ACCESS_KEY", "inside secret/+%")];
    let server = [("ROOT_ACCESS_KEY", keys[0].1), ("ROOT_SECRET_KEY", keys[1].1), ("VGW_PORT", ":9000")];
    let image = "infrahub-backup-tests/server";
    let serve = [
        "-v",
        &program,
        image,
        "sh",
        "-c",
        "mkdir -p /data/art && echo one >/data/art/key && exec /versitygw posix /data",
    ];
    deployment.container(&["run", "-d"], "object-store", &server, &serve);
    let place = [
        ("INFRAHUB_STORAGE_BUCKET_NAME", "art"),
        ("INFRAHUB_STORAGE_ENDPOINT_URL", "object-store:9000"),
        ("INFRAHUB_STORAGE_USE_SSL", "false"),
    ];
    deployment.services(&[&keys[..], &place].concat());
    let sandbox = real.sandbox_without_name();
    let project = ["--project", deployment.project];
    sandbox.run([&artifacts(&["create", "--init"])[..], &project].concat()).ok();
    let id = sandbox.snapshots().remove(0);
    let inside = deployment.ids(&["--filter", "label=com.docker.compose.service=object-store"]).remove(0);
    real.docker(&["exec", &inside, "sh", "-c", "echo two >/data/art/key; echo new >/data/art/new"]);
    let restore = ["restore", &id, "--yes", "--no-safety-snapshot"];
    sandbox.run([&artifacts(&restore)[..], &project].concat()).ok();
    assert_eq!(real.docker(&["exec", &inside, "sh", "-c", "cd /data/art && head *"]), "one");

    real.docker(&["stop", "-t", "0", &inside]);
    let create = [&artifacts(&["create"])[..], &project].concat();
    sandbox.run(&create).with_code(1).says(&[
        "`object-store` is container `",
        "does it run?",
        "INFRAHUB_STORAGE_ENDPOINT_URL",
    ]);
}
