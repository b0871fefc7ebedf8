//! The binary with its repository in a bucket.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::proxy::{Faults, Proxy};
use crate::server::{S3S_FS, Server, VERSITYGW, new_folder};
use crate::support::{Ran, Sandbox, files_below, noise, package_file};

/// A sandbox whose repository is in a bucket of this server, reached at `endpoint`.
fn sandbox(server: &Server, endpoint: &str, bucket: &str) -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.repository = PathBuf::from(format!("s3://{bucket}/{}", new_folder()));
    sandbox.set("INFRAHUB_S3_ENDPOINT", endpoint);
    sandbox.set("AWS_ACCESS_KEY_ID", &server.key);
    sandbox.set("AWS_SECRET_ACCESS_KEY", &server.secret);
    sandbox
}

/// What is backed up: dumps and artifacts, some of which fill several packs.
fn sources(sandbox: &Sandbox) -> [String; 6] {
    let artifacts = sandbox.path("artifacts");
    fs::create_dir_all(artifacts.join("deep")).expect("a folder");
    fs::write(artifacts.join("large"), noise("large", 20_000_000)).expect("a file");
    fs::write(artifacts.join("deep/small"), "small").expect("a file");
    let fixture = |name: &str| package_file(&format!("tests/fixtures/{name}")).display().to_string();
    [
        "--neo4j-path".to_owned(),
        fixture("neo4j-community-5.26.30.dump"),
        "--postgres-path".to_owned(),
        fixture("postgres-15-seekable.pgdump"),
        "--artifacts-path".to_owned(),
        artifacts.display().to_string(),
    ]
}

/// Runs the binary and keeps what it said.
fn run(sandbox: &Sandbox, said: &mut Vec<String>, arguments: &[&str]) -> Ran {
    let ran = sandbox.run(arguments);
    said.push(format!("{}{}", ran.text(), ran.err));
    ran
}

/// Backs up twice, checks, restores and compares.
fn round_trip(sandbox: &Sandbox, server: &Server) {
    let mut said = Vec::new();
    let sources = sources(sandbox);
    let create: Vec<&str> =
        ["create", "from-files", "-v", "-v"].into_iter().chain(sources.iter().map(String::as_str)).collect();
    run(sandbox, &mut said, &["init", "--no-password", "-v", "-v"]).ok();
    run(sandbox, &mut said, &create).ok();
    run(sandbox, &mut said, &create).ok();
    assert_eq!(sandbox.snapshots().len(), 2);
    run(sandbox, &mut said, &["verify", "--depth", "data", "-v", "-v"]).ok();
    let target = sandbox.path("restored").display().to_string();
    run(sandbox, &mut said, &["restore", "--to-files", &target, "--yes", "-v", "-v"]).ok();
    assert_restored(sandbox, Path::new(&target));
    for text in &said {
        assert_no_secret(server, "what it said", text.as_bytes());
    }
    for folder in ["state", "cache", "home"] {
        let folder = sandbox.path(folder);
        for file in files_below(&folder).into_keys() {
            assert_no_secret(server, &file, &fs::read(folder.join(&file)).expect("a file"));
        }
    }
}

#[track_caller]
fn assert_no_secret(server: &Server, what: &str, bytes: &[u8]) {
    for secret in [&server.secret, &server.key] {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{secret} is in {what}: {}", String::from_utf8_lossy(bytes));
    }
}

#[track_caller]
fn assert_restored(sandbox: &Sandbox, target: &Path) {
    let contents = |folder: &Path| -> Vec<Vec<u8>> {
        let files: BTreeMap<String, u64> = files_below(folder);
        files.keys().map(|file| fs::read(folder.join(file)).expect("a file")).collect()
    };
    let restored = contents(target);
    let mut wanted = contents(&sandbox.path("artifacts"));
    wanted.push(fs::read(package_file("tests/fixtures/postgres-15-seekable.pgdump")).expect("a fixture"));
    for bytes in wanted {
        assert!(restored.contains(&bytes), "{} bytes did not come back", bytes.len());
    }
}

#[test]
fn a_backup_in_a_bucket_comes_back() {
    let Some(server) = VERSITYGW.take("that a backup in a bucket comes back") else { return };
    round_trip(&sandbox(server, &server.endpoint, "backup"), server);
}

