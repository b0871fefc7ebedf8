//! The objects of a bucket on their way into the repository.
//!
//! A key is the path of a file in the tree. What a listing tells of an object is what tells its states apart: one whose size, time
//! and entity tag are those of the last run is not asked for. What is stored with a content is the state that the service told
//! together with it.
//!
//! Holds: an object that cannot be kept is a problem, as a file is, and never passed over in silence; a repository that lies in
//! the same bucket does not back itself up.

use std::sync::Arc;

use futures::future::join_all;

use super::ATTEMPTS;
use super::sink::{FolderStored, Sink, Storing};
use crate::error::{Error, ErrorKind};
use crate::format::FormatError;
use crate::format::bytes::{FieldReader, put_chunk_ids, put_count};
use crate::format::layout::CONFIG;
use crate::format::tree::{ContentRoot, FileContent};
use crate::id::ChunkId;
use crate::ops::Context;
use crate::provider::bucket::BucketAccess;
use crate::repository::Repository;
use crate::storage::StoreError;
use crate::storage::bucket::{Bucket, BucketObject, Connecting, ObjectBody};
use crate::storage::remote::{RemotePlace, Service, Variables};
use crate::storage::retry::{Patience, Retries};
use crate::storage::wait::SystemWait;
use crate::tree_entry::{Entry, EntryKind, EntryMeta, FileTime, check_path, compare_paths, printable};

/// Objects that are asked for at the same time.
const READ_AHEAD: usize = 16;

/// What a tree says of a file that was an object: a bucket knows neither owners nor modes.
const FILE_MODE: u32 = 0o644;
/// The same of the folders that are in keys.
const FOLDER_MODE: u32 = 0o755;

/// The bucket, with nothing asked of it yet.
pub fn open(context: &Context, access: &BucketAccess) -> Result<Bucket, Error> {
    let service = Service::S3 { endpoint: Some(access.endpoint.clone()), region: access.region.clone() };
    let place = RemotePlace { service, bucket: access.bucket.clone(), prefix: String::new() };
    let mut variables = Variables::default();
    variables.set("AWS_ACCESS_KEY_ID", access.access_key.expose());
    variables.set("AWS_SECRET_ACCESS_KEY", access.secret_key.expose());
    let connecting = Connecting {
        address: access.address,
        certificates: access.certificates.clone(),
        any_certificate: access.any_certificate,
    };
    let entropy = Arc::clone(&context.outside.entropy);
    let retries = Retries::new(Patience::default(), entropy, Arc::<SystemWait>::default());
    Ok(Bucket::open(&place, &variables, &connecting, retries)?)
}

/// Whether the bucket answers and may be listed.
pub async fn check(context: &Context, component: &str, access: &BucketAccess) -> Result<(), Error> {
    let bucket = open(context, access)?;
    let checked = context.cancel.or(bucket.check()).await?;
    checked.map_err(|error| unread(component, access, error))
}

fn unread(component: &str, access: &BucketAccess, error: StoreError) -> Error {
    Error::with_source(ErrorKind::Source, format!("component `{component}` cannot be read from {access}"), error)
}

/// Which keys of a bucket are those of the repository itself.
pub(super) struct OwnKeys(Option<String>);

impl OwnKeys {
    /// Whether the repository is in a bucket of this name. Its server may be known under another name: the name alone counts.
    pub(super) fn of(repository: &Repository, bucket: &str) -> Self {
        Self::at(&repository.store().location(), bucket)
    }

    fn at(location: &str, bucket: &str) -> Self {
        let place = location.split(" at ").next().unwrap_or_default();
        let rest = place.strip_prefix("s3://").and_then(|place| place.strip_prefix(bucket));
        Self(match rest {
            Some("") => Some(String::new()),
            Some(rest) => rest.strip_prefix('/').map(|prefix| format!("{prefix}/")),
            None => None,
        })
    }

