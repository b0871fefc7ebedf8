//! Copying under the same keys: packs, the indexes that describe them, manifests, their confirmation.
//!
//! Each durable before the next. The bytes of a pack are hashed before they are put; a pack that lies in the target and that
//! no index there names is hashed where it lies. When something turns out to be gone or damaged, or the target condemns
//! something meanwhile, it is all planned anew with what is known then.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::choose::{Chosen, Selection, choose};
use super::needs::{Needs, PackNeed, View, finding, gather};
use super::outcome::merged;
use super::{Counts, LeftOut, Mode, Pair, Reason, Replicated, proof};
use crate::error::{Error, ErrorKind};
use crate::format::envelope::ObjectType;
use crate::format::index::{Index, PackEntry};
use crate::format::layout;
use crate::format::manifest::Manifest;
use crate::id::{ChunkId, ObjectId, PackId, SnapshotId};
use crate::limits::{INDEX_FLUSH_CHUNKS, PACK_SIZE_MAX};
use crate::ops::{Context, Progress};
use crate::repository::budget::{BUDGET_BYTES_DEFAULT, Budget};
use crate::repository::chunks::ChunkReader;
use crate::repository::confirm::confirm_all;
use crate::repository::executor::{Executor, run};
use crate::repository::lease::RunLease;
use crate::repository::session::SessionOptions;
use crate::repository::snapshots::Snapshot;
use crate::repository::{Damage, Repository, RepositoryError};
use crate::storage::StoreError;

/// Packs that are in memory at one time, at most 16 MiB each.
const PACKS_IN_FLIGHT: usize = 4;

/// Manifests that are read back at one time.
const MANIFESTS_IN_FLIGHT: usize = 8;

/// Packs after which an index of them is put: what a killed run copied is then not read again by the next one.
const INDEX_FLUSH_PACKS: usize = 32;

/// How often it is planned anew.
const ROUNDS_MAX: u32 = 12;

/// Copies what is chosen.
pub(super) async fn copy(
    context: &Context,
    source: &Arc<Repository>,
    target: &Arc<Repository>,
    lease: &RunLease,
    selection: &Selection,
) -> Result<Replicated, Error> {
    let mut chosen = choose(source, Some(target), Mode::Copy, selection).await?;
    let mut copier = Copier::new(context, source, target, lease, std::mem::take(&mut chosen.left_out));
    copier.all(&chosen).await?;
    if !chosen.unconfirmed.is_empty() {
        // What one of them lacks `verify` tells.
        confirm_all(target, &context.executor, lease.claimant(), &chosen.unconfirmed).await?;
    }
    let withdrawn = copier.gone_from_source().await?;
    let brought: Vec<(SnapshotId, SnapshotId)> = copier.brought.iter().map(|id| (*id, *id)).collect();
    let mut proof = proof::compare(source, &chosen, &brought, &copier.left_out, selection).await?;
    proof.missing.retain(|id| !withdrawn.contains(id));
    if let Some(newest) = chosen.snapshots.iter().rev().find(|snapshot| copier.brought.contains(&snapshot.id)) {
        let (repository, location) = (target.config().repository, target.store().location());
        context.state.set_last_head(repository, &location, newest.id)?;
    }
    let pairs = brought.into_iter().map(|(source, target)| Pair { source, target, streams: vec![] }).collect();
    let Copier { counts, left_out, damages, .. } = copier;
    let damaged = damages.into_iter().map(|damage| finding(damage, None));
    let findings = merged(damaged.chain(left_out.iter().flat_map(|left| left.findings.clone())));
    Ok(Replicated {
        mode: Mode::Copy,
        pairs,
        there: chosen.there.into_keys().collect(),
        forgotten: chosen.forgotten,
        late: chosen.late,
        withdrawn,
        left_out,
        findings,
        counts,
        proof,
        report: None,
        source_report: None,
    })
}

struct Copier<'a> {
    context: &'a Context,
    source: &'a Arc<Repository>,
    target: &'a Arc<Repository>,
    lease: &'a RunLease,
    /// This machine's time when the lease had just begun.
    began: Timestamp,
    /// Packs of the source whose bytes do not have their name.
    rotten: HashSet<PackId>,
    /// Packs of the target that are there and not what they should be.
    broken: HashSet<PackId>,
    /// Chunks that could not be read from the source.
    unreadable: HashSet<ChunkId>,
    /// Damage that was met in the source.
    damages: Vec<Damage>,
    /// Packs that are durable in the target and in no index yet.
    pending: Vec<PackEntry>,
    /// Snapshots that were brought, oldest first.
    brought: Vec<SnapshotId>,
    left_out: Vec<LeftOut>,
    counts: Counts,
    done_bytes: u64,
}

