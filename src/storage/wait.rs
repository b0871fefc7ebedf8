//! Time that passes while a store is waited for, taken from outside so that a test decides it.

use std::fmt;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

/// Tells how much time passed, and lets it pass.
pub trait Wait: fmt::Debug + Send + Sync {
    /// Time since some fixed moment. Never goes backwards.
    fn passed(&self) -> Duration;

    /// Ends once `time` has passed.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
}

/// The time of this machine.
#[derive(Debug, Clone, Copy)]
pub struct SystemWait {
    since: Instant,
}

impl Default for SystemWait {
    fn default() -> Self {
        Self { since: Instant::now() }
    }
}

impl Wait for SystemWait {
    fn passed(&self) -> Duration {
        self.since.elapsed()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}
