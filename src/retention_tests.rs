//! What each rule keeps, as tables: snapshots in, the kept ones with their reasons out.

use super::*;

/// A complete snapshot of `site` whose id ends in `name`.
fn snapshot(name: u8, created_at: &str) -> Candidate {
    let mut id = [0; 32];
    id[31] = name;
    Candidate {
        id: SnapshotId::from_bytes(id),
        deployment: "site".to_owned(),
        created_at: moment(created_at),
        complete: true,
        held: false,
        safety: false,
        tags: BTreeMap::new(),
    }
}

fn snapshots(times: &[&str]) -> Vec<Candidate> {
    (1..).zip(times).map(|(name, time)| snapshot(name, time)).collect()
}

fn moment(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// Central Europe by rule, so that no test needs the system's zones: +2 from the last Sunday of March at 2 to the last
/// Sunday of October at 3.
fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a rule")
}

const NOW: &str = "2026-12-31T12:00:00Z";

/// Names of those that stay, with their reasons joined by `; `, oldest first.
fn kept_at(policy: &RetentionPolicy, candidates: &[Candidate], now: &str) -> Vec<(u8, String)> {
    let decisions = decide(policy, candidates, moment(now)).into_iter().filter(|decision| !decision.forgets());
    let text = |keep: &[Reason]| keep.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    decisions.map(|decision| (decision.id.as_bytes()[31], text(&decision.keep))).collect()
}

fn names_kept(policy: &RetentionPolicy, candidates: &[Candidate]) -> Vec<u8> {
    kept_at(policy, candidates, NOW).into_iter().map(|(name, _)| name).collect()
}

/// A policy without a reason of its own, so that a table shows the rule that it is about.
fn bare() -> RetentionPolicy {
    RetentionPolicy { may_remove_last_good: true, ..RetentionPolicy::default() }
}

fn tag(candidate: &mut Candidate, key: &str, value: &str) {
    candidate.tags.insert(key.to_owned(), value.to_owned());
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}

#[test]
fn each_rule_keeps_the_newest_of_its_newest_buckets() {
    let all = snapshots(&[
        "2025-06-01T10:00:00Z", // 1
        "2026-10-31T10:00:00Z", // 2
        "2026-11-29T10:00:00Z", // 3: Sunday
        "2026-11-30T08:10:00Z", // 4: Monday
        "2026-11-30T08:50:00Z", // 5
        "2026-11-30T09:00:00Z", // 6
    ]);
    let two = Some(2);
    let cases = [
        ("last", RetentionPolicy { last: two, ..bare() }, vec![5, 6]),
        ("hourly", RetentionPolicy { hourly: two, ..bare() }, vec![5, 6]),
        ("daily", RetentionPolicy { daily: two, ..bare() }, vec![3, 6]),
        ("weekly", RetentionPolicy { weekly: two, ..bare() }, vec![3, 6]),
        ("monthly", RetentionPolicy { monthly: two, ..bare() }, vec![2, 6]),
        ("yearly", RetentionPolicy { yearly: two, ..bare() }, vec![1, 6]),
        ("more buckets than there are", RetentionPolicy { hourly: Some(9), ..bare() }, vec![1, 2, 3, 5, 6]),
    ];
    for (rule, policy, expected) in cases {
        assert_eq!(names_kept(&policy, &all), expected, "{rule}");
    }
}

#[test]
fn a_kept_snapshot_has_all_its_reasons() {
    let mut all = snapshots(&["2026-12-30T10:00:00Z", "2026-12-31T10:00:00Z"]);
    all[1].held = true;
    tag(&mut all[1], "release", "1.2");
    let policy = RetentionPolicy {
        last: Some(1),
        hourly: Some(1),
        daily: Some(2),
        weekly: Some(1),
        monthly: Some(1),
        yearly: Some(1),
        within: Some(Duration::from_secs(36 * 3600)),
        tags: vec![("release".to_owned(), None)],
        ..RetentionPolicy::default()
    };
    let newest = "held; tag release=1.2; last good snapshot of its deployment; within 36h; newest; \
                  newest of hour 2026-12-31 10:00+00; newest of day 2026-12-31; newest of week 2026-W53; \
                  newest of month 2026-12; newest of year 2026";
    let expected = [(1, "within 36h; newest of day 2026-12-30".to_owned()), (2, newest.to_owned())];
    assert_eq!(kept_at(&policy, &all, NOW), expected);
}

