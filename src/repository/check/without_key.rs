//! Verifying from outside: what a place that keeps the repository, or an auditor, can see without any key.
//!
//! Objects that are named by their content are hashed against their names. Configs carry a signature of the root that they
//! name themselves, key slots one of the root that the config names. What a key seals stays closed: marks and leases are
//! only looked at from outside, nothing says which snapshot needs what, and an object that is missing cannot be missed.
//!
//! Does not: write anything, or need a local cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;

use super::super::executor::{Executor, run};
use super::super::{Damage, RepositoryError, check_name, get_or_damage, open, seal_damage};
use super::choice::{Candidate, Choice, choose};
use super::clear::configs;
use super::data::PACKS_AHEAD;
use super::remedy::finding;
use super::unchecked::{Reason, Share, Unchecked};
use super::{Checked, Progress};
use crate::format::envelope::{Head, ObjectType};
use crate::format::layout;
use crate::id::{ObjectId, ObjectName, PackId};
use crate::limits::{OBJECT_SIZE_MAX, PACK_SIZE_MAX};
use crate::storage::Store;

/// Types whose objects are named by their content, but packs.
const NAMED_BY_CONTENT: [ObjectType; 4] =
    [ObjectType::Index, ObjectType::Manifest, ObjectType::Confirm, ObjectType::Report];

/// Types whose objects are named by a number.
const NUMBERED: [ObjectType; 2] = [ObjectType::Mark, ObjectType::Lease];

/// Verifies what can be verified without a key. All packs in the store are candidates for `choice`, at the moment `now`;
/// when they were last read is not known.
///
/// # Errors
/// [`RepositoryError::NotFound`] and its kin if there is no repository; not if its config is damaged.
pub async fn check_without_key(
    store: &Arc<dyn Store>,
    executor: &Arc<dyn Executor>,
    choice: &Choice,
    now: Timestamp,
    progress: Progress<'_>,
) -> Result<Checked, RepositoryError> {
    let mut outside = Outside { store, executor, checked: Checked::default(), vanished: 0, passed: BTreeMap::new() };
    outside.clear_objects().await?;
    let in_clear = outside.checked.objects;
    for kind in NAMED_BY_CONTENT {
        outside.objects(kind).await?;
    }
    for kind in NUMBERED {
        outside.numbered(kind).await?;
    }
    let closed = outside.checked.objects - in_clear;
    outside.packs(choice, now, progress).await?;
    Ok(outside.finish(closed))
}

struct Outside<'a> {
    store: &'a Arc<dyn Store>,
    executor: &'a Arc<dyn Executor>,
    checked: Checked,
    vanished: u64,
    passed: BTreeMap<Reason, Share>,
}

/// Gets an object and checks it by its name and its head.
async fn look(
    store: &dyn Store,
    executor: &Arc<dyn Executor>,
    kind: ObjectType,
    name: ObjectName,
    id: Option<ObjectId>,
    size_max: u64,
) -> Result<u64, RepositoryError> {
    let stored: Bytes = get_or_damage(store, &name, size_max).await?;
    let size = stored.len() as u64;
    run(executor, move || {
        if let Some(id) = id {
            check_name(&name, &id, &stored)?;
        }
        let head = Head::decode(&stored).map_err(|error| seal_damage(&name, error.into()))?;
        if head.kind == kind {
            return Ok(size);
        }
        let problem = format!("it is a {} in the place of a {}", head.kind.name(), kind.name());
        Err(Damage { object: name.to_string(), layer: "envelope", problem })
    })
    .await
    .map_err(RepositoryError::Damaged)
}

