//! What the target lacks of some snapshots: packs to copy, and chunks that must be stored anew because the target refuses the
//! packs that hold them.
//!
//! Every chunk is asked for in the target first, then in the source. Descriptions of copied content packs are needed as well:
//! without them no index could be rebuilt. Snapshots that need something which the source cannot give are told apart, so that
//! the others are brought.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::{LeftOut, Reason};
use crate::format::envelope::ObjectType;
use crate::format::index::SegmentEntry;
use crate::format::layout;
use crate::format::report::Finding;
use crate::id::{ChunkId, ObjectId, PackId, SnapshotId};
use crate::limits::BASE_DEPTH_MAX;
use crate::ops::Context;
use crate::repository::cache::{Cache, Location};
use crate::repository::chunks::ChunkReader;
use crate::repository::loss::Holdings;
use crate::repository::reach::Reach;
use crate::repository::snapshots::Snapshot;
use crate::repository::survey::listed_packs;
use crate::repository::{Damage, Repository, RepositoryError};

/// Damage that is told of one snapshot at most; the rest is counted.
const FINDINGS_MAX: usize = 20;

/// A tree pack up to this many bytes is copied for one description in it; a longer one is not worth that.
const SMALL_PACK: u64 = 256 << 10;

/// What both repositories hold and refuse, at one moment.
#[derive(Default)]
pub(super) struct View {
    /// Packs of the target that may be relied on.
    there: HashSet<PackId>,
    /// Packs that must not be put into the target under their names: condemned, or there and not what they should be.
    refused: HashSet<PackId>,
    /// Packs that the target lists and no index of it names, with their lengths: an interrupted run left them.
    unnamed: HashMap<PackId, u64>,
    /// Packs that the source lists at their length.
    given: HashSet<PackId>,
    /// Tells from which segments of the target something can be read.
    holdings: Option<Mutex<Holdings>>,
    /// Packs of the source that it condemned, or that were found damaged: the last choice.
    doubtful: HashSet<PackId>,
    /// Packs of the source that this run found to be other bytes than their name says.
    rotten: HashSet<PackId>,
    /// Chunks that this run could not read from the source.
    unreadable: HashSet<ChunkId>,
}

impl View {
    /// Looks at both. The target's marks before its packs: what goes in between was condemned before.
    pub async fn take(source: &Repository, target: Option<&Arc<Repository>>) -> Result<Self, RepositoryError> {
        let mut view = Self::default();
        if let Some(target) = target {
            view.look_at_target(target).await?;
        }
        let listed = listed_packs(source).await?;
        let is_there = |pack: &&crate::repository::cache::KnownPack| {
            listed.get(&pack.id).is_some_and(|listed| (listed.kind, listed.size) == (pack.kind, pack.stored_size))
        };
        view.given = source.cache().packs()?.iter().filter(is_there).map(|pack| pack.id).collect();
        view.doubtful = source.record().await?.condemned.into_keys().collect();
        view.doubtful.extend(source.cache().damaged_packs()?);
        Ok(view)
    }

    async fn look_at_target(&mut self, target: &Repository) -> Result<(), RepositoryError> {
        let record = target.record().await?;
        self.refused = record.condemned.into_keys().collect();
        let mut listed = listed_packs(target).await?;
        let damaged = target.cache().damaged_packs()?;
        for pack in target.cache().packs()? {
            let Some(found) = listed.remove(&pack.id) else { continue };
            if (found.kind, found.size) != (pack.kind, pack.stored_size) || damaged.contains(&pack.id) {
                self.refused.insert(pack.id);
            } else if !self.refused.contains(&pack.id) {
                self.there.insert(pack.id);
            }
        }
        let holdings = Holdings::of(Arc::clone(target.cache()), self.there.clone());
        self.holdings = Some(Mutex::new(holdings.map_err(RepositoryError::from)?));
        self.unnamed = listed.into_iter().map(|(id, pack)| (id, pack.size)).collect();
        Ok(())
    }

