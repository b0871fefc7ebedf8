//! Every operation cut after each of its store calls, and again with the answer of that call lost: as if the process had died
//! there. Afterwards the repository is in the state before or after, nothing between; the next run finishes.

mod place;
#[path = "support/timed.rs"]
mod timed;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use infrahub_backup::error::Error;
use infrahub_backup::format::key_slot::Role;
use infrahub_backup::id::SnapshotId;
use infrahub_backup::ops::create::{self, CreateOptions, FilesSource, Source};
use infrahub_backup::ops::forget::{Choice, forget};
use infrahub_backup::ops::keys;
use infrahub_backup::ops::prune::prune;
use infrahub_backup::ops::repair::{RepairOptions, Repaired, repair};
use infrahub_backup::ops::replicate::{
    ReplicateOptions, Replicated, Selection, found_replica, make_replica, replicate,
};
use infrahub_backup::ops::verify::{Verified, verify};
use infrahub_backup::ops::{Context, dump, init};
use infrahub_backup::repository::check::{Depth, check};
use infrahub_backup::repository::executor::InlineExecutor;
use infrahub_backup::repository::keys::Added;
use infrahub_backup::repository::sweep::SweepOptions;
use infrahub_backup::repository::{Outside, Repository, open};
use infrahub_backup::seal::change::Renewal;
use infrahub_backup::seal::slot::{Credential, NewCredential};
use infrahub_backup::storage::{Capabilities, Deletion, ObjectInfo, ObjectName, Store, StoreError};
use timed::{TestClock, TimedStore};

const GRACE: Duration = Duration::from_secs(3600);

/// Calls that the store answers before the process "dies"; and whether the last one's answer is lost on the way.
#[derive(Debug, Clone, Copy)]
struct Cut {
    after: i64,
    answer_lost: bool,
}

const NEVER: Cut = Cut { after: i64::MAX, answer_lost: false };

/// When the process dies: it is one process, whatever stores it uses.
#[derive(Debug)]
struct Fate {
    left: AtomicI64,
    answer_lost: bool,
    made: Mutex<Calls>,
}

/// For each call, whether it changes something.
type Calls = Vec<bool>;

impl Fate {
    fn new(cut: Cut) -> Arc<Self> {
        Arc::new(Self { left: AtomicI64::new(cut.after), answer_lost: cut.answer_lost, made: Mutex::default() })
    }

    fn calls(&self) -> Calls {
        self.made.lock().expect("no test panics here").clone()
    }

    /// Whether this call still reaches the store, and whether its answer comes back.
    fn next(&self, changes: bool) -> (bool, bool) {
        self.made.lock().expect("no test panics here").push(changes);
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        (left > 0, left > 1 || left == 1 && !self.answer_lost)
    }
}

/// A store whose caller dies.
#[derive(Debug)]
struct Dying {
    inner: Arc<TimedStore>,
    place: &'static str,
    fate: Arc<Fate>,
}

impl Dying {
    fn dead(name: &str) -> StoreError {
        let source = std::io::Error::other("the process died");
        StoreError::Io { action: "reach", name: name.to_owned(), location: "timed".to_owned(), source }
    }
}

macro_rules! dying {
    ($self:ident, $changes:expr, $name:expr, $call:expr) => {{
        let (reaches, answers) = $self.fate.next($changes);
        if !reaches {
            return Err(Dying::dead($name));
        }
        let answer = $call.await;
        if answers { answer } else { Err(Dying::dead($name)) }
    }};
}

#[async_trait]
impl Store for Dying {
    fn location(&self) -> String {
        self.place.to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        dying!(self, true, name.as_str(), self.inner.put_new(name, bytes))
    }

    async fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError> {
        dying!(self, false, name.as_str(), self.inner.get(name, size_max))
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        dying!(self, false, name.as_str(), self.inner.get_range(name, range))
    }

    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        dying!(self, false, name.as_str(), self.inner.size(name))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        dying!(self, false, prefix, self.inner.list(prefix))
    }

    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        dying!(self, true, name.as_str(), self.inner.delete(name))
    }
}

/// A world that can be copied: everything but the folder that is backed up.
struct World {
    clock: TestClock,
    store: Arc<TimedStore>,
    /// Another place, empty until something is brought there.
    replica: Arc<TimedStore>,
    key: Arc<Credential>,
    folder: Arc<tempfile::TempDir>,
}

