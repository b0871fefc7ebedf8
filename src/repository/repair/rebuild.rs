//! Building the index anew from packs: tree packs describe themselves in their footers, and in some of their segments content
//! packs.
//!
//! Packs that are condemned are left out: they may be on their way out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::format::bytes::FieldReader;
use crate::format::envelope::ObjectType;
use crate::format::index::{Index, PackEntry, PackFooter, SegmentKind};
use crate::format::layout;
use crate::id::{ObjectId, PackId};
use crate::limits::{INDEX_FLUSH_CHUNKS, OBJECT_PLAIN_SIZE_MAX};
use crate::repository::chunks::ChunkReader;
use crate::repository::executor::{Executor, run};
use crate::repository::marks::Record;
use crate::repository::survey::{ListedPack, listed_packs};
use crate::repository::{Damage, Repository, RepositoryError, decode_damage, seal_damage};
use crate::seal::keys::Keys;
use crate::seal::pack::PackOpener;

/// What came of it.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// Packs that are in the index again.
    pub packs: Vec<(ObjectType, PackId)>,
    /// Packs that nothing describes: what interrupted runs left, or what can only be described by a copy.
    pub undescribed: u64,
    /// Packs that could not be opened.
    pub damages: Vec<Damage>,
    /// Index objects that were put, or, in a dry run, that the cache must forget again.
    pub indexes: Vec<ObjectId>,
    /// Index objects that were deleted, because others stand for them.
    pub deleted: u64,
}

/// Puts an index of the packs that none names, which stands for the index objects `lost`, and deletes these. A `replica` may
/// describe what nothing here does. Where `pretend` is set, only the cache learns of it.
pub async fn rebuild(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    replica: Option<&Arc<Repository>>,
    record: &Record,
    lost: &BTreeSet<ObjectId>,
    pretend: bool,
) -> Result<Rebuilt, RepositoryError> {
    let mut rebuilding = Rebuilding { repository, executor, lost, pretend, done: Rebuilt::default() };
    let mut unnamed = listed_packs(repository).await?;
    for pack in repository.cache().packs()? {
        unnamed.remove(&pack.id);
    }
    unnamed.retain(|pack, _| !record.condemned.contains_key(pack));
    let (trees, content): (BTreeMap<_, _>, BTreeMap<_, _>) =
        unnamed.into_iter().partition(|(_, listed)| listed.kind == ObjectType::TreePack);
    rebuilding.trees(trees.into_keys().collect()).await?;
    rebuilding.content(content, replica).await?;
    if !lost.is_empty() && rebuilding.done.indexes.is_empty() {
        rebuilding.put(vec![]).await?;
    }
    rebuilding.delete_lost().await?;
    Ok(rebuilding.done)
}

struct Rebuilding<'a> {
    repository: &'a Arc<Repository>,
    executor: &'a Arc<dyn Executor>,
    lost: &'a BTreeSet<ObjectId>,
    pretend: bool,
    done: Rebuilt,
}

