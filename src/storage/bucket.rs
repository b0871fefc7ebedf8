//! A bucket that is somebody else's: listing, reading, replacing and removing objects under whatever keys they have.
//!
//! Holds: what is read of an object has the length that was announced with it, or is an error; a large object appears whole or not
//! at all; each request that got no answer is sent again. No error tells a secret.
//! Does not: take an object for what it was a moment ago; the state that comes with an answer is the one that counts.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use object_store::aws::AmazonS3;
use object_store::client::{DnsFuture, DnsResolver};
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{
    Attribute, Certificate, GetOptions, GetResult, MultipartId, ObjectMeta, ObjectStore as _, ObjectStoreExt as _,
    PutMultipartOptions, PutOptions,
};

use super::answer::{Meaning, Unspeakable, meaning};
use super::http::PutBody;
use super::remote::{RemotePlace, Variables, amazon_with};
use super::retry::Retries;
use super::{RequestCounts, StoreError};

/// Length of a part, in bytes, and of the largest object that is sent in one piece.
const PART_SIZE: u64 = 8 << 20;

/// Parts of one object that larger parts keep below the service's limit of 10 000.
const PARTS_MAX: u64 = 9_000;

/// What objects say that they are.
const CONTENT_TYPE: &str = "application/octet-stream";

/// Bytes of a key: S3's own limit.
pub const KEY_SIZE_MAX: usize = 1024;

/// How a bucket is reached, beside its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connecting {
    /// Where the endpoint's host is, where its name means something elsewhere only.
    pub address: Option<IpAddr>,
    /// Certificates in PEM that are trusted beside the machine's own.
    pub certificates: Option<String>,
    /// Trust any certificate.
    pub any_certificate: bool,
}

/// An object as a bucket told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketObject {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was put, by the service's clock, in whole seconds.
    pub modified: Timestamp,
    /// What differs for each content of this key; `None` where the service does not tell.
    pub e_tag: Option<String>,
}

/// A bucket of somebody else's.
pub struct Bucket {
    s3: AmazonS3,
    location: String,
    unspeakable: Unspeakable,
    retries: Retries,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    puts: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

impl fmt::Debug for Bucket {
    /// Without the client, whose own form may show how it authenticates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("location", &self.location).finish_non_exhaustive()
    }
}

/// Gives one address for every name: a client of one endpoint asks for one name.
#[derive(Debug)]
struct Fixed(IpAddr);

impl DnsResolver for Fixed {
    fn resolve(&self, _host: &str) -> DnsFuture {
        let address = self.0;
        Box::pin(async move { Ok(vec![address]) })
    }
}

