//! Carrying out a sweep: what was condemned is deleted, what is not needed is condemned.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::reindex::{Reindexed, reindex};
use super::repack::{Repacked, can_repack, repack};
use super::{Standing, SweepOptions, SweepPlan, Wait, needed_though_condemned, plan_condemn, plan_delete, plan_repack};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::mark::Decisions;
use crate::id::{ObjectId, ObjectName, PackId, SnapshotId};
use crate::limits::MARK_KEEP;
use crate::repository::executor::Executor;
use crate::repository::lease::RunLease;
use crate::repository::runs::{Moment, elapsed};
use crate::repository::survey::Survey;
use crate::repository::{Repository, RepositoryError};
use crate::storage::Deletion;

/// How often a sweep decides anew because another run was faster.
const TRIES_MAX: u32 = 20;

/// Marks after which they are restated as one.
const MARKS_MAX: usize = 64;

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Swept {
    /// Packs that were deleted, and their bytes.
    pub deleted_packs: u64,
    /// See `deleted_packs`.
    pub deleted_bytes: u64,
    /// Manifests of forgotten snapshots that were deleted.
    pub deleted_manifests: u64,
    /// Late snapshots of dead runs that were forgotten.
    pub forgotten_late: u64,
    /// Packs that were condemned in this run, and their bytes.
    pub condemned_packs: u64,
    /// See `condemned_packs`.
    pub condemned_bytes: u64,
    /// Packs that were condemned and are needed after all.
    pub pardoned_packs: u64,
    /// Packs whose living chunks were moved, and the bytes put for that.
    pub repacked_packs: u64,
    /// See `repacked_packs`.
    pub repacked_bytes: u64,
    /// Whether packs could not be repacked because this key slot does not read content.
    pub cannot_repack_content: bool,
    /// Whether no pack was condemned or deleted, because it is not known what a quarantined snapshot refers to.
    pub is_partly_unknown: bool,
    /// Condemned packs that wait, with what for; and their bytes.
    pub waiting: Vec<(PackId, Wait)>,
    /// See `waiting`.
    pub waiting_bytes: u64,
    /// Index objects that were put and deleted.
    pub reindexed: Reindexed,
    /// Leases that were deleted.
    pub deleted_leases: u64,
    /// Deleted objects that a bucket with versions only hides: their room is not free yet.
    pub hidden_objects: u64,
    /// Until when the bucket refuses to remove the last of them, where that is known; by the store's clock.
    pub hidden_until: Option<Timestamp>,
    /// Bytes of all packs that are left.
    pub kept_bytes: u64,
}

/// Sweeps. `lease` is the first one of this run: its time is the store's *now*.
///
/// # Errors
/// Damage, if a chunk that a snapshot needs is nowhere: then nothing is decided, because what it was part of is not known.
pub async fn sweep(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    lease: &RunLease,
    options: SweepOptions,
) -> Result<Swept, RepositoryError> {
    let sweeper = Sweeper { repository, executor, lease, options };
    let mut swept = Swept::default();
    let seen = sweeper.delete(&mut swept).await?;
    sweeper.condemn(&mut swept, seen).await?;
    sweeper.tidy_leases(&mut swept).await?;
    sweeper.restate(&mut swept).await?;
    repository.cached(repository.cache().drop_stale_segments());
    Ok(swept)
}

/// What a sweep would do if the snapshots `without` were forgotten: now, or `by_and_by`, when everybody who is at work now is
/// done. Decides and changes nothing.
pub async fn preview(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    now: Moment,
    options: SweepOptions,
    without: &BTreeSet<SnapshotId>,
    by_and_by: bool,
) -> Result<(Survey, SweepPlan), RepositoryError> {
    let mut standing = standing(repository, now, None, options).await?;
    if by_and_by {
        standing.runs.clear();
    }
    let mut survey = survey(repository, executor, &standing, without).await?;
    let mut plan = plan_delete(&standing, &survey);
    for kind in [ObjectType::ContentPack, ObjectType::TreePack] {
        let condemned = plan_condemn(&standing, &survey, kind, &BTreeSet::new(), &HashSet::new());
        plan.condemn.extend(condemned);
        if kind == ObjectType::ContentPack {
            describe_kept(repository, &mut survey, &plan.condemn)?;
        }
    }
    Ok((survey, plan))
}

