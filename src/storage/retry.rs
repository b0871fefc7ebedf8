//! Asking again: the one place where a request is repeated.
//!
//! Only errors that may pass are tried again ([`StoreError::is_transient`]), after a pause of random length below a
//! bound that doubles, so that many machines that were refused at once do not come back at once.
//!
//! Holds: a put that may have been done though its answer was lost is read back, and is done if the bytes are the same.
//! What is put carries its writer's random run, or is named by its content: the same bytes are this put's, or as good.
//! Does not: repeat what was refused for a reason; hide the last error.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::wait::Wait;
use super::{Capabilities, Deletion, ObjectInfo, ObjectName, RequestCounts, Store, StoreError};
use crate::env::{Entropy, random_bytes};

/// How long a store is believed to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Tries of one request, the first included.
    pub tries: u32,
    /// The same as long as the store never answered: a mistyped place should be told soon.
    pub tries_at_first: u32,
    /// Bound of the first pause.
    pub pause_first: Duration,
    /// Bound of all pauses.
    pub pause_max: Duration,
    /// No further try begins after this time.
    pub total: Duration,
}

impl Default for Patience {
    /// About a minute and a half where the store answered before, three seconds where it never did (the sum of half of
    /// each pause's bound): a service that restarts costs a backup nothing, a wrong port is told while one looks at it.
    fn default() -> Self {
        Self {
            tries: 16,
            tries_at_first: 6,
            pause_first: Duration::from_millis(200),
            pause_max: Duration::from_secs(20),
            total: Duration::from_secs(300),
        }
    }
}

/// Asks one service again, whatever is asked of it.
pub struct Retries {
    patience: Patience,
    entropy: Arc<dyn Entropy>,
    wait: Arc<dyn Wait>,
    answered: AtomicBool,
    count: AtomicU64,
}

impl Retries {
    /// With this patience.
    pub fn new(patience: Patience, entropy: Arc<dyn Entropy>, wait: Arc<dyn Wait>) -> Self {
        Self { patience, entropy, wait, answered: AtomicBool::new(false), count: AtomicU64::new(0) }
    }

    /// Repeats `ask` until it is answered or patience ends.
    ///
    /// # Errors
    /// The last one.
    pub async fn ask<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        let mut tries = Tries::new(self);
        loop {
            let answer = self.heard(ask().await);
            match answer {
                Err(error) if error.is_transient() => tries.pause(error).await?,
                answer => return answer,
            }
        }
    }

    /// Notes that the store lives.
    fn heard<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if !answer.as_ref().is_err_and(StoreError::is_transient) {
            self.answered.store(true, Ordering::Relaxed);
        }
        answer
    }
}

/// A store that is asked again.
pub struct Retried {
    inner: Arc<dyn Store>,
    retries: Retries,
}

impl Retried {
    /// Asks `inner` again, with this patience.
    pub fn new(inner: Arc<dyn Store>, patience: Patience, entropy: Arc<dyn Entropy>, wait: Arc<dyn Wait>) -> Self {
        Self { inner, retries: Retries::new(patience, entropy, wait) }
    }

    /// A put of which an earlier try may have been done, though its answer was lost.
    ///
    /// It is looked at before the bytes are sent again: a server that sees at once that the name is taken may answer and
    /// close before it has read them, and that looks like one more broken connection, however often it is tried.
    async fn put_again(&self, name: &ObjectName, bytes: &Bytes) -> Result<(), StoreError> {
        match self.held(name, bytes).await? {
            Held::Same => return Ok(()),
            Held::Other => return Err(StoreError::AlreadyExists { name: name.clone(), location: self.location() }),
            Held::Unknown => {}
        }
        match self.retries.heard(self.inner.put_new(name, bytes.clone()).await) {
            // The earlier try was done in between, or what is there could not be read.
            Err(error @ StoreError::AlreadyExists { .. }) => match self.held(name, bytes).await? {
                Held::Same => Ok(()),
                Held::Other | Held::Unknown => Err(error),
            },
            answer => answer,
        }
    }

    /// What `name` holds, beside `bytes`. That it cannot be read is an error only if that may pass.
    async fn held(&self, name: &ObjectName, bytes: &Bytes) -> Result<Held, StoreError> {
        match self.retries.heard(self.inner.get(name, bytes.len() as u64).await) {
            Ok(found) if found == *bytes => Ok(Held::Same),
            Ok(_) => Ok(Held::Other),
            Err(error) if error.is_transient() => Err(error),
            Err(_) => Ok(Held::Unknown),
        }
    }
}

/// What a name holds, beside what was to be put there.
enum Held {
    Same,
    Other,
    /// Nothing, or nothing that can be read.
    Unknown,
}

/// The tries of one request.
struct Tries<'a> {
    retries: &'a Retries,
    began: Duration,
    failed: u32,
}

impl<'a> Tries<'a> {
    fn new(retries: &'a Retries) -> Self {
        Self { retries, began: retries.wait.passed(), failed: 0 }
    }

    /// Waits before the next try; gives `error` back if there is none.
    async fn pause(&mut self, error: StoreError) -> Result<(), StoreError> {
        let Retries { patience, wait, answered, count, .. } = self.retries;
        self.failed += 1;
        let tries = if answered.load(Ordering::Relaxed) { patience.tries } else { patience.tries_at_first };
        let spent = wait.passed().saturating_sub(self.began);
        let pause = self.random_pause();
        if self.failed >= tries || spent + pause >= patience.total {
            return Err(error);
        }
        wait.sleep(pause).await;
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Any time below the bound, each as likely.
    fn random_pause(&self) -> Duration {
        let Retries { patience, entropy, .. } = self.retries;
        let doubled = patience.pause_first.saturating_mul(1_u32.checked_shl(self.failed - 1).unwrap_or(u32::MAX));
        let bound = u64::try_from(doubled.min(patience.pause_max).as_nanos()).unwrap_or(u64::MAX);
        let random = u64::from_le_bytes(random_bytes(&**entropy));
        let share = (u128::from(bound) * u128::from(random)) >> 64;
        Duration::from_nanos(u64::try_from(share).expect("a share of a u64 is one"))
    }
}

impl fmt::Debug for Retried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retried")
            .field("inner", &self.inner)
            .field("patience", &self.retries.patience)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for Retried {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let mut tries = Tries::new(&self.retries);
        let mut may_be_there = false;
        loop {
            let answer = match may_be_there {
                true => self.put_again(name, &bytes).await,
                false => self.retries.heard(self.inner.put_new(name, bytes.clone()).await),
            };
            match answer {
                Err(error) if error.is_transient() => {
                    may_be_there = true;
                    tries.pause(error).await?;
                }
                answer => return answer,
            }
        }
    }

    async fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError> {
        self.retries.ask(|| self.inner.get(name, size_max)).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.retries.ask(|| self.inner.get_range(name, range.clone())).await
    }

    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.retries.ask(|| self.inner.size(name)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.retries.ask(|| self.inner.list(prefix)).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        self.retries.ask(|| self.inner.delete(name)).await
    }

    async fn sweep(&self, older_than: Duration) -> Result<u64, StoreError> {
        self.retries.ask(|| self.inner.sweep(older_than)).await
    }

    fn counts(&self) -> RequestCounts {
        let inner = self.inner.counts();
        RequestCounts { retries: inner.retries + self.retries.count.load(Ordering::Relaxed), ..inner }
    }
}
