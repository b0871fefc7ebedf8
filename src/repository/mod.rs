//! One repository: opening, its objects, its index, its snapshots.
//!
//! Layers: `executor`, `budget` (limits) < `claim`, `cut`, `pack_writer` (writing) < `session` (commit order); `chunks`,
//! `stream` (reading) < `check` (verifying). The order of writing is packs, index, manifest, each durable before the next.
//!
//! Holds: whatever call fails and whenever the process dies, no listed snapshot misses anything.
//! Does not: know deployments, choose snapshots, print.

mod ahead;
pub mod budget;
pub mod cache;
pub mod check;
pub mod chunk_set;
pub mod chunks;
pub mod claim;
pub mod confirm;
pub mod cut;
mod described;
pub mod executor;
pub mod keys;
pub mod lease;
pub mod lineage;
pub mod loss;
pub mod marks;
pub mod open;
mod own;
pub mod pack_writer;
pub mod parent;
pub mod reach;
pub mod repair;
pub mod runs;
pub mod session;
pub mod snapshots;
pub mod stream;
pub mod survey;
pub mod sweep;

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::env::{Clock, Entropy};
use crate::format::FormatError;
use crate::format::config::Config;
use crate::format::envelope::ObjectType;
use crate::format::index::{Index, SegmentEntry};
use crate::format::layout;
use crate::id::{ChunkId, ObjectId, ObjectName, PackId};
use crate::limits::{LEASE_PERIOD, OBJECT_SIZE_MAX, PACK_SIZE_MAX};
use crate::seal::SealError;
use crate::seal::keys::Keys;
use crate::seal::object::{seal_object, unseal_object};
use crate::storage::{Store, StoreError};

use cache::{Cache, CacheError};
use session::{SessionOptions, WriteSession};

/// How often a listing of index objects is taken anew because one of them was superseded meanwhile.
const SYNC_TRIES: u32 = 10;

/// One fact about damage, while something was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("object `{object}` is damaged ({layer}): {problem}")]
pub struct Damage {
    /// Name of the object.
    pub object: String,
    /// Which check found it: `presence`, `length`, `name`, `envelope`, `seal`, `signature`, `decode`, `chunk`, `recipe`, `tree`.
    pub layer: &'static str,
    /// What is wrong.
    pub problem: String,
}

/// Why a repository could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// There is none.
    #[error("there is no repository in {location}")]
    NotFound {
        /// Where.
        location: String,
    },
    /// Something else is there.
    #[error("{location} holds a {what}, not a repository of this program")]
    Foreign {
        /// Where.
        location: String,
        /// What it looks like.
        what: &'static str,
    },
    /// There is one already.
    #[error("there is already a repository in {location}")]
    Exists {
        /// Where.
        location: String,
    },
    /// The place is not empty.
    #[error("{location} is not empty and holds no repository")]
    NotEmpty {
        /// Where.
        location: String,
    },
    /// What was given does not open it.
    #[error("the repository in {location} does not open")]
    Locked {
        /// Where.
        location: String,
        /// Why.
        #[source]
        source: SealError,
    },
    /// This program or key slot cannot do that.
    #[error("the repository in {location} cannot be used this way")]
    Unsupported {
        /// Where.
        location: String,
        /// Why.
        #[source]
        source: SealError,
    },
    /// An object is damaged or missing.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// A chunk is nowhere.
    #[error("chunk {id} is in no pack that an index names")]
    MissingChunk {
        /// The chunk.
        id: ChunkId,
    },
    /// Programs of another age may write here, which know no marks.
    #[error("the repository in {location} was made before anything could be deleted from one")]
    NoDeletion {
        /// Where.
        location: String,
    },
    /// Chunks that snapshots need are nowhere.
    #[error("{chunks} chunks that snapshots need are in no pack that is there: nothing can be deleted safely")]
    NeededChunksMissing {
        /// How many.
        chunks: u64,
    },
    /// A manifest landed after its lease, and something that it relied on had been condemned meanwhile.
    #[error(
        "the run outlived its lease, and {missing} chunks that it relied on were condemned meanwhile; its snapshot was withdrawn"
    )]
    Late {
        /// How many chunks.
        missing: u64,
    },
    /// Another change of keys was faster.
    #[error("the keys of the repository in {location} were changed meanwhile; this change came to nothing")]
    KeysChanged {
        /// Where.
        location: String,
    },
    /// Others decided again and again before this run could.
    #[error("{tries} times another run put a mark before this one could")]
    Contended {
        /// How often it was tried.
        tries: u32,
    },
    /// A text that begins no id, or more than one.
    #[error("`{text}` names {found} snapshots")]
    SnapshotName {
        /// What was given.
        text: String,
        /// How many fit.
        found: usize,
    },
    /// The stage refused.
    #[error("the stage did not keep the pack {path}")]
    Stage {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cache refused.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl From<SealError> for &'static str {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Format(_) | SealError::WrongType { .. } => "envelope",
            SealError::UnknownSigner { .. } | SealError::Signature => "signature",
            _ => "seal",
        }
    }
}

