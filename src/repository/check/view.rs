//! What the marks and the index say now: read anew whenever something looks wrong.
//!
//! An index object is read once. What it describes goes into the cache, which is corrected if it said something else, so that
//! memory holds little more than the names of packs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt as _, stream};

use super::super::marks::Record;
use super::super::{Damage, RepositoryError};
use super::Checker;
use crate::format::envelope::ObjectType;
use crate::format::index::{Index, PackEntry, SegmentKind};
use crate::format::layout;
use crate::id::{ObjectId, ObjectName, PackId};

/// How often the index objects are listed anew because one of them went meanwhile.
const TRIES_MAX: u32 = 10;

/// What is kept of a pack that an index names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackFacts {
    pub kind: ObjectType,
    pub stored_size: u32,
    /// Whether it holds nothing but descriptions of content packs.
    pub only_descriptions: bool,
    /// How many index objects name it.
    named_by: u32,
}

impl PackFacts {
    fn of(pack: &PackEntry) -> Self {
        let only_descriptions = pack.kind == ObjectType::TreePack
            && pack.segments.iter().all(|segment| segment.kind == SegmentKind::PackEntry);
        Self { kind: pack.kind, stored_size: pack.stored_size, only_descriptions, named_by: 0 }
    }

    pub fn name(&self, id: &PackId) -> ObjectName {
        layout::object(self.kind, id)
    }
}

/// The marks and the index objects as they were when they were last looked at.
#[derive(Default)]
pub(super) struct View {
    /// All decisions; those that can be read, if `record_hurt`.
    pub record: Record,
    /// Whether marks are damaged or missing.
    pub record_hurt: bool,
    /// Index objects that are there, with the packs that each names.
    indexes: BTreeMap<ObjectId, Vec<PackId>>,
    /// Index objects that are there and cannot be read.
    damaged: BTreeSet<ObjectId>,
    superseded: BTreeSet<ObjectId>,
    packs: BTreeMap<PackId, PackFacts>,
    /// Packs that were named for the first time since they were last taken from here.
    new_packs: Vec<PackId>,
}

impl View {
    /// Packs that an index names.
    pub fn packs(&self) -> &BTreeMap<PackId, PackFacts> {
        &self.packs
    }

    /// Whether an index object is there, or one that took its place.
    pub fn knows_index(&self, id: &ObjectId) -> bool {
        self.indexes.contains_key(id) || self.damaged.contains(id) || self.superseded.contains(id)
    }

    fn add(&mut self, id: ObjectId, index: &Index) {
        self.superseded.extend(&index.supersedes);
        for pack in &index.packs {
            let facts = self.packs.entry(pack.id).or_insert_with(|| PackFacts::of(pack));
            if facts.named_by == 0 {
                self.new_packs.push(pack.id);
            }
            facts.named_by += 1;
        }
        self.indexes.insert(id, index.packs.iter().map(|pack| pack.id).collect());
    }

    fn remove(&mut self, id: &ObjectId) {
        for pack in self.indexes.remove(id).unwrap_or_default() {
            if let Some(facts) = self.packs.get_mut(&pack) {
                facts.named_by -= 1;
                if facts.named_by == 0 {
                    self.packs.remove(&pack);
                }
            }
        }
    }

    /// The packs that came since this was last asked.
    pub fn take_new_packs(&mut self) -> Vec<PackId> {
        let mut new = std::mem::take(&mut self.new_packs);
        new.retain(|pack| self.packs.contains_key(pack));
        new
    }
}

impl Checker {
    /// Looks again what was decided and what the index names. `true` if anything is different than before.
    pub(super) async fn refresh(&mut self) -> Result<bool, RepositoryError> {
        let newest = self.view.record.newest;
        // Marks that are damaged were reported; what the others say is known.
        if !self.view.record_hurt {
            match self.repository.record().await {
                Ok(record) => self.view.record = record,
                Err(RepositoryError::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let changed = self.read_indexes().await?;
        if changed && self.packs_listed {
            self.new_packs_present().await?;
        }
        Ok(changed || self.view.record.newest != newest)
    }

    /// Reads the index objects that were not read yet, and forgets those that are gone. `true` if there are any.
    pub(super) async fn read_indexes(&mut self) -> Result<bool, RepositoryError> {
        let (mut changed, mut gone) = (false, Vec::new());
        for _ in 0..TRIES_MAX {
            let listed = self.repository.list_objects(ObjectType::Index).await?;
            gone = self.read_new_indexes(&listed, &mut changed).await?;
            // Added before forgotten: what a new object took over from an old one is never missing in between.
            let old: Vec<ObjectId> = self.view.indexes.keys().filter(|id| !listed.contains(id)).copied().collect();
            changed |= !old.is_empty();
            old.iter().for_each(|id| self.view.remove(id));
            self.view.damaged.retain(|id| listed.contains(id));
            for stale in self.repository.cache().known_indexes()?.difference(&listed) {
                self.repository.cache().remove_index(stale)?;
            }
            gone.retain(|(id, _)| !self.view.superseded.contains(id));
            if gone.is_empty() {
                return Ok(changed);
            }
        }
        // Listed again and again, never there, and nothing took its place.
        for (id, damage) in gone {
            self.damaged_index(id, damage)?;
        }
        Ok(changed)
    }

    /// Gives those that were listed and were not there any more.
    async fn read_new_indexes(
        &mut self,
        listed: &BTreeSet<ObjectId>,
        changed: &mut bool,
    ) -> Result<Vec<(ObjectId, Damage)>, RepositoryError> {
        let known = |id: &&ObjectId| self.view.indexes.contains_key(*id) || self.view.damaged.contains(*id);
        let new: Vec<ObjectId> = listed.iter().filter(|id| !known(id)).copied().collect();
        let repository = Arc::clone(&self.repository);
        let reads = stream::iter(new).map(move |id| {
            let repository = Arc::clone(&repository);
            async move { (id, repository.get_index(&id).await) }
        });
        let mut reads = reads.buffered(self.at_once()).boxed();
        let mut gone = Vec::new();
        while let Some((id, read)) = reads.next().await {
            match read {
                Ok(index) => {
                    *changed = true;
                    self.take_index(id, &index)?;
                }
                Err(RepositoryError::Damaged(damage)) if damage.layer == "presence" => gone.push((id, damage)),
                Err(RepositoryError::Damaged(damage)) => self.damaged_index(id, damage)?,
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    fn take_index(&mut self, id: ObjectId, index: &Index) -> Result<(), RepositoryError> {
        let cache = self.repository.cache();
        let mut same = true;
        for pack in &index.packs {
            same &= cache.pack(&pack.id)?.as_ref() == Some(pack);
        }
        if !same {
            cache.remove_index(&id)?;
        }
        cache.add_index(&id, index)?;
        self.checked.objects += 1;
        self.view.add(id, index);
        Ok(())
    }

    fn damaged_index(&mut self, id: ObjectId, damage: Damage) -> Result<(), RepositoryError> {
        // What it said before it was damaged may be in the cache; a fresh machine would not have it.
        self.repository.cache().remove_index(&id)?;
        if self.view.damaged.insert(id) {
            self.report(damage, vec!["snapshots whose chunks only this index names, see below".to_owned()]);
        }
        Ok(())
    }
}
