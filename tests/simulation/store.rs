//! The simulated store, its clock, and the machines that use it.
//!
//! Faults that every operation must survive: a call that takes long; an answer that is lost, whatever was done; a call that does
//! nothing and fails for the moment; one that fails, or whose machine dies, and is done all the same up to [`STRAY_MAX`] later; a
//! machine that dies before or after any call; a call that takes hours; a machine that sleeps for
//! hours and goes on; listings that show to other machines what was put or deleted up to [`LAG_MAX`] ago; store times in
//! whole seconds; clocks of machines that are wrong by up to a day.
//! Bytes that change and objects that vanish are put there by [`World::damage`].

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use infrahub_backup::env::{Clock, Entropy};
use infrahub_backup::id::ObjectId;
use infrahub_backup::storage::object::RemoteStore;
use infrahub_backup::storage::wait::Wait;
use infrahub_backup::storage::{Capabilities, Deletion, ObjectInfo, ObjectName, Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a listing may lag behind for who did not make the change himself: below the margin of the shortest grace period used.
pub const LAG_MAX: Duration = Duration::from_secs(240);

/// How long a put or a delete that nobody waits for any more may be on its way.
pub const STRAY_MAX: Duration = Duration::from_secs(900);

/// Random numbers from a seed: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Whether something that happens `parts` times of a million happens.
    pub fn happens(&mut self, parts: u64) -> bool {
        self.below(1_000_000) < parts
    }

    pub fn seconds(&mut self, range: Range<u64>) -> Duration {
        Duration::from_secs(range.start + self.below(range.end - range.start))
    }
}

/// How often what goes wrong, in parts of a million calls.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub transient: u64,
    pub answer_lost: u64,
    /// Of the calls that failed before they did anything, how many do it later.
    pub stray: u64,
    pub crash: u64,
    /// One call takes hours; what else the machine does goes on.
    pub slow: u64,
    /// The machine sleeps for hours, with everything that it does.
    pub sleep: u64,
    pub lag: bool,
}

/// Nothing goes wrong.
pub const CALM: Faults = Faults { transient: 0, answer_lost: 0, stray: 0, crash: 0, slow: 0, sleep: 0, lag: false };

/// What is deliberately broken, to see that it is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    Nothing,
    /// Whoever backs up sees no marks that condemn: he relies on condemned packs.
    WritersSeeNoMarks,
    /// `prune` sees no leases: everybody looks dead.
    PruneSeesNoLeases,
    /// `prune` lives four days ahead, by both clocks: no grace period is ever waited for, and every lease looks run out.
    PruneLivesAhead,
    /// The last lease of a run looks as if the store had it early: nobody finds out that he is late.
    LastLeaseLooksEarly,
}

/// A store of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Where backups go.
    Source,
    /// Where `replicate` brings them.
    Target,
}

impl Place {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Source, Self::Target];

    /// How its store calls itself.
    pub fn location(self) -> &'static str {
        match self {
            Self::Source => "simulated",
            Self::Target => "simulated replica",
        }
    }
}

/// What damage is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// One bit of it is another one.
    Flip,
    /// It is gone.
    Remove,
}

struct Held {
    bytes: Bytes,
    stored_at: Timestamp,
    by: usize,
    /// When everybody's listings show it.
    shown: Instant,
}

struct Gone {
    size: u64,
    stored_at: Timestamp,
    by: usize,
    /// When nobody's listings show it any more.
    hidden: Instant,
}

/// What one store holds.
#[derive(Default)]
struct Objects {
    there: BTreeMap<ObjectName, Held>,
    gone: BTreeMap<ObjectName, Gone>,
    /// When something was last damaged.
    damaged_at: Option<Timestamp>,
}

struct Shelf {
    dice: Dice,
    source: Objects,
    target: Objects,
    log: blake3::Hasher,
    trace: Option<Vec<String>>,
}

impl Shelf {
    fn at(&mut self, place: Place) -> &mut Objects {
        match place {
            Place::Source => &mut self.source,
            Place::Target => &mut self.target,
        }
    }
}