/// The text of an error with its causes, for the `problem` of a [`Damage`].
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// Doors to the outside that a repository uses.
#[derive(Clone)]
pub struct Outside {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// How long a lease holds; [`crate::limits::LEASE_PERIOD`], but for tests.
    pub lease_period: Duration,
}

impl Outside {
    /// The system's clock and random generator.
    pub fn system() -> Self {
        let (clock, entropy) = (Arc::new(crate::env::SystemClock), Arc::new(crate::env::SystemEntropy));
        Self { clock, entropy, lease_period: LEASE_PERIOD }
    }
}

/// An open repository.
pub struct Repository {
    store: Arc<dyn Store>,
    config: Config,
    keys: Arc<Keys>,
    cache: Arc<Cache>,
    cache_trouble: std::sync::OnceLock<String>,
    outside: Outside,
}

impl Repository {
    /// Where its objects are.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Its newest configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its keys, as far as the slot in use grants them.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Its local cache.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Chance.
    pub fn entropy(&self) -> &Arc<dyn Entropy> {
        &self.outside.entropy
    }

    /// Time.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.outside.clock
    }

    /// How long a lease holds.
    pub fn lease_period(&self) -> Duration {
        self.outside.lease_period
    }

    /// Seals, signs and puts a metadata object; durable on return.
    pub async fn put_object(&self, kind: ObjectType, body: &[u8]) -> Result<ObjectId, RepositoryError> {
        let stored = seal_object(&self.keys, &*self.outside.entropy, kind, body);
        let id = ObjectId::of(&stored);
        self.store.put_new(&layout::object(kind, &id), Bytes::from(stored)).await?;
        Ok(id)
    }

    /// Gets an object as it is stored, whole, and checks that its bytes have its name. Nothing is opened.
    pub async fn get_stored(&self, kind: ObjectType, id: &ObjectId) -> Result<Bytes, RepositoryError> {
        let name = layout::object(kind, id);
        let size_max = match kind {
            ObjectType::ContentPack | ObjectType::TreePack => PACK_SIZE_MAX,
            ObjectType::Index
            | ObjectType::Manifest
            | ObjectType::Confirm
            | ObjectType::Mark
            | ObjectType::Lease
            | ObjectType::Report => OBJECT_SIZE_MAX,
        };
        let stored = get_or_damage(&*self.store, &name, size_max).await?;
        check_name(&name, id, &stored)?;
        Ok(stored)
    }

    /// Gets a metadata object, checks its name, seal and signature, and gives its body.
    pub async fn get_object(&self, kind: ObjectType, id: &ObjectId) -> Result<Vec<u8>, RepositoryError> {
        let name = layout::object(kind, id);
        let stored = self.get_stored(kind, id).await?;
        unseal_object(&self.keys, kind, &stored).map_err(|error| seal_damage(&name, error).into())
    }

    /// Gets and decodes an index object.
    pub async fn get_index(&self, id: &ObjectId) -> Result<Index, RepositoryError> {
        let body = self.get_object(ObjectType::Index, id).await?;
        Ok(Index::decode(&body).map_err(|error| decode_damage(&layout::object(ObjectType::Index, id), &error))?)
    }

    /// Names of the objects of one type that are there, by their ids. Names that are no ids are left out.
    pub async fn list_objects(&self, kind: ObjectType) -> Result<BTreeSet<ObjectId>, RepositoryError> {
        let listed = self.store.list(layout::folder(kind)).await?;
        Ok(listed.iter().filter_map(|info| layout::id_in(&info.name)).collect())
    }

    /// Brings the cache to what the index objects in the store say. Damaged ones are told and treated as not there.
    ///
    /// Adds before it forgets: what a new index took over from an old one is never missing in between.
    pub async fn sync_index(&self) -> Result<Vec<Damage>, RepositoryError> {
        let mut damages = Vec::new();
        // An index object may be superseded between the listing and the reading; then the listing is old.
        for _ in 0..SYNC_TRIES {
            let listed = self.list_objects(ObjectType::Index).await?;
            let known = self.cache.known_indexes()?;
            damages.clear();
            for new in listed.difference(&known) {
                match self.get_index(new).await {
                    Ok(index) => self.cache.add_index(new, &index)?,
                    Err(RepositoryError::Damaged(damage)) => damages.push(damage),
                    Err(error) => return Err(error),
                }
            }
            for gone in known.difference(&listed) {
                self.cache.remove_index(gone)?;
            }
            if damages.iter().all(|damage| damage.layer != "presence") {
                break;
            }
        }
        Ok(damages)
    }

    /// Takes what came of writing to the cache: trouble there costs speed, never a backup. The first is kept to be told.
    pub fn cached(&self, result: Result<(), CacheError>) {
        if let Err(error) = result {
            let _ = self.cache_trouble.set(with_causes(&error));
        }
    }

    /// The first trouble with the cache since the repository was opened.
    pub fn cache_trouble(&self) -> Option<&str> {
        self.cache_trouble.get().map(String::as_str)
    }

    /// The packs that are in the store at the length that an index says, and were not found damaged.
    pub async fn present_packs(&self) -> Result<HashSet<PackId>, RepositoryError> {
        let mut sizes = std::collections::HashMap::new();
        for kind in [ObjectType::ContentPack, ObjectType::TreePack] {
            for info in self.store.list(layout::folder(kind)).await? {
                // One that lies under another name would never be found again.
                let id = layout::id_in(&info.name).filter(|id| layout::object(kind, id) == info.name);
                id.map(|id| sizes.insert(id, info.size));
            }
        }
        let (known, damaged) = (self.cache.packs()?, self.cache.damaged_packs()?);
        let sound = known.iter().filter(|pack| !damaged.contains(&pack.id));
        Ok(sound.filter(|pack| sizes.get(&pack.id) == Some(&pack.stored_size)).map(|pack| pack.id).collect())
    }

    /// Reads packs, and remembers which are damaged; whether any is. For what was condemned and is to be relied on again: a repair
    /// may have condemned it because it is damaged.
    pub(crate) async fn find_damaged(&self, packs: &BTreeSet<PackId>) -> Result<bool, RepositoryError> {
        let mut found = false;
        for pack in packs {
            // Another process may have forgotten the index meanwhile.
            let Some(entry) = self.cache.pack(pack)? else { continue };
            match self.get_stored(entry.kind, pack).await {
                Ok(_) => {}
                Err(RepositoryError::Damaged(_)) => {
                    self.cache.set_damaged(pack, true)?;
                    found = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Begins to write. Chunks in packs that are missing, cut short or condemned are stored again. The run's first lease must
    /// be there already.
    pub async fn write(self: &Arc<Self>, options: SessionOptions) -> Result<WriteSession, RepositoryError> {
        self.write_relying(options, false).await
    }

    /// The same; if `own_only`, chunks that only indexes of other key slots describe are stored again as well.
    pub async fn write_relying(
        self: &Arc<Self>,
        options: SessionOptions,
        own_only: bool,
    ) -> Result<WriteSession, RepositoryError> {
        self.keys.check_writes().map_err(|source| self.unsupported(source))?;
        // Marks before packs: what is deleted in between was condemned before.
        let record = self.record().await?;
        let mut present = self.present_packs().await?;
        present.retain(|pack| !record.condemned.contains_key(pack));
        if own_only {
            let own = self.packs_of_own_indexes().await?;
            present.retain(|pack| own.contains(pack));
        }
        self.write_beside(present, options)
    }

    /// Takes condemned packs out of `present` of which a base is in none of them: of what `prune` deletes first, others that wait may
    /// have been based on. Nobody may pardon these, because what has them as bases in turn would be relied on.
    pub(crate) fn drop_baseless_condemned(
        &self,
        record: &marks::Record,
        present: &mut HashSet<PackId>,
    ) -> Result<(), RepositoryError> {
        if record.condemned.is_empty() {
            return Ok(());
        }
        self.drop_baseless_of(present, |pack| record.condemned.contains_key(pack))
    }

    /// The same for all packs that `may_go`.
    pub(crate) fn drop_baseless_of(
        &self,
        present: &mut HashSet<PackId>,
        may_go: impl Fn(&PackId) -> bool,
    ) -> Result<(), RepositoryError> {
        let based = self.cache.based_packs()?;
        for _ in 0..crate::limits::BASE_DEPTH_MAX {
            let mut baseless = Vec::new();
            for pack in based.iter().filter(|pack| present.contains(*pack) && may_go(pack)) {
                let Some(entry) = self.cache.pack(pack)? else { continue };
                for (base, depth) in entry.segments.iter().flat_map(SegmentEntry::bases) {
                    let found = self.cache.find_all(&base)?;
                    if !found.iter().any(|location| location.is_within(depth) && present.contains(&location.pack)) {
                        baseless.push(*pack);
                        break;
                    }
                }
            }
            if baseless.is_empty() {
                break;
            }
            for pack in baseless {
                present.remove(&pack);
            }
        }
        Ok(())
    }

    /// Begins to write beside what is there: only what is in the packs `present` counts as stored.
    pub fn write_beside(
        self: &Arc<Self>,
        present: HashSet<PackId>,
        options: SessionOptions,
    ) -> Result<WriteSession, RepositoryError> {
        self.keys.check_writes().map_err(|source| self.unsupported(source))?;
        WriteSession::new(Arc::clone(self), present, options)
    }

    /// The error of a key slot or program that cannot do what was asked.
    pub fn unsupported(&self, source: SealError) -> RepositoryError {
        RepositoryError::Unsupported { location: self.store.location(), source }
    }
}

/// Gets an object that must be there.
async fn get_or_damage(store: &dyn Store, name: &ObjectName, size_max: u64) -> Result<Bytes, RepositoryError> {
    match store.get(name, size_max).await {
        Err(StoreError::NotFound { .. }) => Err(missing(name).into()),
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::FileTooLarge => {
            let problem = format!("it is longer than the {size_max} bytes that such an object may have");
            Err(Damage { object: name.to_string(), layer: "length", problem }.into())
        }
        other => Ok(other?),
    }
}

fn missing(name: &ObjectName) -> Damage {
    Damage { object: name.to_string(), layer: "presence", problem: "it is missing".to_owned() }
}

/// Checks that stored bytes have the name that they should.
fn check_name(name: &ObjectName, id: &ObjectId, stored: &[u8]) -> Result<(), Damage> {
    let found = ObjectId::of(stored);
    if found == *id {
        return Ok(());
    }
    let problem = format!("its {} bytes hash to {}, not to its name", stored.len(), found.short());
    Err(Damage { object: name.to_string(), layer: "name", problem })
}

fn seal_damage(name: &ObjectName, error: SealError) -> Damage {
    let problem = with_causes(&error);
    Damage { object: name.to_string(), layer: error.into(), problem }
}

fn decode_damage(name: &ObjectName, error: &FormatError) -> Damage {
    Damage { object: name.to_string(), layer: "decode", problem: with_causes(error) }
}
