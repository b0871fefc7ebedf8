//! Adding, removing and renewing key slots of a repository that is in use.
//!
//! Whoever changes keys first *claims* the next config generation, which says what the one before said; put create-only, so that
//! of two at once one goes on. Then it puts slots, whose version is the number claimed, and then the generation after, from which
//! on the change counts. A slot version is thus never used twice, and one that was put by a change that came to no end
//! grants nothing that counts.
//!
//! Holds: at every moment each owner opens the repository, except the owner of a slot that is being removed.

use std::sync::Arc;

use bytes::Bytes;

use super::open::{read_config, read_slots};
use super::{Damage, Repository, RepositoryError};
use crate::format::config::Config;
use crate::format::key_file::KeyFile;
use crate::format::key_slot::{KeySlot, Role};
use crate::format::layout;
use crate::id::{ObjectId, ObjectName, SlotId};
use crate::limits::CLEAR_OBJECT_SIZE_MAX;
use crate::seal::change::{NewSlot, Renewal, add_slot, next_config, renew};
use crate::seal::slot::{NewCredential, newest_versions};
use crate::storage::StoreError;

/// The key slots that there are.
#[derive(Debug, Clone)]
pub struct Slots {
    /// Each in its newest version, oldest first; removed ones included.
    pub slots: Vec<KeySlot>,
    /// The damage among them.
    pub damages: Vec<Damage>,
}

/// What a change wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The config generation that made it count.
    pub config: Config,
    /// How many key slots were written.
    pub slots: u64,
}

/// A slot that was added. No Debug: it may hold a key.
pub struct Added {
    /// The slot.
    pub slot: SlotId,
    /// Its key file, where it has one.
    pub key_file: Option<KeyFile>,
}

/// A claim on the next change of keys.
struct Claim {
    config: Config,
    number: u32,
}

impl Repository {
    /// The key slots.
    pub async fn key_slots(&self) -> Result<Slots, RepositoryError> {
        let (slots, damages) = read_slots(&**self.store(), self.config()).await?;
        let mut slots: Vec<KeySlot> = newest_versions(&slots).cloned().collect();
        slots.sort_by_key(|slot| (slot.created_at, slot.slot));
        Ok(Slots { slots, damages })
    }

    /// The newest config and all key slots as they are stored: what is lost with them is lost for good.
    pub async fn key_objects(&self) -> Result<Vec<(ObjectName, Bytes)>, RepositoryError> {
        let config = read_config(&**self.store()).await?;
        let mut names = vec![layout::config(config.generation)];
        names.extend(self.store().list(layout::KEYS).await?.into_iter().map(|info| info.name));
        let mut objects = Vec::new();
        for name in names {
            let stored = self.store().get(&name, CLEAR_OBJECT_SIZE_MAX).await?;
            objects.push((name, stored));
        }
        Ok(objects)
    }

    /// Adds a key slot.
    ///
    /// # Errors
    /// [`RepositoryError::Unsupported`] without the root; [`RepositoryError::KeysChanged`] if another change was faster: then the
    /// slot opens nothing.
    pub async fn add_key_slot(
        &self,
        role: Role,
        label: String,
        credential: NewCredential,
    ) -> Result<(Added, Changed), RepositoryError> {
        let claim = self.claim_keys().await?;
        let (entropy, now) = (Arc::clone(self.entropy()), self.clock().now());
        let NewSlot { slot, stored, key_file } =
            add_slot(self.keys(), &*entropy, now, (claim.number, role, label), credential);
        let changed = self.put_change(&claim, vec![stored], claim.config.clone()).await?;
        Ok((Added { slot, key_file }, changed))
    }

    /// Gives every slot but the one `removed` new generations of keys.
    ///
    /// # Errors
    /// As for [`Repository::add_key_slot`]; damage to any key slot, whose owner would be locked out.
    pub async fn renew_keys(&self, renewal: Renewal, removed: Option<SlotId>) -> Result<Changed, RepositoryError> {
        let claim = self.claim_keys().await?;
        let (slots, damages) = read_slots(&**self.store(), &claim.config).await?;
        if let Some(damage) = damages.into_iter().next() {
            return Err(damage.into());
        }
        let (entropy, now) = (Arc::clone(self.entropy()), self.clock().now());
        let (stored, next) =
            renew(self.keys(), &*entropy, now, (&claim.config, claim.number), &slots, (renewal, removed))
                .map_err(|source| self.unsupported(source))?;
        self.put_change(&claim, stored, next).await
    }

    async fn claim_keys(&self) -> Result<Claim, RepositoryError> {
        self.keys().check_changes_keys().map_err(|source| self.unsupported(source))?;
        let config = read_config(&**self.store()).await?;
        // What this process does not hold, it could not grant.
        let ours = self.config();
        if (config.metadata_generation, config.content_generation)
            != (ours.metadata_generation, ours.content_generation)
        {
            return Err(self.keys_changed());
        }
        let number = config.generation + 1;
        self.put_config(&config, number).await?;
        Ok(Claim { config, number })
    }

    fn keys_changed(&self) -> RepositoryError {
        RepositoryError::KeysChanged { location: self.store().location() }
    }

    async fn put_config(&self, config: &Config, number: u32) -> Result<(), RepositoryError> {
        let stored = next_config(self.keys(), config, number, self.clock().now());
        match self.store().put_new(&layout::config(number), stored.into()).await {
            Ok(()) => Ok(()),
            Err(StoreError::AlreadyExists { .. }) => Err(self.keys_changed()),
            Err(error) => Err(error.into()),
        }
    }

    /// Slots, then the config that makes them count. Slots of a change that came too late are taken back.
    async fn put_change(&self, claim: &Claim, stored: Vec<Vec<u8>>, next: Config) -> Result<Changed, RepositoryError> {
        let slots = stored.len() as u64;
        let mut names: Vec<ObjectName> = Vec::new();
        for slot in stored {
            let name = layout::key(&ObjectId::of(&slot));
            self.store().put_new(&name, slot.into()).await?;
            names.push(name);
        }
        let number = claim.number + 1;
        if let Err(error) = self.put_config(&next, number).await {
            if matches!(error, RepositoryError::KeysChanged { .. }) {
                for name in &names {
                    self.store().delete(name).await?;
                }
            }
            return Err(error);
        }
        Ok(Changed { config: Config { generation: number, ..next }, slots })
    }
}
