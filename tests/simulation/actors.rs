//! Who lives in the simulated world: machines that back up, forget, prune, verify and read, by the operations that the command
//! line calls; and the model of what they must find.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use infrahub_backup::component::{Component, ComponentError, DumpStream, ExitOk, LoadStream};
use infrahub_backup::deployment::{ComponentInfo, ComponentKind, Inspection};
use infrahub_backup::error::Error;
use infrahub_backup::format::config::{Profile, Profiles};
use infrahub_backup::id::{ObjectName, SnapshotId};
use infrahub_backup::ops::create::{self, BroughtSource, CreateOptions, Source};
use infrahub_backup::ops::forget::{Choice, forget};
use infrahub_backup::ops::prune::prune;
use infrahub_backup::ops::{Cancel, Context, Events, Level, Progress, dump, verify};
use infrahub_backup::repository::check::Depth;
use infrahub_backup::repository::executor::InlineExecutor;
use infrahub_backup::repository::snapshots::Snapshot;
use infrahub_backup::repository::sweep::{SweepOptions, Swept};
use infrahub_backup::repository::{Outside, Repository, open};
use infrahub_backup::seal::slot::{Credential, NewCredential};
use infrahub_backup::state::State;
use infrahub_backup::storage::retry::{Patience, Retried};
use jiff::SignedDuration;

use super::store::{Broken, CALM, Dice, Faults, Machine, Place, Seen, World};

/// Grace periods, in hours: each has the longest margin that there is. Short ones end while a slow writer is still at work.
const GRACES_HOURS: [u64; 3] = [2, 7, 24];

/// Chunks of a few hundred bytes, so that a small stream has recipes.
const PROFILES: Profiles = Profiles {
    dump: Profile { min: 64, avg: 256, max: 1024, level: 1 },
    files: Profile { min: 64, avg: 256, max: 1024, level: 1 },
    meta: Profile { min: 1024, avg: 1024, max: 4096, level: 1 },
};

/// What a snapshot holds: the bytes of each component.
pub type Contents = BTreeMap<String, Vec<u8>>;

/// What the world must look like.
#[derive(Debug, Default)]
pub struct Model {
    /// Snapshots whose success was told.
    pub acknowledged: BTreeMap<SnapshotId, Contents>,
    /// Those of which it was told that they are in the target.
    pub brought: BTreeSet<SnapshotId>,
    /// Everything that anybody began to back up.
    pub tried: Vec<Contents>,
    /// Snapshots that somebody began to forget, and where.
    pub unwanted: BTreeSet<(Place, SnapshotId)>,
    /// Snapshots whose manifests were taken away from the source.
    pub taken: BTreeSet<SnapshotId>,
    /// What must not be.
    pub violations: Vec<String>,
    /// What happened, to see that much did.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Model {
    /// What must be there.
    fn wanted(&self, place: Place) -> impl Iterator<Item = &SnapshotId> {
        let (acknowledged, brought) = match place {
            Place::Source => (Some(self.acknowledged.keys()), None),
            Place::Target => (None, Some(self.brought.iter())),
        };
        let all = acknowledged.into_iter().flatten().chain(brought.into_iter().flatten());
        all.filter(move |id| !self.unwanted.contains(&(place, **id)))
    }
}

struct Quiet;

impl Events for Quiet {
    fn message(&self, _: Level, _: &str) {}
    fn progress(&self, _: &Progress) {}
    fn progress_done(&self, _: &'static str, _: &str) {}
}

/// A stream from memory.
struct Memory {
    info: ComponentInfo,
    bytes: Bytes,
}

struct MemoryDump {
    bytes: Bytes,
    size: u64,
}

#[async_trait]
impl DumpStream for MemoryDump {
    async fn next(&mut self) -> Result<Option<Bytes>, ComponentError> {
        let size = self.bytes.len().min(9_000);
        Ok((size > 0).then(|| self.bytes.split_to(size)))
    }

