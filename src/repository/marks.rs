//! The record of decisions about deletion: reading all marks, and putting the next one.
//!
//! Marks are numbered and put create-only, so that they have one order. Whoever decides reads all that were decided before;
//! if another one is faster, he reads that and decides anew ([`decide`]).
//!
//! Holds: no mark is put by somebody who does not know all lower ones.
//! Does not: judge what may be condemned or deleted (`sweep`), or choose snapshots (the caller).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::lease::Claimant;
use super::{Damage, Repository, RepositoryError, decode_damage, seal_damage};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::mark::{Decisions, Mark, TagChanges};
use crate::id::{ObjectId, ObjectName, PackId, SnapshotId};
use crate::limits::OBJECT_SIZE_MAX;
use crate::seal::object::{seal_object, unseal_object};
use crate::storage::StoreError;

/// How often a decision is made anew because another run was faster.
const TRIES_MAX: u32 = 100;

/// One mark that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkTime {
    /// The store's time of it; `None` if it was found by its number before the store listed it.
    pub stored_at: Option<Timestamp>,
    /// The time of the machine that wrote it.
    pub created_at: Timestamp,
    /// BLAKE3 of its body: another mark under its number is another history.
    pub digest: ObjectId,
}

/// What all marks say together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The highest number; 0 if there is no mark.
    pub newest: u32,
    /// The marks that are there, by number.
    pub marks: BTreeMap<u32, MarkTime>,
    /// Snapshots that are no more.
    pub forgotten: BTreeSet<SnapshotId>,
    /// Packs that nobody may rely on, with the number of the mark that condemned each.
    pub condemned: BTreeMap<PackId, u32>,
    /// Those of them that somebody is about to delete: they count as absent, and are pardoned no more.
    pub doomed: BTreeSet<PackId>,
    /// Late manifests that count all the same.
    pub confirmed: BTreeSet<SnapshotId>,
    /// Snapshots that retention must keep.
    pub held: BTreeSet<SnapshotId>,
    /// Snapshots of which a part is lost.
    pub quarantined: BTreeSet<SnapshotId>,
    /// Changed tags.
    pub tags: BTreeMap<SnapshotId, TagChanges>,
}

impl Record {
    /// Adds the next mark.
    pub(super) fn add(&mut self, mark: &Mark, stored_at: Option<Timestamp>) {
        if mark.restated {
            *self = Self { marks: std::mem::take(&mut self.marks), ..Self::default() };
        }
        self.newest = mark.number;
        self.marks.insert(
            mark.number,
            MarkTime { stored_at, created_at: mark.created_at, digest: ObjectId::of(&mark.encode()) },
        );
        let decided = &mark.decisions;
        self.forgotten.extend(&decided.forgotten);
        self.confirmed.extend(&decided.confirmed);
        self.held.retain(|id| !decided.released.contains(id));
        self.held.extend(&decided.held);
        self.quarantined.retain(|id| !decided.reinstated.contains(id));
        self.quarantined.extend(&decided.quarantined);
        self.condemned.retain(|pack, _| !decided.pardoned.contains(pack) || self.doomed.contains(pack));
        for pack in &decided.condemned {
            self.condemned.entry(*pack).or_insert(mark.number);
        }
        self.doomed.extend(&decided.doomed);
        for (id, changes) in &decided.tagged {
            self.tags.entry(*id).or_default().extend(changes.clone());
        }
    }

    /// When what mark `number` condemned was certainly condemned for all to see: the times of a mark put after it. `None` if
    /// there is none, or the store does not list it yet.
    pub fn condemned_at(&self, number: u32) -> Option<(Timestamp, Timestamp)> {
        let (_, later) = self.marks.range(number.saturating_add(1)..).find(|(_, time)| time.stored_at.is_some())?;
        Some((later.stored_at?, later.created_at))
    }

    /// All of it as the decisions of one mark, without what `keep` does not want kept.
    pub fn restate(
        &self,
        keep_forgotten: impl Fn(&SnapshotId) -> bool,
        keep_pack: impl Fn(&PackId) -> bool,
    ) -> Decisions {
        Decisions {
            forgotten: self.forgotten.iter().filter(|id| keep_forgotten(id)).copied().collect(),
            condemned: self.condemned.keys().filter(|pack| keep_pack(pack)).copied().collect(),
            doomed: self.doomed.iter().filter(|pack| keep_pack(pack)).copied().collect(),
            confirmed: self.confirmed.iter().filter(|id| !self.forgotten.contains(id)).copied().collect(),
            held: self.held.iter().filter(|id| !self.forgotten.contains(id)).copied().collect(),
            quarantined: self.quarantined.iter().filter(|id| !self.forgotten.contains(id)).copied().collect(),
            tagged: self
                .tags
                .iter()
                .filter(|(id, _)| !self.forgotten.contains(id))
                .map(|(id, tags)| (*id, tags.clone()))
                .collect(),
            ..Decisions::default()
        }
    }
}