/// What came of one pack.
enum Fetched {
    /// It is durable in the target.
    Copied,
    /// It was there and is whole.
    Adopted,
    /// The source has it no more.
    Vanished,
    /// The source's bytes do not have its name.
    Rotten(Damage),
    /// It was there and is not whole.
    Broken(Damage),
}

/// What lies under the name of a pack.
enum Found {
    Whole(Bytes),
    Nothing,
    Else(Damage),
}

impl<'a> Copier<'a> {
    fn new(
        context: &'a Context,
        source: &'a Arc<Repository>,
        target: &'a Arc<Repository>,
        lease: &'a RunLease,
        left_out: Vec<LeftOut>,
    ) -> Self {
        Self {
            context,
            source,
            target,
            lease,
            began: context.clock().now(),
            rotten: HashSet::new(),
            broken: HashSet::new(),
            unreadable: HashSet::new(),
            damages: Vec::new(),
            pending: Vec::new(),
            brought: Vec::new(),
            left_out,
            counts: Counts::default(),
            done_bytes: 0,
        }
    }

    async fn all(&mut self, chosen: &Chosen) -> Result<(), Error> {
        let mut open = chosen.snapshots.clone();
        let (mut put, mut lacking) = (BTreeSet::new(), BTreeMap::new());
        let mut doubted = false;
        for round in 0..ROUNDS_MAX {
            if open.is_empty() {
                break;
            }
            if round > 0 {
                self.source.sync_index().await?;
                self.target.sync_index().await?;
            }
            let view = View::take(self.source, Some(self.target)).await?;
            let view = view.with_found(&self.rotten, &self.broken, &self.unreadable);
            let found = gather(self.context, self.source, Some(self.target), &view, &open).await?;
            // What looks damaged may only have moved since the index was read: it is looked for once more.
            if !found.hurt.is_empty() && !std::mem::replace(&mut doubted, true) {
                continue;
            }
            open.retain(|snapshot| found.hurt.iter().all(|hurt| hurt.id != snapshot.id));
            self.left_out.extend(found.hurt);
            if !self.transfer(&view, &found.needs).await? {
                doubted = false;
                continue;
            }
            self.last_index(&open).await?;
            self.manifests(&mut open, chosen, &mut put).await?;
            let pairs: Vec<(SnapshotId, Manifest)> =
                open.iter().map(|snapshot| (snapshot.id, snapshot.manifest.clone())).collect();
            let claimant = self.lease.claimant();
            lacking = confirm_all(self.target, &self.context.executor, claimant, &pairs).await?;
            self.brought.extend(pairs.iter().map(|(id, _)| *id).filter(|id| !lacking.contains_key(id)));
            open.retain(|snapshot| lacking.contains_key(&snapshot.id));
        }
        self.flush_index(BTreeSet::new()).await?;
        self.withdraw(open, &put, &lacking).await?;
        self.brought.sort_by_key(|id| chosen.snapshots.iter().position(|snapshot| snapshot.id == *id));
        Ok(())
    }

    /// Takes back the manifests of snapshots that could not be confirmed.
    async fn withdraw(
        &mut self,
        open: Vec<Snapshot>,
        put: &BTreeSet<SnapshotId>,
        lacking: &BTreeMap<SnapshotId, u64>,
    ) -> Result<(), Error> {
        for Snapshot { id, .. } in open {
            if put.contains(&id) {
                self.target.store().delete(&layout::object(ObjectType::Manifest, &id)).await?;
            }
            let chunks = lacking.get(&id).copied().unwrap_or(0);
            self.left_out.push(LeftOut { id, reason: Reason::Contended { chunks }, findings: vec![] });
        }
        Ok(())
    }

