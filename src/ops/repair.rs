//! `repair`: mends what can be mended, and tells exactly what cannot.
//!
//! It begins and ends with a check: what the last one still finds is told, and makes the run incomplete.
//!
//! Holds: see [`crate::repository::repair`]. A dry run changes nothing, the local cache apart, which forgets it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::evidence::{Recorder, StepFacts};
use super::replicate::{Mode, relation};
use super::{Context, Events, Progress};
use crate::error::{Error, ErrorKind};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::mark::Decisions;
use crate::format::report::{Finding, Outcome};
use crate::id::{ObjectId, ObjectName, PackId, SnapshotId};
use crate::repository::check::choice::Choice;
use crate::repository::check::{Known, Request, check_chosen, finding};
use crate::repository::lease::{Claimant, RunLease};
use crate::repository::loss::SnapshotLoss;
use crate::repository::repair::decide::{Examined, Pretended, examine, settle};
use crate::repository::repair::heal::{Healed, Healer};
use crate::repository::repair::marks::{MendedMarks, first_lost, may_be_pruned, mend_marks};
use crate::repository::repair::objects::{Mended, mend_leases, mend_object};
use crate::repository::repair::rebuild::{Rebuilt, rebuild};
use crate::repository::runs::Moment;
use crate::repository::{Repository, RepositoryError};

/// How often what was brought back may show more that is missing: recipes have few levels.
const ROUNDS_MAX: u32 = 12;

/// How to repair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RepairOptions {
    /// Whether to read every pack; else only those that were found damaged before.
    pub read_data: bool,
    /// Whether to go on without marks of which nobody knows what they said.
    pub accept_lost_marks: bool,
    /// Whether to forget snapshots whose manifests nobody has.
    pub forget_lost: bool,
}

/// What was mended, and what could not be. After a dry run: what would be.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Damage that there was.
    pub found: Vec<Finding>,
    /// The marks that were damaged.
    pub marks: Option<MendedMarks>,
    /// Single objects that were brought from the copy.
    pub brought: Vec<ObjectName>,
    /// Single objects that nobody has and nothing needs: they were removed.
    pub removed: Vec<ObjectName>,
    /// The index.
    pub rebuilt: Option<Rebuilt>,
    /// Chunks.
    pub healed: Healed,
    /// What was decided about snapshots and packs.
    pub decided: Decisions,
    /// What is lost of which snapshots.
    pub lost: Vec<SnapshotLoss>,
    /// Snapshots whose manifests nobody has.
    pub lost_manifests: BTreeSet<SnapshotId>,
    /// Damage that is left.
    pub left: Vec<Finding>,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// The report.
    pub report: Option<ObjectId>,
}

impl Repaired {
    /// Whether nothing is lost, and no damage is left.
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.lost_manifests.is_empty() && self.left.is_empty()
    }
}

/// Repairs, with the help of `replica` if there is one.
///
/// # Errors
/// Before anything is changed: a replica under other keys; marks that nobody knows, unless that is accepted.
pub async fn repair(
    context: &Context,
    repository: &Arc<Repository>,
    replica: Option<&Arc<Repository>>,
    options: RepairOptions,
) -> Result<Repaired, Error> {
    check_replica(repository, replica)?;
    repository.require_deletion()?;
    repository.keys().check_writes().map_err(|source| Error::from(repository.unsupported(source)))?;
    let from = replica.map(|replica| format!("from {}", replica.store().location()));
    let plan = vec!["mend what is damaged or missing; tell what is lost".to_owned()];
    let recorder = Recorder::new(context, "repair", None, plan.into_iter().chain(from).collect());
    let step = recorder.begin(context, "repair", "repository");
    let result = under_lease(context, repository, replica, options, &recorder).await;
    context.events.progress_done("repair", "repository");
    let result = recorder.end_with(context, step, result, facts);
    let outcome = match &result {
        Ok(done) if done.is_whole() => Outcome::Done,
        Ok(_) => Outcome::Incomplete,
        Err(_) => Outcome::Failed,
    };
    if let Ok(done) = &result {
        done.lost.iter().for_each(|loss| recorder.snapshot(loss.id));
        recorder.findings(&done.found);
    }
    let report = recorder.finish(context, repository, outcome, result.as_ref().err()).await;
    Ok(Repaired { report, ..result? })
}