impl World {
    async fn new() -> Self {
        let clock = TestClock::new();
        let (store, replica) = (Arc::new(TimedStore::new(&clock)), Arc::new(TimedStore::new(&clock)));
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let key = Arc::new(Credential::Passphrase(String::new().into()));
        let mut world = Self { clock, store, replica, key, folder };
        let founded =
            init::init(&world.context(), &*world.store, false, NewCredential::KeyFile).await.expect("founded");
        world.key = Arc::new(Credential::KeyFile(founded.key_file.expect("a key file was asked for")));
        world
    }

    /// The same moment again, to try something else from there.
    fn copy(&self) -> Self {
        let clock = self.clock.copy();
        let (store, replica) = (self.store.at_clock(&clock), self.replica.at_clock(&clock));
        Self { clock, store, replica, key: Arc::clone(&self.key), folder: Arc::clone(&self.folder) }
    }

    /// The replica in the place of the repository: as if only that were left.
    fn of_replica(&self) -> Self {
        let copy = self.copy();
        Self { store: Arc::clone(&copy.replica), ..copy }
    }

    fn context(&self) -> Context {
        let state = tempfile::tempdir_in(self.folder.path()).expect("a folder").keep();
        let outside = Outside { clock: Arc::new(self.clock.clone()), ..Outside::system() };
        // Many small steps: on one thread they take the least time.
        Context { executor: Arc::new(InlineExecutor), ..place::context(&state, outside) }
    }

    async fn open(&self, cut: Cut) -> Result<(Context, Arc<Repository>, Arc<Fate>), Error> {
        let (context, fate) = (self.context(), Fate::new(cut));
        let repository = context.open(self.repository_at(&fate), &self.key).await?;
        Ok((context, repository, fate))
    }

    fn repository_at(&self, fate: &Arc<Fate>) -> Arc<dyn Store> {
        Arc::new(Dying { inner: Arc::clone(&self.store), place: "repository", fate: Arc::clone(fate) })
    }

    fn replica_at(&self, fate: &Arc<Fate>) -> Arc<dyn Store> {
        Arc::new(Dying { inner: Arc::clone(&self.replica), place: "replica", fate: Arc::clone(fate) })
    }

    /// The file of day `day`: half of it is that of every day.
    fn content(day: u8) -> Vec<u8> {
        let mut bytes = vec![0; 80_000];
        let (same, own) = bytes.split_at_mut(40_000);
        blake3::Hasher::new().finalize_xof().fill(same);
        blake3::Hasher::new().update(&[day]).finalize_xof().fill(own);
        bytes
    }

    async fn create(&self, day: u8, cut: Cut) -> (Result<SnapshotId, Error>, Calls) {
        let artifacts = self.folder.path().join(format!("day-{day}"));
        std::fs::create_dir_all(&artifacts).expect("made");
        std::fs::write(artifacts.join("file"), Self::content(day)).expect("written");
        let (context, repository, fate) = match self.open(cut).await {
            Ok(opened) => opened,
            Err(error) => return (Err(error), vec![]),
        };
        let source = Source::Files(FilesSource {
            deployment: "files".to_owned(),
            neo4j: None,
            postgres: None,
            artifacts: Some(artifacts),
            neo4j_edition: None,
            infrahub_version: None,
        });
        let plan = create::plan(&context, source, CreateOptions::default()).await.expect("a plan");
        let made = create::execute(&context, &repository, plan).await.map(|created| created.id);
        (made, fate.calls())
    }

    async fn forget(&self, id: SnapshotId, cut: Cut) -> (Result<(), Error>, Calls) {
        let (context, repository, fate) = match self.open(cut).await {
            Ok(opened) => opened,
            Err(error) => return (Err(error), vec![]),
        };
        let forgotten = forget(&context, &repository, &Choice::Snapshots(BTreeSet::from([id]))).await;
        (forgotten.map(drop), fate.calls())
    }

    async fn prune(&self, cut: Cut) -> (Result<(), Error>, Calls) {
        let (context, repository, fate) = match self.open(cut).await {
            Ok(opened) => opened,
            Err(error) => return (Err(error), vec![]),
        };
        let pruned = prune(&context, &repository, SweepOptions { grace: GRACE, max_repack: u64::MAX }).await;
        (pruned.map(drop), fate.calls())
    }

