//! What a repository looks like at one glance: whether good snapshots keep coming, when it was last verified, how it grows.
//!
//! Holds: nothing but snapshots, reports and a moment go in; the same always gives the same.
//! Does not: read anything, or judge what is enough: the objective is the caller's.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::drill::{ELAPSED_MS, OPERATION, RECOVER};
use crate::format::report::{Outcome, Report};
use crate::id::{ObjectId, SnapshotId};
use crate::repository::snapshots::Snapshot;

/// Over how many days growth is told.
pub const GROWTH_DAYS: u32 = 30;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// A repository at one glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The moment that ages are counted to.
    pub now: Timestamp,
    /// Its deployments, by name.
    pub deployments: Vec<DeploymentStatus>,
    /// Of each operation that left a report: how it last went.
    pub operations: Vec<OperationStatus>,
    /// The newest run of `verify` that read packs, if there is one.
    pub data_verified: Option<VerifyStatus>,
}

/// The snapshots of one deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeploymentStatus {
    /// Its name.
    pub deployment: String,
    /// Snapshots in all.
    pub snapshots: usize,
    /// Those among them that are whole.
    pub good_snapshots: usize,
    /// The newest of those, what a restore saved of the state it was to mend left aside.
    pub newest_good: Option<GoodSnapshot>,
    /// How it grows.
    pub growth: Growth,
    /// The newest drill of one of its snapshots, if there is one.
    pub last_drill: Option<DrillStatus>,
}

/// A drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrillStatus {
    /// When it ended.
    pub at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// What was restored.
    pub snapshot: Option<SnapshotId>,
    /// Where to: `scratch files`, or a deployment.
    pub target: String,
    /// How long the recovery took, in milliseconds; of one that failed, until it failed.
    pub elapsed_ms: u64,
    /// Its report.
    pub report: ObjectId,
}

/// The newest good snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GoodSnapshot {
    /// Its id.
    pub id: SnapshotId,
    /// When it was begun: what changed later is not in it.
    pub created_at: Timestamp,
    /// The time since then, in seconds; 0 if the clock of its writer was ahead.
    pub age_seconds: u64,
}

/// What the snapshots of the last [`GROWTH_DAYS`] days added to the repository, the very first snapshot left aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Growth {
    /// Bytes a day, over the days since the first snapshot that counts in, or [`GROWTH_DAYS`]; `None` if there is none.
    pub bytes_per_day: Option<u64>,
    /// By day in UTC, the oldest first; days without a snapshot are left out.
    pub days: Vec<Day>,
}

/// The snapshots of one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Day {
    /// In UTC.
    pub date: Date,
    /// Snapshots.
    pub snapshots: u32,
    /// What they added, in bytes as stored.
    pub added_bytes: u64,
}

/// How an operation last went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperationStatus {
    /// `create`, `verify`, …
    pub operation: String,
    /// When its newest run ended.
    pub last: Timestamp,
    /// How that one ended.
    pub outcome: Outcome,
    /// Its report.
    pub report: ObjectId,
    /// When a run of it last ended as planned.
    pub last_done: Option<Timestamp>,
}

/// A run of `verify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct VerifyStatus {
    /// When it ended.
    pub at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// How many findings of damage it had.
    pub findings: usize,
    /// Its report.
    pub report: ObjectId,
}

/// The status of a repository with these snapshots (oldest first) and reports (oldest first).
pub fn status(snapshots: &[Snapshot], reports: &[(ObjectId, Report)], now: Timestamp) -> Status {
    let mut by_deployment: BTreeMap<&str, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        by_deployment.entry(&snapshot.manifest.deployment).or_default().push(snapshot);
    }
    let of_each = by_deployment.into_iter().map(|(name, snapshots)| DeploymentStatus {
        last_drill: last_drill(name, reports),
        ..deployment(name, &snapshots, now)
    });
    let deployments = of_each.collect();
    let reading = reports.iter().rev().find(|(_, report)| report.verified.is_some());
    let data_verified = reading.map(|(id, report)| VerifyStatus {
        at: report.end,
        outcome: report.outcome,
        findings: report.findings.len(),
        report: *id,
    });
    Status { now, deployments, operations: operations(reports), data_verified }
}

impl DeploymentStatus {
    /// Whether the newest good snapshot is older than `objective`, or there is none.
    pub fn misses(&self, objective: Duration) -> bool {
        self.newest_good.is_none_or(|good| good.age_seconds > objective.as_secs())
    }

