//! Which packs a check reads: one worker's share, those not read lately, a sample, as much as a budget allows.
//!
//! Pure: the same packs, times and seed give the same choice on every machine.
//! Does not: know why a pack was read before (`reports`), or read it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::unchecked::{Reason, Share};
use crate::id::PackId;

/// One worker's share of the packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    number: u32,
    count: u32,
}

impl Shard {
    /// Share `number` of `count`, from 1; `None` if there is no such share.
    pub fn new(number: u32, count: u32) -> Option<Self> {
        (1..=count).contains(&number).then_some(Self { number, count })
    }

    /// Whether a pack belongs to it. Ids are hashes, so that shares are about equal.
    fn holds(self, pack: &PackId) -> bool {
        pack_prefix(pack) % u64::from(self.count) == u64::from(self.number - 1)
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

/// A random part of the packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How many of a million packs.
    pub parts_per_million: u32,
    /// Decides which. 32 bits, so that every reader of JSON keeps it exactly.
    pub seed: u32,
}

impl Sample {
    /// A pack's place in the lottery.
    fn ticket(self, pack: &PackId) -> [u8; 32] {
        *blake3::Hasher::new().update(&self.seed.to_le_bytes()).update(pack.as_bytes()).finalize().as_bytes()
    }

    /// How many of `packs`; at least one of any.
    fn size(self, packs: usize) -> usize {
        let all = packs as u128;
        usize::try_from((all * u128::from(self.parts_per_million)).div_ceil(1_000_000).min(all)).unwrap_or(packs)
    }
}

/// Which packs to read. All conditions hold at once, in the order of the fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choice {
    /// Only those of this share.
    pub shard: Option<Shard>,
    /// Only those that were not read whole and sound within this time.
    pub max_age: Option<Duration>,
    /// Only a part of those.
    pub sample: Option<Sample>,
    /// Only as many bytes, those not read for the longest time first.
    pub budget: Option<u64>,
}

/// A pack that could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The pack.
    pub id: PackId,
    /// Its length, in bytes.
    pub size: u64,
    /// When it was last read whole and sound, if ever.
    pub read_at: Option<Timestamp>,
}

/// What to read, and what not for which reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The packs to read, those not read for the longest time first.
    pub read: Vec<Candidate>,
    /// The others.
    pub passed: BTreeMap<Reason, Share>,
}

impl Chosen {
    fn pass(&mut self, reason: Reason, candidate: &Candidate) {
        self.passed.entry(reason).or_default().add(candidate.size);
    }
}

/// The first eight bytes of a pack's id: what shards go by, and how reports name packs.
pub fn pack_prefix(pack: &PackId) -> u64 {
    u64::from_be_bytes(pack.as_bytes()[..8].try_into().expect("an id has 32 bytes"))
}