    /// Takes over what this run found out.
    pub fn with_found(mut self, rotten: &HashSet<PackId>, broken: &HashSet<PackId>, unread: &HashSet<ChunkId>) -> Self {
        self.rotten.extend(rotten);
        self.refused.extend(broken);
        self.unreadable.extend(unread);
        self
    }

    /// Packs of the target that may be relied on.
    pub fn relied_on(&self) -> &HashSet<PackId> {
        &self.there
    }

    /// Whether the target holds a chunk in a segment that is no deeper than `depth`.
    fn holds(&self, cache: Option<&Cache>, id: &ChunkId, depth: u32) -> Result<bool, RepositoryError> {
        let Some(cache) = cache else { return Ok(false) };
        for location in cache.find_all(id)?.iter().filter(|location| location.is_within(depth)) {
            let mut holdings = self.holdings.as_ref().map(|held| held.lock().unwrap_or_else(PoisonError::into_inner));
            let opens = holdings.as_mut().map_or(Ok(false), |holdings| holdings.opens_at(location))?;
            // A segment that lost its base is there and cannot be read.
            if opens {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// One pack to bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackNeed {
    /// Content or tree.
    pub kind: ObjectType,
    /// Its length as stored.
    pub size: u64,
    /// Whether the target lists it already: then it is read there and not copied.
    pub is_there: bool,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Packs to bring.
    pub packs: BTreeMap<PackId, PackNeed>,
    /// Chunks to read from the source and store anew, with the kind of pack that they belong in.
    pub anew: BTreeMap<ChunkId, ObjectType>,
    /// Descriptions of content packs to store anew, encoded.
    pub describe: Vec<Vec<u8>>,
}

/// What is to be done, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needed {
    /// Packs to copy, and their bytes.
    pub packs: u64,
    /// See `packs`.
    pub bytes: u64,
    /// Packs that an interrupted run brought: to be read once.
    pub packs_to_adopt: u64,
    /// Chunks to store anew.
    pub chunks_anew: u64,
}

impl Needs {
    /// In numbers.
    pub fn summary(&self) -> Needed {
        let copied = || self.packs.values().filter(|pack| !pack.is_there);
        Needed {
            packs: copied().count() as u64,
            bytes: copied().map(|pack| pack.size).sum(),
            packs_to_adopt: self.packs.values().filter(|pack| pack.is_there).count() as u64,
            chunks_anew: self.anew.len() as u64,
        }
    }
}

/// What was found out about some snapshots.
pub(super) struct Gathered {
    /// What those that can be brought need.
    pub needs: Needs,
    /// Those that cannot.
    pub hurt: Vec<LeftOut>,
}

/// Finds out what `snapshots` need that is not in the target.
pub(super) async fn gather(
    context: &Context,
    source: &Arc<Repository>,
    target: Option<&Arc<Repository>>,
    view: &View,
    snapshots: &[Snapshot],
) -> Result<Gathered, RepositoryError> {
    let reader = || Arc::new(ChunkReader::cached(Arc::clone(source), Arc::clone(&context.executor)));
    let walk = async |snapshots: &[&Snapshot]| -> Result<(Gatherer<'_>, Option<Damage>), RepositoryError> {
        let mut gatherer = Gatherer::new(source, target, view)?;
        let mut reach = Reach::new(reader());
        for snapshot in snapshots {
            match reach.snapshot(&snapshot.manifest, &mut |id| gatherer.chunk(id, BASE_DEPTH_MAX)).await {
                Ok(()) => {}
                Err(RepositoryError::Damaged(damage)) => return Ok((gatherer, Some(damage))),
                Err(RepositoryError::MissingChunk { id }) => return Ok((gatherer, Some(nowhere(&id)))),
                Err(error) => return Err(error),
            }
        }
        gatherer.bases()?;
        Ok((gatherer, None))
    };
    let all: Vec<&Snapshot> = snapshots.iter().collect();
    let (gatherer, damage) = walk(&all).await?;
    if damage.is_none() && gatherer.is_whole() {
        return Ok(Gathered { needs: gatherer.finish()?, hurt: vec![] });
    }
    // Snapshots share most of what they need: whom it hurts is asked only where something is amiss.
    let (mut whole, mut hurt) = (Vec::new(), Vec::new());
    for snapshot in &all {
        let (gatherer, damage) = walk(&[snapshot]).await?;
        match gatherer.trouble(snapshot.id, damage) {
            Some(left_out) => hurt.push(left_out),
            None => whole.push(*snapshot),
        }
    }
    let (gatherer, _) = walk(&whole).await?;
    Ok(Gathered { needs: gatherer.finish()?, hurt })
}

fn nowhere(id: &ChunkId) -> Damage {
    let problem = format!("chunk {} is in no pack that an index names", id.short());
    Damage { object: "index/".to_owned(), layer: "chunk", problem }
}

/// Damage as a finding; it hurts a snapshot, or as far as is known nothing.
pub(super) fn finding(damage: Damage, hurts: Option<&SnapshotId>) -> Finding {
    Finding {
        object: damage.object,
        layer: damage.layer.to_owned(),
        problem: damage.problem,
        hurts: hurts.map(|id| format!("snapshot {id}")).into_iter().collect(),
        remedy: "see what else it hurts: infrahub-backup verify --depth data".to_owned(),
    }
}

struct Gatherer<'a> {
    source: &'a Repository,
    target: Option<&'a Cache>,
    view: &'a View,
    based: BTreeSet<PackId>,
    needs: Needs,
    /// Packs with bases that were met, and chunks that these need.
    based_packs: HashSet<PackId>,
    queue: Vec<(ChunkId, u32)>,
    /// Chunks that the source cannot give, with the packs that should.
    missing: HashMap<ChunkId, Vec<Location>>,
    /// Chunks that would have to be read to be stored anew, and cannot.
    locked: HashSet<ChunkId>,
}

impl<'a> Gatherer<'a> {
    fn new(
        source: &'a Repository,
        target: Option<&'a Arc<Repository>>,
        view: &'a View,
    ) -> Result<Self, RepositoryError> {
        Ok(Self {
            source,
            target: target.map(|target| &**target.cache()),
            view,
            based: source.cache().based_packs()?,
            needs: Needs::default(),
            based_packs: HashSet::new(),
            queue: Vec::new(),
            missing: HashMap::new(),
            locked: HashSet::new(),
        })
    }

    fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.locked.is_empty()
    }

    /// A chunk that a snapshot refers to, or that a segment that is brought needs from one that is no deeper than `depth`.
    fn chunk(&mut self, id: &ChunkId, depth: u32) -> Result<(), RepositoryError> {
        if self.view.holds(self.target, id, depth)? {
            return Ok(());
        }
        let mut found = self.source.cache().find_all(id)?;
        found.retain(|location| location.is_within(depth));
        let (view, packs) = (self.view, &self.needs.packs);
        let readable = found
            .iter()
            .copied()
            .filter(|location| view.given.contains(&location.pack) && !view.rotten.contains(&location.pack));
        let rank = |location: &Location| (packs.contains_key(&location.pack), !view.doubtful.contains(&location.pack));
        let copied = readable.clone().filter(|location| !view.refused.contains(&location.pack)).max_by_key(rank);
        let read = readable.max_by_key(rank);
        match (copied, read) {
            (Some(location), _) => self.pack(location)?,
            (None, Some(location))
                if location.kind == ObjectType::ContentPack && !self.source.keys().reads_content() =>
            {
                self.locked.insert(*id);
            }
            (None, Some(location)) if !view.unreadable.contains(id) => {
                self.needs.anew.insert(*id, location.kind);
            }
            (None, Some(_) | None) => drop(self.missing.insert(*id, found)),
        }
        Ok(())
    }

