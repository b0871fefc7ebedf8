//! What a review found once and must not come back.

#[path = "support/backup.rs"]
mod backup;
mod place;

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use infrahub_backup::env::{Clock, SystemClock, SystemEntropy, random_bytes};
use infrahub_backup::format::config::ProfileName;
use infrahub_backup::format::envelope::ObjectType;
use infrahub_backup::format::index::{ChunkEntry, Index, PackEntry, SegmentEntry, SegmentKind};
use infrahub_backup::id::{ChunkId, ObjectId, ObjectName};
use infrahub_backup::ops::create::{CreateOptions, Source};
use infrahub_backup::ops::replicate::make_replica;
use infrahub_backup::ops::restore::{self, RestoreOptions, Target};
use infrahub_backup::ops::{Events, Level, Progress, dump, init, verify};
use infrahub_backup::repository::budget::{BUDGET_BYTES_DEFAULT, Budget};
use infrahub_backup::repository::cache::Cache;
use infrahub_backup::repository::check::{Depth, check};
use infrahub_backup::repository::claim::Claims;
use infrahub_backup::repository::executor::{Executor, RayonExecutor};
use infrahub_backup::repository::pack_writer::Stage;
use infrahub_backup::repository::session::SessionOptions;
use infrahub_backup::repository::snapshots::Snapshot;
use infrahub_backup::repository::{Outside, open};
use infrahub_backup::seal::slot::{Credential, NewCredential};
use infrahub_backup::storage::local::LocalStore;
use infrahub_backup::storage::{Capabilities, ObjectInfo, Store, StoreError};
use place::{Place, backed_up, files, place, told};

#[test]
fn claiming_and_settling_at_once_do_not_deadlock() {
    let cache = Arc::new(Cache::temporary().unwrap());
    let chunk = ChunkEntry { id: ChunkId::from_bytes([4; 32]), length: 77 };
    let segment = SegmentEntry {
        kind: SegmentKind::Chunks,
        offset: 108,
        stored_length: 100,
        depth: 0,
        base: vec![],
        chunks: vec![chunk],
    };
    let pack = PackEntry {
        id: ObjectId::of(b"pack"),
        kind: ObjectType::ContentPack,
        stored_size: 208,
        segments: vec![segment],
    };
    let index = Index { supersedes: vec![], packs: vec![pack.clone()] };
    cache.add_index(&ObjectId::of(b"i"), &index).unwrap();
    let claims = Claims::new(cache, HashSet::from([pack.id])).unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    for who in 0..2 {
        let (claims, pack, send) = (claims.clone(), pack.clone(), send.clone());
        std::thread::spawn(move || {
            for _ in 0..200 {
                if who == 0 {
                    for _ in 0..50 {
                        claims.claim(0, &chunk.id, 77).unwrap();
                    }
                } else {
                    claims.settle(std::slice::from_ref(&pack));
                    std::thread::sleep(Duration::from_micros(300));
                }
            }
            send.send(who).unwrap();
        });
    }
    for _ in 0..2 {
        receive.recv_timeout(Duration::from_secs(20)).expect("DEADLOCK");
    }
}

#[derive(Debug)]
struct Gate(LocalStore, tokio::sync::watch::Receiver<bool>);
#[async_trait::async_trait]
impl Store for Gate {
    fn location(&self) -> String {
        self.0.location()
    }
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        if name.as_str().starts_with("packs/") {
            let mut w = self.1.clone();
            w.wait_for(|open| *open).await.unwrap();
        }
        self.0.put_new(name, bytes).await
    }
    async fn get(&self, name: &ObjectName, m: u64) -> Result<Bytes, StoreError> {
        self.0.get(name, m).await
    }
    async fn get_range(&self, name: &ObjectName, r: Range<u64>) -> Result<Bytes, StoreError> {
        self.0.get_range(name, r).await
    }
    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.0.size(name).await
    }
    async fn list(&self, p: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.0.list(p).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<infrahub_backup::storage::Deletion, StoreError> {
        self.0.delete(name).await
    }
}

