//! What a check did not look at, and why: whoever reads a result must not take it for more than it is.

use std::fmt;

use serde::Serialize;

use crate::id::SnapshotId;

/// Why something was not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The depth does not read packs.
    Depth,
    /// Another worker's share.
    OtherShard,
    /// Read whole and sound lately enough.
    ReadLately,
    /// Not in the sample.
    NotSampled,
    /// Beyond the budget.
    OverBudget,
    /// Came while the check ran.
    Appeared,
    /// Went while the check ran.
    Vanished,
    /// Hashed, but this key does not open content.
    NoContentKey,
    /// Hashed or looked at from outside only: no key was given.
    NoKey,
    /// Landed after the lease of its run and is not confirmed: whether it is whole is not known yet.
    Late,
    /// Not there, and named only by what a `replicate` is copying here, or was when it was killed: it need not come with that.
    Arriving,
    /// A part of it is known to be lost.
    Quarantined,
    /// Not among the snapshots that were asked for; of packs: needed by none of these.
    NotAskedFor,
    /// Resolved and read, but not written to files.
    NotRehearsed,
    /// Written to files, but not loaded into a database.
    NotLoaded,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Depth => "this depth does not read packs",
            Self::OtherShard => "they belong to other shards",
            Self::ReadLately => "they were read within the maximum age",
            Self::NotSampled => "they are not in the sample",
            Self::OverBudget => "they are beyond the budget",
            Self::Appeared => "they came while this ran",
            Self::Vanished => "they were deleted while this ran",
            Self::NoContentKey => "they were hashed, but this key does not open content",
            Self::NoKey => "they were not opened, because no key was given",
            Self::Late => "they landed after their lease and nobody confirmed them yet",
            Self::Arriving => {
                "only what a replicate brought and did not confirm yet names them; replicate again confirms it"
            }
            Self::Quarantined => "a part of them is lost, as repair found out",
            Self::NotAskedFor => "they were not asked for",
            Self::NotRehearsed => "they were not restored to files",
            Self::NotLoaded => "they were restored to files and not loaded into databases",
        })
    }
}

/// Packs and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// How many.
    pub packs: u64,
    /// Their length together, in bytes.
    pub bytes: u64,
}

impl Share {
    /// One more pack.
    pub fn add(&mut self, size: u64) {
        self.packs += 1;
        self.bytes += size;
    }
}

/// What kind of thing was not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Packs.
    Packs,
    /// Other objects.
    Objects,
    /// Snapshots.
    Snapshots,
}

/// Something that was not checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unchecked {
    /// What.
    pub what: Subject,
    /// Why not.
    pub reason: Reason,
    /// How many.
    pub count: u64,
    /// Their length together, in bytes, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Which, if they are snapshots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotId>,
}

impl Unchecked {
    /// Packs; `None` if there are none.
    pub fn packs(reason: Reason, share: Share) -> Option<Self> {
        let found = Self { bytes: Some(share.bytes), ..Self::objects(reason, share.packs)? };
        Some(Self { what: Subject::Packs, ..found })
    }

    /// Other objects; `None` if there are none.
    pub fn objects(reason: Reason, count: u64) -> Option<Self> {
        (count > 0).then_some(Self { what: Subject::Objects, reason, count, bytes: None, snapshots: vec![] })
    }

    /// Snapshots; `None` if there are none.
    pub fn snapshots(reason: Reason, snapshots: Vec<SnapshotId>) -> Option<Self> {
        let count = snapshots.len() as u64;
        (count > 0).then_some(Self { what: Subject::Snapshots, reason, count, bytes: None, snapshots })
    }
}

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            Subject::Packs => "packs",
            Subject::Objects => "objects",
            Subject::Snapshots => "snapshots",
        };
        write!(f, "{} {what}", self.count)?;
        if let Some(bytes) = self.bytes {
            write!(f, " ({bytes} bytes)")?;
        }
        write!(f, ": {}", self.reason)
    }
}