/// Chooses among `candidates` at the moment `now`.
pub fn choose(choice: &Choice, now: Timestamp, candidates: Vec<Candidate>) -> Chosen {
    let mut chosen = Chosen::default();
    let mut left = Vec::new();
    for mut candidate in candidates {
        // A time to come is that of a clock that was wrong: it must not keep a pack unread for years.
        candidate.read_at = candidate.read_at.filter(|at| *at <= now);
        let read_lately = |max_age: Duration| {
            candidate
                .read_at
                .is_some_and(|at| Duration::try_from(now.duration_since(at)).is_ok_and(|age| age < max_age))
        };
        if choice.shard.is_some_and(|shard| !shard.holds(&candidate.id)) {
            chosen.pass(Reason::OtherShard, &candidate);
        } else if choice.max_age.is_some_and(read_lately) {
            chosen.pass(Reason::ReadLately, &candidate);
        } else {
            left.push(candidate);
        }
    }
    if let Some(sample) = choice.sample {
        left.sort_by_cached_key(|candidate| sample.ticket(&candidate.id));
        let rest = left.split_off(sample.size(left.len()));
        rest.iter().for_each(|candidate| chosen.pass(Reason::NotSampled, candidate));
    }
    left.sort_by_key(|candidate| (candidate.read_at, candidate.id));
    let mut bytes = 0u64;
    let mut full = false;
    for candidate in left {
        // The first that does not fit ends it: smaller ones that were read later must not push it back for ever.
        full |= choice.budget.is_some_and(|budget| bytes.saturating_add(candidate.size) > budget);
        if full {
            chosen.pass(Reason::OverBudget, &candidate);
        } else {
            bytes += candidate.size;
            chosen.read.push(candidate);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a time of this century")
    }

    fn packs(count: u32) -> Vec<Candidate> {
        let age = |n: u32| (!n.is_multiple_of(4)).then(|| now() - jiff::SignedDuration::from_hours(i64::from(n % 50)));
        (0..count)
            .map(|n| Candidate { id: PackId::of(&n.to_le_bytes()), size: 1000 + u64::from(n), read_at: age(n) })
            .collect()
    }

    fn ids(chosen: &Chosen) -> Vec<PackId> {
        chosen.read.iter().map(|candidate| candidate.id).collect()
    }

    #[test]
    fn shards_share_all_packs_and_no_pack_twice() {
        let all: Vec<PackId> = packs(1000).iter().map(|pack| pack.id).collect();
        let mut seen = Vec::new();
        for number in 1..=7 {
            let choice = Choice { shard: Shard::new(number, 7), ..Choice::default() };
            let chosen = choose(&choice, now(), packs(1000));
            assert!(chosen.read.len() > 80, "share {number} has {} of 1000", chosen.read.len());
            seen.extend(ids(&chosen));
        }
        seen.sort_unstable();
        let mut all = all;
        all.sort_unstable();
        assert_eq!(seen, all);
        assert_eq!((Shard::new(0, 3), Shard::new(4, 3), Shard::new(1, 0)), (None, None, None));
    }

    #[test]
    fn a_sample_follows_from_its_seed_and_has_its_size() {
        let sampled = |seed| {
            let sample = Some(Sample { parts_per_million: 50_000, seed });
            choose(&Choice { sample, ..Choice::default() }, now(), packs(1000))
        };
        assert_eq!(sampled(1), sampled(1));
        assert_ne!(ids(&sampled(1)), ids(&sampled(2)));
        assert_eq!(sampled(3).read.len(), 50);
        assert_eq!(sampled(3).passed[&Reason::NotSampled].packs, 950);
        let one = Choice { sample: Some(Sample { parts_per_million: 1, seed: 0 }), ..Choice::default() };
        assert_eq!(choose(&one, now(), packs(3)).read.len(), 1, "a sample of some is never none");
    }

    #[test]
    fn packs_read_within_the_age_are_passed_over_and_those_of_a_wrong_clock_are_not() {
        let mut candidates = packs(3);
        candidates[0].read_at = Some(now() - jiff::SignedDuration::from_hours(1));
        candidates[1].read_at = Some(now() - jiff::SignedDuration::from_hours(3));
        candidates[2].read_at = Some(now() + jiff::SignedDuration::from_hours(1));
        let choice = Choice { max_age: Some(Duration::from_secs(7200)), ..Choice::default() };
        let chosen = choose(&choice, now(), candidates.clone());
        assert_eq!(ids(&chosen), vec![candidates[2].id, candidates[1].id]);
        assert_eq!(chosen.passed[&Reason::ReadLately], Share { packs: 1, bytes: 1000 });
    }

    #[test]
    fn a_budget_reads_what_was_not_read_for_the_longest_time_and_no_more_than_it_allows() {
        let chosen = choose(&Choice { budget: Some(50_000), ..Choice::default() }, now(), packs(200));
        let bytes: u64 = chosen.read.iter().map(|candidate| candidate.size).sum();
        assert!(bytes <= 50_000 && bytes > 48_000, "{bytes}");
        assert!(chosen.read.iter().all(|candidate| candidate.read_at.is_none()), "50 packs were never read");
        assert_eq!(chosen.read.len() as u64 + chosen.passed[&Reason::OverBudget].packs, 200);
        let none = choose(&Choice { budget: Some(10), ..Choice::default() }, now(), packs(5));
        assert_eq!((none.read.len(), none.passed[&Reason::OverBudget].packs), (0, 5));
    }

    #[test]
    fn all_conditions_hold_at_once_and_every_pack_is_accounted_for() {
        let choice = Choice {
            shard: Shard::new(2, 3),
            max_age: Some(Duration::from_secs(10 * 3600)),
            sample: Some(Sample { parts_per_million: 500_000, seed: 9 }),
            budget: Some(40_000),
        };
        let chosen = choose(&choice, now(), packs(500));
        let passed: u64 = chosen.passed.values().map(|share| share.packs).sum();
        assert_eq!(chosen.read.len() as u64 + passed, 500);
        assert_eq!(chosen.passed.len(), 4, "{:?}", chosen.passed);
    }
}
