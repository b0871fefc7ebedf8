//! Changing who may do what: new key slots, new generations of keys, removed slots.
//!
//! Only a reader slot can, because it holds the root that signs. Nothing is stored here: the caller puts slots before the
//! config that makes a new generation count (`crate::repository::keys`).

use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::SealError;
use super::keys::{ContentPublic, Keys};
use super::slot::{
    ClearType, Holder, NewCredential, granted, make_slot, newest_versions, public_key, sign_clear, x25519_public,
};
use crate::env::{Entropy, random_bytes};
use crate::format::config::Config;
use crate::format::key_file::KeyFile;
use crate::format::key_slot::{Grant, KeySlot, Role, Unlock};
use crate::id::{SlotId, hex_of};

/// A new slot.
pub struct NewSlot {
    /// Which slot it is.
    pub slot: SlotId,
    /// The slot as stored.
    pub stored: Vec<u8>,
    /// The key file to hand out, where one was asked for.
    pub key_file: Option<KeyFile>,
}

/// Which keys get a new generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The metadata key.
    Metadata,
    /// The metadata key and the content key.
    All,
}

impl Keys {
    /// Refuses to change keys with a slot that may not.
    ///
    /// # Errors
    /// [`SealError::Role`].
    pub fn check_changes_keys(&self) -> Result<(), SealError> {
        match &self.root {
            Some(_) => Ok(()),
            None => Err(SealError::Role { role: self.role.as_str(), action: "change keys" }),
        }
    }

    /// The same keys with new generations, and who is known besides.
    fn renewed(&self, entropy: &dyn Entropy, renewal: Renewal) -> Self {
        let (mut metadata, mut content, mut content_public) =
            (self.metadata.clone(), self.content.clone(), self.content_public);
        let metadata_generation = self.metadata_generation + 1;
        metadata.insert(metadata_generation, Zeroizing::new(random_bytes(entropy)));
        if renewal == Renewal::All {
            let secret = Zeroizing::new(random_bytes(entropy));
            content_public = ContentPublic { generation: content_public.generation + 1, key: x25519_public(&secret) };
            content.insert(content_public.generation, secret);
        }
        Self {
            repository: self.repository,
            slot: self.slot,
            role: self.role,
            id_key: self.id_key.clone(),
            metadata,
            content,
            content_public,
            metadata_generation,
            signer: self.signer.clone(),
            certified: self.certified.clone(),
            root: self.root.clone(),
            root_public: self.root_public,
        }
    }
}

/// Generation `number` of the config, signed; it says what `config` says. Needs the root.
pub fn next_config(keys: &Keys, config: &Config, number: u32, now: Timestamp) -> Vec<u8> {
    let next = Config { generation: number, created_at: now, ..config.clone() };
    sign_clear(keys, ClearType::Config, next.body())
}

/// A new slot that grants what `keys` hold, as far as its role allows. Needs the root.
pub fn add_slot(
    keys: &Keys,
    entropy: &dyn Entropy,
    now: Timestamp,
    (version, role, label): (u32, Role, String),
    credential: NewCredential,
) -> NewSlot {
    let slot = SlotId::from_bytes(random_bytes(entropy));
    let holder = Holder { slot, version, role, label, signer: new_signer(entropy) };
    let (stored, key_file) = make_slot(keys, &holder, entropy, now, credential);
    NewSlot { slot, stored, key_file }
}

/// New generations of keys: every one of `slots` anew, under `version`, and the config that makes them count. Those that are
/// `removed`, or were before, get nothing. Needs the root.
///
/// Each slot gets a new signer, because nobody but its owner has the old one's secret half; both stay certified.
///
/// # Errors
/// A slot without a valid public key.
pub fn renew(
    keys: &Keys,
    entropy: &dyn Entropy,
    now: Timestamp,
    (config, version): (&Config, u32),
    slots: &[KeySlot],
    (renewal, removed): (Renewal, Option<SlotId>),
) -> Result<(Vec<Vec<u8>>, Config), SealError> {
    let renewed = keys.renewed(entropy, renewal);
    let mut stored = Vec::new();
    for old in newest_versions(slots).filter(|old| !old.is_removed()) {
        if Some(old.slot) == removed {
            stored.push(sign_clear(keys, ClearType::KeySlot, removed_form(old, version, now).body()));
            continue;
        }
        let public = public_key("the public key of a key slot", &old.public)?;
        let holder =
            Holder { slot: old.slot, version, role: old.role, label: old.label.clone(), signer: new_signer(entropy) };
        stored.push(granted(&renewed, &holder, entropy, now, old.unlock.clone(), &public));
    }
    let next = Config {
        content_generation: renewed.content_public.generation,
        content_public: hex_of(&renewed.content_public.key),
        metadata_generation: renewed.metadata_generation,
        ..config.clone()
    };
    Ok((stored, next))
}

/// What stands for a slot that was removed. Its signer stays certified for what it signed.
fn removed_form(old: &KeySlot, version: u32, now: Timestamp) -> KeySlot {
    let grant = Grant { enc: String::new(), sealed: String::new() };
    KeySlot { version, created_at: now, unlock: Unlock::Removed {}, grant, ..old.clone() }
}

fn new_signer(entropy: &dyn Entropy) -> SigningKey {
    SigningKey::from_bytes(&random_bytes(entropy))
}
