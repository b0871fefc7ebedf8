//! `export`: a snapshot as an archive that the predecessor restores.
//!
//! Each dump is read twice: its length and hash stand in front of it. The archive grows beside its name, and gets it when it is
//! whole and durable.
//!
//! Holds: no file that is there is replaced; what has the name is whole. Does not: export what the predecessor knows nothing of:
//! folders, and streams of other kinds.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context as Hash, SHA256};
use jiff::Timestamp;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::evidence::{Recorder, StepFacts};
use super::streams::Output;
use super::{Context, Progress};
use crate::archive::keys::PublicKey;
use crate::archive::{
    ArchiveError, ArchiveWriter, DATABASE, HEADER_SIZE, Information, METADATA_VERSION, Member, NEO4J, POSTGRES, Sealer,
    TASK_MANAGER,
};
use crate::env::{Entropy, random_bytes};
use crate::error::{Error, ErrorKind};
use crate::format::manifest::{ComponentRecord, ComponentStatus, Layout};
use crate::format::report::Outcome;
use crate::id::{ObjectId, hex_of};
use crate::repository::Repository;
use crate::repository::chunks::ChunkReader;
use crate::repository::executor;
use crate::repository::snapshots::Snapshot;
use crate::storage::local::{publish, sync_folder};

/// Where to, and how.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// The file. It must not be there, and its folder must.
    pub path: PathBuf,
    /// What the archive calls itself.
    pub backup_id: String,
    /// Name of the database in Neo4j: the predecessor loads a dump only into a database of its name.
    pub database: String,
    /// Whom it is encrypted for.
    pub recipient: Option<PublicKey>,
    /// Components that are left out.
    pub exclude: Vec<String>,
}

/// An archive that was written.
#[derive(Debug)]
pub struct Exported {
    /// Where.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// Components that are in it.
    pub components: Vec<String>,
    /// Components of the snapshot that an archive has no place for.
    pub left_out: Vec<String>,
    /// The evidence, where the repository could keep it.
    pub report: Option<ObjectId>,
}

/// One component that goes into the archive.
struct Part<'a> {
    record: &'a ComponentRecord,
    member: Member,
    sha256: String,
}

/// Writes the archive.
pub async fn export(
    context: &Context,
    repository: &Arc<Repository>,
    snapshot: &Snapshot,
    options: ExportOptions,
) -> Result<Exported, Error> {
    repository.keys().check_reads_content().map_err(|source| Error::from(repository.unsupported(source)))?;
    let (records, left_out) = chosen(snapshot, &options)?;
    if options.path.symlink_metadata().is_ok() {
        return Err(there(&options.path));
    }
    let plan = vec![format!("write snapshot {} as the archive `{}`", snapshot.id.short(), options.path.display())];
    let recorder = Recorder::new(context, "export", Some(&snapshot.manifest.deployment), plan);
    recorder.snapshot(snapshot.id);
    let reader = Arc::new(ChunkReader::new(Arc::clone(repository), Arc::clone(&context.executor)));
    let run = Run { context, reader, snapshot, options: &options };
    let step = recorder.begin(context, "write", &options.path.display().to_string());
    let facts = |written: &(u64, String)| StepFacts {
        numbers: BTreeMap::from([("bytes".to_owned(), written.0)]),
        note: Some(format!("SHA-256 {}", written.1)),
        ..StepFacts::default()
    };
    let result = recorder.end_with(context, step, run.write(&records).await, facts);
    let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Failed };
    let report = recorder.finish(context, repository, outcome, result.as_ref().err()).await;
    let (bytes, sha256) = result?;
    let components = records.iter().map(|record| record.name.clone()).collect();
    Ok(Exported { path: options.path, bytes, sha256, components, left_out, report })
}

/// The components that an archive has a place for, and the names of the others.
fn chosen<'a>(
    snapshot: &'a Snapshot,
    options: &ExportOptions,
) -> Result<(Vec<&'a ComponentRecord>, Vec<String>), Error> {
    let (mut records, mut left_out) = (Vec::new(), Vec::new());
    for record in &snapshot.manifest.components {
        let has_place =
            matches!((record.name.as_str(), record.kind.as_str()), (DATABASE, "neo4j") | (TASK_MANAGER, "postgres"));
        if options.exclude.contains(&record.name) {
            continue;
        }
        if !has_place {
            left_out.push(record.name.clone());
            continue;
        }
        if record.status != ComponentStatus::Complete {
            let text = format!("component `{}` of snapshot {} is not whole", record.name, snapshot.id.short());
            return Err(Error::new(ErrorKind::Incompatible, text));
        }
        records.push(record);
    }
    if !records.iter().any(|record| record.name == DATABASE) {
        let text = format!("an archive needs a component `{DATABASE}` of kind `neo4j`, and there is none");
        return Err(Error::new(ErrorKind::Incompatible, text));
    }
    Ok((records, left_out))
}

