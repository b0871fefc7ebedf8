//! What every store promises: checks that take a store and know nothing of its kind.
//!
//! [`for_all_checks`] hands their names to a macro, which makes a test of each for its store.

// Each test target uses a part of this.
#![allow(dead_code)]

use std::sync::Arc;

use bytes::Bytes;
use infrahub_backup::storage::{ObjectName, Store, StoreError};
use jiff::{SignedDuration, Timestamp};

/// A fresh store.
pub type Checked = Arc<dyn Store>;

/// A name.
pub fn name(text: &str) -> ObjectName {
    ObjectName::new(text)
}

/// The names of all objects below `prefix`, in order.
pub async fn names_below(store: &dyn Store, prefix: &str) -> Vec<String> {
    let mut names: Vec<_> = store.list(prefix).await.unwrap().into_iter().map(|info| info.name.to_string()).collect();
    names.sort();
    names
}

/// Puts an object, which must not be there.
pub async fn put(store: &dyn Store, object: &str, bytes: &'static [u8]) {
    store.put_new(&name(object), Bytes::from_static(bytes)).await.unwrap();
}

/// Calls `$make!($($extra)* | names of all checks)`.
macro_rules! for_all_checks {
    ($make:ident $($extra:tt)*) => {
        $make! { $($extra)*
            what_is_put_is_got
            an_empty_object_is_an_object
            a_large_object_comes_back_whole
            a_taken_name_is_refused_and_keeps_its_bytes
            of_sixteen_puts_of_one_name_one_wins
            a_range_is_exact
            an_empty_range_is_empty
            a_range_past_the_end_is_too_short
            an_object_above_the_size_limit_is_refused
            an_object_at_the_size_limit_is_read
            an_object_that_is_not_there_is_not_found
            size_is_the_length_in_bytes
            a_listing_is_of_one_folder_and_below
            a_folder_that_is_not_there_lists_nothing
            a_listing_tells_size_and_time
            a_deleted_object_is_gone_and_can_be_deleted_again
            the_location_names_the_store
        }
    };
}
pub(crate) use for_all_checks;

pub async fn what_is_put_is_got(store: Checked) {
    put(&*store, "packs/ab/cd", b"bytes").await;
    assert_eq!(store.get(&name("packs/ab/cd"), 100).await.unwrap(), "bytes");
}

pub async fn an_empty_object_is_an_object(store: Checked) {
    put(&*store, "marks/1", b"").await;
    assert_eq!(store.get(&name("marks/1"), 0).await.unwrap(), "");
    assert_eq!(names_below(&*store, "").await, ["marks/1"]);
}

pub async fn a_large_object_comes_back_whole(store: Checked) {
    let bytes: Bytes = (0..5_000_000_u32).map(|i| (i % 251) as u8).collect();
    store.put_new(&name("packs/large"), bytes.clone()).await.unwrap();
    assert!(store.get(&name("packs/large"), 5_000_000).await.unwrap() == bytes);
}

pub async fn a_taken_name_is_refused_and_keeps_its_bytes(store: Checked) {
    put(&*store, "config/1", b"old").await;
    let refused = store.put_new(&name("config/1"), Bytes::from_static(b"new")).await;
    assert!(matches!(refused, Err(StoreError::AlreadyExists { .. })), "{refused:?}");
    assert_eq!(store.get(&name("config/1"), 100).await.unwrap(), "old");
}

