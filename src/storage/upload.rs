//! A file of any size as one object in S3: in parts, each of which is sent again where it got no answer.
//!
//! Holds: the object appears whole or not at all, with the length of the file; each part carries a SHA-256 checksum. What a failed
//! upload left is taken away, if the service can be reached.
//! Does not: keep two that upload one name at the same moment apart; [`super::Store::put_new`] does, and is for what fits into memory.

use std::io;
use std::path::Path as FilePath;

use bytes::Bytes;
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, ObjectStoreExt as _};
use tokio::io::AsyncReadExt as _;

use super::answer::{Meaning, Unspeakable, meaning};
use super::remote::{RemotePlace, Variables, amazon};
use super::retry::Retries;
use super::{ObjectName, StoreError};

/// Least length of a part, in bytes; one is in memory at a time.
const PART_SIZE_MIN: u64 = 8 << 20;

/// Parts of one object that a larger part size keeps below the service's limit of 10 000.
const PARTS_MAX: u64 = 9_000;

/// An object that a file becomes.
pub struct Upload<'a> {
    s3: AmazonS3,
    path: Path,
    told: Told<'a>,
    retries: Retries,
}

/// How errors are told.
struct Told<'a> {
    name: &'a ObjectName,
    location: String,
    unspeakable: Unspeakable,
}

impl Told<'_> {
    fn failed(&self, source: io::Error) -> StoreError {
        StoreError::Io { action: "write", name: self.name.to_string(), location: self.location.clone(), source }
    }

    fn of(&self, error: &object_store::Error) -> StoreError {
        let (name, location) = (self.name.to_string(), self.location.clone());
        match meaning(error, &self.unspeakable) {
            Meaning::MayPass(source) => StoreError::NoAnswer { action: "write", name, location, source },
            Meaning::Full => StoreError::NoSpace { action: "write", name, location },
            Meaning::Denied(source) => StoreError::ReadOnly { name, location, source },
            Meaning::Failed(source) => self.failed(source),
        }
    }
}

impl<'a> Upload<'a> {
    /// The object `name` below a place. Connects to nothing.
    ///
    /// # Errors
    /// If the place is in no S3, or the settings do not fit together.
    pub fn new(
        place: &RemotePlace,
        variables: &Variables,
        name: &'a ObjectName,
        retries: Retries,
    ) -> Result<Self, StoreError> {
        let full = if place.prefix.is_empty() { name.to_string() } else { format!("{}/{name}", place.prefix) };
        let told = Told { name, location: place.to_string(), unspeakable: variables.unspeakable() };
        let path = Path::parse(&full).map_err(|error| told.failed(io::Error::other(error)))?;
        let s3 = amazon(place, variables).map_err(|error| told.of(&error))?;
        Ok(Self { s3, path, told, retries })
    }

    /// Whether it could be uploaded: the bucket is there, may be written, and has no object of that name. Leaves nothing.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if there is an object of that name.
    pub async fn check(&self) -> Result<(), StoreError> {
        if self.size().await?.is_some() {
            let (name, location) = (self.told.name.clone(), self.told.location.clone());
            return Err(StoreError::AlreadyExists { name, location });
        }
        let id = self.again(|| self.s3.create_multipart(&self.path)).await?;
        // An upload without parts takes no room, if it cannot be taken away.
        let _ = self.s3.abort_multipart(&self.path, &id).await;
        Ok(())
    }

    /// Uploads a file; gives its length.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if there is an object of that name.
    pub async fn send(&self, file: &FilePath) -> Result<u64, StoreError> {
        self.check().await?;
        let mut file = tokio::fs::File::open(file).await.map_err(|error| self.told.failed(error))?;
        let size = file.metadata().await.map_err(|error| self.told.failed(error))?.len();
        let id = self.again(|| self.s3.create_multipart(&self.path)).await?;
        match self.parts(&mut file, size, &id).await {
            Ok(()) => Ok(size),
            Err(error) => {
                // The error is about the upload; that its parts cannot be taken away adds nothing.
                let _ = self.s3.abort_multipart(&self.path, &id).await;
                Err(error)
            }
        }
    }

    async fn parts(&self, file: &mut tokio::fs::File, size: u64, id: &MultipartId) -> Result<(), StoreError> {
        let part_size = PART_SIZE_MIN.max(size.div_ceil(PARTS_MAX));
        let mut parts: Vec<PartId> = Vec::new();
        let mut sent = 0;
        while sent < size || parts.is_empty() {
            let mut part = Vec::new();
            file.take(part_size).read_to_end(&mut part).await.map_err(|error| self.told.failed(error))?;
            let (part, index) = (Bytes::from(part), parts.len());
            sent += part.len() as u64;
            if part.is_empty() && index > 0 {
                return Err(self.told.failed(io::Error::other("the file became shorter")));
            }
            parts.push(self.again(|| self.s3.put_part(&self.path, id, index, part.clone().into())).await?);
        }
        let completed = self.again(|| self.s3.complete_multipart(&self.path, id, parts.clone())).await;
        // An answer that was lost is followed by the refusal of an upload that is none any more: what is there tells.
        match (completed, self.size().await?) {
            (_, Some(found)) if found == size => Ok(()),
            (Err(error), _) => Err(error),
            (Ok(_), _) => Err(self.told.failed(io::Error::other("the object has another length than the file"))),
        }
    }

    /// The length of the object, if it is there.
    async fn size(&self) -> Result<Option<u64>, StoreError> {
        let head = || async {
            match self.s3.head(&self.path).await {
                Ok(found) => Ok(Some(found.size)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.again(head).await
    }

    async fn again<T, F>(&self, ask: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let told = || {
            let answer = ask();
            async { answer.await.map_err(|error| self.told.of(&error)) }
        };
        self.retries.ask(told).await
    }
}
