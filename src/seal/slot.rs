//! Making and opening key slots, and the root's signatures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use ed25519_dalek::{Signature, Signer, SigningKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, setup_receiver, setup_sender_with_rng};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::keys::{ContentPublic, Keys, SecretBytes};
use super::object::{signed_message, verify_signature};
use super::pack::EntropyRng;
use super::{NONCE_SIZE, SealError, aead_open, aead_seal};
use crate::env::{Entropy, random_bytes};
use crate::format::config::{Config, FEATURE_DELETION, SignedText, decode_body};
use crate::format::identity::{Identity, recipient};
use crate::format::key_file::KeyFile;
use crate::format::key_slot::{Argon2id, Grant, KeySlot, Role, Unlock};
use crate::format::{FORMAT_VERSION, FormatError};
use crate::id::{RepositoryId, SlotId, bytes_of_hex, hex_of};

/// Length of an Argon2id salt, in bytes.
const ARGON2_SALT_SIZE: usize = 16;

/// What opens a repository. No Debug: it is a secret.
pub enum Credential {
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// The content of a key file.
    KeyFile(KeyFile),
    /// The content of an identity file.
    Identity(Identity),
}

/// How strongly passphrases of new slots are stretched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl KdfCost {
    /// What `init` uses.
    pub const DEFAULT: Self = Self {
        memory_kib: crate::limits::ARGON2_MEMORY_KIB,
        passes: crate::limits::ARGON2_PASSES,
        lanes: crate::limits::ARGON2_LANES,
    };
}

/// The secrets of a grant, as JSON inside the seal. All binary fields are base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Secrets {
    format: u8,
    repository: RepositoryId,
    root_public: String,
    id_key: String,
    metadata: BTreeMap<u32, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    content: BTreeMap<u32, String>,
    signer: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.id_key.zeroize();
        self.metadata.values_mut().for_each(Zeroize::zeroize);
        self.content.values_mut().for_each(Zeroize::zeroize);
        self.signer.zeroize();
        self.root.zeroize();
    }
}

/// A new repository's first objects, and its keys.
pub struct NewRepository {
    /// `config/1` as stored.
    pub config: Vec<u8>,
    /// The first key slot as stored.
    pub slot: Vec<u8>,
    /// Its keys, unlocked.
    pub keys: Keys,
    /// The key file to hand out, where one was asked for.
    pub key_file: Option<KeyFile>,
}

/// What shall open a new repository.
pub enum NewCredential {
    /// A passphrase and how strongly to stretch it.
    Passphrase(Zeroizing<String>, KdfCost),
    /// A key file, generated here.
    KeyFile,
    /// The secret half of this public key (X25519), which its owner has already; from [`recipient_key`].
    Recipient([u8; 32]),
}

/// Makes the keys of a new repository, its config and its first reader slot.
pub fn found_repository(
    entropy: &dyn Entropy,
    now: Timestamp,
    profiles: crate::format::config::Profiles,
    credential: NewCredential,
) -> NewRepository {
    found_repository_in(entropy, now, profiles, false, credential)
}

