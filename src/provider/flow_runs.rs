//! Old flow runs of a task manager: how they are counted, listed and flushed.
//!
//! Does not: decide how many at a time, or what to do about one that stays; see `ops::flush`.

use async_trait::async_trait;
use jiff::Timestamp;

use super::ProviderError;

/// Which runs are flushed, and thereby what flushing does to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// Completed, failed or cancelled: they are deleted.
    Ended,
    /// Still running as far as the task manager knows: they are set to crashed.
    Stale,
}

/// Runs of a kind that started long ago. One that has no start time is none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunFilter {
    /// Which.
    pub kind: RunKind,
    /// They started before this.
    pub before: Timestamp,
}

/// A run of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowRun {
    /// What tells it from others.
    pub id: String,
    /// For people.
    pub name: String,
}

/// What came of flushing a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFlushed {
    /// The run.
    pub id: String,
    /// Why it is as it was, if it is.
    pub problem: Option<String>,
}

/// Knows the flow runs of one deployment. Each call takes a bounded time.
#[async_trait]
pub trait TaskManager: Send + Sync {
    /// How many there are.
    async fn count(&self, filter: &RunFilter) -> Result<u64, ProviderError>;

    /// At most `limit` of them, or fewer if the task manager has a limit of its own, from `offset` on, in an order that does
    /// not change. None is behind an empty page.
    async fn page(&self, filter: &RunFilter, limit: u64, offset: u64) -> Result<Vec<FlowRun>, ProviderError>;

    /// Flushes these, each by itself.
    async fn flush(&self, kind: RunKind, ids: &[String]) -> Result<Vec<RunFlushed>, ProviderError>;
}
