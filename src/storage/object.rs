//! A store over the `object_store` crate: in memory now, S3 and its kin through the same type.
//!
//! Holds: a put is create-only by the service's own condition, never by looking first. What a service answers is
//! measured before it is believed: a body longer than announced is cut off, a shorter one is an error.
//! Does not: retry, know buckets or credentials; whoever builds the inner store does.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
};

use super::{Capabilities, Deletion, ObjectInfo, ObjectName, Store, StoreError};

/// Puts that pay to run at the same time: each waits for a round trip, and holds up to one pack in memory.
const CONCURRENCY: usize = 4;

/// A store kept by an object service.
#[derive(Clone)]
pub struct RemoteStore {
    inner: Arc<dyn ObjectStore>,
    location: String,
    durable: bool,
}

impl RemoteStore {
    /// Takes a service that keeps objects beyond this process. `location` is for people and holds no secret.
    pub fn new(inner: Arc<dyn ObjectStore>, location: impl Into<String>) -> Self {
        Self { inner, location: location.into(), durable: true }
    }

    /// A store that lives as long as its last clone.
    pub fn memory() -> Self {
        Self { inner: Arc::new(InMemory::new()), location: "memory".to_owned(), durable: false }
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

    async fn body(&self, name: &ObjectName, answer: GetResult, length: u64) -> Result<Bytes, StoreError> {
        read_body(answer, length).await.map_err(|source| self.io_error("read", name.as_str(), source))
    }

    fn too_short(&self, name: &ObjectName, size: u64, end: u64) -> StoreError {
        StoreError::TooShort { name: name.clone(), location: self.location.clone(), size, end }
    }

    fn io_error(&self, action: &'static str, name: &str, source: io::Error) -> StoreError {
        StoreError::Io { action, name: name.to_owned(), location: self.location.clone(), source }
    }

    fn read_error(&self, action: &'static str, name: &str, error: Error) -> StoreError {
        self.io_error(action, name, io::Error::other(error))
    }

    fn write_error(&self, action: &'static str, name: &ObjectName, error: Error) -> StoreError {
        let location = self.location.clone();
        match error {
            Error::AlreadyExists { .. } => StoreError::AlreadyExists { name: name.clone(), location },
            Error::PermissionDenied { .. } => {
                let source = io::Error::new(io::ErrorKind::PermissionDenied, error);
                StoreError::ReadOnly { name: name.to_string(), location, source }
            }
            other => self.read_error(action, name.as_str(), other),
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

/// The whole body, which must have exactly `length` bytes.
async fn read_body(answer: GetResult, length: u64) -> io::Result<Bytes> {
    let mut stream = answer.into_stream();
    let mut body = BytesMut::new();
    while let Some(piece) = stream.try_next().await.map_err(io::Error::other)? {
        // A body in one piece, as from memory, need not be copied.
        if body.is_empty() && piece.len() as u64 == length {
            return Ok(piece);
        }
        body.extend_from_slice(&piece);
        if body.len() as u64 > length {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more bytes came than were announced"));
        }
    }
    if body.len() as u64 == length { Ok(body.freeze()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
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
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.inner.put_opts(&path, bytes.into(), options).await;
        put.map(|_| ()).map_err(|error| self.write_error("write", name, error))
    }

    async fn get(&self, name: &ObjectName, size_max: u64) -> Result<Bytes, StoreError> {
        let answer = self.open(name, GetOptions::default()).await?;
        let answer = answer.map_err(|error| self.read_error("read", name.as_str(), error))?;
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
                let size = self.size(name).await?;
                let short = range.end > size;
                return Err(if short {
                    self.too_short(name, size, range.end)
                } else {
                    self.read_error("read", name.as_str(), error)
                });
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
        answer.map(|answer| answer.meta.size).map_err(|error| self.read_error("read", name.as_str(), error))
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
            let meta = entry.map_err(|error| self.read_error("list", folder, error))?;
            found.extend(self.info(&meta)?);
        }
        Ok(found)
    }

    async fn delete(&self, name: &ObjectName) -> Result<Deletion, StoreError> {
        let path = self.path_of("delete", name)?;
        match self.inner.delete(&path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(Deletion::Gone),
            Err(error) => Err(self.write_error("delete", name, error)),
        }
    }
}
