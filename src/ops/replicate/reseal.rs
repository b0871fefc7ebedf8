//! Writing snapshots anew under other keys.
//!
//! A snapshot under other keys has another id. Its manifest says what it stands for (the tag [`REPLICA_TAG`]), and a mark
//! keeps that when the manifest is gone, so that what the target forgot is not brought again.
//!
//! Holds: before there is a manifest, what was written was read back and is the same, where the target's key reads content.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::choose::{Selection, choose};
use super::needs::finding;
use super::outcome::merged;
use super::proof::{self, StreamProof, TreeHash, proof_of, read_hashes};
use super::{Counts, LeftOut, Mode, Pair, Reason, Replicated};
use crate::error::{Error, ErrorKind};
use crate::format::config::ProfileName;
use crate::format::manifest::{ComponentRecord, ComponentStatus, Layout, Manifest, Sizes, StreamRecord};
use crate::format::mark::{Decisions, TagChanges};
use crate::format::report::Finding;
use crate::format::tree::{ContentRoot, FileContent, TreeEncoder};
use crate::id::SnapshotId;
use crate::limits::INPUT_BLOCK_SIZE_MAX;
use crate::ops::streams::add_counts;
use crate::ops::trees::TreeReader;
use crate::ops::{Context, Progress, TOOL};
use crate::repository::budget::{BUDGET_BYTES_DEFAULT, Budget};
use crate::repository::chunks::ChunkReader;
use crate::repository::confirm::settle_all;
use crate::repository::cut::CutCounts;
use crate::repository::lease::{Claimant, RunLease};
use crate::repository::session::{ComponentWriter, IndexDurable, InputBlock, OpenStream, SessionOptions, WriteSession};
use crate::repository::snapshots::Snapshot;
use crate::repository::stream::StreamReader;
use crate::repository::{Damage, Repository};
use crate::tree_entry::{Entry, EntryKind};

/// Tag of a snapshot that stands for one of another repository: the id of that one, in full.
pub const REPLICA_TAG: &str = "replica-of";

/// Tag that a mark gives, in the target, to the id of a snapshot of the source: the id of the one that stands for it.
pub(super) const REPLICATED_AS: &str = "replicated-as";

/// Bytes that are collected before they are cut: chunks are read one by one.
const BLOCK: usize = INPUT_BLOCK_SIZE_MAX;

/// Encoded entries of a tree that are collected before they are cut, in bytes.
const TREE_BLOCK: usize = 64 << 10;

