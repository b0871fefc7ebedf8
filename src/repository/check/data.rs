//! Reading packs whole: name, seal, and the hash of each chunk. Several are in flight; results come in order. Segments with
//! bases come after all others ([`super::based`]).

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};

use super::super::chunks::{ChunkReader, open_segment};
use super::super::executor::{Executor, run};
use super::super::{Damage, RepositoryError, check_name, decode_damage, missing, seal_damage};
use super::based::{self, Begun};
use super::choice::{Candidate, Choice, choose, pack_prefix};
use super::unchecked::Reason;
use super::{Checker, Progress, ReadBefore};
use crate::format::envelope::ObjectType;
use crate::format::index::{PackEntry, PackFooter, SegmentEntry};
use crate::format::layout;
use crate::id::{ObjectName, PackId};
use crate::limits::{OBJECT_PLAIN_SIZE_MAX, PACK_SIZE_MAX};
use crate::seal::keys::Keys;
use crate::seal::pack::PackOpener;
use crate::storage::StoreError;

/// Packs that are read at the same time: each holds at most [`PACK_SIZE_MAX`] bytes, usually half of that, and one decoded
/// segment.
pub(super) const PACKS_AHEAD: usize = 4;

/// What came of reading a pack.
enum Read {
    /// All of it is what it should be.
    Sound { chunks: u64, opened: bool },
    /// So are its bytes, and its segments without a base, which hold so many chunks.
    Begun { chunks: u64 },
    /// Something is not.
    Damaged(Vec<Damage>),
    /// It is not there, or the index does not describe it any more.
    Gone,
}

impl Checker {
    /// Reads the packs that `choice` chooses among those that are `needed`, if not all are asked for.
    pub(super) async fn pack_data(
        &mut self,
        choice: &Choice,
        needed: Option<&HashSet<PackId>>,
        read_before: &ReadBefore,
        progress: Progress<'_>,
    ) -> Result<(), RepositoryError> {
        let candidate = |id: &PackId, size: u32| Candidate {
            id: *id,
            size: size.into(),
            read_at: read_before.0.get(&pack_prefix(id)).copied(),
        };
        // What is missing or has another length was found already.
        let packs = self.view.packs().iter().filter(|(id, _)| !self.hurt_packs.contains(*id));
        let packs = packs.map(|(id, facts)| candidate(id, facts.stored_size));
        let (candidates, others): (Vec<_>, Vec<_>) =
            packs.partition(|pack| needed.is_none_or(|needed| needed.contains(&pack.id)));
        others.iter().for_each(|pack| self.passed.entry(Reason::NotAskedFor).or_default().add(pack.size));
        let chosen = choose(choice, self.repository.clock().now(), candidates);
        self.passed.extend(chosen.passed);
        self.read_packs(chosen.read, progress).await
    }

    /// Reads only packs that are suspected.
    pub(super) async fn suspects(
        &mut self,
        suspects: &BTreeSet<PackId>,
        progress: Progress<'_>,
    ) -> Result<(), RepositoryError> {
        let mut read = Vec::new();
        for (id, facts) in self.view.packs() {
            if suspects.contains(id) && !self.hurt_packs.contains(id) {
                read.push(Candidate { id: *id, size: facts.stored_size.into(), read_at: None });
            } else {
                self.passed.entry(Reason::Depth).or_default().add(facts.stored_size.into());
            }
        }
        self.read_packs(read, progress).await
    }

    async fn read_packs(&mut self, packs: Vec<Candidate>, progress: Progress<'_>) -> Result<(), RepositoryError> {
        let total: u64 = packs.iter().map(|candidate| candidate.size).sum();
        let reader = PackReader::new(self);
        let reads = stream::iter(packs).map({
            let reader = reader.clone();
            move |candidate| {
                let reader = reader.clone();
                async move { (candidate, reader.read(candidate.id, Extent::Begin).await) }
            }
        });
        let mut reads = reads.buffered(PACKS_AHEAD).boxed();
        let (mut seen, mut begun) = (0, Vec::new());
        while let Some((candidate, (bytes, read))) = reads.next().await {
            match read? {
                Read::Begun { chunks } => begun.push(Begun { candidate, bytes, chunks, damages: vec![] }),
                read => {
                    seen += candidate.size;
                    self.pack_was_read(&reader, candidate, bytes, read).await?;
                }
            }
            progress(seen, total);
        }
        drop(reads);
        based::finish(&reader.chunks, &mut begun, |bytes| {
            seen += bytes;
            progress(seen.min(total), total);
        })
        .await?;
        for Begun { candidate, bytes, chunks, damages } in begun {
            let read = if damages.is_empty() { Read::Sound { chunks, opened: true } } else { Read::Damaged(damages) };
            self.pack_was_read(&reader, candidate, bytes, read).await?;
        }
        progress(total, total);
        Ok(())
    }

