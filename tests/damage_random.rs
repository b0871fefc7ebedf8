//! A thousand times something random happens to a repository: a byte flips, an object is cut off, is gone, or changes places with
//! another one, of whatever kind. A machine that has never seen the repository finds it, by name; and no stream reads back as
//! something else.
//!
//! Left out is just what cannot be known, see `tests/damage.rs`: that a lease is missing, or the newest report, or a manifest
//! that no other one names, or the newest mark, since nothing names these but their own names.
//!
//! `INFRAHUB_DAMAGE_SEED` chooses other cases than those of every run.

#[path = "support/backup.rs"]
mod backup;
mod place;
#[path = "support/timed.rs"]
mod timed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use infrahub_backup::error::{Error, ErrorKind};
use infrahub_backup::format::config::{Profile, Profiles};
use infrahub_backup::format::envelope::ObjectType;
use infrahub_backup::format::layout;
use infrahub_backup::id::SnapshotId;
use infrahub_backup::ops::create::{self, CreateOptions, FilesSource, Source};
use infrahub_backup::ops::forget::{self, Change};
use infrahub_backup::ops::{Context, dump, verify};
use infrahub_backup::repository::check::{Depth, check};
use infrahub_backup::repository::executor::InlineExecutor;
use infrahub_backup::repository::snapshots::Snapshot;
use infrahub_backup::repository::{Outside, Repository};
use infrahub_backup::seal::slot::Credential;
use infrahub_backup::storage::{ObjectName, Store};
use timed::{TestClock, TimedStore};

const CASES: u64 = 1000;
const SEED_DEFAULT: u64 = 20_260_101;

/// Kinds of objects, by their folders.
const KINDS: [&str; 9] = ["config", "keys", "packs", "trees", "index", "snapshots", "marks", "leases", "reports"];

/// Small chunks: few bytes need a recipe.
const PROFILES: Profiles = Profiles {
    dump: Profile { min: 64, avg: 256, max: 1 << 10, level: 1 },
    files: Profile { min: 256, avg: 1 << 10, max: 4 << 10, level: 1 },
    meta: Profile { min: 1 << 10, avg: 2 << 10, max: 4 << 10, level: 1 },
};

/// What happens to an object.
#[derive(Debug, Clone)]
enum Damage {
    Flipped { at: usize, bit: u8 },
    TruncatedTo(usize),
    Missing,
    SwappedWith(ObjectName),
}

#[derive(Debug)]
struct Case {
    name: ObjectName,
    damage: Damage,
}

impl Case {
    async fn happen(&self, store: &TimedStore) {
        let name = &self.name;
        let bytes = store.get(name, u64::MAX).await.expect("the object is there");
        match &self.damage {
            Damage::Flipped { at, bit } => {
                let mut bad = bytes.to_vec();
                bad[*at] ^= 1 << bit;
                store.overwrite(name, bad.into());
            }
            Damage::TruncatedTo(size) => store.overwrite(name, bytes.slice(..*size)),
            Damage::Missing => drop(store.delete(name).await.expect("deleted")),
            Damage::SwappedWith(other) => {
                store.overwrite(name, store.get(other, u64::MAX).await.expect("the other one is there"));
                store.overwrite(other, bytes);
            }
        }
    }

    /// Whether what was told is about all that is hurt, as far as it can be.
    fn is_told(&self, told: &[String]) -> bool {
        let is_told = |name: &str| {
            // Nothing says what a key slot was called.
            let missing_key = matches!(self.damage, Damage::Missing) && name.starts_with("keys/");
            told.iter().any(|told| told.contains(if missing_key { "keys/" } else { name }))
        };
        let Damage::SwappedWith(other) = &self.damage else { return is_told(self.name.as_str()) };
        let names = [self.name.as_str(), other.as_str()];
        // Without these nobody knows of others: what does not open is not looked at, and only an index knows which packs there are.
        let hides = |name: &str| ["config/", "keys/", "index/"].iter().any(|folder| name.starts_with(folder));
        if names.into_iter().any(hides) { names.into_iter().any(is_told) } else { names.into_iter().all(is_told) }
    }
}

/// Chance that follows from a seed.
struct Chance(blake3::OutputReader);

