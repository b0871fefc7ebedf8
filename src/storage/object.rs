//! A store over the `object_store` crate: in memory, S3 and its kin, Google, Azure.
//!
//! Holds: a put is create-only by the service's own condition, never by looking first. What a service answers is
//! measured before it is believed: a body longer than announced is cut off, a shorter one is an error. No error tells a
//! secret. Does not: retry, know buckets or credentials; whoever builds the inner store does ([`super::remote`]).

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
};

use super::answer::{Meaning, Unspeakable, meaning};
use super::http::{PutBody, with_remarks};
use super::{Capabilities, Deletion, ObjectInfo, ObjectName, Store, StoreError};

/// Puts that pay to run at the same time: each waits for a round trip, and holds up to one pack in memory.
const CONCURRENCY: usize = 4;

/// A store kept by an object service.
#[derive(Clone)]
pub struct RemoteStore {
    inner: Arc<dyn ObjectStore>,
    location: String,
    durable: bool,
    unspeakable: Unspeakable,
    /// Whether a delete of this process really removed something: then the bucket keeps no versions.
    removes: Arc<AtomicBool>,
}

impl RemoteStore {
    /// Takes a service that keeps objects beyond this process. `location` is for people and holds no secret; what is
    /// `unspeakable` is taken out of every error's text.
    pub fn new(inner: Arc<dyn ObjectStore>, location: impl Into<String>, unspeakable: Unspeakable) -> Self {
        Self { inner, location: location.into(), durable: true, unspeakable, removes: Arc::default() }
    }

    /// A store that lives as long as its last clone.
    pub fn memory() -> Self {
        Self { durable: false, ..Self::new(Arc::new(InMemory::new()), "memory", Unspeakable::default()) }
    }

    fn path_of(&self, action: &'static str, name: &ObjectName) -> Result<Path, StoreError> {
        Path::parse(name.as_str()).map_err(|error| self.io_error(action, name.as_str(), io::Error::other(error)))
    }

    async fn open(&self, name: &ObjectName, options: GetOptions) -> Result<Result<GetResult, Error>, StoreError> {
        let path = self.path_of("read", name)?;
        match self.inner.get_opts(&path, options).await {
            Err(Error::NotFound { .. }) => {
                Err(StoreError::NotFound { name: name.clone(), location: self.location.clone() })
            }
            answer => Ok(answer),
        }
    }

    /// The whole body, which must have exactly `length` bytes.
    async fn body(&self, name: &ObjectName, answer: GetResult, length: u64) -> Result<Bytes, StoreError> {
        let mut stream = answer.into_stream();
        let mut body = BytesMut::new();
        while let Some(piece) =
            stream.try_next().await.map_err(|error| self.read_error("read", name.as_str(), &error))?
        {
            // A body in one piece, as from memory, need not be copied.
            if body.is_empty() && piece.len() as u64 == length {
                return Ok(piece);
            }
            body.extend_from_slice(&piece);
            if body.len() as u64 > length {
                let source = io::Error::new(io::ErrorKind::InvalidData, "more bytes came than were announced");
                return Err(self.io_error("read", name.as_str(), source));
            }
        }
        if body.len() as u64 == length {
            Ok(body.freeze())
        } else {
            Err(self.no_answer("read", name.as_str(), io::ErrorKind::UnexpectedEof.into()))
        }
    }

    fn too_short(&self, name: &ObjectName, size: u64, end: u64) -> StoreError {
        StoreError::TooShort { name: name.clone(), location: self.location.clone(), size, end }
    }

    fn io_error(&self, action: &'static str, name: &str, source: io::Error) -> StoreError {
        StoreError::Io { action, name: name.to_owned(), location: self.location.clone(), source }
    }

    fn no_answer(&self, action: &'static str, name: &str, source: io::Error) -> StoreError {
        StoreError::NoAnswer { action, name: name.to_owned(), location: self.location.clone(), source }
    }

    fn read_error(&self, action: &'static str, name: &str, error: &Error) -> StoreError {
        match meaning(error, &self.unspeakable) {
            Meaning::MayPass(source) => self.no_answer(action, name, source),
            Meaning::Full => self.io_error(action, name, io::ErrorKind::StorageFull.into()),
            Meaning::Denied(source) | Meaning::Failed(source) => self.io_error(action, name, source),
        }
    }

