//! Where CPU work runs: the border between waiting (tokio) and burning (rayon).
//!
//! Only bounded values cross it, and every job ends by itself: a job never waits for another job, a permit or a store. Work
//! that waits for files or locks goes a way of its own, so that one executor decides where all of it runs.

use std::sync::Arc;

/// Runs CPU work.
pub trait Executor: Send + Sync {
    /// Runs `job`, now or later, on whatever thread.
    fn spawn(&self, job: Box<dyn FnOnce() + Send>);

    /// Runs `job`, which waits for files or locks, where it holds up neither CPU work nor tokio. Called inside of tokio.
    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>);
}

/// Runs jobs on rayon's global pool.
#[derive(Debug, Clone, Copy, Default)]
pub struct RayonExecutor;

impl Executor for RayonExecutor {
    fn spawn(&self, job: Box<dyn FnOnce() + Send>) {
        rayon::spawn(job);
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        drop(tokio::task::spawn_blocking(job));
    }
}

/// Runs each job at once on the calling thread: for the simulation, where everything follows from one seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct InlineExecutor;

impl Executor for InlineExecutor {
    fn spawn(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

/// Runs `job` on `executor` and waits for its result.
///
/// # Panics
/// If the job panicked.
pub async fn run<T: Send + 'static>(executor: &Arc<dyn Executor>, job: impl FnOnce() -> T + Send + 'static) -> T {
    let (job, result) = awaited(job);
    executor.spawn(job);
    result.await
}

/// Runs `job`, which waits for files or locks, and waits for its result.
///
/// # Panics
/// If the job panicked.
pub async fn run_blocking<T: Send + 'static>(
    executor: &Arc<dyn Executor>,
    job: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (job, result) = awaited(job);
    executor.spawn_blocking(job);
    result.await
}

/// `job` as an executor takes it, and what gives its result once it ran.
fn awaited<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> (Box<dyn FnOnce() + Send>, impl Future<Output = T> + Send) {
    let (send, receive) = tokio::sync::oneshot::channel();
    let job = Box::new(move || {
        // A panic must reach who waits, who has services to start again: rayon would end the process.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        // Nobody waits any more when the operation was cancelled.
        let _ = send.send(result);
    });
    let result = async move {
        match receive.await.expect("every job sends its result") {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    };
    (job, result)
}