    /// Brings all snapshots into the replica, which is made if it is not there yet.
    async fn replicate(&self, cut: Cut) -> (Result<Replicated, Error>, Calls) {
        let fate = Fate::new(cut);
        (self.try_replicate(&fate).await, fate.calls())
    }

    async fn try_replicate(&self, fate: &Arc<Fate>) -> Result<Replicated, Error> {
        let (context, target) = (self.context(), self.replica_at(fate));
        let source = context.open(self.repository_at(fate), &self.key).await?;
        match open::look(&*target).await? {
            open::Place::Repository => drop(found_replica(&source, &*target).await?),
            open::Place::Empty | open::Place::Foreign(_) => make_replica(&context, &source, &*target).await?,
        }
        let target = context.open(target, &self.key).await?;
        let options = ReplicateOptions { selection: Selection::All, other_keys: false };
        replicate(&context, &source, &target, &options).await
    }

    async fn verify(&self, cut: Cut) -> (Result<Verified, Error>, Calls) {
        let (context, repository, fate) = match self.open(cut).await {
            Ok(opened) => opened,
            Err(error) => return (Err(error), vec![]),
        };
        (verify(&context, &repository, Depth::Data, &[]).await, fate.calls())
    }

    /// Repairs with the help of the replica.
    async fn repair(&self, cut: Cut) -> (Result<Repaired, Error>, Calls) {
        let fate = Fate::new(cut);
        (self.try_repair(&fate).await, fate.calls())
    }

    async fn try_repair(&self, fate: &Arc<Fate>) -> Result<Repaired, Error> {
        let context = self.context();
        let repository = context.open(self.repository_at(fate), &self.key).await?;
        let replica = context.open(self.replica_at(fate), &self.key).await?;
        let options = RepairOptions { read_data: true, ..RepairOptions::default() };
        repair(&context, &repository, Some(&replica), options).await
    }

    /// One more key that opens everything, and the calls that it took.
    async fn add_reader(&self) -> (Arc<Credential>, Calls) {
        let (added, calls) = self.try_add_reader(NEVER).await;
        (added.expect("added"), calls)
    }

    async fn try_add_reader(&self, cut: Cut) -> (Result<Arc<Credential>, Error>, Calls) {
        let (context, repository, fate) = match self.open(cut).await {
            Ok(opened) => opened,
            Err(error) => return (Err(error), vec![]),
        };
        let added = keys::add(&context, &repository, Role::Reader, "other".to_owned(), NewCredential::KeyFile).await;
        let file = |(added, _): (Added, _)| Arc::new(Credential::KeyFile(added.key_file.expect("asked for")));
        (added.map(file), fate.calls())
    }

    async fn renew_keys(&self, cut: Cut) -> (Result<(), Error>, Calls) {
        let (context, repository, fate) = match self.open(cut).await {
            Ok(opened) => opened,
            Err(error) => return (Err(error), vec![]),
        };
        (keys::renew(&context, &repository, Renewal::All, None).await.map(drop), fate.calls())
    }

    async fn flip(&self, name: &str) {
        let name = ObjectName::new(name.to_owned());
        let mut bytes = self.store.get(&name, u64::MAX).await.expect("it is there").to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.store.overwrite(&name, bytes.into());
    }

    /// The days of the snapshots that are there; each reads back as it went in, and nothing is damaged.
    async fn days(&self, made: &[(u8, SnapshotId)], cut: &str) -> BTreeSet<u8> {
        let (context, repository, _) = self.open(NEVER).await.expect("it opens");
        let (snapshots, damages) = repository.snapshots().await.expect("listed");
        assert_eq!(damages, vec![], "{cut}");
        let mut days = BTreeSet::new();
        for snapshot in snapshots.iter().filter(|snapshot| !snapshot.late) {
            let mut out = Vec::new();
            dump::dump(&context, &repository, snapshot, "artifacts", Some(b"file"), &mut out).await.expect("dumped");
            let day = (0..10).find(|day| out == Self::content(*day));
            let day = day.unwrap_or_else(|| panic!("{cut}: a snapshot reads back as something that nobody backed up"));
            assert!(made.iter().all(|(known, id)| *id != snapshot.id || *known == day), "{cut}");
            days.insert(day);
        }
        let checked = check(&repository, &context.executor, Depth::Data, &BTreeSet::new(), None, &|_, _| {}).await;
        assert_eq!(checked.expect("checked").findings, vec![], "{cut}");
        days
    }

