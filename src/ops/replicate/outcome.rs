//! What a run did, and what it could not do.

use std::fmt;

use super::{Mode, Selection, SetProof, StreamProof, short};
use crate::format::report::Finding;
use crate::id::{ObjectId, SnapshotId};

/// What was moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sealed packs that were copied, and their bytes.
    pub packs_copied: u64,
    /// See `packs_copied`.
    pub bytes_copied: u64,
    /// Packs that an interrupted run had brought: they were read once and found whole.
    pub packs_adopted: u64,
    /// Chunks that were read from the source and stored anew, because the target refuses the packs that hold them.
    pub chunks_stored_anew: u64,
    /// Bytes of packs that were sealed here.
    pub bytes_stored: u64,
    /// Index objects that were put.
    pub indexes: u64,
}

/// A snapshot of the source and the one that stands for it in the target: the same, where the keys are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// In the source.
    pub source: SnapshotId,
    /// In the target.
    pub target: SnapshotId,
    /// What was compared of the two, where they were sealed under different keys.
    pub streams: Vec<StreamProof>,
}

/// Why a snapshot was not brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The source cannot give all of it.
    Damaged,
    /// The target refuses packs that hold it, and this key does not read content, which would have to be stored anew.
    NoContentKey {
        /// How many chunks.
        chunks: u64,
    },
    /// What it needs was condemned in the target again and again.
    Contended {
        /// How many chunks.
        chunks: u64,
    },
    /// The target has a manifest of its name, which is damaged.
    DamagedThere,
    /// What was read back differs from the source.
    Differs,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => f.write_str("the source cannot give all of it"),
            Self::NoContentKey { chunks } => write!(
                f,
                "{chunks} chunks are in packs that the target condemned; storing them anew takes a key that reads content"
            ),
            Self::Contended { chunks } => write!(f, "{chunks} chunks were condemned in the target again and again"),
            Self::DamagedThere => f.write_str("its manifest in the target is damaged"),
            Self::Differs => f.write_str("what was read back from the target differs"),
        }
    }
}

/// A snapshot that was not brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The snapshot, in the source.
    pub id: SnapshotId,
    /// Why.
    pub reason: Reason,
    /// The damage that is to blame.
    pub findings: Vec<Finding>,
}

/// What a run did.
#[derive(Debug)]
pub struct Replicated {
    /// How.
    pub mode: Mode,
    /// The snapshots that were brought, oldest first.
    pub pairs: Vec<Pair>,
    /// Those that the target had.
    pub there: Vec<SnapshotId>,
    /// Those that the target forgot: its own retention is not undone.
    pub forgotten: Vec<SnapshotId>,
    /// Those that are not certain to be whole in the source.
    pub late: Vec<SnapshotId>,
    /// Those that the source forgot while the run was at work.
    pub withdrawn: Vec<SnapshotId>,
    /// Those that could not be brought.
    pub left_out: Vec<LeftOut>,
    /// Damage that was met, each object once.
    pub findings: Vec<Finding>,
    /// What was moved.
    pub counts: Counts,
    /// That both hold the same.
    pub proof: SetProof,
    /// The report in the target.
    pub report: Option<ObjectId>,
    /// The report in the source.
    pub source_report: Option<ObjectId>,
}

impl Replicated {
    /// Whether everything that was asked for is in the target. What it forgot, or is late in the source, lacks only if it was
    /// asked for by name.
    pub fn is_whole(&self, selection: &Selection) -> bool {
        let lacking = match selection {
            Selection::All => false,
            Selection::Only(_) => !(self.forgotten.is_empty() && self.late.is_empty()),
        };
        self.left_out.is_empty() && self.findings.is_empty() && self.proof.missing.is_empty() && !lacking
    }

    /// What became of each snapshot, for the evidence.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for pair in &self.pairs {
            lines.push(format!("snapshot {} is {} in the target", pair.source, pair.target));
            lines.extend(pair.streams.iter().map(|stream| format!("  {stream}")));
        }
        for (ids, what) in [
            (&self.forgotten, "forgotten in the target"),
            (&self.late, "late or quarantined in the source, not brought"),
        ] {
            if !ids.is_empty() {
                lines.push(format!("{what}: {}", short(ids)));
            }
        }
        lines.extend(self.left_out.iter().map(|left| format!("left out {}: {}", left.id, left.reason)));
        lines
    }
}

/// Brings findings together: each object once, with everything that it hurts.
pub(super) fn merged(all: impl IntoIterator<Item = Finding>) -> Vec<Finding> {
    let mut merged: Vec<Finding> = Vec::new();
    for finding in all {
        match merged.iter_mut().find(|known| known.object == finding.object && known.layer == finding.layer) {
            Some(known) => {
                let new = finding.hurts.into_iter().filter(|hurt| !known.hurts.contains(hurt)).collect::<Vec<_>>();
                known.hurts.extend(new);
            }
            None => merged.push(finding),
        }
    }
    merged
}
