//! Memory as a budget: no buffer of plaintext exists without a permit, and the permit travels inside the value.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{INPUT_BLOCK_SIZE_MAX, INPUT_BLOCKS_AHEAD, SEGMENT_SIZE_MAX};

/// Bytes of a budget that one permit unit stands for. Semaphores count to 2^29; a KiB is fine enough.
const UNIT: u64 = 1 << 10;

/// What one open component holds without giving it back by itself: two open segments and the bytes between two cuts.
const COMPONENT_BYTES: u64 = 2 * SEGMENT_SIZE_MAX + 2 * INPUT_BLOCK_SIZE_MAX as u64;

/// Input blocks that exist at one time: those that wait, one being read and one being cut.
const INPUT_BYTES: u64 = (INPUT_BLOCKS_AHEAD as u64 + 2) * INPUT_BLOCK_SIZE_MAX as u64;

/// Smallest budget that cannot deadlock, in bytes: what one component holds, the input blocks on their way to it, and one
/// closed segment. Input blocks wait for segments; closed segments drain by themselves: compressing, sealing and putting take nothing from this budget.
pub const BUDGET_BYTES_MIN: u64 = COMPONENT_BYTES + INPUT_BYTES + SEGMENT_SIZE_MAX;

/// What `create` uses, in bytes: room for eight closed segments, so that two cores always find one to compress.
pub const BUDGET_BYTES_DEFAULT: u64 = BUDGET_BYTES_MIN + 8 * SEGMENT_SIZE_MAX;

/// A budget below [`BUDGET_BYTES_MIN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a memory budget of {bytes} bytes is below the least that cannot deadlock, {least}")]
pub struct BudgetTooSmall {
    /// What was asked for.
    pub bytes: u64,
    /// The least.
    pub least: u64,
}

/// Bytes of plaintext that may be in memory at one time.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

/// The right to hold some bytes; dropping it gives them back.
#[derive(Debug)]
pub struct BytePermit {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Result<Self, BudgetTooSmall> {
        if bytes < BUDGET_BYTES_MIN {
            return Err(BudgetTooSmall { bytes, least: BUDGET_BYTES_MIN });
        }
        Ok(Self(Arc::new(Semaphore::new(usize::try_from(bytes / UNIT).expect("a budget fits the address space")))))
    }

    /// Waits for the right to hold `bytes`.
    pub async fn acquire(&self, bytes: u64) -> BytePermit {
        let units = u32::try_from(bytes.div_ceil(UNIT)).expect("buffers are below 4 TiB");
        let permit = Arc::clone(&self.0).acquire_many_owned(units).await.expect("the budget is never closed");
        BytePermit { permit }
    }

    /// Waits for what one component holds.
    pub async fn acquire_component(&self) -> BytePermit {
        self.acquire(COMPONENT_BYTES).await
    }
}

impl BytePermit {
    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let keep = usize::try_from(bytes.div_ceil(UNIT)).expect("buffers fit the address space");
        let extra = self.permit.num_permits().saturating_sub(keep);
        drop(self.permit.split(extra));
    }
}
