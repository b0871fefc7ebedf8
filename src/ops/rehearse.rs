//! Rehearsing a restore: snapshots are written to scratch files as `restore --to-files` does, the files are read back and
//! decoded as what they claim to be, and removed.
//!
//! Holds: nothing is left in the scratch folder, unless the process is killed.
//! Does not: load a database. That a dump is whole in its format does not prove that a server takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::AsyncReadExt as _;

use super::evidence::{Recorder, StepFacts};
use super::restore::{RestoredComponent, into_folder};
use super::{Context, Progress};
use crate::component::neo4j::dump_format::{UnwrapSink, Unwrapper, encode_frame};
use crate::component::postgres::dump_format::CustomFormatCheck;
use crate::env::random_bytes;
use crate::error::{Error, ErrorKind};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::manifest::{ComponentRecord, ComponentStatus, Layout};
use crate::format::report::Finding;
use crate::id::{SnapshotId, hex_of};
use crate::repository::check::Checked;
use crate::repository::check::unchecked::{Reason, Unchecked};
use crate::repository::executor::run;
use crate::repository::snapshots::Snapshot;
use crate::repository::{Repository, RepositoryError};

/// Bytes that are read and decoded at a time.
const PIECE_SIZE: usize = 1 << 20;

/// Restores snapshots below `scratch`, decodes what was written, and removes it. Damage becomes a finding in `checked`.
pub(super) async fn rehearse(
    context: &Context,
    repository: &Arc<Repository>,
    recorder: &Recorder,
    scratch: &Path,
    only: &BTreeSet<SnapshotId>,
    checked: &mut Checked,
) -> Result<Vec<SnapshotId>, Error> {
    repository.keys().check_reads_content().map_err(|source| Error::from(repository.unsupported(source)))?;
    let all = match repository.snapshots().await {
        Ok((all, _)) => all,
        // A finding already: nobody knows which snapshots there are.
        Err(RepositoryError::Damaged(_)) => return Ok(vec![]),
        Err(error) => return Err(error.into()),
    };
    let chosen = chosen(&all, only);
    let (mut rehearsed, mut vanished) = (Vec::new(), Vec::new());
    for snapshot in &chosen {
        let step = recorder.begin(context, "rehearse", &format!("snapshot {}", snapshot.id));
        let result = in_scratch(context, repository, recorder, scratch, snapshot).await;
        let facts =
            |bytes: &u64| StepFacts { numbers: BTreeMap::from([("bytes".to_owned(), *bytes)]), ..StepFacts::default() };
        match recorder.end_with(context, step, result, facts) {
            Ok(_) => rehearsed.push(snapshot.id),
            Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
            Err(_) if is_forgotten(repository, &snapshot.id).await? => vanished.push(snapshot.id),
            Err(error) => checked.findings.push(finding(snapshot, &error)),
        }
    }
    let others = all.iter().filter(|snapshot| snapshot.is_certain()).map(|snapshot| snapshot.id);
    let others = others.filter(|id| !chosen.iter().any(|snapshot| snapshot.id == *id)).collect();
    checked.not_checked.extend(Unchecked::snapshots(Reason::NotRehearsed, others));
    checked.not_checked.extend(Unchecked::snapshots(Reason::Vanished, vanished));
    checked.not_checked.extend(Unchecked::snapshots(Reason::NotLoaded, rehearsed.clone()));
    Ok(rehearsed)
}

/// Those of `only`, or the newest complete one of each deployment.
fn chosen(all: &[Snapshot], only: &BTreeSet<SnapshotId>) -> Vec<Snapshot> {
    if !only.is_empty() {
        return all.iter().filter(|snapshot| only.contains(&snapshot.id) && snapshot.is_certain()).cloned().collect();
    }
    let complete = all.iter().filter(|snapshot| snapshot.is_complete() && !snapshot.manifest.is_safety());
    // Oldest first, so that the newest of each deployment stays.
    let newest: BTreeMap<&str, &Snapshot> =
        complete.map(|snapshot| (snapshot.manifest.deployment.as_str(), snapshot)).collect();
    newest.into_values().cloned().collect()
}

