//! Deleting packs that nobody needs, in two runs, while others read and write.
//!
//! Run one *condemns* with a mark; run two, at least a grace period later, deletes those still condemned and still not
//! needed, once every run that may have relied on them is dead. Writers treat condemned packs as absent. Proof:
//! `format-spec/08-deletion.md`, "Why it holds", and `docs/design/concurrency.md`.
//!
//! Holds: no pack that a snapshot needs is deleted, whatever call fails and whenever the process dies; a run that was cut off
//! is finished by the next one.
//! Does not: choose snapshots (`retention`), or look into packs (`check`).

mod act;
mod reindex;
mod repack;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

pub use act::{Swept, preview, sweep};
pub use reindex::Reindexed;

use super::RepositoryError;
use super::cache::Cache;
use super::runs::{Moment, Run, elapsed, later};
use super::survey::Survey;
use crate::format::envelope::ObjectType;
use crate::format::index::PackEntry;
use crate::id::{PackId, RunId, SnapshotId};
use crate::limits::{MARGIN_MAX, PACK_SIZE_TARGET};

/// Of a pack, how much must be dead before it is repacked, in percent. Below, moving what lives costs more than it frees.
const REPACK_DEAD_PERCENT: u64 = 30;

/// Packs below this are small, in bytes: many small snapshots leave many of them.
const SMALL_PACK: u64 = PACK_SIZE_TARGET / 4;

/// How many small packs of a kind are merged at least: fewer are not worth the requests.
const SMALL_PACKS_MIN: usize = 8;

/// How a sweep works.
#[derive(Debug, Clone, Copy)]
pub struct SweepOptions {
    /// How long a pack is condemned before it is deleted, at least.
    pub grace: Duration,
    /// Bytes of packs that may be repacked in one run.
    pub max_repack: u64,
}

impl SweepOptions {
    /// How far listings and clocks are trusted: half of the grace period, at most [`MARGIN_MAX`].
    pub fn margin(&self) -> Duration {
        (self.grace / 2).min(MARGIN_MAX)
    }
}

/// Why condemned packs are not deleted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// The grace period is not over.
    Grace {
        /// When it will be, by the store's clock; `None` until a further mark tells the time of the condemnation.
        until: Option<Timestamp>,
    },
    /// A run that may rely on them is alive.
    Run {
        /// What it does.
        operation: String,
        /// Host and process.
        holder: String,
        /// When it will be dead at the latest, if it puts no further lease.
        until: Timestamp,
    },
    /// They may hold what a quarantined snapshot lacks: a repair with the help of a replica may bring back what makes it readable.
    Quarantined,
    /// The store's clock is behind the newest object in it: times cannot be trusted.
    ClockWentBack {
        /// The store's time of the newest object.
        newest: Timestamp,
    },
}

/// What is to be done with the packs that are there.
#[derive(Debug, Default)]
pub struct SweepPlan {
    /// Late snapshots of runs that died here.
    pub forget: BTreeSet<SnapshotId>,
    /// Condemned packs that are needed after all.
    pub pardon: BTreeSet<PackId>,
    /// Condemned packs whose time has come.
    pub delete: BTreeSet<PackId>,
    /// Condemned packs that must wait, and for what.
    pub wait: Vec<(PackId, Wait)>,
    /// Packs that nobody needs.
    pub condemn: BTreeSet<PackId>,
}

/// Who is alive, and what time it is: established before a survey is taken.
#[derive(Debug, Clone)]
pub struct Standing {
    /// A moment that is past, by both clocks.
    pub now: Moment,
    /// All runs but the sweep's own.
    pub runs: BTreeMap<RunId, Run>,
    /// How far listings and clocks are trusted.
    pub margin: Duration,
    /// How long a pack is condemned before it is deleted.
    pub grace: Duration,
}

impl Standing {
    /// Whether a run may still put a manifest that is not late.
    pub fn is_alive(&self, run: &RunId) -> bool {
        self.runs.get(run).is_some_and(|run| run.is_alive(self.now, self.margin))
    }

    /// Whether a run had ended before `deadline`.
    fn has_ended_by(&self, run: &RunId, deadline: Timestamp) -> bool {
        self.runs.get(run).is_some_and(|run| run.has_ended_by(deadline))
    }

    /// Whether a run put leases here and may put no manifest any more that is not late.
    fn is_dead(&self, run: &RunId) -> bool {
        self.runs.get(run).is_some_and(|run| !run.is_alive(self.now, self.margin))
    }

