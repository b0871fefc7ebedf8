//! What changed between two snapshots, told from manifests, recipes and trees.
//!
//! Holds: no content is read, so that a key that opens none is enough. Bytes are plaintext, each chunk counted once.
//! Does not: look into dumps; which rows changed nobody knows here.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::Context;
use super::trees::TreeReader;
use crate::error::Error;
use crate::format::manifest::{ComponentRecord, ComponentStatus, Layout};
use crate::format::tree::TreeEntry;
use crate::repository::chunk_set::{Amount, ChunkSet};
use crate::repository::chunks::ChunkReader;
use crate::repository::reach::Reach;
use crate::repository::snapshots::Snapshot;
use crate::repository::{Repository, RepositoryError};
use crate::tree_entry::{EntryKind, compare_paths, printable};

/// What changed from snapshot `a` to snapshot `b`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Each component of either: those of `a` in its order, then those that only `b` has.
    pub components: Vec<ComponentDifference>,
    /// Content of `a` that no component of `b` has.
    pub only_in_a: Amount,
    /// Content of `b` that no component of `a` has.
    pub only_in_b: Amount,
}

/// What changed in one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComponentDifference {
    /// Its name.
    pub name: String,
    /// It in `a`, if it is there.
    pub a: Option<Side>,
    /// It in `b`, if it is there.
    pub b: Option<Side>,
    /// Its content in `a` that no component of `b` has.
    pub only_in_a: Amount,
    /// Its content in `b` that no component of `a` has.
    pub only_in_b: Amount,
    /// What was counted, in `a` and in `b`, by name.
    pub counts: BTreeMap<String, Counts>,
    /// Its files, where it is a folder.
    pub files: Option<Files>,
}

/// A component in one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    /// `neo4j`, `postgres`, `artifacts`, `opaque`.
    pub kind: String,
    /// How it came out.
    pub status: ComponentStatus,
    /// What a restore gives back, in bytes.
    pub logical_bytes: u64,
    /// Files, where it is a folder.
    pub files: Option<u64>,
    /// Version of its server, where it said one.
    pub version: Option<String>,
}

/// A count in both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// In `a`, if it was counted.
    pub a: Option<u64>,
    /// In `b`, if it was counted.
    pub b: Option<u64>,
}

/// How the files of a folder changed: everything in it but directories.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    /// Files that only `b` has.
    pub added: Changed,
    /// Files that only `a` has.
    pub removed: Changed,
    /// Files whose content, kind, mode or owner differs. A time alone does not count.
    pub changed: Changed,
    /// How many are the same.
    pub unchanged: u64,
}

/// Some files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// How many.
    pub count: u64,
    /// They themselves, by path, as many as were asked for.
    pub files: Vec<FileChange>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its path, what is no UTF-8 and what a terminal would not show escaped.
    pub path: String,
    /// Its length in `a`, in bytes; `None` if it is not there or no regular file.
    pub a_bytes: Option<u64>,
    /// The same in `b`.
    pub b_bytes: Option<u64>,
    /// What differs, if it is in both: `kind`, `content`, `target`, `mode`, `owner`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<&'static str>,
}

