//! The repository as a library: what is written reads back, is shared, survives a lost cache, and shows damage.

#[path = "support/backup.rs"]
mod backup;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use backup::read_back;
use infrahub_backup::env::{Clock, SystemClock};
use infrahub_backup::format::config::ProfileName;
use infrahub_backup::id::SnapshotId;
use infrahub_backup::repository::check::{Depth, check};
use infrahub_backup::repository::executor::{Executor, InlineExecutor, RayonExecutor};
use infrahub_backup::repository::{Outside, Repository};
use infrahub_backup::seal::slot::Credential;
use infrahub_backup::storage::Store;
use infrahub_backup::storage::local::LocalStore;

async fn founded(path: &Path) -> (Arc<dyn Store>, Credential) {
    let store: Arc<dyn Store> = Arc::new(LocalStore::create(path).expect("a folder"));
    let key = backup::found(&store, &Outside::system()).await;
    (store, key)
}

async fn opened(store: &Arc<dyn Store>, key: &Credential, cache: Option<&Path>) -> Arc<Repository> {
    backup::opened(store, key, cache, &Outside::system()).await
}

/// Bytes that look like a database: repetitive text with numbers in it.
fn sample(rows: u32, changed: &BTreeSet<u32>) -> Vec<u8> {
    let row = |n: u32| {
        let salt = if changed.contains(&n) { "changed" } else { "as it was" };
        let noise = n.wrapping_mul(2_654_435_761);
        format!("{n}\tflow-run-{noise:08x}\t{salt}\tCOMPLETED\t{:016x}\n", u64::from(noise) * 31)
    };
    (0..rows).flat_map(|n| row(n).into_bytes()).collect()
}

async fn backed_up(repository: &Arc<Repository>, executor: Arc<dyn Executor>, content: &[u8]) -> (SnapshotId, u64) {
    backed_up_after(repository, executor, content, None).await
}

/// Backs up `content` in a session in which a component that wrote `given_up` was given up before.
async fn backed_up_after(
    repository: &Arc<Repository>,
    executor: Arc<dyn Executor>,
    content: &[u8],
    given_up: Option<&[u8]>,
) -> (SnapshotId, u64) {
    let session = backup::session(repository, executor).await;
    if let Some(bytes) = given_up {
        let mut component = session.component().await;
        let mut stream = component.content(ProfileName::Dump);
        backup::write(&session, &mut component, &mut stream, bytes).await.expect("written");
    }
    let stream = backup::write_component(&session, content).await.expect("written");
    let index = backup::finish(&session).await.expect("durable");
    let stored = session.stored_bytes().await;
    let manifest = backup::manifest(SystemClock.now(), stream, index.indexes());
    (session.commit(&manifest, &index).await.expect("committed"), stored)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_reads_back_with_and_without_its_cache() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = tempfile::tempdir().expect("a folder");
    let (store, key) = founded(&folder.path().join("repository")).await;
    let repository = opened(&store, &key, Some(cache.path())).await;
    let content = sample(400_000, &BTreeSet::new());
    let (id, _) = backed_up(&repository, Arc::new(RayonExecutor), &content).await;
    assert!(read_back(&repository, &id).await.expect("read") == content);
    drop(repository);
    let elsewhere = opened(&store, &key, None).await;
    assert!(read_back(&elsewhere, &id).await.expect("read") == content);
}

#[tokio::test(flavor = "current_thread")]
async fn the_pipeline_runs_on_one_thread_with_an_inline_executor() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, key) = founded(&folder.path().join("repository")).await;
    let repository = opened(&store, &key, None).await;
    let content = sample(200_000, &BTreeSet::new());
    let (id, _) = backed_up(&repository, Arc::new(InlineExecutor), &content).await;
    assert!(read_back(&repository, &id).await.expect("read") == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_snapshot_adds_little_more_than_what_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, key) = founded(&folder.path().join("repository")).await;
    let repository = opened(&store, &key, None).await;
    let executor: Arc<dyn Executor> = Arc::new(RayonExecutor);
    let (_, first) = backed_up(&repository, Arc::clone(&executor), &sample(300_000, &BTreeSet::new())).await;
    let (_, same) = backed_up(&repository, Arc::clone(&executor), &sample(300_000, &BTreeSet::new())).await;
    let (id, changed) = backed_up(&repository, executor, &sample(300_000, &BTreeSet::from([150_000]))).await;
    assert!(same <= first / 1000, "an unchanged stream added {same} bytes to {first}");
    assert!(changed < first / 50, "one changed row added {changed} bytes to {first}");
    assert!(read_back(&repository, &id).await.expect("read") == sample(300_000, &BTreeSet::from([150_000])));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_object_is_found_and_nothing_wrong_is_read_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("repository");
    let (store, key) = founded(&place).await;
    let content = sample(100_000, &BTreeSet::new());
    let executor: Arc<dyn Executor> = Arc::new(RayonExecutor);
    let (id, _) = backed_up(&opened(&store, &key, None).await, Arc::clone(&executor), &content).await;
    let clean = opened(&store, &key, None).await;
    let checked = check(&clean, &executor, Depth::Data, &BTreeSet::new(), None, &|_, _| {}).await.expect("checked");
    assert_eq!(checked.findings, vec![]);
    assert!(checked.chunks_hashed > 0 && checked.packs_read == checked.packs);
    for kind in ["packs", "trees", "index", "snapshots"] {
        for info in store.list(kind).await.expect("listed") {
            let path = place.join(info.name.as_str());
            let good = std::fs::read(&path).expect("read");
            let mut bad = good.clone();
            let middle = bad.len() / 2;
            bad[middle] ^= 0x10;
            std::fs::write(&path, &bad).expect("written");
            let damaged = opened(&store, &key, None).await;
            let checked =
                check(&damaged, &executor, Depth::Data, &BTreeSet::new(), None, &|_, _| {}).await.expect("checked");
            assert!(checked.findings.iter().any(|finding| finding.object == info.name.as_str()), "{}", info.name);
            if let Ok(read) = read_back(&damaged, &id).await {
                assert!(read == content, "{} was flipped and other bytes were read", info.name);
            }
            std::fs::write(&path, &good).expect("written");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_does_not_rely_on_chunks_of_one_that_was_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, key) = founded(&folder.path().join("repository")).await;
    let repository = opened(&store, &key, None).await;
    let content = sample(10_000, &BTreeSet::new());
    let (id, _) = backed_up_after(&repository, Arc::new(RayonExecutor), &content, Some(&content)).await;
    assert!(read_back(&repository, &id).await.expect("read") == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_init_does_not_stand_in_the_way_of_the_next_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("repository");
    let (store, _) = founded(&place).await;
    std::fs::remove_dir_all(place.join("config")).expect("as if it had been killed before the config");
    let key = backup::found(&store, &Outside::system()).await;
    let repository = opened(&store, &key, None).await;
    let executor: Arc<dyn Executor> = Arc::new(RayonExecutor);
    let checked = check(&repository, &executor, Depth::Structure, &BTreeSet::new(), None, &|_, _| {}).await;
    assert_eq!(checked.expect("checked").findings, vec![]);
}
