//! Bandwidth limits.
//!
//! Bytes are paid for in time: a request waits until the ones before it are paid for. So the mean over a few objects is
//! the limit, and a single object of at most a pack travels as fast as the link allows.
//!
//! Holds: over any stretch of time no more bytes are asked for than the limit times that stretch and one object beyond
//! for each request that may run at once.
//! Does not: count listings and other small answers.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::wait::Wait;
use super::{Capabilities, Deletion, ObjectInfo, ObjectName, RequestCounts, Store, StoreError};

/// How many bytes a second may travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Towards the store, in bytes a second; `None` for any number.
    pub up: Option<u64>,
    /// From the store, in bytes a second; `None` for any number.
    pub down: Option<u64>,
}

/// A store that is not asked faster than its limits.
#[derive(Debug)]
pub struct Limited {
    inner: Arc<dyn Store>,
    up: Option<Bucket>,
    down: Option<Bucket>,
}

impl Limited {
    /// Limits `inner`. A limit of 0 is taken as 1 byte a second.
    pub fn new(inner: Arc<dyn Store>, limits: Limits, wait: Arc<dyn Wait>) -> Self {
        let bucket = |rate: u64| Bucket { rate: rate.max(1), wait: Arc::clone(&wait), paid_until: Mutex::default() };
        Self { inner, up: limits.up.map(bucket), down: limits.down.map(bucket) }
    }
}

/// One direction.
#[derive(Debug)]
struct Bucket {
    /// Bytes a second.
    rate: u64,
    wait: Arc<dyn Wait>,
    /// The moment at which all bytes so far are paid for.
    paid_until: Mutex<Duration>,
}

impl Bucket {
    /// Charges `length` bytes and waits until all charged before are paid for.
    async fn take(&self, length: u64) {
        let (now, start) = {
            let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
            let now = self.wait.passed();
            let start = (*paid_until).max(now);
            *paid_until = start + self.price(length);
            (now, start)
        };
        if start > now {
            self.wait.sleep(start - now).await;
        }
    }

    fn price(&self, length: u64) -> Duration {
        let nanoseconds = u128::from(length) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

async fn take(bucket: Option<&Bucket>, length: u64) {
    if let Some(bucket) = bucket {
        bucket.take(length).await;
    }
}

#[async_trait]
impl Store for Limited {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        take(self.up.as_ref(), bytes.len() as u64).await;
        self.inner.put_new(name, bytes).await
    }

    async fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError> {
        // How long it is shows only when it is there: it is charged afterwards.
        take(self.down.as_ref(), 0).await;
        let bytes = self.inner.get(name, size_max).await?;
        take(self.down.as_ref(), bytes.len() as u64).await;
        Ok(bytes)
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        take(self.down.as_ref(), range.end.saturating_sub(range.start)).await;
        self.inner.get_range(name, range).await
    }

    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.inner.size(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        self.inner.delete(name).await
    }

    async fn sweep(&self, older_than: Duration) -> Result<u64, StoreError> {
        self.inner.sweep(older_than).await
    }

    fn counts(&self) -> RequestCounts {
        self.inner.counts()
    }
}
