//! What the wrappers around a store promise: asking again, limits, counts. The store inside does as its script says, and
//! time passes only when somebody sleeps.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use infrahub_backup::env::{Entropy, SystemEntropy};
use infrahub_backup::storage::count::Counted;
use infrahub_backup::storage::limit::{Limited, Limits};
use infrahub_backup::storage::object::RemoteStore;
use infrahub_backup::storage::retry::{Patience, Retried};
use infrahub_backup::storage::wait::Wait;
use infrahub_backup::storage::{Capabilities, Deletion, ObjectInfo, ObjectName, Store, StoreError};

/// What happens to one request.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Nothing.
    None,
    /// It never arrives.
    Lost,
    /// It is done, but nobody hears of it.
    AnswerLost,
    /// It is done, but the body of the answer ends early.
    ShortBody,
    /// It is refused for a reason that stays.
    Refused,
}

/// A store whose requests meet one fault after the other.
#[derive(Debug)]
struct Scripted {
    inner: RemoteStore,
    faults: Mutex<VecDeque<Fault>>,
}

impl Scripted {
    fn new(faults: impl IntoIterator<Item = Fault>) -> Arc<Self> {
        Arc::new(Self { inner: RemoteStore::memory(), faults: Mutex::new(faults.into_iter().collect()) })
    }

    async fn meet<'a, T>(&self, name: &str, done: BoxFuture<'a, Result<T, StoreError>>) -> Result<T, StoreError> {
        let fault = self.faults.lock().unwrap().pop_front().unwrap_or(Fault::None);
        let no_answer = |kind: io::ErrorKind| StoreError::NoAnswer {
            action: "answer",
            name: name.to_owned(),
            location: self.location(),
            source: kind.into(),
        };
        match fault {
            Fault::None => done.await,
            Fault::Lost => Err(no_answer(io::ErrorKind::ConnectionRefused)),
            Fault::AnswerLost => {
                // Done, with whatever came of it.
                let _ = done.await;
                Err(no_answer(io::ErrorKind::ConnectionReset))
            }
            Fault::ShortBody => {
                done.await?;
                Err(no_answer(io::ErrorKind::UnexpectedEof))
            }
            Fault::Refused => Err(StoreError::ReadOnly {
                name: name.to_owned(),
                location: self.location(),
                source: io::ErrorKind::PermissionDenied.into(),
            }),
        }
    }

    fn faults_left(&self) -> usize {
        self.faults.lock().unwrap().len()
    }
}

#[async_trait]
impl Store for Scripted {
    fn location(&self) -> String {
        "scripted".to_owned()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        self.meet(name.as_str(), self.inner.put_new(name, bytes)).await
    }
    async fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError> {
        self.meet(name.as_str(), self.inner.get(name, size_max)).await
    }
    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.meet(name.as_str(), self.inner.get_range(name, range)).await
    }
    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.meet(name.as_str(), self.inner.size(name)).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.meet(prefix, self.inner.list(prefix)).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        self.meet(name.as_str(), self.inner.delete(name)).await
    }
}

/// Time that passes only by sleeping, and what was slept.
#[derive(Debug, Default)]
struct Slept(Mutex<Vec<Duration>>);

impl Wait for Slept {
    fn passed(&self) -> Duration {
        self.0.lock().unwrap().iter().sum()
    }
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.0.lock().unwrap().push(time);
        Box::pin(std::future::ready(()))
    }
}

/// Entropy of one byte over and over.
struct Same(u8);

impl Entropy for Same {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}

struct Lab {
    scripted: Arc<Scripted>,
    store: Retried,
    slept: Arc<Slept>,
}

/// Retries over counts over the script, the store having answered once.
async fn lab(faults: impl IntoIterator<Item = Fault>, entropy: Arc<dyn Entropy>) -> Lab {
    let scripted = Scripted::new(std::iter::once(Fault::None).chain(faults));
    let slept = Arc::new(Slept::default());
    let counted = Arc::new(Counted::new(scripted.clone()));
    let store = Retried::new(counted, Patience::default(), entropy, slept.clone());
    store.list("").await.unwrap();
    Lab { scripted, store, slept }
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text)
}

