//! Where objects are kept: names and bytes, nothing about their meaning.
//!
//! A [`Store`] keeps immutable objects. The repository needs six things of it: put if absent, get, ranged get, size,
//! list and delete. Names are chosen by the caller and never reused; an object is never overwritten.
//!
//! Holds for every store: when [`Store::put_new`] returns, the object is durable and listed; a put that did not return
//! left either the whole object or nothing under that name.
//! Does not: retry (a wrapper does), know formats, keep secrets.

pub mod answer;
pub mod bucket;
pub mod count;
pub mod http;
pub mod limit;
pub mod local;
pub mod object;
pub mod probe;
pub mod remote;
pub mod retry;
pub mod upload;
pub mod wait;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

pub use crate::id::ObjectName;

/// What a listing tells of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub name: ObjectName,
    /// Its length in bytes, as stored.
    pub size: u64,
    /// When the store says it came to be, by the store's clock.
    pub modified: Timestamp,
}

/// What a store can do beyond the contract, declared and not guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Puts that pay to run at the same time.
    pub concurrency: usize,
    /// Whether of several puts of one name at once exactly one wins. Declared by whoever knows the service; what a
    /// service really does is found out by a probe.
    pub create_only: bool,
    /// Whether objects outlive the process.
    pub durable: bool,
}

/// What became of an object that was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is no more, or never was.
    Gone,
    /// It is not listed any more, but a bucket that keeps versions still has it and its space is not free.
    Hidden {
        /// Until when the bucket refuses to remove it, by the store's clock, where that is known.
        until: Option<Timestamp>,
    },
}

/// What a store was asked since it was opened. Each try counts, also one that got no answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Puts.
    pub puts: u64,
    /// Gets, whole or of a range.
    pub gets: u64,
    /// Listings, each of any number of pages.
    pub lists: u64,
    /// Deletes.
    pub deletes: u64,
    /// Questions for the size of an object.
    pub heads: u64,
    /// How many of these repeated one that got no answer.
    pub retries: u64,
    /// Bytes of objects sent.
    pub bytes_up: u64,
    /// Bytes of objects received.
    pub bytes_down: u64,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("object `{name}` is not in {location}")]
    NotFound {
        /// The object asked for.
        name: ObjectName,
        /// The store, as a person knows it.
        location: String,
    },
    /// [`Store::put_new`] found the name taken.
    #[error("object `{name}` is already in {location}")]
    AlreadyExists {
        /// The object to be put.
        name: ObjectName,
        /// The store, as a person knows it.
        location: String,
    },
    /// The object ends before the asked range does.
    #[error("object `{name}` in {location} has {size} bytes, fewer than the {end} asked for")]
    TooShort {
        /// The object asked for.
        name: ObjectName,
        /// The store, as a person knows it.
        location: String,
        /// Its length in bytes.
        size: u64,
        /// The end of the range asked for.
        end: u64,
    },
    /// The store is full.
    #[error("no space is left in {location} to {action} `{name}`")]
    NoSpace {
        /// What was to be done, as a verb.
        action: &'static str,
        /// The object or folder.
        name: String,
        /// The store, as a person knows it.
        location: String,
    },
    /// The store may not be changed.
    #[error("{location} may not be written: `{name}`")]
    ReadOnly {
        /// The object or folder.
        name: String,
        /// The store, as a person knows it.
        location: String,
        /// The refusal itself.
        #[source]
        source: std::io::Error,
    },
    /// The store could not be reached, was busy, or broke off. The same may succeed a moment later; whether a change was
    /// made is not known.
    #[error("{location} gave no answer when asked to {action} `{name}`")]
    NoAnswer {
        /// What was to be done, as a verb.
        action: &'static str,
        /// The object or folder.
        name: String,
        /// The store, as a person knows it.
        location: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Anything else.
    #[error("{location} did not {action} `{name}`")]
    Io {
        /// What was to be done, as a verb.
        action: &'static str,
        /// The object or folder.
        name: String,
        /// The store, as a person knows it.
        location: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl StoreError {
    /// Whether the object was simply not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the same may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer { .. } => true,
            Self::NotFound { .. }
            | Self::AlreadyExists { .. }
            | Self::TooShort { .. }
            | Self::NoSpace { .. }
            | Self::ReadOnly { .. }
            | Self::Io { .. } => false,
        }
    }
}

/// Keeps immutable objects by name. Implementations pass `tests/store_contract.rs`.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// How a person names this store, without secrets.
    fn location(&self) -> String;

    /// What it can do beyond the contract.
    fn capabilities(&self) -> Capabilities;

    /// Keeps `bytes` under a name that is not taken; durable and listed on return.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if the name is taken; the object there is untouched.
    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError>;

    /// The whole object; refused if longer than `size_max` bytes.
    async fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError>;

    /// Exactly the bytes of `range`; [`StoreError::TooShort`] if the object ends before.
    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Length in bytes.
    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError>;

    /// All objects below the folder `prefix` (`""`: all), in no particular order. A folder that is not there is empty.
    /// What is not a valid [`ObjectName`] is left out.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError>;

    /// Removes an object; not there counts as removed. Durable on return. A bucket that keeps versions only hides it.
    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError>;

    /// Removes what killed puts left behind and nobody has written to for `older_than`; says how many files. Stores that keep
    /// no such files have nothing to do.
    async fn sweep(&self, _older_than: Duration) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// What it was asked so far. A store that nobody counts for says zero.
    fn counts(&self) -> RequestCounts {
        RequestCounts::default()
    }
}