impl Chance {
    fn new(seed: u64, case: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).update(&case.to_le_bytes()).finalize_xof())
    }

    fn below(&mut self, end: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        let end = u64::try_from(end).expect("small");
        usize::try_from(u64::from_le_bytes(bytes) % end).expect("below a `usize`")
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// A stream, or a file, of a snapshot.
type Place = (SnapshotId, &'static str, Option<String>);

/// A repository, and what is in it.
struct World {
    clock: TestClock,
    store: Arc<TimedStore>,
    key: Credential,
    folder: tempfile::TempDir,
    expected: BTreeMap<Place, Vec<u8>>,
    /// Each object's bytes, by kind.
    objects: BTreeMap<&'static str, Vec<(ObjectName, Bytes)>>,
    /// Objects of which nobody can tell that they are missing.
    unnamed: BTreeSet<ObjectName>,
}

impl World {
    /// Snapshots of streams and of files, which share some of what they hold; decisions, leases and reports.
    async fn new() -> Self {
        let clock = TestClock::new();
        let store = Arc::new(TimedStore::new(&clock));
        let shared: Arc<dyn Store> = store.clone();
        let outside = Outside { clock: Arc::new(clock.clone()), ..Outside::system() };
        let key = backup::found_with(&shared, &outside, PROFILES).await;
        let folder = tempfile::tempdir().expect("a folder");
        let (expected, objects, unnamed) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut world = Self { clock, store, key, folder, expected, objects, unnamed };
        let context = world.context();
        for day in 0..2 {
            world.back_up_stream(&context, day).await;
            world.back_up_files(&context, day).await;
        }
        let repository = world.open(&context, &world.store).await.expect("opened");
        let id = world.expected.keys().next().expect("there are snapshots").0;
        let tag = BTreeMap::from([("why".to_owned(), Some("to have marks".to_owned()))]);
        for change in [Change::Hold, Change::Tag(tag), Change::Release] {
            forget::change(&context, &repository, &BTreeSet::from([id]), &change).await.expect("decided");
        }
        let verified = verify::verify(&context, &repository, Depth::Data, &[]).await.expect("verified");
        assert_eq!(verified.checked.findings, vec![]);
        world.look(&repository).await;
        world
    }

    fn context(&self) -> Context {
        let outside = Outside { clock: Arc::new(self.clock.clone()), ..Outside::system() };
        Context { executor: Arc::new(InlineExecutor), ..place::context(&self.folder.path().join("state"), outside) }
    }

    async fn open(&self, context: &Context, store: &Arc<TimedStore>) -> Result<Arc<Repository>, Error> {
        context.open(store.clone(), &self.key).await
    }

    async fn back_up_stream(&mut self, context: &Context, day: u8) {
        let content = [backup::noise(100, 2_000).repeat(20), backup::noise(day, 2_000)].concat();
        let repository = self.open(context, &self.store).await.expect("opened");
        let id = backup::back_up(&repository, &content).await;
        self.expected.insert((id, "database", None), content);
        self.clock.advance(Duration::from_secs(3600));
    }

    async fn back_up_files(&mut self, context: &Context, day: u8) {
        let artifacts = self.folder.path().join("artifacts");
        std::fs::create_dir_all(&artifacts).expect("a folder");
        std::fs::write(artifacts.join("changes"), backup::noise(50 + day, 5_000)).expect("written");
        std::fs::write(artifacts.join("stays"), backup::noise(40, 6_000)).expect("written");
        let source = Source::Files(FilesSource {
            deployment: "files".to_owned(),
            neo4j: None,
            postgres: None,
            artifacts: Some(artifacts.clone()),
            neo4j_edition: None,
            infrahub_version: None,
        });
        let repository = self.open(context, &self.store).await.expect("opened");
        let plan = create::plan(context, source, CreateOptions::default()).await.expect("a plan");
        let id = create::execute(context, &repository, plan).await.expect("backed up").id;
        for entry in std::fs::read_dir(&artifacts).expect("a folder") {
            let name = entry.expect("an entry").file_name().into_string().expect("text");
            let content = std::fs::read(artifacts.join(&name)).expect("a file");
            self.expected.insert((id, "artifacts", Some(name)), content);
        }
        self.clock.advance(Duration::from_secs(3600));
    }

    /// Takes down what is there, and what of that nothing names.
    async fn look(&mut self, repository: &Arc<Repository>) {
        for kind in KINDS {
            for info in self.store.list(kind).await.expect("listed") {
                let bytes = self.store.get(&info.name, u64::MAX).await.expect("got");
                self.objects.entry(kind).or_default().push((info.name, bytes));
            }
        }
        assert_eq!(self.objects.len(), KINDS.len(), "{:?}", self.objects.keys());
        assert_eq!(self.objects.values().map(Vec::len).sum::<usize>(), self.store.names("").len());
        let of = |kind: &str| self.objects[kind].iter().map(|(name, _)| name.clone());
        let marks = (1..).map(layout::mark).take(self.objects["marks"].len());
        self.unnamed = of("snapshots").chain(of("reports")).chain(of("leases")).chain(marks.last()).collect();
        let (snapshots, _) = repository.snapshots().await.expect("listed");
        for id in snapshots.iter().filter_map(|snapshot| snapshot.manifest.previous) {
            self.unnamed.remove(&layout::object(ObjectType::Manifest, &id));
        }
        for id in repository.reports().await.expect("listed").0.iter().filter_map(|(_, report)| report.previous) {
            self.unnamed.remove(&layout::object(ObjectType::Report, &id));
        }
        let components = snapshots.iter().flat_map(|snapshot| &snapshot.manifest.components);
        assert!(components.flat_map(|component| &component.streams).any(|stream| stream.root.depth > 0), "no recipes");
        let named = |kind: &str| of(kind).filter(|name| !self.unnamed.contains(name)).count();
        assert!(named("snapshots") >= 1 && named("reports") >= 2 && named("marks") >= 2, "{:?}", self.unnamed);
    }

    fn object(&self, chance: &mut Chance) -> &(ObjectName, Bytes) {
        let kind = chance.one(&KINDS);
        chance.one(&self.objects[kind])
    }

    /// A case that can be known of.
    fn case(&self, mut chance: Chance) -> Case {
        loop {
            let (name, bytes) = self.object(&mut chance);
            let damage = match chance.below(4) {
                0 => Damage::Flipped {
                    at: chance.below(bytes.len()),
                    bit: u8::try_from(chance.below(8)).expect("small"),
                },
                1 => Damage::TruncatedTo(chance.below(bytes.len())),
                2 if self.unnamed.contains(name) => continue,
                2 => Damage::Missing,
                _ => match self.object(&mut chance) {
                    (other, _) if other == name => continue,
                    (other, _) => Damage::SwappedWith(other.clone()),
                },
            };
            return Case { name: name.clone(), damage };
        }
    }

    /// What is wrong with how a case ends.
    async fn wrong(&self, context: &Context, case: &Case) -> Vec<String> {
        let store = self.store.at_clock(&self.clock.copy());
        case.happen(&store).await;
        let repository = match self.open(context, &store).await {
            Ok(repository) => repository,
            Err(error) => return not_told(case, vec![place::told(&error)]),
        };
        let checked = check(&repository, &context.executor, Depth::Data, &BTreeSet::new(), None, &|_, _| {}).await;
        let mut wrong = match checked {
            Ok(checked) => not_told(case, checked.findings.into_iter().map(|found| found.object).collect()),
            Err(error) => vec![format!("it cannot be checked: {error}")],
        };
        // Another machine, which verify has not told anything.
        let repository = self.open(context, &store).await.expect("it opened before");
        wrong.extend(self.read_otherwise(context, &repository).await);
        wrong
    }

    /// Places that read to their end, and to something else.
    async fn read_otherwise(&self, context: &Context, repository: &Arc<Repository>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (place, content) in &self.expected {
            match read(context, repository, place).await {
                Ok(read) if read != *content => wrong.push(format!("{place:?} reads as something else")),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Damaged => {}
                Err(error) => wrong.push(format!("{place:?}: {}", place::told(&error))),
            }
        }
        wrong
    }
}

fn not_told(case: &Case, told: Vec<String>) -> Vec<String> {
    if case.is_told(&told) { vec![] } else { vec![format!("found is only {told:?}")] }
}

async fn read(context: &Context, repository: &Arc<Repository>, place: &Place) -> Result<Vec<u8>, Error> {
    let (id, component, path) = place;
    let snapshot = Snapshot::new(*id, repository.manifest(id).await?);
    let mut out = Vec::new();
    dump::dump(context, repository, &snapshot, component, path.as_ref().map(String::as_bytes), &mut out).await?;
    Ok(out)
}

fn seed() -> u64 {
    let text = std::env::var("INFRAHUB_DAMAGE_SEED").unwrap_or_else(|_| SEED_DEFAULT.to_string());
    text.parse().unwrap_or_else(|_| panic!("INFRAHUB_DAMAGE_SEED is `{text}`, not a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_random_damages_are_found_and_nothing_reads_as_something_else() {
    let (seed, world) = (seed(), Arc::new(World::new().await));
    let context = world.context();
    assert_eq!(
        world.read_otherwise(&context, &world.open(&context, &world.store).await.expect("opened")).await,
        Vec::<String>::new()
    );
    let cases = stream::iter(0..CASES).map(|number| {
        let (world, context) = (Arc::clone(&world), context.clone());
        tokio::spawn(async move {
            let case = world.case(Chance::new(seed, number));
            let wrong = world.wrong(&context, &case).await;
            (!wrong.is_empty()).then(|| format!("seed {seed}, case {number}: {case:?}\n  {}", wrong.join("\n  ")))
        })
    });
    let ended = cases.buffer_unordered(4).filter_map(|ended| async { ended.expect("no case panics") });
    let wrong: Vec<String> = ended.collect().await;
    assert!(wrong.is_empty(), "{} of {CASES} cases\n{}", wrong.len(), wrong.join("\n"));
}
