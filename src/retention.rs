//! Which snapshots stay and which go, as one pure function: policy, snapshots and the time in, a decision for each out.
//!
//! Rules unite: each rule keeps what it keeps, whatever the others say, so a rule more never forgets more. `hourly` to
//! `yearly` count *buckets* (an hour, a day, … of the policy's time zone) that hold a good snapshot, newest first, and keep
//! the newest good one of each. However many snapshots one hour brings, it is one hour.
//!
//! Only a *good* snapshot fills a slot, stands for a bucket or is a deployment's last: complete, not made by a restore of
//! what it was about to replace, and not from the future. The others have a rule each, see [`Standing`].
//!
//! Daylight saving: an hour is what the clock on the wall shows together with its offset. The repeated hour is two buckets,
//! `02:00+02` and `02:00+01`; the skipped hour is none and uses no slot. A day of 23 or 25 hours is one day.
//! [`RetentionPolicy::within`] counts elapsed time: thirty days are 720 hours in every zone.
//!
//! Holds: held and tagged snapshots stay; the newest good snapshot of each deployment stays unless
//! [`RetentionPolicy::may_remove_last_good`]. A clock that runs behind never forgets more. One that runs ahead only ages
//! safety snapshots, and what `within` alone keeps under `may_remove_last_good`.
//! Does not: read manifests, know the time, or delete. Times are what the snapshots say of themselves.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::id::SnapshotId;

/// How long a safety snapshot stays when nothing else keeps it: seven days, elapsed.
///
/// It is there for the operator who finds that the restore was a mistake. That shows within a working week, or a good
/// snapshot made after the restore is the better way back.
pub const SAFETY_PERIOD: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A snapshot, as far as retention looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name. A name that comes twice is one snapshot.
    pub id: SnapshotId,
    /// The deployment that it is of.
    pub deployment: String,
    /// When it was begun.
    pub created_at: Timestamp,
    /// Whether every component came out whole and the snapshot counts.
    pub complete: bool,
    /// Whether somebody holds it.
    pub held: bool,
    /// Whether a restore made it of what it was about to replace.
    pub safety: bool,
    /// What it is marked with.
    pub tags: BTreeMap<String, String>,
}

/// What is to be kept. `None`, a count of 0 and a duration of 0 are no rule.
#[derive(Debug, Clone)]
pub struct RetentionPolicy {
    /// The newest so many good snapshots of a group. The only rule that a flood of snapshots can push others out of.
    pub last: Option<u32>,
    /// The newest good snapshot of each of the newest so many hours that have one.
    pub hourly: Option<u32>,
    /// The same by days.
    pub daily: Option<u32>,
    /// The same by ISO weeks, Monday to Sunday.
    pub weekly: Option<u32>,
    /// The same by months.
    pub monthly: Option<u32>,
    /// The same by years.
    pub yearly: Option<u32>,
    /// All snapshots not older than this, counted back from the group's newest good one: when backups stop, what there is
    /// does not age away. With [`Self::may_remove_last_good`] it is counted back from now, so that it can.
    pub within: Option<Duration>,
    /// All snapshots with one of these tags: a key with any value, or with this one.
    pub tags: Vec<(String, Option<String>)>,
    /// Which snapshots share the counts above.
    pub group_by: GroupBy,
    /// Whose hours, days, weeks, months and years are counted.
    pub zone: TimeZone,
    /// Whether a deployment may lose its last good snapshot.
    pub may_remove_last_good: bool,
}

impl Default for RetentionPolicy {
    /// No rule, by deployment, UTC, the last good one stays.
    fn default() -> Self {
        Self {
            last: None,
            hourly: None,
            daily: None,
            weekly: None,
            monthly: None,
            yearly: None,
            within: None,
            tags: Vec::new(),
            group_by: GroupBy::default(),
            zone: TimeZone::UTC,
            may_remove_last_good: false,
        }
    }
}