impl Bucket {
    /// The bucket at a place. Connects to nothing.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the settings do not fit together.
    pub fn open(
        place: &RemotePlace,
        variables: &Variables,
        connecting: &Connecting,
        retries: Retries,
    ) -> Result<Self, StoreError> {
        let (location, unspeakable) = (place.to_string(), variables.unspeakable());
        let refuse =
            |source| StoreError::Io { action: "open", name: place.bucket.clone(), location: location.clone(), source };
        let certificates = match &connecting.certificates {
            Some(pem) => Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|_| refuse(io::Error::new(io::ErrorKind::InvalidData, "the certificates are not PEM")))?,
            None => vec![],
        };
        let s3 = amazon_with(place, variables, |mut client| {
            client = certificates.into_iter().fold(client, |client, one| client.with_root_certificate(one));
            if let Some(address) = connecting.address {
                client = client.with_dns_resolver(Arc::new(Fixed(address)));
            }
            client.with_allow_invalid_certificates(connecting.any_certificate)
        });
        let s3 = s3.map_err(|error| match meaning(&error, &unspeakable) {
            Meaning::MayPass(source) | Meaning::Denied(source) | Meaning::Failed(source) => refuse(source),
            Meaning::Full => refuse(io::ErrorKind::StorageFull.into()),
        })?;
        Ok(Self { s3, location, unspeakable, retries, counts: Counts::default() })
    }

    /// How a person names it, without secrets.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// What it was asked so far. Each try counts.
    pub fn counts(&self) -> RequestCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RequestCounts {
            puts: read(&self.counts.puts),
            gets: read(&self.counts.gets),
            lists: read(&self.counts.lists),
            deletes: read(&self.counts.deletes),
            bytes_up: read(&self.counts.bytes_up),
            bytes_down: read(&self.counts.bytes_down),
            ..RequestCounts::default()
        }
    }

    /// Whether it can be listed. Asks for the names at its top.
    ///
    /// # Errors
    /// If it does not answer, is not there, or may not be listed.
    pub async fn check(&self) -> Result<(), StoreError> {
        let first = || async {
            add(&self.counts.lists, 1);
            self.s3.list(None).next().await.transpose().map(|_| ())
        };
        self.again("list", "", first).await
    }

    /// All objects, in no particular order. Memory is that of all keys.
    ///
    /// # Errors
    /// Also if there is a key that no path can be, such as `a//b` or `..`.
    pub async fn list(&self) -> Result<Vec<BucketObject>, StoreError> {
        let all = || async {
            add(&self.counts.lists, 1);
            self.s3.list(None).try_collect::<Vec<ObjectMeta>>().await
        };
        let found = self.again("list", "", all).await?;
        found.into_iter().map(|meta| self.object(meta)).collect()
    }

    /// Begins to read an object; `None` if there is none under this key.
    ///
    /// # Errors
    /// [`StoreError::Io`] and [`StoreError::NoAnswer`].
    pub async fn read(&self, key: &str) -> Result<Option<ObjectBody<'_>>, StoreError> {
        let path = self.path(key)?;
        let get = || async {
            add(&self.counts.gets, 1);
            match self.s3.get_opts(&path, GetOptions::default()).await {
                Ok(found) => Ok(Some(found)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let Some(found) = self.again("read", key, get).await? else { return Ok(None) };
        let object = self.object(found.meta.clone())?;
        Ok(Some(ObjectBody { bucket: self, object, stream: GetResult::into_stream(found), received: 0 }))
    }

    /// Begins to write an object of `size` bytes, which takes the place of what is there under its key when it is whole.
    ///
    /// # Errors
    /// If no object can have this key.
    pub fn write(&self, key: &str, size: u64) -> Result<ObjectWriter<'_>, StoreError> {
        let path = self.path(key)?;
        let part_size = PART_SIZE.max(size.div_ceil(PARTS_MAX));
        let (pending, parts) = (BytesMut::new(), Vec::new());
        Ok(ObjectWriter { bucket: self, path, size, written: 0, part_size, pending, upload: None, parts })
    }

    /// Removes an object; not there counts as removed.
    ///
    /// # Errors
    /// [`StoreError::Io`] and [`StoreError::NoAnswer`].
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let delete = || async {
            add(&self.counts.deletes, 1);
            match self.s3.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        };
        self.again("delete", key, delete).await
    }

    /// Whether a key names an object here: it reaches the service as it is.
    pub fn is_key(key: &str) -> bool {
        key.len() <= KEY_SIZE_MAX && Path::parse(key).is_ok_and(|path| !key.is_empty() && path.as_ref() == key)
    }

    fn path(&self, key: &str) -> Result<Path, StoreError> {
        let wrong =
            || self.failed("name", key, io::Error::new(io::ErrorKind::InvalidInput, "no object can have this key"));
        if Self::is_key(key) { Path::parse(key).map_err(|_| wrong()) } else { Err(wrong()) }
    }

    fn object(&self, meta: ObjectMeta) -> Result<BucketObject, StoreError> {
        let key = meta.location.as_ref().to_owned();
        // Listings know parts of a second where answers do not, and the two are compared.
        let modified = Timestamp::from_second(meta.last_modified.timestamp())
            .map_err(|error| self.failed("list", &key, io::Error::other(error)))?;
        Ok(BucketObject { key, size: meta.size, modified, e_tag: meta.e_tag })
    }

    fn failed(&self, action: &'static str, name: &str, source: io::Error) -> StoreError {
        StoreError::Io { action, name: name.to_owned(), location: self.location.clone(), source }
    }

    fn told(&self, action: &'static str, name: &str, error: &object_store::Error) -> StoreError {
        let (name, location) = (name.to_owned(), self.location.clone());
        match meaning(error, &self.unspeakable) {
            Meaning::MayPass(source) => StoreError::NoAnswer { action, name, location, source },
            Meaning::Full => StoreError::NoSpace { action, name, location },
            Meaning::Denied(source) | Meaning::Failed(source) => StoreError::Io { action, name, location, source },
        }
    }

    async fn again<T, F>(&self, action: &'static str, name: &str, ask: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let told = || {
            let answer = ask();
            async { answer.await.map_err(|error| self.told(action, name, &error)) }
        };
        self.retries.ask(told).await
    }
}

/// An object that is being read.
pub struct ObjectBody<'a> {
    bucket: &'a Bucket,
    object: BucketObject,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    received: u64,
}

