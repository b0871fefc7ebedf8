//! Bringing chunks back: whole packs from a replica under the same keys where they are only missing, else chunk by chunk, from
//! what of a damaged pack still opens, or from the replica, into new packs.
//!
//! A damaged pack stays where it is: its name is taken. `decide` condemns it, and `prune` deletes it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::format::envelope::ObjectType;
use crate::format::index::SegmentEntry;
use crate::format::layout;
use crate::id::{ChunkId, PackId};
use crate::repository::budget::{BUDGET_BYTES_DEFAULT, Budget};
use crate::repository::chunks::ChunkReader;
use crate::repository::executor::Executor;
use crate::repository::loss::Holdings;
use crate::repository::marks::Record;
use crate::repository::session::SessionOptions;
use crate::repository::survey::listed_packs;
use crate::repository::{Repository, RepositoryError};
use crate::storage::StoreError;

/// What was brought back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Healed {
    /// Packs that were missing and are there again, and their bytes.
    pub packs: u64,
    /// See `packs`.
    pub bytes: u64,
    /// Chunks that were read here, from damaged packs or from the local cache, and stored anew.
    pub chunks_salvaged: u64,
    /// Chunks that were read from the replica and stored anew.
    pub chunks_from_replica: u64,
    /// Descriptions of packs that were stored anew.
    pub descriptions: u64,
    /// Bytes of packs that were sealed here.
    pub stored_bytes: u64,
}

/// Where chunks may come from.
pub struct Healer<'a> {
    /// The repository that is mended.
    pub repository: &'a Arc<Repository>,
    /// A replica of it under the same keys.
    pub replica: Option<&'a Arc<Repository>>,
    /// Where CPU work runs.
    pub executor: &'a Arc<dyn Executor>,
    /// Whether only to look what could be done.
    pub pretend: bool,
}