impl RetentionPolicy {
    /// Whether no rule says what to keep. Deciding by such a policy would forget nearly everything: callers refuse it.
    pub fn is_empty(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        counts.into_iter().all(|count| count.is_none_or(|count| count == 0))
            && self.within.is_none_or(|within| within.is_zero())
            && self.tags.is_empty()
    }
}

/// Which snapshots share the counts of a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// Those of one deployment.
    #[default]
    Deployment,
    /// All of them.
    None,
    /// Those of one deployment with the same value of this tag; those without the tag are a group too.
    Tag(String),
}

/// One hour of a zone: what the clock on the wall shows, and its offset, which tells a repeated hour from itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hour {
    /// The day.
    pub date: Date,
    /// 0 to 23.
    pub hour: i8,
    /// From UTC.
    pub offset: Offset,
}

/// An ISO week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Week {
    /// The year that the week belongs to, which is not always that of the day.
    pub year: i16,
    /// 1 to 53.
    pub week: i8,
}

/// A month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month {
    /// The year.
    pub year: i16,
    /// 1 to 12.
    pub month: i8,
}

/// Why a snapshot stays. `Display` is what an operator reads after "kept:".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Somebody holds it.
    Held,
    /// It has a tag that the policy keeps.
    Tag {
        /// The tag's key.
        key: String,
        /// The value that the snapshot has.
        value: String,
    },
    /// Its deployment would have no good snapshot without it.
    LastGood,
    /// It is incomplete, and its deployment has no newer good one.
    NoNewerGood,
    /// A restore made it less than [`SAFETY_PERIOD`] ago.
    Safety,
    /// It is dated later than now: some clock is wrong, so nothing is decided by it.
    Future,
    /// It is not older than the policy's `within`.
    Within(Duration),
    /// It is the so-manieth newest, from 1.
    Last(u32),
    /// It is the newest good one of this hour.
    Hourly(Hour),
    /// It is the newest good one of this day.
    Daily(Date),
    /// It is the newest good one of this week.
    Weekly(Week),
    /// It is the newest good one of this month.
    Monthly(Month),
    /// It is the newest good one of this year.
    Yearly(i16),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("held"),
            Self::Tag { key, value } => write!(f, "tag {key}={value}"),
            Self::LastGood => f.write_str("last good snapshot of its deployment"),
            Self::NoNewerGood => f.write_str("incomplete, but no good snapshot is newer"),
            Self::Safety => {
                write!(f, "made by a restore in the last {} days", SAFETY_PERIOD.as_hours() / 24)
            }
            Self::Future => f.write_str("dated in the future"),
            Self::Within(within) => write!(f, "within {}", written(*within)),
            Self::Last(1) => f.write_str("newest"),
            Self::Last(rank) => write!(f, "number {rank} from the newest"),
            Self::Hourly(Hour { date, hour, offset }) => write!(f, "newest of hour {date} {hour:02}:00{offset}"),
            Self::Daily(date) => write!(f, "newest of day {date}"),
            Self::Weekly(Week { year, week }) => write!(f, "newest of week {year}-W{week:02}"),
            Self::Monthly(Month { year, month }) => write!(f, "newest of month {year}-{month:02}"),
            Self::Yearly(year) => write!(f, "newest of year {year}"),
        }
    }
}

/// A duration as the command line takes it: `30d`, `36h`, `90s`.
fn written(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(24 * 3600, "d"), (3600, "h"), (60, "m")];
    let whole = units.into_iter().find(|(size, _)| seconds != 0 && seconds.is_multiple_of(*size));
    whole.map_or_else(|| format!("{seconds}s"), |(size, unit)| format!("{}{unit}", seconds / size))
}

/// What is decided about one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The snapshot.
    pub id: SnapshotId,
    /// Why it stays, every reason there is; empty: it is to be forgotten.
    pub keep: Vec<Reason>,
}

impl Decision {
    /// Whether the snapshot goes.
    pub fn forgets(&self) -> bool {
        self.keep.is_empty()
    }
}