    /// Whether something that the store has since `stored_at` may be a part of what a living run is making. What another sweep
    /// makes is not waited for: it looks again before it relies on it, and one that was killed must not hold up the next.
    fn may_be_in_the_making(&self, stored_at: Timestamp) -> bool {
        let alive = self.runs.values().filter(|run| run.relies() && run.is_alive(self.now, self.margin));
        alive.into_iter().any(|run| later(stored_at, self.margin) >= run.first)
    }

    /// What keeps the packs that mark `number` condemned from being deleted.
    fn hindrance(&self, survey: &Survey, number: u32) -> Option<Wait> {
        let Some((stored_at, created_at)) = survey.record.condemned_at(number) else {
            return Some(Wait::Grace { until: None });
        };
        let waited = elapsed(stored_at, self.now.store).min(elapsed(created_at, self.now.machine));
        if waited < self.grace {
            return Some(Wait::Grace { until: Some(later(stored_at, self.grace)) });
        }
        let relied_before = later(stored_at, self.margin);
        let mut alive = self.runs.values().filter(|run| run.relies() && run.first <= relied_before);
        let run = alive.find(|run| run.is_alive(self.now, self.margin))?;
        Some(Wait::Run {
            operation: run.operation.clone(),
            holder: run.holder.clone(),
            until: run.dead_after(self.margin),
        })
    }

    /// The newest thing in the store, if it is newer than the store's own time.
    fn clock_went_back(&self, survey: &Survey) -> Option<Timestamp> {
        let packs = survey.packs.values().map(|pack| pack.stored_at);
        let marks = survey.record.marks.values().filter_map(|mark| mark.stored_at);
        let runs = self.runs.values().map(|run| run.last);
        let newest = packs.chain(marks).chain(runs).chain(survey.listed.values().copied()).max()?;
        (elapsed(self.now.store, newest) > self.margin).then_some(newest)
    }
}

/// Decides about the packs that are condemned already. Pure.
pub fn plan_delete(standing: &Standing, survey: &Survey) -> SweepPlan {
    let mut plan = SweepPlan { pardon: needed_though_condemned(survey), ..SweepPlan::default() };
    plan.forget = survey
        .snapshots
        .iter()
        // One whose run never put a lease here was copied here, and so was one whose run says that it had ended in time, if the
        // whole repository was copied, or it was put back: whether it counts is for `replicate` or `repair` to say.
        .filter(|snapshot| snapshot.late && standing.is_dead(&snapshot.manifest.run))
        .filter(|snapshot| !standing.has_ended_by(&snapshot.manifest.run, snapshot.manifest.lease_deadline))
        .filter(|snapshot| standing.is_past(survey.listed.get(&snapshot.id)))
        .map(|snapshot| snapshot.id)
        .collect();
    let went_back = standing.clock_went_back(survey);
    for (pack, number) in &survey.record.condemned {
        if plan.pardon.contains(pack) || !survey.packs.contains_key(pack) {
            continue;
        }
        let wait = match went_back {
            Some(newest) => Some(Wait::ClockWentBack { newest }),
            None if survey.is_partly_unknown || survey.awaited.contains(pack) => Some(Wait::Quarantined),
            None => standing.hindrance(survey, *number),
        };
        match wait {
            Some(wait) => plan.wait.push((*pack, wait)),
            None => drop(plan.delete.insert(*pack)),
        }
    }
    plan
}

impl Standing {
    /// Whether something has been in the store for longer than the margin.
    fn is_past(&self, stored_at: Option<&Timestamp>) -> bool {
        stored_at.is_some_and(|at| elapsed(*at, self.now.store) >= self.margin)
    }
}

/// Condemned packs without which a live chunk would be nowhere.
fn needed_though_condemned(survey: &Survey) -> BTreeSet<PackId> {
    let condemned = |pack: &&PackId| survey.record.condemned.contains_key(*pack);
    let mut kept: HashSet<PackId> = survey.trusted().filter(|pack| !condemned(&pack)).collect();
    let shared = survey.shared_of();
    let candidates: BTreeSet<PackId> = survey.sound.iter().filter(condemned).copied().collect();
    let mut needed = BTreeSet::new();
    for pack in candidates {
        if uncovered(survey, &shared, &kept, &pack) > 0 {
            kept.insert(pack);
            needed.insert(pack);
        }
    }
    needed
}

