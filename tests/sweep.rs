//! Forgetting and pruning beside writers: what is needed stays, what is not goes, whoever stalls.

#[path = "support/backup.rs"]
mod backup;
#[path = "support/timed.rs"]
mod timed;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup::{claimant, noise};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use infrahub_backup::env::Clock;
use infrahub_backup::format::envelope::ObjectType;
use infrahub_backup::format::layout;
use infrahub_backup::format::mark::Decisions;
use infrahub_backup::id::{PackId, SnapshotId};
use infrahub_backup::repository::check::{Depth, check};
use infrahub_backup::repository::executor::{Executor, RayonExecutor};
use infrahub_backup::repository::lease::RunLease;
use infrahub_backup::repository::repair::decide;
use infrahub_backup::repository::session::WriteSession;
use infrahub_backup::repository::sweep::{SweepOptions, Swept, Wait, sweep};
use infrahub_backup::repository::{Outside, Repository, RepositoryError};
use infrahub_backup::seal::slot::Credential;
use infrahub_backup::storage::{Capabilities, Deletion, ObjectInfo, ObjectName, Store, StoreError};
use timed::{TestClock, TimedStore};
use tokio::sync::oneshot;

const HOUR: Duration = Duration::from_secs(3600);
const GRACE: Duration = Duration::from_secs(24 * 3600);

struct World {
    clock: TestClock,
    store: Arc<TimedStore>,
    key: Credential,
    executor: Arc<dyn Executor>,
}

/// A session that has begun and not ended: a writer in the middle of its work.
struct Writer {
    repository: Arc<Repository>,
    lease: RunLease,
    session: WriteSession,
}

impl World {
    async fn new() -> Self {
        let clock = TestClock::new();
        let store = Arc::new(TimedStore::new(&clock));
        let shared: Arc<dyn Store> = store.clone();
        let key = backup::found(&shared, &outside(&clock)).await;
        Self { clock, store, key, executor: Arc::new(RayonExecutor) }
    }

    async fn open(&self) -> Arc<Repository> {
        self.open_at(self.store.clone()).await
    }

    async fn open_at(&self, store: Arc<dyn Store>) -> Arc<Repository> {
        backup::opened(&store, &self.key, None, &outside(&self.clock)).await
    }

    async fn begin(&self) -> Writer {
        let repository = self.open().await;
        let lease = RunLease::begin(&repository, claimant("create")).await.expect("a lease");
        let session = backup::session(&repository, Arc::clone(&self.executor)).await;
        Writer { repository, lease, session }
    }

    async fn back_up(&self, content: &[u8]) -> SnapshotId {
        backup::back_up(&self.open().await, content).await
    }

    async fn forget(&self, id: SnapshotId) {
        let repository = self.open().await;
        let forgotten = Decisions { forgotten: BTreeSet::from([id]), ..Decisions::default() };
        repository.decide(&claimant("forget"), |_| Ok(forgotten.clone())).await.expect("forgotten");
    }

    async fn prune(&self) -> Swept {
        self.sweep(self.store.clone(), GRACE, u64::MAX).await
    }

    async fn sweep(&self, store: Arc<dyn Store>, grace: Duration, max_repack: u64) -> Swept {
        let repository = self.open_at(store).await;
        let lease = RunLease::begin(&repository, claimant("prune")).await.expect("a lease");
        let options = SweepOptions { grace, max_repack };
        let swept = sweep(&repository, &self.executor, &lease, options).await.expect("swept");
        lease.end().await;
        swept
    }

    async fn assert_whole(&self, expected: &[(SnapshotId, &[u8])]) {
        let repository = self.open().await;
        let (snapshots, damages) = repository.snapshots().await.expect("listed");
        assert_eq!(damages, vec![]);
        let listed: BTreeSet<SnapshotId> = snapshots.iter().filter(|snapshot| !snapshot.late).map(|s| s.id).collect();
        assert_eq!(listed, expected.iter().map(|(id, _)| *id).collect());
        for (id, content) in expected {
            let read = backup::read_back(&repository, id).await.expect("read");
            assert!(read == *content, "snapshot {id} reads back as something else");
        }
        let checked =
            check(&repository, &self.executor, Depth::Data, &BTreeSet::new(), None, &|_, _| {}).await.expect("checked");
        assert_eq!(checked.findings, vec![]);
    }
}

