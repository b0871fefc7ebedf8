//! Metadata objects: signed by their writer, compressed, sealed under the metadata key.
//!
//! stored = head (44) | key commitment (32) | XChaCha20-Poly1305 of one zstd frame of (signer (32) | signature (64) | body)

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use super::compress::{compress, decompress};
use super::keys::Keys;
use super::{NONCE_SIZE, SealError, aead_open, aead_seal, equal};
use crate::env::{Entropy, random_bytes};
use crate::format::FormatError;
use crate::format::envelope::{HEAD_SIZE, Head, METADATA_HEAD_SIZE, ObjectType};
use crate::id::{RepositoryId, hex_of};
use crate::limits::OBJECT_PLAIN_SIZE_MAX;

/// Bytes that signing puts before the body: public key and signature.
const SIGNATURE_HEAD_SIZE: usize = 32 + 64;

/// What a head's salt makes of a secret: one object's own key, nonce and commitment.
pub(super) struct ObjectKey {
    pub key: Zeroizing<[u8; 32]>,
    pub nonce: [u8; NONCE_SIZE],
    pub commitment: [u8; 32],
}

impl ObjectKey {
    /// BLAKE3 in keyed mode over repository and head, 88 bytes of output.
    pub fn derive(secret: &[u8; 32], repository: &RepositoryId, head: &[u8; HEAD_SIZE]) -> Self {
        let mut out = Zeroizing::new([0; 32 + NONCE_SIZE + 32]);
        blake3::Hasher::new_keyed(secret)
            .update(b"infrahub-backup 1 object key")
            .update(repository.as_bytes())
            .update(head)
            .finalize_xof()
            .fill(&mut *out);
        let (key, rest) = out.split_at(32);
        let (nonce, commitment) = rest.split_at(NONCE_SIZE);
        Self {
            key: Zeroizing::new(key.try_into().expect("32 bytes")),
            nonce: nonce.try_into().expect("24 bytes"),
            commitment: commitment.try_into().expect("32 bytes"),
        }
    }
}

/// Associated data of everything sealed: repository and head.
pub(super) fn associated(repository: &RepositoryId, head: &[u8; HEAD_SIZE]) -> Vec<u8> {
    [&repository.as_bytes()[..], head].concat()
}

/// Signs `body` as the content of a `kind` object and seals it. The result is the object as stored.
pub fn seal_object(keys: &Keys, entropy: &dyn Entropy, kind: ObjectType, body: &[u8]) -> Vec<u8> {
    let mut plain = sign(&keys.signer, &keys.repository, kind, body);
    plain.extend_from_slice(body);
    let salt = salt_for(keys, entropy, kind, &plain);
    let head = Head { kind, generation: keys.metadata_generation, salt }.encode();
    let secret = keys.metadata_key(keys.metadata_generation).expect("every slot holds the newest metadata key");
    let derived = ObjectKey::derive(secret, &keys.repository, &head);
    let frame = compress(&plain, &[]);
    let sealed = aead_seal(&derived.key, &derived.nonce, &associated(&keys.repository, &head), &frame);
    [&head[..], &derived.commitment, &sealed].concat()
}

/// Opens a stored object of type `kind`, checks its signature, and gives its body.
pub fn unseal_object(keys: &Keys, kind: ObjectType, stored: &[u8]) -> Result<Vec<u8>, SealError> {
    Ok(unseal_signed(keys, kind, stored)?.1)
}

/// The same; gives the public half of its certified signer as well.
pub fn unseal_signed(keys: &Keys, kind: ObjectType, stored: &[u8]) -> Result<([u8; 32], Vec<u8>), SealError> {
    let head = Head::decode(stored)?;
    if head.kind != kind {
        return Err(SealError::WrongType { expected: kind, found: head.kind });
    }
    let head_bytes = head.encode();
    let secret = keys.metadata_key(head.generation)?;
    let derived = ObjectKey::derive(secret, &keys.repository, &head_bytes);
    let missing = METADATA_HEAD_SIZE.saturating_sub(stored.len());
    if missing > 0 {
        return Err(FormatError::Truncated { what: "head of the object", missing }.into());
    }
    let commitment = stored[HEAD_SIZE..METADATA_HEAD_SIZE].try_into().expect("32 bytes");
    if !equal(&derived.commitment, commitment) {
        return Err(SealError::Commitment);
    }
    let associated = associated(&keys.repository, &head_bytes);
    let frame = aead_open(&derived.key, &derived.nonce, &associated, &stored[METADATA_HEAD_SIZE..])?;
    let mut plain = decompress(&frame, &[], OBJECT_PLAIN_SIZE_MAX)?;
    verify(keys, kind, &plain)?;
    let signer = plain[..32].try_into().expect("the signature was there to be verified");
    plain.drain(..SIGNATURE_HEAD_SIZE);
    Ok((signer, plain))
}

/// Fresh entropy and a keyed hash of the plaintext: two plaintexts never share a salt, even when entropy repeats.
fn salt_for(keys: &Keys, entropy: &dyn Entropy, kind: ObjectType, plain: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new_keyed(&keys.nonce_key())
        .update(&random_bytes::<32>(entropy))
        .update(&[kind.code()])
        .update(plain)
        .finalize()
        .as_bytes()
}