impl Repository {
    /// Reads all marks, from the cache where they were read before.
    ///
    /// # Errors
    /// Damage, if a mark is damaged or missing: without it nobody knows which snapshots there are.
    pub async fn record(&self) -> Result<Record, RepositoryError> {
        self.read_record(true).await
    }

    /// Reads all marks from the store.
    ///
    /// # Errors
    /// As for [`Repository::record`].
    pub async fn record_anew(&self) -> Result<Record, RepositoryError> {
        self.read_record(false).await
    }

    async fn read_record(&self, cached: bool) -> Result<Record, RepositoryError> {
        let listed = self.store().list(layout::MARKS).await?;
        let times: BTreeMap<u32, Timestamp> =
            listed.iter().filter_map(|info| Some((layout::number_in(&info.name)?, info.modified))).collect();
        let mut record = Record::default();
        // Below the first one listed all was restated by it or by a later one; a listing may lag, so that what lies between two
        // that it shows, and behind the last, is asked for by its number.
        let mut gap =
            times.first_key_value().filter(|(first, _)| **first > 1).map(|_| super::missing(&layout::mark(1)));
        let (first, last) = (times.keys().next().copied().unwrap_or(1), times.keys().last().copied().unwrap_or(0));
        for number in first.. {
            match self.mark(number, cached && times.contains_key(&number)).await {
                Ok(Some(mark)) => {
                    if mark.restated {
                        gap = None;
                    }
                    record.add(&mark, times.get(&number).copied());
                }
                Ok(None) if number > last => break,
                Ok(None) => gap = gap.or(Some(super::missing(&layout::mark(number)))),
                // What one says that is restated above it, nobody needs to read.
                Err(RepositoryError::Damaged(damage)) => gap = gap.or(Some(damage)),
                Err(error) => return Err(error),
            }
        }
        match gap {
            None => Ok(record),
            Some(damage) => Err(damage.into()),
        }
    }

    async fn mark(&self, number: u32, cached: bool) -> Result<Option<Mark>, RepositoryError> {
        let name = layout::mark(number);
        let known = if cached { self.cache().mark(number)? } else { None };
        let body = match known {
            Some(body) => body,
            None => {
                let stored = match self.store().get(&name, OBJECT_SIZE_MAX).await {
                    Ok(stored) => stored,
                    Err(StoreError::NotFound { .. }) => return Ok(None),
                    Err(error) => return Err(error.into()),
                };
                let body =
                    unseal_object(self.keys(), ObjectType::Mark, &stored).map_err(|error| seal_damage(&name, error))?;
                self.cached(self.cache().put_mark(number, &body));
                body
            }
        };
        let mark = Mark::decode(&body).map_err(|error| decode_damage(&name, &error))?;
        if mark.number != number {
            return Err(misnamed(&name, mark.number).into());
        }
        Ok(Some(mark))
    }

    /// Puts mark `number`; `false` if another run was faster.
    async fn put_mark(
        &self,
        claimant: &Claimant,
        number: u32,
        restated: bool,
        decisions: Decisions,
    ) -> Result<bool, RepositoryError> {
        let mark = Mark {
            format: crate::format::FORMAT_VERSION,
            number,
            run: claimant.run,
            created_at: self.clock().now(),
            holder: claimant.holder.clone(),
            restated,
            decisions,
        };
        let stored = seal_object(self.keys(), &**self.entropy(), ObjectType::Mark, &mark.encode());
        match self.store().put_new(&layout::mark(number), stored.into()).await {
            Ok(()) => Ok(true),
            Err(StoreError::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a mark that says what `decide` wants, given all that was decided before; asks again when another run was faster.
    /// Nothing is put where nothing is wanted. Gives the record before the mark, and the mark's number.
    pub async fn decide(
        &self,
        claimant: &Claimant,
        mut decide: impl FnMut(&Record) -> Result<Decisions, RepositoryError>,
    ) -> Result<(Record, Option<u32>), RepositoryError> {
        for _ in 0..TRIES_MAX {
            let record = self.record().await?;
            let decisions = decide(&record)?;
            if decisions.is_empty() {
                return Ok((record, None));
            }
            let number = record.newest + 1;
            if self.put_mark(claimant, number, false, decisions).await? {
                return Ok((record, Some(number)));
            }
        }
        Err(RepositoryError::Contended { tries: TRIES_MAX })
    }

    /// Puts a mark that comes right behind `record`; `None` if another run was faster. It may be empty: its time is that of
    /// the decisions before it.
    pub async fn put_mark_after(
        &self,
        claimant: &Claimant,
        record: &Record,
        restated: bool,
        decisions: Decisions,
    ) -> Result<Option<u32>, RepositoryError> {
        let number = record.newest + 1;
        Ok(self.put_mark(claimant, number, restated, decisions).await?.then_some(number))
    }
}

fn misnamed(name: &ObjectName, number: u32) -> Damage {
    Damage { object: name.to_string(), layer: "name", problem: format!("it says that it is mark {number}") }
}