    /// Whether it is the repository's.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.as_ref().is_some_and(|prefix| !prefix.is_empty() && key.starts_with(prefix))
    }

    /// Refuses a bucket that has both in one folder: nobody could tell them apart.
    pub(super) fn check(&self, access: &BucketAccess, listed: &[BucketObject]) -> Result<(), Error> {
        let is_config =
            |object: &BucketObject| object.key.strip_prefix(CONFIG).is_some_and(|rest| rest.starts_with('/'));
        if self.0.as_deref() != Some("") || !listed.iter().any(is_config) {
            return Ok(());
        }
        let text = format!(
            "{access} holds the repository as well, in no folder of its own: give the repository another place"
        );
        Err(Error::new(ErrorKind::Source, text))
    }
}

/// Stores all objects of the bucket.
pub async fn store(storing: Storing<'_>, access: &BucketAccess) -> Result<FolderStored, Error> {
    let Storing { context, repository, component, .. } = storing;
    let bucket = open(context, access)?;
    let listed = context.cancel.or(bucket.list()).await?.map_err(|error| unread(component, access, error))?;
    let own = OwnKeys::of(repository, &access.bucket);
    own.check(access, &listed)?;
    let (ours, mut objects): (Vec<_>, Vec<_>) = listed.into_iter().partition(|object| own.has(&object.key));
    objects.sort_by(|a, b| compare_paths(a.key.as_bytes(), b.key.as_bytes()));
    let mut sink = Sink::open(storing, bucket.location()).await?;
    if !ours.is_empty() {
        sink.warn(format!("{} objects of the repository, which is in the same bucket, were passed over", ours.len()));
    }
    let mut objects_in = Objects { sink, bucket: &bucket, access, last: None, file: None, vanished: Vec::new() };
    objects_in.walk(&objects).await?;
    let mut stored = objects_in.sink.finish().await?;
    let counts = bucket.counts();
    stored.requests = vec![("lists", counts.lists), ("gets", counts.gets), ("bytes_down", counts.bytes_down)];
    Ok(stored)
}

struct Objects<'a> {
    sink: Sink<'a>,
    bucket: &'a Bucket,
    access: &'a BucketAccess,
    /// The path of the last entry.
    last: Option<Vec<u8>>,
    /// The path of the last file.
    file: Option<String>,
    /// Keys that were listed and are not there.
    vanished: Vec<BucketObject>,
}

/// An object that was asked for: what came, where it was not known already.
type Asked<'a> = Option<Result<Option<ObjectBody<'a>>, StoreError>>;

