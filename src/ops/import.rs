//! Archives of the predecessor as a source of `create`: streamed, each dump compared with its checksum as it ends.
//!
//! Holds: the components are those that the metadata name; the snapshot is made only after the whole archive was read and found
//! whole. Does not: touch any deployment.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use jiff::Timestamp;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Cancel, Context};
use crate::archive::keys::PrivateKey;
use crate::archive::{ArchiveError, ArchiveReader, DATABASE, Event, Information, Member, TASK_MANAGER};
use crate::component::{ComponentError, DumpStream, ExitOk};
use crate::deployment::{ComponentInfo, ComponentKind, Deployment, DeploymentKind};
use crate::error::{Error, ErrorKind};
use crate::format::manifest::REDACTED_TAG;
use crate::limits::INPUT_BLOCK_SIZE_MAX;
use crate::repository::executor::{self, Executor};
use crate::storage::{ObjectName, Store};

/// Bytes of an archive in an object store that one request asks for.
const REQUEST_SIZE: u64 = 4 << 20;

/// Tags that tell where an imported snapshot comes from.
pub const BACKUP_ID_TAG: &str = "archive";
/// The version of the predecessor that made it.
pub const TOOL_TAG: &str = "archive-tool";

/// The bytes of an archive, from its first to its last.
#[async_trait]
pub trait ArchiveBytes: Send {
    /// The next ones, never none of them; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Error>;
}

/// An archive in a file.
pub struct ArchiveFile {
    path: PathBuf,
    file: tokio::fs::File,
}

impl ArchiveFile {
    /// Opens it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it is not there, or is no file.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error| {
            Error::with_source(ErrorKind::NotFound, format!("the archive `{}` cannot be opened", path.display()), error)
        };
        let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
        if file.metadata().await.map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        file.set_max_buf_size(INPUT_BLOCK_SIZE_MAX);
        Ok(Self { path: path.to_owned(), file })
    }
}

#[async_trait]
impl ArchiveBytes for ArchiveFile {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut piece = BytesMut::with_capacity(INPUT_BLOCK_SIZE_MAX);
        let mut room = (&mut piece).limit(INPUT_BLOCK_SIZE_MAX);
        let size = self.file.read_buf(&mut room).await.map_err(|error| {
            let text = format!("the archive `{}` cannot be read", self.path.display());
            Error::with_source(ErrorKind::Unavailable, text, error)
        })?;
        Ok((size > 0).then(|| piece.freeze()))
    }
}

/// An archive in an object store.
pub struct ArchiveObject {
    store: Arc<dyn Store>,
    name: ObjectName,
    size: u64,
    at: u64,
}

impl ArchiveObject {
    /// Opens it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it is not there.
    pub async fn open(store: Arc<dyn Store>, name: ObjectName) -> Result<Self, Error> {
        match store.size(&name).await {
            Ok(size) => Ok(Self { store, name, size, at: 0 }),
            Err(error) if error.is_not_found() => Err(Error::new(ErrorKind::NotFound, error.to_string())),
            Err(error) => Err(error.into()),
        }
    }
}

#[async_trait]
impl ArchiveBytes for ArchiveObject {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let range = self.at..self.size.min(self.at + REQUEST_SIZE);
        if range.is_empty() {
            return Ok(None);
        }
        let bytes = self.store.get_range(&self.name, range.clone()).await?;
        self.at = range.end;
        Ok(Some(bytes))
    }
}

/// An archive that is being read.
pub struct OpenArchive {
    bytes: Box<dyn ArchiveBytes>,
    /// Away while it is at work; gone for good if that was interrupted.
    reader: Option<ArchiveReader>,
    executor: Arc<dyn Executor>,
}