pub async fn of_sixteen_puts_of_one_name_one_wins(store: Checked) {
    let puts = (0..16_u8).map(|i| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.put_new(&name("leases/run/1"), Bytes::from(vec![i; 4096])).await })
    });
    let mut winners = Vec::new();
    for (i, put) in puts.collect::<Vec<_>>().into_iter().enumerate() {
        match put.await.unwrap() {
            Ok(()) => winners.push(i as u8),
            Err(StoreError::AlreadyExists { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(store.get(&name("leases/run/1"), 4096).await.unwrap(), vec![winners[0]; 4096]);
}

pub async fn a_range_is_exact(store: Checked) {
    put(&*store, "packs/one", b"0123456789").await;
    for (range, expected) in [(0..10, "0123456789"), (0..1, "0"), (3..7, "3456"), (9..10, "9")] {
        assert_eq!(store.get_range(&name("packs/one"), range).await.unwrap(), expected);
    }
}

pub async fn an_empty_range_is_empty(store: Checked) {
    put(&*store, "packs/one", b"0123456789").await;
    for at in [0, 5, 10] {
        assert_eq!(store.get_range(&name("packs/one"), at..at).await.unwrap(), "");
    }
}

pub async fn a_range_past_the_end_is_too_short(store: Checked) {
    put(&*store, "packs/one", b"0123456789").await;
    for range in [0..11, 9..11, 10..11, 20..30, 11..11, 0..u64::MAX] {
        let answer = store.get_range(&name("packs/one"), range.clone()).await;
        let expected = range.end;
        assert!(
            matches!(answer, Err(StoreError::TooShort { size: 10, end, .. }) if end == expected),
            "{range:?}: {answer:?}"
        );
    }
}

pub async fn an_object_above_the_size_limit_is_refused(store: Checked) {
    put(&*store, "packs/one", b"0123456789").await;
    let refused = store.get(&name("packs/one"), 9).await;
    assert!(
        matches!(&refused, Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::FileTooLarge),
        "{refused:?}"
    );
}

pub async fn an_object_at_the_size_limit_is_read(store: Checked) {
    put(&*store, "packs/one", b"0123456789").await;
    assert_eq!(store.get(&name("packs/one"), 10).await.unwrap(), "0123456789");
}

pub async fn an_object_that_is_not_there_is_not_found(store: Checked) {
    put(&*store, "packs/one", b"0123456789").await;
    // A folder is no object, and nothing lies below an object.
    for absent in ["two", "packs/two", "packs/two/three", "packs", "packs/one/two"] {
        let absent = name(absent);
        assert!(store.get(&absent, 100).await.unwrap_err().is_not_found(), "get {absent}");
        assert!(store.get_range(&absent, 0..1).await.unwrap_err().is_not_found(), "get_range {absent}");
        assert!(store.get_range(&absent, 1..1).await.unwrap_err().is_not_found(), "empty get_range {absent}");
        assert!(store.size(&absent).await.unwrap_err().is_not_found(), "size {absent}");
    }
}

pub async fn size_is_the_length_in_bytes(store: Checked) {
    put(&*store, "packs/one", b"0123456789").await;
    assert_eq!(store.size(&name("packs/one")).await.unwrap(), 10);
}

pub async fn a_listing_is_of_one_folder_and_below(store: Checked) {
    for object in ["top", "packs/ab/1", "packs/cd/2", "packs/3", "packs-not/4"] {
        put(&*store, object, b"x").await;
    }
    assert_eq!(names_below(&*store, "packs").await, ["packs/3", "packs/ab/1", "packs/cd/2"]);
    assert_eq!(names_below(&*store, "packs/").await, ["packs/3", "packs/ab/1", "packs/cd/2"]);
    assert_eq!(names_below(&*store, "packs/ab").await, ["packs/ab/1"]);
    assert_eq!(names_below(&*store, "").await, ["packs-not/4", "packs/3", "packs/ab/1", "packs/cd/2", "top"]);
}

pub async fn a_folder_that_is_not_there_lists_nothing(store: Checked) {
    put(&*store, "packs/one", b"x").await;
    for prefix in ["indexes", "pack", "packs/o", "packs/one", "packs/two", "..", "../x", "/", "//", "PACKS", "a//b"] {
        let expected: &[&str] = if prefix.trim_end_matches('/').is_empty() { &["packs/one"] } else { &[] };
        assert_eq!(names_below(&*store, prefix).await, expected, "{prefix}");
    }
}

pub async fn a_listing_tells_size_and_time(store: Checked) {
    put(&*store, "packs/one", b"0123456789").await;
    let listed = store.list("").await.unwrap();
    let age = Timestamp::now().duration_since(listed[0].modified);
    assert_eq!(listed[0].size, 10);
    assert!(age.abs() < SignedDuration::from_secs(60), "{age:?}");
}

pub async fn a_deleted_object_is_gone_and_can_be_deleted_again(store: Checked) {
    put(&*store, "packs/one", b"x").await;
    put(&*store, "packs/two", b"x").await;
    for _ in 0..2 {
        store.delete(&name("packs/one")).await.unwrap();
    }
    store.delete(&name("never/there")).await.unwrap();
    assert!(store.get(&name("packs/one"), 1).await.unwrap_err().is_not_found());
    assert_eq!(names_below(&*store, "").await, ["packs/two"]);
}

pub async fn the_location_names_the_store(store: Checked) {
    let error = store.get(&name("packs/one"), 1).await.unwrap_err();
    assert!(!store.location().is_empty());
    assert!(error.to_string().contains(&store.location()), "{error}");
}