    async fn pack_was_read(
        &mut self,
        reader: &PackReader,
        candidate: Candidate,
        mut bytes: u64,
        mut read: Read,
    ) -> Result<(), RepositoryError> {
        let id = candidate.id;
        // It may have been repacked, or what it is based on may have been: then the index says so now.
        let elsewhere = |read: &Read| match read {
            Read::Gone => true,
            Read::Damaged(damages) => damages.iter().any(|damage| matches!(damage.layer, "presence" | "chunk")),
            Read::Sound { .. } | Read::Begun { .. } => false,
        };
        if elsewhere(&read) {
            self.refresh().await?;
            if !self.view.packs().contains_key(&id) {
                self.passed.entry(Reason::Vanished).or_default().add(candidate.size);
                return Ok(());
            }
            let (again, result) = reader.read(id, Extent::Whole).await;
            bytes += again;
            read = result?;
        }
        self.checked.bytes_read += bytes;
        self.checked.packs_read += u64::from(bytes > 0);
        match read {
            Read::Sound { chunks, opened: true } => {
                self.checked.chunks_hashed += chunks;
                self.checked.opened.push(id);
                self.repository.cached(self.repository.cache().set_damaged(&id, false));
            }
            Read::Sound { opened: false, .. } => {
                self.checked.hashed.push(id);
                self.passed.entry(Reason::NoContentKey).or_default().add(candidate.size);
            }
            Read::Begun { .. } => unreachable!("this was to be read whole, and what was begun was finished"),
            Read::Damaged(damages) => damages.into_iter().for_each(|damage| self.damage_met(id, damage)),
            Read::Gone => {
                let facts = self.view.packs().get(&id).copied();
                if let Some(facts) = facts {
                    self.pack_damage(id, missing(&facts.name(&id)));
                }
            }
        }
        Ok(())
    }
}

impl Checker {
    /// Damage that was met when `pack` was read: its own, or that of a pack that it is based on.
    fn damage_met(&mut self, pack: PackId, damage: Damage) {
        let named = damage.object.rsplit('/').next().and_then(|name| name.parse().ok());
        let hurt: PackId = named.unwrap_or(pack);
        if hurt == pack || !self.hurt_packs.contains(&hurt) {
            self.pack_damage(hurt, damage);
        }
    }
}

/// How much of a pack is read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All but segments with bases.
    Begin,
    Whole,
}

/// Reads packs; does not judge.
#[derive(Clone)]
struct PackReader {
    chunks: Arc<ChunkReader>,
    executor: Arc<dyn Executor>,
}

impl PackReader {
    fn new(checker: &Checker) -> Self {
        let (repository, executor) = (Arc::clone(&checker.repository), Arc::clone(&checker.executor));
        Self { chunks: Arc::new(ChunkReader::new(repository, Arc::clone(&executor))), executor }
    }

    /// Reads a pack; gives the bytes that were read, and what came of it.
    async fn read(&self, id: PackId, extent: Extent) -> (u64, Result<Read, RepositoryError>) {
        let mut bytes = 0;
        let read = self.try_read(id, extent, &mut bytes).await;
        (bytes, read)
    }

    async fn try_read(&self, id: PackId, extent: Extent, bytes: &mut u64) -> Result<Read, RepositoryError> {
        let repository = self.chunks.repository();
        let Some(entry) = repository.cache().pack(&id)? else { return Ok(Read::Gone) };
        let name = layout::object(entry.kind, &id);
        let stored = match repository.store().get(&name, PACK_SIZE_MAX).await {
            Ok(stored) => stored,
            Err(StoreError::NotFound { .. }) => return Ok(Read::Gone),
            Err(error) => return Err(error.into()),
        };
        *bytes += stored.len() as u64;
        let pack = Arc::new(StoredPack { name, entry, stored });
        let (keys, plain) = (Arc::clone(repository.keys()), Arc::clone(&pack));
        let opened = match run(&self.executor, move || plain.check(&keys)).await {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(Read::Sound { chunks: 0, opened: false }),
            Err(damage) => return Ok(Read::Damaged(vec![damage])),
        };
        let (opener, mut chunks) = (Arc::new(opened.0), opened.1);
        if extent == Extent::Begin && pack.entry.segments.iter().any(|segment| !segment.base.is_empty()) {
            return Ok(Read::Begun { chunks });
        }
        let mut damages = Vec::new();
        for (ordinal, segment) in (0u32..).zip(&pack.entry.segments).filter(|(_, segment)| !segment.base.is_empty()) {
            let base = match self.base(segment).await? {
                Base::Read(base) => base,
                Base::Nowhere => continue,
                Base::Damaged(damage) => {
                    damages.push(damage);
                    continue;
                }
            };
            let (keys, pack, opener) = (Arc::clone(repository.keys()), Arc::clone(&pack), Arc::clone(&opener));
            match run(&self.executor, move || pack.open(&keys, &opener, ordinal, &base)).await {
                Ok(opened) => chunks += opened,
                Err(damage) => damages.push(damage),
            }
        }
        Ok(if damages.is_empty() { Read::Sound { chunks, opened: true } } else { Read::Damaged(damages) })
    }

