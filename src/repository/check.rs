//! Verifying: does everything that a snapshot needs exist, and is it what it should be?
//!
//! *Structure* reads all clear and metadata objects again (never the cache), sees that every pack is there at its length,
//! and that every chunk of every stream resolves. *Data* reads every pack whole as well: name, seal, and the hash of each
//! chunk. Damage is a [`Finding`], never an `Err`; `Err` means that verifying itself was not possible.
//!
//! Does not: repair, or judge snapshots that are not asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::chunks::{ChunkReader, open_segment};
use super::executor::{Executor, run};
use super::marks::Record;
use super::snapshots::Snapshot;
use super::stream::ChunkIds;
use super::{Damage, Repository, RepositoryError, check_name, missing, open, seal_damage};
use crate::format::config::Config;
use crate::format::envelope::ObjectType;
use crate::format::index::{Index, PackEntry, PackFooter, SegmentKind};
use crate::format::layout;
use crate::format::lease::Lease;
use crate::format::manifest::{ComponentRecord, ComponentStatus};
use crate::format::report::Finding;
use crate::format::tree::{FileContent, TreeDecoder};
use crate::id::{ChunkId, ObjectId, PackId, SnapshotId};
use crate::limits::{OBJECT_PLAIN_SIZE_MAX, OBJECT_SIZE_MAX, PACK_SIZE_MAX};
use crate::seal::object::unseal_object;
use crate::seal::pack::PackOpener;
use crate::storage::StoreError;
use crate::tree_entry::EntryKind;

/// How often the index is read again because packs that it named had gone meanwhile.
const PRESENCE_TRIES: u32 = 3;

/// How thorough to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Everything is there and resolves.
    Structure,
    /// Every byte is read and hashed as well.
    Data,
}

/// What was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Damage.
    pub findings: Vec<Finding>,
    /// Metadata objects that were opened.
    pub objects: u64,
    /// Packs that an index names.
    pub packs: u64,
    /// Packs that were read whole.
    pub packs_read: u64,
    /// Bytes of packs that were read.
    pub bytes_read: u64,
    /// Chunks that were hashed.
    pub chunks_hashed: u64,
    /// Snapshots whose streams were resolved.
    pub snapshots: u64,
    /// Packs in the store that no index names: left by interrupted runs, harmless.
    pub unreferenced_packs: u64,
    /// Snapshots that landed after their lease and that nobody confirmed: they are incomplete, and were not resolved.
    pub late: Vec<SnapshotId>,
}

/// Tells how far a check is.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Verifies a repository. `known_head` is the newest snapshot that this machine has seen in it.
pub async fn check(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    depth: Depth,
    only: &BTreeSet<SnapshotId>,
    known_head: Option<SnapshotId>,
    progress: Progress<'_>,
) -> Result<Checked, RepositoryError> {
    let mut checker = Checker {
        repository: Arc::clone(repository),
        executor: Arc::clone(executor),
        checked: Checked::default(),
        damages: Vec::new(),
        hurt_packs: HashSet::new(),
        packs: BTreeMap::new(),
    };
    checker.clear_objects(repository.config()).await?;
    // Manifests before indexes before packs, against the order of writing: what a running `create` adds meanwhile is then
    // either complete or not looked for.
    let manifests = repository.listed_manifests().await?;
    let record = checker.record().await?;
    let indexes = checker.indexes().await?;
    let snapshots = checker.snapshots(&manifests, &record, only, known_head, &indexes).await?;
    checker.reports_and_leases().await?;
    checker.packs_present().await?;
    if depth == Depth::Data {
        checker.pack_data(progress).await?;
    }
    checker.streams(&snapshots).await?;
    Ok(checker.checked)
}

struct Checker {
    repository: Arc<Repository>,
    executor: Arc<dyn Executor>,
    checked: Checked,
    /// Damage to packs, reported once it is known whom it hurts.
    damages: Vec<(PackId, Damage)>,
    hurt_packs: HashSet<PackId>,
    packs: BTreeMap<PackId, PackEntry>,
}

