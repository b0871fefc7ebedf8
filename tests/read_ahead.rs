//! One stream from a store that is far away: reads overlap, neighbours are read at once, and what was read is right.
//!
//! Counted, not timed: how many reads were under way at once, and how many there were.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use infrahub_backup::format::config::{ProfileName, Profiles};
use infrahub_backup::repository::budget::{BUDGET_BYTES_MIN, Budget};
use infrahub_backup::repository::chunks::ChunkReader;
use infrahub_backup::repository::executor::RayonExecutor;
use infrahub_backup::repository::session::{InputBlock, SessionOptions};
use infrahub_backup::repository::stream::StreamReader;
use infrahub_backup::repository::{Outside, Repository, open};
use infrahub_backup::seal::slot::{Credential, NewCredential};
use infrahub_backup::storage::object::RemoteStore;
use infrahub_backup::storage::{Capabilities, Deletion, ObjectInfo, ObjectName, Store, StoreError};

/// How long each read takes.
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// A store far away.
#[derive(Debug)]
struct Far {
    inner: RemoteStore,
    reads: AtomicUsize,
    longest: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Store for Far {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.put_new(name, bytes).await
    }
    async fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError> {
        self.inner.get(name, size_max).await
    }
    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        self.reads.fetch_add(1, Ordering::Relaxed);
        let length = usize::try_from(range.end - range.start).expect("small");
        self.longest.fetch_max(length, Ordering::Relaxed);
        tokio::time::sleep(ROUND_TRIP).await;
        self.now.fetch_sub(1, Ordering::Relaxed);
        self.inner.get_range(name, range).await
    }
    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.inner.size(name).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.inner.list(prefix).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        self.inner.delete(name).await
    }
}

fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_one_stream_overlap_and_take_neighbouring_segments_together() {
    let far = Arc::new(Far {
        inner: RemoteStore::memory(),
        reads: AtomicUsize::new(0),
        longest: AtomicUsize::new(0),
        now: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let store: Arc<dyn Store> = far.clone();
    let outside = Outside::system();
    let (_, key) = open::found(&*store, &outside, Profiles::DEFAULT, NewCredential::KeyFile).await.expect("founded");
    let key = Credential::KeyFile(key.expect("a key file was asked for"));
    let repository: Arc<Repository> = Arc::new(open::open(store, &key, None, outside).await.expect("opened"));
    repository.sync_index().await.expect("indexed");
    let budget = Budget::new(BUDGET_BYTES_MIN).expect("the least budget is enough");
    let options = SessionOptions { budget, executor: Arc::new(RayonExecutor), stage: None };
    let session = repository.write(options).await.expect("a session");
    let content = noise(40 << 20);
    let mut component = session.component().await;
    let mut stream = component.content(ProfileName::Dump);
    for piece in content.chunks(100_000) {
        let block = InputBlock { bytes: Bytes::copy_from_slice(piece), border: false, permit: None };
        component.write(&mut stream, block).await.expect("written");
    }
    let (record, _) = component.end_as("content", stream).await.expect("ended");
    component.finish().await.expect("packed");
    let packs = session.flush().await.expect("packs durable");
    session.write_index(packs).await.expect("index durable");

    let reader = Arc::new(ChunkReader::new(Arc::clone(&repository), Arc::new(RayonExecutor)));
    let mut bytes = StreamReader::new(reader, &record.root, record.length).expect("a stream");
    let mut read = Vec::new();
    while let Some(piece) = bytes.next().await.expect("read") {
        read.extend_from_slice(&piece);
    }
    assert!(read == content);
    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let (reads, longest, most) = (count(&far.reads), count(&far.longest), count(&far.most));
    eprintln!("{reads} reads, {longest} bytes at most, {most} at once");
    // More than 40 segments of noise, the heads of six packs, and the recipe: one by one they would be 47 reads or more.
    assert!(reads <= 36, "{reads} reads");
    assert!(longest > 2 << 20 && longest <= 3 << 20, "{longest} bytes in one read");
    assert!(most >= 4, "{most} reads at once");
}
