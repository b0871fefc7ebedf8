//! `keys/<id>`: one key slot, clear text signed by the root, with its secrets sealed inside.
//!
//! A slot has an X25519 pair of its own. How its owner gets the secret half is the *unlock*; what the slot opens is the
//! *grant*, sealed to the public half. So a later grant (a new key generation) can be written without the owner's
//! passphrase: a new object with the same slot id and a higher version.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{FormatError, from_versioned_json, to_json};
use crate::id::{RepositoryId, SlotId};
use crate::limits::{ARGON2_LANES_RANGE, ARGON2_MEMORY_KIB_RANGE, ARGON2_PASSES_RANGE};

/// What a slot allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything.
    Reader,
    /// Back up and deduplicate, but not read content.
    Writer,
    /// Lists and verifies structure and evidence, but neither writes nor reads content.
    Auditor,
}

impl Role {
    /// The written form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Auditor => "auditor",
        }
    }
}

/// Argon2id parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Argon2id {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// Salt, 32 hexadecimal digits.
    pub salt: String,
}

/// How the owner gets the slot's secret key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Unlock {
    /// A passphrase stretched by Argon2id opens `wrapped`.
    Passphrase {
        /// How it is stretched.
        argon2id: Argon2id,
        /// The slot's secret key, sealed: nonce, ciphertext, tag; hexadecimal.
        wrapped: String,
    },
    /// The 32 bytes of a key file open `wrapped`.
    KeyFile {
        /// The slot's secret key, sealed: nonce, ciphertext, tag; hexadecimal.
        wrapped: String,
    },
    /// The owner holds the secret key itself.
    Recipient {},
    /// The slot was removed: it opens nothing, and its grant is empty.
    Removed {},
}

/// What the slot opens, sealed to its public key by HPKE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Encapsulated key, hexadecimal.
    pub enc: String,
    /// Sealed [`Secrets`](crate::seal::slot) as JSON, hexadecimal.
    pub sealed: String,
}

/// The JSON line of a key slot object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySlot {
    /// Format version of this document.
    pub format: u8,
    /// The repository it belongs to.
    pub repository: RepositoryId,
    /// Which slot this is; kept when it is written anew.
    pub slot: SlotId,
    /// The highest version of a slot counts.
    pub version: u32,
    /// What it allows.
    pub role: Role,
    /// What people call it.
    pub label: String,
    /// When this version was written.
    pub created_at: Timestamp,
    /// Public half of the slot's X25519 pair, hexadecimal.
    pub public: String,
    /// Public half of the Ed25519 key with which its owner signs, hexadecimal. The root's signature over this slot
    /// certifies it.
    pub signer: String,
    /// How the owner gets the secret half of `public`.
    pub unlock: Unlock,
    /// What it opens.
    pub grant: Grant,
}

impl KeySlot {
    /// The line of JSON, which is what the root signs.
    pub fn body(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Whether it was removed.
    pub fn is_removed(&self) -> bool {
        matches!(self.unlock, Unlock::Removed {})
    }

    /// Reads the line back; refuses Argon2id parameters that are weak or an attack.
    pub fn decode_body(body: &[u8]) -> Result<Self, FormatError> {
        let slot: Self = from_versioned_json("key slot", body)?;
        if let Unlock::Passphrase { argon2id, .. } = &slot.unlock {
            argon2id.check()?;
        }
        Ok(slot)
    }
}

impl Argon2id {
    fn check(&self) -> Result<(), FormatError> {
        let fields = [
            ("Argon2id memory in KiB", self.memory_kib, ARGON2_MEMORY_KIB_RANGE),
            ("the number of Argon2id passes", self.passes, ARGON2_PASSES_RANGE),
            ("the number of Argon2id lanes", self.lanes, ARGON2_LANES_RANGE),
        ];
        for (what, found, range) in fields {
            if !range.contains(&found) {
                let limit = if found < *range.start() { *range.start() } else { *range.end() };
                return Err(FormatError::Limit { what, found: found.into(), limit: limit.into() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_argon2_parameters_are_refused_without_being_tried() {
        let absurd = Argon2id { memory_kib: u32::MAX, passes: 1, lanes: 1, salt: String::new() };
        assert!(matches!(absurd.check(), Err(FormatError::Limit { what: "Argon2id memory in KiB", .. })));
    }
}
