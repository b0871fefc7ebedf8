//! The counts of a component as a restore finds them, beside those of its snapshot.

use std::collections::BTreeMap;

/// What of the snapshot's counts is counted differently `now`. What it has no count of is not compared: that changed while the
/// backup was made, and says nothing.
pub(super) fn differences(then: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> Vec<String> {
    then.iter()
        .map(|(name, then)| (name, *then, now.get(name).copied().unwrap_or(0)))
        .filter(|(_, then, now)| then != now)
        .map(|(name, then, now)| format!("{name}: {then} in the snapshot, {now} now"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_snapshot_counted_is_compared() {
        let counts = |of: &[(&str, u64)]| of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let then = counts(&[("kept", 3), ("fewer", 5), ("gone", 7)]);
        let now = counts(&[("kept", 3), ("fewer", 4), ("was not kept", 36_878)]);
        assert_eq!(differences(&then, &now), ["fewer: 5 in the snapshot, 4 now", "gone: 7 in the snapshot, 0 now"]);
    }
}