#[tokio::test]
async fn a_request_that_got_no_answer_is_asked_again_until_it_gets_one() {
    let Lab { store, slept, .. } = lab([Fault::Lost, Fault::Lost, Fault::Lost], Arc::new(SystemEntropy)).await;
    store.put_new(&name("packs/one"), Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(slept.0.lock().unwrap().len(), 3);
    // Twice it is asked in vain whether the put was done after all; then it is not there, and put.
    assert_eq!((store.counts().puts, store.counts().gets, store.counts().retries), (2, 3, 3));
}

#[tokio::test]
async fn every_kind_of_request_is_asked_again() {
    let none = Fault::None;
    let faults = [none, Fault::Lost, none, Fault::Lost, none, Fault::Lost, none, Fault::Lost, none, Fault::Lost, none];
    let Lab { store, scripted, .. } = lab(faults, Arc::new(SystemEntropy)).await;
    let one = name("packs/one");
    store.put_new(&one, Bytes::from_static(b"bytes")).await.unwrap();
    assert_eq!(store.get(&one, 5).await.unwrap(), "bytes");
    assert_eq!(store.get_range(&one, 1..3).await.unwrap(), "yt");
    assert_eq!(store.size(&one).await.unwrap(), 5);
    assert_eq!(store.list("packs").await.unwrap().len(), 1);
    assert_eq!(store.delete(&one).await.unwrap(), Deletion::Gone);
    assert_eq!(scripted.faults_left(), 0);
    let counts = store.counts();
    assert_eq!((counts.puts, counts.gets, counts.heads, counts.lists, counts.deletes), (1, 4, 2, 3, 2));
    assert_eq!((counts.retries, counts.bytes_up, counts.bytes_down), (5, 5, 7));
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_is_done_if_the_bytes_are_there() {
    let Lab { store, .. } = lab([Fault::AnswerLost], Arc::new(SystemEntropy)).await;
    store.put_new(&name("marks/1"), Bytes::from_static(b"mine")).await.unwrap();
    // Not sent again: a server that has it may close before it read the bytes, each time.
    assert_eq!(store.counts().puts, 1);
    assert_eq!(store.get(&name("marks/1"), 10).await.unwrap(), "mine");
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_to_another_writer_is_refused() {
    for other in [&b"his"[..], b"hers", b"longer than mine"] {
        let Lab { store, scripted, .. } = lab([Fault::Lost], Arc::new(SystemEntropy)).await;
        scripted.inner.put_new(&name("marks/1"), Bytes::copy_from_slice(other)).await.unwrap();
        let refused = store.put_new(&name("marks/1"), Bytes::from_static(b"mine")).await;
        assert!(matches!(refused, Err(StoreError::AlreadyExists { .. })), "{refused:?}");
        assert_eq!(scripted.inner.get(&name("marks/1"), 100).await.unwrap(), other);
    }
}

#[tokio::test]
async fn a_name_taken_before_the_first_try_is_refused_even_with_the_same_bytes() {
    let Lab { store, scripted, .. } = lab([], Arc::new(SystemEntropy)).await;
    scripted.inner.put_new(&name("marks/1"), Bytes::from_static(b"mine")).await.unwrap();
    let refused = store.put_new(&name("marks/1"), Bytes::from_static(b"mine")).await;
    assert!(matches!(refused, Err(StoreError::AlreadyExists { .. })), "{refused:?}");
    assert_eq!(store.counts().gets, 0);
}

#[tokio::test]
async fn a_read_back_that_gets_no_answer_or_a_short_body_is_read_again() {
    for fault in [Fault::Lost, Fault::ShortBody] {
        // The put is done, its answer lost; reading back fails once.
        let Lab { store, .. } = lab([Fault::AnswerLost, fault], Arc::new(SystemEntropy)).await;
        store.put_new(&name("marks/1"), Bytes::from_static(b"mine")).await.unwrap();
        assert_eq!(store.counts().gets, 2, "{fault:?}");
    }
}

#[tokio::test]
async fn a_short_body_is_read_again() {
    let Lab { store, .. } = lab([Fault::None, Fault::ShortBody, Fault::ShortBody], Arc::new(SystemEntropy)).await;
    store.put_new(&name("packs/one"), Bytes::from_static(b"bytes")).await.unwrap();
    assert_eq!(store.get(&name("packs/one"), 5).await.unwrap(), "bytes");
    assert_eq!(store.counts().bytes_down, 5);
}

#[tokio::test]
async fn what_is_refused_for_a_reason_is_not_asked_again() {
    let Lab { store, slept, .. } = lab([Fault::Refused], Arc::new(SystemEntropy)).await;
    let refused = store.put_new(&name("packs/one"), Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(StoreError::ReadOnly { .. })), "{refused:?}");
    assert!(slept.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn patience_ends_with_the_last_error() {
    let Lab { store, slept, .. } = lab([Fault::Lost; 100], Arc::new(SystemEntropy)).await;
    let error = store.size(&name("packs/one")).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(slept.0.lock().unwrap().len(), 15);
    assert_eq!(store.counts().heads, 16);
}

#[tokio::test]
async fn no_try_begins_after_the_total_time() {
    let faults = [Fault::Lost; 1000];
    let patience = Patience { tries: 1000, total: Duration::from_secs(100), ..Patience::default() };
    let slept = Arc::new(Slept::default());
    let scripted = Scripted::new(std::iter::once(Fault::None).chain(faults));
    let store = Retried::new(scripted, patience, Arc::new(Same(0xff)), slept.clone());
    store.list("").await.unwrap();
    store.size(&name("packs/one")).await.unwrap_err();
    assert!(slept.passed() < Duration::from_secs(100), "{:?}", slept.passed());
    assert!(slept.passed() > Duration::from_secs(75), "{:?}", slept.passed());
}

#[tokio::test]
async fn a_store_that_never_answered_is_given_up_sooner() {
    let slept = Arc::new(Slept::default());
    let store =
        Retried::new(Scripted::new([Fault::Lost; 100]), Patience::default(), Arc::new(Same(0xff)), slept.clone());
    store.list("").await.unwrap_err();
    assert_eq!(slept.0.lock().unwrap().len(), 5);
    assert!(slept.passed() < Duration::from_secs(7), "{:?}", slept.passed());
}

#[tokio::test]
async fn pauses_are_anything_below_a_bound_that_doubles_up_to_its_end() {
    let Lab { store, slept, .. } = lab([Fault::Lost; 100], Arc::new(Same(0xff))).await;
    store.size(&name("packs/one")).await.unwrap_err();
    let bounds: Vec<u128> = slept.0.lock().unwrap().iter().map(|pause| (pause.as_nanos() + 1) / 1_000_000).collect();
    assert_eq!(
        bounds,
        [200, 400, 800, 1600, 3200, 6400, 12800, 20000, 20000, 20000, 20000, 20000, 20000, 20000, 20000]
    );

    let Lab { store, slept, .. } = lab([Fault::Lost; 3], Arc::new(Same(0))).await;
    store.list("").await.unwrap();
    assert_eq!(slept.passed(), Duration::ZERO);
}

#[tokio::test]
async fn bytes_up_take_the_time_that_the_limit_says() {
    let slept = Arc::new(Slept::default());
    let limits = Limits { up: Some(1000), down: None };
    let store = Limited::new(Arc::new(RemoteStore::memory()), limits, slept.clone());
    for i in 0..5 {
        store.put_new(&name(&format!("packs/{i}")), Bytes::from(vec![0; 2000])).await.unwrap();
    }
    // The last one is not paid for yet.
    assert_eq!(slept.passed(), Duration::from_secs(8));
    store.get(&name("packs/0"), 2000).await.unwrap();
    assert_eq!(slept.passed(), Duration::from_secs(8));
}

#[tokio::test]
async fn bytes_down_take_the_time_that_the_limit_says() {
    let slept = Arc::new(Slept::default());
    let inner = Arc::new(RemoteStore::memory());
    inner.put_new(&name("packs/one"), Bytes::from(vec![0; 3000])).await.unwrap();
    let store = Limited::new(inner, Limits { up: None, down: Some(1000) }, slept.clone());
    store.get_range(&name("packs/one"), 0..3000).await.unwrap();
    assert_eq!(slept.passed(), Duration::ZERO);
    store.get(&name("packs/one"), 3000).await.unwrap();
    assert_eq!(slept.passed(), Duration::from_secs(3));
    store.get_range(&name("packs/one"), 0..1).await.unwrap();
    assert_eq!(slept.passed(), Duration::from_secs(6));
}

#[tokio::test]
async fn a_limit_is_made_up_for_by_no_idle_time() {
    let slept = Arc::new(Slept::default());
    let store = Limited::new(Arc::new(RemoteStore::memory()), Limits { up: Some(1000), down: None }, slept.clone());
    slept.sleep(Duration::from_secs(3600)).await;
    for i in 0..3 {
        store.put_new(&name(&format!("packs/{i}")), Bytes::from(vec![0; 1000])).await.unwrap();
    }
    assert_eq!(slept.passed(), Duration::from_secs(3602));
}
