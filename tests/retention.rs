//! What holds for every policy and every list of snapshots. The rules one by one are in `src/retention_tests.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use infrahub_backup::id::SnapshotId;
use infrahub_backup::retention::{Candidate, GroupBy, Reason, RetentionPolicy, decide};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// 25 October 2026, 00:00 UTC: the night in which Berlin repeats an hour lies within the times below.
const START_SECONDS: i64 = 1_792_886_400;

/// Minutes over which snapshots are spread.
const SPAN_MINUTES: i64 = 120 * 24 * 60;

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(START_SECONDS + minutes * 60).expect("a time of this century")
}

fn id(number: usize) -> SnapshotId {
    SnapshotId::of(&number.to_le_bytes())
}

/// Mostly spread over months, often within the same few hours, so that buckets are shared.
fn minutes() -> impl Strategy<Value = i64> {
    prop_oneof![0..SPAN_MINUTES, 0..600_i64]
}

prop_compose! {
    fn candidate()(
        minutes in minutes(),
        deployment in 0..3_u8,
        complete in prop::bool::weighted(0.8),
        held in prop::bool::weighted(0.05),
        safety in prop::bool::weighted(0.1),
        tag in option::weighted(0.2, 0..2_u8),
    ) -> Candidate {
        Candidate {
            id: id(0),
            deployment: format!("site-{deployment}"),
            created_at: at(minutes),
            complete,
            held,
            safety,
            tags: tag.into_iter().map(|value| ("kind".to_owned(), value.to_string())).collect(),
        }
    }
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    vec(candidate(), 0..60).prop_map(|mut all| {
        all.iter_mut().enumerate().for_each(|(number, candidate)| candidate.id = id(number));
        all
    })
}

fn count() -> impl Strategy<Value = Option<u32>> {
    option::of(0..8_u32)
}

fn zone() -> impl Strategy<Value = TimeZone> {
    let rule = |text: &str| TimeZone::posix(text).expect("a rule");
    prop_oneof![
        Just(TimeZone::UTC),
        Just(rule("CET-1CEST,M3.5.0,M10.5.0/3")),
        // Lord Howe, whose summer time is half an hour.
        Just(rule("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0")),
    ]
}

prop_compose! {
    fn policy()(
        (last, hourly, daily, weekly, monthly, yearly) in (count(), count(), count(), count(), count(), count()),
        within in option::of((0..2_000_u64).prop_map(|hours| Duration::from_secs(hours * 3600))),
        tags in vec(("kind", option::of("[01]")), 0..2),
        group_by in prop_oneof![Just(GroupBy::Deployment), Just(GroupBy::None), Just(GroupBy::Tag("kind".to_owned()))],
        zone in zone(),
        may_remove_last_good: bool,
    ) -> RetentionPolicy {
        RetentionPolicy { last, hourly, daily, weekly, monthly, yearly, within, tags, group_by, zone, may_remove_last_good }
    }
}

/// Some within the snapshots' times, so that there is a future; some beyond.
fn now() -> impl Strategy<Value = Timestamp> {
    (0..SPAN_MINUTES * 2).prop_map(at)
}

fn kept(policy: &RetentionPolicy, all: &[Candidate], now: Timestamp) -> BTreeMap<SnapshotId, Vec<Reason>> {
    let decisions = decide(policy, all, now).into_iter().filter(|decision| !decision.forgets());
    decisions.map(|decision| (decision.id, decision.keep)).collect()
}

/// The smaller policy's snapshots are all among the bigger one's.
fn keeps_no_less(
    bigger: &RetentionPolicy,
    smaller: &RetentionPolicy,
    all: &[Candidate],
    now: Timestamp,
) -> Result<(), TestCaseError> {
    let (more, less) = (kept(bigger, all, now), kept(smaller, all, now));
    for (id, reasons) in less {
        prop_assert!(more.contains_key(&id), "{id:?} was kept by {reasons:?}");
    }
    Ok(())
}

/// The number of rules that [`change`] knows.
const RULES: usize = 8;

