//! The flags that say what to keep, for every command that forgets: flatten [`KeepArgs`] and ask it for its policy.
//!
//! Does not: decide which snapshots these are, see [`crate::retention`].

use std::time::Duration;

use clap::Args;
use jiff::tz::TimeZone;

use super::failure::Failure;
use super::values;
use crate::retention::{GroupBy, RetentionPolicy};

/// What to keep. Rules add up: a snapshot that one of them keeps stays.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What to keep")]
pub struct KeepArgs {
    /// The newest N complete snapshots
    #[arg(long, value_name = "N", value_parser = count())]
    pub keep_last: Option<u32>,
    /// The newest complete snapshot of each of the newest N hours that have one
    #[arg(long, value_name = "N", value_parser = count())]
    pub keep_hourly: Option<u32>,
    /// The same for days
    #[arg(long, value_name = "N", value_parser = count())]
    pub keep_daily: Option<u32>,
    /// The same for ISO weeks, Monday to Sunday
    #[arg(long, value_name = "N", value_parser = count())]
    pub keep_weekly: Option<u32>,
    /// The same for months
    #[arg(long, value_name = "N", value_parser = count())]
    pub keep_monthly: Option<u32>,
    /// The same for years
    #[arg(long, value_name = "N", value_parser = count())]
    pub keep_yearly: Option<u32>,
    /// Everything not older than this (30d, 36h), counted back from the newest complete snapshot
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub keep_within: Option<Duration>,
    /// Everything with this tag, whatever its value or with this one; may be given more than once
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = tag)]
    pub keep_tag: Vec<(String, Option<String>)>,
    /// Which snapshots share the counts: deployment, none (all together), or tag:KEY (by deployment and that tag's value)
    #[arg(long, value_name = "HOW", default_value = "deployment", value_parser = group_by)]
    pub group_by: GroupBy,
    /// Whose hours, days, weeks, months and years are counted: UTC, or a name such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = time_zone)]
    pub time_zone: TimeZone,
    /// A deployment may lose its last complete snapshot; `--keep-within` is counted back from now
    #[arg(long)]
    pub allow_last: bool,
}

impl KeepArgs {
    /// Whether no flag says what to keep.
    pub fn is_empty(&self) -> bool {
        let counts =
            [self.keep_last, self.keep_hourly, self.keep_daily, self.keep_weekly, self.keep_monthly, self.keep_yearly];
        counts.iter().all(Option::is_none) && self.keep_within.is_none() && self.keep_tag.is_empty()
    }

    /// The policy that these flags describe.
    ///
    /// # Errors
    /// Usage, if no flag keeps anything: that is an oversight, not a wish to forget everything.
    pub fn policy(&self) -> Result<RetentionPolicy, Failure> {
        let policy = RetentionPolicy {
            last: self.keep_last,
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
            within: self.keep_within,
            tags: self.keep_tag.clone(),
            group_by: self.group_by.clone(),
            zone: self.time_zone.clone(),
            may_remove_last_good: self.allow_last,
        };
        if policy.is_empty() {
            let failure = Failure::usage("nothing says which snapshots to keep");
            return Err(failure.hint("say it, such as: --keep-daily 7 --keep-weekly 5 --keep-monthly 12"));
        }
        Ok(policy)
    }
}

/// A count of 0 would look like a rule and keep nothing.
fn count() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// Reads `KEY` or `KEY=VALUE`.
fn tag(text: &str) -> Result<(String, Option<String>), String> {
    let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value.to_owned())));
    match key.trim() {
        "" => Err("a tag is written KEY or KEY=VALUE".to_owned()),
        key => Ok((key.to_owned(), value)),
    }
}

/// Reads `deployment`, `none` or `tag:KEY`.
fn group_by(text: &str) -> Result<GroupBy, String> {
    let key = text.strip_prefix("tag:").map(str::trim).filter(|key| !key.is_empty());
    match (text, key) {
        ("deployment", _) => Ok(GroupBy::Deployment),
        ("none", _) => Ok(GroupBy::None),
        (_, Some(key)) => Ok(GroupBy::Tag(key.to_owned())),
        (_, None) => Err("write `deployment`, `none` or `tag:KEY`".to_owned()),
    }
}