fn outside(clock: &TestClock) -> Outside {
    Outside { clock: Arc::new(clock.clone()), ..Outside::system() }
}

impl Writer {
    async fn finish(self, content: &[u8]) -> Result<SnapshotId, RepositoryError> {
        let stream = backup::write_component(&self.session, content).await?;
        backup::commit(&self.repository, self.session, self.lease, stream).await
    }
}

/// A store in which somebody else is at work just before the first mark is put, or the first index object deleted. It notes what is
/// deleted.
struct Meanwhile {
    inner: Arc<TimedStore>,
    deleting: bool,
    work: tokio::sync::Mutex<Option<BoxFuture<'static, ()>>>,
    deleted: Mutex<Vec<ObjectName>>,
}

impl Meanwhile {
    /// One in which nobody else is at work.
    fn watching(store: &Arc<TimedStore>) -> Self {
        Self { inner: Arc::clone(store), deleting: false, work: Default::default(), deleted: Default::default() }
    }

    async fn before(&self, deleting: bool, name: &ObjectName) {
        let folder = if deleting { "index/" } else { "marks/" };
        if self.deleting != deleting || !name.as_str().starts_with(folder) {
            return;
        }
        let work = self.work.lock().await.take();
        if let Some(work) = work {
            work.await;
        }
    }
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait::async_trait]
impl Store for Meanwhile {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        self.before(false, name).await;
        self.inner.put_new(name, bytes).await
    }
    async fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError> {
        self.inner.get(name, size_max).await
    }
    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner.get_range(name, range).await
    }
    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.inner.size(name).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.inner.list(prefix).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        self.before(true, name).await;
        // Requests that are under way together end in any order.
        if layout::number_in(name) == Some(0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let deletion = self.inner.delete(name).await?;
        self.deleted.lock().expect("no panic").push(name.clone());
        Ok(deletion)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_forgotten_snapshot_held_goes_a_grace_period_after_it_was_condemned() {
    let world = World::new().await;
    let (first, second) = (noise(1, 3_000_000), noise(2, 3_000_000));
    let one = world.back_up(&first).await;
    let two = world.back_up(&second).await;
    let before = world.store.bytes("packs");
    world.clock.advance(HOUR);
    world.forget(one).await;
    let swept = world.prune().await;
    assert!(swept.condemned_packs >= 2 && swept.deleted_packs == 0, "{swept:?}");
    assert_eq!(world.store.bytes("packs"), before);
    world.clock.advance(GRACE - HOUR);
    let waiting = world.prune().await;
    assert!(waiting.deleted_packs == 0 && !waiting.waiting.is_empty(), "{waiting:?}");
    world.clock.advance(2 * HOUR);
    let swept = world.prune().await;
    assert!(swept.deleted_packs >= 2, "{swept:?}");
    assert!(world.store.bytes("packs") < before * 6 / 10);
    world.assert_whole(&[(two, &second)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_found_by_create_before_prune_condemned_it_outlives_the_next_prune() {
    let world = World::new().await;
    let content = noise(1, 2_000_000);
    let old = world.back_up(&content).await;
    world.clock.advance(10 * HOUR);
    let writer = world.begin().await;
    world.forget(old).await;
    // The packs are older than the writer, so that they are not spared for its sake.
    assert!(world.prune().await.condemned_packs > 0);
    let id = writer.finish(&content).await.expect("in time");
    world.clock.advance(GRACE + 10 * HOUR);
    let swept = world.prune().await;
    assert!(swept.deleted_packs == 0 && swept.pardoned_packs > 0, "{swept:?}");
    world.assert_whole(&[(id, &content)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_writer_may_be_alive_nothing_that_it_may_rely_on_is_deleted() {
    let world = World::new().await;
    let content = noise(1, 2_000_000);
    let old = world.back_up(&content).await;
    world.clock.advance(10 * HOUR);
    let writer = world.begin().await;
    world.forget(old).await;
    world.prune().await;
    // A short grace period, over before the lease is.
    world.clock.advance(3 * HOUR);
    let swept = world.sweep(world.store.clone(), HOUR, 0).await;
    assert!(swept.deleted_packs == 0, "{swept:?}");
    assert!(swept.waiting.iter().all(|(_, wait)| matches!(wait, Wait::Run { .. })), "{swept:?}");
    let id = writer.finish(&content).await.expect("in time");
    world.assert_whole(&[(id, &content)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_slept_until_its_packs_were_deleted_withdraws_its_snapshot() {
    let world = World::new().await;
    let (content, other) = (noise(1, 2_000_000), noise(2, 2_000_000));
    let old = world.back_up(&content).await;
    let kept = world.back_up(&other).await;
    world.clock.advance(10 * HOUR);
    let writer = world.begin().await;
    world.forget(old).await;
    world.prune().await;
    world.clock.advance(2 * GRACE);
    assert!(world.prune().await.deleted_packs > 0);
    let error = writer.finish(&content).await.expect_err("too late");
    assert!(matches!(error, RepositoryError::Late { .. }), "{error}");
    world.assert_whole(&[(kept, &other)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_slept_while_nothing_was_condemned_is_confirmed() {
    let world = World::new().await;
    let content = noise(1, 2_000_000);
    let writer = world.begin().await;
    world.clock.advance(2 * GRACE);
    let id = writer.finish(&content).await.expect("confirmed");
    assert_eq!(world.store.names("marks").len(), 1);
    world.assert_whole(&[(id, &content)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_snapshot_that_nobody_confirmed_does_not_count_and_goes() {
    let world = World::new().await;
    let (content, other) = (noise(1, 2_000_000), noise(2, 2_000_000));
    let kept = world.back_up(&other).await;
    let Writer { repository, lease, session } = world.begin().await;
    world.clock.advance(2 * GRACE);
    // Killed between the manifest and its confirmation: `settle` is never called.
    let stream = backup::write_component(&session, &content).await.expect("written");
    let index = backup::finish(&session).await.expect("durable");
    let manifest = backup::manifest_under(&lease, repository.clock().now(), stream, index.indexes());
    let late = session.commit(&manifest, &index).await.expect("put");
    drop(lease);
    let listed = world.open().await.snapshots().await.expect("listed").0;
    assert!(listed.iter().any(|snapshot| snapshot.id == late && snapshot.late && !snapshot.is_complete()));
    world.clock.advance(GRACE);
    assert_eq!(world.prune().await.forgotten_late, 1);
    world.clock.advance(2 * GRACE);
    world.prune().await;
    world.assert_whole(&[(kept, &other)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_put_back_counts_again_whose_clock_ever_was_ahead() {
    let mut world = World::new().await;
    // The store keeps the one clock, the machine goes by another.
    let ahead = world.clock.copy();
    let stores = std::mem::replace(&mut world.clock, ahead);
    world.clock.advance(GRACE);
    let content = noise(1, 2_000_000);
    let id = world.back_up(&content).await;
    let name = layout::object(ObjectType::Manifest, &id);
    let manifest = world.store.get(&name, u64::MAX).await.expect("there");
    world.store.delete(&name).await.expect("deleted");
    let advance = |by| [&world.clock, &stores].iter().for_each(|clock| clock.advance(by));
    advance(10 * HOUR);
    world.store.put_new(&name, manifest).await.expect("put back");
    advance(HOUR);
    // Whichever comes first.
    assert_eq!(world.prune().await.forgotten_late, 0);
    let repository = world.open().await;
    let (_, decided) =
        decide::settle(&repository, &world.executor, &claimant("repair"), &BTreeSet::new()).await.expect("decided");
    assert_eq!(decided.confirmed, BTreeSet::from([id]));
    world.assert_whole(&[(id, &content)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_leases_of_a_run_the_one_that_says_when_it_ended_goes_last() {
    let world = World::new().await;
    for n in 0..6 {
        world.back_up(&noise(n, 1_000)).await;
    }
    world.clock.advance(10 * GRACE);
    let store = Arc::new(Meanwhile::watching(&world.store));
    world.sweep(store.clone(), GRACE, u64::MAX).await;
    let mut runs: BTreeMap<_, Vec<u32>> = BTreeMap::new();
    for name in &*store.deleted.lock().expect("no panic") {
        if let (Some(run), Some(number)) = (layout::run_in(name), layout::number_in(name)) {
            runs.entry(run).or_default().push(number);
        }
    }
    assert_eq!(runs.len(), 6);
    assert!(runs.values().all(|numbers| numbers.len() > 1 && numbers.iter().max() == numbers.last()), "{runs:?}");
}

impl World {
    /// A snapshot whose pack was spoilt, and then condemned by a repair that could not read its manifest and found nobody who
    /// needs it.
    async fn with_a_damaged_pack_condemned(&self) -> (SnapshotId, PackId) {
        let id = self.back_up(&noise(1, 500_000)).await;
        let name = self.store.list("packs").await.expect("listed")[0].name.clone();
        let pack = layout::id_in(&name).expect("a pack");
        let mut bytes = self.store.get(&name, u64::MAX).await.expect("there").to_vec();
        bytes[1000] ^= 1;
        self.store.delete(&name).await.expect("deleted");
        self.store.put_new(&name, bytes.into()).await.expect("put");
        let condemned = Decisions { condemned: BTreeSet::from([pack]), ..Decisions::default() };
        self.open().await.decide(&claimant("repair"), |_| Ok(condemned.clone())).await.expect("condemned");
        (id, pack)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condemned_pack_that_is_damaged_is_not_pardoned_unread() {
    let world = World::new().await;
    let (id, _) = world.with_a_damaged_pack_condemned().await;
    let repository = world.open().await;
    let (examined, decided) =
        decide::settle(&repository, &world.executor, &claimant("repair"), &BTreeSet::new()).await.expect("decided");
    assert_eq!(decided.pardoned, BTreeSet::new());
    assert_eq!(decided.quarantined, BTreeSet::from([id]));
    assert!(!examined.lacking.chunks.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_does_not_pardon_a_damaged_pack_either() {
    let world = World::new().await;
    let (_, pack) = world.with_a_damaged_pack_condemned().await;
    // Another machine than the one that found the damage.
    let repository = world.open().await;
    let lease = RunLease::begin(&repository, claimant("prune")).await.expect("a lease");
    let options = SweepOptions { grace: GRACE, max_repack: u64::MAX };
    let error = sweep(&repository, &world.executor, &lease, options).await.expect_err("a chunk is nowhere");
    assert!(matches!(error, RepositoryError::NeededChunksMissing { .. }), "{error}");
    assert!(repository.record().await.expect("a record").condemned.contains_key(&pack));
}

/// A snapshot whose manifest was lost, and came back when its packs were about to be deleted; `prune` runs, and `repair` decides in
/// the middle of it.
async fn pruned_while_repair_decides(deleting: bool) -> (World, SnapshotId, Vec<u8>, Decisions) {
    let world = World::new().await;
    let content = noise(1, 500_000);
    let id = world.back_up(&content).await;
    let name = layout::object(ObjectType::Manifest, &id);
    let manifest = world.store.get(&name, u64::MAX).await.expect("there");
    world.store.delete(&name).await.expect("deleted");
    world.clock.advance(10 * HOUR);
    assert!(world.prune().await.condemned_packs > 0);
    world.clock.advance(GRACE + HOUR);
    world.store.put_new(&name, manifest).await.expect("put back");
    world.clock.advance(HOUR);
    let (repository, executor, (say, said)) = (world.open().await, Arc::clone(&world.executor), oneshot::channel());
    let work = async move {
        let (_, decided) =
            decide::settle(&repository, &executor, &claimant("repair"), &BTreeSet::new()).await.expect("decided");
        say.send(decided).expect("heard");
    };
    let work = tokio::sync::Mutex::new(Some(work.boxed()));
    let store = Meanwhile { work, deleting, ..Meanwhile::watching(&world.store) };
    world.sweep(Arc::new(store), GRACE, u64::MAX).await;
    let decided = said.await.expect("repair was at work");
    (world, id, content, decided)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_repair_pardons_while_prune_is_about_to_delete_it_stays() {
    let (world, id, content, decided) = pruned_while_repair_decides(false).await;
    assert!(decided.confirmed.contains(&id) && !decided.pardoned.is_empty(), "{decided:?}");
    world.assert_whole(&[(id, &content)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prune_deletes_repair_does_not_pardon() {
    let (world, id, _, decided) = pruned_while_repair_decides(true).await;
    assert!(decided.pardoned.is_empty() && decided.quarantined.contains(&id), "{decided:?}");
    assert_eq!(world.store.names("packs"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_manifest_is_lost_nothing_is_condemned() {
    let world = World::new().await;
    let id = world.back_up(&noise(1, 500_000)).await;
    let held = Decisions { held: BTreeSet::from([id]), ..Decisions::default() };
    world.open().await.decide(&claimant("hold"), |_| Ok(held.clone())).await.expect("held");
    let name = layout::object(ObjectType::Manifest, &id);
    let manifest = world.store.get(&name, u64::MAX).await.expect("there");
    world.store.delete(&name).await.expect("deleted");
    world.clock.advance(10 * HOUR);
    let repository = world.open().await;
    let lease = RunLease::begin(&repository, claimant("prune")).await.expect("a lease");
    let options = SweepOptions { grace: GRACE, max_repack: u64::MAX };
    let error = sweep(&repository, &world.executor, &lease, options).await.expect_err("what it needs is not known");
    assert!(matches!(&error, RepositoryError::Damaged(damage) if damage.object == name.as_str()), "{error}");
    lease.end().await;
    assert!(world.open().await.record().await.expect("read").condemned.is_empty());
    world.store.put_new(&name, manifest).await.expect("put back");
    world.prune().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lives_in_mostly_dead_packs_is_moved_and_the_packs_go() {
    let world = World::new().await;
    let (dead, alive) = (noise(1, 6_000_000), noise(2, 1_000_000));
    let both = [&dead[..], &alive[..]].concat();
    let one = world.back_up(&both).await;
    // What it shares with the first lies in a pack that is mostly the first one's.
    let two = world.back_up(&alive).await;
    world.clock.advance(10 * HOUR);
    world.forget(one).await;
    let swept = world.prune().await;
    assert!(swept.repacked_packs > 0 && swept.condemned_packs > 0, "{swept:?}");
    world.clock.advance(GRACE + 10 * HOUR);
    world.prune().await;
    assert!(world.store.bytes("packs") < 2_000_000, "{} bytes are left", world.store.bytes("packs"));
    world.assert_whole(&[(two, &alive)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_of_a_killed_run_go_and_those_of_a_running_one_stay() {
    let world = World::new().await;
    let kept_content = noise(1, 2_000_000);
    let kept = world.back_up(&kept_content).await;
    world.clock.advance(HOUR);
    let killed = world.begin().await;
    backup::write_component(&killed.session, &noise(9, 3_000_000)).await.expect("written");
    killed.session.flush().await.expect("durable");
    let with_rubbish = world.store.bytes("packs");
    assert_eq!(world.prune().await.condemned_packs, 0, "the run may be at work");
    drop(killed);
    world.clock.advance(8 * HOUR);
    assert!(world.prune().await.condemned_packs > 0);
    world.clock.advance(GRACE + HOUR);
    world.prune().await;
    assert!(world.store.bytes("packs") < with_rubbish - 2_500_000);
    world.assert_whole(&[(kept, &kept_content)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_snapshots_do_not_leave_many_small_objects() {
    let world = World::new().await;
    let mut all = Vec::new();
    for n in 0..40 {
        let content = noise(n, 100_000);
        all.push((world.back_up(&content).await, content));
        world.clock.advance(HOUR);
    }
    let (packs, indexes) = (world.store.names("packs").len(), world.store.names("index").len());
    world.clock.advance(10 * HOUR);
    world.prune().await;
    world.clock.advance(GRACE + 10 * HOUR);
    world.prune().await;
    world.prune().await;
    assert!(world.store.names("packs").len() * 4 < packs, "{packs} packs became {}", world.store.names("packs").len());
    assert!(world.store.names("index").len() < indexes, "{} index objects are left", world.store.names("index").len());
    let expected: Vec<(SnapshotId, &[u8])> = all.iter().map(|(id, content)| (*id, &content[..])).collect();
    world.assert_whole(&expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_clock_went_back_deletes_nothing() {
    let world = World::new().await;
    let content = noise(1, 2_000_000);
    let old = world.back_up(&content).await;
    world.clock.advance(10 * HOUR);
    world.forget(old).await;
    world.prune().await;
    world.clock.advance(2 * GRACE);
    // Something newer than the store's own time.
    let writer = world.begin().await;
    world.clock.advance(2 * GRACE);
    writer.finish(&noise(2, 100_000)).await.expect("confirmed");
    let back = jiff::SignedDuration::try_from(2 * GRACE).expect("two days");
    let behind = TestClock::new();
    let hours = world.clock.now().duration_since(behind.now()) - back;
    behind.advance(hours.try_into().expect("later than the beginning"));
    let skewed = world.store.at_clock(&behind);
    let swept = world.sweep(skewed, GRACE, 0).await;
    assert!(swept.deleted_packs == 0, "{swept:?}");
    assert!(swept.waiting.iter().any(|(_, wait)| matches!(wait, Wait::ClockWentBack { .. })), "{swept:?}");
}