#[test]
fn a_backup_in_a_bucket_with_versions_and_locks_comes_back() {
    let Some(server) = VERSITYGW.take("that a backup in a locked bucket comes back") else { return };
    round_trip(&sandbox(server, &server.endpoint, "locked"), server);
}

#[tokio::test(flavor = "multi_thread")]
async fn backing_up_deletes_nothing_overwrites_nothing_and_checks_every_put() {
    let Some(server) = VERSITYGW.take("that backing up needs no delete") else { return };
    let proxy = Proxy::new(&server.endpoint, Faults::NONE).await;
    let sandbox = sandbox(server, &proxy.endpoint, "locked");
    let sources = sources(&sandbox);
    tokio::task::block_in_place(|| {
        sandbox.run(["init", "--no-password"]).ok();
        proxy.forget();
        let create = ["create", "from-files"].into_iter().chain(sources.iter().map(String::as_str));
        sandbox.run(create).ok();
    });
    let requests = proxy.requests();
    let puts: Vec<&String> = requests.iter().filter(|head| head.starts_with("put ")).collect();
    assert!(puts.len() > 5, "{}", puts.len());
    for put in puts {
        assert!(put.contains("if-none-match: *"), "{put}");
        assert!(put.contains("x-amz-checksum-sha256: "), "{put}");
    }
    let deletes = requests.iter().filter(|head| head.starts_with("delete ") || head.starts_with("post ")).count();
    assert_eq!(deletes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_on_a_bad_way_comes_back() {
    let Some(server) = VERSITYGW.take("that a backup on a bad way comes back") else { return };
    let proxy = Proxy::new(&server.endpoint, Faults::ALL).await;
    let sandbox = sandbox(server, &proxy.endpoint, "backup");
    tokio::task::block_in_place(|| round_trip(&sandbox, server));
    let met = proxy.met();
    eprintln!("{met:?}");
    assert!(met.refused > 5 && met.dropped > 1 && met.answers_lost > 1, "{met:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_told_with_a_hint() {
    let Some(server) = VERSITYGW.take("that a dead server is told") else { return };
    let proxy = Proxy::new(&server.endpoint, Faults::DEAD).await;
    let sandbox = sandbox(server, &proxy.endpoint, "backup");
    let ran = tokio::task::block_in_place(|| sandbox.run(["snapshots"]));
    assert_ne!(ran.code, Some(0));
    let ran = ran.says(&["gave no answer", "hint: "]);
    assert_no_secret(server, "what it said", ran.err.as_bytes());
}

#[test]
fn a_store_that_lets_several_creators_win_is_refused_unless_one_writer_is_asked_for() {
    let Some(server) = S3S_FS.take("that init refuses a store without atomic puts") else { return };
    let sandbox = sandbox(server, &server.endpoint, "backup");
    let refused = sandbox.run(["init", "--no-password"]);
    assert_ne!(refused.code, Some(0));
    refused.says(&["cannot keep a repository", "a put if absent is not atomic", "--single-writer"]);
    assert!(!sandbox.key.exists(), "a key file of no repository was left");
    sandbox.run(["init", "--no-password", "--single-writer"]).ok().says(&["a put if absent is not atomic"]);
    let sources = sources(&sandbox);
    let create = ["create", "from-files"].into_iter().chain(sources.iter().map(String::as_str));
    sandbox.run(create).ok().says(&["nothing else may write to it at the same time"]);
    sandbox.assert_clean();
}

#[test]
fn the_predecessors_flags_and_places_lead_to_the_repository() {
    let Some(server) = VERSITYGW.take("that the predecessor's flags lead to the repository") else { return };
    let sandbox = sandbox(server, &server.endpoint, "backup");
    sandbox.run(["init", "--no-password"]).ok();
    let address = sandbox.repository.to_str().expect("text").to_owned();
    let folder = address.strip_prefix("s3://backup/").expect("it was made so");
    let (key, endpoint) = (sandbox.key.display().to_string(), server.endpoint.as_str());
    let host = endpoint.strip_prefix("http://").expect("no TLS in tests");
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infrahub-backup"));
        command.env_clear().env("HOME", sandbox.path("home")).args(arguments).args(["snapshots", "--key-file", &key]);
        command
    };
    let mut flags = command(&["--s3-bucket", "backup", "--s3-prefix", folder, "--s3-endpoint", endpoint]);
    flags.env("AWS_ACCESS_KEY_ID", &server.key).env("AWS_SECRET_ACCESS_KEY", &server.secret);
    Ran::of(flags).ok();
    let mut place = command(&[]);
    place.env("INFRAHUB_REPO", format!("s3://{}:{}@{host}/backup/{folder}", server.key, server.secret));
    Ran::of(place).ok();
    let mut amazon = command(&["--repo", &address]);
    amazon.env("AWS_ENDPOINT_URL", endpoint).env("AWS_SHARED_CREDENTIALS_FILE", sandbox.path("keys"));
    fs::write(
        sandbox.path("keys"),
        format!("[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n", server.key, server.secret),
    )
    .expect("a file");
    Ran::of(amazon).ok();
}

/// Dumps that make an archive of several parts.
fn archived(sandbox: &Sandbox, more: &[&str]) -> Ran {
    let fixture = |name: &str| package_file(&format!("tests/fixtures/{name}")).display().to_string();
    let large = sandbox.write("large.dump", noise("an archive of several parts", 20_000_000));
    let neo4j = fixture("neo4j-community-5.26.30.dump");
    let line = ["create", "from-files", "--backend", "tarball", "--neo4j-path", &neo4j];
    let raw = ["--postgres-path", large.to_str().expect("text"), "--allow-raw", "--json"];
    sandbox.run([&line[..], &raw, more].concat())
}

#[test]
fn an_archive_goes_to_a_bucket_and_comes_back_from_there() {
    let Some(server) = VERSITYGW.take("that archives go to buckets and come back") else { return };
    let mut sandbox = sandbox(server, &server.endpoint, "backup");
    sandbox.set("INFRAHUB_BACKUP_DIR", sandbox.path("archives").display().to_string());
    let prefix = new_folder();
    archived(&sandbox, &["--s3-upload"]).with_code(2).says(&["--s3-bucket BUCKET"]);
    assert!(!sandbox.path("archives").exists(), "it was told before anything began");
    archived(&sandbox, &["--s3-upload", "--s3-bucket", "no-such-bucket", "--s3-prefix", &prefix]).with_code(1);
    let made = archived(&sandbox, &["--s3-upload", "--s3-bucket", "backup", "--s3-prefix", &prefix]).ok().json();
    let object = made["uploaded"].as_str().expect("it was uploaded").to_owned();
    assert!(object.starts_with(&format!("s3://backup/{prefix}/infrahub_backup_")) && object.ends_with(".tar.gz"));
    assert!(made["archive"].is_null() && made["bytes"].as_u64() > Some(16 << 20), "{made}");
    assert_eq!(files_below(&sandbox.path("archives")).len(), 0, "the file was removed");
    // The repository is in the same bucket, and elsewhere in it.
    sandbox.run(["init", "--no-password"]).ok();
    sandbox.run(["import", &object]).with_code(1).says(&["not a dump in the custom format"]);
    let said = sandbox.run(["import", &object, "--allow-raw", "-v", "-v"]).ok();
    for text in [said.text(), said.err] {
        assert_no_secret(server, "what it said", text.as_bytes());
    }
    let target = sandbox.path("restored");
    sandbox.run(["restore", "--to-files", target.to_str().expect("text"), "--yes"]).ok();
    let restored = fs::read(target.join("task-manager-db.dump")).expect("restored");
    assert!(restored == noise("an archive of several parts", 20_000_000));
    sandbox.run(["import", "s3://backup/no-such-folder/x.tar.gz"]).with_code(1).says(&["is not in s3://backup"]);
    let kept = archived(&sandbox, &["--s3-upload", "--s3-keep-local", "--s3-bucket", "backup", "--s3-prefix", &prefix]);
    let kept = kept.ok().json();
    assert!(Path::new(kept["archive"].as_str().expect("it is there")).exists());
    let neo4j = package_file("tests/fixtures/neo4j-community-5.26.30.dump").display().to_string();
    let line = ["create", "from-files", "--backend", "tarball", "--neo4j-path", &neo4j, "--json"];
    let small =
        sandbox.run([&line[..], &["--s3-upload", "--s3-bucket", "backup", "--s3-prefix", &new_folder()]].concat());
    let small = small.ok().json()["uploaded"].as_str().expect("it was uploaded").to_owned();
    let target = sandbox.path("restored-at-once");
    sandbox.run(["restore", &small, "--to-files", target.to_str().expect("text"), "--yes"]).ok();
    assert!(target.join("database.dump").exists());
    assert_eq!(sandbox.snapshots().len(), 2);
}