/// The stores and the time.
pub struct World {
    shelf: Mutex<Shelf>,
    began: Instant,
    epoch: Timestamp,
    pub broken: Broken,
    calls: AtomicU64,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    NotDone,
    AnswerLost,
    DiesBefore,
    DiesAfter,
}

impl World {
    pub fn new(seed: u64, broken: Broken, traced: bool) -> Arc<Self> {
        let shelf = Shelf {
            dice: Dice::new(seed),
            source: Objects::default(),
            target: Objects::default(),
            log: blake3::Hasher::new(),
            trace: traced.then(Vec::new),
        };
        let epoch = "2026-01-01T00:00:00Z".parse().expect("a moment");
        Arc::new(Self { shelf: Mutex::new(shelf), began: Instant::now(), epoch, broken, calls: AtomicU64::new(0) })
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.try_lock().expect("one thread, which lets go at once")
    }

    /// Puts objects into both stores, as somebody did long ago.
    pub fn stock(&self, objects: &[(ObjectName, Bytes)]) {
        let (now, mut shelf) = (self.now(), self.shelf());
        for (name, bytes) in objects {
            for place in Place::ALL {
                let held = Held { bytes: bytes.clone(), stored_at: now, by: usize::MAX, shown: Instant::now() };
                shelf.at(place).there.insert(name.clone(), held);
            }
        }
    }

    /// Everything that is in the source.
    pub fn stocked(&self) -> Vec<(ObjectName, Bytes)> {
        let shelf = self.shelf();
        shelf.source.there.iter().map(|(name, held)| (name.clone(), held.bytes.clone())).collect()
    }

    /// Names in a store that begin with `prefix`.
    pub fn names(&self, place: Place, prefix: &str) -> Vec<ObjectName> {
        let mut shelf = self.shelf();
        let names = shelf.at(place).there.keys();
        names.filter(|name| name.as_str().starts_with(prefix)).cloned().collect()
    }

    /// Whether somebody else than machine `number` stored, decided or damaged anything since `since`.
    pub fn others_stored(&self, place: Place, number: usize, since: Timestamp) -> bool {
        let mut shelf = self.shelf();
        let stores = |name: &ObjectName| !["leases/", "reports/"].iter().any(|at| name.as_str().starts_with(at));
        let new = |held: &Held| held.by != number && held.stored_at.as_second() >= since.as_second();
        let objects = shelf.at(place);
        objects.damaged_at.is_some_and(|at| at >= since)
            || objects.there.iter().any(|(name, held)| stores(name) && new(held))
    }

    /// Whether the object is there and hashes to `id`.
    pub fn is_whole(&self, place: Place, name: &ObjectName, id: &ObjectId) -> bool {
        let mut shelf = self.shelf();
        shelf.at(place).there.get(name).is_some_and(|held| ObjectId::of(&held.bytes) == *id)
    }

    /// Damages an object of the source, which keeps its time. `false` if it is not there.
    pub fn damage(&self, name: &ObjectName, harm: Harm, bit: u64) -> bool {
        self.note(&format!("{name}: {harm:?}"));
        let (now, mut shelf) = (self.now(), self.shelf());
        shelf.source.damaged_at = Some(now);
        match harm {
            Harm::Remove => shelf.source.there.remove(name).is_some(),
            Harm::Flip => {
                let Some(held) = shelf.source.there.get_mut(name) else { return false };
                let mut bytes = held.bytes.to_vec();
                let at = usize::try_from(bit / 8 % bytes.len() as u64).expect("small");
                bytes[at] ^= 1 << (bit % 8);
                held.bytes = bytes.into();
                true
            }
        }
    }

    /// The true time.
    pub fn now(&self) -> Timestamp {
        self.epoch + SignedDuration::try_from(self.began.elapsed()).expect("some days")
    }

    /// A fingerprint of every call, its time, and what became of it.
    pub fn log(&self) -> String {
        self.shelf().log.finalize().to_hex().to_string()
    }

