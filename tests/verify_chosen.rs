//! Verifying a part of the packs at a time: what is chosen, what is passed over and told, and who writes meanwhile.

mod place;
#[path = "support/synthetic.rs"]
mod synthetic;
#[path = "support/timed.rs"]
mod timed;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use infrahub_backup::env::Clock;
use infrahub_backup::format::mark::Decisions;
use infrahub_backup::id::{PackId, SnapshotId};
use infrahub_backup::ops::Context;
use infrahub_backup::ops::verify::{VerifyOptions, verify_with};
use infrahub_backup::repository::check::choice::{Choice, Sample, Shard};
use infrahub_backup::repository::check::unchecked::{Reason, Subject};
use infrahub_backup::repository::check::without_key::check_without_key;
use infrahub_backup::repository::check::{Checked, Request, check_chosen};
use infrahub_backup::repository::executor::{Executor, RayonExecutor};
use infrahub_backup::repository::lease::RunLease;
use infrahub_backup::repository::sweep::{SweepOptions, sweep};
use infrahub_backup::repository::{Outside, Repository};
use infrahub_backup::seal::slot::Credential;
use infrahub_backup::storage::{Capabilities, Deletion, ObjectInfo, ObjectName, Store, StoreError};
use synthetic::backup::{self, claimant, noise};
use timed::{TestClock, TimedStore};

const HOUR: Duration = Duration::from_secs(3600);
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// Packs of content.
const PACKS: usize = 48;

struct World {
    clock: TestClock,
    store: Arc<TimedStore>,
    key: Arc<Credential>,
    folder: Arc<tempfile::TempDir>,
}

impl World {
    async fn new() -> Self {
        let clock = TestClock::new();
        let store = Arc::new(TimedStore::new(&clock));
        let shared: Arc<dyn Store> = store.clone();
        let key = Arc::new(backup::found(&shared, &outside(&clock)).await);
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self { clock, store, key, folder }
    }

    /// One with many packs, which two snapshots share. One of them is so long that it needs a recipe, in a pack of trees.
    async fn with_packs() -> Self {
        let world = Self::new().await;
        let chunks = synthetic::put_packs(&world.open().await, PACKS).await;
        for some in [chunks.repeat(2), chunks[PACKS / 2..].to_vec()] {
            synthetic::snapshot_of(&world.open().await, &some).await;
            world.clock.advance(HOUR);
        }
        assert!(!world.store.names("trees/").is_empty());
        world
    }

    /// The same moment again, to try something else from there.
    fn copy(&self) -> Self {
        let clock = self.clock.copy();
        let store = self.store.at_clock(&clock);
        Self { clock, store, key: Arc::clone(&self.key), folder: Arc::clone(&self.folder) }
    }

    async fn open(&self) -> Arc<Repository> {
        self.open_at(self.store.clone()).await
    }

    /// As a machine that has never seen the repository.
    async fn open_at(&self, store: Arc<dyn Store>) -> Arc<Repository> {
        backup::opened(&store, &self.key, None, &outside(&self.clock)).await
    }

    fn context(&self) -> Context {
        place::context(&self.folder.path().join("state"), outside(&self.clock))
    }

    fn packs(&self) -> BTreeSet<PackId> {
        let names = [self.store.names("packs/"), self.store.names("trees/")].concat();
        names.iter().map(|name| name.rsplit('/').next().expect("a name").parse().expect("an id")).collect()
    }

    fn pack_bytes(&self) -> u64 {
        self.store.bytes("packs/") + self.store.bytes("trees/")
    }

    /// Checks without a trace.
    async fn check(&self, choice: Choice) -> Checked {
        checked(&self.open().await, choice).await
    }

    /// Checks, and leaves a report of what was read.
    async fn verify(&self, choice: Choice) -> Checked {
        let options = VerifyOptions { read: Some(choice), ..VerifyOptions::default() };
        verify_with(&self.context(), &self.open().await, options).await.expect("verified").checked
    }

    async fn without_key(&self, choice: Choice) -> Checked {
        let (store, executor): (Arc<dyn Store>, Arc<dyn Executor>) = (self.store.clone(), Arc::new(RayonExecutor));
        check_without_key(&store, &executor, &choice, self.clock.now(), &|_, _| {}).await.expect("checked")
    }

