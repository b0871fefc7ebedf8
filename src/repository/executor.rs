//! Where CPU work runs: the border between waiting (tokio) and burning (rayon).
//!
//! Only bounded values cross it, and every job ends by itself: a job never waits for another job, a permit or a store.

use std::sync::Arc;

/// Runs CPU work.
pub trait Executor: Send + Sync {
    /// Runs `job`, now or later, on whatever thread.
    fn spawn(&self, job: Box<dyn FnOnce() + Send>);
}

/// Runs jobs on rayon's global pool.
#[derive(Debug, Clone, Copy, Default)]
pub struct RayonExecutor;

impl Executor for RayonExecutor {
    fn spawn(&self, job: Box<dyn FnOnce() + Send>) {
        rayon::spawn(job);
    }
}

/// Runs each job at once on the calling thread: for the simulation, where everything follows from one seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct InlineExecutor;

impl Executor for InlineExecutor {
    fn spawn(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

/// Runs `job` on `executor` and waits for its result.
///
/// # Panics
/// If the job panicked.
pub async fn run<T: Send + 'static>(executor: &Arc<dyn Executor>, job: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = tokio::sync::oneshot::channel();
    executor.spawn(Box::new(move || {
        // A panic must reach who waits, who has services to start again: rayon would end the process.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        // Nobody waits any more when the operation was cancelled.
        let _ = send.send(result);
    }));
    match receive.await.expect("every job sends its result") {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