/// The same, in a store that may have to do with one writer.
pub fn found_repository_in(
    entropy: &dyn Entropy,
    now: Timestamp,
    profiles: crate::format::config::Profiles,
    single_writer: bool,
    credential: NewCredential,
) -> NewRepository {
    let repository = RepositoryId::from_bytes(random_bytes(entropy));
    let root = SigningKey::from_bytes(&random_bytes(entropy));
    let signer = SigningKey::from_bytes(&random_bytes(entropy));
    let content_secret: SecretBytes = Zeroizing::new(random_bytes(entropy));
    let content_public = x25519_public(&content_secret);
    let config = Config {
        format: FORMAT_VERSION,
        features: vec![FEATURE_DELETION.to_owned()],
        repository,
        generation: 1,
        created_at: now,
        suite: crate::format::config::SUITE.to_owned(),
        root: hex_of(&root.verifying_key().to_bytes()),
        content_generation: 1,
        content_public: hex_of(&content_public),
        metadata_generation: 1,
        profiles,
        single_writer,
    };
    let keys = Keys {
        repository,
        slot: SlotId::from_bytes(random_bytes(entropy)),
        role: Role::Reader,
        id_key: Zeroizing::new(random_bytes(entropy)),
        metadata: BTreeMap::from([(1, Zeroizing::new(random_bytes(entropy)))]),
        content: BTreeMap::from([(1, content_secret)]),
        content_public: ContentPublic { generation: 1, key: content_public },
        metadata_generation: 1,
        certified: BTreeSet::from([signer.verifying_key().to_bytes()]),
        signer,
        root_public: root.verifying_key().to_bytes(),
        root: Some(root),
    };
    let holder = Holder {
        slot: keys.slot,
        version: 1,
        role: Role::Reader,
        label: match credential {
            NewCredential::Passphrase(..) => "passphrase".to_owned(),
            NewCredential::KeyFile => "key file".to_owned(),
            NewCredential::Recipient(_) => "recipient".to_owned(),
        },
        signer: keys.signer.clone(),
    };
    let (slot, key_file) = make_slot(&keys, &holder, entropy, now, credential);
    NewRepository { config: sign_clear(&keys, ClearType::Config, config.body()), slot, keys, key_file }
}

/// Whose slot is made.
pub(super) struct Holder {
    /// The slot.
    pub slot: SlotId,
    /// Its version.
    pub version: u32,
    /// What it allows.
    pub role: Role,
    /// What people call it.
    pub label: String,
    /// Signs what its owner writes.
    pub signer: SigningKey,
}

/// A slot for `holder` that grants of `keys` what the role allows, as stored, and its key file where it has one.
pub(super) fn make_slot(
    keys: &Keys,
    holder: &Holder,
    entropy: &dyn Entropy,
    now: Timestamp,
    credential: NewCredential,
) -> (Vec<u8>, Option<KeyFile>) {
    let slot_secret: SecretBytes = Zeroizing::new(random_bytes(entropy));
    let own = x25519_public(&slot_secret);
    let wrap = |key: &[u8; 32]| hex_of(&wrap_secret(keys, holder.slot, entropy, key, &slot_secret));
    let (unlock, public, key_file) = match credential {
        NewCredential::Passphrase(passphrase, cost) => {
            let salt = random_bytes::<ARGON2_SALT_SIZE>(entropy);
            let argon2id =
                Argon2id { memory_kib: cost.memory_kib, passes: cost.passes, lanes: cost.lanes, salt: hex_of(&salt) };
            let key = stretch(&passphrase, &argon2id).expect("the cost of a new slot is within the limits");
            (Unlock::Passphrase { argon2id, wrapped: wrap(&key) }, own, None)
        }
        NewCredential::KeyFile => {
            let key = Zeroizing::new(random_bytes(entropy));
            let wrapped = wrap(&key);
            let file = KeyFile { repository: keys.repository, slot: holder.slot, key };
            (Unlock::KeyFile { wrapped }, own, Some(file))
        }
        NewCredential::Recipient(public) => (Unlock::Recipient {}, public, None),
    };
    (granted(keys, holder, entropy, now, unlock, &public), key_file)
}

/// A slot that opens by `unlock` and grants of `keys` what the role of `holder` allows, as stored.
pub(super) fn granted(
    keys: &Keys,
    holder: &Holder,
    entropy: &dyn Entropy,
    now: Timestamp,
    unlock: Unlock,
    public: &[u8; 32],
) -> Vec<u8> {
    let slot = KeySlot {
        format: FORMAT_VERSION,
        repository: keys.repository,
        slot: holder.slot,
        version: holder.version,
        role: holder.role,
        label: holder.label.clone(),
        created_at: now,
        public: hex_of(public),
        signer: hex_of(&holder.signer.verifying_key().to_bytes()),
        unlock,
        grant: seal_grant(keys, holder, entropy, public),
    };
    sign_clear(keys, ClearType::KeySlot, slot.body())
}