    /// Prunes until nothing is left to free: what a killed run left goes once its lease has run out.
    async fn settle(&self) {
        for _ in 0..3 {
            self.clock.advance(Duration::from_secs(8 * 3600));
            self.prune(NEVER).await.0.expect("pruned");
        }
    }

    /// Names of all objects but evidence.
    fn but_reports(&self) -> Vec<String> {
        self.store.names("").into_iter().filter(|name| !name.starts_with("reports/")).collect()
    }

    fn packs(&self) -> u64 {
        self.store.bytes("packs")
    }
}

/// Each place to cut an operation that makes these calls. That the answer to a call which changes nothing is lost is the same
/// as that the call was never made.
fn cuts(calls: &[bool]) -> impl Iterator<Item = Cut> {
    assert!(calls.len() > 10 && calls.contains(&true), "{} calls", calls.len());
    let cuts = (1..).zip(calls).flat_map(|(after, changes)| {
        let lost = changes.then_some(Cut { after, answer_lost: true });
        [Cut { after, answer_lost: false }].into_iter().chain(lost)
    });
    cuts.collect::<Vec<_>>().into_iter()
}

/// Two days that were backed up.
async fn two_days() -> (World, Vec<(u8, SnapshotId)>) {
    let world = World::new().await;
    let mut made = Vec::new();
    for day in 0..2 {
        made.push((day, world.create(day, NEVER).await.0.expect("backed up")));
        world.clock.advance(Duration::from_secs(3600));
    }
    (world, made)
}