    async fn forget(&self, id: SnapshotId) {
        let forgotten = Decisions { forgotten: BTreeSet::from([id]), ..Decisions::default() };
        self.open().await.decide(&claimant("forget"), |_| Ok(forgotten.clone())).await.expect("forgotten");
    }

    async fn prune(&self) {
        let (repository, executor): (_, Arc<dyn Executor>) = (self.open().await, Arc::new(RayonExecutor));
        let lease = RunLease::begin(&repository, claimant("prune")).await.expect("a lease");
        let options = SweepOptions { grace: GRACE, max_repack: u64::MAX };
        sweep(&repository, &executor, &lease, options).await.expect("swept");
        lease.end().await;
    }
}

fn outside(clock: &TestClock) -> Outside {
    Outside { clock: Arc::new(clock.clone()), ..Outside::system() }
}

async fn checked(repository: &Arc<Repository>, choice: Choice) -> Checked {
    let executor: Arc<dyn Executor> = Arc::new(RayonExecutor);
    let request = Request { read: Some(choice), ..Request::default() };
    check_chosen(repository, &executor, &request, &|_, _| {}).await.expect("checked")
}

/// Packs that were passed over for a reason.
fn passed(checked: &Checked, reason: Reason) -> u64 {
    let told = checked.not_checked.iter().filter(|told| told.what == Subject::Packs && told.reason == reason);
    told.map(|told| told.count).sum()
}

/// Each pack that there is was read, or is told with its reason: none twice.
#[track_caller]
fn assert_accounted(checked: &Checked) {
    // These were read, though not opened.
    let read_and_told = [Reason::NoKey, Reason::NoContentKey];
    let packs = checked.not_checked.iter().filter(|told| told.what == Subject::Packs);
    let told: u64 = packs.filter(|told| !read_and_told.contains(&told.reason)).map(|told| told.count).sum();
    assert_eq!(checked.packs_read + told, checked.packs, "{:?}", checked.not_checked);
}