/// Type bytes of clear objects, for signatures.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum ClearType {
    Config = 0x80,
    KeySlot = 0x81,
}

/// A clear object with the root's signature, as stored.
pub(super) fn sign_clear(keys: &Keys, kind: ClearType, body: Vec<u8>) -> Vec<u8> {
    let root = keys.root.as_ref().expect("only who holds the root writes clear objects");
    let signature = root.sign(&signed_message(&keys.repository, kind as u8, &body)).to_bytes();
    SignedText { body, signature }.encode()
}

/// Reads a config object and checks that its own root signed it. Whether that root is the right one, the key slot tells.
pub fn open_config(stored: &[u8]) -> Result<Config, SealError> {
    let text = SignedText::decode("config", stored)?;
    let config = match decode_body(&text.body) {
        Err(error @ (FormatError::Version { .. } | FormatError::Features { .. })) => {
            // A damaged byte may make any name of a feature: only what the root signed tells of a newer program.
            check_claimed(&text)?;
            return Err(error.into());
        }
        decoded => decoded?,
    };
    let root = public_key("the root key", &config.root)?;
    check_clear(&root, &config.repository, ClearType::Config, &text)?;
    Ok(config)
}

/// What says whose a config is, whatever else is in it.
#[derive(Deserialize)]
struct Claimed {
    repository: RepositoryId,
    root: String,
}

fn check_claimed(text: &SignedText) -> Result<(), SealError> {
    let Ok(Claimed { repository, root }) = serde_json::from_slice(&text.body) else { return Ok(()) };
    check_clear(&public_key("the root key", &root)?, &repository, ClearType::Config, text)
}

/// Reads a key slot object and checks the root's signature over it.
pub fn open_slot(config: &Config, stored: &[u8]) -> Result<KeySlot, SealError> {
    let text = SignedText::decode("key slot", stored)?;
    check_clear(&public_key("the root key", &config.root)?, &config.repository, ClearType::KeySlot, &text)?;
    Ok(KeySlot::decode_body(&text.body)?)
}

/// The repository that a key slot object says it belongs to; nothing about it was checked.
pub fn slot_repository(stored: &[u8]) -> Option<RepositoryId> {
    let text = SignedText::decode("key slot", stored).ok()?;
    Some(KeySlot::decode_body(&text.body).ok()?.repository)
}

fn check_clear(
    root: &[u8; 32],
    repository: &RepositoryId,
    kind: ClearType,
    text: &SignedText,
) -> Result<(), SealError> {
    let message = signed_message(repository, kind as u8, &text.body);
    verify_signature(root, &message, &Signature::from_bytes(&text.signature))
}

/// Opens the first of `slots` that `credential` fits. All slots certify their signers.
///
/// # Errors
/// [`SealError::WrongKey`] if none fits.
pub fn unlock(config: &Config, slots: &[KeySlot], credential: &Credential) -> Result<Keys, SealError> {
    if let Credential::KeyFile(file) = credential
        && file.repository != config.repository
    {
        return Err(SealError::ForeignKeyFile { repository: file.repository });
    }
    for slot in newest_versions(slots) {
        let Some((secret, trusted_root)) = slot_secret(slot, credential)? else { continue };
        // A config put in place of the real one, with a root of its own, ends here, before anything it granted is used.
        if hex_of(&trusted_root) != config.root {
            return Err(SealError::ForeignRoot);
        }
        return open_grant(config, slots, slot, &secret);
    }
    Err(removed_slot(slots, credential).unwrap_or(SealError::WrongKey))
}

/// The error for a credential that opened a slot before it was removed.
fn removed_slot(slots: &[KeySlot], credential: &Credential) -> Option<SealError> {
    let newest: Vec<&KeySlot> = newest_versions(slots).collect();
    let removed = newest.into_iter().filter(|slot| slot.is_removed());
    for gone in removed {
        let older =
            slots.iter().filter(|slot| slot.slot == gone.slot && !slot.is_removed()).max_by_key(|slot| slot.version);
        let Some(older) = older else { continue };
        if matches!(slot_secret(older, credential), Ok(Some(_)) | Err(SealError::NoTrustedRoot { .. })) {
            return Some(SealError::Removed { label: gone.label.clone(), removed_at: gone.created_at });
        }
    }
    None
}

