//! Resolves every stream, and tells which ones damaged packs hurt.
//!
//! What looks wrong is walked again after the marks and the index were read anew, unless nothing there is different.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::super::chunks::ChunkReader;
use super::super::snapshots::Snapshot;
use super::super::{Damage, RepositoryError};
use super::remedy::finding;
use super::walk::{Sound, Walk};
use super::{Checker, Reason};
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::manifest::{ComponentRecord, ComponentStatus, StreamRecord};
use crate::id::PackId;

/// How often a stream is walked anew because something changed meanwhile.
const TRIES_MAX: u32 = 10;

/// Names of the streams that each pack hurts.
type Hurt = HashMap<PackId, BTreeSet<String>>;

/// What a walk found.
struct Walked {
    hurt: BTreeSet<PackId>,
    length: Result<u64, RepositoryError>,
}

impl Walked {
    /// Whether what it found may be explained by what others did meanwhile.
    fn may_be_old(&self, known: &HashSet<PackId>) -> bool {
        let moved = self.hurt.iter().any(|pack| !known.contains(pack));
        moved
            || match &self.length {
                Ok(_) => false,
                Err(RepositoryError::MissingChunk { .. }) => true,
                Err(RepositoryError::Damaged(damage)) => damage.layer == "presence",
                Err(_) => false,
            }
    }
}

impl Checker {
    pub(super) async fn streams(&mut self, snapshots: &[Snapshot]) -> Result<(), RepositoryError> {
        let reader = Arc::new(ChunkReader::new(Arc::clone(&self.repository), Arc::clone(&self.executor)));
        let (mut hurt, mut sound) = (Hurt::new(), Sound::new());
        let based = self.repository.cache().based_packs()?;
        let mut forgotten = Vec::new();
        for snapshot in snapshots {
            let (reader, based) = (&reader, &based);
            let mut walker = StreamWalker { checker: self, reader, based, hurt: &mut hurt, sound: &mut sound };
            if walker.snapshot(snapshot).await? {
                self.checked.snapshots += 1;
            } else {
                forgotten.push(snapshot.id);
            }
        }
        self.checked.not_checked.extend(super::Unchecked::snapshots(Reason::Vanished, forgotten));
        self.pack_findings(&hurt).await
    }

    async fn pack_findings(&mut self, hurt: &Hurt) -> Result<(), RepositoryError> {
        if self.damages.iter().any(|(_, damage)| damage.layer == "presence") {
            self.refresh().await?;
        }
        for (pack, damage) in std::mem::take(&mut self.damages) {
            let hurts: Vec<String> =
                hurt.get(&pack).map(|streams| streams.iter().cloned().collect()).unwrap_or_default();
            let (facts, condemned) = (self.view.packs().get(&pack), self.view.record.condemned.contains_key(&pack));
            // Deleted meanwhile, or condemned and about to be: nobody needs it.
            if hurts.is_empty() && (condemned || damage.layer == "presence" && facts.is_none()) {
                continue;
            }
            let mut found = finding(damage, hurts);
            if facts.is_some_and(|facts| facts.only_descriptions) {
                found.hurts.push("nothing but the rebuilding of a lost index".to_owned());
                found.remedy = format!("{}; no restore needs it", found.remedy);
            }
            self.checked.findings.push(found);
        }
        Ok(())
    }
}

/// Walks over the streams of snapshots.
struct StreamWalker<'a> {
    checker: &'a mut Checker,
    reader: &'a Arc<ChunkReader>,
    based: &'a BTreeSet<PackId>,
    hurt: &'a mut Hurt,
    sound: &'a mut Sound,
}

impl StreamWalker<'_> {
    /// `false` if the snapshot was forgotten meanwhile.
    async fn snapshot(&mut self, snapshot: &Snapshot) -> Result<bool, RepositoryError> {
        for component in &snapshot.manifest.components {
            if component.status == ComponentStatus::Failed {
                continue;
            }
            for stream in &component.streams {
                if !self.stream(snapshot, component, stream).await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn stream(
        &mut self,
        snapshot: &Snapshot,
        component: &ComponentRecord,
        stream: &StreamRecord,
    ) -> Result<bool, RepositoryError> {
        let name = format!("snapshot {} component {} stream {}", snapshot.id.short(), component.name, stream.name);
        let mut walked = self.walk(stream, &name).await;
        for _ in 0..TRIES_MAX {
            if !walked.may_be_old(&self.checker.hurt_packs) {
                break;
            }
            let changed = self.checker.refresh().await?;
            if self.checker.view.record.forgotten.contains(&snapshot.id) {
                return Ok(false);
            }
            if !changed {
                break;
            }
            walked = self.walk(stream, &name).await;
        }
        let Walked { hurt, length } = walked;
        let object = layout::object(ObjectType::Manifest, &snapshot.id).to_string();
        for pack in hurt {
            if !self.checker.hurt_packs.contains(&pack) {
                let problem = match self.checker.view.packs().contains_key(&pack) {
                    true => format!("what chunks of it in pack {pack} are compressed against is in no pack"),
                    false => format!("pack {pack}, which holds chunks of it, is in no index"),
                };
                self.checker.report(Damage { object: object.clone(), layer: "chunk", problem }, vec![name.clone()]);
            }
            self.hurt.entry(pack).or_default().insert(name.clone());
        }
        match length {
            Ok(length) if length == stream.length => {}
            Ok(length) => {
                let problem = format!("its chunks add up to {length} bytes, not to {}", stream.length);
                self.checker.report(Damage { object, layer: "recipe", problem }, vec![name]);
            }
            // A damaged pack of recipes was reported as such, if it was read; here it is at least told whom it hurts.
            Err(RepositoryError::Damaged(damage)) => self.damaged(damage, name),
            Err(RepositoryError::MissingChunk { id }) => {
                let problem = format!("chunk {id} is in no pack that an index names");
                self.checker.report(Damage { object, layer: "chunk", problem }, vec![name]);
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    async fn walk(&mut self, stream: &StreamRecord, name: &str) -> Walked {
        let key = (stream.root.depth, stream.root.chunks.clone(), stream.length);
        let is_tree = stream.name == "tree";
        if !is_tree && self.sound.contains(&key) {
            return Walked { hurt: BTreeSet::new(), length: Ok(stream.length) };
        }
        let (view, hurt_packs) = (&self.checker.view, &self.checker.hurt_packs);
        let mut walk = Walk {
            reader: self.reader,
            view,
            hurt_packs,
            name,
            based: self.based,
            hurt: BTreeSet::new(),
            segments: HashMap::new(),
        };
        let length = if is_tree { walk.tree(&stream.root, self.sound).await } else { walk.ids(&stream.root).await };
        let walked = Walked { hurt: walk.hurt, length };
        if !is_tree && walked.hurt.is_empty() && matches!(walked.length, Ok(length) if length == stream.length) {
            self.sound.insert(key);
        }
        walked
    }

    fn damaged(&mut self, damage: Damage, name: String) {
        let pack: Option<PackId> = damage.object.rsplit('/').next().and_then(|hex| hex.parse().ok());
        match pack {
            Some(pack) if self.checker.view.packs().contains_key(&pack) => {
                self.hurt.entry(pack).or_default().insert(name);
                if !self.checker.hurt_packs.contains(&pack) {
                    self.checker.pack_damage(pack, damage);
                }
            }
            _ => self.checker.report(damage, vec![name]),
        }
    }
}