    /// Whether the newest drill did not end as planned or took longer than `objective`, or there is none.
    pub fn misses_recovery(&self, objective: Duration) -> bool {
        self.last_drill
            .as_ref()
            .is_none_or(|drill| drill.outcome != Outcome::Done || Duration::from_millis(drill.elapsed_ms) > objective)
    }

    /// The status of a deployment that has no snapshot.
    pub fn without_snapshots(deployment: &str) -> Self {
        let growth = Growth { bytes_per_day: None, days: vec![] };
        Self {
            deployment: deployment.to_owned(),
            snapshots: 0,
            good_snapshots: 0,
            newest_good: None,
            growth,
            last_drill: None,
        }
    }
}

fn deployment(name: &str, snapshots: &[&Snapshot], now: Timestamp) -> DeploymentStatus {
    let good = snapshots.iter().filter(|snapshot| snapshot.is_complete());
    let can_go_back_to = |snapshot: &&&Snapshot| !snapshot.manifest.is_safety() && !snapshot.manifest.is_redacted();
    let newest = good.clone().rfind(can_go_back_to);
    DeploymentStatus {
        deployment: name.to_owned(),
        snapshots: snapshots.len(),
        good_snapshots: good.count(),
        newest_good: newest.map(|snapshot| GoodSnapshot {
            id: snapshot.id,
            created_at: snapshot.manifest.created_at,
            age_seconds: seconds_between(snapshot.manifest.created_at, now),
        }),
        growth: growth(snapshots, now),
        last_drill: None,
    }
}

fn last_drill(deployment: &str, reports: &[(ObjectId, Report)]) -> Option<DrillStatus> {
    let of_it = |report: &Report| report.operation == OPERATION && report.deployment.as_deref() == Some(deployment);
    let (id, report) = reports.iter().rev().find(|(_, report)| of_it(report))?;
    let recovery = report.steps.iter().find(|step| step.action == RECOVER)?;
    Some(DrillStatus {
        at: report.end,
        outcome: report.outcome,
        snapshot: report.snapshots.first().copied(),
        target: recovery.target.clone(),
        elapsed_ms: *recovery.numbers.get(ELAPSED_MS)?,
        report: *id,
    })
}

/// Seconds from `from` to `to`; 0 if it lies behind it.
fn seconds_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_secs()).unwrap_or(0)
}

fn growth(snapshots: &[&Snapshot], now: Timestamp) -> Growth {
    let window = u64::from(GROWTH_DAYS) * SECONDS_PER_DAY;
    let age = |snapshot: &Snapshot| seconds_between(snapshot.manifest.created_at, now);
    // The first one adds the database as it is. What follows is growth.
    let counted = snapshots.iter().skip(1).filter(|snapshot| age(snapshot) < window);
    let mut days: BTreeMap<Date, Day> = BTreeMap::new();
    for snapshot in counted {
        let date = TimeZone::UTC.to_datetime(snapshot.manifest.created_at).date();
        let day = days.entry(date).or_insert(Day { date, snapshots: 0, added_bytes: 0 });
        day.snapshots += 1;
        day.added_bytes += snapshot.manifest.components.iter().map(|record| record.sizes.added_bytes).sum::<u64>();
    }
    let added: u64 = days.values().map(|day| day.added_bytes).sum();
    // From when on the bytes were added: nothing is known of the time before the first snapshot.
    let span = snapshots.first().map_or(0, |first| age(first)).clamp(SECONDS_PER_DAY, window);
    let per_day = u64::try_from(u128::from(added) * u128::from(SECONDS_PER_DAY) / u128::from(span)).ok();
    Growth { bytes_per_day: per_day.filter(|_| !days.is_empty()), days: days.into_values().collect() }
}

fn operations(reports: &[(ObjectId, Report)]) -> Vec<OperationStatus> {
    let mut found: BTreeMap<&str, OperationStatus> = BTreeMap::new();
    for (id, report) in reports {
        let before = found.get(report.operation.as_str()).and_then(|status| status.last_done);
        let done = (report.outcome == Outcome::Done).then_some(report.end);
        found.insert(
            &report.operation,
            OperationStatus {
                operation: report.operation.clone(),
                last: report.end,
                outcome: report.outcome,
                report: *id,
                last_done: done.or(before),
            },
        );
    }
    found.into_values().collect()
}