async fn is_forgotten(repository: &Repository, id: &SnapshotId) -> Result<bool, Error> {
    Ok(repository.record().await?.forgotten.contains(id))
}

/// Damage that stood in the way of restoring a snapshot.
pub(super) fn finding(snapshot: &Snapshot, error: &Error) -> Finding {
    Finding {
        object: layout::object(ObjectType::Manifest, &snapshot.id).to_string(),
        layer: "rehearsal".to_owned(),
        problem: error.chain().join(": "),
        hurts: vec![format!("snapshot {}", snapshot.id)],
        remedy: "see what else was found; if nothing was, report this with the version that made the snapshot"
            .to_owned(),
    }
}

/// Restores one snapshot into a folder of its own, decodes it, and removes the folder, however that ends.
async fn in_scratch(
    context: &Context,
    repository: &Arc<Repository>,
    recorder: &Recorder,
    scratch: &Path,
    snapshot: &Snapshot,
) -> Result<u64, Error> {
    let folder = make_folder(context, scratch, "infrahub-rehearsal-").await?;
    let result = restored_and_decoded(context, repository, recorder, snapshot, &folder).await;
    let removed = remove_folder(&folder).await;
    let bytes = result?;
    removed?;
    Ok(bytes)
}

/// Makes a folder in `scratch` that nobody else reads. Not the folders above it: a scratch place that is not there is a mistake.
pub(super) async fn make_folder(context: &Context, scratch: &Path, prefix: &str) -> Result<PathBuf, Error> {
    let folder = scratch.join(format!("{prefix}{}", hex_of(&random_bytes::<8>(context.entropy()))));
    let made = tokio::fs::DirBuilder::new().mode(0o700).create(&folder).await;
    made.map_err(|error| unavailable(&folder, "made", error))?;
    Ok(folder)
}

/// Removes a folder and all that is in it.
pub(super) async fn remove_folder(folder: &Path) -> Result<(), Error> {
    tokio::fs::remove_dir_all(folder).await.map_err(|error| unavailable(folder, "removed", error))
}

fn unavailable(path: &Path, action: &str, error: std::io::Error) -> Error {
    Error::with_source(ErrorKind::Unavailable, format!("`{}` cannot be {action}", path.display()), error)
}

async fn restored_and_decoded(
    context: &Context,
    repository: &Arc<Repository>,
    recorder: &Recorder,
    snapshot: &Snapshot,
    folder: &Path,
) -> Result<u64, Error> {
    let mut bytes = 0;
    for (record, path, restored) in into_folder(context, repository, recorder, snapshot, folder).await? {
        bytes += restored.bytes;
        decode(context, &record, path, &restored).await?;
    }
    Ok(bytes)
}

/// Checks that what was written of a component is what it claims to be.
///
/// # Errors
/// Damage if it is not.
pub(super) async fn decode(
    context: &Context,
    record: &ComponentRecord,
    path: PathBuf,
    restored: &RestoredComponent,
) -> Result<(), Error> {
    let decoded = match record.layout {
        Layout::Tree => compare_tree(record, restored),
        Layout::Plain | Layout::Neo4jDump { .. } => decode_file(context, record, path).await,
    };
    context.events.progress_done("decode", "scratch files");
    decoded
}

fn differs(record: &ComponentRecord, problem: &str) -> Error {
    Error::new(ErrorKind::Damaged, format!("what was restored of component `{}` is wrong: {problem}", record.name))
}

/// Every byte of every file was hashed while it was written; here their number is compared.
fn compare_tree(record: &ComponentRecord, restored: &RestoredComponent) -> Result<(), Error> {
    match (record.sizes.files, restored.files) {
        (Some(then), Some(now)) if then != now && record.status == ComponentStatus::Complete => {
            Err(differs(record, &format!("{now} files, where {then} were backed up")))
        }
        _ => Ok(()),
    }
}

