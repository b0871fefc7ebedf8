//! Which runs are alive, as their leases tell.
//!
//! A run is dead only if two clocks say so, the store's and this machine's: no single clock that is wrong makes anybody
//! delete too early.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Repository, RepositoryError, decode_damage, seal_damage};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::lease::Lease;
use crate::id::{ObjectName, RunId};
use crate::limits::OBJECT_SIZE_MAX;
use crate::seal::object::unseal_object;

/// A moment by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By the store's.
    pub store: Timestamp,
    /// By this machine's.
    pub machine: Timestamp,
}

/// A run that put leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What it does.
    pub operation: String,
    /// Host and process.
    pub holder: String,
    /// The store's time of its first lease that is there.
    pub first: Timestamp,
    /// The store's time of its last lease.
    pub last: Timestamp,
    /// The same by the clock of the machine that wrote it.
    pub last_written: Timestamp,
    /// How long the last lease holds; zero: the run has ended.
    pub period: Duration,
    /// Its lease objects, the last one last.
    pub names: Vec<ObjectName>,
}

impl Run {
    /// Whether it may still put a manifest that is not late, with this much trust in listings and clocks.
    pub fn is_alive(&self, now: Moment, margin: Duration) -> bool {
        if self.period.is_zero() {
            return elapsed(self.last, now.store) < margin;
        }
        let until = self.period + margin;
        elapsed(self.last, now.store) < until || elapsed(self.last_written, now.machine) < until
    }

    /// Whether it relies on what was there when it began. What `prune` and `repair` decide, they decide by marks.
    pub fn relies(&self) -> bool {
        !matches!(self.operation.as_str(), "prune" | "repair")
    }

    /// Whether it said that it had ended before `deadline`, by the clock of its machine or by the store's. A manifest of such a run
    /// that is late all the same is one of a copied repository, whose times are those of the copy, or was put back later.
    pub fn has_ended_by(&self, deadline: Timestamp) -> bool {
        self.period.is_zero() && (self.last_written <= deadline || self.last <= deadline)
    }

    /// When it will be dead at the latest, if it puts no further lease; by the store's clock.
    pub fn dead_after(&self, margin: Duration) -> Timestamp {
        later(self.last, self.period + margin)
    }
}

/// How long after `from` the moment `to` is; zero if it is before.
pub fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or(Duration::ZERO)
}

/// `moment` and `period` more.
pub fn later(moment: Timestamp, period: Duration) -> Timestamp {
    let period = SignedDuration::try_from(period).unwrap_or(SignedDuration::MAX);
    moment.saturating_add(period).unwrap_or(Timestamp::MAX)
}

impl Repository {
    /// All runs whose leases are there. Of each the first and the last lease count.
    ///
    /// # Errors
    /// Damage, if a last lease is damaged: whether its run is alive cannot be told.
    pub async fn runs(&self) -> Result<BTreeMap<RunId, Run>, RepositoryError> {
        let mut leases: BTreeMap<RunId, BTreeMap<u32, (ObjectName, Timestamp)>> = BTreeMap::new();
        for info in self.store().list(layout::LEASES).await? {
            let Some(run) = layout::run_in(&info.name) else { continue };
            let Some(number) = layout::number_in(&info.name) else { continue };
            leases.entry(run).or_default().insert(number, (info.name, info.modified));
        }
        let mut runs = BTreeMap::new();
        for (id, numbered) in leases {
            let first = numbered.values().map(|(_, at)| *at).min().expect("each run has a lease");
            let (_, (name, last)) = numbered.last_key_value().expect("each run has a lease");
            let Some(lease) = self.get_lease(name).await? else { continue };
            let run = Run {
                operation: lease.operation,
                holder: lease.holder,
                first,
                last: *last,
                last_written: lease.created_at,
                period: Duration::from_secs(lease.period_seconds),
                names: numbered.values().map(|(name, _)| name.clone()).collect(),
            };
            runs.insert(id, run);
        }
        Ok(runs)
    }

    async fn get_lease(&self, name: &ObjectName) -> Result<Option<Lease>, RepositoryError> {
        let stored = match self.store().get(name, OBJECT_SIZE_MAX).await {
            Ok(stored) => stored,
            // Another `prune` took it away.
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let body = unseal_object(self.keys(), ObjectType::Lease, &stored).map_err(|error| seal_damage(name, error))?;
        Ok(Some(Lease::decode(&body).map_err(|error| decode_damage(name, &error))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(period: u64) -> Run {
        Run {
            operation: "create".to_owned(),
            holder: String::new(),
            first: Timestamp::UNIX_EPOCH,
            last: Timestamp::UNIX_EPOCH,
            last_written: Timestamp::UNIX_EPOCH,
            period: Duration::from_secs(period),
            names: vec![],
        }
    }

    fn at(store: i64, machine: i64) -> Moment {
        let second = |second| Timestamp::from_second(second).expect("a small number");
        Moment { store: second(store), machine: second(machine) }
    }

    #[test]
    fn a_run_is_dead_only_by_both_clocks() {
        let margin = Duration::from_secs(10);
        assert!(run(100).is_alive(at(109, 109), margin));
        assert!(run(100).is_alive(at(110, 109), margin));
        assert!(run(100).is_alive(at(109, 110), margin));
        assert!(!run(100).is_alive(at(110, 110), margin));
    }

    #[test]
    fn a_run_has_ended_in_time_by_either_clock() {
        let ended = |store, machine| Run { last: at(store, 0).store, last_written: at(0, machine).machine, ..run(0) };
        let deadline = at(10, 0).store;
        assert!(ended(10, 99).has_ended_by(deadline));
        assert!(ended(99, 10).has_ended_by(deadline));
        assert!(!ended(11, 11).has_ended_by(deadline));
        assert!(!run(1).has_ended_by(deadline));
    }

    #[test]
    fn a_run_that_ended_is_dead_after_the_margin() {
        let margin = Duration::from_secs(10);
        assert!(run(0).is_alive(at(9, 1000), margin));
        assert!(!run(0).is_alive(at(10, 0), margin));
    }
}
