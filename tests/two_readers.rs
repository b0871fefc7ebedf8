//! Two streams read through one reader: one that stands still must not hold up the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use infrahub_backup::format::config::{ProfileName, Profiles};
use infrahub_backup::format::manifest::StreamRecord;
use infrahub_backup::repository::budget::{BUDGET_BYTES_MIN, Budget};
use infrahub_backup::repository::chunks::ChunkReader;
use infrahub_backup::repository::executor::{Executor, RayonExecutor};
use infrahub_backup::repository::session::{InputBlock, SessionOptions};
use infrahub_backup::repository::stream::StreamReader;
use infrahub_backup::repository::{Outside, Repository, open};
use infrahub_backup::seal::slot::{Credential, NewCredential};
use infrahub_backup::storage::Store;
use infrahub_backup::storage::local::LocalStore;

/// How long a read of a few megabytes may take before it counts as one that never ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// Does its jobs late, and some later than others: a segment is still on its way when the one before it has come.
#[derive(Default)]
struct Slow(AtomicU64);

impl Executor for Slow {
    fn spawn(&self, job: Box<dyn FnOnce() + Send>) {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5 + 40 * (number % 3)));
            job();
        });
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        RayonExecutor.spawn_blocking(job);
    }
}

async fn stored(content: &[u8]) -> (tempfile::TempDir, Arc<Repository>, StreamRecord) {
    let folder = tempfile::tempdir().expect("a folder");
    let store: Arc<dyn Store> = Arc::new(LocalStore::create(folder.path().join("repository")).expect("a folder"));
    let outside = Outside::system();
    let (_, key) = open::found(&*store, &outside, Profiles::DEFAULT, NewCredential::KeyFile).await.expect("founded");
    let key = Credential::KeyFile(key.expect("a key file was asked for"));
    let repository = Arc::new(open::open(store, &key, None, outside).await.expect("opened"));
    repository.sync_index().await.expect("indexed");
    let budget = Budget::new(BUDGET_BYTES_MIN).expect("the least budget is enough");
    let options = SessionOptions { budget, executor: Arc::new(RayonExecutor), stage: None };
    let session = repository.write(options).await.expect("a session");
    let mut component = session.component().await;
    let mut stream = component.content(ProfileName::Files);
    for piece in content.chunks(100_000) {
        let block = InputBlock { bytes: Bytes::copy_from_slice(piece), border: false, permit: None };
        component.write(&mut stream, block).await.expect("written");
    }
    let (record, _) = component.end_as("content", stream).await.expect("ended");
    component.finish().await.expect("packed");
    let packs = session.flush().await.expect("packs durable");
    session.write_index(packs).await.expect("index durable");
    (folder, repository, record)
}

fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_read_on_does_not_hold_up_another() {
    let content = noise(8 << 20);
    let (_folder, repository, record) = stored(&content).await;
    // Wherever the first stands still, and with it what it reads ahead: the second comes to its end.
    let mut stalled = BTreeMap::new();
    for steps in [1, 10, 20, 30, 40] {
        let reader = Arc::new(ChunkReader::new(Arc::clone(&repository), Arc::new(Slow::default())));
        let open = || StreamReader::new(Arc::clone(&reader), &record.root, record.length).expect("a stream");
        let (mut first, mut second) = (open(), open());
        for _ in 0..steps {
            first.next().await.expect("read").expect("not yet its end");
        }
        let mut read = Vec::new();
        let all = async {
            while let Some(piece) = second.next().await.expect("read") {
                read.extend_from_slice(&piece);
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            stalled.insert(steps, read.len());
        } else {
            assert!(read == content);
        }
    }
    assert!(stalled.is_empty(), "after so many pieces of the first, the second stopped at these bytes: {stalled:?}");
}