#[test]
fn an_iso_week_may_belong_to_the_year_before() {
    let all = snapshots(&["2026-12-31T10:00:00Z", "2027-01-03T10:00:00Z", "2027-01-04T10:00:00Z"]);
    let kept = kept_at(&RetentionPolicy { weekly: Some(2), ..bare() }, &all, "2027-01-05T00:00:00Z");
    assert_eq!(kept, [(2, "newest of week 2026-W53".to_owned()), (3, "newest of week 2027-W01".to_owned())]);
}

#[test]
fn both_hours_of_a_repeated_hour_are_kept_as_hours_of_their_own() {
    let all = snapshots(&["2026-10-25T00:10:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]);
    let policy = RetentionPolicy { hourly: Some(2), zone: berlin(), ..bare() };
    let expected =
        [(2, "newest of hour 2026-10-25 02:00+02".to_owned()), (3, "newest of hour 2026-10-25 02:00+01".to_owned())];
    assert_eq!(kept_at(&policy, &all, NOW), expected);
}

#[test]
fn a_skipped_hour_uses_no_slot() {
    let all = snapshots(&["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"]);
    let policy = RetentionPolicy { hourly: Some(2), zone: berlin(), ..bare() };
    let expected =
        [(1, "newest of hour 2026-03-29 01:00+01".to_owned()), (2, "newest of hour 2026-03-29 03:00+02".to_owned())];
    assert_eq!(kept_at(&policy, &all, NOW), expected);
}

#[test]
fn a_day_of_twenty_five_hours_is_one_day() {
    let all = snapshots(&["2026-10-24T22:00:00Z", "2026-10-25T22:59:00Z", "2026-10-25T23:00:00Z"]);
    let policy = RetentionPolicy { daily: Some(3), zone: berlin(), ..bare() };
    let expected = [(2, "newest of day 2026-10-25".to_owned()), (3, "newest of day 2026-10-26".to_owned())];
    assert_eq!(kept_at(&policy, &all, NOW), expected);
}

#[test]
fn a_day_that_comes_in_two_parts_is_one_day() {
    // Clocks go back at 0:01 on the 25th, to 23:01 of the 24th.
    let zone = TimeZone::posix("NST3:30NDT,M4.1.0/0:01,M10.4.0/0:01").expect("a rule");
    let all = snapshots(&["2026-10-25T02:00:00Z", "2026-10-25T02:30:30Z", "2026-10-25T03:00:00Z"]);
    let civil: Vec<String> = all.iter().map(|one| zone.to_datetime(one.created_at).to_string()).collect();
    assert_eq!(civil, ["2026-10-24T23:30:00", "2026-10-25T00:00:30", "2026-10-24T23:30:00"]);
    assert_eq!(names_kept(&RetentionPolicy { daily: Some(9), zone, ..bare() }, &all), [2, 3]);
}

#[test]
fn the_zone_decides_the_day() {
    let all = snapshots(&["2026-07-01T21:30:00Z", "2026-07-01T22:30:00Z"]);
    let policy = RetentionPolicy { daily: Some(2), ..bare() };
    assert_eq!(names_kept(&policy, &all), [2]);
    assert_eq!(names_kept(&RetentionPolicy { zone: berlin(), ..policy }, &all), [1, 2]);
}

#[test]
fn within_counts_elapsed_hours_and_includes_its_end() {
    // Thirty days before the newest are one hour earlier on the wall, since clocks went back.
    let all = snapshots(&["2026-09-26T11:59:59Z", "2026-09-26T12:00:00Z", "2026-10-26T12:00:00Z"]);
    let policy = RetentionPolicy { within: Some(days(30)), zone: berlin(), ..RetentionPolicy::default() };
    assert_eq!(names_kept(&policy, &all), [2, 3]);
}

#[test]
fn when_backups_stop_within_forgets_nothing_more_unless_the_last_may_go() {
    let all = snapshots(&["2026-01-01T00:00:00Z", "2026-01-20T00:00:00Z"]);
    let policy = RetentionPolicy { within: Some(days(30)), ..RetentionPolicy::default() };
    assert_eq!(names_kept(&policy, &all), [1, 2]);
    assert_eq!(names_kept(&RetentionPolicy { may_remove_last_good: true, ..policy }, &all), [0; 0]);
}

#[test]
fn the_longest_duration_keeps_everything() {
    let all = snapshots(&["-009999-01-02T01:59:59Z", "2026-01-20T00:00:00Z"]);
    let policy = RetentionPolicy { within: Some(Duration::MAX), ..bare() };
    assert_eq!(names_kept(&policy, &all), [1, 2]);
}

#[test]
fn a_tag_keeps_by_key_or_by_key_and_value() {
    let mut all = snapshots(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]);
    tag(&mut all[0], "release", "1.1");
    tag(&mut all[1], "release", "1.2");
    let by = |value: Option<&str>| RetentionPolicy {
        tags: vec![("release".to_owned(), value.map(str::to_owned))],
        ..bare()
    };
    assert_eq!(names_kept(&by(None), &all), [1, 2]);
    assert_eq!(names_kept(&by(Some("1.1")), &all), [1]);
}

#[test]
fn counts_are_of_each_deployment_unless_told_otherwise() {
    let mut all = snapshots(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]);
    all[0].deployment = "other".to_owned();
    tag(&mut all[1], "kind", "weekly");
    let by = |group_by| RetentionPolicy { last: Some(1), group_by, ..bare() };
    assert_eq!(names_kept(&by(GroupBy::Deployment), &all), [1, 3]);
    assert_eq!(names_kept(&by(GroupBy::None), &all), [3]);
    assert_eq!(names_kept(&by(GroupBy::Tag("kind".to_owned())), &all), [1, 2, 3]);
}