/// What `repair` would do. Of what is hidden behind recipes that are missing it cannot tell.
pub async fn dry_run(
    context: &Context,
    repository: &Arc<Repository>,
    replica: Option<&Arc<Repository>>,
    options: RepairOptions,
) -> Result<Repaired, Error> {
    check_replica(repository, replica)?;
    let recorder = Recorder::new(context, "repair", None, vec![]);
    let clock = context.clock().now();
    let now = Moment { store: clock, machine: clock };
    let claimant = recorder.claimant(context, "repair");
    let mut mender = Mender::new(context, repository, replica, options, claimant, now, true);
    let result = context.cancel.or(mender.all()).await;
    context.events.progress_done("repair", "repository");
    // What the cache was made to believe it forgets again.
    for index in mender.done.rebuilt.iter().flat_map(|rebuilt| &rebuilt.indexes) {
        repository.cached(repository.cache().remove_index(index));
    }
    result??;
    Ok(mender.done)
}

fn check_replica(repository: &Repository, replica: Option<&Arc<Repository>>) -> Result<(), Error> {
    let Some(replica) = replica else { return Ok(()) };
    let place = replica.store().location();
    if place == repository.store().location() {
        return Err(Error::new(ErrorKind::Usage, format!("{place} is the repository itself")));
    }
    match relation(replica.config(), repository.config())? {
        Mode::Copy => Ok(()),
        Mode::Reseal => {
            let text =
                format!("{place} has keys of its own: what is sealed there cannot stand in for what is sealed here");
            Err(Error::new(ErrorKind::Usage, text))
        }
    }
}

async fn under_lease(
    context: &Context,
    repository: &Arc<Repository>,
    replica: Option<&Arc<Repository>>,
    options: RepairOptions,
    recorder: &Recorder,
) -> Result<Repaired, Error> {
    let claimant = recorder.claimant(context, "repair");
    let lease = RunLease::begin(repository, claimant.clone()).await?;
    let now = Moment { store: lease.began(), machine: context.clock().now() };
    let mut mender = Mender::new(context, repository, replica, options, claimant, now, false);
    let result = context.cancel.or(mender.all()).await;
    lease.end().await;
    result??;
    Ok(mender.done)
}

struct Mender<'a> {
    context: &'a Context,
    repository: &'a Arc<Repository>,
    replica: Option<&'a Arc<Repository>>,
    options: RepairOptions,
    claimant: Claimant,
    now: Moment,
    /// In a dry run, what it takes for mended.
    pretended: Option<Pretended>,
    done: Repaired,
}

impl<'a> Mender<'a> {
    fn new(
        context: &'a Context,
        repository: &'a Arc<Repository>,
        replica: Option<&'a Arc<Repository>>,
        options: RepairOptions,
        claimant: Claimant,
        now: Moment,
        pretend: bool,
    ) -> Self {
        let done = Repaired { dry_run: pretend, ..Repaired::default() };
        let pretended = pretend.then(|| Pretended { replica: replica.cloned(), ..Pretended::default() });
        Self { context, repository, replica, options, claimant, now, pretended, done }
    }

    async fn all(&mut self) -> Result<(), Error> {
        if !self.marks().await? {
            return Ok(());
        }
        let suspects = self.suspects().await?;
        self.done.found = self.check(self.options.read_data, suspects.clone()).await?;
        self.objects().await?;
        self.index().await?;
        self.chunks().await?;
        self.decide().await?;
        if self.pretended.is_none() {
            self.remove_given_up().await?;
            self.done.left = self.check(false, suspects).await?;
            // That these are gone this run's own report will tell.
            let told = |object: &str| self.done.found.iter().any(|finding| finding.object == object);
            self.done.left.retain(|left| named(&left.object, ObjectType::Report).is_none() || !told(&left.object));
        }
        Ok(())
    }