impl Rebuilding<'_> {
    async fn trees(&mut self, unnamed: Vec<PackId>) -> Result<(), RepositoryError> {
        let mut entries = Vec::new();
        for pack in unnamed {
            match self.footer(pack).await {
                Ok(entry) => entries.push(entry),
                Err(RepositoryError::Damaged(damage)) => self.done.damages.push(damage),
                Err(error) => return Err(error),
            }
        }
        self.put_all(entries).await
    }

    /// What a tree pack says of itself.
    async fn footer(&self, pack: PackId) -> Result<PackEntry, RepositoryError> {
        let stored = self.repository.get_stored(ObjectType::TreePack, &pack).await?;
        let keys = Arc::clone(self.repository.keys());
        Ok(run(self.executor, move || read_footer(&keys, pack, &stored)).await?)
    }

    async fn content(
        &mut self,
        mut unnamed: BTreeMap<PackId, ListedPack>,
        replica: Option<&Arc<Repository>>,
    ) -> Result<(), RepositoryError> {
        if unnamed.is_empty() {
            return Ok(());
        }
        let mut entries = self.described(&mut unnamed).await?;
        if let Some(replica) = replica {
            let mut left = BTreeMap::new();
            for (pack, listed) in std::mem::take(&mut unnamed) {
                match replica.cache().pack(&pack)?.filter(|entry| is_of(entry, &listed)) {
                    Some(entry) => entries.push(entry),
                    None => drop(left.insert(pack, listed)),
                }
            }
            unnamed = left;
        }
        self.done.undescribed = unnamed.len() as u64;
        self.put_all(entries).await
    }

    /// The descriptions that tree packs hold of `unnamed` packs, which are taken out of it.
    async fn described(
        &mut self,
        unnamed: &mut BTreeMap<PackId, ListedPack>,
    ) -> Result<Vec<PackEntry>, RepositoryError> {
        let mut descriptions = Vec::new();
        self.repository.cache().for_each_pack(|entry| {
            let of_packs = entry.segments.iter().filter(|segment| segment.kind == SegmentKind::PackEntry);
            descriptions.extend(of_packs.flat_map(|segment| segment.chunks.iter().map(|chunk| chunk.id)));
        })?;
        let reader = Arc::new(ChunkReader::cached(Arc::clone(self.repository), Arc::clone(self.executor)));
        let mut entries = Vec::new();
        for id in descriptions {
            let bytes = match reader.chunk(&id).await {
                Ok(bytes) => bytes,
                Err(RepositoryError::Damaged(damage)) => {
                    self.done.damages.push(damage);
                    continue;
                }
                Err(RepositoryError::MissingChunk { .. }) => continue,
                Err(error) => return Err(error),
            };
            let mut fields = FieldReader::new("description of a pack", &bytes);
            let Ok(entry) = PackEntry::decode(&mut fields) else { continue };
            if unnamed.get(&entry.id).is_some_and(|listed| is_of(&entry, listed)) {
                unnamed.remove(&entry.id);
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    async fn put_all(&mut self, entries: Vec<PackEntry>) -> Result<(), RepositoryError> {
        let (mut group, mut chunks) = (Vec::new(), 0);
        self.done.packs.extend(entries.iter().map(|entry| (entry.kind, entry.id)));
        for entry in entries {
            chunks += entry.chunk_count();
            group.push(entry);
            if chunks >= INDEX_FLUSH_CHUNKS {
                self.put(std::mem::take(&mut group)).await?;
                chunks = 0;
            }
        }
        if group.is_empty() { Ok(()) } else { self.put(group).await }
    }

    async fn put(&mut self, packs: Vec<PackEntry>) -> Result<(), RepositoryError> {
        let index = Index { supersedes: self.lost.iter().copied().collect(), packs };
        let body = index.encode();
        let id = match self.pretend {
            true => ObjectId::of(&body),
            false => self.repository.put_object(ObjectType::Index, &body).await?,
        };
        self.repository.cache().add_index(&id, &index)?;
        self.done.indexes.push(id);
        Ok(())
    }

    /// What others stand for now goes.
    async fn delete_lost(&mut self) -> Result<(), RepositoryError> {
        let listed = self.repository.list_objects(ObjectType::Index).await?;
        for id in self.lost.intersection(&listed) {
            self.done.deleted += 1;
            if !self.pretend {
                self.repository.store().delete(&layout::object(ObjectType::Index, id)).await?;
            }
        }
        Ok(())
    }
}

fn is_of(entry: &PackEntry, listed: &ListedPack) -> bool {
    (entry.kind, u64::from(entry.stored_size)) == (listed.kind, listed.size)
}

fn read_footer(keys: &Keys, pack: PackId, stored: &[u8]) -> Result<PackEntry, Damage> {
    let name = layout::object(ObjectType::TreePack, &pack);
    let opener = PackOpener::new(keys, ObjectType::TreePack, stored).map_err(|error| seal_damage(&name, error))?;
    let bytes = opener.footer(stored, OBJECT_PLAIN_SIZE_MAX).map_err(|error| seal_damage(&name, error))?;
    let footer = PackFooter::decode(&bytes).map_err(|error| decode_damage(&name, &error))?;
    let stored_size = u32::try_from(stored.len()).expect("packs are a few MiB");
    // An index that repeated a lie would be refused by every reader, with all that it says of other packs.
    footer.describe(pack, stored_size).map_err(|error| decode_damage(&name, &error))
}
