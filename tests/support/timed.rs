//! A store in memory whose clock the test sets, and the same clock for the machine.

// Each test target uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use infrahub_backup::env::Clock;
use infrahub_backup::storage::{Capabilities, Deletion, ObjectInfo, ObjectName, Store, StoreError};
use jiff::{SignedDuration, Timestamp};

/// A clock that stands until it is moved.
#[derive(Debug, Clone)]
pub struct TestClock(Arc<Mutex<Timestamp>>);

impl TestClock {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new("2026-01-01T00:00:00Z".parse().expect("a moment"))))
    }

    /// Another clock that shows the same time.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.now())))
    }

    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().expect("no test panics here");
        *now += SignedDuration::try_from(by).expect("a short time");
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().expect("no test panics here")
    }
}

/// Objects with the time at which they were put.
#[derive(Debug)]
pub struct TimedStore {
    clock: TestClock,
    objects: Mutex<BTreeMap<ObjectName, (Bytes, Timestamp)>>,
}

impl TimedStore {
    pub fn new(clock: &TestClock) -> Self {
        Self { clock: clock.clone(), objects: Mutex::default() }
    }

    /// The same objects, as a store whose clock is another one.
    pub fn at_clock(&self, clock: &TestClock) -> Arc<Self> {
        let objects = self.objects.lock().expect("no test panics here").clone();
        Arc::new(Self { clock: clock.clone(), objects: Mutex::new(objects) })
    }

    /// Names of all objects below a folder.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let objects = self.objects.lock().expect("no test panics here");
        objects.keys().map(ToString::to_string).filter(|name| name.starts_with(folder)).collect()
    }

    /// Puts other bytes in the place of an object, which keeps its time: as a disk does that rots.
    pub fn overwrite(&self, name: &ObjectName, bytes: Bytes) {
        let mut objects = self.objects.lock().expect("no test panics here");
        objects.get_mut(name).expect("the object is there").0 = bytes;
    }

    /// Bytes of all objects below a folder.
    pub fn bytes(&self, folder: &str) -> u64 {
        let objects = self.objects.lock().expect("no test panics here");
        objects
            .iter()
            .filter(|(name, _)| name.as_str().starts_with(folder))
            .map(|(_, (bytes, _))| bytes.len() as u64)
            .sum()
    }

    fn missing(name: &ObjectName) -> StoreError {
        StoreError::NotFound { name: name.clone(), location: "timed".to_owned() }
    }
}

#[async_trait]
impl Store for TimedStore {
    fn location(&self) -> String {
        "timed".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        infrahub_backup::storage::object::RemoteStore::memory().capabilities()
    }

    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let mut objects = self.objects.lock().expect("no test panics here");
        if objects.contains_key(name) {
            return Err(StoreError::AlreadyExists { name: name.clone(), location: "timed".to_owned() });
        }
        objects.insert(name.clone(), (bytes, self.clock.now()));
        Ok(())
    }

    async fn get(&self, name: &ObjectName, _size_max: u64) -> Result<Bytes, StoreError> {
        let objects = self.objects.lock().expect("no test panics here");
        objects.get(name).map(|(bytes, _)| bytes.clone()).ok_or_else(|| Self::missing(name))
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.get(name, u64::MAX).await?;
        let (start, end) = (usize::try_from(range.start).expect("small"), usize::try_from(range.end).expect("small"));
        let (size, location) = (bytes.len() as u64, "timed".to_owned());
        if end > bytes.len() {
            return Err(StoreError::TooShort { name: name.clone(), location, size, end: range.end });
        }
        Ok(bytes.slice(start..end))
    }

    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        Ok(self.get(name, u64::MAX).await?.len() as u64)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let objects = self.objects.lock().expect("no test panics here");
        let below = |name: &str| prefix.is_empty() || name.starts_with(&format!("{}/", prefix.trim_end_matches('/')));
        let info = |(name, (bytes, at)): (&ObjectName, &(Bytes, Timestamp))| ObjectInfo {
            name: name.clone(),
            size: bytes.len() as u64,
            modified: *at,
        };
        Ok(objects.iter().filter(|(name, _)| below(name.as_str())).map(info).collect())
    }

    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        self.objects.lock().expect("no test panics here").remove(name);
        Ok(Deletion::Gone)
    }
}