type SharedOf<'a> = HashMap<PackId, Vec<&'a Vec<(PackId, u32)>>>;

/// How many live chunks of a pack are in no other kept pack.
fn uncovered(survey: &Survey, shared: &SharedOf<'_>, kept: &HashSet<PackId>, pack: &PackId) -> u64 {
    let elsewhere =
        |places: &&&Vec<(PackId, u32)>| places.iter().any(|(other, _)| other != pack && kept.contains(other));
    let covered = shared.get(pack).map_or(0, |lists| lists.iter().filter(elsewhere).count() as u64);
    survey.live_count(pack).saturating_sub(covered)
}

/// Packs of `kind` that nobody needs. Those in `first` are tried first: what they held was moved; those in `new` never. None
/// while it is not known what a snapshot refers to. Pure.
pub fn plan_condemn(
    standing: &Standing,
    survey: &Survey,
    kind: ObjectType,
    first: &BTreeSet<PackId>,
    new: &HashSet<PackId>,
) -> BTreeSet<PackId> {
    if survey.is_partly_unknown {
        return BTreeSet::new();
    }
    let condemned = |pack: &PackId| survey.record.condemned.contains_key(pack);
    let mut kept: HashSet<PackId> = survey.trusted().filter(|pack| !condemned(pack)).collect();
    let shared = survey.shared_of();
    let mut candidates: Vec<(bool, u64, PackId)> = survey
        .packs
        .iter()
        .filter(|(id, pack)| pack.kind == kind && !condemned(id) && !new.contains(*id))
        .filter(|(_, pack)| !standing.may_be_in_the_making(pack.stored_at))
        .map(|(id, _)| (!first.contains(id), survey.live_count(id), *id))
        .collect();
    candidates.sort_unstable();
    let mut victims = BTreeSet::new();
    for (_, _, pack) in candidates {
        if uncovered(survey, &shared, &kept, &pack) == 0 {
            kept.remove(&pack);
            victims.insert(pack);
        }
    }
    victims
}

/// Packs worth repacking, the most dead first, at most `max_repack` bytes of them; none while it is not known what a snapshot
/// refers to. Reads descriptions from the cache.
pub fn plan_repack(
    cache: &Cache,
    survey: &Survey,
    standing: &Standing,
    kind: ObjectType,
    victims: &BTreeSet<PackId>,
    max_repack: u64,
) -> Result<Vec<PackEntry>, RepositoryError> {
    if survey.is_partly_unknown {
        return Ok(vec![]);
    }
    let mut worth: Vec<(u64, PackId)> = Vec::new();
    let mut small: Vec<PackId> = Vec::new();
    let able = |id: &PackId| {
        survey.sound.contains(id)
            && !survey.record.condemned.contains_key(id)
            && !victims.contains(id)
            && survey
                .packs
                .get(id)
                .is_some_and(|pack| pack.kind == kind && !standing.may_be_in_the_making(pack.stored_at))
    };
    cache.for_each_pack(|entry| {
        if !able(&entry.id) {
            return;
        }
        let percent = dead_percent(&entry, survey);
        if percent >= REPACK_DEAD_PERCENT {
            worth.push((percent, entry.id));
        } else if u64::from(entry.stored_size) < SMALL_PACK {
            small.push(entry.id);
        }
    })?;
    worth.sort_unstable_by(|a, b| b.cmp(a));
    let mut order: Vec<PackId> = worth.into_iter().map(|(_, id)| id).collect();
    if small.len() >= SMALL_PACKS_MIN {
        order.extend(small);
    }
    let (mut chosen, mut bytes) = (Vec::new(), 0);
    for id in order {
        let Some(entry) = cache.pack(&id)? else { continue };
        bytes += u64::from(entry.stored_size);
        if bytes > max_repack {
            break;
        }
        chosen.push(entry);
    }
    Ok(chosen)
}

/// How much of a pack's plaintext is dead, in percent.
fn dead_percent(entry: &PackEntry, survey: &Survey) -> u64 {
    let live = survey.live.get(&entry.id);
    let (mut all, mut alive) = (0u64, 0u64);
    for (position, chunk) in (0u32..).zip(entry.segments.iter().flat_map(|segment| &segment.chunks)) {
        all += u64::from(chunk.length);
        if live.is_some_and(|bits| bits.contains(position)) {
            alive += u64::from(chunk.length);
        }
    }
    (all - alive) * 100 / all.max(1)
}
