//! What the graph names in the artifact store, beside what is in it.
//!
//! Each artifact and each file object has an attribute `storage_id`, which is the name of its file or the key of its object. The ids
//! are read before the files are: a file is there before its id is, so that an id whose file is not there has lost it. Files that
//! are younger than the ids, or nearly, say nothing: their ids may have come later.
//!
//! Holds: what is missing or orphaned fails nothing, since it was so before; it is told. Memory is that of the ids.
//! Does not: look into files.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::evidence::{Recorder, StepFacts};
use super::{Context, artifacts};
use crate::component::Component;
use crate::component::artifact_store::scan::{Scanned, SourceFolder};
use crate::deployment::{ComponentInfo, ComponentKind};
use crate::error::{Error, ErrorKind};
use crate::format::manifest::{ComponentRecord, ComponentStatus};
use crate::provider::{Provider, Reach, ServiceState};
use crate::tree_entry::{EntryKind, FileTime, printable};

/// How many missing objects are named.
const MISSING_TOLD: usize = 20;

/// How long before its id a file may have been written: uploads are written first and named then.
const YOUNG: Duration = Duration::from_secs(5 * 60);

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct StorageCheck {
    /// Ids that are in use on any branch.
    pub named: u64,
    /// How many of them have no file.
    pub missing: u64,
    /// The first of these, in their order; at most twenty.
    pub missing_ids: Vec<String>,
    /// Files that no id names, also none of the past.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
}

impl StorageCheck {
    /// What should be looked at.
    pub fn warning(&self) -> Option<String> {
        if self.missing == 0 {
            return None;
        }
        let ids: Vec<String> = self.missing_ids.iter().map(|id| format!("`{}`", printable(id.as_bytes()))).collect();
        let more = if self.missing > self.missing_ids.len() as u64 { ", …" } else { "" };
        let (missing, named, ids) = (self.missing, self.named, ids.join(", "));
        Some(format!("{missing} of {named} files that the graph names are not in the artifact store: {ids}{more}"))
    }

    fn orphans(&self) -> Option<String> {
        let (orphans, bytes) = (self.orphans, self.orphan_bytes);
        (orphans > 0)
            .then(|| format!("{orphans} files of the artifact store, {bytes} bytes, are named nowhere in the graph"))
    }
}

/// The ids of a graph, and what was seen of their files so far.
pub struct Census(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    named: HashMap<Box<str>, Named>,
    /// From when on files say nothing.
    young: Option<Timestamp>,
    orphans: u64,
    orphan_bytes: u64,
}

impl Seen {
    /// Marks the id that is the file's path, if there is one.
    fn mark(&mut self, path: &[u8]) -> bool {
        let named = std::str::from_utf8(path).ok().and_then(|id| self.named.get_mut(id));
        named.map(|named| named.is_there = true).is_some()
    }
}

#[derive(Default)]
struct Named {
    is_in_use: bool,
    is_there: bool,
}

impl Census {
    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a file that is there.
    pub fn see(&self, path: &[u8], size: u64, modified: FileTime) {
        let mut seen = self.lock();
        if seen.mark(path) {
            return;
        }
        if seen.young.is_none_or(|young| modified.as_nanoseconds() < young.as_nanosecond()) {
            seen.orphans += 1;
            seen.orphan_bytes += size;
        }
    }

    /// Takes a file that is there and could not be read: it is not missing.
    pub fn see_named(&self, path: &[u8]) {
        self.lock().mark(path);
    }

    /// What was found, when all files were seen.
    fn outcome(&self) -> StorageCheck {
        let seen = self.lock();
        let in_use = || seen.named.iter().filter(|(_, named)| named.is_in_use);
        let mut missing: Vec<&str> = in_use().filter(|(_, named)| !named.is_there).map(|(id, _)| &**id).collect();
        missing.sort_unstable();
        StorageCheck {
            named: in_use().count() as u64,
            missing: missing.len() as u64,
            missing_ids: missing.iter().take(MISSING_TOLD).map(|id| (*id).to_owned()).collect(),
            orphans: seen.orphans,
            orphan_bytes: seen.orphan_bytes,
        }
    }
}