impl Outside<'_> {
    fn report(&mut self, damage: Damage, hurts: &str) {
        self.checked.findings.push(finding(damage, vec![hurts.to_owned()]));
    }

    async fn clear_objects(&mut self) -> Result<(), RepositoryError> {
        let (configs, damages) = configs(&**self.store).await?;
        if configs.is_empty() && damages.is_empty() {
            // Says what is there instead.
            open::read_config(&**self.store).await?;
        }
        damages.into_iter().for_each(|damage| self.report(damage, "everything: without its config nothing opens"));
        let Some(config) = configs.last() else { return Ok(()) };
        let (slots, damages) = open::read_slots(&**self.store, config).await?;
        self.checked.objects += (configs.len() + slots.len()) as u64;
        damages.into_iter().for_each(|damage| self.report(damage, "everything, for who uses this key"));
        Ok(())
    }

    /// Hashes all objects of a kind.
    async fn objects(&mut self, kind: ObjectType) -> Result<(), RepositoryError> {
        let mut names = Vec::new();
        for info in self.store.list(layout::folder(kind)).await? {
            match layout::id_in(&info.name).filter(|id| layout::object(kind, id) == info.name) {
                Some(id) => names.push((info.name, id)),
                None => self.stranger(&info.name),
            }
        }
        let (store, executor) = (Arc::clone(self.store), Arc::clone(self.executor));
        let looks = stream::iter(names).map(move |(name, id)| {
            let (store, executor) = (Arc::clone(&store), Arc::clone(&executor));
            async move { look(&*store, &executor, kind, name, Some(id), OBJECT_SIZE_MAX).await }
        });
        let mut looks = looks.buffered(self.store.capabilities().concurrency.max(1)).boxed();
        while let Some(looked) = looks.next().await {
            self.take(looked.map(drop), kind)?;
        }
        Ok(())
    }

    fn stranger(&mut self, name: &ObjectName) {
        let problem = "its name is not that of an object of this kind".to_owned();
        self.report(Damage { object: name.to_string(), layer: "name", problem }, "nothing that is known");
    }

    fn take(&mut self, looked: Result<(), RepositoryError>, kind: ObjectType) -> Result<(), RepositoryError> {
        match looked {
            Ok(()) => self.checked.objects += 1,
            // Others delete meanwhile, and without a key nobody can tell whether they may.
            Err(RepositoryError::Damaged(damage)) if damage.layer == "presence" => self.vanished += 1,
            Err(RepositoryError::Damaged(damage)) => {
                self.report(damage, &format!("what this {} holds; a key tells more", kind.name()));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Looks at the heads of all objects of a kind that no content names.
    async fn numbered(&mut self, kind: ObjectType) -> Result<(), RepositoryError> {
        for info in self.store.list(layout::folder(kind)).await? {
            let looked = look(&**self.store, self.executor, kind, info.name, None, OBJECT_SIZE_MAX).await;
            self.take(looked.map(drop), kind)?;
        }
        Ok(())
    }

    async fn packs(&mut self, choice: &Choice, now: Timestamp, progress: Progress<'_>) -> Result<(), RepositoryError> {
        let mut kinds: BTreeMap<PackId, ObjectType> = BTreeMap::new();
        let mut candidates = Vec::new();
        for kind in [ObjectType::ContentPack, ObjectType::TreePack] {
            for info in self.store.list(layout::folder(kind)).await? {
                match layout::id_in(&info.name).filter(|id| layout::object(kind, id) == info.name) {
                    Some(id) => {
                        kinds.insert(id, kind);
                        candidates.push(Candidate { id, size: info.size, read_at: None });
                    }
                    None => self.stranger(&info.name),
                }
            }
        }
        self.checked.packs = candidates.len() as u64;
        let chosen = choose(choice, now, candidates);
        self.passed = chosen.passed;
        let total: u64 = chosen.read.iter().map(|candidate| candidate.size).sum();
        let (store, executor) = (Arc::clone(self.store), Arc::clone(self.executor));
        let looks = stream::iter(chosen.read).map(|candidate| {
            let (store, executor) = (Arc::clone(&store), Arc::clone(&executor));
            let kind = kinds[&candidate.id];
            async move {
                let name = layout::object(kind, &candidate.id);
                (candidate, kind, look(&*store, &executor, kind, name, Some(candidate.id), PACK_SIZE_MAX).await)
            }
        });
        let mut looks = looks.buffered(PACKS_AHEAD).boxed();
        let mut seen = 0;
        while let Some((candidate, kind, looked)) = looks.next().await {
            seen += candidate.size;
            self.pack(candidate, kind, looked)?;
            progress(seen, total);
        }
        Ok(())
    }

    fn pack(
        &mut self,
        candidate: Candidate,
        kind: ObjectType,
        looked: Result<u64, RepositoryError>,
    ) -> Result<(), RepositoryError> {
        match looked {
            Ok(size) => {
                self.checked.packs_read += 1;
                self.checked.bytes_read += size;
                self.checked.hashed.push(candidate.id);
                self.passed.entry(Reason::NoKey).or_default().add(size);
            }
            Err(RepositoryError::Damaged(damage)) if damage.layer == "presence" => {
                self.passed.entry(Reason::Vanished).or_default().add(candidate.size);
            }
            Err(RepositoryError::Damaged(damage)) => {
                self.checked.packs_read += 1;
                self.checked.bytes_read += candidate.size;
                self.report(damage, &format!("what this {} holds; a key tells more", kind.name()));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn finish(mut self, closed: u64) -> Checked {
        let passed = self.passed.into_iter().filter_map(|(reason, share)| Unchecked::packs(reason, share));
        self.checked.not_checked.extend(passed);
        self.checked.not_checked.extend(Unchecked::objects(Reason::NoKey, closed));
        self.checked.not_checked.extend(Unchecked::objects(Reason::Vanished, self.vanished));
        self.checked.hashed.sort_unstable();
        self.checked
    }
}