    /// `false` if nothing more can be told, because what the marks said is not in force.
    async fn marks(&mut self) -> Result<bool, Error> {
        let (accept, copy) = (self.options.accept_lost_marks, self.replica.map(|replica| &**replica));
        let looked = mend_marks(self.repository, copy, &self.claimant, false, true).await?;
        let Some(looked) = looked else { return Ok(true) };
        if let Some(damage) = first_lost(&looked).filter(|_| !accept) {
            let text = format!("{damage}; nobody knows any more what it decided");
            return Err(Error::with_source(ErrorKind::Damaged, text, RepositoryError::from(damage)));
        }
        if self.pretended.is_some() {
            self.done.marks = Some(looked);
            return Ok(self.repository.record().await.is_ok());
        }
        if !looked.lost.is_empty() && may_be_pruned(self.repository, self.now).await? {
            let text = "a prune may be at work, which knows what the lost marks condemned; it must end first";
            return Err(Error::new(ErrorKind::Busy, text));
        }
        self.done.marks = mend_marks(self.repository, copy, &self.claimant, accept, false).await?;
        Ok(true)
    }

    /// Packs that this machine, or a report, says are damaged.
    async fn suspects(&self) -> Result<BTreeSet<PackId>, Error> {
        let mut suspects = self.repository.cache().damaged_packs().map_err(RepositoryError::from)?;
        let (reports, _) = self.repository.reports().await?;
        let objects =
            reports.iter().flat_map(|(_, report)| report.findings.iter().map(|finding| finding.object.as_str()));
        let packs = [ObjectType::ContentPack, ObjectType::TreePack];
        suspects.extend(objects.filter_map(|object| packs.iter().find_map(|kind| named(object, *kind))));
        Ok(suspects)
    }

    async fn check(&self, read_data: bool, suspects: BTreeSet<PackId>) -> Result<Vec<Finding>, Error> {
        let place = self.repository.store().location();
        let seen = self.context.state.seen(self.repository.config().repository, &place)?;
        let known = Known { heads: seen.head.into_iter().collect(), mark: None };
        let read = read_data.then(Choice::default);
        let request = Request { read, suspects, only: BTreeSet::new(), known };
        let progress = progress(&self.context.events);
        Ok(check_chosen(self.repository, &self.context.executor, &request, &progress).await?.findings)
    }

    /// Manifests and reports from the copy; leases that nobody can read.
    async fn objects(&mut self) -> Result<(), Error> {
        let objects: BTreeSet<String> = self.done.found.iter().map(|finding| finding.object.clone()).collect();
        let named_of = |kind| objects.iter().filter_map(move |object| named(object, kind));
        let mut reports: Vec<ObjectId> = named_of(ObjectType::Report).collect();
        let mut manifests: Vec<SnapshotId> = named_of(ObjectType::Manifest).collect();
        while let Some(id) = reports.pop() {
            self.object(ObjectType::Report, &id).await?;
        }
        while let Some(id) = manifests.pop() {
            // One that came back may name another one that is missing.
            manifests.extend(self.object(ObjectType::Manifest, &id).await?);
        }
        let leases: Vec<ObjectName> = self
            .repository
            .store()
            .list(layout::LEASES)
            .await?
            .into_iter()
            .map(|info| info.name)
            .filter(|name| objects.contains(name.as_str()))
            .collect();
        let leases = mend_leases(self.repository, &leases, self.now.store, self.pretended.is_some()).await?;
        for (name, until) in leases.left {
            self.context
                .warn(format!("`{name}` is damaged; its run may be alive until {until}, then it can be removed"));
        }
        self.done.removed.extend(leases.removed);
        Ok(())
    }

    /// Looks at a manifest or report again, and brings it from the copy. Gives the manifest that one which came back names, and
    /// that is not there.
    async fn object(&mut self, kind: ObjectType, id: &ObjectId) -> Result<Option<SnapshotId>, Error> {
        let name = layout::object(kind, id);
        let pretend = self.pretended.is_some();
        match mend_object(self.repository, self.replica, &self.claimant, (kind, id), pretend).await? {
            Mended::Sound => {}
            Mended::Brought => {
                self.done.brought.push(name);
                if kind == ObjectType::Manifest {
                    return self.came_back(id).await;
                }
            }
            Mended::Lost(_) if kind == ObjectType::Manifest => drop(self.done.lost_manifests.insert(*id)),
            Mended::Lost(damage) if damage.layer == "presence" => {}
            Mended::Lost(_) => self.done.removed.push(name),
        }
        Ok(None)
    }