async fn standing(
    repository: &Repository,
    now: Moment,
    own: Option<&crate::id::RunId>,
    options: SweepOptions,
) -> Result<Standing, RepositoryError> {
    let mut runs = repository.runs().await?;
    runs.retain(|id, _| Some(id) != own);
    Ok(Standing { now, runs, margin: options.margin(), grace: options.grace })
}

/// What there is and what of it is needed. Condemned packs that are needed are read: they may have been condemned because they
/// are damaged, by a repair on another machine.
async fn survey(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    standing: &Standing,
    without: &BTreeSet<SnapshotId>,
) -> Result<Survey, RepositoryError> {
    loop {
        let survey = Survey::take(repository, executor, without, |run| standing.is_alive(run)).await?;
        if survey.missing > 0 {
            return Err(RepositoryError::NeededChunksMissing { chunks: survey.missing });
        }
        // What is found damaged is sound no more, so that this ends.
        if !repository.find_damaged(&needed_though_condemned(&survey)).await? {
            return Ok(survey);
        }
    }
}

/// Makes the descriptions of all content packs live that stay.
fn describe_kept(
    repository: &Repository,
    survey: &mut Survey,
    victims: &BTreeSet<PackId>,
) -> Result<(), RepositoryError> {
    let stays = |pack: &&PackId| {
        let content = survey.packs.get(*pack).is_some_and(|pack| pack.kind == ObjectType::ContentPack);
        content && !victims.contains(*pack) && !survey.record.condemned.contains_key(*pack)
    };
    let packs: BTreeSet<PackId> = survey.sound.iter().filter(stays).copied().collect();
    survey.mark_descriptions(repository, &packs)
}

/// Who is alive, and what is there.
struct Seen {
    standing: Standing,
    survey: Survey,
}

struct Sweeper<'a> {
    repository: &'a Arc<Repository>,
    executor: &'a Arc<dyn Executor>,
    lease: &'a RunLease,
    options: SweepOptions,
}