/// The policy with one of its rules changed.
fn change(policy: &RetentionPolicy, rule: usize, by: impl Fn(Option<u32>) -> Option<u32>) -> RetentionPolicy {
    let mut changed = policy.clone();
    let counts = [
        &mut changed.last,
        &mut changed.hourly,
        &mut changed.daily,
        &mut changed.weekly,
        &mut changed.monthly,
        &mut changed.yearly,
    ];
    match rule {
        0..6 => *counts.into_iter().nth(rule).expect("one of six") = by(counts_of(policy)[rule]),
        6 => {
            let hours = policy.within.map(|within| u32::try_from(within.as_secs() / 3600).expect("some months"));
            changed.within = by(hours).map(|hours| Duration::from_secs(u64::from(hours) * 3600));
        }
        _ => changed.tags.truncate(by(None).map_or(0, |_| usize::MAX)),
    }
    changed
}

fn counts_of(policy: &RetentionPolicy) -> [Option<u32>; 6] {
    [policy.last, policy.hourly, policy.daily, policy.weekly, policy.monthly, policy.yearly]
}

fn is_good(candidate: &Candidate, now: Timestamp) -> bool {
    candidate.complete && !candidate.safety && candidate.created_at <= now
}

/// The page that explains the rules; its examples are decided below.
const PAGE: &str = include_str!("../docs/concepts/retention.md");

/// The number behind that flag in the line of an example.
fn flag(line: &str, flag: &str) -> Option<u32> {
    let (_, rest) = line.split_once(flag)?;
    Some(rest.trim_start().split([' ', '`']).next().expect("a split has a first part").parse().expect("a number"))
}

fn utc(minute: &str) -> Timestamp {
    format!("{}:00Z", minute.replace(' ', "T")).parse().expect("a time")
}