/// Public halves of all signers that a slot had; versions without a valid one are passed over.
pub fn signers_of(slots: &[KeySlot], slot: SlotId) -> BTreeSet<[u8; 32]> {
    let versions = slots.iter().filter(|version| version.slot == slot);
    versions.filter_map(|version| public_key("the signer of a key slot", &version.signer).ok()).collect()
}

/// Of each slot the highest version.
pub(crate) fn newest_versions(slots: &[KeySlot]) -> impl Iterator<Item = &KeySlot> {
    let mut newest: BTreeMap<SlotId, &KeySlot> = BTreeMap::new();
    for slot in slots {
        let known = newest.entry(slot.slot).or_insert(slot);
        if slot.version > known.version {
            *known = slot;
        }
    }
    newest.into_values()
}

/// A slot's secret, and the root that its owner trusts; `None` if the slot is not his.
fn slot_secret(slot: &KeySlot, credential: &Credential) -> Result<Option<(SecretBytes, [u8; 32])>, SealError> {
    if let (Unlock::Recipient {}, Credential::Identity(identity)) = (&slot.unlock, credential) {
        if hex_of(&x25519_public(&identity.secret)) != slot.public {
            return Ok(None);
        }
        let untold = || SealError::NoTrustedRoot { label: slot.label.clone(), repository: slot.repository };
        let root = identity.roots.get(&slot.repository).ok_or_else(untold)?;
        return Ok(Some((identity.secret.clone(), *root)));
    }
    let Some(key) = wrapping_key(slot, credential)? else { return Ok(None) };
    Ok(unwrap_secret(slot, &key).ok())
}

/// The key that opens a slot's wrapped secret; `None` if the credential is of another kind.
fn wrapping_key(slot: &KeySlot, credential: &Credential) -> Result<Option<SecretBytes>, SealError> {
    Ok(match (&slot.unlock, credential) {
        (Unlock::Passphrase { argon2id, .. }, Credential::Passphrase(passphrase)) => {
            Some(stretch(passphrase, argon2id)?)
        }
        (Unlock::KeyFile { .. }, Credential::KeyFile(file)) if file.slot == slot.slot => Some(file.key.clone()),
        (Unlock::Passphrase { .. } | Unlock::KeyFile { .. } | Unlock::Recipient {} | Unlock::Removed {}, _) => None,
    })
}

/// Argon2id, version 0x13, 32 bytes.
fn stretch(passphrase: &str, argon2id: &Argon2id) -> Result<SecretBytes, SealError> {
    let invalid = |why: &str| FormatError::Invalid { what: "Argon2id parameters", why: why.to_owned() };
    let params = Params::new(argon2id.memory_kib, argon2id.passes, argon2id.lanes, Some(32))
        .map_err(|error| invalid(&error.to_string()))?;
    let salt = bytes_of_hex(&argon2id.salt)
        .filter(|salt| salt.len() == ARGON2_SALT_SIZE)
        .ok_or_else(|| invalid("the salt is not 32 hexadecimal digits"))?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), &salt, &mut *key)
        .map_err(|error| invalid(&error.to_string()))?;
    Ok(key)
}

fn wrap_associated(repository: RepositoryId, slot: SlotId) -> Vec<u8> {
    [b"infrahub-backup 1 slot", &repository.as_bytes()[..], slot.as_bytes()].concat()
}