/// Reads the ids of the graph among `streams`, if there are files to compare them with and its server runs. That they cannot be read
/// is told, and no more.
pub async fn read(
    context: &Context,
    provider: &dyn Provider,
    streams: &[Box<dyn Component>],
    has_files: bool,
) -> Option<Census> {
    if !has_files {
        return None;
    }
    for component in streams.iter().filter(|component| component.info().kind == ComponentKind::Neo4j) {
        match read_of(context, provider, &**component).await {
            Ok(Some(census)) => return Some(census),
            Ok(None) => {}
            // Who cancels hears of it elsewhere.
            Err(error) if error.kind() == ErrorKind::Cancelled => return None,
            Err(error) => {
                let why = error.chain().join(": ");
                context.warn(format!("files are not compared with what the graph names: {why}"));
                return None;
            }
        }
    }
    None
}

async fn read_of(
    context: &Context,
    provider: &dyn Provider,
    component: &dyn Component,
) -> Result<Option<Census>, Error> {
    let info = component.info();
    for service in info.asked_of(&info.stopped_for_dump) {
        if provider.state(service).await? != ServiceState::Running {
            return Ok(None);
        }
    }
    let began = context.clock().now();
    let mut named: HashMap<Box<str>, Named> = HashMap::new();
    let mut take = |id: &str, is_in_use: bool| named.entry(id.into()).or_default().is_in_use |= is_in_use;
    let has_ids = context.cancel.or(component.storage_ids(&mut take)).await??;
    let young = began.checked_sub(YOUNG).ok();
    Ok(has_ids.then(|| Census(Mutex::new(Seen { named, young, ..Seen::default() }))))
}

/// Tells what was found when all files were read, in the evidence and in the record of the files. Nothing where they were not.
pub fn tell(
    context: &Context,
    recorder: &Recorder,
    census: &Census,
    records: &mut [ComponentRecord],
) -> Option<StorageCheck> {
    let mut files = records.iter_mut().filter(|record| record.kind == ComponentKind::Artifacts.as_str());
    let first = files.next()?;
    if first.status == ComponentStatus::Failed || files.any(|record| record.status == ComponentStatus::Failed) {
        return None;
    }
    let found = note(context, recorder, census);
    first.warnings.extend(found.warning());
    Some(found)
}

/// Keeps the outcome in the evidence, and tells of orphans.
fn note(context: &Context, recorder: &Recorder, census: &Census) -> StorageCheck {
    let step = recorder.begin(context, "compare", "storage ids");
    let found = census.outcome();
    let numbers = [
        ("named", found.named),
        ("missing", found.missing),
        ("orphans", found.orphans),
        ("orphan_bytes", found.orphan_bytes),
    ];
    let facts = StepFacts {
        numbers: numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect(),
        log: found.missing_ids.iter().map(|id| format!("missing: {}", printable(id.as_bytes()))).collect(),
        note: found.orphans(),
        ..StepFacts::default()
    };
    if let Some(orphans) = found.orphans() {
        context.info(orphans);
    }
    // It went well whatever was found: nothing that it tells is this run's doing.
    let _ = recorder.end_with(context, step, Ok(()), |()| facts);
    found
}

/// The same after a restore: what the graph names now, beside what is in the artifact store now. `restored` tells whether the files
/// were put back: then all are young, and all count.
pub async fn after_restore(
    context: &Context,
    recorder: &Recorder,
    reach: &Reach,
    streams: &[Box<dyn Component>],
    restored: bool,
) -> Option<StorageCheck> {
    let provider = reach.provider();
    let places = provider.deployment().components.iter().filter(|info| info.kind == ComponentKind::Artifacts);
    let places: Vec<&ComponentInfo> = places.filter(|info| info.folder.is_some() || reach.bucket().is_some()).collect();
    let census = read(context, &*provider, streams, !places.is_empty()).await?;
    if restored {
        census.lock().young = None;
    }
    let census = std::sync::Arc::new(census);
    for info in places {
        if let Err(error) = look(context, reach, info, &census).await {
            let why = error.chain().join(": ");
            context.warn(format!("files are not compared with what the graph names: {why}"));
            return None;
        }
    }
    let found = note(context, recorder, &census);
    if let Some(warning) = found.warning() {
        context.warn(warning);
    }
    Some(found)
}