    /// What a segment was compressed against.
    async fn base(&self, segment: &SegmentEntry) -> Result<Base, RepositoryError> {
        let mut base = Vec::new();
        for chunk in &segment.base {
            match self.chunks.chunk(chunk).await {
                Ok(bytes) => base.extend_from_slice(&bytes),
                Err(RepositoryError::Damaged(damage)) => return Ok(Base::Damaged(damage)),
                Err(RepositoryError::MissingChunk { .. }) => return Ok(Base::Nowhere),
                Err(error) => return Err(error),
            }
        }
        Ok(Base::Read(base))
    }
}

/// What came of reading the base of a segment.
enum Base {
    Read(Vec<u8>),
    /// In no pack: nobody keeps the base of a segment that no snapshot needs, and whether one does, the streams tell.
    Nowhere,
    Damaged(Damage),
}

/// A pack whose bytes were read.
struct StoredPack {
    name: ObjectName,
    entry: PackEntry,
    stored: Bytes,
}

impl StoredPack {
    /// Checks the bytes against name and description, and opens the segments without a base. Gives the number of chunks in
    /// these; `None` if this key does not open the pack.
    fn check(&self, keys: &Keys) -> Result<Option<(PackOpener, u64)>, Damage> {
        check_name(&self.name, &self.entry.id, &self.stored)?;
        if self.entry.kind == ObjectType::ContentPack && !keys.reads_content() {
            return Ok(None);
        }
        let opener =
            PackOpener::new(keys, self.entry.kind, &self.stored).map_err(|error| seal_damage(&self.name, error))?;
        check_footer(&self.name, &opener, &self.entry, &self.stored)?;
        let mut chunks = 0;
        for (ordinal, _) in (0u32..).zip(&self.entry.segments).filter(|(_, segment)| segment.base.is_empty()) {
            chunks += self.open(keys, &opener, ordinal, &[])?;
        }
        Ok(Some((opener, chunks)))
    }

    /// Opens a segment and hashes its chunks; gives their number.
    fn open(&self, keys: &Keys, opener: &PackOpener, ordinal: u32, base: &[u8]) -> Result<u64, Damage> {
        let segment = &self.entry.segments[usize::try_from(ordinal).expect("usize has 32 bits or more")];
        let start = usize::try_from(segment.offset).expect("usize has 32 bits or more");
        let end = start + usize::try_from(segment.stored_length).expect("usize has 32 bits or more");
        let sealed = self.stored.get(start..end).ok_or_else(|| {
            let problem = format!("segment {ordinal} ends behind its {} bytes", self.stored.len());
            Damage { object: self.name.to_string(), layer: "length", problem }
        })?;
        open_segment(keys, &self.name, opener, ordinal, segment, sealed, base)?;
        Ok(segment.chunks.len() as u64)
    }
}

/// A tree pack's own footer says what the index says.
fn check_footer(name: &ObjectName, opener: &PackOpener, entry: &PackEntry, stored: &[u8]) -> Result<(), Damage> {
    if entry.kind != ObjectType::TreePack {
        return Ok(());
    }
    let bytes = opener.footer(stored, OBJECT_PLAIN_SIZE_MAX).map_err(|error| seal_damage(name, error))?;
    let footer = PackFooter::decode(&bytes).map_err(|error| decode_damage(name, &error))?;
    if footer.segments == entry.segments {
        return Ok(());
    }
    let problem = "its footer and the index describe it differently".to_owned();
    Err(Damage { object: name.to_string(), layer: "decode", problem })
}