#[test]
fn the_last_good_snapshot_of_each_deployment_stays_in_a_common_group() {
    let mut all = snapshots(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]);
    all[1].deployment = "other".to_owned();
    all[0].deployment = "other".to_owned();
    let policy = RetentionPolicy { last: Some(1), group_by: GroupBy::None, ..RetentionPolicy::default() };
    let expected = [
        (2, "last good snapshot of its deployment".to_owned()),
        (3, "last good snapshot of its deployment; newest".to_owned()),
    ];
    assert_eq!(kept_at(&policy, &all, NOW), expected);
}

#[test]
fn an_incomplete_snapshot_stays_until_its_deployment_has_a_newer_good_one() {
    let mut all = snapshots(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]);
    all[0].complete = false;
    all[2].complete = false;
    let policy = RetentionPolicy { last: Some(3), ..RetentionPolicy::default() };
    let expected = [
        (2, "last good snapshot of its deployment; newest".to_owned()),
        (3, "incomplete, but no good snapshot is newer".to_owned()),
    ];
    assert_eq!(kept_at(&policy, &all, NOW), expected);
    all[1].deployment = "other".to_owned();
    assert_eq!(names_kept(&policy, &all), [1, 2, 3], "another deployment's snapshot supersedes nothing");
}

#[test]
fn a_good_snapshot_of_the_same_moment_does_not_supersede_an_incomplete_one() {
    let mut all = snapshots(&["2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]);
    all[0].complete = false;
    assert_eq!(names_kept(&RetentionPolicy { last: Some(1), ..bare() }, &all), [1, 2]);
}

#[test]
fn an_incomplete_snapshot_does_not_stand_for_the_bucket_that_it_is_the_newest_of() {
    let mut all = snapshots(&["2026-01-01T08:00:00Z", "2026-01-01T08:30:00Z", "2026-01-02T08:00:00Z"]);
    all[1].complete = false;
    assert_eq!(names_kept(&RetentionPolicy { hourly: Some(2), daily: Some(2), ..bare() }, &all), [1, 3]);
}

#[test]
fn an_incomplete_snapshot_is_kept_by_a_hold_a_tag_or_its_age() {
    let mut all = snapshots(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]);
    all[0].complete = false;
    tag(&mut all[0], "why", "incident");
    let tags = vec![("why".to_owned(), None)];
    assert_eq!(names_kept(&RetentionPolicy { last: Some(2), ..bare() }, &all), [2]);
    assert_eq!(names_kept(&RetentionPolicy { last: Some(2), tags, ..bare() }, &all), [1, 2]);
    let within = RetentionPolicy { within: Some(days(1)), ..RetentionPolicy::default() };
    assert_eq!(names_kept(&within, &all), [1, 2]);
    all[0].held = true;
    assert_eq!(names_kept(&RetentionPolicy { last: Some(2), ..bare() }, &all), [1, 2]);
}

#[test]
fn a_safety_snapshot_stays_seven_days_and_takes_nobodys_place() {
    let mut all = snapshots(&["2026-12-01T00:00:00Z", "2026-12-24T12:00:00Z", "2026-12-24T12:00:01Z"]);
    all[1].safety = true;
    all[2].safety = true;
    let policy = RetentionPolicy { last: Some(1), daily: Some(1), ..RetentionPolicy::default() };
    let expected = [
        (1, "last good snapshot of its deployment; newest; newest of day 2026-12-01".to_owned()),
        (3, "made by a restore in the last 7 days".to_owned()),
    ];
    assert_eq!(kept_at(&policy, &all, NOW), expected);
}

#[test]
fn a_safety_snapshot_does_not_supersede_an_incomplete_one() {
    let mut all = snapshots(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]);
    all[0].complete = false;
    all[1].safety = true;
    assert_eq!(names_kept(&RetentionPolicy { last: Some(1), ..bare() }, &all), [1]);
}