impl Healer<'_> {
    /// Brings back what it can of the chunks `open`, which no pack holds that can be trusted. Gives those that came back, with
    /// their lengths; the others are lost.
    pub async fn heal(
        &self,
        record: &Record,
        holdings: &Holdings,
        open: &BTreeMap<ChunkId, ObjectType>,
        healed: &mut Healed,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<BTreeMap<ChunkId, u64>, RepositoryError> {
        let there = self.put_back(record, holdings, open, healed).await?;
        let mut present: HashSet<PackId> = holdings.trusted().union(&there).copied().collect();
        present.retain(|pack| !record.condemned.contains_key(pack));
        let (mut left, mut came) = (open.clone(), BTreeMap::new());
        for id in open.keys() {
            let found = self.repository.cache().find_all(id)?;
            if let Some(location) = found.iter().find(|location| there.contains(&location.pack)) {
                left.remove(id);
                came.insert(*id, location.length.into());
            }
        }
        self.store_anew(present, &left, healed, &mut came, progress).await?;
        Ok(came)
    }

    /// Puts packs back that are missing here and whole in the replica, if they hold a chunk that is `open`.
    async fn put_back(
        &self,
        record: &Record,
        holdings: &Holdings,
        open: &BTreeMap<ChunkId, ObjectType>,
        healed: &mut Healed,
    ) -> Result<HashSet<PackId>, RepositoryError> {
        let mut there = HashSet::new();
        let Some(replica) = self.replica else { return Ok(there) };
        let (listed, cache) = (listed_packs(self.repository).await?, self.repository.cache());
        let mut wanted: BTreeMap<PackId, ObjectType> = BTreeMap::new();
        for id in open.keys() {
            let missing = cache.find_all(id)?.into_iter();
            // Whoever condemned a pack may still be about to delete it.
            let missing =
                missing.filter(|at| !listed.contains_key(&at.pack) && !record.condemned.contains_key(&at.pack));
            wanted.extend(missing.map(|at| (at.pack, at.kind)));
        }
        for (pack, kind) in wanted {
            let bytes = match replica.get_stored(kind, &pack).await {
                Ok(bytes) => bytes,
                Err(RepositoryError::Damaged(_)) => continue,
                Err(error) => return Err(error),
            };
            if !self.has_bases(holdings, &pack)? {
                continue;
            }
            let size = bytes.len() as u64;
            if self.pretend || self.put_pack(kind, &pack, bytes).await? {
                there.insert(pack);
                healed.packs += 1;
                healed.bytes += size;
            }
        }
        Ok(there)
    }

    /// Whether all that a pack is based on is in packs that can be trusted.
    fn has_bases(&self, holdings: &Holdings, pack: &PackId) -> Result<bool, RepositoryError> {
        let cache = self.repository.cache();
        let Some(entry) = cache.pack(pack)? else { return Ok(true) };
        for (base, depth) in entry.segments.iter().flat_map(SegmentEntry::bases) {
            let found = cache.find_all(&base)?;
            let mut fitting = found.iter().filter(|location| location.is_within(depth));
            if !fitting.any(|location| holdings.trusted().contains(&location.pack)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts a pack under its name. `false` if something else is there.
    async fn put_pack(&self, kind: ObjectType, pack: &PackId, bytes: Bytes) -> Result<bool, RepositoryError> {
        match self.repository.store().put_new(&layout::object(kind, pack), bytes).await {
            Ok(()) => {}
            Err(StoreError::AlreadyExists { .. }) => match self.repository.get_stored(kind, pack).await {
                Ok(_) => {}
                Err(RepositoryError::Damaged(_)) => return Ok(false),
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error.into()),
        }
        self.repository.cache().set_damaged(pack, false)?;
        Ok(true)
    }

    async fn store_anew(
        &self,
        present: HashSet<PackId>,
        open: &BTreeMap<ChunkId, ObjectType>,
        healed: &mut Healed,
        came: &mut BTreeMap<ChunkId, u64>,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<(), RepositoryError> {
        let descriptions = self.lost_descriptions(&present)?;
        if open.is_empty() && descriptions.is_empty() {
            return Ok(());
        }
        let budget = Budget::new(BUDGET_BYTES_DEFAULT).expect("the default is above the least");
        let options = SessionOptions { budget, executor: Arc::clone(self.executor), stage: None };
        let session = self.repository.write_beside(present, options)?;
        let reader = |of: &Arc<Repository>| ChunkReader::cached(Arc::clone(of), Arc::clone(self.executor)).as_indexed();
        let (here, there) = (Arc::new(reader(self.repository)), self.replica.map(reader).map(Arc::new));
        let mut writer = session.component().await;
        for ((id, kind), done) in self.as_they_lie(open)?.iter().zip(1..) {
            let (bytes, counter) = match read(&here, id).await? {
                Some(bytes) => (Some(bytes), &mut healed.chunks_salvaged),
                None => match &there {
                    Some(there) => (read(there, id).await?, &mut healed.chunks_from_replica),
                    None => (None, &mut healed.chunks_from_replica),
                },
            };
            if let Some(bytes) = bytes {
                *counter += 1;
                came.insert(*id, bytes.len() as u64);
                if !self.pretend {
                    writer.store_chunk(*kind, *id, bytes).await?;
                }
            }
            progress(done, open.len() as u64);
        }
        healed.descriptions += descriptions.len() as u64;
        if self.pretend {
            return Ok(());
        }
        for description in &descriptions {
            session.keep_description(description).await?;
        }
        writer.finish().await?;
        let packs = session.flush().await?;
        healed.stored_bytes += session.stored_bytes().await;
        session.write_index(packs).await?;
        Ok(())
    }

    /// Chunks in the order in which they lie in packs, so that each segment is opened once.
    fn as_they_lie(&self, open: &BTreeMap<ChunkId, ObjectType>) -> Result<Vec<(ChunkId, ObjectType)>, RepositoryError> {
        let mut places = Vec::with_capacity(open.len());
        for (id, kind) in open {
            let mut found = self.repository.cache().find_all(id)?;
            if let Some(replica) = self.replica.filter(|_| found.is_empty()) {
                found = replica.cache().find_all(id)?;
            }
            places.push((found.first().map(|at| (at.pack, at.segment, at.position)), *id, *kind));
        }
        places.sort_unstable_by_key(|(place, id, _)| (*place, *id));
        Ok(places.into_iter().map(|(_, id, kind)| (id, kind)).collect())
    }

    /// Descriptions of content packs that are `present`, which are in no tree pack that is.
    fn lost_descriptions(&self, present: &HashSet<PackId>) -> Result<Vec<Vec<u8>>, RepositoryError> {
        let (cache, keys) = (self.repository.cache(), self.repository.keys());
        let mut lost = Vec::new();
        for pack in
            cache.packs()?.iter().filter(|pack| pack.kind == ObjectType::ContentPack && present.contains(&pack.id))
        {
            let Some(entry) = cache.pack(&pack.id)? else { continue };
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            if !cache.find_all(&keys.chunk_id(&bytes))?.iter().any(|location| present.contains(&location.pack)) {
                lost.push(bytes);
            }
        }
        Ok(lost)
    }
}

/// The plaintext of a chunk, if it can be read.
async fn read(reader: &Arc<ChunkReader>, id: &ChunkId) -> Result<Option<Bytes>, RepositoryError> {
    match reader.chunk(id).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(RepositoryError::Damaged(_) | RepositoryError::MissingChunk { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