/// Reads the name of a time zone. Names beside `UTC` are those that this system knows.
fn time_zone(text: &str) -> Result<TimeZone, String> {
    // Needs no tzdata, which small containers lack.
    if text == "UTC" {
        return Ok(TimeZone::UTC);
    }
    let known = TimeZone::get(text).ok().filter(|zone| !zone.is_unknown());
    known.ok_or_else(|| {
        "this system does not know this time zone: write UTC, or install tzdata and write a name such as Europe/Berlin"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use jiff::Timestamp;

    use super::*;
    use crate::error::ErrorKind;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        keep: KeepArgs,
    }

    fn parse(flags: &str) -> Result<KeepArgs, String> {
        let line = ["x"].into_iter().chain(flags.split_whitespace());
        Line::try_parse_from(line).map(|line| line.keep).map_err(|error| error.to_string())
    }

    fn policy(flags: &str) -> RetentionPolicy {
        parse(flags).expect("flags").policy().expect("a policy")
    }

    #[test]
    fn each_count_reaches_its_own_rule() {
        let policy = policy(
            "--keep-last 1 --keep-hourly 2 --keep-daily 3 --keep-weekly 4 --keep-monthly 5 --keep-yearly 6 --keep-within 30d",
        );
        let counts = [policy.last, policy.hourly, policy.daily, policy.weekly, policy.monthly, policy.yearly];
        assert_eq!(counts, [1, 2, 3, 4, 5, 6].map(Some));
        assert_eq!(policy.within, Some(Duration::from_secs(30 * 24 * 3600)));
    }

    #[test]
    fn what_is_not_given_is_by_deployment_in_utc_and_the_last_one_stays() {
        let policy = policy("--keep-last 1");
        assert_eq!((&policy.group_by, policy.may_remove_last_good), (&GroupBy::Deployment, false));
        assert_eq!(policy.zone, TimeZone::UTC);
        assert_eq!((policy.hourly, policy.within, policy.tags.len()), (None, None, 0));
    }

    #[test]
    fn without_any_rule_there_is_no_policy() {
        for flags in ["", "--group-by none --time-zone UTC --allow-last"] {
            let failure = parse(flags).expect("flags").policy().expect_err("no rule");
            assert_eq!(failure.error.kind(), ErrorKind::Usage);
            assert!(failure.hint_text().is_some_and(|hint| hint.contains("--keep-daily 7")));
        }
    }

    #[test]
    fn tags_are_given_with_or_without_a_value() {
        let tags = policy("--keep-tag release --keep-tag why=a=b").tags;
        assert_eq!(tags, [("release".to_owned(), None), ("why".to_owned(), Some("a=b".to_owned()))]);
    }

    #[test]
    fn groups_and_the_last_one_are_given_by_name() {
        let policy = policy("--keep-last 1 --group-by tag:kind --allow-last");
        assert_eq!((policy.group_by, policy.may_remove_last_good), (GroupBy::Tag("kind".to_owned()), true));
        assert_eq!(self::policy("--keep-last 1 --group-by none").group_by, GroupBy::None);
    }

    #[test]
    fn a_zone_is_taken_by_its_name_also_where_the_system_has_none() {
        let zone = policy("--keep-last 1 --time-zone Europe/Berlin").zone;
        assert_eq!(zone.to_offset(Timestamp::UNIX_EPOCH), jiff::tz::offset(1));
    }

    #[test]
    fn values_that_keep_nothing_or_mean_nothing_are_refused() {
        let wrong = [
            "--keep-last 0",
            "--keep-daily=-1",
            "--keep-weekly many",
            "--keep-within 0s",
            "--keep-within 30",
            "--keep-tag =x",
            "--group-by host",
            "--group-by tag:",
            "--time-zone Mars/Olympus",
            "--time-zone Etc/Unknown",
        ];
        for flags in wrong {
            let error = parse(flags).expect_err(flags);
            let flag = flags.split([' ', '=']).next().expect("a flag");
            assert!(error.contains(flag), "{flags}: {error}");
        }
    }
}