/// Seals the slot's secret together with the root's public half under the owner's own key: the grant is sealed to a
/// public key, which anybody can do, so the owner must learn from elsewhere whose root to trust.
fn wrap_secret(keys: &Keys, slot: SlotId, entropy: &dyn Entropy, key: &[u8; 32], secret: &SecretBytes) -> Vec<u8> {
    let nonce: [u8; NONCE_SIZE] = random_bytes(entropy);
    let mut plain = Zeroizing::new([0; 64]);
    plain[..32].copy_from_slice(&**secret);
    plain[32..].copy_from_slice(&keys.root_public);
    let sealed = aead_seal(key, &nonce, &wrap_associated(keys.repository, slot), &*plain);
    [&nonce[..], &sealed].concat()
}

/// The slot's secret and the root that its owner trusts.
fn unwrap_secret(slot: &KeySlot, key: &SecretBytes) -> Result<(SecretBytes, [u8; 32]), SealError> {
    let wrapped = match &slot.unlock {
        Unlock::Passphrase { wrapped, .. } | Unlock::KeyFile { wrapped } => wrapped,
        Unlock::Recipient {} | Unlock::Removed {} => return Err(SealError::WrongKey),
    };
    let bytes = bytes_of_hex(wrapped).filter(|bytes| bytes.len() > NONCE_SIZE).ok_or(SealError::WrongKey)?;
    let (nonce, sealed) = bytes.split_at(NONCE_SIZE);
    let nonce = nonce.try_into().expect("24 bytes");
    let plain = Zeroizing::new(aead_open(key, nonce, &wrap_associated(slot.repository, slot.slot), sealed)?);
    let plain: &[u8; 64] = plain.as_slice().try_into().map_err(|_| SealError::WrongKey)?;
    let (secret, root) = plain.split_at(32);
    Ok((Zeroizing::new(secret.try_into().expect("32 bytes")), root.try_into().expect("32 bytes")))
}

/// Fresh entropy and a keyed hash of what is sealed: a clone with the same entropy still never seals two grants under one
/// ephemeral key.
struct MixedEntropy(Mutex<blake3::OutputReader>);

impl MixedEntropy {
    fn new(keys: &Keys, entropy: &dyn Entropy, plain: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&keys.nonce_key());
        hasher.update(b"infrahub-backup 1 grant").update(&random_bytes::<32>(entropy)).update(plain);
        Self(Mutex::new(hasher.finalize_xof()))
    }
}

impl Entropy for MixedEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
    }
}

fn grant_info(repository: RepositoryId, slot: SlotId) -> Vec<u8> {
    [b"infrahub-backup 1 grant", &repository.as_bytes()[..], slot.as_bytes()].concat()
}

fn seal_grant(keys: &Keys, holder: &Holder, entropy: &dyn Entropy, public: &[u8; 32]) -> Grant {
    let reads = holder.role == Role::Reader;
    let text = |bytes: &[u8; 32]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let secrets = Secrets {
        format: FORMAT_VERSION,
        repository: keys.repository,
        root_public: hex_of(&keys.root_public),
        id_key: text(&keys.id_key),
        metadata: keys.metadata.iter().map(|(generation, key)| (*generation, text(key))).collect(),
        content: keys.content.iter().filter(|_| reads).map(|(generation, key)| (*generation, text(key))).collect(),
        signer: text(&holder.signer.to_bytes()),
        root: keys.root.as_ref().filter(|_| reads).map(|root| text(&root.to_bytes())),
    };
    let plain = Zeroizing::new(serde_json::to_vec(&secrets).expect("secrets are plain data"));
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public).expect("32 bytes are an X25519 public key");
    let info = grant_info(keys.repository, holder.slot);
    let (enc, mut context) = setup_sender_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        &info,
        &mut EntropyRng(&MixedEntropy::new(keys, entropy, &plain)),
    )
    .expect("the public half of a pair made here is not of small order");
    let sealed = context.seal(&plain, &[]).expect("HPKE seals one short message");
    Grant { enc: hex_of(&enc.to_bytes()), sealed: hex_of(&sealed) }
}