/// Compares two snapshots. Of each list of files the first `files_max` are kept.
///
/// # Errors
/// Damage if a recipe or a tree cannot be read, or a chunk is in no pack.
pub async fn diff(
    context: &Context,
    repository: &Arc<Repository>,
    a: &Snapshot,
    b: &Snapshot,
    files_max: usize,
) -> Result<Difference, Error> {
    let comparing = async {
        // What is needed is asked, not whether it is whole: recipes and trees may come from the local cache.
        let reader = Arc::new(ChunkReader::cached(Arc::clone(repository), Arc::clone(&context.executor)));
        let (a, b) = (&a.manifest.components, &b.manifest.components);
        let (chunks_of_a, chunks_of_b) = (Chunks::of(&reader, a).await?, Chunks::of(&reader, b).await?);
        let cache = repository.cache();
        let find = |all: &'_ [ComponentRecord], name: &str| all.iter().find(|record| record.name == name).cloned();
        let mut components = Vec::new();
        for name in names(a, b) {
            let (in_a, in_b) = (find(a, &name), find(b, &name));
            let files = files(&reader, in_a.as_ref(), in_b.as_ref(), files_max).await?;
            components.push(ComponentDifference {
                only_in_a: chunks_of_a.component_without(&name, &chunks_of_b, cache)?,
                only_in_b: chunks_of_b.component_without(&name, &chunks_of_a, cache)?,
                counts: counts(in_a.as_ref(), in_b.as_ref()),
                a: in_a.map(Side::of),
                b: in_b.map(Side::of),
                files,
                name,
            });
        }
        let only_in_a = chunks_of_a.all.amount_without(&chunks_of_b.all, cache)?;
        let only_in_b = chunks_of_b.all.amount_without(&chunks_of_a.all, cache)?;
        Ok(Difference { components, only_in_a, only_in_b })
    };
    context.cancel.or(comparing).await?
}

/// Names of the components of either.
fn names(a: &[ComponentRecord], b: &[ComponentRecord]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let all = a.iter().chain(b).map(|record| record.name.clone());
    all.filter(|name| seen.insert(name.clone())).collect()
}

impl Side {
    fn of(record: ComponentRecord) -> Self {
        Self {
            kind: record.kind,
            status: record.status,
            logical_bytes: record.sizes.logical_bytes,
            files: record.sizes.files,
            version: record.version,
        }
    }
}

fn counts(a: Option<&ComponentRecord>, b: Option<&ComponentRecord>) -> BTreeMap<String, Counts> {
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    for (name, count) in a.iter().flat_map(|record| &record.counts) {
        counts.entry(name.clone()).or_default().a = Some(*count);
    }
    for (name, count) in b.iter().flat_map(|record| &record.counts) {
        counts.entry(name.clone()).or_default().b = Some(*count);
    }
    counts
}

/// The content chunks of a snapshot.
struct Chunks {
    all: ChunkSet,
    by_component: BTreeMap<String, ChunkSet>,
}

impl Chunks {
    async fn of(reader: &Arc<ChunkReader>, records: &[ComponentRecord]) -> Result<Self, Error> {
        let (mut all, mut by_component) = (ChunkSet::default(), BTreeMap::new());
        for record in records {
            let mut chunks = ChunkSet::default();
            let cache = Arc::clone(reader.repository().cache());
            // One of its own for each: what two components share belongs to both.
            let mut reach = Reach::new(Arc::clone(reader));
            let walked = reach.component(record, &mut |id| chunks.insert(&cache, id)).await;
            walked.map_err(|error| {
                Error::from(error).context(format!("the chunks of component `{}` cannot be told", record.name))
            })?;
            all.extend(&chunks);
            by_component.insert(record.name.clone(), chunks);
        }
        Ok(Self { all, by_component })
    }

    fn component_without(
        &self,
        name: &str,
        other: &Self,
        cache: &crate::repository::cache::Cache,
    ) -> Result<Amount, RepositoryError> {
        self.by_component.get(name).map_or(Ok(Amount::default()), |chunks| chunks.amount_without(&other.all, cache))
    }
}

/// The files of a component's tree, directories left out; none where there is no tree.
struct FilesOf(Option<TreeReader>);

impl FilesOf {
    fn open(reader: &Arc<ChunkReader>, record: Option<&ComponentRecord>) -> Result<Self, Error> {
        let tree = record.filter(|record| is_tree(record)).map(|record| TreeReader::open(reader, record));
        Ok(Self(tree.transpose()?))
    }