fn there(path: &Path) -> Error {
    Error::new(ErrorKind::Usage, format!("`{}` is already there", path.display()))
}

fn broken(error: ArchiveError) -> Error {
    Error::with_source(ErrorKind::Internal, "the archive cannot be written", error)
}

/// Name of a dump in the archive.
fn member_name(record: &ComponentRecord, database: &str, made_at: Timestamp) -> String {
    if record.name == TASK_MANAGER {
        return POSTGRES.to_owned();
    }
    let is_backup = match &record.layout {
        Layout::Neo4jDump { container } => container["kind"].as_str().is_some_and(|kind| kind.starts_with("backup")),
        Layout::Plain | Layout::Tree => record.edition.as_deref() == Some("enterprise"),
    };
    if is_backup {
        return format!("{NEO4J}/{database}-{}.backup", made_at.strftime("%Y-%m-%dT%H-%M-%S"));
    }
    format!("{NEO4J}/{database}.dump")
}

struct Run<'a> {
    context: &'a Context,
    reader: Arc<ChunkReader>,
    snapshot: &'a Snapshot,
    options: &'a ExportOptions,
}

impl Run<'_> {
    async fn write(&self, records: &[&ComponentRecord]) -> Result<(u64, String), Error> {
        let mut parts = Vec::new();
        for record in records {
            self.context.info(format!("hashing `{}`", record.name));
            parts.push(self.measure(record).await?);
        }
        // The predecessor's order, which is that of the names.
        parts.sort_by(|one, other| one.member.name.cmp(&other.member.name));
        let members = parts.iter().map(|part| part.member.clone()).collect();
        let writer = ArchiveWriter::new(self.information(&parts), members).map_err(broken)?;
        let mut file = Growing::begin(self.context, self.options).await?;
        match self.fill(writer, &parts, &mut file).await {
            Ok(()) => file.finish().await,
            Err(error) => {
                file.give_up().await;
                Err(error)
            }
        }
    }

    /// Length and hash of a dump as it will be written.
    async fn measure<'a>(&self, record: &'a ComponentRecord) -> Result<Part<'a>, Error> {
        let mut output = Output::open(&self.reader, record)?;
        let (mut hash, mut size) = (Hash::new(&SHA256), 0);
        while let Some(piece) = self.context.cancel.or(output.next()).await?? {
            hash.update(&piece);
            size += piece.len() as u64;
            self.progress("hash", record, size);
        }
        self.context.events.progress_done("hash", &record.name);
        let name = member_name(record, &self.options.database, self.snapshot.manifest.created_at);
        Ok(Part { record, member: Member { name, size }, sha256: hex_of(hash.finish().as_ref()) })
    }

    fn information(&self, parts: &[Part]) -> Information {
        let manifest = &self.snapshot.manifest;
        let database = parts.iter().find(|part| part.record.name == DATABASE);
        let edition = database.and_then(|part| part.record.edition.clone());
        // Whole seconds, as the predecessor tells them.
        let seconds = Timestamp::from_second(manifest.created_at.as_second()).unwrap_or(manifest.created_at);
        Information {
            metadata_version: METADATA_VERSION,
            backup_id: self.options.backup_id.clone(),
            created_at: seconds,
            tool_version: manifest.tool.clone(),
            infrahub_version: manifest.infrahub_version.clone().unwrap_or_else(|| "unknown".to_owned()),
            components: [DATABASE, TASK_MANAGER]
                .into_iter()
                .filter(|name| parts.iter().any(|part| part.record.name == *name))
                .map(str::to_owned)
                .collect(),
            checksums: parts.iter().map(|part| (part.member.name.clone(), part.sha256.clone())).collect(),
            neo4j_edition: edition.unwrap_or_default(),
            redacted: manifest.is_redacted(),
            encrypted: self.options.recipient.is_some(),
        }
    }

    async fn fill(&self, mut writer: ArchiveWriter, parts: &[Part<'_>], file: &mut Growing) -> Result<(), Error> {
        for part in parts {
            self.context.info(format!("writing `{}`", part.record.name));
            let mut output = Output::open(&self.reader, part.record)?;
            let mut done = 0;
            while let Some(piece) = self.context.cancel.or(output.next()).await?? {
                done += piece.len() as u64;
                let (name, bytes) = (part.member.name.clone(), piece);
                let compressed = executor::run(&self.context.executor, move || {
                    let mut out = Vec::new();
                    writer.data(&name, &bytes, &mut out).map(|()| (writer, out))
                });
                let (back, out) = compressed.await.map_err(broken)?;
                writer = back;
                self.context.cancel.or(file.write(out)).await??;
                self.progress("export", part.record, done);
            }
            self.context.events.progress_done("export", &part.record.name);
        }
        let mut out = Vec::new();
        writer.finish(&mut out).map_err(broken)?;
        file.write(out).await
    }

    fn progress(&self, action: &'static str, record: &ComponentRecord, done_bytes: u64) {
        let (target, total_bytes) = (record.name.clone(), Some(record.sizes.logical_bytes));
        self.context.events.progress(&Progress { action, target, done_bytes, total_bytes });
    }
}