    async fn came_back(&mut self, id: &SnapshotId) -> Result<Option<SnapshotId>, Error> {
        let manifest = match (&mut self.pretended, self.replica) {
            (Some(pretended), Some(replica)) => {
                let manifest = replica.manifest(id).await?;
                pretended.manifests.insert(*id, manifest.clone());
                manifest
            }
            _ => self.repository.manifest(id).await?,
        };
        let Some(previous) = manifest.previous else { return Ok(None) };
        let there = self.repository.listed_manifests().await?.contains_key(&previous);
        let record = self.repository.record().await?;
        // One that was copied here need not have come with the one before it.
        let known = there || record.forgotten.contains(&previous) || record.confirmed.contains(id);
        let pretended = self.pretended.as_ref().is_some_and(|pretended| pretended.manifests.contains_key(&previous));
        Ok((!known && !pretended).then_some(previous))
    }

    /// The index, if objects of it are hurt, or if chunks are in none of them.
    async fn index(&mut self) -> Result<(), Error> {
        let mut lost = self.named_and_missing().await?;
        lost.extend(self.done.found.iter().filter_map(|finding| named(&finding.object, ObjectType::Index)));
        if lost.is_empty() {
            let examined = self.examine().await?;
            let cache = self.repository.cache();
            let mut nowhere = false;
            for id in examined.lacking.chunks.keys() {
                nowhere |= cache.find_all(id).map_err(RepositoryError::from)?.is_empty();
            }
            if !nowhere {
                return Ok(());
            }
        }
        let record = self.repository.record().await?;
        let (executor, replica) = (&self.context.executor, self.replica);
        let rebuilt = rebuild(self.repository, executor, replica, &record, &lost, self.pretended.is_some()).await?;
        if self.options.read_data {
            self.read(&rebuilt.packs).await?;
        }
        self.done.rebuilt = Some(rebuilt);
        Ok(())
    }