/// What to do about damage to an object of a kind.
fn remedy(object: &str) -> &'static str {
    match object.split('/').next().unwrap_or_default() {
        layout::INDEX => "the packs still hold what it described; back up again, then verify",
        layout::SNAPSHOTS => {
            "the snapshot is lost unless a copy of this object exists; put that copy back under its name"
        }
        layout::REPORTS | layout::LEASES => "no backup is hurt; put a copy back if the evidence matters",
        layout::CONFIG | layout::KEYS => "put a copy of this object back under its name; without one nothing opens",
        _ => "put a copy of this object back under its name, or back up again: what is damaged is then stored anew",
    }
}

fn finding(damage: Damage, hurts: Vec<String>) -> Finding {
    let remedy = remedy(&damage.object).to_owned();
    Finding { object: damage.object, layer: damage.layer.to_owned(), problem: damage.problem, hurts, remedy }
}

impl Checker {
    fn report(&mut self, damage: Damage, hurts: Vec<String>) {
        self.checked.findings.push(finding(damage, hurts));
    }

    fn pack_damage(&mut self, pack: PackId, damage: Damage) {
        self.hurt_packs.insert(pack);
        self.repository.cached(self.repository.cache().set_damaged(&pack, true));
        self.damages.push((pack, damage));
    }

    /// Config generations and key slots, read anew.
    async fn clear_objects(&mut self, config: &Config) -> Result<(), RepositoryError> {
        let (slots, damages) = open::read_slots(&**self.repository.store(), config).await?;
        self.checked.objects += slots.len() as u64 + 1;
        damages
            .into_iter()
            .for_each(|damage| self.report(damage, vec!["everything, for who uses this key".to_owned()]));
        Ok(())
    }

    /// All index objects, read anew. Fills `packs` and brings the cache to what they say.
    async fn indexes(&mut self) -> Result<BTreeSet<ObjectId>, RepositoryError> {
        let listed = self.repository.list_objects(ObjectType::Index).await?;
        let mut alive = listed.clone();
        self.packs.clear();
        for id in &listed {
            match self.repository.get_index(id).await {
                Ok(Index { supersedes, packs }) => {
                    alive.extend(supersedes);
                    self.packs.extend(packs.into_iter().map(|pack| (pack.id, pack)));
                    self.checked.objects += 1;
                }
                // A `prune` that replaced it has put what it said into another one.
                Err(RepositoryError::Damaged(damage)) if self.is_gone(ObjectType::Index, id, &damage).await? => {}
                Err(RepositoryError::Damaged(damage)) => {
                    // What it said before it was damaged may be in the cache; a fresh machine would not have it.
                    self.repository.cache().remove_index(id)?;
                    self.report(damage, vec!["snapshots whose chunks only this index names, see below".to_owned()]);
                }
                Err(error) => return Err(error),
            }
        }
        self.repository.sync_index().await?;
        self.checked.packs = self.packs.len() as u64;
        Ok(alive)
    }

    /// Manifests, read anew, and their chain.
    async fn snapshots(
        &mut self,
        listed: &BTreeMap<SnapshotId, Timestamp>,
        record: &Record,
        only: &BTreeSet<SnapshotId>,
        known_head: Option<SnapshotId>,
        indexes: &BTreeSet<ObjectId>,
    ) -> Result<Vec<Snapshot>, RepositoryError> {
        let mut snapshots = Vec::new();
        for (id, stored_at) in listed.iter().filter(|(id, _)| !record.forgotten.contains(*id)) {
            let read = self.repository.get_object(ObjectType::Manifest, id).await;
            match read.and(self.repository.manifest(id).await) {
                Ok(manifest) => snapshots.push(self.repository.judged(*id, manifest, *stored_at, record)),
                // Forgotten, or withdrawn by a run that came too late, since it was listed.
                Err(RepositoryError::Damaged(damage)) if self.is_gone(ObjectType::Manifest, id, &damage).await? => {}
                Err(RepositoryError::Damaged(damage)) => self.report(damage, vec![format!("snapshot {id}")]),
                Err(error) => return Err(error),
            }
        }
        self.checked.objects += snapshots.len() as u64;
        // A snapshot that was copied here need not have come with the one before it.
        let made_here = snapshots.iter().filter(|snapshot| !snapshot.late && !record.confirmed.contains(&snapshot.id));
        let named = made_here.filter_map(|snapshot| snapshot.manifest.previous).chain(known_head);
        let known = |id: &SnapshotId| listed.contains_key(id) || record.forgotten.contains(id);
        let gone: BTreeSet<SnapshotId> = named.filter(|id| !known(id)).collect();
        for id in gone {
            self.report(missing(&layout::object(ObjectType::Manifest, &id)), vec![format!("snapshot {id}")]);
        }
        for Snapshot { id, manifest, .. } in &snapshots {
            for index in manifest.indexes.iter().filter(|index| !indexes.contains(index)) {
                let hurts = vec![format!("snapshot {id}")];
                self.checked.findings.push(finding(missing(&layout::object(ObjectType::Index, index)), hurts));
            }
        }
        snapshots.retain(|snapshot| only.is_empty() || only.contains(&snapshot.id));
        self.checked.late = snapshots.iter().filter(|snapshot| snapshot.late).map(|snapshot| snapshot.id).collect();
        snapshots.retain(|snapshot| !snapshot.late);
        Ok(snapshots)
    }