#[tokio::test(flavor = "multi_thread")]
async fn create_cut_anywhere_makes_a_whole_snapshot_or_none() {
    let (world, made) = two_days().await;
    let (whole, calls) = world.copy().create(2, NEVER).await;
    whole.expect("backed up");
    for cut in cuts(&calls) {
        let (world, told) = (world.copy(), format!("{cut:?}"));
        let acknowledged = world.create(2, cut).await.0.is_ok();
        let days = world.days(&made, &told).await;
        assert!(days.is_superset(&BTreeSet::from([0, 1])), "{told}: {days:?}");
        assert!(!acknowledged || days.contains(&2), "{told}: an acknowledged snapshot is not there");
        world.create(3, NEVER).await.0.unwrap_or_else(|error| panic!("{told}: {error}"));
        assert!(world.days(&made, &told).await.contains(&3), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forget_cut_anywhere_forgets_or_does_not() {
    let (world, made) = two_days().await;
    let (_, calls) = world.copy().forget(made[0].1, NEVER).await;
    for cut in cuts(&calls) {
        let (world, told) = (world.copy(), format!("{cut:?}"));
        let forgotten = world.forget(made[0].1, cut).await.0.is_ok();
        let days = world.days(&made, &told).await;
        assert!(days == BTreeSet::from([0, 1]) && !forgotten || days == BTreeSet::from([1]), "{told}: {days:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_cut_anywhere_loses_nothing_and_the_next_one_finishes() {
    let (world, made) = two_days().await;
    world.forget(made[0].1, NEVER).await.0.expect("forgotten");
    world.clock.advance(Duration::from_secs(3600));
    let done = world.copy();
    done.settle().await;
    let least = done.packs();
    assert!(least < world.packs(), "{least} of {}", world.packs());
    // The run that condemns, and the run that deletes.
    let condemned = world.copy();
    condemned.prune(NEVER).await.0.expect("condemned");
    condemned.clock.advance(2 * GRACE);
    for (name, world) in [("condemning", world), ("deleting", condemned)] {
        let (_, calls) = world.copy().prune(NEVER).await;
        for cut in cuts(&calls) {
            let (world, told) = (world.copy(), format!("{name}, {cut:?}"));
            // Whether it says that it succeeded does not matter: what it left is what counts.
            let _ = world.prune(cut).await;
            assert_eq!(world.days(&made, &told).await, BTreeSet::from([1]), "{told}");
            world.settle().await;
            assert_eq!(world.days(&made, &told).await, BTreeSet::from([1]), "{told}");
            assert!(world.packs() <= least + 1000, "{told}: {} bytes are left, {least} are needed", world.packs());
        }
    }
}

const BOTH: [u8; 2] = [0, 1];

#[tokio::test(flavor = "multi_thread")]
async fn replicate_cut_anywhere_leaves_whole_snapshots_and_the_next_one_brings_the_others() {
    let (world, made) = two_days().await;
    // The leases that the manifests name have run out: they count in the replica once they are confirmed.
    world.clock.advance(Duration::from_secs(10 * 3600));
    let (whole, calls) = world.copy().replicate(NEVER).await;
    assert_eq!(whole.expect("replicated").pairs.len(), 2);
    let source = world.but_reports();
    for cut in cuts(&calls) {
        let (world, told) = (world.copy(), format!("{cut:?}"));
        let acknowledged = world.replicate(cut).await.0.is_ok();
        assert_eq!(world.but_reports(), source, "{told}");
        if matches!(open::look(&*world.replica).await, Ok(open::Place::Repository)) {
            let brought = world.of_replica().days(&made, &told).await;
            assert!(!acknowledged || brought == BTreeSet::from(BOTH), "{told}: {brought:?}");
        }
        let done = world.replicate(NEVER).await.0.unwrap_or_else(|error| panic!("{told}: {error}"));
        assert!(done.is_whole(&Selection::All), "{told}: {done:?}");
        assert_eq!(world.of_replica().days(&made, &told).await, BTreeSet::from(BOTH), "{told}");
    }
    assert_eq!(world.days(&made, "the source").await, BTreeSet::from(BOTH));
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_cut_anywhere_changes_nothing_and_the_next_one_finds_nothing() {
    let (world, made) = two_days().await;
    let (whole, calls) = world.copy().verify(NEVER).await;
    assert_eq!(whole.expect("verified").checked.findings, vec![]);
    for cut in cuts(&calls) {
        let (world, told) = (world.copy(), format!("{cut:?}"));
        let before = world.but_reports();
        // A report that cannot be kept is no error; a finding would be.
        let findings = world.verify(cut).await.0.map(|verified| verified.checked.findings).unwrap_or_default();
        assert_eq!(findings, vec![], "{told}");
        assert_eq!(world.but_reports(), before, "{told}");
        let done = world.verify(NEVER).await.0.unwrap_or_else(|error| panic!("{told}: {error}"));
        assert!(done.checked.findings.is_empty() && done.report.is_some(), "{told}: {done:?}");
        assert_eq!(world.days(&made, &told).await, BTreeSet::from(BOTH), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_cut_anywhere_gives_nothing_up_and_the_next_one_finishes() {
    let (world, made) = two_days().await;
    world.replicate(NEVER).await.0.expect("replicated");
    let first = |folder: &str| world.store.names(folder).remove(0);
    let (packs, index) = ([first("packs/"), first("trees/")], first("index/"));
    // The newest one as well, which no other one names while it is gone and not back yet.
    for name in packs.into_iter().chain([index]).chain(world.store.names("snapshots/")) {
        world.flip(&name).await;
    }
    let (whole, calls) = world.copy().repair(NEVER).await;
    let whole = whole.expect("repaired");
    assert!(whole.is_whole() && whole.found.len() >= 4, "{whole:?}");
    for cut in cuts(&calls) {
        let (world, told) = (world.copy(), format!("{cut:?}"));
        let _ = world.repair(cut).await;
        let done = world.repair(NEVER).await.0.unwrap_or_else(|error| panic!("{told}: {error}"));
        assert!(done.is_whole(), "{told}: {done:?}");
        assert_eq!(world.days(&made, &told).await, BTreeSet::from(BOTH), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_renewed_and_cut_anywhere_lock_nobody_out() {
    let (world, made) = two_days().await;
    let (other, calls) = world.add_reader().await;
    let renewed = world.copy().renew_keys(NEVER).await;
    renewed.0.expect("renewed");
    for (adds, cut) in cuts(&calls).map(|cut| (true, cut)).chain(cuts(&renewed.1).map(|cut| (false, cut))) {
        let (world, told) = (world.copy(), format!("{cut:?}"));
        let _ = if adds { world.try_add_reader(cut).await.0.map(drop) } else { world.renew_keys(cut).await.0 };
        for key in [&world.key, &other] {
            let world = World { key: Arc::clone(key), ..world.copy() };
            assert_eq!(world.days(&made, &told).await, BTreeSet::from(BOTH), "{told}");
        }
        world.renew_keys(NEVER).await.0.unwrap_or_else(|error| panic!("{told}: {error}"));
        let world = World { key: Arc::clone(&other), ..world };
        assert_eq!(world.days(&made, &told).await, BTreeSet::from(BOTH), "{told}");
    }
}