/// Decides about each candidate once. The decisions come oldest snapshot first, in whatever order the candidates came.
pub fn decide(policy: &RetentionPolicy, candidates: &[Candidate], now: Timestamp) -> Vec<Decision> {
    let by_id: BTreeMap<SnapshotId, &Candidate> =
        candidates.iter().map(|candidate| (candidate.id, candidate)).collect();
    let mut newest_first: Vec<&Candidate> = by_id.into_values().collect();
    newest_first.sort_by_key(|candidate| Reverse((candidate.created_at, candidate.id)));

    let mut reasons = Reasons::default();
    keep_by_itself(policy, &newest_first, now, &mut reasons);
    for group in groups(&policy.group_by, &newest_first).into_values() {
        keep_by_counts(policy, &group, now, &mut reasons);
        keep_by_age(policy, &group, now, &mut reasons);
    }
    newest_first.iter().rev().map(|candidate| reasons.decision(candidate.id)).collect()
}

/// What a snapshot is to retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Fills slots, stands for buckets, can be the last of its deployment.
    Good,
    /// Stays until its deployment has a newer good one: until then it may hold the only copy of what did work.
    Incomplete,
    /// Made by a restore of what it was about to replace, perhaps of what was broken; stays [`SAFETY_PERIOD`].
    Safety,
    /// Dated later than now. It stays, since nothing is known of its age, and nothing gives way to it.
    Future,
}

impl Standing {
    fn of(candidate: &Candidate, now: Timestamp) -> Self {
        if candidate.created_at > now {
            Self::Future
        } else if candidate.safety {
            Self::Safety
        } else if candidate.complete {
            Self::Good
        } else {
            Self::Incomplete
        }
    }
}

/// The reasons found so far.
#[derive(Default)]
struct Reasons(BTreeMap<SnapshotId, BTreeSet<Reason>>);

impl Reasons {
    fn keep(&mut self, candidate: &Candidate, reason: Reason) {
        self.0.entry(candidate.id).or_default().insert(reason);
    }

    fn decision(&self, id: SnapshotId) -> Decision {
        Decision { id, keep: self.0.get(&id).into_iter().flatten().cloned().collect() }
    }
}

/// The rules that do not count: what a snapshot is, and what its deployment would be without it.
fn keep_by_itself(policy: &RetentionPolicy, newest_first: &[&Candidate], now: Timestamp, reasons: &mut Reasons) {
    let mut newest_good: BTreeMap<&str, &Candidate> = BTreeMap::new();
    for candidate in good(newest_first, now) {
        newest_good.entry(&candidate.deployment).or_insert(candidate);
    }
    for candidate in newest_first {
        if candidate.held {
            reasons.keep(candidate, Reason::Held);
        }
        for (key, wanted) in &policy.tags {
            let value = candidate.tags.get(key).filter(|value| wanted.as_ref().is_none_or(|wanted| wanted == *value));
            if let Some(value) = value {
                reasons.keep(candidate, Reason::Tag { key: key.clone(), value: value.clone() });
            }
        }
        let last = newest_good.get(candidate.deployment.as_str());
        match Standing::of(candidate, now) {
            Standing::Good => {
                if !policy.may_remove_last_good && last.is_some_and(|last| last.id == candidate.id) {
                    reasons.keep(candidate, Reason::LastGood);
                }
            }
            Standing::Incomplete => {
                if last.is_none_or(|last| last.created_at <= candidate.created_at) {
                    reasons.keep(candidate, Reason::NoNewerGood);
                }
            }
            Standing::Safety => {
                if now.duration_since(candidate.created_at) < SAFETY_PERIOD {
                    reasons.keep(candidate, Reason::Safety);
                }
            }
            Standing::Future => reasons.keep(candidate, Reason::Future),
        }
    }
}