#[test]
fn the_examples_of_the_page_are_decided_as_it_says() {
    let examples: Vec<&str> = PAGE.split("\n## Example: ").skip(1).collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        let line = example.lines().find(|line| line.starts_with("`--keep")).expect("the flags");
        let (_, now) = line.split_once("decided at ").expect("a time");
        let policy = RetentionPolicy {
            last: flag(line, "--keep-last"),
            daily: flag(line, "--keep-daily"),
            monthly: flag(line, "--keep-monthly"),
            ..RetentionPolicy::default()
        };
        let rows: Vec<Vec<&str>> = example
            .lines()
            .filter(|line| line.starts_with("| 20"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let all: Vec<Candidate> = rows
            .iter()
            .enumerate()
            .map(|(number, row)| Candidate {
                id: id(number),
                deployment: "site".to_owned(),
                created_at: utc(row[0]),
                complete: row[1] != "incomplete",
                held: false,
                safety: row[1] == "made by a restore",
                tags: BTreeMap::new(),
            })
            .collect();
        let decisions = decide(&policy, &all, utc(&now[.."2026-12-02 12:00".len()]));
        assert_eq!(decisions.len(), 8);
        for (decision, row) in decisions.iter().zip(&rows) {
            let reasons: Vec<String> = decision.keep.iter().map(ToString::to_string).collect();
            let said = if decision.forgets() { "forgotten".to_owned() } else { reasons.join("; ") };
            assert_eq!(said, row[2], "{line}: {}", row[0]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_rule_more_never_forgets_more(policy in policy(), all in candidates(), now in now(), rule in 0..RULES) {
        keeps_no_less(&policy, &change(&policy, rule, |_| None), &all, now)?;
    }

    #[test]
    fn a_larger_number_never_forgets_more(
        policy in policy(), all in candidates(), now in now(), rule in 0..RULES - 1, more in 1..500_u32,
    ) {
        let larger = change(&policy, rule, |count| Some(count.unwrap_or(0) + more));
        keeps_no_less(&larger, &policy, &all, now)?;
    }

    #[test]
    fn the_order_of_the_snapshots_does_not_matter(
        policy in policy(), (all, shuffled) in candidates().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        now in now(),
    ) {
        prop_assert_eq!(decide(&policy, &all, now), decide(&policy, &shuffled, now));
    }

    #[test]
    fn each_snapshot_is_decided_exactly_once_oldest_first(policy in policy(), all in candidates(), now in now()) {
        let decided: Vec<SnapshotId> = decide(&policy, &all, now).into_iter().map(|decision| decision.id).collect();
        let mut given: Vec<&Candidate> = all.iter().collect();
        given.sort_by_key(|candidate| (candidate.created_at, candidate.id));
        prop_assert_eq!(decided, given.into_iter().map(|candidate| candidate.id).collect::<Vec<_>>());
    }

    #[test]
    fn the_last_good_snapshot_of_a_deployment_is_never_forgotten(policy in policy(), all in candidates(), now in now()) {
        let policy = RetentionPolicy { may_remove_last_good: false, ..policy };
        let kept = kept(&policy, &all, now);
        let good = all.iter().filter(|candidate| is_good(candidate, now));
        let deployments: BTreeSet<&str> = good.clone().map(|candidate| candidate.deployment.as_str()).collect();
        for deployment in deployments {
            let of_it = good.clone().filter(|candidate| candidate.deployment == deployment);
            let last = of_it.max_by_key(|candidate| (candidate.created_at, candidate.id)).expect("it has one");
            prop_assert!(kept.get(&last.id).is_some_and(|reasons| reasons.contains(&Reason::LastGood)));
        }
    }

    #[test]
    fn what_is_held_or_dated_in_the_future_is_never_forgotten(policy in policy(), all in candidates(), now in now()) {
        let kept = kept(&policy, &all, now);
        for candidate in all.iter().filter(|candidate| candidate.held || candidate.created_at > now) {
            prop_assert!(kept.contains_key(&candidate.id));
        }
    }

    #[test]
    fn what_is_not_good_pushes_no_good_snapshot_out(policy in policy(), all in candidates(), now in now()) {
        let good: Vec<Candidate> = all.iter().filter(|candidate| is_good(candidate, now)).cloned().collect();
        let with = kept(&policy, &all, now);
        for (id, reasons) in kept(&policy, &good, now) {
            prop_assert_eq!(with.get(&id), Some(&reasons));
        }
    }

    #[test]
    fn an_hour_with_many_snapshots_pushes_out_no_more_than_an_hour_with_one(
        policy in policy(), others in candidates(), now in now(), hour in 0..SPAN_MINUTES / 60, size in 1..200_usize,
    ) {
        let policy = RetentionPolicy { last: None, ..policy };
        let one = |number: usize, seconds: usize| Candidate {
            id: id(1000 + number),
            deployment: "site-0".to_owned(),
            // Half an hour at most: Lord Howe's hours begin at the half.
            created_at: at(hour * 60) + SignedDuration::from_secs(i64::try_from(seconds).expect("seconds of an hour")),
            complete: true,
            held: false,
            safety: false,
            tags: BTreeMap::new(),
        };
        let newest = one(0, 1799);
        // A flood that lies half in the future would stand for its hour by another snapshot.
        let now = now.max(newest.created_at);
        let flood = (0..size).map(|number| one(number + 1, number * 9));
        let calm: Vec<Candidate> = others.iter().cloned().chain([newest.clone()]).collect();
        let flooded: Vec<Candidate> = calm.iter().cloned().chain(flood).collect();
        let after = kept(&policy, &flooded, now);
        let before = kept(&policy, &calm, now);
        for candidate in &calm {
            prop_assert_eq!(after.get(&candidate.id), before.get(&candidate.id));
        }
    }

    #[test]
    fn a_clock_that_runs_behind_never_forgets_more(
        policy in policy(), all in candidates(), now in now(), behind in 0..SPAN_MINUTES,
    ) {
        let early = now - SignedDuration::from_mins(behind);
        let (less, more) = (kept(&policy, &all, now), kept(&policy, &all, early));
        prop_assert!(less.keys().all(|id| more.contains_key(id)));
    }

    #[test]
    fn a_clock_that_runs_ahead_forgets_no_good_snapshot(policy in policy(), all in candidates(), ahead in 0..SPAN_MINUTES) {
        let policy = RetentionPolicy { may_remove_last_good: false, ..policy };
        let now = at(SPAN_MINUTES);
        let (right, wrong) = (kept(&policy, &all, now), kept(&policy, &all, now + SignedDuration::from_mins(ahead)));
        for candidate in all.iter().filter(|candidate| is_good(candidate, now)) {
            prop_assert_eq!(right.get(&candidate.id), wrong.get(&candidate.id));
        }
    }
}
