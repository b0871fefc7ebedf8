//! Counting what a store is asked.
//!
//! Holds: each call counts once, whatever came of it; bytes count when they arrived, and on the way up when they were
//! handed over. Stands inside [`super::retry::Retried`], so that every try counts.
//! Does not: see the pages of a listing or requests for credentials.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Capabilities, Deletion, ObjectInfo, ObjectName, RequestCounts, Store, StoreError};

/// A store that counts.
#[derive(Debug)]
pub struct Counted {
    inner: Arc<dyn Store>,
    puts: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    heads: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

impl Counted {
    /// Counts what `inner` is asked from now on.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        let zero = AtomicU64::default;
        Self {
            inner,
            puts: zero(),
            gets: zero(),
            lists: zero(),
            deletes: zero(),
            heads: zero(),
            bytes_up: zero(),
            bytes_down: zero(),
        }
    }

    fn down(&self, answer: Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
        answer.inspect(|bytes| add(&self.bytes_down, bytes.len() as u64))
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

#[async_trait]
impl Store for Counted {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        add(&self.puts, 1);
        add(&self.bytes_up, bytes.len() as u64);
        self.inner.put_new(name, bytes).await
    }

    async fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError> {
        add(&self.gets, 1);
        self.down(self.inner.get(name, size_max).await)
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        add(&self.gets, 1);
        self.down(self.inner.get_range(name, range).await)
    }

    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        add(&self.heads, 1);
        self.inner.size(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        add(&self.lists, 1);
        self.inner.list(prefix).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        add(&self.deletes, 1);
        self.inner.delete(name).await
    }

    async fn sweep(&self, older_than: Duration) -> Result<u64, StoreError> {
        self.inner.sweep(older_than).await
    }

    fn counts(&self) -> RequestCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RequestCounts {
            puts: read(&self.puts),
            gets: read(&self.gets),
            lists: read(&self.lists),
            deletes: read(&self.deletes),
            heads: read(&self.heads),
            bytes_up: read(&self.bytes_up),
            bytes_down: read(&self.bytes_down),
            ..self.inner.counts()
        }
    }
}
