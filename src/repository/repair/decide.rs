//! What follows from what is there: one mark that confirms snapshots of copied repositories, quarantines those of which
//! something is lost, reinstates those that are whole again, and condemns packs that cannot be trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::format::index::SegmentEntry;
use crate::format::manifest::Manifest;
use crate::format::mark::Decisions;
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::repository::chunks::ChunkReader;
use crate::repository::executor::Executor;
use crate::repository::lease::Claimant;
use crate::repository::loss::{Holdings, Lacking, Walker};
use crate::repository::marks::Record;
use crate::repository::reach::Reach;
use crate::repository::runs::Run;
use crate::repository::snapshots::Snapshot;
use crate::repository::{Repository, RepositoryError};

/// How often it is decided anew because another run was faster.
const TRIES_MAX: u32 = 100;

/// What a dry run takes for mended.
#[derive(Default)]
pub struct Pretended {
    /// Chunks that would be brought back, with their lengths.
    pub chunks: BTreeMap<ChunkId, u64>,
    /// Manifests that would.
    pub manifests: BTreeMap<SnapshotId, Manifest>,
    /// Where recipes are read that are nowhere else.
    pub replica: Option<Arc<Repository>>,
}

/// What is there of the snapshots that count, or should.
pub struct Examined {
    /// All decisions so far.
    pub record: Record,
    /// The snapshots that were walked; those of runs that are alive, or died, are not among them.
    pub snapshots: Vec<Snapshot>,
    /// What they lack.
    pub lacking: Lacking,
    /// Which packs can be trusted.
    pub holdings: Holdings,
    /// Condemned packs without which something that is needed would be nowhere.
    pub pardon: BTreeSet<PackId>,
}

/// Looks at everything that snapshots need. Of the late ones only those of a copied repository count: their runs put no
/// leases here, or had ended in time. What is `pretended` counts as there; then what the cache says of the index
/// is not brought up to date.
///
/// Condemned packs that are needed are read: an earlier repair may have condemned them because they are damaged, when no manifest
/// that needs them could be read. So are the recipes and trees of snapshots that do not count yet: the check passed over these, and
/// the local cache may hold what is damaged in the store.
pub async fn examine(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    pretended: Option<&Pretended>,
) -> Result<Examined, RepositoryError> {
    loop {
        let examined = look(repository, executor, pretended).await?;
        // Each that is damaged is trusted no more, so that this ends.
        let mut found = repository.find_damaged(&examined.pardon).await?;
        if pretended.is_none() {
            found |= find_damaged_descriptions(repository, executor, &examined.snapshots).await?;
        }
        if !found {
            return Ok(examined);
        }
    }
}