impl OpenArchive {
    async fn event(&mut self) -> Result<Option<Event>, Error> {
        loop {
            let mut reader = self.reader()?;
            let (reader, found) = executor::run(&self.executor, move || {
                let found = reader.event();
                (reader, found)
            })
            .await;
            let reader = self.reader.insert(reader);
            if let Some(event) = found.map_err(told)? {
                return Ok(Some(event));
            }
            match self.bytes.next().await? {
                Some(bytes) => reader.feed(bytes),
                None => return Ok(None),
            }
        }
    }

    fn reader(&mut self) -> Result<ArchiveReader, Error> {
        self.reader.take().ok_or_else(|| Error::new(ErrorKind::Cancelled, "reading the archive was interrupted"))
    }
}

/// What is wrong with an archive, as an error of an operation.
fn told(error: ArchiveError) -> Error {
    let kind = match &error {
        ArchiveError::NoKey | ArchiveError::NotEncrypted => ErrorKind::Usage,
        _ => ErrorKind::Source,
    };
    let text = error.to_string();
    match error {
        ArchiveError::Compression { source } => Error::with_source(kind, text, source),
        ArchiveError::Information { source } => Error::with_source(kind, text, source),
        _ => Error::new(kind, text),
    }
}

fn refused(name: &str, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Usage | ErrorKind::Source => {
            error.context(format!("the archive `{name}` is refused, and nothing of it was kept"))
        }
        _ => error,
    }
}

/// An archive whose metadata were read, to be imported once.
#[derive(Clone)]
pub struct ArchiveSource {
    /// Name that groups the snapshots.
    pub deployment: String,
    /// What it says of itself.
    pub information: Arc<Information>,
    name: String,
    archive: Arc<Mutex<OpenArchive>>,
}

impl ArchiveSource {
    /// Reads an archive up to the end of its metadata. `name` is for people.
    ///
    /// # Errors
    /// If it does not begin as an archive, or cannot be decrypted with `key`.
    pub async fn open(
        context: &Context,
        deployment: String,
        name: String,
        bytes: Box<dyn ArchiveBytes>,
        key: Option<PrivateKey>,
    ) -> Result<Self, Error> {
        let reader = Some(ArchiveReader::new(key));
        let mut archive = OpenArchive { bytes, reader, executor: Arc::clone(&context.executor) };
        let first = context.cancel.or(archive.event()).await?.map_err(|error| refused(&name, error))?;
        match first {
            Some(Event::Information(information)) => {
                let (information, archive) = (Arc::new(*information), Arc::new(Mutex::new(archive)));
                Ok(Self { deployment, information, name, archive })
            }
            Some(_) => Err(Error::new(ErrorKind::Internal, "an archive gave something before its metadata")),
            None => {
                let missing = archive.reader()?.finish().err().unwrap_or(ArchiveError::Empty);
                Err(refused(&name, told(missing)))
            }
        }
    }

    /// The deployment that it was made of.
    pub fn deployment(&self) -> Deployment {
        let component = |name: &str, kind| ComponentInfo {
            name: name.to_owned(),
            kind,
            service: None,
            stopped_for_dump: vec![],
            stopped_for_load: vec![],
            folder: None,
        };
        let mut components = vec![component(DATABASE, ComponentKind::Neo4j)];
        if self.information.has_postgres() {
            components.push(component(TASK_MANAGER, ComponentKind::Postgres));
        }
        let Information { backup_id, created_at, .. } = &*self.information;
        let evidence = format!("archive `{}`, made {created_at} as `{}`", self.name, backup_id.escape_debug());
        let name = self.deployment.clone();
        Deployment { name, kind: DeploymentKind::Files, services: vec![], components, evidence }
    }

    /// When what it holds was backed up. A time to come is nobody's.
    pub fn created_at(&self, now: Timestamp) -> Timestamp {
        self.information.created_at.min(now)
    }