    async fn next(&mut self) -> Result<Option<TreeEntry>, Error> {
        let Some(tree) = &mut self.0 else { return Ok(None) };
        while let Some(entry) = tree.next().await? {
            if !matches!(entry.kind, EntryKind::Directory) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

fn is_tree(record: &ComponentRecord) -> bool {
    matches!(record.layout, Layout::Tree) && record.status != ComponentStatus::Failed
}

/// Both trees are in one order, so that one pass over each is enough.
async fn files(
    reader: &Arc<ChunkReader>,
    a: Option<&ComponentRecord>,
    b: Option<&ComponentRecord>,
    files_max: usize,
) -> Result<Option<Files>, Error> {
    if !a.is_some_and(is_tree) && !b.is_some_and(is_tree) {
        return Ok(None);
    }
    let (mut of_a, mut of_b) = (FilesOf::open(reader, a)?, FilesOf::open(reader, b)?);
    let (mut next_a, mut next_b) = (of_a.next().await?, of_b.next().await?);
    let mut files = Files::default();
    loop {
        let order = match (&next_a, &next_b) {
            (None, None) => return Ok(Some(files)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => compare_paths(&a.path, &b.path),
        };
        let from_a = if order.is_le() { std::mem::replace(&mut next_a, of_a.next().await?) } else { None };
        let from_b = if order.is_ge() { std::mem::replace(&mut next_b, of_b.next().await?) } else { None };
        files.take(from_a.as_ref(), from_b.as_ref(), files_max);
    }
}

impl Files {
    /// Counts one file: its entry in `a` and in `b`.
    fn take(&mut self, a: Option<&TreeEntry>, b: Option<&TreeEntry>, files_max: usize) {
        let differs = match (a, b) {
            (Some(a), Some(b)) => differs(a, b),
            (Some(_), None) | (None, Some(_)) | (None, None) => vec![],
        };
        let list = match (a, b) {
            (None, None) => return,
            (None, Some(_)) => &mut self.added,
            (Some(_), None) => &mut self.removed,
            (Some(_), Some(_)) if differs.is_empty() => {
                self.unchanged += 1;
                return;
            }
            (Some(_), Some(_)) => &mut self.changed,
        };
        list.count += 1;
        let Some(entry) = a.or(b).filter(|_| list.files.len() < files_max) else { return };
        let (path, a_bytes, b_bytes) = (printable(&entry.path), a.and_then(size), b.and_then(size));
        list.files.push(FileChange { path, a_bytes, b_bytes, differs });
    }
}

fn size(entry: &TreeEntry) -> Option<u64> {
    match &entry.kind {
        EntryKind::File(content) => Some(content.size),
        EntryKind::Directory | EntryKind::Symlink { .. } | EntryKind::HardLink { .. } => None,
    }
}

/// What differs between two files of one path.
fn differs(a: &TreeEntry, b: &TreeEntry) -> Vec<&'static str> {
    let mut differs = Vec::new();
    match (&a.kind, &b.kind) {
        // The same content is cut alike, so that it has the same root.
        (EntryKind::File(a), EntryKind::File(b)) if a == b => {}
        (EntryKind::File(_), EntryKind::File(_)) => differs.push("content"),
        (EntryKind::Symlink { target: a }, EntryKind::Symlink { target: b })
        | (EntryKind::HardLink { first: a }, EntryKind::HardLink { first: b }) => {
            if a != b {
                differs.push("target");
            }
        }
        (EntryKind::Directory, EntryKind::Directory) => {}
        (
            EntryKind::File(_) | EntryKind::Directory | EntryKind::Symlink { .. } | EntryKind::HardLink { .. },
            EntryKind::File(_) | EntryKind::Directory | EntryKind::Symlink { .. } | EntryKind::HardLink { .. },
        ) => differs.push("kind"),
    }
    if a.meta.mode != b.meta.mode {
        differs.push("mode");
    }
    if (a.meta.uid, a.meta.gid) != (b.meta.uid, b.meta.gid) {
        differs.push("owner");
    }
    differs
}