/// Writes what is chosen anew. The lease is taken and ended once there is something to settle.
pub(super) async fn reseal(
    context: &Context,
    source: &Arc<Repository>,
    target: &Arc<Repository>,
    lease: &mut Option<RunLease>,
    selection: &Selection,
) -> Result<Replicated, Error> {
    let mut chosen = choose(source, Some(target), Mode::Reseal, selection).await?;
    let reading = |repository: &Arc<Repository>| {
        Arc::new(ChunkReader::new(Arc::clone(repository), Arc::clone(&context.executor)))
    };
    let mut resealer = Resealer {
        context,
        target,
        from: reading(source),
        back: target.keys().reads_content().then(|| reading(target)),
        files: HashMap::new(),
        files_back: HashMap::new(),
        counts: Counts::default(),
        done_bytes: 0,
        total_bytes: chosen.snapshots.iter().map(|snapshot| logical_bytes(&snapshot.manifest)).sum(),
    };
    let (mut made, mut left_out) = (Vec::new(), std::mem::take(&mut chosen.left_out));
    let mut head = chosen.head_there;
    let claimant = lease.as_ref().expect("the run has its lease").claimant().clone();
    for snapshot in &chosen.snapshots {
        context.info(format!("sealing snapshot {} anew", snapshot.id.short()));
        let written = resealer.snapshot(snapshot).await?;
        let (parts, components, streams) = match written {
            Written::Whole { parts, components, streams } => (parts, components, streams),
            Written::Not { reason, findings } => {
                left_out.push(LeftOut { id: snapshot.id, reason, findings });
                continue;
            }
        };
        let running = lease.as_ref().expect("the lease ends behind the last snapshot");
        let (id, manifest) = resealer.commit(*parts, snapshot, components, running, head).await?;
        head = Some(id);
        made.push((snapshot.id, id, manifest, streams));
    }
    // All manifests before any is said to count.
    let manifests: Vec<(SnapshotId, Manifest)> =
        made.iter().map(|(_, id, manifest, _)| (*id, manifest.clone())).collect();
    let lease = lease.take().expect("the lease is ended once");
    let lacking = settle_all(target, &context.executor, lease, &manifests).await?;
    for (id, _, _, _) in made.extract_if(.., |(_, id, _, _)| lacking.contains_key(id)) {
        left_out.push(LeftOut { id, reason: Reason::Contended { chunks: 0 }, findings: vec![] });
    }
    let mut unmarked: BTreeMap<SnapshotId, SnapshotId> = std::mem::take(&mut chosen.unmarked);
    unmarked.extend(made.iter().map(|(source, target, _, _)| (*source, *target)));
    mark(target, &claimant, &unmarked).await?;
    if let Some((_, newest, _, _)) = made.last() {
        context.state.set_last_head(target.config().repository, &target.store().location(), *newest)?;
    }
    let brought: Vec<(SnapshotId, SnapshotId)> = made.iter().map(|(source, target, _, _)| (*source, *target)).collect();
    let proof = proof::compare(source, &chosen, &brought, &left_out, selection).await?;
    let findings = merged(left_out.iter().flat_map(|left| left.findings.clone()));
    let pairs = made.into_iter().map(|(source, target, _, streams)| Pair { source, target, streams }).collect();
    Ok(Replicated {
        mode: Mode::Reseal,
        pairs,
        there: chosen.there.into_keys().collect(),
        forgotten: chosen.forgotten,
        late: chosen.late,
        withdrawn: vec![],
        left_out,
        findings,
        counts: resealer.counts,
        proof,
        report: None,
        source_report: None,
    })
}

fn logical_bytes(manifest: &Manifest) -> u64 {
    manifest.components.iter().map(|component| component.sizes.logical_bytes).sum()
}

/// Notes in a mark which snapshot stands for which.
async fn mark(target: &Repository, claimant: &Claimant, pairs: &BTreeMap<SnapshotId, SnapshotId>) -> Result<(), Error> {
    let tags = |target: &SnapshotId| TagChanges::from([(REPLICATED_AS.to_owned(), Some(target.to_hex()))]);
    let tagged: BTreeMap<_, _> = pairs.iter().map(|(source, target)| (*source, tags(target))).collect();
    let decisions = Decisions { tagged, ..Decisions::default() };
    target.decide(claimant, |_| Ok(decisions.clone())).await?;
    Ok(())
}

/// What came of writing one snapshot.
enum Written {
    /// All of it is in packs, and was compared.
    Whole { parts: Box<(WriteSession, IndexDurable)>, components: Vec<ComponentRecord>, streams: Vec<StreamProof> },
    /// It cannot be had.
    Not { reason: Reason, findings: Vec<Finding> },
}

struct Resealer<'a> {
    context: &'a Context,
    target: &'a Arc<Repository>,
    from: Arc<ChunkReader>,
    /// Reads the target back; `None` if its key does not read content.
    back: Option<Arc<ChunkReader>>,
    /// Files that were written in this run, by what they are in the source: snapshots share most of them.
    files: HashMap<ContentRoot, (ContentRoot, blake3::Hash)>,
    /// The same of what was read back.
    files_back: HashMap<ContentRoot, blake3::Hash>,
    counts: Counts,
    done_bytes: u64,
    total_bytes: u64,
}

