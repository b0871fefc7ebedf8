//! `marks/<n>`: one decision about deletion. All marks together, in the order of their numbers, are the record of what is
//! forgotten, condemned, confirmed and held.
//!
//! Normative: `format-spec/08-deletion.md`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{FormatError, from_versioned_json, to_json};
use crate::id::{PackId, RunId, SnapshotId};

/// Tags that a mark sets (`Some`) or takes away (`None`).
pub type TagChanges = BTreeMap<String, Option<String>>;

/// What one mark decides. Within one, `released`, `pardoned` and `reinstated` come before `held`, `condemned` and
/// `quarantined`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decisions {
    /// Snapshots that are no more, whether their manifest is still there or not.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub forgotten: BTreeSet<SnapshotId>,
    /// Packs that nobody may rely on any more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub condemned: BTreeSet<PackId>,
    /// Condemned packs that a run is about to delete: nobody may pardon them any more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub doomed: BTreeSet<PackId>,
    /// Packs that are condemned no more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub pardoned: BTreeSet<PackId>,
    /// Late manifests whose chunks were found in packs that no lower mark condemns.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub confirmed: BTreeSet<SnapshotId>,
    /// Snapshots that retention must keep.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub held: BTreeSet<SnapshotId>,
    /// Snapshots that retention need not keep any more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub released: BTreeSet<SnapshotId>,
    /// Snapshots of which a part is lost. What is left of them stays.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub quarantined: BTreeSet<SnapshotId>,
    /// Snapshots that are whole again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub reinstated: BTreeSet<SnapshotId>,
    /// Changed tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tagged: BTreeMap<SnapshotId, TagChanges>,
}

impl Decisions {
    /// Whether nothing is decided.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The body of a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
// No `deny_unknown_fields`: serde cannot combine it with `flatten`; `decode` refuses unknown fields itself.
pub struct Mark {
    /// Format version of this document.
    pub format: u8,
    /// Number of this mark, as in its name; from 1.
    pub number: u32,
    /// The run that decided.
    pub run: RunId,
    /// When it was written, by the writer's clock.
    pub created_at: Timestamp,
    /// Where the run is: host name and process id.
    pub holder: String,
    /// Whether this mark says all that lower ones say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restated: bool,
    /// What it decides.
    #[serde(flatten)]
    pub decisions: Decisions,
}

impl Mark {
    /// The body's bytes.
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads the body back.
    pub fn decode(body: &[u8]) -> Result<Self, FormatError> {
        const FIELDS: [&str; 16] = [
            "format",
            "number",
            "run",
            "created_at",
            "holder",
            "restated",
            "forgotten",
            "condemned",
            "doomed",
            "pardoned",
            "confirmed",
            "held",
            "released",
            "quarantined",
            "reinstated",
            "tagged",
        ];
        let mark: Self = from_versioned_json("mark", body)?;
        let fields: BTreeMap<String, serde::de::IgnoredAny> = super::from_json("mark", body)?;
        if let Some(unknown) = fields.keys().find(|field| !FIELDS.contains(&field.as_str())) {
            return Err(FormatError::Invalid { what: "mark", why: format!("unknown field `{unknown}`") });
        }
        if mark.number == 0 {
            return Err(FormatError::Invalid { what: "the number of a mark", why: "marks begin with 1".to_owned() });
        }
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ObjectId;

    fn mark() -> Mark {
        let id = ObjectId::of(b"a");
        let decisions = Decisions {
            forgotten: BTreeSet::from([id]),
            tagged: BTreeMap::from([(id, TagChanges::from([("k".to_owned(), None)]))]),
            ..Decisions::default()
        };
        Mark {
            format: 1,
            number: 7,
            run: RunId::from_bytes([1; 16]),
            created_at: Timestamp::UNIX_EPOCH,
            holder: "host process 1".to_owned(),
            restated: false,
            decisions,
        }
    }

    #[test]
    fn a_mark_reads_back() {
        assert_eq!(Mark::decode(&mark().encode()), Ok(mark()));
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let text = String::from_utf8(mark().encode()).expect("JSON");
        let strange = text.replacen('{', r#"{"spared":[],"#, 1);
        assert!(matches!(Mark::decode(strange.as_bytes()), Err(FormatError::Invalid { .. })));
    }

    #[test]
    fn number_zero_is_refused() {
        let zero = Mark { number: 0, ..mark() };
        assert!(Mark::decode(&zero.encode()).is_err());
    }
}