    /// All marks, read anew. Without one of them it is not known which snapshots there are: then all that are there are looked at.
    async fn record(&mut self) -> Result<Record, RepositoryError> {
        match self.repository.record_anew().await {
            Ok(record) => {
                self.checked.objects += record.marks.len() as u64;
                Ok(record)
            }
            Err(RepositoryError::Damaged(damage)) => {
                self.report(damage, vec!["every snapshot: which ones are forgotten or late is not known".to_owned()]);
                Ok(Record::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether an object that was not found is not listed any more either.
    async fn is_gone(&self, kind: ObjectType, id: &ObjectId, damage: &Damage) -> Result<bool, RepositoryError> {
        Ok(damage.layer == "presence" && !self.repository.list_objects(kind).await?.contains(id))
    }

    async fn reports_and_leases(&mut self) -> Result<(), RepositoryError> {
        let (reports, damages) = self.repository.reports().await?;
        self.checked.objects += reports.len() as u64;
        let there: BTreeSet<ObjectId> = self.repository.list_objects(ObjectType::Report).await?;
        damages.into_iter().for_each(|damage| self.report(damage, vec!["evidence".to_owned()]));
        let gone: BTreeSet<ObjectId> =
            reports.iter().filter_map(|(_, report)| report.previous).filter(|id| !there.contains(id)).collect();
        for id in gone {
            self.report(missing(&layout::object(ObjectType::Report, &id)), vec!["evidence".to_owned()]);
        }
        for info in self.repository.store().list(layout::LEASES).await? {
            let stored = match self.repository.store().get(&info.name, OBJECT_SIZE_MAX).await {
                Ok(stored) => stored,
                // Leases go when nobody needs them any more.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error.into()),
            };
            let opened = unseal_object(self.repository.keys(), ObjectType::Lease, &stored)
                .map_err(|error| seal_damage(&info.name, error))
                .and_then(|body| Lease::decode(&body).map_err(|error| super::decode_damage(&info.name, &error)))
                .and_then(|lease| {
                    let name = layout::lease(&lease.run, lease.number);
                    let problem = format!("it belongs at `{name}`");
                    (name == info.name).then_some(()).ok_or_else(|| Damage {
                        object: info.name.to_string(),
                        layer: "name",
                        problem,
                    })
                });
            match opened {
                Ok(()) => self.checked.objects += 1,
                Err(damage) => self.report(damage, vec![]),
            }
        }
        Ok(())
    }

    /// Every pack that an index names is there at its length.
    async fn packs_present(&mut self) -> Result<(), RepositoryError> {
        for _ in 0..PRESENCE_TRIES {
            let missing = self.packs_listed().await?;
            if missing.is_empty() {
                return Ok(());
            }
            // A `prune` takes packs out of the index before it deletes them: what is still named is missing indeed.
            self.indexes().await?;
            if missing.iter().all(|(pack, _)| self.packs.contains_key(pack)) {
                missing.into_iter().for_each(|(pack, damage)| self.pack_damage(pack, damage));
                return Ok(());
            }
        }
        Ok(())
    }

    /// Looks all packs up in the listing; gives those that are not there as they should be.
    async fn packs_listed(&mut self) -> Result<Vec<(PackId, Damage)>, RepositoryError> {
        let mut sizes = HashMap::new();
        for kind in [ObjectType::ContentPack, ObjectType::TreePack] {
            for info in self.repository.store().list(layout::folder(kind)).await? {
                let Some(id) = layout::id_in(&info.name).filter(|id| layout::object(kind, id) == info.name) else {
                    let problem = "its name is not that of a pack".to_owned();
                    self.report(Damage { object: info.name.to_string(), layer: "name", problem }, vec![]);
                    continue;
                };
                sizes.insert(id, info.size);
            }
        }
        self.checked.unreferenced_packs = sizes.keys().filter(|id| !self.packs.contains_key(id)).count() as u64;
        Ok(self.packs.values().filter_map(|pack| Some((pack.id, wrong_length(pack, sizes.get(&pack.id))?))).collect())
    }

    /// Every pack that an index names, read whole.
    async fn pack_data(&mut self, progress: Progress<'_>) -> Result<(), RepositoryError> {
        let reads_content = self.repository.keys().reads_content();
        let entries: Vec<PackEntry> = self.packs.values().cloned().collect();
        let total: u64 = entries.iter().map(|pack| u64::from(pack.stored_size)).sum();
        let reader = Arc::new(ChunkReader::new(Arc::clone(&self.repository), Arc::clone(&self.executor)));
        let mut seen = 0;
        for entry in entries {
            seen += u64::from(entry.stored_size);
            if !self.hurt_packs.contains(&entry.id) {
                self.one_pack(&reader, entry, reads_content).await?;
            }
            progress(seen, total);
        }
        Ok(())
    }

    async fn one_pack(
        &mut self,
        reader: &Arc<ChunkReader>,
        entry: PackEntry,
        reads_content: bool,
    ) -> Result<(), RepositoryError> {
        let name = layout::object(entry.kind, &entry.id);
        let stored = match self.repository.store().get(&name, PACK_SIZE_MAX).await {
            Ok(stored) => stored,
            Err(StoreError::NotFound { .. }) => {
                self.indexes().await?;
                if self.packs.contains_key(&entry.id) {
                    self.pack_damage(entry.id, missing(&name));
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.checked.packs_read += 1;
        self.checked.bytes_read += stored.len() as u64;
        let readable = entry.kind == ObjectType::TreePack || reads_content;
        let (id, pieces) = (entry.id, entry.segments.len());
        let based: Vec<(usize, Vec<ChunkId>)> =
            entry.segments.iter().enumerate().map(|(at, segment)| (at, segment.base.clone())).collect();
        let mut bases = vec![Vec::new(); pieces];
        for (at, base) in based {
            for chunk in base {
                match reader.chunk(&chunk).await {
                    Ok(bytes) => bases[at].extend_from_slice(&bytes),
                    Err(RepositoryError::Damaged(damage)) => self.pack_damage(id, damage),
                    Err(error @ RepositoryError::MissingChunk { .. }) => {
                        let problem = format!("the base of segment {at} is not there: {error}");
                        self.pack_damage(id, Damage { object: name.to_string(), layer: "chunk", problem });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let keys = Arc::clone(self.repository.keys());
        let result = run(&self.executor, move || {
            check_name(&name, &entry.id, &stored)?;
            if !readable {
                return Ok(0);
            }
            let opener = PackOpener::new(&keys, entry.kind, &stored).map_err(|error| seal_damage(&name, error))?;
            check_footer(&name, &opener, &entry, &stored)?;
            let mut chunks = 0;
            for (ordinal, (segment, base)) in (0u32..).zip(entry.segments.iter().zip(&bases)) {
                let start = usize::try_from(segment.offset).expect("usize has 32 bits or more");
                let end = start + usize::try_from(segment.stored_length).expect("usize has 32 bits or more");
                open_segment(&keys, &name, &opener, ordinal, segment, &stored[start..end], base)?;
                chunks += segment.chunks.len() as u64;
            }
            Ok(chunks)
        })
        .await;
        match result {
            Ok(chunks) => {
                self.checked.chunks_hashed += chunks;
                self.repository.cached(self.repository.cache().set_damaged(&id, false));
            }
            Err(damage) => self.pack_damage(id, damage),
        }
        Ok(())
    }

    /// Resolves every stream, and tells which ones damaged packs hurt.
    async fn streams(&mut self, snapshots: &[Snapshot]) -> Result<(), RepositoryError> {
        let reader = Arc::new(ChunkReader::new(Arc::clone(&self.repository), Arc::clone(&self.executor)));
        let mut hurt: HashMap<PackId, BTreeSet<String>> = HashMap::new();
        for snapshot in snapshots {
            self.checked.snapshots += 1;
            for component in &snapshot.manifest.components {
                self.component(&reader, snapshot, component, &mut hurt).await?;
            }
        }
        for (pack, damage) in std::mem::take(&mut self.damages) {
            let hurts: Vec<String> =
                hurt.get(&pack).map(|streams| streams.iter().cloned().collect()).unwrap_or_default();
            let mut found = finding(damage, hurts);
            if self.packs.get(&pack).is_some_and(only_descriptions) {
                found.hurts.push("nothing but the rebuilding of a lost index".to_owned());
                found.remedy = "put a copy of this object back under its name; no restore needs it".to_owned();
            }
            self.checked.findings.push(found);
        }
        Ok(())
    }

    async fn component(
        &mut self,
        reader: &Arc<ChunkReader>,
        snapshot: &Snapshot,
        component: &ComponentRecord,
        hurt: &mut HashMap<PackId, BTreeSet<String>>,
    ) -> Result<(), RepositoryError> {
        if component.status == ComponentStatus::Failed {
            return Ok(());
        }
        for stream in &component.streams {
            let name = format!("snapshot {} component {} stream {}", snapshot.id.short(), component.name, stream.name);
            let walk = Walk { reader, packs: &self.packs, hurt_packs: &self.hurt_packs, name: &name };
            let result = if stream.name == "tree" {
                walk.tree(&stream.root, stream.length, hurt).await
            } else {
                walk.ids(&stream.root, hurt).await.map(|length| (length != stream.length).then_some(length))
            };
            match result {
                Ok(None) => {}
                Ok(Some(length)) => {
                    let problem = format!("its chunks add up to {length} bytes, not to {}", stream.length);
                    let object = layout::object(ObjectType::Manifest, &snapshot.id).to_string();
                    self.report(Damage { object, layer: "recipe", problem }, vec![name]);
                }
                // A damaged pack of recipes was reported as such, if it was read; here it is at least told whom it hurts.
                Err(RepositoryError::Damaged(damage)) => self.stream_damage(damage, &name, hurt),
                Err(RepositoryError::MissingChunk { id }) => {
                    let problem = format!("chunk {id} is in no pack that an index names");
                    let object = layout::object(ObjectType::Manifest, &snapshot.id).to_string();
                    self.report(Damage { object, layer: "chunk", problem }, vec![name]);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn stream_damage(&mut self, damage: Damage, name: &str, hurt: &mut HashMap<PackId, BTreeSet<String>>) {
        let pack: Option<PackId> = damage.object.rsplit('/').next().and_then(|hex| hex.parse().ok());
        match pack {
            Some(pack) if self.packs.contains_key(&pack) => {
                hurt.entry(pack).or_default().insert(name.to_owned());
                if self.hurt_packs.insert(pack) {
                    self.damages.push((pack, damage));
                }
            }
            _ => self.report(damage, vec![name.to_owned()]),
        }
    }
}

/// Whether a tree pack holds nothing but descriptions of content packs.
fn only_descriptions(pack: &PackEntry) -> bool {
    pack.kind == ObjectType::TreePack && pack.segments.iter().all(|segment| segment.kind == SegmentKind::PackEntry)
}

fn wrong_length(pack: &PackEntry, found: Option<&u64>) -> Option<Damage> {
    let name = layout::object(pack.kind, &pack.id);
    match found {
        None => Some(missing(&name)),
        Some(size) if *size != u64::from(pack.stored_size) => {
            let problem = format!("it holds {size} bytes where its index says {}", pack.stored_size);
            Some(Damage { object: name.to_string(), layer: "length", problem })
        }
        Some(_) => None,
    }
}

/// A tree pack's own footer says what the index says.
fn check_footer(
    name: &crate::id::ObjectName,
    opener: &PackOpener,
    entry: &PackEntry,
    stored: &[u8],
) -> Result<(), Damage> {
    if entry.kind != ObjectType::TreePack {
        return Ok(());
    }
    let bytes = opener.footer(stored, OBJECT_PLAIN_SIZE_MAX).map_err(|error| seal_damage(name, error))?;
    let footer = PackFooter::decode(&bytes).map_err(|error| super::decode_damage(name, &error))?;
    if footer.segments == entry.segments {
        return Ok(());
    }
    let problem = "its footer and the index describe it differently".to_owned();
    Err(Damage { object: name.to_string(), layer: "decode", problem })
}

/// One walk over the chunks of a stream.
struct Walk<'a> {
    reader: &'a Arc<ChunkReader>,
    packs: &'a BTreeMap<PackId, PackEntry>,
    hurt_packs: &'a HashSet<PackId>,
    name: &'a str,
}

type Hurt = HashMap<PackId, BTreeSet<String>>;

impl Walk<'_> {
    /// Resolves every chunk below `root`; gives their lengths together.
    async fn ids(&self, root: &crate::format::tree::ContentRoot, hurt: &mut Hurt) -> Result<u64, RepositoryError> {
        let mut ids = ChunkIds::new(Arc::clone(self.reader), root)?;
        let mut length = 0;
        while let Some(id) = ids.next().await? {
            length += self.one(&id, hurt)?;
        }
        Ok(length)
    }

    /// A chunk is whole if any pack that holds it is.
    fn one(&self, id: &ChunkId, hurt: &mut Hurt) -> Result<u64, RepositoryError> {
        let found = self.reader.repository().cache().find_all(id)?;
        let first = found.first().ok_or(RepositoryError::MissingChunk { id: *id })?;
        let whole = |pack: &PackId| self.packs.contains_key(pack) && !self.hurt_packs.contains(pack);
        if !found.iter().any(|location| whole(&location.pack)) {
            hurt.entry(first.pack).or_default().insert(self.name.to_owned());
        }
        Ok(first.length.into())
    }

    /// Decodes a tree and resolves the chunks of its files; gives the tree's length if it is not `length`.
    async fn tree(
        &self,
        root: &crate::format::tree::ContentRoot,
        length: u64,
        hurt: &mut Hurt,
    ) -> Result<Option<u64>, RepositoryError> {
        let mut ids = ChunkIds::new(Arc::clone(self.reader), root)?;
        let mut decoder = TreeDecoder::new();
        let mut found = 0;
        let damage = |error: &dyn std::error::Error| Damage {
            object: self.name.to_owned(),
            layer: "tree",
            problem: super::with_causes(error),
        };
        while let Some(id) = ids.next().await? {
            self.one(&id, hurt)?;
            let bytes = self.reader.chunk(&id).await?;
            found += bytes.len() as u64;
            for entry in decoder.push(&bytes).map_err(|error| damage(&error))? {
                if let EntryKind::File(content) = &entry.kind {
                    self.file(&entry.path, content, hurt).await?;
                }
            }
        }
        decoder.finish().map_err(|error| damage(&error))?;
        Ok((found != length).then_some(found))
    }

    async fn file(&self, path: &[u8], content: &FileContent, hurt: &mut Hurt) -> Result<(), RepositoryError> {
        let length = self.ids(&content.root, hurt).await?;
        if length == content.size {
            return Ok(());
        }
        let path = crate::tree_entry::printable(path);
        let problem = format!("the chunks of `{path}` add up to {length} bytes, not to {}", content.size);
        Err(Damage { object: self.name.to_owned(), layer: "tree", problem }.into())
    }
}
