//! Every operation cut after each of its store calls, and again with the answer of that call lost: as if the process had died
//! there. Afterwards the repository is in the state before or after, nothing between; the next run finishes.

mod place;
#[path = "support/timed.rs"]
mod timed;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use infrahub_backup::error::Error;
use infrahub_backup::id::SnapshotId;
use infrahub_backup::ops::create::{self, CreateOptions, FilesSource, Source};
use infrahub_backup::ops::forget::{Choice, forget};
use infrahub_backup::ops::prune::prune;
use infrahub_backup::ops::{Context, dump, init};
use infrahub_backup::repository::check::{Depth, check};
use infrahub_backup::repository::sweep::SweepOptions;
use infrahub_backup::repository::{Outside, Repository};
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

/// A store whose caller dies.
#[derive(Debug)]
struct Dying {
    inner: Arc<TimedStore>,
    left: AtomicI64,
    made: AtomicI64,
    answer_lost: bool,
}

impl Dying {
    fn new(inner: Arc<TimedStore>, cut: Cut) -> Arc<Self> {
        Arc::new(Self { inner, left: AtomicI64::new(cut.after), made: AtomicI64::new(0), answer_lost: cut.answer_lost })
    }

    fn calls(&self) -> i64 {
        self.made.load(Ordering::SeqCst)
    }

    /// Whether this call still reaches the store, and whether its answer comes back.
    fn next(&self) -> (bool, bool) {
        self.made.fetch_add(1, Ordering::SeqCst);
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        (left > 0, left > 1 || left == 1 && !self.answer_lost)
    }

    fn dead(name: &str) -> StoreError {
        let source = std::io::Error::other("the process died");
        StoreError::Io { action: "reach", name: name.to_owned(), location: "timed".to_owned(), source }
    }
}

macro_rules! dying {
    ($self:ident, $name:expr, $call:expr) => {{
        let (reaches, answers) = $self.next();
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
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        dying!(self, name.as_str(), self.inner.put_new(name, bytes))
    }

    async fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError> {
        dying!(self, name.as_str(), self.inner.get(name, size_max))
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        dying!(self, name.as_str(), self.inner.get_range(name, range))
    }

    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        dying!(self, name.as_str(), self.inner.size(name))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        dying!(self, prefix, self.inner.list(prefix))
    }

    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        dying!(self, name.as_str(), self.inner.delete(name))
    }
}

/// A world that can be copied: everything but the folder that is backed up.
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
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let mut world = Self { clock, store, key: Arc::new(Credential::Passphrase(String::new().into())), folder };
        let founded =
            init::init(&world.context(), &*world.store, false, NewCredential::KeyFile).await.expect("founded");
        world.key = Arc::new(Credential::KeyFile(founded.key_file.expect("a key file was asked for")));
        world
    }

    /// The same moment again, to try something else from there.
    fn copy(&self) -> Self {
        let clock = self.clock.copy();
        let store = self.store.at_clock(&clock);
        Self { clock, store, key: Arc::clone(&self.key), folder: Arc::clone(&self.folder) }
    }

    fn context(&self) -> Context {
        let state = tempfile::tempdir_in(self.folder.path()).expect("a folder").keep();
        place::context(&state, Outside { clock: Arc::new(self.clock.clone()), ..Outside::system() })
    }

    async fn open(&self, cut: Cut) -> Result<(Context, Arc<Repository>, Arc<Dying>), Error> {
        let (context, dying) = (self.context(), Dying::new(Arc::clone(&self.store), cut));
        let repository = context.open(dying.clone(), &self.key).await?;
        Ok((context, repository, dying))
    }

    /// The file of day `day`: half of it is that of every day.
    fn content(day: u8) -> Vec<u8> {
        let mut bytes = vec![0; 80_000];
        let (same, own) = bytes.split_at_mut(40_000);
        blake3::Hasher::new().finalize_xof().fill(same);
        blake3::Hasher::new().update(&[day]).finalize_xof().fill(own);
        bytes
    }

    async fn create(&self, day: u8, cut: Cut) -> (Result<SnapshotId, Error>, i64) {
        let artifacts = self.folder.path().join(format!("day-{day}"));
        std::fs::create_dir_all(&artifacts).expect("made");
        std::fs::write(artifacts.join("file"), Self::content(day)).expect("written");
        let (context, repository, dying) = match self.open(cut).await {
            Ok(opened) => opened,
            Err(error) => return (Err(error), 0),
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
        (made, dying.calls())
    }

    async fn forget(&self, id: SnapshotId, cut: Cut) -> (Result<(), Error>, i64) {
        let (context, repository, dying) = match self.open(cut).await {
            Ok(opened) => opened,
            Err(error) => return (Err(error), 0),
        };
        let forgotten = forget(&context, &repository, &Choice::Snapshots(BTreeSet::from([id]))).await;
        (forgotten.map(drop), dying.calls())
    }

    async fn prune(&self, cut: Cut) -> (Result<(), Error>, i64) {
        let (context, repository, dying) = match self.open(cut).await {
            Ok(opened) => opened,
            Err(error) => return (Err(error), 0),
        };
        let pruned = prune(&context, &repository, SweepOptions { grace: GRACE, max_repack: u64::MAX }).await;
        (pruned.map(drop), dying.calls())
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

    fn packs(&self) -> u64 {
        self.store.bytes("packs")
    }
}

/// Each place to cut an operation of `calls` calls.
fn cuts(calls: i64) -> impl Iterator<Item = Cut> {
    (1..=calls).flat_map(|after| [false, true].map(|answer_lost| Cut { after, answer_lost }))
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
    assert!(calls > 10, "{calls} calls");
    for cut in cuts(calls) {
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
    for cut in cuts(calls) {
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
        assert!(calls > 10, "{calls} calls");
        for cut in cuts(calls) {
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