    /// Brings packs, then what must be stored anew. `false` if something was not as planned.
    async fn transfer(&mut self, view: &View, needs: &Needs) -> Result<bool, Error> {
        let summary = needs.summary();
        if summary.packs > 0 {
            self.context.info(format!("copying {} packs, {} bytes", summary.packs, summary.bytes));
        }
        let total_bytes = Some(self.done_bytes + summary.bytes);
        let (source, target, executor) = (self.source, self.target, &self.context.executor);
        let concurrency = source
            .store()
            .capabilities()
            .concurrency
            .min(target.store().capabilities().concurrency)
            .clamp(1, PACKS_IN_FLIGHT);
        let fetches = needs.packs.iter().map(|(pack, need)| fetch(source, target, executor, *pack, *need));
        let mut fetched = stream::iter(fetches).buffer_unordered(concurrency);
        let (mut as_planned, mut now_there) = (true, view.relied_on().clone());
        while let Some(result) = fetched.next().await {
            let (pack, need, fetched) = result?;
            let is_durable = matches!(fetched, Fetched::Copied | Fetched::Adopted);
            match fetched {
                Fetched::Copied => {
                    self.counts.packs_copied += 1;
                    self.counts.bytes_copied += need.size;
                }
                Fetched::Adopted => self.counts.packs_adopted += 1,
                Fetched::Vanished => as_planned = false,
                Fetched::Rotten(damage) => {
                    self.source.cached(self.source.cache().set_damaged(&pack, true));
                    self.context.warn(format!("{damage} in {}", self.source.store().location()));
                    self.rotten.insert(pack);
                    self.damages.push(damage);
                    as_planned = false;
                }
                Fetched::Broken(damage) => {
                    self.context
                        .warn(format!("{damage} in {}; what it holds is stored anew", self.target.store().location()));
                    self.broken.insert(pack);
                    as_planned = false;
                }
            }
            if is_durable {
                now_there.insert(pack);
                self.pending.extend(self.source.cache().pack(&pack).map_err(RepositoryError::from)?);
                if self.pending.len() >= INDEX_FLUSH_PACKS {
                    self.flush_index(BTreeSet::new()).await?;
                }
            }
            self.done_bytes += need.size;
            let (action, target) = ("replicate", self.target.store().location());
            self.context.events.progress(&Progress { action, target, done_bytes: self.done_bytes, total_bytes });
        }
        drop(fetched);
        if as_planned && !(needs.anew.is_empty() && needs.describe.is_empty()) {
            as_planned = self.store_anew(now_there, needs).await?;
        }
        Ok(as_planned)
    }

