//! Keys, compression and encryption: `seal` and its inverse `unseal`, never half of one.
//!
//! Every derivation of a key stands in this folder, with the context string that separates it from all others.
//! Secrets are types without Debug, Display or Serialize, wiped when dropped. Normative text: `format-spec/02-envelope.md`,
//! `04-pack.md`, `07-keys.md`.

pub mod change;
pub mod compress;
pub mod keys;
pub mod object;
pub mod pack;
pub mod slot;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::format::FormatError;
use crate::format::envelope::ObjectType;

/// Length of an XChaCha20-Poly1305 nonce, in bytes.
pub const NONCE_SIZE: usize = 24;
/// Length of a Poly1305 tag, in bytes.
pub const TAG_SIZE: usize = 16;

/// Why something could not be unsealed. Each names the layer that refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The bytes have no valid form.
    #[error("its form is not valid")]
    Format(#[from] FormatError),
    /// It is an object of another type.
    #[error("it is a {} where a {} should be", found.name(), expected.name())]
    WrongType {
        /// The type asked for.
        expected: ObjectType,
        /// The type found.
        found: ObjectType,
    },
    /// This key slot does not hold the key.
    #[error("it is sealed under {which} key generation {generation}, which this key slot does not hold")]
    NoKey {
        /// `metadata` or `content`.
        which: &'static str,
        /// The generation.
        generation: u32,
    },
    /// The key commitment differs: another key, another repository, or damage to the head.
    #[error(
        "its key commitment does not fit: it was sealed with another key or for another repository, or its head is damaged"
    )]
    Commitment,
    /// Authentication failed.
    #[error("its content does not authenticate: it is damaged or was moved")]
    Decrypt,
    /// The compressed form is not valid or larger than allowed.
    #[error("its compressed form is not valid or larger than its description says")]
    Decompress,
    /// The signer is not certified by the repository's root.
    #[error("its signer {signer} is not certified by the root of this repository")]
    UnknownSigner {
        /// First digits of the signer's public key.
        signer: String,
    },
    /// The signature does not fit.
    #[error("its signature does not fit its content")]
    Signature,
    /// The config was signed by another root than the one that the key slot's owner trusts.
    #[error("the config is signed by another root than the one this key was made for: it was replaced")]
    ForeignRoot,
    /// Nothing opens with what was given.
    #[error("the password or key does not open this repository")]
    WrongKey,
    /// What was given opened a slot that was removed.
    #[error("the key `{label}` was removed at {removed_at}")]
    Removed {
        /// What people called it.
        label: String,
        /// When.
        removed_at: jiff::Timestamp,
    },
    /// The owner's identity does not say whose root to trust.
    #[error(
        "the identity fits the key `{label}` but names no root of repository {repository}: nobody says whether this config is the right one"
    )]
    NoTrustedRoot {
        /// What people call the key.
        label: String,
        /// The repository.
        repository: crate::id::RepositoryId,
    },
    /// Nothing can be sealed to the recipient.
    #[error("nothing can be sealed to this recipient: its public key is of small order")]
    Recipient,
    /// The key file belongs to something else.
    #[error("the key file belongs to repository {repository}")]
    ForeignKeyFile {
        /// The repository that it names.
        repository: crate::id::RepositoryId,
    },
    /// This role may not do that.
    #[error("a key slot of role `{role}` may not {action}")]
    Role {
        /// The role of the slot in use.
        role: &'static str,
        /// What was asked for, as a verb.
        action: &'static str,
    },
}

/// Seals `plain`: ciphertext and tag.
fn aead_seal(key: &[u8; 32], nonce: &[u8; NONCE_SIZE], associated: &[u8], plain: &[u8]) -> Vec<u8> {
    XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(*nonce), Payload { msg: plain, aad: associated })
        .expect("XChaCha20-Poly1305 seals anything shorter than 256 GiB")
}

/// Opens ciphertext and tag.
fn aead_open(key: &[u8; 32], nonce: &[u8; NONCE_SIZE], associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    XChaCha20Poly1305::new(key.into())
        .decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: associated })
        .map_err(|_| SealError::Decrypt)
}

/// Whether two commitments are equal, in constant time.
fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    blake3::Hash::from_bytes(*a) == blake3::Hash::from_bytes(*b)
}
