//! A repository, a state folder and a folder of artifacts, for tests that call operations as a library.

#![allow(dead_code)] // each test binary uses its part

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use infrahub_backup::error::Error;
use infrahub_backup::ops::create::{self, CreateOptions, Created, FilesSource, Source};
use infrahub_backup::ops::restore::{self, RestoreOptions, Target};
use infrahub_backup::ops::{Cancel, Context, Events, Level, Progress, init};
use infrahub_backup::repository::executor::RayonExecutor;
use infrahub_backup::repository::snapshots::Snapshot;
use infrahub_backup::repository::{Outside, Repository};
use infrahub_backup::seal::slot::{Credential, NewCredential};
use infrahub_backup::state::State;
use infrahub_backup::storage::Store;
use infrahub_backup::storage::local::LocalStore;

pub struct Quiet;

impl Events for Quiet {
    fn message(&self, _: Level, _: &str) {}
    fn progress(&self, _: &Progress) {}
    fn progress_done(&self, _: &'static str, _: &str) {}
}

pub struct Place {
    pub folder: tempfile::TempDir,
    pub context: Context,
    pub repository: Arc<Repository>,
    pub key: Credential,
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo").join(name)
}

/// A machine that keeps its state in `state`, and no cache.
pub fn context(state: &Path, outside: Outside) -> Context {
    Context {
        outside,
        executor: Arc::new(RayonExecutor),
        cancel: Cancel::new().1,
        events: Arc::new(Quiet),
        state: Arc::new(State::open(state.to_owned()).expect("a state folder")),
        cache_folder: None,
        host: "host".to_owned(),
        user: "user".to_owned(),
    }
}

pub async fn place() -> Place {
    let folder = tempfile::tempdir().expect("a folder");
    let context = Context {
        cache_folder: Some(folder.path().join("cache")),
        ..context(&folder.path().join("state"), Outside::system())
    };
    let store: Arc<dyn Store> = Arc::new(LocalStore::create(folder.path().join("repository")).expect("a folder"));
    let founded = init::init(&context, &*store, false, NewCredential::KeyFile).await.expect("founded");
    let key = Credential::KeyFile(founded.key_file.expect("a key file was asked for"));
    let repository = context.open(store, &key).await.expect("opened");
    let artifacts = folder.path().join("artifacts");
    std::fs::create_dir_all(artifacts.join("deep/er")).expect("made");
    for n in 0..50 {
        std::fs::write(artifacts.join(format!("deep/file-{n}")), format!("artifact {n}\n").repeat(n)).expect("written");
    }
    std::fs::write(artifacts.join("large"), (0..3_000_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
        .expect("written");
    std::os::unix::fs::symlink("../nowhere", artifacts.join("deep/er/link")).expect("linked");
    std::fs::set_permissions(artifacts.join("large"), std::fs::Permissions::from_mode(0o640)).expect("set");
    Place { folder, context, repository, key }
}

pub fn files(place: &Place, day: u32) -> Source {
    Source::Files(FilesSource {
        deployment: "files".to_owned(),
        neo4j: Some(fixture(&format!("database-day{day}.dump"))),
        postgres: Some(fixture(&format!("task-manager-db-day{day}.dump"))),
        artifacts: Some(place.folder.path().join("artifacts")),
        neo4j_edition: Some("community".to_owned()),
        infrahub_version: None,
    })
}

pub async fn backed_up(place: &Place, source: Source, options: CreateOptions) -> Result<Created, Error> {
    let plan = create::plan(&place.context, source, options).await?;
    create::execute(&place.context, &place.repository, plan).await
}

pub fn told(error: &Error) -> String {
    error.chain().join(": ")
}

pub async fn restored(place: &Place, created: &Created, folder: &Path) {
    let snapshot = Snapshot::new(created.id, created.manifest.clone());
    let target = Target::Folder(folder.to_owned());
    let plan = restore::plan(&place.context, &place.repository, snapshot, target, RestoreOptions::default()).await;
    let plan = plan.unwrap_or_else(|error| panic!("{}", told(&error)));
    restore::execute(&place.context, &place.repository, plan).await.unwrap_or_else(|error| panic!("{}", told(&error)));
}
