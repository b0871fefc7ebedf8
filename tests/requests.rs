//! How many requests prune and verify make of a repository of many packs: as many as there is new, not as there are packs.
//!
//! INFRAHUB_SYNTHETIC_PACKS (default 2000) is the number of packs, INFRAHUB_SYNTHETIC_LATENCY_MS (default 0) what each request
//! takes; a listing takes one for each thousand names. The table that it prints stands in benches/README.md.

#[path = "support/synthetic.rs"]
mod synthetic;
#[path = "support/timed.rs"]
mod timed;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use infrahub_backup::format::mark::Decisions;
use infrahub_backup::id::SnapshotId;
use infrahub_backup::repository::check::{Depth, check};
use infrahub_backup::repository::executor::{Executor, RayonExecutor};
use infrahub_backup::repository::lease::RunLease;
use infrahub_backup::repository::sweep::{SweepOptions, Swept, sweep};
use infrahub_backup::repository::{Outside, Repository};
use infrahub_backup::storage::count::Counted;
use infrahub_backup::storage::{Capabilities, Deletion, ObjectInfo, ObjectName, RequestCounts, Store, StoreError};
use synthetic::backup::{self, claimant};
use timed::{TestClock, TimedStore};

const GRACE: Duration = Duration::from_secs(24 * 3600);

/// A store that is far away.
#[derive(Debug)]
struct Far {
    inner: Arc<dyn Store>,
    latency: Duration,
}

impl Far {
    async fn wait(&self, pages: usize) {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency * u32::try_from(pages.max(1)).expect("few pages")).await;
        }
    }
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
        self.wait(1).await;
        self.inner.put_new(name, bytes).await
    }

    async fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError> {
        self.wait(1).await;
        self.inner.get(name, size_max).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.wait(1).await;
        self.inner.get_range(name, range).await
    }

    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.wait(1).await;
        self.inner.size(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let listed = self.inner.list(prefix).await?;
        self.wait(listed.len().div_ceil(1000)).await;
        Ok(listed)
    }

    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        self.wait(1).await;
        self.inner.delete(name).await
    }
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

struct Far100k {
    store: Arc<Counted>,
    repository: Arc<Repository>,
    clock: TestClock,
}

/// One line of the table.
fn tell(what: &str, counts: RequestCounts, began: Instant) {
    println!(
        "{what:<46} {:>7} gets {:>5} puts {:>4} lists {:>6} deletes  {:>7.1} s",
        counts.gets,
        counts.puts,
        counts.lists,
        counts.deletes,
        began.elapsed().as_secs_f64()
    );
}

impl Far100k {
    fn since(&self, before: RequestCounts) -> RequestCounts {
        let now = self.store.counts();
        RequestCounts {
            puts: now.puts - before.puts,
            gets: now.gets - before.gets,
            lists: now.lists - before.lists,
            deletes: now.deletes - before.deletes,
            ..RequestCounts::default()
        }
    }

    async fn forget(&self, id: SnapshotId) {
        let forgotten = Decisions { forgotten: BTreeSet::from([id]), ..Decisions::default() };
        self.repository.decide(&claimant("forget"), |_| Ok(forgotten.clone())).await.expect("forgotten");
    }

    async fn prune(&self, what: &str) -> (Swept, RequestCounts) {
        let (before, began) = (self.store.counts(), Instant::now());
        let executor: Arc<dyn Executor> = Arc::new(RayonExecutor);
        let lease = RunLease::begin(&self.repository, claimant("prune")).await.expect("a lease");
        // Synthetic packs are all small: without repacking, the requests are those of the sweep itself.
        let options = SweepOptions { grace: GRACE, max_repack: 0 };
        let swept = sweep(&self.repository, &executor, &lease, options).await.expect("swept");
        lease.end().await;
        let counts = self.since(before);
        tell(what, counts, began);
        (swept, counts)
    }

    async fn verify(&self, what: &str) {
        let (before, began) = (self.store.counts(), Instant::now());
        let executor: Arc<dyn Executor> = Arc::new(RayonExecutor);
        let checked = check(&self.repository, &executor, Depth::Structure, &BTreeSet::new(), None, &|_, _| {}).await;
        assert_eq!(checked.expect("checked").findings, vec![]);
        tell(what, self.since(before), began);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_asks_for_what_is_new_and_not_for_every_pack() {
    let packs = setting("INFRAHUB_SYNTHETIC_PACKS", 2_000);
    let latency = Duration::from_millis(setting("INFRAHUB_SYNTHETIC_LATENCY_MS", 0) as u64);
    let (clock, executor_free) = (TestClock::new(), Instant::now());
    let near = Arc::new(TimedStore::new(&clock));
    let outside = Outside { clock: Arc::new(clock.clone()), ..Outside::system() };
    let store: Arc<dyn Store> = near.clone();
    let key = backup::found(&store, &outside).await;
    let maker = backup::opened(&store, &key, None, &outside).await;
    let chunks = synthetic::put_packs(&maker, packs).await;
    let maker = backup::opened(&store, &key, None, &outside).await;
    let mut snapshots = Vec::new();
    // Ten snapshots; each leaves out another hundredth, so that forgetting one frees nothing that another needs but its own.
    let own = packs / 100;
    for n in 0..10 {
        let mine: Vec<_> = chunks
            .iter()
            .enumerate()
            .filter(|(at, _)| at / own >= 10 || at / own == n)
            .map(|(_, chunk)| *chunk)
            .collect();
        snapshots.push(synthetic::snapshot_of(&maker, &mine).await);
        clock.advance(Duration::from_secs(3600));
    }
    drop(maker);
    clock.advance(2 * GRACE);
    println!(
        "{packs} packs, {} ms a request; made in {:.0} s",
        latency.as_millis(),
        executor_free.elapsed().as_secs_f64()
    );
    let far: Arc<dyn Store> = Arc::new(Far { inner: near, latency });
    let counted = Arc::new(Counted::new(far));
    let cache = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    let store: Arc<dyn Store> = counted.clone();
    let repository = backup::opened(&store, &key, Some(cache.path()), &outside).await;
    tell("open, empty cache", counted.counts(), began);
    let world = Far100k { store: counted, repository, clock };
    world.prune("prune, first look").await;
    let (_, idle) = world.prune("prune, nothing new").await;
    assert!(idle.gets <= 20 && idle.puts <= 4 && idle.deletes <= 40, "{idle:?}");
    world.forget(snapshots[0]).await;
    let (swept, condemning) = world.prune("prune, one snapshot forgotten: condemns").await;
    assert!(swept.condemned_packs >= own as u64, "{swept:?}");
    assert!(condemning.gets <= 20 && condemning.puts <= 6, "{condemning:?}");
    world.clock.advance(GRACE + GRACE / 2);
    let (swept, deleting) = world.prune("prune, a day later: deletes").await;
    assert!(swept.deleted_packs >= own as u64, "{swept:?}");
    assert!(deleting.gets <= 40 && deleting.deletes <= own as u64 + 60, "{deleting:?}");
    let (_, after) = world.prune("prune, nothing new").await;
    assert!(after.gets <= 20 && after.puts <= 4, "{after:?}");
    world.verify("verify, structure, all metadata read anew").await;
}
