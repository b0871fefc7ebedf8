//! Verifying: does everything that a snapshot needs exist, and is it what it should be?
//!
//! *Structure* reads all clear and metadata objects again (never the cache), sees that every pack is there at its length,
//! and that every chunk of every stream resolves. *Data* reads packs whole as well: name, seal, and the hash of each
//! chunk; [`choice`] says which packs. Damage is a [`Finding`], never an `Err`; `Err` means that verifying itself was not
//! possible. What was not looked at is said, with its reason ([`unchecked`]).
//!
//! Others write and delete meanwhile. Holds: whatever looks missing is asked for again after the marks and the index were
//! read anew, and is a finding only if it is still needed then (`view`). format-spec/08-deletion.md says why that is enough:
//! a snapshot is forgotten by a mark, and a pack leaves the index, before anything of them is deleted.
//!
//! Does not: repair, or judge snapshots that are not asked for.

mod based;
pub mod choice;
mod clear;
mod data;
mod decisions;
mod manifests;
mod needed;
mod presence;
mod remedy;
pub mod reports;
mod streams;
pub mod unchecked;
mod view;
mod walk;
pub mod without_key;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use self::choice::Choice;
pub use self::remedy::finding;
use self::unchecked::{Reason, Share, Unchecked};
use self::view::View;
use super::executor::Executor;
use super::{Damage, Repository, RepositoryError};
use crate::format::report::Finding;
use crate::id::{ObjectId, PackId, SnapshotId};

/// The operation whose reports tell what is lost for good.
pub const REPAIR: &str = "repair";

/// How thorough to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Everything is there and resolves.
    Structure,
    /// Bytes are read and hashed as well.
    Data,
}

/// What to check.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Which packs to read, at depth [`Depth::Data`]; `None`: depth [`Depth::Structure`].
    pub read: Option<Choice>,
    /// Packs to read also at depth [`Depth::Structure`]: those that were found damaged before.
    pub suspects: BTreeSet<PackId>,
    /// Only these snapshots, and of packs only those that they need; empty: all.
    pub only: BTreeSet<SnapshotId>,
    /// What somebody knows of the history of the repository.
    pub known: Known,
}

/// What somebody remembers of the history of a repository: it must go on from there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Snapshots that were there.
    pub heads: BTreeSet<SnapshotId>,
    /// A mark that was there: its number, and the BLAKE3 of its body.
    pub mark: Option<(u32, ObjectId)>,
}

/// What was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Damage.
    pub findings: Vec<Finding>,
    /// Metadata objects that were opened.
    pub objects: u64,
    /// Packs that an index names.
    pub packs: u64,
    /// Packs that were read whole.
    pub packs_read: u64,
    /// Bytes of packs that were read.
    pub bytes_read: u64,
    /// Chunks that were hashed.
    pub chunks_hashed: u64,
    /// Snapshots whose streams were resolved.
    pub snapshots: u64,
    /// Packs in the store that no index names: left by interrupted runs, harmless.
    pub unreferenced_packs: u64,
    /// Packs that a mark condemned: `prune` deletes them.
    pub condemned_packs: u64,
    /// Snapshots that landed after their lease and that nobody confirmed: they are incomplete, and were not resolved.
    pub late: Vec<SnapshotId>,
    /// Snapshots of which a part is known to be lost: they were not resolved.
    pub quarantined: Vec<SnapshotId>,
    /// Packs that were read and found sound, every segment of them opened.
    pub opened: Vec<PackId>,
    /// Packs that were read and found sound by their name alone: content, with a key that does not open it.
    pub hashed: Vec<PackId>,
    /// What was not checked, and why.
    pub not_checked: Vec<Unchecked>,
    /// The newest snapshot, late ones left aside.
    pub head: Option<SnapshotId>,
    /// The newest mark, and the BLAKE3 of its body.
    pub mark: Option<(u32, ObjectId)>,
}

/// Tells how far a check is.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Verifies a repository; at depth [`Depth::Data`] every pack is read. `known_head` is the newest snapshot that this machine
/// has seen in it.
pub async fn check(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    depth: Depth,
    only: &BTreeSet<SnapshotId>,
    known_head: Option<SnapshotId>,
    progress: Progress<'_>,
) -> Result<Checked, RepositoryError> {
    let known = Known { heads: known_head.into_iter().collect(), mark: None };
    let read = match depth {
        Depth::Structure => None,
        Depth::Data => Some(Choice::default()),
    };
    check_chosen(repository, executor, &Request { read, only: only.clone(), known, ..Request::default() }, progress)
        .await
}