fn opened(checked: &Checked) -> BTreeSet<PackId> {
    let opened: BTreeSet<PackId> = checked.opened.iter().copied().collect();
    assert_eq!(opened.len(), checked.opened.len(), "no pack is told twice");
    opened
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_share_all_packs_and_no_pack_twice() {
    let world = World::with_packs().await;
    for count in [1, 2, 5] {
        let mut seen = BTreeSet::new();
        for number in 1..=count {
            let shard = Shard::new(number, count);
            let checked = world.check(Choice { shard, ..Choice::default() }).await;
            assert_eq!(checked.findings, vec![]);
            assert_accounted(&checked);
            assert_eq!(passed(&checked, Reason::OtherShard), checked.packs - checked.opened.len() as u64);
            let outside = world.without_key(Choice { shard, ..Choice::default() }).await;
            assert_eq!(outside.hashed, checked.opened, "who has no key takes the same share");
            for pack in opened(&checked) {
                assert!(seen.insert(pack), "{pack} is in two shares of {count}");
            }
        }
        assert_eq!(seen, world.packs(), "{count} shares");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_reads_everything_once_before_it_reads_anything_twice() {
    let world = World::with_packs().await;
    let budget = world.pack_bytes() / 4;
    let mut last: BTreeMap<PackId, Option<u32>> = world.packs().into_iter().map(|pack| (pack, None)).collect();
    for run in 0..11 {
        let checked = world.verify(Choice { budget: Some(budget), ..Choice::default() }).await;
        assert_eq!(checked.findings, vec![]);
        assert_accounted(&checked);
        assert!(checked.bytes_read <= budget && checked.packs_read > 0, "{checked:?}");
        let read = opened(&checked);
        let newest_read = read.iter().map(|pack| last[pack]).max().expect("packs were read");
        let oldest_left = last.iter().filter(|(pack, _)| !read.contains(pack)).map(|(_, run)| *run).min();
        // `None`, never, comes before any run.
        assert!(Some(newest_read) <= oldest_left, "run {run} read something again before something older: {last:?}");
        last.extend(read.into_iter().map(|pack| (pack, Some(run))));
        world.clock.advance(HOUR);
    }
    assert!(last.values().all(|run| *run >= Some(5)), "eleven runs of a quarter read all twice: {last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maximum_age_skips_what_a_report_says_was_read_and_only_that() {
    let world = World::with_packs().await;
    let half = opened(&world.verify(Choice { shard: Shard::new(1, 2), ..Choice::default() }).await);
    world.clock.advance(10 * HOUR);
    // One that leaves no report, and one that only hashes, do not count.
    world.check(Choice::default()).await;
    world.without_key(Choice::default()).await;
    let within = |hours| Choice { max_age: Some(hours * HOUR), ..Choice::default() };
    let checked = world.check(within(11)).await;
    assert_eq!(opened(&checked), world.packs().difference(&half).copied().collect());
    assert_eq!(passed(&checked, Reason::ReadLately), half.len() as u64);
    assert_accounted(&checked);
    assert_eq!(opened(&world.check(within(9)).await), world.packs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_was_read_and_is_damaged_is_read_again_however_lately_that_was() {
    let world = World::with_packs().await;
    let name = ObjectName::new(world.store.names("packs/").remove(0));
    let good = world.store.get(&name, u64::MAX).await.expect("got");
    world.store.overwrite(&name, flipped(&good, good.len() / 2));
    let found = world.verify(Choice::default()).await;
    assert!(found.findings.iter().any(|finding| finding.object == name.as_str()), "{:?}", found.findings);
    assert_accounted(&found);
    world.store.overwrite(&name, good);
    let checked = world.check(Choice { max_age: Some(HOUR), ..Choice::default() }).await;
    assert_eq!(checked.opened.iter().map(|pack| name.as_str().ends_with(&pack.to_hex())).collect::<Vec<_>>(), [true]);
    assert_accounted(&checked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_follows_from_its_seed_on_every_machine() {
    let world = World::with_packs().await;
    let sampled = |seed| {
        let sample = Some(Sample { parts_per_million: 300_000, seed });
        world.check(Choice { sample, ..Choice::default() })
    };
    let first = sampled(1).await;
    assert_eq!(opened(&first), opened(&sampled(1).await));
    assert_ne!(opened(&first), opened(&sampled(2).await));
    let expected = (world.packs().len() * 3).div_ceil(10) as u64;
    assert_eq!((first.packs_read, passed(&first, Reason::NotSampled)), (expected, first.packs - expected));
    assert_accounted(&first);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_conditions_leave_out_is_told_with_its_reason() {
    let world = World::with_packs().await;
    let half = Sample { parts_per_million: 500_000, seed: 8 };
    world.verify(Choice { sample: Some(half), ..Choice::default() }).await;
    world.clock.advance(HOUR);
    let choice = Choice {
        shard: Shard::new(2, 2),
        max_age: Some(2 * HOUR),
        sample: Some(Sample { parts_per_million: 600_000, seed: 3 }),
        budget: Some(300),
    };
    let checked = world.check(choice).await;
    assert_eq!(checked.packs, world.packs().len() as u64);
    assert_accounted(&checked);
    for reason in [Reason::OtherShard, Reason::ReadLately, Reason::NotSampled, Reason::OverBudget] {
        assert!(passed(&checked, reason) > 0, "{reason:?}: {:?}", checked.not_checked);
    }
    let bytes: u64 = checked.not_checked.iter().filter_map(|told| told.bytes).sum();
    assert_eq!(bytes + checked.bytes_read, world.pack_bytes(), "{:?}", checked.not_checked);
}

fn flipped(bytes: &Bytes, at: usize) -> Bytes {
    let mut bad = bytes.to_vec();
    bad[at] ^= 0x04;
    bad.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_every_flipped_byte_of_every_pack_is_found() {
    let world = World::with_packs().await;
    let sound = world.without_key(Choice::default()).await;
    assert_eq!((sound.findings, sound.hashed.len()), (vec![], world.packs().len()));
    for name in [world.store.names("packs/"), world.store.names("trees/")].concat() {
        let name = ObjectName::new(name);
        let good = world.store.get(&name, u64::MAX).await.expect("got");
        for at in [0, 1, good.len() / 3, good.len() / 2, good.len() - 1] {
            world.store.overwrite(&name, flipped(&good, at));
            let checked = world.without_key(Choice::default()).await;
            let found: Vec<&str> = checked.findings.iter().map(|finding| finding.object.as_str()).collect();
            assert_eq!(found, [name.as_str()], "byte {at} of {}", good.len());
            assert_accounted(&checked);
        }
        world.store.overwrite(&name, good);
    }
}

/// A store in which something else happens just before a call is answered.
struct Meanwhile {
    inner: Arc<TimedStore>,
    calls: AtomicUsize,
    before: usize,
    work: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Meanwhile {
    fn new(inner: &Arc<TimedStore>, before: usize, work: BoxFuture<'static, ()>) -> Arc<Self> {
        Arc::new(Self { inner: Arc::clone(inner), calls: AtomicUsize::new(0), before, work: Mutex::new(Some(work)) })
    }

    async fn call(&self) -> &TimedStore {
        if self.calls.fetch_add(1, Ordering::SeqCst) == self.before {
            let work = self.work.lock().expect("no test panics here").take();
            work.expect("it happens once").await;
        }
        &self.inner
    }
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meanwhile").field("before", &self.before).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for Meanwhile {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        self.call().await.put_new(name, bytes).await
    }

    async fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError> {
        self.call().await.get(name, size_max).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.call().await.get_range(name, range).await
    }

    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.call().await.size(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.call().await.list(prefix).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        self.call().await.delete(name).await
    }
}

/// Checks again and again; each time `work` is done before another call of the check is answered. Gives what was passed over.
async fn assert_nothing_found<W>(world: &World, work: impl Fn(World) -> W) -> BTreeMap<Reason, u64>
where
    W: Future<Output = ()> + Send + 'static,
{
    let mut all = BTreeMap::new();
    for before in 0.. {
        let world = world.copy();
        let store = Meanwhile::new(&world.store, before, Box::pin(work(world.copy_of_the_same_store())));
        let repository = world.open_at(store.clone()).await;
        let checked = checked(&repository, Choice::default()).await;
        assert_eq!(checked.findings, vec![], "before call {before}");
        assert_accounted(&checked);
        for told in checked.not_checked.iter().filter(|told| told.what == Subject::Packs) {
            *all.entry(told.reason).or_default() += told.count;
        }
        if store.work.lock().expect("no test panics here").is_some() {
            assert!(before > 20, "a check of {before} calls");
            break;
        }
    }
    all
}

impl World {
    fn copy_of_the_same_store(&self) -> Self {
        let (key, folder) = (Arc::clone(&self.key), Arc::clone(&self.folder));
        Self { clock: self.clock.clone(), store: Arc::clone(&self.store), key, folder }
    }

    /// One with a snapshot that shares a part of its packs with one that is forgotten.
    async fn with_forgotten() -> Self {
        let world = Self::new().await;
        let (dead, alive) = (noise(1, 120_000), noise(2, 40_000));
        let old = backup::back_up(&world.open().await, &[&dead[..], &alive[..]].concat()).await;
        backup::back_up(&world.open().await, &alive).await;
        world.clock.advance(10 * HOUR);
        world.forget(old).await;
        world
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_condemns_and_repacks_at_any_moment_is_no_finding() {
    let world = World::with_forgotten().await;
    assert_nothing_found(&world, |world| async move { world.prune().await }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_deletes_at_any_moment_is_no_finding() {
    let world = World::with_forgotten().await;
    world.prune().await;
    world.clock.advance(GRACE + 10 * HOUR);
    let (before, pruned) = (world.packs(), world.copy());
    pruned.prune().await;
    assert!(pruned.packs().len() < before.len(), "it deletes");
    let passed = assert_nothing_found(&world, |world| async move { world.prune().await }).await;
    assert!(passed.contains_key(&Reason::Vanished), "at some moment a pack vanishes: {passed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forget_and_a_prune_at_any_moment_are_no_finding() {
    let world = World::new().await;
    let old = backup::back_up(&world.open().await, &noise(1, 60_000)).await;
    backup::back_up(&world.open().await, &noise(2, 60_000)).await;
    world.clock.advance(10 * HOUR);
    assert_nothing_found(&world, |world| async move {
        world.forget(old).await;
        world.prune().await;
        world.clock.advance(GRACE + 10 * HOUR);
        world.prune().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_at_any_moment_is_no_finding() {
    let world = World::new().await;
    backup::back_up(&world.open().await, &noise(1, 60_000)).await;
    let more = [noise(1, 60_000), noise(2, 30_000)].concat();
    assert_nothing_found(&world, |world| {
        let more = more.clone();
        async move {
            backup::back_up(&world.open().await, &more).await;
        }
    })
    .await;
}