impl Sweeper<'_> {
    /// Who is alive now.
    async fn standing(&self) -> Result<Standing, RepositoryError> {
        let now = Moment { store: self.lease.began(), machine: self.repository.clock().now() };
        standing(self.repository, now, Some(&self.lease.claimant().run), self.options).await
    }

    /// Who is alive, and then what is there.
    async fn look(&self) -> Result<Seen, RepositoryError> {
        // Who is dead is established first: whatever a dead run put is there before the survey is taken.
        let standing = self.standing().await?;
        let survey = survey(self.repository, self.executor, &standing, &BTreeSet::new()).await?;
        Ok(Seen { standing, survey })
    }

    /// Deletes what was condemned long enough, and what was forgotten. Gives what was seen, if that is still so.
    async fn delete(&self, swept: &mut Swept) -> Result<Option<Seen>, RepositoryError> {
        for _ in 0..TRIES_MAX {
            let Seen { standing, survey } = self.look().await?;
            let plan = plan_delete(&standing, &survey);
            // Doomed before deleted: whoever found since the survey that a pack is needed has put a mark, and all is looked at
            // again; whoever finds it later counts the pack as absent.
            let decisions = Decisions {
                pardoned: plan.pardon.clone(),
                forgotten: plan.forget.clone(),
                doomed: plan.delete.difference(&survey.record.doomed).copied().collect(),
                ..Decisions::default()
            };
            let decides = !decisions.is_empty();
            if decides
                && self
                    .repository
                    .put_mark_after(self.lease.claimant(), &survey.record, false, decisions)
                    .await?
                    .is_none()
            {
                continue;
            }
            swept.pardoned_packs = plan.pardon.len() as u64;
            swept.forgotten_late = plan.forget.len() as u64;
            let changes = decides || !plan.delete.is_empty();
            self.delete_planned(&standing, &survey, plan, swept).await?;
            let unchanged = !changes && swept.deleted_manifests == 0 && swept.reindexed == Reindexed::default();
            return Ok(unchanged.then_some(Seen { standing, survey }));
        }
        Err(RepositoryError::Contended { tries: TRIES_MAX })
    }

    async fn delete_planned(
        &self,
        standing: &Standing,
        survey: &Survey,
        plan: SweepPlan,
        swept: &mut Swept,
    ) -> Result<(), RepositoryError> {
        let forgotten = survey.listed.keys().filter(|id| survey.record.forgotten.contains(id)).chain(&plan.forget);
        let manifests: Vec<ObjectName> = forgotten.map(|id| layout::object(ObjectType::Manifest, id)).collect();
        swept.deleted_manifests = manifests.len() as u64;
        self.delete_all(manifests, swept).await?;
        // Out of the index before out of the store: no index ever names a pack that is gone.
        let gone = |pack: &&PackId| !survey.packs.contains_key(*pack);
        let mut leaving: BTreeSet<PackId> = survey.record.condemned.keys().filter(gone).copied().collect();
        leaving.extend(&plan.delete);
        // What a living run will name in its manifest is not known yet.
        let in_the_making = standing.runs.keys().any(|run| standing.is_alive(run));
        let named = named_indexes(survey, &plan);
        swept.reindexed = reindex(self.repository, &leaving, &|id| in_the_making || named.contains(id)).await?;
        let listed = |pack: &PackId| survey.packs.get(pack).map(|listed| (listed.kind, listed.size));
        let there: Vec<_> = plan.delete.iter().filter_map(|pack| Some((*pack, listed(pack)?))).collect();
        swept.deleted_packs = there.len() as u64;
        swept.deleted_bytes = there.iter().map(|(_, (_, size))| size).sum();
        let names = there.iter().map(|(pack, (kind, _))| layout::object(*kind, pack)).collect();
        self.delete_all(names, swept).await?;
        swept.waiting_bytes = plan.wait.iter().filter_map(|(pack, _)| Some(listed(pack)?.1)).sum();
        swept.waiting = plan.wait;
        let all: u64 = survey.packs.values().map(|pack| pack.size).sum();
        swept.kept_bytes = all - swept.deleted_bytes;
        Ok(())
    }

    async fn delete_all(&self, names: Vec<ObjectName>, swept: &mut Swept) -> Result<(), RepositoryError> {
        let store = self.repository.store();
        let at_once = store.capabilities().concurrency.max(1);
        let deletions = names.into_iter().map(|name| async move { store.delete(&name).await });
        let mut deletions = stream::iter(deletions).buffer_unordered(at_once);
        while let Some(deletion) = deletions.try_next().await? {
            if let Deletion::Hidden { until } = deletion {
                swept.hidden_objects += 1;
                swept.hidden_until = swept.hidden_until.max(until);
            }
        }
        Ok(())
    }

    /// Repacks what is worth it, and condemns what nobody needs: content first, because descriptions depend on it.
    async fn condemn(&self, swept: &mut Swept, seen: Option<Seen>) -> Result<(), RepositoryError> {
        let (repacked, mut seen) = self.repack(swept, seen).await?;
        for _ in 0..TRIES_MAX {
            let Seen { standing, mut survey } = match seen.take() {
                Some(seen) => seen,
                None => self.look().await?,
            };
            let plan = |survey: &Survey, kind| plan_condemn(&standing, survey, kind, &repacked.old, &repacked.new);
            let mut victims = plan(&survey, ObjectType::ContentPack);
            describe_kept(self.repository, &mut survey, &victims)?;
            victims.extend(plan(&survey, ObjectType::TreePack));
            if victims.is_empty() {
                return self.tell_time().await;
            }
            let decisions = Decisions { condemned: victims.clone(), ..Decisions::default() };
            let put = self.repository.put_mark_after(self.lease.claimant(), &survey.record, false, decisions).await?;
            if put.is_some() {
                swept.condemned_packs = victims.len() as u64;
                swept.condemned_bytes = victims.iter().filter_map(|pack| Some(survey.packs.get(pack)?.size)).sum();
                return self.tell_time().await;
            }
        }
        Err(RepositoryError::Contended { tries: TRIES_MAX })
    }

    /// Moves what lives out of packs that are mostly dead. Gives what was seen, if nothing was moved.
    async fn repack(&self, swept: &mut Swept, seen: Option<Seen>) -> Result<(Repacked, Option<Seen>), RepositoryError> {
        let Seen { standing, mut survey } = match seen {
            Some(seen) => seen,
            None => self.look().await?,
        };
        swept.is_partly_unknown = survey.is_partly_unknown;
        let (mut entries, mut left, mut victims) = (Vec::new(), self.options.max_repack, BTreeSet::new());
        for kind in [ObjectType::ContentPack, ObjectType::TreePack] {
            victims.extend(plan_condemn(&standing, &survey, kind, &BTreeSet::new(), &HashSet::new()));
            let cache = self.repository.cache();
            let chosen = plan_repack(cache, &survey, &standing, kind, &victims, left)?;
            if can_repack(self.repository, kind) {
                left -= chosen.iter().map(|entry| u64::from(entry.stored_size)).sum::<u64>();
                entries.extend(chosen);
            } else {
                swept.cannot_repack_content |= !chosen.is_empty();
            }
            if kind == ObjectType::ContentPack {
                // What is repacked is described anew.
                let mut leaving = victims.clone();
                leaving.extend(entries.iter().map(|entry| entry.id));
                describe_kept(self.repository, &mut survey, &leaving)?;
            }
        }
        if entries.is_empty() {
            return Ok((Repacked::default(), Some(Seen { standing, survey })));
        }
        let repacked = repack(self.repository, self.executor, &survey, entries).await?;
        swept.repacked_packs = repacked.old.len() as u64;
        swept.repacked_bytes = repacked.stored_bytes;
        Ok((repacked, None))
    }

    /// A mark behind the last one that condemned anything: its time is that of the condemnation.
    async fn tell_time(&self) -> Result<(), RepositoryError> {
        let record = self.repository.record().await?;
        let last = record.condemned.values().max().copied().unwrap_or(0);
        if last == 0 || last < record.newest {
            return Ok(());
        }
        // If another run was faster, its mark tells the time.
        self.repository.put_mark_after(self.lease.claimant(), &record, false, Decisions::default()).await?;
        Ok(())
    }

    /// Removes the leases of runs that have been dead for much longer than anybody could doubt. The last one of each goes last: it
    /// says whether the run ended in time, which `repair` asks of manifests that it put back, also if this run dies here.
    async fn tidy_leases(&self, swept: &mut Swept) -> Result<(), RepositoryError> {
        let standing = self.standing().await?;
        let long_dead = |run: &&crate::repository::runs::Run| {
            !run.is_alive(standing.now, standing.margin)
                && elapsed(run.last, standing.now.store) >= run.period + standing.grace + standing.margin
        };
        let (mut earlier, mut last) = (Vec::new(), Vec::new());
        for run in standing.runs.values().filter(long_dead) {
            let mut names = run.names.clone();
            last.extend(names.pop());
            earlier.append(&mut names);
        }
        swept.deleted_leases = (earlier.len() + last.len()) as u64;
        self.delete_all(earlier, swept).await?;
        self.delete_all(last, swept).await
    }

    /// Says all that the marks say in one, when they are many, and removes the others.
    async fn restate(&self, swept: &mut Swept) -> Result<(), RepositoryError> {
        let record = self.repository.record().await?;
        if record.marks.len() < MARKS_MAX {
            return Ok(());
        }
        let packs = crate::repository::survey::listed_packs(self.repository).await?;
        let now = Moment { store: self.lease.began(), machine: self.repository.clock().now() };
        let recent = |pack: &PackId| {
            let number = record.condemned.get(pack).copied().unwrap_or(0);
            record.condemned_at(number).is_none_or(|(at, _)| elapsed(at, now.store) < MARK_KEEP)
        };
        let decisions = record.restate(|_| true, |pack| packs.contains_key(pack) || recent(pack));
        let claimant = self.lease.claimant();
        let Some(number) = self.repository.put_mark_after(claimant, &record, true, decisions).await? else {
            return Ok(());
        };
        let lower = record.marks.keys().filter(|lower| **lower < number).map(|lower| layout::mark(*lower));
        self.delete_all(lower.collect(), swept).await?;
        let record = self.repository.record().await?;
        self.repository.put_mark_after(claimant, &record, false, Decisions::default()).await?;
        Ok(())
    }
}

/// The index objects that snapshots which stay name.
fn named_indexes(survey: &Survey, plan: &SweepPlan) -> BTreeSet<ObjectId> {
    let stays = survey.snapshots.iter().filter(|snapshot| !plan.forget.contains(&snapshot.id));
    stays.flat_map(|snapshot| snapshot.manifest.indexes.iter().copied()).collect()
}