    async fn finish(self: Box<Self>) -> Result<ExitOk, ComponentError> {
        Ok(ExitOk { command: "memory".to_owned(), bytes: self.size, elapsed: Duration::ZERO, log: vec![] })
    }

    async fn abort(self: Box<Self>) {}
}

#[async_trait]
impl Component for Memory {
    fn info(&self) -> &ComponentInfo {
        &self.info
    }

    async fn inspect(&self) -> Result<Inspection, ComponentError> {
        Ok(Inspection::default())
    }

    async fn dump(&self) -> Result<Box<dyn DumpStream>, ComponentError> {
        Ok(Box::new(MemoryDump { bytes: self.bytes.clone(), size: self.bytes.len() as u64 }))
    }

    async fn load(&self) -> Result<Box<dyn LoadStream>, ComponentError> {
        Err(ComponentError::NotConfigured { component: self.info.name.clone(), what: "a load command" })
    }

    async fn wait_ready(&self, _: Duration) -> Result<(), ComponentError> {
        Ok(())
    }
}

/// One world and what is known of it.
pub struct Stage {
    pub world: Arc<World>,
    pub model: Mutex<Model>,
    key: &'static Credential,
    folder: PathBuf,
    dice: Mutex<Dice>,
    /// Of every `prune` in this schedule.
    pub grace: Duration,
    /// Whether the clocks of machines are wrong.
    skewed: bool,
    /// Machines whose local cache stays from run to run, one bit each.
    caching: u64,
    /// Whether the source is damaged, so that it may show that.
    hurt: AtomicBool,
}

/// The objects of a new repository, and its key. It is founded once: every schedule begins with it.
struct Founded {
    objects: Vec<(ObjectName, Bytes)>,
    key: Credential,
}

static FOUNDED: OnceLock<Founded> = OnceLock::new();

/// Founds the repository that every schedule begins with. Not within a runtime.
pub fn found() {
    FOUNDED.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let world = World::new(0, Broken::Nothing, false);
            let machine = Machine::start(&world, 99, "init", SignedDuration::ZERO, CALM);
            let outside = outside(&machine);
            let store = Seen(machine, Place::Source);
            let founded = open::found(&store, &outside, PROFILES, NewCredential::KeyFile).await.expect("founded");
            let key = Credential::KeyFile(founded.1.expect("a key file was asked for"));
            Founded { objects: world.stocked(), key }
        })
    });
}

impl Stage {
    pub fn new(world: Arc<World>, seed: u64, folder: PathBuf) -> Arc<Self> {
        let founded = FOUNDED.get().expect("it was founded before");
        world.stock(&founded.objects);
        let mut dice = Dice::new(seed ^ 0x0005_1AA6_E000);
        let caching = dice.next();
        let at = usize::try_from(dice.below(GRACES_HOURS.len() as u64)).expect("small");
        let grace = Duration::from_secs(GRACES_HOURS[at] * 3600);
        let (skewed, model) = (dice.happens(500_000), Mutex::default());
        let (dice, hurt) = (Mutex::new(dice), AtomicBool::new(false));
        Arc::new(Self { world, model, key: &founded.key, folder, dice, grace, skewed, caching, hurt })
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.try_lock().expect("one thread, which lets go at once")
    }