    fn write_error(&self, action: &'static str, name: &ObjectName, error: &Error) -> StoreError {
        let location = self.location.clone();
        if matches!(error, Error::AlreadyExists { .. }) {
            return StoreError::AlreadyExists { name: name.clone(), location };
        }
        match meaning(error, &self.unspeakable) {
            Meaning::MayPass(source) => self.no_answer(action, name.as_str(), source),
            Meaning::Full => StoreError::NoSpace { action, name: name.to_string(), location },
            Meaning::Denied(source) => StoreError::ReadOnly { name: name.to_string(), location, source },
            Meaning::Failed(source) => self.io_error(action, name.as_str(), source),
        }
    }

    fn info(&self, meta: &ObjectMeta) -> Result<Option<ObjectInfo>, StoreError> {
        let Some(name) = ObjectName::parse(meta.location.as_ref().to_owned()) else {
            return Ok(None);
        };
        let nanoseconds = meta.last_modified.timestamp_subsec_nanos().cast_signed();
        let modified = Timestamp::new(meta.last_modified.timestamp(), nanoseconds)
            .map_err(|error| self.io_error("list", name.as_str(), io::Error::other(error)))?;
        Ok(Some(ObjectInfo { name, size: meta.size, modified }))
    }
}

impl fmt::Debug for RemoteStore {
    /// Without the inner store, whose own form may show how it authenticates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteStore").field("location", &self.location).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for RemoteStore {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { concurrency: CONCURRENCY, create_only: true, durable: self.durable }
    }

    async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path_of("write", name)?;
        let mut options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        options.extensions.insert(PutBody(bytes.clone()));
        let put = self.inner.put_opts(&path, bytes.into(), options).await;
        put.map(|_| ()).map_err(|error| self.write_error("write", name, &error))
    }

    async fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError> {
        let answer = self.open(name, GetOptions::default()).await?;
        let answer = answer.map_err(|error| self.read_error("read", name.as_str(), &error))?;
        let size = answer.meta.size;
        if size > size_max {
            let text = format!("it has {size} bytes, more than the {size_max} allowed");
            return Err(self.io_error("read", name.as_str(), io::Error::new(io::ErrorKind::FileTooLarge, text)));
        }
        self.body(name, answer, size).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let Some(length) = range.end.checked_sub(range.start) else {
            return Err(self.io_error("read", name.as_str(), io::ErrorKind::InvalidInput.into()));
        };
        if length == 0 {
            // Services know no empty range.
            let size = self.size(name).await?;
            return if range.end > size { Err(self.too_short(name, size, range.end)) } else { Ok(Bytes::new()) };
        }
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let answer = match self.open(name, options).await? {
            Ok(answer) => answer,
            // Services refuse a range that begins past the end, each in its own words: the size tells.
            Err(error) => {
                let error = self.read_error("read", name.as_str(), &error);
                if error.is_transient() {
                    return Err(error);
                }
                let size = self.size(name).await?;
                return Err(if range.end > size { self.too_short(name, size, range.end) } else { error });
            }
        };
        if range.end > answer.meta.size {
            return Err(self.too_short(name, answer.meta.size, range.end));
        }
        if answer.range != range {
            let text = format!("bytes {:?} came where {range:?} were asked for", answer.range);
            return Err(self.io_error("read", name.as_str(), io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        self.body(name, answer, length).await
    }

    async fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        let answer = self.open(name, GetOptions { head: true, ..GetOptions::default() }).await?;
        answer.map(|answer| answer.meta.size).map_err(|error| self.read_error("read", name.as_str(), &error))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let folder = prefix.trim_end_matches('/');
        let path = match folder {
            "" => None,
            name if ObjectName::parse(name.to_owned()).is_none() => return Ok(Vec::new()),
            name => Some(Path::from(name)),
        };
        let mut entries = self.inner.list(path.as_ref());
        let mut found = Vec::new();
        while let Some(entry) = entries.next().await {
            let meta = entry.map_err(|error| self.read_error("list", folder, &error))?;
            found.extend(self.info(&meta)?);
        }
        Ok(found)
    }

    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        let path = self.path_of("delete", name)?;
        let delete = async {
            // Only a look before tells until when a version is kept: afterwards the name is gone. A bucket that once
            // removed something keeps no versions and is not asked.
            if !self.removes.load(Ordering::Relaxed) {
                // What the look finds does not matter to the delete.
                let _ = self.inner.head(&path).await;
            }
            self.inner.delete(&path).await
        };
        let (deleted, remarks) = with_remarks(delete).await;
        match deleted {
            Ok(()) if remarks.delete_marker => Ok(Deletion::Hidden { until: remarks.retain_until }),
            Ok(()) => {
                self.removes.store(true, Ordering::Relaxed);
                Ok(Deletion::Gone)
            }
            Err(Error::NotFound { .. }) => Ok(Deletion::Gone),
            Err(error) => Err(self.write_error("delete", name, &error)),
        }
    }
}
