//! The end proof: that both repositories hold the same snapshots, and of those under other keys the same bytes.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use super::{Chosen, LeftOut, Selection};
use crate::error::Error;
use crate::format::manifest::{ComponentRecord, ComponentStatus, Layout};
use crate::format::tree::{ContentRoot, TreeEntry};
use crate::id::{SnapshotId, hex_of};
use crate::ops::Context;
use crate::ops::trees::TreeReader;
use crate::repository::Repository;
use crate::repository::chunks::ChunkReader;
use crate::repository::stream::StreamReader;
use crate::tree_entry::EntryKind;

/// Which snapshots both hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetProof {
    /// Snapshots that were asked for and that count in both.
    pub in_both: u64,
    /// Snapshots that count in the source, were asked for, and are neither in the target nor forgotten there.
    pub missing: Vec<SnapshotId>,
    /// Snapshots of the target that do not stand for one of the source.
    pub only_there: u64,
    /// Snapshots of which this run saw that every chunk resolves in the target.
    pub resolved: u64,
}

impl fmt::Display for SetProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { in_both, missing, only_there, resolved } = self;
        write!(f, "{in_both} snapshots in both, {} missing, {only_there} only in the target", missing.len())?;
        match resolved {
            0 => Ok(()),
            resolved => write!(f, "; every chunk of the {resolved} copied ones is there"),
        }
    }
}

/// Compares the sets. `brought` and `chosen` are what this run knows of the target; the source is looked at anew.
pub(super) async fn compare(
    source: &Repository,
    chosen: &Chosen,
    brought: &[(SnapshotId, SnapshotId)],
    left_out: &[LeftOut],
    selection: &Selection,
) -> Result<SetProof, Error> {
    let in_target: BTreeSet<SnapshotId> =
        chosen.there.keys().copied().chain(brought.iter().map(|(source, _)| *source)).collect();
    let counted: BTreeSet<SnapshotId> = if brought.is_empty() && left_out.is_empty() {
        // Nothing was done since the source was looked at.
        chosen.there.keys().chain(chosen.snapshots.iter().map(|snapshot| &snapshot.id)).copied().collect()
    } else {
        let (snapshots, _) = source.snapshots().await?;
        let counts = snapshots.iter().filter(|snapshot| snapshot.is_certain() && selection.contains(&snapshot.id));
        // What was made since this run began is for the next one.
        let known =
            |id: &SnapshotId| in_target.contains(id) || chosen.snapshots.iter().any(|snapshot| snapshot.id == *id);
        counts.map(|snapshot| snapshot.id).filter(known).collect()
    };
    let missing = counted.difference(&in_target).filter(|id| !chosen.forgotten.contains(id)).copied().collect();
    // What was brought in this run did not count there before.
    let only_there = chosen.counted_there.difference(&chosen.paired_there).count() as u64;
    let in_both = counted.intersection(&in_target).count() as u64;
    Ok(SetProof { in_both, missing, only_there, resolved: brought.len() as u64 })
}

/// What a stream is, whatever keys it is sealed under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamProof {
    /// The component.
    pub component: String,
    /// `content`, `headers`; `files` for all entries of a folder with their content.
    pub stream: String,
    /// Length of the plain bytes; of a folder, of all its files.
    pub length: u64,
    /// BLAKE3 of the plain bytes, hexadecimal; of a folder, of its entries, each with the BLAKE3 of its content.
    pub blake3: String,
    /// Whether the target was read back and gave the same; `false` if its key does not read content.
    pub read_back: bool,
}

impl fmt::Display for StreamProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { component, stream, length, blake3, read_back } = self;
        let compared = if *read_back { "the same when read back" } else { "not read back" };
        write!(f, "{component} {stream}: {length} bytes, blake3 {blake3}, {compared}")
    }
}

/// Hashes a folder: its entries in order.
#[derive(Default)]
pub(super) struct TreeHash {
    hasher: blake3::Hasher,
    length: u64,
}

impl TreeHash {
    /// Takes an entry; `content` is the hash of its content, where it is a file.
    pub fn entry(&mut self, entry: &TreeEntry, content: Option<&blake3::Hash>) {
        let field = |hasher: &mut blake3::Hasher, bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        let meta = &entry.meta;
        field(&mut self.hasher, &entry.path);
        for number in [meta.mode, meta.uid, meta.gid, meta.mtime.nanoseconds] {
            self.hasher.update(&number.to_le_bytes());
        }
        self.hasher.update(&meta.mtime.seconds.to_le_bytes());
        match &entry.kind {
            EntryKind::File(file) => {
                self.length += file.size;
                self.hasher.update(b"f").update(&file.size.to_le_bytes());
                self.hasher.update(content.expect("a file has content").as_bytes());
            }
            EntryKind::Directory => drop(self.hasher.update(b"d")),
            EntryKind::Symlink { target } => {
                self.hasher.update(b"s");
                field(&mut self.hasher, target);
            }
            EntryKind::HardLink { first } => {
                self.hasher.update(b"h");
                field(&mut self.hasher, first);
            }
        }
    }

    /// What it all is.
    pub fn finish(self, component: &str) -> StreamProof {
        proof_of(component, "files", self.length, &self.hasher)
    }
}

/// What was hashed, as a proof; not read back yet.
pub(super) fn proof_of(component: &str, stream: &str, length: u64, hasher: &blake3::Hasher) -> StreamProof {
    let blake3 = hex_of(hasher.finalize().as_bytes());
    StreamProof { component: component.to_owned(), stream: stream.to_owned(), length, blake3, read_back: false }
}

/// Reads a component and hashes its plain bytes. `known` remembers files that several snapshots share.
pub(super) async fn read_hashes(
    context: &Context,
    reader: &Arc<ChunkReader>,
    record: &ComponentRecord,
    known: &mut HashMap<ContentRoot, blake3::Hash>,
) -> Result<Vec<StreamProof>, Error> {
    match (record.status, &record.layout) {
        (ComponentStatus::Failed, _) => Ok(vec![]),
        (ComponentStatus::Complete | ComponentStatus::Partial, Layout::Plain | Layout::Neo4jDump { .. }) => {
            let mut proofs = Vec::new();
            for stream in &record.streams {
                let hasher = hash_stream(context, reader, &stream.root, stream.length).await?;
                proofs.push(proof_of(&record.name, &stream.name, stream.length, &hasher));
            }
            Ok(proofs)
        }
        (ComponentStatus::Complete | ComponentStatus::Partial, Layout::Tree) => {
            let (mut tree, mut hash) = (TreeReader::open(reader, record)?, TreeHash::default());
            while let Some(entry) = tree.next().await? {
                let content = match &entry.kind {
                    EntryKind::File(file) => match known.get(&file.root) {
                        Some(content) => Some(*content),
                        None => {
                            let content = hash_stream(context, reader, &file.root, file.size).await?.finalize();
                            known.insert(file.root.clone(), content);
                            Some(content)
                        }
                    },
                    EntryKind::Directory | EntryKind::Symlink { .. } | EntryKind::HardLink { .. } => None,
                };
                hash.entry(&entry, content.as_ref());
            }
            Ok(vec![hash.finish(&record.name)])
        }
    }
}

async fn hash_stream(
    context: &Context,
    reader: &Arc<ChunkReader>,
    root: &ContentRoot,
    length: u64,
) -> Result<blake3::Hasher, Error> {
    let (mut hasher, mut stream) = (blake3::Hasher::new(), StreamReader::new(Arc::clone(reader), root, length)?);
    while let Some(piece) = stream.next().await? {
        context.cancel.check()?;
        hasher.update(&piece);
    }
    Ok(hasher)
}