#[test]
fn a_snapshot_from_the_future_stays_and_pushes_nobody_out() {
    let mut all = snapshots(&[
        "2026-12-01T00:00:00Z", // 1: incomplete
        "2026-12-30T10:00:00Z", // 2
        "2026-12-31T11:00:00Z", // 3
        "2026-12-31T12:00:01Z", // 4: of today, but later than now
        "2099-01-01T00:00:00Z", // 5
    ]);
    all[0].complete = false;
    let policy = RetentionPolicy { last: Some(1), daily: Some(1), ..RetentionPolicy::default() };
    let expected = [
        (3, "last good snapshot of its deployment; newest; newest of day 2026-12-31".to_owned()),
        (4, "dated in the future".to_owned()),
        (5, "dated in the future".to_owned()),
    ];
    assert_eq!(kept_at(&policy, &all, NOW), expected);
    // The deployment's only past one is incomplete; what is dated in the future does not supersede it.
    all.drain(1..3);
    assert_eq!(names_kept(&policy, &all), [1, 4, 5]);
}

#[test]
fn a_flood_within_an_hour_uses_one_slot_of_an_hour_and_of_a_day() {
    let mut all = snapshots(&["2026-12-29T10:00:00Z", "2026-12-30T10:00:00Z", "2026-12-31T09:00:00Z"]);
    let flood = (10..210_u8)
        .zip(0..)
        .map(|(name, at)| snapshot(name, &format!("2026-12-31T10:{:02}:{:02}Z", at / 60, at % 60)));
    all.extend(flood);
    let policy = RetentionPolicy { hourly: Some(2), daily: Some(3), ..RetentionPolicy::default() };
    assert_eq!(names_kept(&policy, &all), [1, 2, 3, 209]);
}

#[test]
fn of_two_snapshots_of_one_moment_the_same_one_is_kept_each_time() {
    let mut all = snapshots(&["2026-12-29T10:00:00Z", "2026-12-29T10:00:00Z"]);
    let policy = RetentionPolicy { hourly: Some(1), ..bare() };
    assert_eq!(names_kept(&policy, &all), [2]);
    all.reverse();
    assert_eq!(names_kept(&policy, &all), [2]);
}

#[test]
fn an_id_given_twice_is_decided_once() {
    let all = [snapshot(1, "2026-12-29T10:00:00Z"), snapshot(1, "2026-12-29T10:00:00Z")];
    assert_eq!(decide(&RetentionPolicy { last: Some(1), ..bare() }, &all, moment(NOW)).len(), 1);
}

#[test]
fn a_policy_is_empty_if_nothing_in_it_can_keep_anything() {
    let none = RetentionPolicy { last: Some(0), within: Some(Duration::ZERO), ..RetentionPolicy::default() };
    assert!(RetentionPolicy::default().is_empty() && none.is_empty());
    for policy in [
        RetentionPolicy { yearly: Some(1), ..bare() },
        RetentionPolicy { within: Some(days(1)), ..bare() },
        RetentionPolicy { tags: vec![("a".to_owned(), None)], ..bare() },
    ] {
        assert!(!policy.is_empty(), "{policy:?}");
    }
}
