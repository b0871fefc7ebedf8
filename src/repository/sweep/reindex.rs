//! Replacing index objects: those that name packs which are gone, and those of which there are too many small ones.
//!
//! The new object is durable before an old one goes, and says all that the old ones say of packs that stay; it names them, so
//! that nobody misses them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::format::envelope::ObjectType;
use crate::format::index::{Index, PackEntry};
use crate::format::layout;
use crate::id::{ObjectId, PackId};
use crate::repository::{Repository, RepositoryError};

/// Chunks after which a merged index object is closed: about seven megabytes.
const MERGED_CHUNKS: usize = 200_000;

/// An index object with fewer chunks is small.
const SMALL_CHUNKS: usize = 20_000;

/// How many small ones are left as they are.
const SMALL_KEPT: usize = 16;

/// What became of the index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reindexed {
    /// Index objects that were put.
    pub put: u64,
    /// Index objects that were deleted.
    pub deleted: u64,
}

/// Tells whether a snapshot names, or may come to name, an index object.
type Named<'a> = dyn Fn(&ObjectId) -> bool + Send + Sync + 'a;

/// Takes the packs `gone` out of the index, and merges small index objects.
pub async fn reindex(
    repository: &Arc<Repository>,
    gone: &BTreeSet<PackId>,
    named: &Named<'_>,
) -> Result<Reindexed, RepositoryError> {
    let cache = repository.cache();
    let mut groups: Vec<Group> = vec![Group::default()];
    for (id, packs) in chosen(repository, gone)? {
        let mut entries = Vec::new();
        for pack in packs.iter().filter(|pack| !gone.contains(*pack)) {
            entries.extend(cache.pack(pack)?);
        }
        let chunks = entries.iter().map(PackEntry::chunk_count).sum::<usize>();
        let mut last = groups.len() - 1;
        if groups[last].chunks > 0 && groups[last].chunks + chunks > MERGED_CHUNKS {
            groups.push(Group::default());
            last += 1;
        }
        let group = &mut groups[last];
        group.chunks += chunks;
        group.packs.extend(entries.into_iter().map(|entry| (entry.id, entry)));
        group.supersedes.insert(id);
        // What it superseded itself need only be told while a snapshot names it.
        group.supersedes.extend(cache.superseded(&id)?.into_iter().filter(|old| named(old)));
        group.old.push(id);
    }
    let mut done = Reindexed::default();
    for group in groups.into_iter().filter(|group| !group.old.is_empty()) {
        group.replace(repository, named, &mut done).await?;
    }
    Ok(done)
}

/// The index objects to replace, with the packs that each names.
fn chosen(
    repository: &Repository,
    gone: &BTreeSet<PackId>,
) -> Result<BTreeMap<ObjectId, Vec<PackId>>, RepositoryError> {
    let cache = repository.cache();
    let mut by_index = cache.packs_by_index()?;
    for empty in cache.known_indexes()? {
        by_index.entry(empty).or_default();
    }
    let touched = |packs: &Vec<PackId>| packs.is_empty() || packs.iter().any(|pack| gone.contains(pack));
    let mut small = BTreeSet::new();
    for (id, packs) in &by_index {
        let mut chunks = 0;
        for pack in packs {
            chunks += cache.pack(pack)?.map_or(0, |entry| entry.chunk_count());
            if chunks >= SMALL_CHUNKS {
                break;
            }
        }
        if chunks < SMALL_CHUNKS {
            small.insert(*id);
        }
    }
    let merges = small.len() > SMALL_KEPT;
    // A lone index object without packs only tells what it supersedes: it need not be replaced by another one.
    let any_touched = by_index.values().any(|packs| packs.iter().any(|pack| gone.contains(pack)));
    by_index.retain(|id, packs| {
        let holds_gone = packs.iter().any(|pack| gone.contains(pack));
        holds_gone || merges && small.contains(id) || any_touched && touched(packs)
    });
    Ok(by_index)
}

#[derive(Default)]
struct Group {
    chunks: usize,
    packs: BTreeMap<PackId, PackEntry>,
    supersedes: BTreeSet<ObjectId>,
    old: Vec<ObjectId>,
}

impl Group {
    async fn replace(
        self,
        repository: &Arc<Repository>,
        named: &Named<'_>,
        done: &mut Reindexed,
    ) -> Result<(), RepositoryError> {
        let Self { packs, supersedes, old, .. } = self;
        let index = Index { supersedes: supersedes.into_iter().collect(), packs: packs.into_values().collect() };
        // One that would say nothing, and whose forerunners nobody names, is not needed.
        if !index.packs.is_empty() || index.supersedes.iter().any(named) {
            let id = repository.put_object(ObjectType::Index, &index.encode()).await?;
            repository.cached(repository.cache().add_index(&id, &index));
            done.put += 1;
        }
        for id in old {
            repository.store().delete(&layout::object(ObjectType::Index, &id)).await?;
            repository.cached(repository.cache().remove_index(&id));
            done.deleted += 1;
        }
        Ok(())
    }
}