/// Reads a dump as what it claims to be.
enum Decoder {
    Neo4j(Box<Unwrapper>, Lengths),
    Postgres(Box<CustomFormatCheck>),
    Opaque,
}

/// What an unwrapped dump is made of, in bytes.
#[derive(Default)]
struct Lengths {
    content: u64,
    headers: u64,
}

impl UnwrapSink for Lengths {
    fn data(&mut self, bytes: &[u8]) {
        self.content += bytes.len() as u64;
    }

    fn cut(&mut self) {}

    fn frame(&mut self, gap: &[u8], data_length: u64) {
        let mut frame = Vec::new();
        encode_frame(gap, data_length, &mut frame);
        self.headers += frame.len() as u64;
    }
}

impl Decoder {
    fn of(record: &ComponentRecord, first: &[u8]) -> Self {
        match record.layout {
            Layout::Neo4jDump { .. } => Self::Neo4j(Box::default(), Lengths::default()),
            // Streams that are no dump of their kind were stored as they are if that was allowed.
            Layout::Plain if record.kind == "postgres" && first.starts_with(b"PGDMP") => Self::Postgres(Box::default()),
            Layout::Plain | Layout::Tree => Self::Opaque,
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self {
            Self::Neo4j(unwrapper, lengths) => unwrapper.push(bytes, lengths).map_err(|error| error.to_string()),
            Self::Postgres(check) => check.push(bytes, &mut |_| {}).map_err(|error| error.to_string()),
            Self::Opaque => Ok(()),
        }
    }

    fn finish(self, record: &ComponentRecord) -> Result<(), String> {
        match self {
            Self::Neo4j(unwrapper, mut lengths) => {
                unwrapper.finish(&mut lengths).map_err(|error| error.to_string())?;
                let stored = |name: &str| record.stream(name).map(|stream| stream.length);
                if (Some(lengths.content), Some(lengths.headers)) == (stored("content"), stored("headers")) {
                    return Ok(());
                }
                Err(format!("{} bytes of files and {} of headers in it", lengths.content, lengths.headers))
            }
            Self::Postgres(check) => check.finish().map(drop).map_err(|error| error.to_string()),
            Self::Opaque => Ok(()),
        }
    }
}

async fn decode_file(context: &Context, record: &ComponentRecord, path: PathBuf) -> Result<(), Error> {
    let io = |error| Error::with_source(ErrorKind::Unavailable, format!("`{}` cannot be read", path.display()), error);
    let mut file = tokio::fs::File::open(&path).await.map_err(io)?;
    let total_bytes = Some(file.metadata().await.map_err(io)?.len());
    let (mut decoder, mut done_bytes) = (None, 0);
    loop {
        let mut piece = Vec::with_capacity(PIECE_SIZE);
        let mut limited = (&mut file).take(PIECE_SIZE as u64);
        context.cancel.or(limited.read_to_end(&mut piece)).await?.map_err(io)?;
        if piece.is_empty() {
            break;
        }
        done_bytes += piece.len() as u64;
        let mut at_work = decoder.take().unwrap_or_else(|| Decoder::of(record, &piece));
        let (back, pushed) = run(&context.executor, move || {
            let pushed = at_work.push(&piece);
            (at_work, pushed)
        })
        .await;
        pushed.map_err(|problem| differs(record, &problem))?;
        decoder = Some(back);
        let target = "scratch files".to_owned();
        context.events.progress(&Progress { action: "decode", target, done_bytes, total_bytes });
    }
    let decoder = decoder.unwrap_or_else(|| Decoder::of(record, &[]));
    if matches!(decoder, Decoder::Opaque | Decoder::Postgres(_)) {
        let stored = record.stream("content").map(|stream| stream.length);
        if stored != Some(done_bytes) {
            return Err(differs(record, &format!("{done_bytes} bytes")));
        }
    }
    decoder.finish(record).map_err(|problem| differs(record, &problem))
}