    /// A pack that is brought because of the chunk at `location`.
    fn pack(&mut self, location: Location) -> Result<(), RepositoryError> {
        let Location { pack, kind, .. } = location;
        if !self.needs.packs.contains_key(&pack) {
            let known = self.source.cache().pack(&pack)?;
            let size = known.map_or(0, |entry| u64::from(entry.stored_size));
            let is_there = self.view.unnamed.get(&pack) == Some(&size);
            self.needs.packs.insert(pack, PackNeed { kind, size, is_there });
        }
        // Whoever writes into the target relies on all that its packs hold: of no segment the base may be missing there.
        if self.based.contains(&pack) && self.based_packs.insert(pack) {
            let entry = self.source.cache().pack(&pack)?;
            let segments = entry.iter().flat_map(|entry| &entry.segments);
            self.queue.extend(segments.flat_map(SegmentEntry::bases));
        }
        Ok(())
    }

    /// The bases of what is brought, and theirs.
    fn bases(&mut self) -> Result<(), RepositoryError> {
        while let Some((id, depth)) = self.queue.pop() {
            self.chunk(&id, depth)?;
        }
        Ok(())
    }

    /// What is to be done, descriptions of content packs included.
    fn finish(mut self) -> Result<Needs, RepositoryError> {
        let content = |(id, need): (&PackId, &PackNeed)| (need.kind == ObjectType::ContentPack).then_some(*id);
        let content: Vec<PackId> = self.needs.packs.iter().filter_map(content).collect();
        for pack in content {
            let Some(entry) = self.source.cache().pack(&pack)? else { continue };
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            let id = self.source.keys().chunk_id(&bytes);
            let found = self.source.cache().find_all(&id)?;
            if self.view.holds(self.target, &id, BASE_DEPTH_MAX)?
                || found.iter().any(|at| self.needs.packs.contains_key(&at.pack))
            {
                continue;
            }
            match self.small_pack(&found)? {
                Some(location) => self.pack(location)?,
                None => self.needs.describe.push(bytes),
            }
        }
        Ok(self.needs)
    }

    /// The first of these places whose pack may be copied and is not much longer than the description that is wanted of it.
    fn small_pack(&self, places: &[Location]) -> Result<Option<Location>, RepositoryError> {
        for location in places {
            let view = self.view;
            let may = view.given.contains(&location.pack)
                && !view.rotten.contains(&location.pack)
                && !view.refused.contains(&location.pack);
            let size = self.source.cache().pack(&location.pack)?.map_or(u64::MAX, |entry| entry.stored_size.into());
            if may && size <= SMALL_PACK {
                return Ok(Some(*location));
            }
        }
        Ok(None)
    }

    /// Why the snapshot, which alone was walked, cannot be brought.
    fn trouble(&self, id: SnapshotId, damage: Option<Damage>) -> Option<LeftOut> {
        if damage.is_none() && self.missing.is_empty() {
            let chunks = self.locked.len() as u64;
            let locked = LeftOut { id, reason: Reason::NoContentKey { chunks }, findings: vec![] };
            return (chunks > 0).then_some(locked);
        }
        let mut findings: BTreeMap<String, Finding> = BTreeMap::new();
        for (chunk, locations) in &self.missing {
            let places = locations.iter().map(|location| self.damage_of(location));
            let places: Vec<Damage> = if locations.is_empty() { vec![nowhere(chunk)] } else { places.collect() };
            for place in places {
                findings.entry(place.object.clone()).or_insert_with(|| finding(place, Some(&id)));
            }
        }
        if let Some(damage) = damage {
            findings.entry(damage.object.clone()).or_insert_with(|| finding(damage, Some(&id)));
        }
        let findings = findings.into_values().take(FINDINGS_MAX).collect();
        Some(LeftOut { id, reason: Reason::Damaged, findings })
    }

    fn damage_of(&self, location: &Location) -> Damage {
        let object = layout::object(location.kind, &ObjectId::from_bytes(*location.pack.as_bytes())).to_string();
        let (layer, problem) = if self.view.rotten.contains(&location.pack) {
            ("name", "its bytes do not hash to its name".to_owned())
        } else if self.view.given.contains(&location.pack) {
            ("chunk", "chunks in it cannot be read".to_owned())
        } else {
            ("presence", "it is missing, or has another length than its index says".to_owned())
        };
        Damage { object, layer, problem }
    }
}