/// Sees the files of one component as they are now; none is read.
async fn look(
    context: &Context,
    reach: &Reach,
    info: &ComponentInfo,
    census: &std::sync::Arc<Census>,
) -> Result<(), Error> {
    let Some(folder) = info.folder.clone() else {
        let access = reach.bucket().expect("a component in no folder is in the deployment's bucket");
        let bucket = artifacts::bucket::open(context, access)?;
        for object in context.cancel.or(bucket.list()).await?? {
            census.see(object.key.as_bytes(), object.size, artifacts::bucket::file_time(object.modified));
        }
        return Ok(());
    };
    let census = std::sync::Arc::clone(census);
    let scan = move || -> Result<(), crate::component::artifact_store::scan::ScanError> {
        for scanned in SourceFolder::open(&folder)?.scan()? {
            match scanned {
                Scanned::Entry(found) => match found.entry.kind {
                    EntryKind::Directory => {}
                    EntryKind::File(()) | EntryKind::Symlink { .. } | EntryKind::HardLink { .. } => {
                        census.see(&found.entry.path, found.state.size, found.state.mtime);
                    }
                },
                Scanned::Skipped { .. } => {}
                Scanned::Problem { error, .. } => return Err(error),
            }
        }
        Ok(())
    };
    let scanned = tokio::task::spawn_blocking(scan).await.expect("looking at files does not panic");
    scanned.map_err(|error| {
        Error::with_source(ErrorKind::Source, format!("component `{}` cannot be read", info.name), error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(named: &[(&str, bool)]) -> Census {
        let young = Some("2026-11-26T19:00:00Z".parse().unwrap());
        let named =
            named.iter().map(|(id, is_in_use)| ((*id).into(), Named { is_in_use: *is_in_use, is_there: false }));
        Census(Mutex::new(Seen { named: named.collect(), young, ..Seen::default() }))
    }

    fn at(text: &str) -> FileTime {
        FileTime { seconds: text.parse::<Timestamp>().unwrap().as_second(), nanoseconds: 0 }
    }

    #[test]
    fn what_is_named_and_not_there_is_missing_and_what_is_there_and_never_named_is_an_orphan() {
        let census = census(&[("there", true), ("gone", true), ("replaced", false), ("old", false)]);
        let old = at("2026-11-26T18:00:00Z");
        for path in [&b"there"[..], b"old", b"nobody's", b"folder/there", b"\xff"] {
            census.see(path, 5, old);
        }
        let found = census.outcome();
        assert_eq!((found.named, found.missing, &found.missing_ids[..]), (2, 1, &["gone".to_owned()][..]));
        assert_eq!((found.orphans, found.orphan_bytes), (3, 15));
        let told = "1 of 2 files that the graph names are not in the artifact store: `gone`";
        assert_eq!(found.warning().as_deref(), Some(told));
    }

    #[test]
    fn a_file_that_may_have_been_named_since_is_no_orphan() {
        let census = census(&[]);
        census.see(b"new", 5, at("2026-11-26T19:00:00Z"));
        assert_eq!(census.outcome(), StorageCheck::default());
        census.see(b"older", 5, at("2026-11-26T18:59:59Z"));
        assert_eq!(census.outcome().orphans, 1);
    }

    #[test]
    fn of_many_missing_files_the_first_are_named_and_all_are_counted() {
        let ids: Vec<String> = (0..50).map(|number| format!("id-{number:02}")).collect();
        let named: Vec<(&str, bool)> = ids.iter().map(|id| (id.as_str(), true)).collect();
        let found = census(&named).outcome();
        assert_eq!((found.missing, &found.missing_ids[..]), (50, &ids[..20]));
        let told = found.warning().unwrap();
        assert!(told.contains("50 of 50") && told.ends_with("`id-19`, …"), "{told}");
    }
}
