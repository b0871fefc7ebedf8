//! Moving what lives out of packs that are mostly dead, and small packs into one.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::format::envelope::ObjectType;
use crate::format::index::{PackEntry, SegmentKind};
use crate::id::PackId;
use crate::repository::budget::{BUDGET_BYTES_DEFAULT, Budget};
use crate::repository::chunks::ChunkReader;
use crate::repository::executor::Executor;
use crate::repository::session::SessionOptions;
use crate::repository::survey::Survey;
use crate::repository::{Repository, RepositoryError};

/// What was moved.
#[derive(Debug, Default)]
pub struct Repacked {
    /// Packs that hold nothing any more that is not elsewhere.
    pub old: BTreeSet<PackId>,
    /// Packs that were made.
    pub new: HashSet<PackId>,
    /// Bytes of packs that were put.
    pub stored_bytes: u64,
}

/// Stores the live chunks of `entries` anew, and puts the index of them. Nothing is condemned or deleted here.
pub async fn repack(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    survey: &Survey,
    entries: Vec<PackEntry>,
) -> Result<Repacked, RepositoryError> {
    let old: BTreeSet<PackId> = entries.iter().map(|entry| entry.id).collect();
    let kept = |pack: &PackId| !survey.record.condemned.contains_key(pack) && !old.contains(pack);
    let present: HashSet<PackId> = survey.trusted().filter(kept).collect();
    let budget = Budget::new(BUDGET_BYTES_DEFAULT).expect("the default is above the least");
    let session =
        repository.write_beside(present, SessionOptions { budget, executor: Arc::clone(executor), stage: None })?;
    let reader = Arc::new(ChunkReader::new(Arc::clone(repository), Arc::clone(executor)));
    let mut writer = session.component().await;
    for entry in entries {
        let Some(live) = survey.live.get(&entry.id) else { continue };
        for (position, kind, id) in chunks(&entry) {
            if !live.contains(position) {
                continue;
            }
            let bytes = reader.chunk(&id).await?;
            match kind {
                SegmentKind::Chunks => writer.store_chunk(entry.kind, id, bytes).await?,
                SegmentKind::PackEntry => session.keep_description(&bytes).await?,
            }
        }
    }
    writer.finish().await?;
    let packs = session.flush().await?;
    let new = packs.ids();
    session.write_index(packs).await?;
    Ok(Repacked { old, new, stored_bytes: session.stored_bytes().await })
}

fn chunks(entry: &PackEntry) -> Vec<(u32, SegmentKind, crate::id::ChunkId)> {
    let all = entry.segments.iter().flat_map(|segment| segment.chunks.iter().map(|chunk| (segment.kind, chunk.id)));
    (0u32..).zip(all).map(|(position, (kind, id))| (position, kind, id)).collect()
}

/// Whether this slot can move what packs of `kind` hold.
pub fn can_repack(repository: &Repository, kind: ObjectType) -> bool {
    kind == ObjectType::TreePack || repository.keys().reads_content()
}