    /// The last calls, where they are kept.
    pub fn trace(&self) -> Vec<String> {
        self.shelf().trace.clone().unwrap_or_default()
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub fn note(&self, text: &str) {
        let line = format!("{} {text}", self.now());
        let mut shelf = self.shelf();
        shelf.log.update(line.as_bytes());
        if let Some(trace) = &mut shelf.trace {
            trace.push(line);
        }
    }

    fn fate(&self, machine: &Machine) -> (Duration, Fate) {
        let faults = &machine.faults;
        let mut shelf = self.shelf();
        let dice = &mut shelf.dice;
        let mut delay = Duration::from_millis(1 + dice.below(80));
        if dice.happens(20_000) {
            delay += dice.seconds(1..20);
        }
        if dice.happens(faults.slow) {
            delay += dice.seconds(4 * 3600..70 * 3600);
        }
        if dice.happens(faults.sleep) {
            let hours = dice.seconds(4 * 3600..70 * 3600);
            *machine.asleep_until.lock().expect("no call panics") = Instant::now() + hours;
        }
        let fate = match dice.below(1_000_000) {
            at if at < faults.transient => Fate::NotDone,
            at if at < faults.transient + faults.answer_lost => Fate::AnswerLost,
            at if at < faults.transient + faults.answer_lost + faults.crash => {
                if dice.happens(500_000) {
                    Fate::DiesBefore
                } else {
                    Fate::DiesAfter
                }
            }
            _ => Fate::Answered,
        };
        (delay, fate)
    }
}

/// One run of the program on one machine.
pub struct Machine {
    pub number: usize,
    /// `create`, `prune`, …: what it does.
    pub role: &'static str,
    /// How wrong its clock is.
    pub skew: SignedDuration,
    pub faults: Faults,
    world: Arc<World>,
    dead: AtomicBool,
    died: Notify,
    asleep_until: Mutex<Instant>,
    entropy: Mutex<blake3::OutputReader>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "machine {} ({})", self.number, self.role)
    }
}

impl Machine {
    pub fn start(
        world: &Arc<World>,
        number: usize,
        role: &'static str,
        skew: SignedDuration,
        faults: Faults,
    ) -> Arc<Self> {
        let seed = world.shelf().dice.next();
        let entropy = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        world.note(&format!("{role} on {number} starts"));
        Arc::new(Self {
            number,
            role,
            skew,
            faults,
            world: Arc::clone(world),
            dead: AtomicBool::new(false),
            died: Notify::new(),
            asleep_until: Mutex::new(Instant::now()),
            entropy: Mutex::new(entropy),
        })
    }

    /// Ends when the machine dies.
    pub async fn died(&self) {
        while !self.dead.load(Ordering::SeqCst) {
            self.died.notified().await;
        }
    }