    pub fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.try_lock().expect("one thread, which lets go at once")
    }

    /// How wrong the clock of a machine is: up to a day.
    pub fn skew(&self) -> SignedDuration {
        let seconds = i64::try_from(self.dice().below(2 * 86_400)).expect("two days") - 86_400;
        SignedDuration::from_secs(if self.skewed { seconds } else { 0 })
    }

    pub fn count(&self, what: &'static str) {
        *self.model().counts.entry(what).or_default() += 1;
    }

    /// Whether a store may show damage.
    pub fn is_hurt(&self, place: Place) -> bool {
        place == Place::Source && self.hurt.load(Ordering::Relaxed)
    }

    pub fn set_hurt(&self, hurt: bool) {
        self.hurt.store(hurt, Ordering::Relaxed);
    }

    pub fn violation(&self, text: String) {
        self.world.note(&format!("VIOLATION {text}"));
        self.model().violations.push(text);
    }

    pub fn context(&self, machine: &Arc<Machine>) -> Context {
        // A machine keeps its state from run to run.
        let state = self.folder.join(format!("state-{}", machine.number));
        Context {
            outside: outside(machine),
            executor: Arc::new(InlineExecutor),
            cancel: Cancel::new().1,
            events: Arc::new(Quiet),
            state: Arc::new(State::open(state).expect("a state folder")),
            cache_folder: self.caches(machine).then(|| self.folder.join(format!("cache-{}", machine.number))),
            host: format!("machine-{}", machine.number),
            user: "simulated".to_owned(),
        }
    }

    /// Whether what this machine knew in its last run may mislead it in the next.
    fn caches(&self, machine: &Machine) -> bool {
        machine.role != "judge" && self.caching >> machine.number & 1 == 1
    }

    async fn open(&self, machine: &Arc<Machine>, place: Place) -> Result<(Context, Arc<Repository>), Error> {
        let context = self.context(machine);
        let repository = self.open_at(&context, machine, place).await?;
        Ok((context, repository))
    }

    pub async fn open_at(
        &self,
        context: &Context,
        machine: &Arc<Machine>,
        place: Place,
    ) -> Result<Arc<Repository>, Error> {
        let seen = Arc::new(Seen(Arc::clone(machine), place));
        let store = Arc::new(Retried::new(seen, Patience::default(), machine.clone(), machine.clone()));
        context.open(store, self.key).await
    }

    /// Backs up what `contents` holds; tells of it once success was told.
    pub async fn create(&self, machine: &Arc<Machine>, deployment: &str, contents: Contents) {
        self.model().tried.push(contents.clone());
        let created = async {
            let (context, repository) = self.open(machine, Place::Source).await?;
            let components = contents.iter().map(|(name, bytes)| {
                let info = ComponentInfo {
                    name: name.clone(),
                    kind: ComponentKind::Opaque,
                    service: None,
                    stopped_for_dump: vec![],
                    stopped_for_load: vec![],
                    folder: None,
                };
                Arc::new(Memory { info, bytes: Bytes::from(bytes.clone()) }) as Arc<dyn Component>
            });
            let source =
                Source::Brought(BroughtSource { deployment: deployment.to_owned(), components: components.collect() });
            let options = CreateOptions { allow_shrink: true, ..CreateOptions::default() };
            let plan = create::plan(&context, source, options).await?;
            create::execute(&context, &repository, plan).await
        };
        match created.await {
            Ok(created) => {
                self.world.note(&format!("acknowledged {}", created.id.short()));
                self.count("acknowledged");
                self.model().acknowledged.insert(created.id, contents);
            }
            Err(error) => {
                self.world.note(&format!("create: {}", error.chain().join(": ")));
                self.count("create failed");
            }
        }
    }

    /// Forgets some snapshots.
    pub async fn forget(&self, machine: &Arc<Machine>, place: Place) {
        let forgotten = async {
            let (context, repository) = self.open(machine, place).await?;
            let snapshots = repository.snapshots().await?.0;
            // The newest as well: a backup at work may rely on all of it.
            let mut chosen = BTreeSet::new();
            for snapshot in &snapshots {
                if self.dice().happens(700_000) {
                    chosen.insert(snapshot.id);
                }
            }
            if chosen.is_empty() {
                return Ok(());
            }
            self.model().unwanted.extend(chosen.iter().map(|id| (place, *id)));
            forget(&context, &repository, &Choice::Snapshots(chosen)).await.map(drop)
        };
        match forgotten.await {
            Ok(()) => self.count("forgot"),
            Err(error) => self.world.note(&format!("forget: {}", Error::chain(&error).join(": "))),
        }
    }

    /// Frees what is not needed.
    pub async fn prune(&self, machine: &Arc<Machine>, place: Place) -> Option<Swept> {
        let pruned = async {
            let (context, repository) = self.open(machine, place).await?;
            prune(&context, &repository, SweepOptions { grace: self.grace, max_repack: u64::MAX }).await
        };
        match pruned.await {
            Ok(pruned) => {
                let swept = pruned.swept;
                self.world.note(&format!(
                    "pruned: {} deleted, {} condemned, {} pardoned, {} repacked",
                    swept.deleted_packs, swept.condemned_packs, swept.pardoned_packs, swept.repacked_packs
                ));
                self.count("pruned");
                let mut model = self.model();
                *model.counts.entry("packs deleted").or_default() += swept.deleted_packs;
                *model.counts.entry("packs pardoned").or_default() += swept.pardoned_packs;
                *model.counts.entry("packs repacked").or_default() += swept.repacked_packs;
                drop(model);
                Some(swept)
            }
            Err(error) => {
                self.world.note(&format!("prune: {}", error.chain().join(": ")));
                self.count("prune failed");
                None
            }
        }
    }

    /// Checks everything. Where nothing was damaged there must be no finding.
    pub async fn verify(&self, machine: &Arc<Machine>, place: Place, depth: Depth) {
        let verified = async {
            let (context, repository) = self.open(machine, place).await?;
            verify::verify(&context, &repository, depth, &[]).await
        };
        match verified.await {
            Ok(verified) => {
                self.count("verified");
                for finding in verified.checked.findings.iter().filter(|_| !self.is_hurt(place)) {
                    self.violation(format!(
                        "{place:?}: verify found {}: {} {:?}",
                        finding.object, finding.problem, finding.hurts
                    ));
                }
            }
            Err(error) => self.world.note(&format!("verify: {}", error.chain().join(": "))),
        }
    }

    /// Reads one snapshot back.
    pub async fn read(&self, machine: &Arc<Machine>, place: Place) {
        let Ok((context, repository)) = self.open(machine, place).await else { return };
        let Ok((snapshots, _)) = repository.snapshots().await else { return };
        let good: Vec<Snapshot> = snapshots.into_iter().filter(Snapshot::is_complete).collect();
        if good.is_empty() {
            return;
        }
        let at = usize::try_from(self.dice().below(good.len() as u64)).expect("small");
        self.compare(&context, &repository, &good[at], place).await;
        self.count("read");
    }

    /// Reads a snapshot and compares it with what was backed up.
    async fn compare(&self, context: &Context, repository: &Arc<Repository>, snapshot: &Snapshot, place: Place) {
        match self.read_back(context, repository, snapshot).await {
            Ok(right) => {
                if !right {
                    self.violation(format!("snapshot {} reads back as something else", snapshot.id.short()));
                }
            }
            Err(error) => {
                if !self.is_hurt(place) {
                    let text = error.chain().join(": ");
                    self.violation(format!("{place:?}: snapshot {} does not read back: {text}", snapshot.id.short()));
                }
            }
        }
    }

    /// Reads a snapshot; whether it is what was backed up.
    pub async fn read_back(
        &self,
        context: &Context,
        repository: &Arc<Repository>,
        snapshot: &Snapshot,
    ) -> Result<bool, Error> {
        let mut found = Contents::new();
        for component in &snapshot.manifest.components {
            let mut bytes = Vec::new();
            dump::dump(context, repository, snapshot, &component.name, None, &mut bytes).await?;
            found.insert(component.name.clone(), bytes);
        }
        let model = self.model();
        Ok(match model.acknowledged.get(&snapshot.id) {
            Some(contents) => found == *contents,
            None => model.tried.contains(&found),
        })
    }

    /// What must hold when everybody is done.
    pub async fn judge(&self, machine: &Arc<Machine>, place: Place) {
        self.look(machine, place).await;
        self.verify(machine, place, Depth::Data).await;
    }

    /// What must hold at any time where nothing was damaged; where something was, nothing reads back as something else.
    pub async fn look(&self, machine: &Arc<Machine>, place: Place) {
        let (context, repository) = match self.open(machine, place).await {
            Ok(opened) => opened,
            Err(error) => return self.violation(format!("{place:?} does not open: {}", error.chain().join(": "))),
        };
        let (snapshots, damages) = match repository.snapshots().await {
            Ok(listed) => listed,
            Err(error) => return self.violation(format!("{place:?}: snapshots are not listed: {error}")),
        };
        let good: Vec<&Snapshot> = snapshots.iter().filter(|snapshot| snapshot.is_complete()).collect();
        if !self.is_hurt(place) {
            damages.iter().for_each(|damage| self.violation(format!("{place:?}: {damage}")));
            let there: BTreeSet<SnapshotId> = good.iter().map(|snapshot| snapshot.id).collect();
            let model = self.model();
            let lost: Vec<SnapshotId> = model.wanted(place).filter(|id| !there.contains(id)).copied().collect();
            drop(model);
            for id in lost {
                let how = match snapshots.iter().find(|snapshot| snapshot.id == id) {
                    None => "is gone",
                    Some(snapshot) if snapshot.late => "is late",
                    Some(snapshot) if snapshot.quarantined => "is quarantined",
                    Some(_) => "is not complete",
                };
                self.violation(format!("{place:?}: acknowledged snapshot {} {how}", id.short()));
            }
        }
        for snapshot in good {
            self.compare(&context, &repository, snapshot, place).await;
        }
    }

    /// Garbage that is left after everything had time to go.
    pub fn garbage(&self, swept: Option<Swept>) {
        match swept {
            None => self.violation("the last prune did not succeed".to_owned()),
            Some(swept) => {
                let left =
                    swept.condemned_packs + swept.deleted_packs + swept.waiting.len() as u64 + swept.forgotten_late;
                if left > 0 {
                    self.violation(format!("a prune that has nothing left to do did something: {swept:?}"));
                }
            }
        }
    }
}