fn open_grant(config: &Config, slots: &[KeySlot], slot: &KeySlot, secret: &SecretBytes) -> Result<Keys, SealError> {
    let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&**secret).expect("32 bytes are an X25519 key");
    let bytes = |text: &str| bytes_of_hex(text).ok_or(SealError::Decrypt);
    let enc = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&bytes(&slot.grant.enc)?);
    let info = grant_info(slot.repository, slot.slot);
    let mut context = setup_receiver::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &secret,
        &enc.map_err(|_| SealError::Decrypt)?,
        &info,
    )
    .map_err(|_| SealError::Decrypt)?;
    let plain = context.open(&bytes(&slot.grant.sealed)?, &[]).map_err(|_| SealError::Decrypt)?;
    keys_of(config, slots, slot, &Zeroizing::new(plain))
}

fn keys_of(config: &Config, slots: &[KeySlot], slot: &KeySlot, plain: &[u8]) -> Result<Keys, SealError> {
    let secrets: Secrets = serde_json::from_slice(plain).map_err(|_| SealError::Decrypt)?;
    if secrets.repository != config.repository || secrets.root_public != config.root {
        return Err(SealError::Signature);
    }
    let key = |text: &String| -> Result<SecretBytes, SealError> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| SealError::Decrypt)?;
        Ok(Zeroizing::new(Zeroizing::new(bytes).as_slice().try_into().map_err(|_| SealError::Decrypt)?))
    };
    let by_generation = |map: &BTreeMap<u32, String>| -> Result<BTreeMap<u32, SecretBytes>, SealError> {
        map.iter().map(|(generation, text)| Ok((*generation, key(text)?))).collect()
    };
    let certified = slots
        .iter()
        .filter(|slot| slot.role != Role::Auditor)
        .map(|slot| public_key("the signer of a key slot", &slot.signer))
        .collect::<Result<_, SealError>>()?;
    let keys = Keys {
        repository: config.repository,
        slot: slot.slot,
        role: slot.role,
        id_key: key(&secrets.id_key)?,
        metadata: by_generation(&secrets.metadata)?,
        content: by_generation(&secrets.content)?,
        content_public: ContentPublic {
            generation: config.content_generation,
            key: public_key("the content key", &config.content_public)?,
        },
        metadata_generation: config.metadata_generation,
        signer: SigningKey::from_bytes(&*key(&secrets.signer)?),
        certified,
        root: secrets.root.as_ref().map(key).transpose()?.map(|bytes| SigningKey::from_bytes(&bytes)),
        root_public: public_key("the root key", &config.root)?,
    };
    keys.metadata_key(config.metadata_generation)?;
    Ok(keys)
}

pub(super) fn public_key(what: &'static str, text: &str) -> Result<[u8; 32], SealError> {
    let bytes = bytes_of_hex(text).and_then(|bytes| bytes.try_into().ok());
    Ok(bytes.ok_or_else(|| FormatError::Invalid { what, why: "it is not 64 hexadecimal digits".to_owned() })?)
}

/// The public key of a recipient, to which something can be sealed.
///
/// # Errors
/// [`SealError::Format`]; [`SealError::Recipient`] for a key of small order.
pub fn recipient_key(text: &str) -> Result<[u8; 32], SealError> {
    let key = recipient(text)?;
    let probe = x25519_dalek::StaticSecret::from([1; 32]).diffie_hellman(&x25519_dalek::PublicKey::from(key));
    if probe.was_contributory() { Ok(key) } else { Err(SealError::Recipient) }
}

pub(super) fn x25519_public(secret: &SecretBytes) -> [u8; 32] {
    x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(**secret)).to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemEntropy;
    use crate::format::config::Profiles;

    #[test]
    fn a_config_with_a_damaged_feature_is_damaged_and_not_newer() {
        let now = Timestamp::UNIX_EPOCH;
        let mut config = found_repository(&SystemEntropy, now, Profiles::DEFAULT, NewCredential::KeyFile).config;
        let at = config.windows(FEATURE_DELETION.len()).position(|name| name == FEATURE_DELETION.as_bytes());
        config[at.expect("it names the feature")] ^= 1;
        assert_eq!(open_config(&config).err(), Some(SealError::Signature));
    }
}