    fn die(&self) {
        self.world.note(&format!("{self:?} dies"));
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    async fn for_ever<T>(&self) -> T {
        std::future::pending().await
    }
}

impl Clock for Machine {
    fn now(&self) -> Timestamp {
        let ahead = match (self.world.broken, self.role) {
            (Broken::PruneLivesAhead, "prune") => SignedDuration::from_hours(96),
            _ => SignedDuration::ZERO,
        };
        self.world.now() + self.skew + ahead
    }
}

impl Entropy for Machine {
    fn fill(&self, bytes: &mut [u8]) {
        self.entropy.lock().expect("no call panics").fill(bytes);
    }
}

impl Wait for Machine {
    fn passed(&self) -> Duration {
        self.world.began.elapsed()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// A store as one machine sees it.
#[derive(Debug, Clone)]
pub struct Seen(pub Arc<Machine>, pub Place);

impl Seen {
    fn no_answer(&self, name: &str) -> StoreError {
        StoreError::NoAnswer {
            action: "reach",
            name: name.to_owned(),
            location: self.1.location().to_owned(),
            source: std::io::ErrorKind::TimedOut.into(),
        }
    }

    fn missing(&self, name: &ObjectName) -> StoreError {
        StoreError::NotFound { name: name.clone(), location: self.1.location().to_owned() }
    }

    /// Lets `act` happen, or not, after a while.
    async fn call<T>(
        &self,
        verb: &str,
        name: &str,
        act: impl FnOnce(&mut Dice, &mut Objects) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let machine = &self.0;
        if machine.dead.load(Ordering::SeqCst) {
            return machine.for_ever().await;
        }
        let world = &machine.world;
        let (delay, fate) = world.fate(machine);
        tokio::time::sleep(delay).await;
        let asleep_until = *machine.asleep_until.lock().expect("no call panics");
        tokio::time::sleep_until(asleep_until).await;
        world.calls.fetch_add(1, Ordering::Relaxed);
        let there = if self.1 == Place::Source { "" } else { " replica" };
        world.note(&format!("{} {}{there} {verb} {name} {fate:?}", machine.number, machine.role));
        if machine.dead.load(Ordering::SeqCst) {
            return machine.for_ever().await;
        }
        match fate {
            Fate::DiesBefore => {
                self.perhaps_later(verb, name, act);
                machine.die();
                machine.for_ever().await
            }
            Fate::NotDone => {
                self.perhaps_later(verb, name, act);
                Err(self.no_answer(name))
            }
            Fate::Answered => self.done(act),
            Fate::AnswerLost => {
                // Whatever came of it, nobody hears.
                let _ = self.done(act);
                Err(self.no_answer(name))
            }
            Fate::DiesAfter => {
                let _ = self.done(act);
                machine.die();
                machine.for_ever().await
            }
        }
    }

    fn done<T>(&self, act: impl FnOnce(&mut Dice, &mut Objects) -> T) -> T {
        let mut shelf = self.0.world.shelf();
        let mut dice = shelf.dice.clone();
        let done = act(&mut dice, shelf.at(self.1));
        shelf.dice = dice;
        done
    }

    /// A request that is on its way is not undone because nobody waits for it.
    fn perhaps_later<T>(
        &self,
        verb: &str,
        name: &str,
        act: impl FnOnce(&mut Dice, &mut Objects) -> Result<T, StoreError> + Send + 'static,
    ) {
        let seen = self.clone();
        let delay = {
            let dice = &mut seen.0.world.shelf().dice;
            if !dice.happens(self.0.faults.stray) {
                return;
            }
            dice.seconds(0..STRAY_MAX.as_secs())
        };
        let told = format!("{} {} {verb} {name} arrives astray", self.0.number, self.0.role);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            seen.0.world.note(&told);
            // Nobody hears what came of it.
            let _ = seen.done(act);
        });
    }

    /// The store's time, in whole seconds as S3 tells it.
    fn store_time(&self) -> Timestamp {
        Timestamp::from_second(self.0.world.now().as_second()).expect("a moment of this century")
    }

    /// A time as this machine is told it.
    fn told(&self, name: &ObjectName, held: &Held) -> Timestamp {
        let mine = held.by == self.0.number;
        match (self.0.world.broken, self.0.role) {
            (Broken::PruneLivesAhead, "prune") if mine && name.as_str().starts_with("leases/") => {
                held.stored_at + SignedDuration::from_hours(96)
            }
            (Broken::LastLeaseLooksEarly, "create") if mine && !name.as_str().ends_with("/0") => {
                held.stored_at - SignedDuration::from_hours(24 * 30)
            }
            _ => held.stored_at,
        }
    }