impl Objects<'_> {
    async fn walk(&mut self, objects: &[BucketObject]) -> Result<(), Error> {
        self.folder(b"").await?;
        for batch in objects.chunks(READ_AHEAD) {
            let mut known = Vec::new();
            for object in batch {
                known.push(self.unchanged(object).await?);
            }
            let bucket = self.bucket;
            let asking = batch.iter().zip(&known).map(|(object, known)| async move {
                if known.is_some() { None } else { Some(bucket.read(&object.key).await) }
            });
            let asked: Vec<Asked<'_>> = self.sink.context().cancel.or(join_all(asking)).await?;
            for ((object, known), asked) in batch.iter().zip(known).zip(asked) {
                self.object(object, known, asked).await?;
            }
        }
        self.look_for_vanished().await
    }

    /// The content that the last run stored, if the object has not changed since and all of it is still there.
    async fn unchanged(&self, object: &BucketObject) -> Result<Option<FileContent>, Error> {
        // Without a tag, two contents of one length that were put within a second look alike.
        if object.e_tag.is_none() {
            return Ok(None);
        }
        let Some(bytes) = self.sink.known(object.key.as_bytes())? else { return Ok(None) };
        match decode_state(&object.key, &bytes) {
            Ok((last, root)) if last == *object => self.sink.still_there(object.size, root).await,
            Ok(_) | Err(_) => Ok(None),
        }
    }

    async fn object(
        &mut self,
        object: &BucketObject,
        known: Option<FileContent>,
        asked: Asked<'_>,
    ) -> Result<(), Error> {
        if let Some(problem) = self.misplaced(&object.key) {
            self.sink.problem(object.key.as_bytes(), problem);
            return Ok(());
        }
        let (object, content) = match (known, asked) {
            (Some(content), _) => {
                self.sink.count_unchanged(content.size);
                (object.clone(), content)
            }
            (None, Some(asked)) => match self.content(object, asked).await? {
                Some(read) => read,
                None => return Ok(()),
            },
            (None, None) => unreachable!("what is not known is asked for"),
        };
        for at in object.key.match_indices('/').map(|(at, _)| at) {
            self.folder(&object.key.as_bytes()[..at]).await?;
        }
        let path = object.key.clone().into_bytes();
        self.last = Some(path.clone());
        self.file = Some(object.key.clone());
        let state = encode_state(&object, &content.root);
        self.sink.keep(path, meta(FILE_MODE, file_time(object.modified)), content, state).await
    }

    /// Why no file of a tree can have this key.
    fn misplaced(&self, key: &str) -> Option<String> {
        let shown = printable(key.as_bytes());
        if let Err(error) = check_path(key.as_bytes()) {
            return Some(format!("`{shown}` cannot be kept in a tree: {error}"));
        }
        let file = self.file.as_ref()?;
        let below = key == file || key.strip_prefix(file.as_str()).is_some_and(|rest| rest.starts_with('/'));
        below.then(|| {
            format!("`{shown}` cannot be kept in a tree: `{}` is an object as well", printable(file.as_bytes()))
        })
    }

    /// Puts a folder that keys have in common, unless it was put.
    async fn folder(&mut self, path: &[u8]) -> Result<(), Error> {
        let is_there = |last: &Vec<u8>| {
            path.is_empty() || last == path || last.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/"))
        };
        if self.last.as_ref().is_some_and(is_there) {
            return Ok(());
        }
        self.last = Some(path.to_vec());
        // Always the same, so that a bucket in which nothing changed is the same tree.
        let meta = meta(FOLDER_MODE, FileTime { seconds: 0, nanoseconds: 0 });
        self.sink.put(&Entry { path: path.to_vec(), meta, kind: EntryKind::Directory }).await
    }

    /// Reads and stores an object; `None` if it is gone, or a problem that was told.
    async fn content(
        &mut self,
        object: &BucketObject,
        first: Result<Option<ObjectBody<'_>>, StoreError>,
    ) -> Result<Option<(BucketObject, FileContent)>, Error> {
        let mut asked = first;
        for attempt in 1.. {
            let error = match asked {
                Ok(None) => {
                    self.vanished.push(object.clone());
                    return Ok(None);
                }
                Ok(Some(body)) => match self.read(body).await? {
                    Ok(read) => return Ok(Some(read)),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            match error {
                error if !error.is_transient() => {
                    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                    let key = object.key.as_bytes();
                    self.sink.problem(key, format!("`{}`: {error}{cause}", printable(key)));
                    return Ok(None);
                }
                // The same would be heard of all that follow.
                error if attempt >= ATTEMPTS => return Err(unread(self.sink.component(), self.access, error)),
                _ => {}
            }
            asked = self.sink.context().cancel.or(self.bucket.read(&object.key)).await?;
        }
        unreachable!("the last attempt returns")
    }

    /// The inner error is about the object, the outer one about everything else.
    async fn read(
        &mut self,
        mut body: ObjectBody<'_>,
    ) -> Result<Result<(BucketObject, FileContent), StoreError>, Error> {
        let mut stream = self.sink.begin();
        loop {
            match self.sink.context().cancel.or(body.next()).await? {
                Ok(Some(bytes)) => self.sink.write(&mut stream, bytes).await?,
                Ok(None) => break,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok((body.object().clone(), self.sink.end(stream).await?)))
    }

    /// What is still listed under a key that has nothing was not deleted: its key is another than it looks.
    async fn look_for_vanished(&mut self) -> Result<(), Error> {
        if self.vanished.is_empty() {
            return Ok(());
        }
        let again = self.sink.context().cancel.or(self.bucket.list()).await?;
        let again = again.map_err(|error| unread(self.sink.component(), self.access, error))?;
        let again: std::collections::HashSet<&str> = again.iter().map(|object| object.key.as_str()).collect();
        for object in std::mem::take(&mut self.vanished) {
            let shown = printable(object.key.as_bytes());
            match (again.contains(object.key.as_str()), object.size) {
                (false, _) => {}
                // What consoles put for an empty folder: its key ends with `/`.
                (true, 0) => self.sink.warn(format!("`{shown}/` marks a folder and was passed over")),
                (true, _) => {
                    let told = format!("`{shown}` begins or ends with `/` and cannot be kept in a tree");
                    self.sink.problem(object.key.as_bytes(), told);
                }
            }
        }
        Ok(())
    }
}

fn meta(mode: u32, mtime: FileTime) -> EntryMeta {
    EntryMeta { mode, uid: 0, gid: 0, mtime }
}

/// The service's time as file systems keep it.
pub fn file_time(moment: jiff::Timestamp) -> FileTime {
    let nanoseconds = moment.as_nanosecond();
    let seconds = i64::try_from(nanoseconds.div_euclid(1_000_000_000)).unwrap_or(0);
    FileTime { seconds, nanoseconds: u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or(0) }
}

fn encode_state(object: &BucketObject, root: &ContentRoot) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&object.size.to_le_bytes());
    let time = file_time(object.modified);
    out.extend_from_slice(&time.seconds.to_le_bytes());
    out.extend_from_slice(&time.nanoseconds.to_le_bytes());
    let tag = object.e_tag.as_deref().unwrap_or_default();
    put_count(&mut out, tag.len());
    out.extend_from_slice(tag.as_bytes());
    out.push(root.depth);
    put_count(&mut out, root.chunks.len());
    put_chunk_ids(&mut out, &root.chunks);
    out
}