    /// Reads packs that no index named when everything was checked.
    async fn read(&mut self, packs: &[(ObjectType, PackId)]) -> Result<(), Error> {
        for (kind, pack) in packs {
            match self.repository.get_stored(*kind, pack).await {
                Ok(_) => {}
                Err(RepositoryError::Damaged(damage)) => {
                    self.repository.cache().set_damaged(pack, true).map_err(RepositoryError::from)?;
                    self.done.found.push(finding(damage, vec![]));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Index objects that snapshots name, and that are not there, nor anything that stands for them: also snapshots whose
    /// manifests just came back.
    async fn named_and_missing(&self) -> Result<BTreeSet<ObjectId>, Error> {
        let listed = self.repository.listed_manifests().await?;
        let (snapshots, _) = self.repository.snapshots_of(&listed, &self.repository.record().await?).await?;
        let named = snapshots.iter().flat_map(|snapshot| snapshot.manifest.indexes.iter().copied());
        let mut named: BTreeSet<ObjectId> = named.collect();
        let cache = self.repository.cache();
        for id in self.repository.list_objects(ObjectType::Index).await? {
            named.remove(&id);
            for old in cache.superseded(&id).map_err(RepositoryError::from)? {
                named.remove(&old);
            }
        }
        Ok(named)
    }

    async fn examine(&self) -> Result<Examined, Error> {
        Ok(examine(self.repository, &self.context.executor, self.pretended.as_ref()).await?)
    }

    /// Brings chunks back.
    async fn chunks(&mut self) -> Result<(), Error> {
        let healer = Healer {
            repository: self.repository,
            replica: self.replica,
            executor: &self.context.executor,
            pretend: self.pretended.is_some(),
        };
        let events = Arc::clone(&self.context.events);
        let progress = move |done, total| events.progress(&progressed(done, total));
        let mut lost = BTreeSet::new();
        for round in 0..ROUNDS_MAX {
            let examined = self.examine().await?;
            // With their bases most chunks are there again.
            let mut open = examined.lacking.bases;
            open.retain(|id, _| !lost.contains(id));
            if open.is_empty() {
                open = examined.lacking.chunks;
                open.retain(|id, _| !lost.contains(id));
            }
            // The first round also stores descriptions anew that only damaged packs hold.
            if open.is_empty() && (round > 0 || self.done.found.is_empty()) {
                break;
            }
            let (record, holdings) = (&examined.record, &examined.holdings);
            let came = healer.heal(record, holdings, &open, &mut self.done.healed, &progress).await?;
            lost.extend(open.into_keys().filter(|id| !came.contains_key(id)));
            if let Some(pretended) = &mut self.pretended {
                pretended.chunks.extend(came);
            }
        }
        Ok(())
    }

    async fn decide(&mut self) -> Result<(), Error> {
        let given_up = if self.options.forget_lost { self.done.lost_manifests.clone() } else { BTreeSet::new() };
        let (examined, decided) = if self.pretended.is_some() {
            let examined = self.examine().await?;
            let decided = examined.decisions(self.repository, &given_up)?;
            (examined, decided)
        } else {
            settle(self.repository, &self.context.executor, &self.claimant, &given_up).await?
        };
        self.done.lost = examined.lacking.snapshots;
        self.done.decided = decided;
        Ok(())
    }

    /// What nobody can read any more, and is told in the report or by a mark.
    async fn remove_given_up(&mut self) -> Result<(), Error> {
        if self.options.forget_lost {
            for id in std::mem::take(&mut self.done.lost_manifests) {
                self.done.removed.push(layout::object(ObjectType::Manifest, &id));
            }
        }
        for name in &self.done.removed {
            self.repository.store().delete(name).await?;
        }
        Ok(())
    }
}

/// The id of an object of a kind, if that is its name.
fn named(object: &str, kind: ObjectType) -> Option<ObjectId> {
    let id: ObjectId = object.rsplit('/').next()?.parse().ok()?;
    (layout::object(kind, &id).as_str() == object).then_some(id)
}

fn progressed(done_bytes: u64, total_bytes: u64) -> Progress {
    Progress { action: "repair", target: "repository".to_owned(), done_bytes, total_bytes: Some(total_bytes) }
}

fn progress(events: &Arc<dyn Events>) -> impl Fn(u64, u64) + Send + Sync + use<> {
    let events = Arc::clone(events);
    move |done, total| events.progress(&progressed(done, total))
}

fn facts(done: &Repaired) -> StepFacts {
    let count = |many: usize| many as u64;
    let (healed, decided) = (&done.healed, &done.decided);
    let numbers = [
        ("findings", count(done.found.len())),
        ("findings_left", count(done.left.len())),
        ("objects_brought", count(done.brought.len())),
        ("objects_removed", count(done.removed.len())),
        ("packs_indexed", done.rebuilt.as_ref().map_or(0, |rebuilt| rebuilt.packs.len() as u64)),
        ("packs_brought", healed.packs),
        ("bytes_brought", healed.bytes),
        ("chunks_salvaged", healed.chunks_salvaged),
        ("chunks_from_replica", healed.chunks_from_replica),
        ("bytes_stored", healed.stored_bytes),
        ("snapshots_confirmed", count(decided.confirmed.len())),
        ("snapshots_quarantined", count(decided.quarantined.len())),
        ("snapshots_reinstated", count(decided.reinstated.len())),
        ("snapshots_forgotten", count(decided.forgotten.len())),
        ("packs_condemned", count(decided.condemned.len())),
        ("packs_pardoned", count(decided.pardoned.len())),
    ];
    let numbers = numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect::<BTreeMap<_, _>>();
    StepFacts { numbers, log: loss_lines(&done.lost), ..StepFacts::default() }
}

/// What is lost, line by line.
pub fn loss_lines(lost: &[SnapshotLoss]) -> Vec<String> {
    let ranges = |ranges: &[std::ops::Range<u64>]| {
        ranges.iter().map(|range| format!("{}-{}", range.start, range.end)).collect::<Vec<_>>().join(", ")
    };
    let mut lines = Vec::new();
    for snapshot in lost {
        for stream in &snapshot.streams {
            let place = format!("snapshot {} component {}", snapshot.id.short(), stream.component);
            if !stream.ranges.is_empty() {
                lines.push(format!("{place} stream {}: bytes {}", stream.stream, ranges(&stream.ranges)));
            }
            for file in &stream.files {
                lines.push(format!("{place} file `{}`: bytes {}", file.path, ranges(&file.ranges)));
            }
            if stream.more_files {
                lines.push(format!("{place}: files whose names are lost as well"));
            }
        }
    }
    lines
}
