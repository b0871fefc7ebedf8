//! Texts on the command line that stand for values: tags, sizes, durations, moments.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::provider::config::parse_duration;
use crate::repository::check::choice::Shard;

/// Reads `KEY=VALUE`.
pub fn tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        Some(_) | None => Err("a tag is written KEY=VALUE".to_owned()),
    }
}

/// Reads `30s`, `15m`, `6h` or `2d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// Reads an objective: `1h`, `30d`, and also `500ms` and `1h30m`.
pub fn objective(text: &str) -> Result<Duration, String> {
    duration(text).or_else(|error| go_duration(text).map_err(|_| error))
}

/// Reads what the predecessor's flags took: `90s`, `1h30m`, `0`, `1.5s`, `500ms`.
pub fn go_duration(text: &str) -> Result<Duration, String> {
    let error = || format!("`{text}` is not a duration: numbers and `ms`, `s`, `m` or `h`");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
        let number: f64 = rest[..digits].parse().map_err(|_| error())?;
        rest = &rest[digits..];
        let (unit, factor) = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))
            .ok_or_else(error)?;
        seconds += number * factor;
        rest = &rest[unit.len()..];
    }
    if text.is_empty() { Err(error()) } else { Duration::try_from_secs_f64(seconds).map_err(|_| error()) }
}

/// Reads `5GB`, `64MiB`, `1000`: decimal and binary units.
pub fn size(text: &str) -> Result<u64, String> {
    let error =
        || format!("`{text}` is not a size: a whole number and `KB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB` or `TiB`");
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..at].parse().map_err(|_| error())?;
    let factor: u64 = match text[at..].trim() {
        "" | "B" => 1,
        "KB" | "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(error()),
    };
    number.checked_mul(factor).ok_or_else(error)
}

/// Reads `10MB` or `10MB/s`: bytes a second, at least one.
pub fn rate(text: &str) -> Result<u64, String> {
    match size(text.strip_suffix("/s").unwrap_or(text))? {
        0 => Err("nothing would ever arrive: leave the limit out for no limit".to_owned()),
        rate => Ok(rate),
    }
}

/// Reads `5%` or `0.5%`, as parts of a million.
pub fn percent(text: &str) -> Result<u32, String> {
    let error = || format!("`{text}` is not a part: write 5%, or 0.5%, up to 100%");
    let number = text.strip_suffix('%').ok_or_else(error)?;
    let (whole, rest) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 4 && text.bytes().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(rest) {
        return Err(error());
    }
    let parse = |text: &str| text.parse::<u32>().map_err(|_| error());
    let parts = parse(whole)? * 10_000 + parse(&format!("{rest:0<4}"))?;
    if (1..=1_000_000).contains(&parts) { Ok(parts) } else { Err(error()) }
}

/// Reads `2/4`: the second of four shares.
pub fn shard(text: &str) -> Result<Shard, String> {
    let shard = text.split_once('/').and_then(|(number, count)| Shard::new(number.parse().ok()?, count.parse().ok()?));
    shard.ok_or_else(|| format!("`{text}` is not a share: write 1/4, 2/4, 3/4 or 4/4 for four workers"))
}

/// Reads a moment: RFC 3339 with its offset, or date and time of this machine's time zone.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    moment_in(text, &TimeZone::system())
}

fn moment_in(text: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let error = || format!("`{text}` is not a time: write 2026-11-22T15:00:00Z, or 2026-11-22 15:00 in local time");
    // A date alone could mean its beginning or its end.
    if !text.contains(':') {
        return Err(error());
    }
    let local: DateTime = text.parse().map_err(|_| error())?;
    zone.to_timestamp(local).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_or_binary_as_written() {
        assert_eq!((size("5GB"), size("64MiB"), size("7")), (Ok(5_000_000_000), Ok(64 << 20), Ok(7)));
        assert!(["", "GB", "5 parsecs", "-1", "99999999999TB"].iter().all(|text| size(text).is_err()));
    }

    #[test]
    fn a_rate_is_a_size_a_second_and_not_zero() {
        assert_eq!((rate("10MB"), rate("10MB/s")), (Ok(10_000_000), Ok(10_000_000)));
        assert!(["0", "0MB/s", "fast", "/s"].iter().all(|text| rate(text).is_err()));
    }

    #[test]
    fn parts_and_shares_are_exact_or_refused() {
        assert_eq!((percent("5%"), percent("0.05%"), percent("100%")), (Ok(50_000), Ok(500), Ok(1_000_000)));
        assert!(["5", "0%", "100.1%", "%", "-1%", "0.00001%", "1.%"].iter().all(|text| percent(text).is_err()));
        assert_eq!(shard("2/4").ok(), Shard::new(2, 4));
        assert!(["0/4", "5/4", "1", "1/0", "a/b"].iter().all(|text| shard(text).is_err()));
    }

    #[test]
    fn durations_of_the_predecessor_are_read() {
        assert_eq!(go_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(go_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(["", "5", "m", "1x"].iter().all(|text| go_duration(text).is_err()));
    }

    #[test]
    fn an_objective_may_be_shorter_than_a_second_and_longer_than_a_day() {
        assert_eq!(objective("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(objective("2d"), Ok(Duration::from_secs(2 * 86_400)));
        assert_eq!(objective("0"), Ok(Duration::ZERO));
        assert!(objective("soon").is_err());
    }

    #[test]
    fn a_moment_without_an_offset_is_local_time() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let utc = "2026-11-22T13:00:00Z".parse::<Timestamp>().unwrap();
        assert_eq!(moment_in("2026-11-22 15:00", &zone), Ok(utc));
        assert_eq!(moment_in("2026-11-22T13:00:00Z", &zone), Ok(utc));
    }

    #[test]
    fn a_date_alone_is_refused() {
        assert!(moment("2026-11-22").is_err());
    }

    #[test]
    fn a_tag_may_hold_an_equals_sign_in_its_value() {
        assert_eq!(tag("why=a=b"), Ok(("why".to_owned(), "a=b".to_owned())));
        assert!(tag("why").is_err());
    }
}
