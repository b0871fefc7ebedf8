//! Who lives in the simulated world: machines that back up, forget, prune, verify and read, by the operations that the command
//! line calls; and the model of what they must find.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use infrahub_backup::component::{Component, ComponentError, DumpStream, ExitOk, LoadStream};
use infrahub_backup::deployment::{ComponentInfo, ComponentKind, Inspection};
use infrahub_backup::error::Error;
use infrahub_backup::format::config::{Profile, Profiles};
use infrahub_backup::id::SnapshotId;
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

use super::store::{CALM, Dice, Faults, Machine, Seen, World};

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
    /// Everything that anybody began to back up.
    pub tried: Vec<Contents>,
    /// Snapshots that somebody began to forget.
    pub unwanted: BTreeSet<SnapshotId>,
    /// What must not be.
    pub violations: Vec<String>,
    /// What happened, to see that much did.
    pub counts: BTreeMap<&'static str, u64>,
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
    key: Credential,
    folder: PathBuf,
    dice: Mutex<Dice>,
    /// Of every `prune` in this schedule.
    pub grace: Duration,
    /// Whether the clocks of machines are wrong.
    skewed: bool,
    /// Machines whose local cache stays from run to run, one bit each.
    caching: u64,
}

impl Stage {
    pub async fn new(world: Arc<World>, seed: u64, folder: PathBuf) -> Arc<Self> {
        let machine = Machine::start(&world, 99, "init", SignedDuration::ZERO, CALM);
        let outside = outside(&machine);
        let founded = open::found(&Seen(machine), &outside, PROFILES, NewCredential::KeyFile).await.expect("founded");
        let key = Credential::KeyFile(founded.1.expect("a key file was asked for"));
        let mut dice = Dice::new(seed ^ 0x0005_1AA6_E000);
        let caching = dice.next();
        let at = usize::try_from(dice.below(GRACES_HOURS.len() as u64)).expect("small");
        let grace = Duration::from_secs(GRACES_HOURS[at] * 3600);
        let (skewed, model) = (dice.happens(500_000), Mutex::default());
        Arc::new(Self { world, model, key, folder, dice: Mutex::new(dice), grace, skewed, caching })
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().expect("nobody panics")
    }