fn outside(machine: &Arc<Machine>) -> Outside {
    Outside { clock: machine.clone(), entropy: machine.clone(), ..Outside::system() }
}

/// Components of a deployment, and how many bytes each has.
pub type Sizes = [(&'static str, usize); 2];

/// So that the larger one has several segments and recipes.
pub const SIZES: Sizes = [("large", 24_000), ("small", 3_000)];

/// A third of the work.
pub const SIZES_TINY: Sizes = [("large", 7_000), ("small", 2_600)];

/// The next day's content of a deployment: most of it as before, something of it shared with others.
pub fn next_contents(dice: &mut Dice, before: &Contents, sizes: Sizes) -> Contents {
    let mut contents = before.clone();
    for (name, size) in sizes {
        let bytes = contents.entry(name.to_owned()).or_insert_with(|| noise(1, size));
        for _ in 0..1 + dice.below(3) {
            let length = 500 + usize::try_from(dice.below(2_000)).expect("small");
            let at = usize::try_from(dice.below((bytes.len() - length) as u64)).expect("small");
            // Few seeds: what one deployment forgets another one brings again.
            bytes[at..at + length].copy_from_slice(&noise(dice.below(12), length));
        }
        if dice.happens(150_000) {
            *bytes = noise(2 + dice.below(3), size);
        }
    }
    contents
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Faults of a schedule: some are stormy, some calm.
pub fn faults(dice: &mut Dice) -> Faults {
    let storm = dice.below(4);
    Faults {
        transient: storm * 15_000,
        answer_lost: storm * 10_000,
        stray: if dice.happens(500_000) { 300_000 } else { 0 },
        crash: storm * 3_000,
        slow: storm * 3_000,
        sleep: storm * 2_000,
        lag: dice.happens(500_000),
    }
}