/// An archive that grows beside its name.
struct Growing {
    file: tokio::fs::File,
    part: PathBuf,
    path: PathBuf,
    sealer: Option<Sealer>,
    entropy: Arc<dyn Entropy>,
    hash: Hash,
    bytes: u64,
}

impl Growing {
    async fn begin(context: &Context, options: &ExportOptions) -> Result<Self, Error> {
        let entropy = Arc::clone(&context.outside.entropy);
        let sealer = options.recipient.as_ref().map(|recipient| Sealer::new(recipient, &*entropy)).transpose();
        let sealer = sealer.map_err(broken)?;
        let tag = hex_of(&random_bytes::<4>(&*entropy));
        let name = options.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let part = options.path.with_file_name(format!(".{name}.{tag}.part"));
        // It holds everything: nobody else's business.
        let opened =
            tokio::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&part).await;
        let file = opened.map_err(|error| unwritable(&part, error))?;
        let mut growing =
            Self { file, part, path: options.path.clone(), sealer, entropy, hash: Hash::new(&SHA256), bytes: 0 };
        if growing.sealer.is_some() {
            // Room for the head, which is known last.
            growing.put(&[0; HEADER_SIZE]).await?;
        }
        Ok(growing)
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), Error> {
        let Some(sealer) = &mut self.sealer else { return self.put(&bytes).await };
        let mut out = Vec::new();
        sealer.push(&bytes, &*self.entropy, &mut out);
        self.put(&out).await
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
        self.file.write_all(bytes).await.map_err(|error| unwritable(&self.part, error))
    }

    async fn finish(mut self) -> Result<(u64, String), Error> {
        let done = self.seal_and_name().await;
        if done.is_err() {
            let _ = tokio::fs::remove_file(&self.part).await;
        }
        done
    }

    async fn seal_and_name(&mut self) -> Result<(u64, String), Error> {
        if let Some(sealer) = self.sealer.take() {
            let mut out = Vec::new();
            let head = sealer.finish(&*self.entropy, &mut out);
            self.put(&out).await?;
            self.file.flush().await.map_err(|error| unwritable(&self.part, error))?;
            self.file.seek(io::SeekFrom::Start(0)).await.map_err(|error| unwritable(&self.part, error))?;
            self.file.write_all(&head).await.map_err(|error| unwritable(&self.part, error))?;
            self.hash = Hash::new(&SHA256);
            self.hash_again().await?;
        }
        self.file.sync_all().await.map_err(|error| unwritable(&self.part, error))?;
        self.name().await?;
        Ok((self.bytes, hex_of(self.hash.clone().finish().as_ref())))
    }

    /// What was written last stands first: the hash is that of the file.
    async fn hash_again(&mut self) -> Result<(), Error> {
        use tokio::io::AsyncReadExt as _;
        self.file.flush().await.map_err(|error| unwritable(&self.part, error))?;
        self.file.seek(io::SeekFrom::Start(0)).await.map_err(|error| unwritable(&self.part, error))?;
        let mut piece = vec![0; 256 << 10];
        loop {
            let size = self.file.read(&mut piece).await.map_err(|error| unwritable(&self.part, error))?;
            if size == 0 {
                return Ok(());
            }
            self.hash.update(&piece[..size]);
        }
    }

    /// Gives it its name, if nobody took that meanwhile.
    async fn name(&self) -> Result<(), Error> {
        let (part, path) = (self.part.clone(), self.path.clone());
        let named = tokio::task::spawn_blocking(move || name_new(&part, &path)).await;
        match named.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(there(&self.path)),
            Err(error) => Err(unwritable(&self.path, error)),
        }
    }

    async fn give_up(self) {
        // The error is about the archive; that its rest cannot be removed adds nothing.
        let _ = tokio::fs::remove_file(&self.part).await;
    }
}

/// Gives a file its name durably, and never that of something.
fn name_new(from: &Path, to: &Path) -> io::Result<()> {
    publish(from, to)?;
    match std::fs::remove_file(from) {
        // It was renamed, where there are no links.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    sync_folder(to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

fn unwritable(path: &Path, error: io::Error) -> Error {
    Error::with_source(ErrorKind::Unavailable, format!("`{}` cannot be written", path.display()), error)
}