/// The rules that count good snapshots, and buckets that hold one.
fn keep_by_counts(policy: &RetentionPolicy, group: &[&Candidate], now: Timestamp, reasons: &mut Reasons) {
    for (rank, candidate) in (1..=policy.last.unwrap_or(0)).zip(good(group, now)) {
        reasons.keep(candidate, Reason::Last(rank));
    }
    let zone = &policy.zone;
    let civil = |moment: Timestamp| zone.to_datetime(moment);
    let mut keep = |count: Option<u32>, bucket: &dyn Fn(Timestamp) -> Reason| {
        for (candidate, reason) in newest_of_each(good(group, now), count.unwrap_or(0), bucket) {
            reasons.keep(candidate, reason);
        }
    };
    keep(policy.hourly, &|moment| Reason::Hourly(hour_of(civil(moment), zone.to_offset(moment))));
    keep(policy.daily, &|moment| Reason::Daily(civil(moment).date()));
    keep(policy.weekly, &|moment| Reason::Weekly(week_of(civil(moment).date())));
    keep(policy.monthly, &|moment| Reason::Monthly(month_of(civil(moment).date())));
    keep(policy.yearly, &|moment| Reason::Yearly(civil(moment).year()));
}

/// The newest snapshot of each of the newest `count` buckets that have one, with the reason that names the bucket.
fn newest_of_each<'a>(
    good: impl Iterator<Item = &'a Candidate>,
    count: u32,
    bucket: &dyn Fn(Timestamp) -> Reason,
) -> Vec<(&'a Candidate, Reason)> {
    // A set and not only the bucket before: where clocks go back over midnight, a day comes in two parts.
    let mut seen = BTreeSet::new();
    let firsts = good.filter_map(|candidate| {
        let bucket = bucket(candidate.created_at);
        seen.insert(bucket.clone()).then_some((candidate, bucket))
    });
    firsts.take(usize::try_from(count).unwrap_or(usize::MAX)).collect()
}

/// The rule that looks at age. It keeps incomplete and safety snapshots too: for a while, everything is kept.
fn keep_by_age(policy: &RetentionPolicy, group: &[&Candidate], now: Timestamp, reasons: &mut Reasons) {
    let Some(within) = policy.within.filter(|within| !within.is_zero()) else { return };
    let newest_good = good(group, now).next().filter(|_| !policy.may_remove_last_good);
    let from = newest_good.map_or(now, |candidate| candidate.created_at);
    // A duration beyond what the calendar knows keeps everything.
    let limit = SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX);
    let current = group.iter().filter(|candidate| Standing::of(candidate, now) != Standing::Future);
    for candidate in current.filter(|candidate| from.duration_since(candidate.created_at) <= limit) {
        reasons.keep(candidate, Reason::Within(within));
    }
}

fn good<'a>(candidates: &[&'a Candidate], now: Timestamp) -> impl Iterator<Item = &'a Candidate> {
    candidates.iter().copied().filter(move |candidate| Standing::of(candidate, now) == Standing::Good)
}

/// The groups, by deployment and tag as far as the policy looks at them, each in the order of `candidates`.
fn groups<'a>(
    group_by: &GroupBy,
    candidates: &[&'a Candidate],
) -> BTreeMap<(Option<&'a str>, Option<&'a str>), Vec<&'a Candidate>> {
    let mut groups: BTreeMap<_, Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates {
        let deployment = candidate.deployment.as_str();
        let group = match group_by {
            GroupBy::Deployment => (Some(deployment), None),
            GroupBy::None => (None, None),
            GroupBy::Tag(key) => (Some(deployment), candidate.tags.get(key).map(String::as_str)),
        };
        groups.entry(group).or_default().push(candidate);
    }
    groups
}

fn hour_of(civil: DateTime, offset: Offset) -> Hour {
    Hour { date: civil.date(), hour: civil.hour(), offset }
}

fn week_of(date: Date) -> Week {
    let week = date.iso_week_date();
    Week { year: week.year(), week: week.week() }
}

fn month_of(date: Date) -> Month {
    Month { year: date.year(), month: date.month() }
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