    /// Reads chunks from the source and stores them in the target. `false` if one cannot be read.
    async fn store_anew(&mut self, present: HashSet<PackId>, needs: &Needs) -> Result<bool, Error> {
        // What was copied must be in the index before anybody can find that it is there.
        self.flush_index(BTreeSet::new()).await?;
        let executor = Arc::clone(&self.context.executor);
        let budget = Budget::new(BUDGET_BYTES_DEFAULT).expect("the default is above the least");
        let options = SessionOptions { budget, executor: Arc::clone(&executor), stage: None };
        let session = self.target.write_beside(present, options)?;
        let reader = Arc::new(ChunkReader::new(Arc::clone(self.source), executor));
        let mut writer = session.component().await;
        for (id, kind) in &needs.anew {
            match reader.chunk(id).await {
                Ok(bytes) => writer.store_chunk(*kind, *id, bytes).await?,
                Err(RepositoryError::Damaged(damage)) => {
                    self.unreadable.insert(*id);
                    self.damages.push(damage);
                    return Ok(false);
                }
                Err(RepositoryError::MissingChunk { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        for description in &needs.describe {
            session.keep_description(description).await?;
        }
        writer.finish().await?;
        let packs = session.flush().await?;
        self.counts.bytes_stored += session.stored_bytes().await;
        self.counts.chunks_stored_anew += needs.anew.len() as u64;
        self.counts.indexes += session.write_index(packs).await?.indexes().len() as u64;
        Ok(true)
    }

    /// Puts the index of what is durable, and says that it stands for `supersedes`.
    async fn flush_index(&mut self, supersedes: BTreeSet<ObjectId>) -> Result<(), Error> {
        let mut supersedes: Vec<ObjectId> = supersedes.into_iter().collect();
        let (mut group, mut chunks) = (Vec::new(), 0);
        for pack in std::mem::take(&mut self.pending) {
            chunks += pack.chunk_count();
            group.push(pack);
            if chunks >= INDEX_FLUSH_CHUNKS {
                self.put_index(std::mem::take(&mut supersedes), std::mem::take(&mut group)).await?;
                chunks = 0;
            }
        }
        if group.is_empty() && supersedes.is_empty() { Ok(()) } else { self.put_index(supersedes, group).await }
    }

    async fn put_index(&mut self, supersedes: Vec<ObjectId>, packs: Vec<PackEntry>) -> Result<(), Error> {
        let index = Index { supersedes, packs };
        let id = self.target.put_object(ObjectType::Index, &index.encode()).await?;
        self.target.cached(self.target.cache().add_index(&id, &index));
        self.counts.indexes += 1;
        Ok(())
    }

    /// The index of what is left, which also stands for those that the manifests name and that are not in the target.
    async fn last_index(&mut self, open: &[Snapshot]) -> Result<(), Error> {
        let mut named: BTreeSet<ObjectId> =
            open.iter().flat_map(|snapshot| snapshot.manifest.indexes.iter().copied()).collect();
        let known = self.target.cache().known_indexes().map_err(RepositoryError::from)?;
        for id in &known {
            named.remove(id);
            for old in self.target.cache().superseded(id).map_err(RepositoryError::from)? {
                named.remove(&old);
            }
        }
        self.flush_index(named).await
    }

    /// Puts the manifests, as they are.
    async fn manifests(
        &mut self,
        open: &mut Vec<Snapshot>,
        chosen: &Chosen,
        put: &mut BTreeSet<SnapshotId>,
    ) -> Result<(), Error> {
        let known = |id: &SnapshotId| put.contains(id) || chosen.listed_there.contains(id);
        let new: Vec<SnapshotId> = open.iter().map(|snapshot| snapshot.id).filter(|id| !known(id)).collect();
        let mut bodies = Vec::new();
        for id in new {
            match self.source.get_stored(ObjectType::Manifest, &id).await {
                Ok(bytes) => bodies.push((id, bytes)),
                // It may have been forgotten meanwhile, which is told apart at the end.
                Err(RepositoryError::Damaged(damage)) => {
                    open.retain(|snapshot| snapshot.id != id);
                    let findings = vec![finding(damage, Some(&id))];
                    self.left_out.push(LeftOut { id, reason: Reason::Damaged, findings });
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.still_in_time()?;
        let (target, ids): (_, Vec<SnapshotId>) = (self.target, bodies.iter().map(|(id, _)| *id).collect());
        // Oldest first, one by one: until they are confirmed, `verify` misses the one that the next one names.
        for (id, bytes) in bodies {
            match target.store().put_new(&layout::object(ObjectType::Manifest, &id), bytes).await {
                Ok(()) | Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let read = ids.into_iter().map(|id| async move { target.manifest(&id).await.map(|_| id) });
        let read: Vec<SnapshotId> = stream::iter(read).buffer_unordered(MANIFESTS_IN_FLIGHT).try_collect().await?;
        put.extend(read);
        Ok(())
    }

    /// A copied manifest may count at once, if the lease that it names has not run out: what keeps its packs here is this run's.
    fn still_in_time(&self) -> Result<(), Error> {
        let allowed = self.lease.deadline().duration_since(self.lease.began());
        if self.context.clock().now().duration_since(self.began) < allowed {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "the run outlived its lease in the target; what it copied stays there"))
    }

    /// Snapshots that were left out because the source itself forgot them meanwhile; they are no trouble.
    async fn gone_from_source(&mut self) -> Result<Vec<SnapshotId>, Error> {
        if self.left_out.is_empty() {
            return Ok(vec![]);
        }
        let listed = self.source.listed_manifests().await?;
        let record = self.source.record().await?;
        let gone = |id: &SnapshotId| record.forgotten.contains(id) || !listed.contains_key(id);
        let (gone, left_out) = std::mem::take(&mut self.left_out).into_iter().partition(|left| gone(&left.id));
        self.left_out = left_out;
        Ok(Vec::into_iter(gone).map(|left: LeftOut| left.id).collect())
    }
}

/// Brings one pack, or looks at the one that is there.
async fn fetch(
    source: &Arc<Repository>,
    target: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    pack: PackId,
    need: PackNeed,
) -> Result<(PackId, PackNeed, Fetched), RepositoryError> {
    if need.is_there {
        match look(target, executor, need.kind, &pack).await? {
            Found::Whole(_) => return Ok((pack, need, Fetched::Adopted)),
            Found::Else(damage) => return Ok((pack, need, Fetched::Broken(damage))),
            Found::Nothing => {}
        }
    }
    let bytes = match look(source, executor, need.kind, &pack).await? {
        Found::Whole(bytes) => bytes,
        Found::Nothing => return Ok((pack, need, Fetched::Vanished)),
        Found::Else(damage) => return Ok((pack, need, Fetched::Rotten(damage))),
    };
    let fetched = match target.store().put_new(&layout::object(need.kind, &pack), bytes).await {
        Ok(()) => Fetched::Copied,
        // Another run was faster. Nothing vouches for what it put.
        Err(StoreError::AlreadyExists { .. }) => match look(target, executor, need.kind, &pack).await? {
            Found::Whole(_) => Fetched::Adopted,
            Found::Else(damage) => Fetched::Broken(damage),
            Found::Nothing => Fetched::Vanished,
        },
        Err(error) => return Err(error.into()),
    };
    Ok((pack, need, fetched))
}

/// Reads what lies under the name of a pack, and hashes it.
async fn look(
    repository: &Repository,
    executor: &Arc<dyn Executor>,
    kind: ObjectType,
    pack: &PackId,
) -> Result<Found, RepositoryError> {
    let name = layout::object(kind, pack);
    let damage = |layer, problem| Found::Else(Damage { object: name.to_string(), layer, problem });
    let bytes = match repository.store().get(&name, PACK_SIZE_MAX).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Ok(Found::Nothing),
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::FileTooLarge => {
            return Ok(damage("length", "it is longer than a pack may be".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    let hashed = bytes.clone();
    let found = run(executor, move || ObjectId::of(&hashed)).await;
    if found == *pack {
        return Ok(Found::Whole(bytes));
    }
    Ok(damage("name", format!("its {} bytes hash to {}, not to its name", bytes.len(), found.short())))
}