impl Resealer<'_> {
    async fn snapshot(&mut self, snapshot: &Snapshot) -> Result<Written, Error> {
        let budget = Budget::new(BUDGET_BYTES_DEFAULT).expect("the default is above the least");
        let options = SessionOptions { budget, executor: Arc::clone(&self.context.executor), stage: None };
        let session = self.target.write(options).await?;
        let (mut components, mut streams) = (Vec::new(), Vec::new());
        for record in &snapshot.manifest.components {
            match self.component(&session, record).await {
                Ok((component, proofs)) => {
                    components.push(component);
                    streams.extend(proofs);
                }
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    self.context.warn(format!("snapshot {} cannot be read whole: {error}", snapshot.id.short()));
                    let object = format!("snapshots/{} {}", snapshot.id, record.name);
                    let damage = Damage { object, layer: "chunk", problem: error.chain().join(": ") };
                    let findings = vec![finding(damage, Some(&snapshot.id))];
                    return Ok(Written::Not { reason: Reason::Damaged, findings });
                }
                Err(error) => return Err(error),
            }
        }
        // What was cut must be findable before it can be read back.
        let packs = session.flush().await?;
        let index = session.write_index(packs).await?;
        self.counts.indexes += index.indexes().len() as u64;
        self.counts.bytes_stored += session.stored_bytes().await;
        if let Some(back) = self.back.clone() {
            let mut read = Vec::new();
            for component in &components {
                read.extend(read_hashes(self.context, &back, component, &mut self.files_back).await?);
            }
            if read != streams {
                return Ok(Written::Not { reason: Reason::Differs, findings: vec![] });
            }
            streams.iter_mut().for_each(|stream| stream.read_back = true);
        }
        Ok(Written::Whole { parts: Box::new((session, index)), components, streams })
    }

    /// Puts the manifest: that of the source with what is different here.
    async fn commit(
        &self,
        (session, index): (WriteSession, IndexDurable),
        snapshot: &Snapshot,
        components: Vec<ComponentRecord>,
        lease: &RunLease,
        head: Option<SnapshotId>,
    ) -> Result<(SnapshotId, Manifest), Error> {
        self.context.cancel.check()?;
        let mut manifest = Manifest {
            finished_at: self.context.clock().now(),
            run: lease.claimant().run,
            lease_deadline: lease.deadline(),
            previous: head,
            tool: TOOL.to_owned(),
            indexes: index.indexes().to_vec(),
            components,
            ..snapshot.manifest.clone()
        };
        manifest.tags.insert(REPLICA_TAG.to_owned(), snapshot.id.to_hex());
        let id = session.commit(&manifest, &index).await?;
        Ok((id, manifest))
    }

    async fn component(
        &mut self,
        session: &WriteSession,
        record: &ComponentRecord,
    ) -> Result<(ComponentRecord, Vec<StreamProof>), Error> {
        if record.status == ComponentStatus::Failed {
            return Ok((record.clone(), vec![]));
        }
        let mut sizes = Sizes { files: record.sizes.files, ..Sizes::default() };
        let mut writer = session.component().await;
        let (streams, proofs) = match &record.layout {
            Layout::Plain | Layout::Neo4jDump { .. } => self.streams(session, &mut writer, record, &mut sizes).await?,
            Layout::Tree => {
                let (stream, proof) = self.tree(session, &mut writer, record, &mut sizes).await?;
                (vec![stream], vec![proof])
            }
        };
        sizes.added_bytes = writer.finish().await?;
        Ok((ComponentRecord { streams, sizes, ..record.clone() }, proofs))
    }

    async fn streams(
        &mut self,
        session: &WriteSession,
        writer: &mut ComponentWriter,
        record: &ComponentRecord,
        sizes: &mut Sizes,
    ) -> Result<(Vec<StreamRecord>, Vec<StreamProof>), Error> {
        let (mut streams, mut proofs) = (Vec::new(), Vec::new());
        for stream in &record.streams {
            let mut open = writer.content(stream.profile);
            let hasher = self.pour(session, writer, &mut open, &stream.root, stream.length).await?;
            let (written, counts) = writer.end_as(&stream.name, open).await?;
            add_counts(sizes, counts);
            streams.push(written);
            proofs.push(proof_of(&record.name, &stream.name, stream.length, &hasher));
        }
        Ok((streams, proofs))
    }

    /// Writes the entries of a folder, each file with its new root.
    async fn tree(
        &mut self,
        session: &WriteSession,
        writer: &mut ComponentWriter,
        record: &ComponentRecord,
        sizes: &mut Sizes,
    ) -> Result<(StreamRecord, StreamProof), Error> {
        let invalid = |error| Error::with_source(ErrorKind::Damaged, "the stored tree is not valid", error);
        let (mut tree, mut hash) = (TreeReader::open(&self.from, record)?, TreeHash::default());
        let (mut open, mut encoder, mut pending) = (writer.tree(), TreeEncoder::new(), Vec::new());
        while let Some(entry) = tree.next().await? {
            let Entry { path, meta, kind } = entry;
            let (kind, content) = match kind {
                EntryKind::File(file) => {
                    let (root, content) = self.file(session, writer, &file, sizes).await?;
                    (EntryKind::File(FileContent { size: file.size, root }), Some(content))
                }
                EntryKind::Directory => (EntryKind::Directory, None),
                EntryKind::Symlink { target } => (EntryKind::Symlink { target }, None),
                EntryKind::HardLink { first } => (EntryKind::HardLink { first }, None),
            };
            let entry = Entry { path, meta, kind };
            hash.entry(&entry, content.as_ref());
            encoder.push(&entry, &mut pending).map_err(invalid)?;
            if pending.len() >= TREE_BLOCK {
                write(session, writer, &mut open, std::mem::take(&mut pending).into()).await?;
            }
        }
        write(session, writer, &mut open, pending.into()).await?;
        encoder.finish().map_err(invalid)?;
        let (root, counts) = writer.end(open).await?;
        let stream = StreamRecord { name: "tree".to_owned(), profile: ProfileName::Meta, length: counts.bytes, root };
        Ok((stream, hash.finish(&record.name)))
    }

    /// Writes a file, unless this run has done so.
    async fn file(
        &mut self,
        session: &WriteSession,
        writer: &mut ComponentWriter,
        file: &FileContent,
        sizes: &mut Sizes,
    ) -> Result<(ContentRoot, blake3::Hash), Error> {
        if let Some((root, content)) = self.files.get(&file.root) {
            let counts = CutCounts { bytes: file.size, shared_bytes: file.size, ..CutCounts::default() };
            add_counts(sizes, counts);
            self.done_bytes += file.size;
            return Ok((root.clone(), *content));
        }
        let mut open = writer.content(ProfileName::Files);
        let content = self.pour(session, writer, &mut open, &file.root, file.size).await?.finalize();
        let (root, counts) = writer.end(open).await?;
        add_counts(sizes, counts);
        self.files.insert(file.root.clone(), (root.clone(), content));
        Ok((root, content))
    }

    /// Reads a stream from the source, writes it to an open one, and hashes it on the way.
    async fn pour(
        &mut self,
        session: &WriteSession,
        writer: &mut ComponentWriter,
        open: &mut OpenStream,
        root: &ContentRoot,
        length: u64,
    ) -> Result<blake3::Hasher, Error> {
        let mut stream = StreamReader::new(Arc::clone(&self.from), root, length)?;
        let (mut hasher, mut block) = (blake3::Hasher::new(), BytesMut::new());
        while let Some(piece) = stream.next().await? {
            self.context.cancel.check()?;
            hasher.update(&piece);
            if !block.is_empty() && block.len() + piece.len() > BLOCK {
                write(session, writer, open, block.split().freeze()).await?;
            }
            block.extend_from_slice(&piece);
            self.done_bytes += piece.len() as u64;
            let (action, target) = ("replicate", self.target.store().location());
            let (done_bytes, total_bytes) = (self.done_bytes, Some(self.total_bytes));
            self.context.events.progress(&Progress { action, target, done_bytes, total_bytes });
        }
        write(session, writer, open, block.freeze()).await?;
        Ok(hasher)
    }
}

async fn write(
    session: &WriteSession,
    writer: &mut ComponentWriter,
    open: &mut OpenStream,
    bytes: Bytes,
) -> Result<(), Error> {
    if bytes.is_empty() {
        return Ok(());
    }
    let permit = session.budget().acquire(bytes.len() as u64).await;
    Ok(writer.write(open, InputBlock { bytes, border: false, permit: Some(permit) }).await?)
}