    pub fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().expect("nobody panics")
    }

    /// How wrong the clock of a machine is: up to a day.
    pub fn skew(&self) -> SignedDuration {
        let seconds = i64::try_from(self.dice().below(2 * 86_400)).expect("two days") - 86_400;
        SignedDuration::from_secs(if self.skewed { seconds } else { 0 })
    }

    fn count(&self, what: &'static str) {
        *self.model().counts.entry(what).or_default() += 1;
    }

    fn violation(&self, text: String) {
        self.world.note(&format!("VIOLATION {text}"));
        self.model().violations.push(text);
    }

    fn context(&self, machine: &Arc<Machine>) -> Context {
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

    async fn open(&self, machine: &Arc<Machine>) -> Result<(Context, Arc<Repository>), Error> {
        let context = self.context(machine);
        let seen = Arc::new(Seen(Arc::clone(machine)));
        let store = Arc::new(Retried::new(seen, Patience::default(), machine.clone(), machine.clone()));
        let repository = context.open(store, &self.key).await?;
        Ok((context, repository))
    }

    /// Backs up what `contents` holds; tells of it once success was told.
    pub async fn create(&self, machine: &Arc<Machine>, deployment: &str, contents: Contents) {
        self.model().tried.push(contents.clone());
        let created = async {
            let (context, repository) = self.open(machine).await?;
            let components = contents.iter().map(|(name, bytes)| {
                let info = ComponentInfo {
                    name: name.clone(),
                    kind: ComponentKind::Opaque,
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
    pub async fn forget(&self, machine: &Arc<Machine>) {
        let forgotten = async {
            let (context, repository) = self.open(machine).await?;
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
            self.model().unwanted.extend(&chosen);
            forget(&context, &repository, &Choice::Snapshots(chosen)).await.map(drop)
        };
        match forgotten.await {
            Ok(()) => self.count("forgot"),
            Err(error) => self.world.note(&format!("forget: {}", Error::chain(&error).join(": "))),
        }
    }

    /// Frees what is not needed.
    pub async fn prune(&self, machine: &Arc<Machine>) -> Option<Swept> {
        let pruned = async {
            let (context, repository) = self.open(machine).await?;
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

    /// Checks every byte. Nothing in this world is damaged.
    pub async fn verify(&self, machine: &Arc<Machine>, depth: Depth) {
        let verified = async {
            let (context, repository) = self.open(machine).await?;
            verify::verify(&context, &repository, depth, &[]).await
        };
        match verified.await {
            Ok(verified) => {
                self.count("verified");
                for finding in verified.checked.findings {
                    self.violation(format!("verify found {}: {} {:?}", finding.object, finding.problem, finding.hurts));
                }
            }
            Err(error) => self.world.note(&format!("verify: {}", error.chain().join(": "))),
        }
    }

    /// Reads one snapshot back.
    pub async fn read(&self, machine: &Arc<Machine>) {
        let Ok((context, repository)) = self.open(machine).await else { return };
        let Ok((snapshots, _)) = repository.snapshots().await else { return };
        let good: Vec<Snapshot> = snapshots.into_iter().filter(Snapshot::is_complete).collect();
        if good.is_empty() {
            return;
        }
        let at = usize::try_from(self.dice().below(good.len() as u64)).expect("small");
        self.compare(&context, &repository, &good[at], machine.faults.transient > 0).await;
        self.count("read");
    }

    /// Reads a snapshot and compares it with what was backed up. `forgiving`: one that is forgotten meanwhile may be unreadable.
    async fn compare(&self, context: &Context, repository: &Arc<Repository>, snapshot: &Snapshot, forgiving: bool) {
        let mut found = Contents::new();
        for component in &snapshot.manifest.components {
            let mut bytes = Vec::new();
            match dump::dump(context, repository, snapshot, &component.name, None, &mut bytes).await {
                Ok(_) => drop(found.insert(component.name.clone(), bytes)),
                Err(error) => {
                    if !forgiving || !self.model().unwanted.contains(&snapshot.id) {
                        let text = error.chain().join(": ");
                        self.violation(format!("snapshot {} does not read back: {text}", snapshot.id.short()));
                    }
                    return;
                }
            }
        }
        let model = self.model();
        let right = match model.acknowledged.get(&snapshot.id) {
            Some(contents) => found == *contents,
            None => model.tried.contains(&found),
        };
        drop(model);
        if !right {
            self.violation(format!("snapshot {} reads back as something else", snapshot.id.short()));
        }
    }

    /// What must hold when everybody is done.
    pub async fn judge(&self, machine: &Arc<Machine>) {
        self.look(machine).await;
        self.verify(machine, Depth::Data).await;
    }

    /// What must hold at any time.
    pub async fn look(&self, machine: &Arc<Machine>) {
        let (context, repository) = match self.open(machine).await {
            Ok(opened) => opened,
            Err(error) => return self.violation(format!("it does not open: {}", error.chain().join(": "))),
        };
        let (snapshots, damages) = match repository.snapshots().await {
            Ok(listed) => listed,
            Err(error) => return self.violation(format!("snapshots are not listed: {error}")),
        };
        damages.iter().for_each(|damage| self.violation(damage.to_string()));
        let there: BTreeSet<SnapshotId> = snapshots.iter().filter(|snapshot| !snapshot.late).map(|s| s.id).collect();
        let lost: Vec<SnapshotId> = {
            let model = self.model();
            let wanted = model.acknowledged.keys().filter(|id| !model.unwanted.contains(id));
            wanted.filter(|id| !there.contains(id)).copied().collect()
        };
        for id in lost {
            self.violation(format!("acknowledged snapshot {} is gone", id.short()));
        }
        for snapshot in snapshots.iter().filter(|snapshot| !snapshot.late) {
            self.compare(&context, &repository, snapshot, false).await;
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

/// The next day's content of a deployment: most of it as before, something of it shared with others.
pub fn next_contents(dice: &mut Dice, before: &Contents) -> Contents {
    let mut contents = before.clone();
    for name in ["large", "small"] {
        let size = if name == "large" { 24_000 } else { 3_000 };
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