/// Verifies a repository as far as `request` asks.
pub async fn check_chosen(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    request: &Request,
    progress: Progress<'_>,
) -> Result<Checked, RepositoryError> {
    let mut checker = Checker::new(repository, executor);
    checker.clear_objects().await?;
    // Manifests before marks before indexes before packs, against the order of writing: what a running `create` adds
    // meanwhile is then either complete or not looked for.
    let listed = repository.listed_manifests().await?;
    checker.decisions(request.known.mark).await?;
    checker.read_indexes().await?;
    let snapshots = checker.manifests(&listed, request).await?;
    let read_before = checker.reports(&BTreeSet::new()).await?.read_before;
    checker.leases().await?;
    checker.packs_present().await?;
    checker.first_packs = checker.view.packs().keys().copied().collect();
    checker.checked.packs = checker.first_packs.len() as u64;
    match &request.read {
        Some(choice) => {
            let needed = if request.only.is_empty() { None } else { checker.needed(&snapshots).await? };
            checker.pack_data(choice, needed.as_ref(), &read_before, progress).await?;
        }
        None => checker.suspects(&request.suspects, progress).await?,
    }
    checker.streams(&snapshots).await?;
    checker.finish().await
}

struct Checker {
    repository: Arc<Repository>,
    executor: Arc<dyn Executor>,
    checked: Checked,
    /// Damage to packs, reported once it is known whom it hurts.
    damages: Vec<(PackId, Damage)>,
    hurt_packs: HashSet<PackId>,
    view: View,
    /// Whether the packs were listed: until then new ones need not be asked for one by one.
    packs_listed: bool,
    /// Packs that the index named when it was decided which ones to read. Each is accounted for; what comes later appeared.
    first_packs: HashSet<PackId>,
    /// Packs that were not read.
    passed: BTreeMap<Reason, Share>,
}

impl Checker {
    fn new(repository: &Arc<Repository>, executor: &Arc<dyn Executor>) -> Self {
        Self {
            repository: Arc::clone(repository),
            executor: Arc::clone(executor),
            checked: Checked::default(),
            damages: Vec::new(),
            hurt_packs: HashSet::new(),
            view: View::default(),
            packs_listed: false,
            first_packs: HashSet::new(),
            passed: BTreeMap::new(),
        }
    }

    fn report(&mut self, damage: Damage, hurts: Vec<String>) {
        self.checked.findings.push(finding(damage, hurts));
    }

    fn pack_damage(&mut self, pack: PackId, damage: Damage) {
        self.hurt_packs.insert(pack);
        // What is condemned may be gone at any time; that is no reason to mistrust it for ever.
        if !self.view.record.condemned.contains_key(&pack) {
            self.repository.cached(self.repository.cache().set_damaged(&pack, true));
        }
        self.damages.push((pack, damage));
    }

    fn pass_appeared(&mut self) {
        for (_, facts) in self.view.packs().iter().filter(|(id, _)| !self.first_packs.contains(*id)) {
            self.passed.entry(Reason::Appeared).or_default().add(facts.stored_size.into());
        }
    }

    /// How many requests pay at the same time.
    fn at_once(&self) -> usize {
        self.repository.store().capabilities().concurrency.max(1)
    }

    async fn finish(mut self) -> Result<Checked, RepositoryError> {
        self.checked.condemned_packs =
            self.view.packs().keys().filter(|pack| self.view.record.condemned.contains_key(pack)).count() as u64;
        self.pass_appeared();
        let passed = std::mem::take(&mut self.passed);
        let packs = passed.into_iter().filter_map(|(reason, share)| Unchecked::packs(reason, share));
        self.checked.not_checked.extend(packs);
        self.checked.not_checked.extend(Unchecked::snapshots(Reason::Late, self.checked.late.clone()));
        let quarantined = Unchecked::snapshots(Reason::Quarantined, self.checked.quarantined.clone());
        self.checked.not_checked.extend(quarantined);
        self.checked.opened.sort_unstable();
        self.checked.hashed.sort_unstable();
        Ok(self.checked)
    }
}

/// When each pack was last read whole and sound, by the first bytes of its id.
#[derive(Debug, Clone, Default)]
struct ReadBefore(BTreeMap<u64, Timestamp>);
