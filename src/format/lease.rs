//! `leases/<run>/<n>`: the claim of a running operation.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{FormatError, from_versioned_json, to_json};
use crate::id::RunId;
use crate::limits::LEASE_PERIOD_MAX;

/// The body of a lease object. Each renewal is a new object with the next number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Format version of this document.
    pub format: u8,
    /// The run that claims.
    pub run: RunId,
    /// `create`, `prune`, `replicate`, `repair`.
    pub operation: String,
    /// Number of this lease, as in its name.
    pub number: u32,
    /// When it was written, by the writer's clock.
    pub created_at: Timestamp,
    /// How long it holds from the moment at which the store has it, in seconds; 0: the run has ended.
    pub period_seconds: u64,
    /// Where the run is: host name and process id.
    pub holder: String,
}

impl Lease {
    /// The body's bytes.
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads the body back.
    pub fn decode(body: &[u8]) -> Result<Self, FormatError> {
        let lease: Self = from_versioned_json("lease", body)?;
        let limit = LEASE_PERIOD_MAX.as_secs();
        if lease.period_seconds > limit {
            return Err(FormatError::Limit {
                what: "the period of a lease in seconds",
                found: lease.period_seconds,
                limit,
            });
        }
        Ok(lease)
    }
}
