//! The keys of a repository, as far as a key slot grants them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use super::SealError;
use crate::format::key_slot::Role;
use crate::id::{ChunkId, RepositoryId, SlotId};

/// 32 secret bytes.
pub type SecretBytes = Zeroizing<[u8; 32]>;

/// The newest content key's public half: what sealing content needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentPublic {
    /// Its generation.
    pub generation: u32,
    /// X25519 public key.
    pub key: [u8; 32],
}

/// The secrets of [`Keys`], one by one. No Debug: it holds secrets.
pub struct KeyParts {
    /// The repository they belong to.
    pub repository: RepositoryId,
    /// The slot that holds them.
    pub slot: SlotId,
    /// What the slot allows.
    pub role: Role,
    /// Keys chunk ids.
    pub id_key: SecretBytes,
    /// Metadata keys by generation; the highest seals.
    pub metadata: BTreeMap<u32, SecretBytes>,
    /// Secret halves of content keys by generation; empty for writers and auditors.
    pub content: BTreeMap<u32, SecretBytes>,
    /// The content key to which content is sealed.
    pub content_public: ContentPublic,
    /// Secret half of the slot's signing key (Ed25519).
    pub signer: SecretBytes,
    /// Public halves of the other certified signers; the slot's own is added unless it is an auditor's.
    pub certified: BTreeSet<[u8; 32]>,
    /// Public half of the root (Ed25519).
    pub root_public: [u8; 32],
}

/// What an unlocked slot gives. No Debug: it holds secrets.
pub struct Keys {
    /// The repository they belong to.
    pub repository: RepositoryId,
    /// The slot that was opened.
    pub slot: SlotId,
    /// What it allows.
    pub role: Role,
    /// Keys chunk ids and the seed of the cutting; never rotated.
    pub(super) id_key: SecretBytes,
    /// Metadata keys by generation.
    pub(super) metadata: BTreeMap<u32, SecretBytes>,
    /// Secret halves of content keys by generation; empty for writers and auditors.
    pub(super) content: BTreeMap<u32, SecretBytes>,
    /// The newest content key's public half, as the root signed it.
    pub content_public: ContentPublic,
    /// The newest generation of the metadata key, as the root signed it.
    pub metadata_generation: u32,
    /// Signs what this slot writes.
    pub(super) signer: SigningKey,
    /// Public halves of all certified signers.
    pub(super) certified: BTreeSet<[u8; 32]>,
    /// The root signing key; reader slots only.
    pub(super) root: Option<SigningKey>,
    /// Public half of the root.
    pub root_public: [u8; 32],
}

impl Keys {
    /// Keys from given secrets, without a slot to unlock: for tools that hold the secrets, and for test vectors. They
    /// cannot sign config or key slots.
    ///
    /// # Errors
    /// [`SealError::NoKey`] without a metadata key.
    pub fn from_parts(parts: KeyParts) -> Result<Self, SealError> {
        let newest = parts.metadata.last_key_value().map(|(generation, _)| *generation);
        let metadata_generation = newest.ok_or(SealError::NoKey { which: "metadata", generation: 1 })?;
        let signer = SigningKey::from_bytes(&parts.signer);
        let mut certified = parts.certified;
        if parts.role != Role::Auditor {
            certified.insert(signer.verifying_key().to_bytes());
        }
        Ok(Self {
            repository: parts.repository,
            slot: parts.slot,
            role: parts.role,
            id_key: parts.id_key,
            metadata: parts.metadata,
            content: parts.content,
            content_public: parts.content_public,
            metadata_generation,
            signer,
            certified,
            root: None,
            root_public: parts.root_public,
        })
    }

    /// The identity of a chunk: keyed BLAKE3 of its plaintext.
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        ChunkId::from_bytes(*blake3::keyed_hash(&self.id_key, plain).as_bytes())
    }

    /// The seed that the cutting XORs into the gear table. Seeded, not secret: the table is public.
    pub fn cut_seed(&self) -> u64 {
        let derived = blake3::derive_key("infrahub-backup 1 cut seed", &*self.id_key);
        u64::from_le_bytes(derived[..8].try_into().expect("eight bytes"))
    }

    /// The key that mixes plaintext into nonces and salts, so that equal entropy never repeats them for unequal plaintexts.
    pub(super) fn nonce_key(&self) -> SecretBytes {
        Zeroizing::new(blake3::derive_key("infrahub-backup 1 nonce", &*self.id_key))
    }

    /// The metadata key of `generation`.
    pub(super) fn metadata_key(&self, generation: u32) -> Result<&SecretBytes, SealError> {
        self.metadata.get(&generation).ok_or(SealError::NoKey { which: "metadata", generation })
    }

    /// The secret half of the content key of `generation`.
    pub(super) fn content_key(&self, generation: u32) -> Result<&SecretBytes, SealError> {
        self.content.get(&generation).ok_or(SealError::NoKey { which: "content", generation })
    }

    /// Whether content can be read.
    pub fn reads_content(&self) -> bool {
        !self.content.is_empty()
    }

    /// Refuses to write with a slot that may not.
    pub fn check_writes(&self) -> Result<(), SealError> {
        match self.role {
            Role::Reader | Role::Writer => Ok(()),
            Role::Auditor => Err(SealError::Role { role: self.role.as_str(), action: "write" }),
        }
    }

    /// Refuses to read content with a slot that may not.
    pub fn check_reads_content(&self) -> Result<(), SealError> {
        if self.reads_content() {
            return Ok(());
        }
        Err(SealError::Role { role: self.role.as_str(), action: "read content" })
    }
}