/// Public key and signature over repository, type and BLAKE3 of the body.
fn sign(signer: &SigningKey, repository: &RepositoryId, kind: ObjectType, body: &[u8]) -> Vec<u8> {
    let signature = signer.sign(&signed_message(repository, kind.code(), body));
    [&signer.verifying_key().to_bytes()[..], &signature.to_bytes()].concat()
}

/// What a signature covers. Clear objects have type bytes that no sealed object has.
pub(super) fn signed_message(repository: &RepositoryId, kind: u8, body: &[u8]) -> Vec<u8> {
    [b"infrahub-backup 1 signed", &repository.as_bytes()[..], &[kind], blake3::hash(body).as_bytes()].concat()
}

fn verify(keys: &Keys, kind: ObjectType, plain: &[u8]) -> Result<(), SealError> {
    let missing = SIGNATURE_HEAD_SIZE.saturating_sub(plain.len());
    if missing > 0 {
        return Err(FormatError::Truncated { what: "signature", missing }.into());
    }
    let signer: [u8; 32] = plain[..32].try_into().expect("32 bytes");
    if !keys.certified.contains(&signer) {
        return Err(SealError::UnknownSigner { signer: hex_of(&signer[..8]) });
    }
    let message = signed_message(&keys.repository, kind.code(), &plain[SIGNATURE_HEAD_SIZE..]);
    let signature = Signature::from_bytes(plain[32..SIGNATURE_HEAD_SIZE].try_into().expect("64 bytes"));
    verify_signature(&signer, &message, &signature)
}

/// Signatures that this process found right, by a hash of all that was checked: steps of one operation, and both ends of a
/// replication, read the same objects again.
static VERIFIED: LazyLock<Mutex<HashSet<[u8; 32]>>> = LazyLock::new(Mutex::default);

/// How many are remembered: half a mebibyte. With one more all are forgotten.
const VERIFIED_MAX: usize = 8192;

/// Checks an Ed25519 signature strictly (no small-order keys, canonical).
pub(super) fn verify_signature(public: &[u8; 32], message: &[u8], signature: &Signature) -> Result<(), SealError> {
    let checked =
        *blake3::Hasher::new().update(public).update(&signature.to_bytes()).update(message).finalize().as_bytes();
    let verified = || VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
    if verified().contains(&checked) {
        return Ok(());
    }
    let key = VerifyingKey::from_bytes(public).map_err(|_| SealError::Signature)?;
    key.verify_strict(message, signature).map_err(|_| SealError::Signature)?;
    let mut verified = verified();
    if verified.len() >= VERIFIED_MAX {
        verified.clear();
    }
    verified.insert(checked);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::config::Profiles;
    use crate::seal::pack::{CodedSegment, PackSealer};
    use crate::seal::slot::{NewCredential, found_repository};

    /// What a machine has that was cloned while it ran: the same again and again.
    struct Same;

    impl Entropy for Same {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    fn keys() -> Keys {
        found_repository(&Same, jiff::Timestamp::UNIX_EPOCH, Profiles::DEFAULT, NewCredential::KeyFile).keys
    }

    #[test]
    fn a_signature_that_was_right_once_is_not_right_for_anything_else() {
        let signer = SigningKey::from_bytes(&[3; 32]);
        let (public, signature) = (signer.verifying_key().to_bytes(), signer.sign(b"one"));
        let other = SigningKey::from_bytes(&[4; 32]);
        for _ in 0..2 {
            assert!(verify_signature(&public, b"one", &signature).is_ok());
            assert!(verify_signature(&public, b"two", &signature).is_err());
            assert!(verify_signature(&public, b"one", &other.sign(b"one")).is_err());
            assert!(verify_signature(&other.verifying_key().to_bytes(), b"one", &signature).is_err());
        }
    }

    #[test]
    fn two_objects_sealed_with_the_same_entropy_share_no_salt() {
        let keys = keys();
        let sealed = |kind, body: &[u8]| seal_object(&keys, &Same, kind, body);
        let salt = |stored: &[u8]| stored[12..HEAD_SIZE].to_vec();
        let one = sealed(ObjectType::Manifest, b"one");
        assert_ne!(salt(&one), salt(&sealed(ObjectType::Manifest, b"two")));
        assert_ne!(salt(&one), salt(&sealed(ObjectType::Report, b"one")));
        assert_eq!(one, sealed(ObjectType::Manifest, b"one"), "the entropy is the same indeed");
    }

    #[test]
    fn two_segments_sealed_with_the_same_entropy_under_the_same_key_share_no_nonce() {
        let keys = keys();
        for kind in [ObjectType::ContentPack, ObjectType::TreePack] {
            let sealed = |plain: &[u8]| {
                let mut sealer = PackSealer::new(&keys, &Same, kind, 4096);
                let start = sealer.size();
                sealer.push(&Same, &CodedSegment::encode(plain, &[]));
                let stored = sealer.finish();
                (stored[..start].to_vec(), stored[start..start + NONCE_SIZE].to_vec())
            };
            let (one, two) = (sealed(b"one"), sealed(b"two"));
            assert_eq!(one.0, two.0, "both have the same key");
            assert_ne!(one.1, two.1);
        }
    }
}