/// Reads the recipes and trees of those snapshots that do not count yet, and remembers which packs are damaged; whether any is that
/// was not known to be.
async fn find_damaged_descriptions(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    snapshots: &[Snapshot],
) -> Result<bool, RepositoryError> {
    let known = repository.cache().damaged_packs()?;
    let mut reach = Reach::new(Arc::new(ChunkReader::new(Arc::clone(repository), Arc::clone(executor))));
    for snapshot in snapshots.iter().filter(|snapshot| !snapshot.is_certain()) {
        match reach.snapshot(&snapshot.manifest, &mut |_| Ok(())).await {
            // What lies behind the first damage is read once that was mended.
            Ok(()) | Err(RepositoryError::Damaged(_) | RepositoryError::MissingChunk { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(repository.cache().damaged_packs()? != known)
}

async fn look(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    pretended: Option<&Pretended>,
) -> Result<Examined, RepositoryError> {
    // Marks before packs: what goes in between was condemned before.
    let record = repository.record().await?;
    let listed = repository.listed_manifests().await?;
    if pretended.is_none() {
        repository.sync_index().await?;
    }
    // Those that cannot be read were told by the check.
    let (mut snapshots, _) = repository.snapshots_of(&listed, &record).await?;
    if snapshots.iter().any(|snapshot| snapshot.late) {
        let runs = repository.runs().await?;
        snapshots.retain(|snapshot| {
            let copied = |run: &Run| run.has_ended_by(snapshot.manifest.lease_deadline);
            !snapshot.late || runs.get(&snapshot.manifest.run).is_none_or(copied)
        });
    }
    let mut holdings = Holdings::take(repository, &record).await?;
    let reader = |of: &Arc<Repository>| ChunkReader::cached(Arc::clone(of), Arc::clone(executor));
    let mut readers = vec![];
    match pretended {
        None => readers.push(Arc::new(reader(repository))),
        Some(pretended) => {
            readers.push(Arc::new(reader(repository).as_indexed()));
            readers.extend(pretended.replica.as_ref().map(|replica| Arc::new(reader(replica))));
            holdings = holdings.assuming(pretended.chunks.clone());
            let brought = pretended.manifests.iter();
            snapshots.extend(brought.map(|(id, manifest)| Snapshot::new(*id, manifest.clone())));
        }
    }
    let (cache, trusted) = (Arc::clone(repository.cache()), holdings.trusted().clone());
    let mut pardon = BTreeSet::new();
    let mut visit = |id: &ChunkId, depth: u32| -> Result<(), RepositoryError> {
        let found = cache.find_all(id)?;
        let kept = |pack: &PackId| !record.condemned.contains_key(pack) || pardon.contains(pack);
        let fitting = found.iter().filter(|location| location.is_within(depth));
        let mut there = fitting.map(|location| location.pack).filter(|pack| trusted.contains(pack));
        if !there.clone().any(|pack| kept(&pack)) {
            pardon.extend(there.next());
        }
        Ok(())
    };
    let mut walker = Walker::new(readers, holdings);
    for snapshot in &snapshots {
        walker.snapshot(snapshot.id, &snapshot.manifest, &mut visit).await?;
    }
    let (lacking, holdings) = walker.finish();
    pardon_bases(repository, &record, &holdings, &mut pardon)?;
    Ok(Examined { record, snapshots, lacking, holdings, pardon })
}

/// Writers rely on all that a pardoned pack holds: what that is based on is pardoned as well.
fn pardon_bases(
    repository: &Repository,
    record: &Record,
    holdings: &Holdings,
    pardon: &mut BTreeSet<PackId>,
) -> Result<(), RepositoryError> {
    let (cache, mut open) = (repository.cache(), pardon.clone());
    while let Some(pack) = open.pop_first() {
        let Some(entry) = cache.pack(&pack)? else { continue };
        for (id, depth) in entry.segments.iter().flat_map(SegmentEntry::bases) {
            let found = cache.find_all(&id)?;
            let fitting = found.iter().filter(|at| at.is_within(depth) && holdings.trusted().contains(&at.pack));
            let mut there = fitting.map(|location| location.pack);
            let kept = |pack: &PackId| !record.condemned.contains_key(pack) || pardon.contains(pack);
            if there.clone().any(|pack| kept(&pack)) {
                continue;
            }
            if let Some(base) = there.next() {
                pardon.insert(base);
                open.insert(base);
            }
        }
    }
    Ok(())
}

impl Examined {
    /// What is to be decided. `lost` are snapshots whose manifests nobody has any more, and that are to be given up.
    pub fn decisions(
        &self,
        repository: &Repository,
        lost: &BTreeSet<SnapshotId>,
    ) -> Result<Decisions, RepositoryError> {
        let hurt: BTreeSet<SnapshotId> = self.lacking.snapshots.iter().map(|loss| loss.id).collect();
        let known = &self.record.quarantined;
        let walked = self.snapshots.iter().map(|snapshot| snapshot.id);
        let condemned = repository.cache().packs()?.into_iter().map(|pack| pack.id);
        let condemned = condemned
            .filter(|pack| !self.holdings.trusted().contains(pack) && !self.record.condemned.contains_key(pack));
        Ok(Decisions {
            forgotten: lost.difference(&self.record.forgotten).copied().collect(),
            condemned: condemned.collect(),
            pardoned: self.pardon.clone(),
            confirmed: self.snapshots.iter().filter(|snapshot| snapshot.late).map(|snapshot| snapshot.id).collect(),
            quarantined: hurt.difference(known).copied().collect(),
            reinstated: walked.filter(|id| known.contains(id) && !hurt.contains(id)).collect(),
            ..Decisions::default()
        })
    }
}

/// Examines and decides, again when another run was faster. Gives what was decided on, and what was decided.
pub async fn settle(
    repository: &Arc<Repository>,
    executor: &Arc<dyn Executor>,
    claimant: &Claimant,
    lost: &BTreeSet<SnapshotId>,
) -> Result<(Examined, Decisions), RepositoryError> {
    for _ in 0..TRIES_MAX {
        let examined = examine(repository, executor, None).await?;
        let decisions = examined.decisions(repository, lost)?;
        if decisions.is_empty() {
            return Ok((examined, decisions));
        }
        if repository.put_mark_after(claimant, &examined.record, false, decisions.clone()).await?.is_some() {
            return Ok((examined, decisions));
        }
    }
    Err(RepositoryError::Contended { tries: TRIES_MAX })
}