fn decode_state(key: &str, bytes: &[u8]) -> Result<(BucketObject, ContentRoot), FormatError> {
    let mut fields = FieldReader::new("state of an object", bytes);
    let size = fields.u64()?;
    let (seconds, nanoseconds) = (i64::from_le_bytes(fields.array()?), fields.u32()?);
    let modified = jiff::Timestamp::new(seconds, nanoseconds.cast_signed()).unwrap_or_default();
    let tag = fields.count(1)?;
    let tag = String::from_utf8_lossy(fields.take(tag)?).into_owned();
    let depth = fields.u8()?;
    let count = fields.count(ChunkId::SIZE)?;
    let chunks = fields.chunk_ids(count)?;
    fields.finish()?;
    Ok((BucketObject { key: key.to_owned(), size, modified, e_tag: Some(tag) }, ContentRoot { depth, chunks }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(e_tag: &str) -> BucketObject {
        let modified = "2026-11-26T19:00:00.123Z".parse().unwrap();
        BucketObject { key: "a/b".to_owned(), size: 7, modified, e_tag: Some(e_tag.to_owned()) }
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let root = ContentRoot { depth: 0, chunks: vec![ChunkId::from_bytes([7; 32])] };
        let bytes = encode_state(&object("\"tag\""), &root);
        assert_eq!(decode_state("a/b", &bytes).unwrap(), (object("\"tag\""), root));
        assert!(decode_state("a/b", &bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn keys_of_the_repository_itself_are_told_from_others() {
        let own = OwnKeys::at("s3://bucket/back/ups at http://h:9", "bucket");
        assert!(own.has("back/ups/config") && !own.has("back/upset") && !own.has("back"));
        for location in ["s3://buckets/a at http://h:9", "s3://other/bucket", "/bucket/a", "gs://bucket/a"] {
            assert!(!OwnKeys::at(location, "bucket").has("a/config"), "{location}");
        }
    }

    #[test]
    fn a_repository_at_the_top_of_the_same_bucket_is_refused() {
        let access = BucketAccess {
            bucket: "bucket".to_owned(),
            endpoint: "http://h:9".to_owned(),
            address: None,
            region: None,
            access_key: crate::provider::secret::Secret::new("key".to_owned()),
            secret_key: crate::provider::secret::Secret::new("hidden".to_owned()),
            certificates: None,
            any_certificate: false,
            is_shared: false,
        };
        let listed = [BucketObject { key: format!("{CONFIG}/1"), ..object("x") }];
        let own = OwnKeys::at("s3://bucket at http://h:9", "bucket");
        assert!(own.check(&access, &listed).is_err());
        assert!(own.check(&access, &[object("x")]).is_ok(), "another server's bucket of the same name");
        assert!(OwnKeys::at("s3://bucket/a", "bucket").check(&access, &listed).is_ok());
        assert!(!format!("{access} {access:?}").contains("hidden"));
    }
}