    fn hides(&self, name: &str) -> bool {
        match (self.0.world.broken, self.0.role) {
            (Broken::WritersSeeNoMarks, "create") => name.starts_with("marks/"),
            (Broken::PruneSeesNoLeases, "prune") => name.starts_with("leases/"),
            _ => false,
        }
    }
}

#[async_trait]
impl Store for Seen {
    fn location(&self) -> String {
        self.1.location().to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        RemoteStore::memory().capabilities()
    }

    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let (seen, held_as) = (self.clone(), name.clone());
        let (number, lag) = (self.0.number, self.0.faults.lag);
        self.call("put", name.as_str(), move |dice, objects| {
            if objects.there.contains_key(&held_as) {
                let (name, location) = (held_as, seen.location());
                return Err(StoreError::AlreadyExists { name, location });
            }
            let late = if lag && dice.happens(200_000) { dice.seconds(0..LAG_MAX.as_secs()) } else { Duration::ZERO };
            let held = Held { bytes, stored_at: seen.store_time(), by: number, shown: Instant::now() + late };
            objects.gone.remove(&held_as);
            objects.there.insert(held_as, held);
            Ok(())
        })
        .await
    }

    async fn get(&self, name: &ObjectName, _size_max: u64) -> Result<Bytes, StoreError> {
        let (seen, wanted) = (self.clone(), name.clone());
        self.call("get", name.as_str(), move |_, objects| {
            let held = objects.there.get(&wanted).filter(|_| !seen.hides(wanted.as_str()));
            held.map(|held| held.bytes.clone()).ok_or_else(|| seen.missing(&wanted))
        })
        .await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (seen, wanted) = (self.clone(), name.clone());
        self.call("read", name.as_str(), move |_, objects| {
            let held = objects.there.get(&wanted);
            let bytes = held.map(|held| held.bytes.clone()).ok_or_else(|| seen.missing(&wanted))?;
            let (size, end) = (bytes.len() as u64, range.end);
            if end > size {
                return Err(StoreError::TooShort { name: wanted, location: seen.location(), size, end });
            }
            let at = |at: u64| usize::try_from(at).expect("small");
            Ok(bytes.slice(at(range.start)..at(end)))
        })
        .await
    }

    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        let (seen, wanted) = (self.clone(), name.clone());
        self.call("size", name.as_str(), move |_, objects| {
            objects.there.get(&wanted).map(|held| held.bytes.len() as u64).ok_or_else(|| seen.missing(&wanted))
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let below = format!("{}/", prefix.trim_end_matches('/'));
        let (seen, all) = (self.clone(), prefix.is_empty());
        self.call("list", prefix, move |_, objects| {
            let now = Instant::now();
            let fits = |name: &ObjectName| all || name.as_str().starts_with(&below);
            // Its own run's leases a `prune` must see, or it would not know the time.
            let hidden = |name: &ObjectName, by: usize| seen.hides(name.as_str()) && by != seen.0.number;
            let mine = |by: usize| by == seen.0.number || !seen.0.faults.lag;
            let there = objects
                .there
                .iter()
                .filter(|(name, held)| fits(name) && !hidden(name, held.by) && (mine(held.by) || held.shown <= now))
                .map(|(name, held)| ObjectInfo {
                    name: name.clone(),
                    size: held.bytes.len() as u64,
                    modified: seen.told(name, held),
                });
            let still = objects
                .gone
                .iter()
                .filter(|(name, gone)| fits(name) && !hidden(name, gone.by) && !mine(gone.by) && gone.hidden > now)
                .map(|(name, gone)| ObjectInfo { name: name.clone(), size: gone.size, modified: gone.stored_at });
            Ok(there.chain(still).collect())
        })
        .await
    }

    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        let (number, lag) = (self.0.number, self.0.faults.lag);
        let removed = name.clone();
        self.call("delete", name.as_str(), move |dice, objects| {
            if let Some(held) = objects.there.remove(&removed) {
                let late =
                    if lag && dice.happens(200_000) { dice.seconds(0..LAG_MAX.as_secs()) } else { Duration::ZERO };
                let gone = Gone {
                    size: held.bytes.len() as u64,
                    stored_at: held.stored_at,
                    by: number,
                    hidden: Instant::now() + late,
                };
                objects.gone.insert(removed, gone);
            }
            Ok(Deletion::Gone)
        })
        .await
    }
}