    /// What is kept of its metadata beside what manifests have fields for.
    pub fn tags(&self) -> Vec<(String, String)> {
        let Information { backup_id, tool_version, redacted, .. } = &*self.information;
        let told = [(BACKUP_ID_TAG, backup_id), (TOOL_TAG, tool_version)];
        let told = told.into_iter().filter(|(_, value)| !value.is_empty());
        let told = told.map(|(tag, value)| (tag.to_owned(), value.clone()));
        told.chain(redacted.then(|| (REDACTED_TAG.to_owned(), "true".to_owned()))).collect()
    }

    /// `error`, if it says that the archive is not what it should be, told as what that means.
    pub(super) fn refused(&self, error: Error) -> Error {
        refused(&self.name, error)
    }

    /// The next file, whose data [`ArchiveSource::dump`] or [`ArchiveSource::skip`] takes; `None` behind the last.
    pub(super) async fn next(&self, cancel: &Cancel) -> Result<Option<Member>, Error> {
        match cancel.or(self.archive.lock().await.event()).await?? {
            Some(Event::Begin(member)) => Ok(Some(member)),
            Some(_) => Err(Error::new(ErrorKind::Internal, "a file of the archive was not taken to its end")),
            None => Ok(None),
        }
    }

    /// Which component a file is.
    pub(super) fn component_of(&self, member: &Member) -> Option<&'static str> {
        match member.name.as_str() {
            crate::archive::POSTGRES => Some(TASK_MANAGER),
            name if self.information.neo4j_dump().is_ok_and(|dump| dump == name) => Some(DATABASE),
            _ => None,
        }
    }

    /// The data of the file that began.
    pub(super) async fn dump(&self, member: Member, component: &str) -> Box<dyn DumpStream> {
        Box::new(MemberDump {
            archive: Arc::clone(&self.archive).lock_owned().await,
            component: component.to_owned(),
            path: format!("{}: {}", self.name, member.name),
            member,
            bytes: 0,
            at_end: false,
            started: Instant::now(),
        })
    }

    /// Reads the file that began, for its checksum alone.
    pub(super) async fn skip(&self, cancel: &Cancel) -> Result<(), Error> {
        let mut archive = self.archive.lock().await;
        while let Some(event) = cancel.or(archive.event()).await?? {
            if matches!(event, Event::End) {
                return Ok(());
            }
        }
        archive.reader()?.finish().map_err(told)
    }

    /// Whether all of it was there: before this, nothing counts.
    pub(super) async fn finish(&self) -> Result<(), Error> {
        self.archive.lock().await.reader()?.finish().map_err(told)
    }
}

/// One dump in an archive.
struct MemberDump {
    archive: OwnedMutexGuard<OpenArchive>,
    component: String,
    path: String,
    member: Member,
    bytes: u64,
    at_end: bool,
    started: Instant,
}

impl MemberDump {
    fn error(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ComponentError {
        let source = io::Error::other(source);
        ComponentError::Read { component: self.component.clone(), path: self.path.clone(), source }
    }
}

#[async_trait]
impl DumpStream for MemberDump {
    async fn next(&mut self) -> Result<Option<Bytes>, ComponentError> {
        if self.at_end {
            return Ok(None);
        }
        match self.archive.event().await.map_err(|error| self.error(error))? {
            Some(Event::Data(bytes)) => {
                self.bytes += bytes.len() as u64;
                Ok(Some(bytes))
            }
            Some(Event::End) => {
                self.at_end = true;
                Ok(None)
            }
            Some(_) => Err(self.error("something came inside of it")),
            None => {
                let mut reader = self.archive.reader().map_err(|error| self.error(error))?;
                Err(reader.finish().map_or_else(|why| self.error(why), |()| self.error("it does not end")))
            }
        }
    }

    async fn finish(self: Box<Self>) -> Result<ExitOk, ComponentError> {
        if !self.at_end || self.bytes != self.member.size {
            return Err(self.error(format!("it was read up to byte {} only", self.bytes)));
        }
        Ok(ExitOk { command: self.path, bytes: self.bytes, elapsed: self.started.elapsed(), log: Vec::new() })
    }

    async fn abort(self: Box<Self>) {}
}
