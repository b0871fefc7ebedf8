//! One stream from a store that is far away: reads overlap, neighbours are read at once, and what was read is right.
//!
//! Counted, not timed: how many reads were under way at once, and how many there were.

#[path = "support/backup.rs"]
mod backup;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backup::noise;
use bytes::Bytes;
use infrahub_backup::repository::Outside;
use infrahub_backup::repository::executor::RayonExecutor;
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

fn far() -> Arc<Far> {
    Arc::new(Far {
        inner: RemoteStore::memory(),
        reads: AtomicUsize::new(0),
        longest: AtomicUsize::new(0),
        now: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_goes_to_and_fro_between_segments_reads_each_once() {
    let far = far();
    let store: Arc<dyn Store> = far.clone();
    let key = backup::found(&store, &Outside::system()).await;
    let repository = backup::opened(&store, &key, None, &Outside::system()).await;
    let session = backup::session(&repository, Arc::new(RayonExecutor)).await;
    let (one, two) = (noise(1, 8 << 20), noise(2, 8 << 20));
    for content in [&one, &two] {
        backup::write_component(&session, content).await.expect("written");
    }
    // Most chunks of each piece are known, and lie in two places in turn.
    let pieces = one.chunks(256 << 10).zip(two.chunks(256 << 10));
    let content: Vec<u8> = pieces.flat_map(|(one, two)| [one, two]).flatten().copied().collect();
    let record = backup::write_component(&session, &content).await.expect("written");
    backup::finish(&session).await.expect("durable");
    far.reads.store(0, Ordering::Relaxed);
    assert!(backup::read_stream(&repository, &record).await.expect("read") == content);
    let reads = far.reads.load(Ordering::Relaxed);
    eprintln!("{reads} reads");
    // Twenty segments or so, the heads of their packs, and the recipe; there are 64 pieces.
    assert!(reads <= 40, "{reads} reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_one_stream_overlap_and_take_neighbouring_segments_together() {
    let far = far();
    let store: Arc<dyn Store> = far.clone();
    let key = backup::found(&store, &Outside::system()).await;
    let repository = backup::opened(&store, &key, None, &Outside::system()).await;
    let session = backup::session(&repository, Arc::new(RayonExecutor)).await;
    let content = noise(0, 40 << 20);
    let record = backup::write_component(&session, &content).await.expect("written");
    backup::finish(&session).await.expect("durable");
    let read = backup::read_stream(&repository, &record).await.expect("read");
    assert!(read == content);
    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let (reads, longest, most) = (count(&far.reads), count(&far.longest), count(&far.most));
    eprintln!("{reads} reads, {longest} bytes at most, {most} at once");
    // More than 40 segments of noise, the heads of six packs, and the recipe: one by one they would be 47 reads or more.
    assert!(reads <= 36, "{reads} reads");
    assert!(longest > 2 << 20 && longest <= 3 << 20, "{longest} bytes in one read");
    assert!(most >= 4, "{most} reads at once");
}