impl ObjectBody<'_> {
    /// The object whose content comes: the state that it had when the service began to answer.
    pub fn object(&self) -> &BucketObject {
        &self.object
    }

    /// The next bytes; `None` when all have come.
    ///
    /// # Errors
    /// [`StoreError::NoAnswer`] if the connection broke; [`StoreError::Io`] if more came than were announced.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let (bucket, key) = (self.bucket, &self.object.key);
        let piece = self.stream.try_next().await.map_err(|error| bucket.told("read", key, &error))?;
        let Some(piece) = piece else {
            if self.received == self.object.size {
                return Ok(None);
            }
            let (name, location) = (key.clone(), bucket.location.clone());
            let source = io::ErrorKind::UnexpectedEof.into();
            return Err(StoreError::NoAnswer { action: "read", name, location, source });
        };
        self.received += piece.len() as u64;
        add(&bucket.counts.bytes_down, piece.len() as u64);
        if self.received > self.object.size {
            let source = io::Error::new(io::ErrorKind::InvalidData, "more bytes came than were announced");
            return Err(bucket.failed("read", key, source));
        }
        Ok(Some(piece))
    }
}

/// An object that is being written.
pub struct ObjectWriter<'a> {
    bucket: &'a Bucket,
    path: Path,
    size: u64,
    written: u64,
    part_size: u64,
    pending: BytesMut,
    upload: Option<MultipartId>,
    parts: Vec<PartId>,
}

impl ObjectWriter<'_> {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`StoreError::Io`] and [`StoreError::NoAnswer`]. What was sent is taken away by [`ObjectWriter::abort`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.written += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        // One that fits into one piece is sent by `finish`.
        while self.size > self.part_size && self.pending.len() as u64 >= self.part_size {
            let length = usize::try_from(self.part_size).expect("a part fits into memory");
            let part = self.pending.split_to(length).freeze();
            self.send_part(part).await?;
        }
        Ok(())
    }

    async fn send_part(&mut self, part: Bytes) -> Result<(), StoreError> {
        let (bucket, path) = (self.bucket, &self.path);
        if self.upload.is_none() {
            let options = || PutMultipartOptions {
                attributes: [(Attribute::ContentType, CONTENT_TYPE)].into_iter().collect(),
                ..Default::default()
            };
            let begin = || bucket.s3.create_multipart_opts(path, options());
            self.upload = Some(bucket.again("write", path.as_ref(), begin).await?);
        }
        let id = self.upload.as_ref().expect("begun above");
        let put = || {
            add(&bucket.counts.puts, 1);
            add(&bucket.counts.bytes_up, part.len() as u64);
            bucket.s3.put_part(path, id, self.parts.len(), part.clone().into())
        };
        let sent = bucket.again("write", path.as_ref(), put).await?;
        self.parts.push(sent);
        Ok(())
    }

    /// Sends the rest and gives the object its key.
    ///
    /// # Errors
    /// [`StoreError::Io`] if not exactly the announced bytes came; else as [`ObjectWriter::write`].
    pub async fn finish(mut self) -> Result<(), StoreError> {
        if self.written != self.size {
            let source = io::Error::other(format!("{} of {} bytes came", self.written, self.size));
            return Err(self.bucket.failed("write", self.path.as_ref(), source));
        }
        let rest = self.pending.split().freeze();
        let Some(id) = self.upload.clone() else { return self.put(rest).await };
        if !rest.is_empty() {
            self.send_part(rest).await?;
        }
        let (bucket, path) = (self.bucket, &self.path);
        let complete = || bucket.s3.complete_multipart(path, &id, self.parts.clone());
        bucket.again("write", path.as_ref(), complete).await.map(|_| ())
    }

    async fn put(&self, bytes: Bytes) -> Result<(), StoreError> {
        let (bucket, path) = (self.bucket, &self.path);
        let put = || {
            let attributes = [(Attribute::ContentType, CONTENT_TYPE)].into_iter().collect();
            let mut options = PutOptions { attributes, ..PutOptions::default() };
            options.extensions.insert(PutBody(bytes.clone()));
            add(&bucket.counts.puts, 1);
            add(&bucket.counts.bytes_up, bytes.len() as u64);
            bucket.s3.put_opts(path, bytes.clone().into(), options)
        };
        bucket.again("write", path.as_ref(), put).await.map(|_| ())
    }

    /// Gives up: takes away what was sent, if the service can be reached.
    pub async fn abort(self) {
        if let Some(id) = &self.upload {
            // What brought us here is the error; parts of no object do no harm.
            let _ = self.bucket.s3.abort_multipart(&self.path, id).await;
        }
    }
}