/// A store in which, just behind the first listing of a folder, something more arrives.
#[derive(Debug)]
struct Growing {
    inner: LocalStore,
    folder: &'static str,
    arriving: std::sync::Mutex<Vec<(ObjectName, Vec<u8>)>>,
}
#[async_trait::async_trait]
impl Store for Growing {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.put_new(name, bytes).await
    }
    async fn get(&self, name: &ObjectName, m: u64) -> Result<Bytes, StoreError> {
        self.inner.get(name, m).await
    }
    async fn get_range(&self, name: &ObjectName, r: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner.get_range(name, r).await
    }
    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.inner.size(name).await
    }
    async fn list(&self, p: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let listed = self.inner.list(p).await?;
        let arriving = if p == self.folder { std::mem::take(&mut *self.arriving.lock().unwrap()) } else { vec![] };
        let is_first = !arriving.is_empty();
        for (name, bytes) in arriving {
            self.inner.put_new(&name, bytes.into()).await?;
        }
        // A listing of packs that lags behind makes `verify` look again.
        Ok(if is_first && p == "packs" { vec![] } else { listed })
    }
    async fn delete(&self, name: &ObjectName) -> Result<infrahub_backup::storage::Deletion, StoreError> {
        self.inner.delete(name).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_arrives_while_verify_looks_is_read_or_told_and_never_both() {
    for folder in ["index", "packs"] {
        let place = place().await;
        backed_up(&place, files(&place, 1), CreateOptions::default()).await.unwrap();
        let root = place.folder.path().join("repository");
        let store = LocalStore::create(&root).unwrap();
        let described = |store: LocalStore| async move {
            let lists = [store.list("index").await.unwrap(), store.list("snapshots").await.unwrap()];
            lists.concat().into_iter().map(|info| info.name).collect::<Vec<ObjectName>>()
        };
        let before = described(LocalStore::open(&root).unwrap()).await;
        let second = backed_up(&place, files(&place, 2), CreateOptions::default()).await.unwrap();
        let mut arriving = Vec::new();
        for name in described(LocalStore::open(&root).unwrap()).await.into_iter().filter(|name| !before.contains(name))
        {
            arriving.push((name.clone(), std::fs::read(root.join(name.as_str())).unwrap()));
            store.delete(&name).await.unwrap();
        }
        assert!(arriving.len() > 1);
        let growing = Growing { inner: store, folder, arriving: std::sync::Mutex::new(arriving) };
        let executor: Arc<dyn Executor> = Arc::new(RayonExecutor);
        let opened = open::open(Arc::new(growing), &place.key, None, Outside::system()).await;
        let repository = Arc::new(opened.unwrap());
        // That this machine knows of it makes `verify` look again before it lists packs.
        let (only, head) = (BTreeSet::new(), (folder == "index").then_some(second.id));
        let checked = check(&repository, &executor, Depth::Data, &only, head, &|_, _| {}).await.unwrap();
        assert_eq!(checked.findings, vec![], "{folder}");
        let told: u64 = checked.not_checked.iter().map(|told| told.count).sum();
        assert_eq!(checked.packs_read + told, checked.packs, "{folder}: {:?}", checked.not_checked);
    }
}

fn noise(mib: usize) -> Vec<u8> {
    let mut out = vec![0; mib << 20];
    blake3::Hasher::new_keyed(&random_bytes(&SystemEntropy)).finalize_xof().fill(&mut out);
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_component_does_not_take_the_packs_of_a_finished_one_along() {
    let folder = tempfile::tempdir().unwrap();
    let (open_gate, gate) = tokio::sync::watch::channel(false);
    let store: Arc<dyn Store> = Arc::new(Gate(LocalStore::create(Path::new(folder.path()).join("r")).unwrap(), gate));
    let key = backup::found(&store, &Outside::system()).await;
    let repository = backup::opened(&store, &key, None, &Outside::system()).await;
    let budget = Budget::new(BUDGET_BYTES_DEFAULT).unwrap();
    let session =
        repository.write(SessionOptions { budget, executor: Arc::new(RayonExecutor), stage: None }).await.unwrap();
    let content = noise(18);
    let stream = backup::write_component(&session, &content).await.unwrap();
    let mut two = session.component().await;
    let mut given_up = two.content(ProfileName::Dump);
    backup::write(&session, &mut two, &mut given_up, &noise(8)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(given_up);
    drop(two); // its dump process exited with 1
    tokio::time::sleep(Duration::from_secs(1)).await;
    open_gate.send(true).unwrap();
    let index = backup::finish(&session).await.unwrap();
    let manifest = backup::manifest(SystemClock.now(), stream, index.indexes());
    let id = session.commit(&manifest, &index).await.unwrap();
    let read = backup::read_back(&repository, &id).await.expect("ACKNOWLEDGED BUT NOT RESTORABLE");
    assert!(read == content);
}

fn site(place: &Place, stop: &str, start: &str, more: &str) -> Source {
    let f = place.folder.path().display().to_string();
    std::fs::write(format!("{f}/runs"), "").unwrap();
    let text = format!(
        r#"
[deployment]
name = "site"
[[service]]
name = "server"
stop = ["sh", "-c", "{stop}", "{f}"]
start = ["sh", "-c", "{start}", "{f}"]
probe = ["sh", "-c", "test -e $0/runs", "{f}"]
stopped_codes = [1]
stop_timeout = "1s"
[[component]]
name = "queue"
kind = "opaque"
dump = ["echo", "hello"]
load = ["cat"]
also_stop = ["server"]
{more}
"#
    );
    let path = place.folder.path().join("site.toml");
    std::fs::write(&path, text).unwrap();
    Source::Bespoke(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_start_and_then_an_error_keeps_the_journal() {
    let place = place().await;
    let gone = place.folder.path().join("not-there").display().to_string();
    let source = site(
        &place,
        "rm $0/runs",
        "false",
        &format!("[[component]]\nname = \"artifacts\"\nkind = \"artifacts\"\npath = \"{gone}\"\n"),
    );
    backed_up(&place, source, CreateOptions::default()).await.unwrap_err();
    assert_eq!(place.context.state.list_open().unwrap().len(), 1, "JOURNAL CLOSED, SERVER DOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_stops_late_is_started_again() {
    let place = place().await;
    let source = site(&place, "setsid sh -c 'sleep 4; rm $0/runs' $0 >/dev/null 2>&1 & sleep 60", "touch $0/runs", "");
    backed_up(&place, source, CreateOptions::default()).await.unwrap_err();
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    let runs = place.folder.path().join("runs").exists();
    assert!(runs || place.context.state.list_open().unwrap().len() == 1, "SERVER DOWN, JOURNAL CLOSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_verify_found_rotten_is_stored_anew() {
    let place = place().await;
    backed_up(&place, files(&place, 1), CreateOptions::default()).await.unwrap();
    for info in place.repository.store().list("packs").await.unwrap() {
        let path = place.folder.path().join("repository").join(info.name.as_str());
        let mut bytes = std::fs::read(&path).unwrap();
        for at in (200..bytes.len()).step_by(4096) {
            bytes[at] ^= 1;
        }
        std::fs::write(&path, bytes).unwrap();
    }
    let found = verify::verify(&place.context, &place.repository, Depth::Data, &[]).await.unwrap();
    assert!(!found.checked.findings.is_empty());
    let second = backed_up(&place, files(&place, 1), CreateOptions::default()).await.unwrap();
    let snapshot = Snapshot::new(second.id, second.manifest.clone());
    let target = Target::Folder(place.folder.path().join("out"));
    let plan = restore::plan(&place.context, &place.repository, snapshot, target, RestoreOptions::default()).await;
    if let Err(error) = plan {
        panic!("UNRESTORABLE AFTER REMEDY: {}", told(&error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_its_own_base_is_an_error_and_no_hang() {
    use infrahub_backup::format::envelope::ObjectType;
    let place = place().await;
    let made = backed_up(&place, files(&place, 1), CreateOptions::default()).await.unwrap();
    for id in place.repository.list_objects(ObjectType::Index).await.unwrap() {
        let mut index = place.repository.get_index(&id).await.unwrap();
        for pack in index.packs.iter_mut().filter(|p| p.kind == ObjectType::ContentPack) {
            for segment in &mut pack.segments {
                segment.depth = 1;
                segment.base = vec![segment.chunks[0].id];
            }
        }
        place.repository.put_object(ObjectType::Index, &index.encode()).await.unwrap();
        place
            .repository
            .store()
            .delete(&infrahub_backup::format::layout::object(ObjectType::Index, &id))
            .await
            .unwrap();
    }
    place.repository.sync_index().await.unwrap();
    let mut out = Vec::new();
    let snapshot = Snapshot::new(made.id, made.manifest.clone());
    let work = dump::dump(&place.context, &place.repository, &snapshot, "database", None, &mut out);
    let done = tokio::time::timeout(std::time::Duration::from_secs(10), work).await;
    assert!(done.is_ok(), "HANGS");
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_an_older_copy_does_not_disturb_a_restore() {
    let place = place().await;
    let root = place.folder.path().to_owned();
    let text = std::process::Command::new("cp")
        .arg("-a")
        .arg(root.join("repository"))
        .arg(root.join("replica"))
        .status()
        .unwrap();
    assert!(text.success());
    let made = backed_up(&place, files(&place, 1), CreateOptions::default()).await.unwrap();
    let snapshot = Snapshot::new(made.id, made.manifest.clone());
    let target = Target::Folder(root.join("out"));
    let plan =
        restore::plan(&place.context, &place.repository, snapshot, target, RestoreOptions::default()).await.unwrap();
    // `verify --repo replica` by cron: another open with the same cache folder
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(root.join("replica")).unwrap());
    place.context.open(store, &place.key).await.unwrap();
    match restore::execute(&place.context, &place.repository, plan).await {
        Ok(_) => {}
        Err(e) => panic!("AFTER THE CHECK: {}", told(&e)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_does_not_hold_a_component_back_when_there_is_a_stage() {
    let folder = tempfile::tempdir().unwrap();
    let staged = folder.path().join("stage");
    std::fs::create_dir(&staged).unwrap();
    let (open_gate, gate) = tokio::sync::watch::channel(false);
    let store: Arc<dyn Store> = Arc::new(Gate(LocalStore::create(folder.path().join("r")).unwrap(), gate));
    let key = backup::found(&store, &Outside::system()).await;
    let repository = backup::opened(&store, &key, None, &Outside::system()).await;
    let stage = Some(Stage { path: staged.clone(), packs_max: 8 });
    let budget = Budget::new(BUDGET_BYTES_DEFAULT).unwrap();
    let session = repository.write(SessionOptions { budget, executor: Arc::new(RayonExecutor), stage }).await.unwrap();
    let content = noise(36);
    let written = async { backup::write_component(&session, &content).await.unwrap() };
    // No put ends before the gate opens: without the stage this waits for ever.
    let record = tokio::time::timeout(Duration::from_secs(120), written).await.expect("the stage takes the packs");
    assert!(std::fs::read_dir(&staged).unwrap().count() > 0);
    open_gate.send(true).unwrap();
    backup::finish(&session).await.unwrap();
    assert_eq!(std::fs::read_dir(&staged).unwrap().count(), 0, "what is in the store does not stay in the stage");
    assert!(backup::read_stream(&repository, &record).await.unwrap() == content);
}

/// A store that answers politely and replaces what is there.
#[derive(Debug)]
struct Replacing(LocalStore);
#[async_trait::async_trait]
impl Store for Replacing {
    fn location(&self) -> String {
        self.0.location()
    }
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        self.0.delete(name).await?;
        match self.0.put_new(name, bytes).await {
            Err(StoreError::AlreadyExists { .. }) => Ok(()),
            other => other,
        }
    }
    async fn get(&self, name: &ObjectName, m: u64) -> Result<Bytes, StoreError> {
        self.0.get(name, m).await
    }
    async fn get_range(&self, name: &ObjectName, r: Range<u64>) -> Result<Bytes, StoreError> {
        self.0.get_range(name, r).await
    }
    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.0.size(name).await
    }
    async fn list(&self, p: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.0.list(p).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<infrahub_backup::storage::Deletion, StoreError> {
        self.0.delete(name).await
    }
}

/// Keeps what is told.
#[derive(Default)]
struct Told(std::sync::Mutex<Vec<(Level, String)>>);
impl Events for Told {
    fn message(&self, level: Level, text: &str) {
        self.0.lock().unwrap().push((level, text.to_owned()));
    }
    fn progress(&self, _: &Progress) {}
    fn progress_done(&self, _: &'static str, _: &str) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_not_made_in_a_store_that_cannot_keep_one_unless_it_is_for_a_single_writer() {
    let place = place().await;
    let folder = |name: &str| LocalStore::create(place.folder.path().join(name)).unwrap();
    let target = Replacing(folder("replica"));
    let refused = make_replica(&place.context, &place.repository, &target).await.unwrap_err();
    assert!(told(&refused).contains("cannot keep a repository: a put of a name that is taken"), "{}", told(&refused));
    assert_eq!(target.list("config").await.unwrap().len() + target.list("keys").await.unwrap().len(), 0);
    let alone: Arc<dyn Store> = Arc::new(folder("alone"));
    let founded = init::init(&place.context, &*alone, true, NewCredential::KeyFile).await.unwrap();
    let source = place.context.open(alone, &Credential::KeyFile(founded.key_file.unwrap())).await.unwrap();
    let events = Arc::new(Told::default());
    let context = infrahub_backup::ops::Context { events: events.clone(), ..place.context.clone() };
    make_replica(&context, &source, &target).await.unwrap();
    assert_eq!(target.list("config").await.unwrap().len(), 1);
    let warned = events.0.lock().unwrap();
    let warns = |text: &str| warned.iter().any(|(level, said)| *level == Level::Warning && said.contains(text));
    assert!(warns("a put of a name that is taken") && warns("single writer"), "{warned:?}");
}
