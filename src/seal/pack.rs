//! Packs: many segments under one key of their own.
//!
//! content pack = head (44) | encapsulated key (32) | commitment (32) | segments
//! tree pack    = head (44) | commitment (32) | segments | footer segment | u32 length of the footer segment
//! segment      = nonce (24) | XChaCha20-Poly1305 of (coding byte | data)
//!
//! A content pack's key comes from HPKE (RFC 9180, base mode, export) to the content key's public half, so that who
//! writes cannot read; a tree pack's from the metadata key. A segment's associated data binds repository, head, ordinal
//! and offset.

use hpke::aead::ExportOnlyAead;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, setup_receiver, setup_sender_with_rng};
use zeroize::Zeroizing;

use super::compress::{compress, decompress};
use super::keys::{Keys, SecretBytes};
use super::object::{ObjectKey, associated};
use super::{NONCE_SIZE, SealError, aead_open, aead_seal, equal};
use crate::env::{Entropy, random_bytes};
use crate::format::FormatError;
use crate::format::envelope::{CONTENT_HEAD_SIZE, HEAD_SIZE, Head, METADATA_HEAD_SIZE, ObjectType};
use crate::id::RepositoryId;

/// Ordinal under which a tree pack's footer is sealed.
pub const FOOTER_ORDINAL: u32 = u32::MAX;

/// Data as it is.
const CODING_RAW: u8 = 0;
/// Data as one zstd frame.
const CODING_ZSTD: u8 = 1;

/// Lets the injected entropy serve as the generator that HPKE asks for.
pub(super) struct EntropyRng<'a>(pub &'a dyn Entropy);

impl rand_core::TryRng for EntropyRng<'_> {
    type Error = rand_core::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::from_le_bytes(random_bytes(self.0)))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(u64::from_le_bytes(random_bytes(self.0)))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for EntropyRng<'_> {}

/// A segment's data before sealing: compressed, or as it is when that does not pay. The first byte tells which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodedSegment(Vec<u8>);

impl CodedSegment {
    /// Compresses `plain` against `base` (empty: without one).
    pub fn encode(plain: &[u8], base: &[u8]) -> Self {
        let frame = compress(plain, base);
        let (coding, data) = if frame.len() < plain.len() { (CODING_ZSTD, &frame[..]) } else { (CODING_RAW, plain) };
        let mut coded = Vec::with_capacity(data.len() + 1);
        coded.push(coding);
        coded.extend_from_slice(data);
        Self(coded)
    }

    /// Length as it will stand in the pack, nonce and tag included, in bytes.
    pub fn stored_length(&self) -> usize {
        self.0.len() + NONCE_SIZE + super::TAG_SIZE
    }

    fn decode(coded: Vec<u8>, base: &[u8], plain_length: u64) -> Result<Vec<u8>, SealError> {
        let (coding, data) = coded.split_first().ok_or(SealError::Decompress)?;
        let plain = match *coding {
            CODING_RAW => data.to_vec(),
            CODING_ZSTD => decompress(data, base, plain_length)?,
            _ => return Err(SealError::Decompress),
        };
        if plain.len() as u64 == plain_length { Ok(plain) } else { Err(SealError::Decompress) }
    }
}

/// Key and associated data of one pack.
struct PackKey {
    key: Zeroizing<[u8; 32]>,
    associated: Vec<u8>,
}

impl PackKey {
    fn associated_with(&self, ordinal: u32, offset: u32) -> Vec<u8> {
        [&self.associated[..], &ordinal.to_le_bytes(), &u64::from(offset).to_le_bytes()].concat()
    }

    fn open(&self, ordinal: u32, offset: u32, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        if sealed.len() < NONCE_SIZE {
            return Err(SealError::Decrypt);
        }
        let (nonce, ciphertext) = sealed.split_at(NONCE_SIZE);
        let nonce = nonce.try_into().expect("24 bytes");
        aead_open(&self.key, nonce, &self.associated_with(ordinal, offset), ciphertext)
    }
}

/// Seals segments one behind the other. Holds the pack's bytes.
pub struct PackSealer {
    key: PackKey,
    nonce_key: SecretBytes,
    bytes: Vec<u8>,
    ordinal: u32,
}

impl PackSealer {
    /// Begins a pack; `capacity` bytes are taken at once.
    pub fn new(keys: &Keys, entropy: &dyn Entropy, kind: ObjectType, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        let salt = random_bytes(entropy);
        let generation = match kind {
            ObjectType::ContentPack => keys.content_public.generation,
            _ => keys.metadata_generation,
        };
        let head = Head { kind, generation, salt }.encode();
        bytes.extend_from_slice(&head);
        let (key, commitment) = if kind == ObjectType::ContentPack {
            let (enc, key, commitment) = encapsulate(&keys.content_public.key, &keys.repository, &head, entropy);
            bytes.extend_from_slice(&enc);
            (key, commitment)
        } else {
            let secret = keys.metadata_key(generation).expect("every slot holds the newest metadata key");
            let derived = ObjectKey::derive(secret, &keys.repository, &head);
            (derived.key, derived.commitment)
        };
        bytes.extend_from_slice(&commitment);
        let key = PackKey { key, associated: associated(&keys.repository, &head) };
        Self { key, nonce_key: keys.nonce_key(), bytes, ordinal: 0 }
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Seals a segment at the end; gives its offset.
    pub fn push(&mut self, entropy: &dyn Entropy, segment: &CodedSegment) -> u32 {
        let offset = self.push_as(entropy, self.ordinal, &segment.0);
        self.ordinal += 1;
        offset
    }

    fn push_as(&mut self, entropy: &dyn Entropy, ordinal: u32, coded: &[u8]) -> u32 {
        let offset = u32::try_from(self.bytes.len()).expect("packs are below 4 GiB");
        let associated = self.key.associated_with(ordinal, offset);
        let nonce = self.nonce(entropy, &associated, coded);
        self.bytes.extend_from_slice(&nonce);
        self.bytes.extend_from_slice(&aead_seal(&self.key.key, &nonce, &associated, coded));
        offset
    }

    /// Fresh entropy and a keyed hash of place and plaintext: a clone with the same entropy and the same pack key still
    /// never seals two plaintexts under one nonce.
    fn nonce(&self, entropy: &dyn Entropy, associated: &[u8], coded: &[u8]) -> [u8; NONCE_SIZE] {
        let hash = blake3::Hasher::new_keyed(&self.nonce_key)
            .update(&random_bytes::<32>(entropy))
            .update(associated)
            .update(coded)
            .finalize();
        hash.as_bytes()[..NONCE_SIZE].try_into().expect("a hash is longer than a nonce")
    }

    /// Ends a content pack: its bytes as stored.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Ends a tree pack with its footer: its bytes as stored.
    pub fn finish_with_footer(mut self, entropy: &dyn Entropy, footer: &[u8]) -> Vec<u8> {
        let coded = CodedSegment::encode(footer, &[]);
        self.push_as(entropy, FOOTER_ORDINAL, &coded.0);
        let length = u32::try_from(coded.stored_length()).expect("packs are below 4 GiB");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes
    }
}

/// Opens segments of one pack.
pub struct PackOpener {
    key: PackKey,
}

impl PackOpener {
    /// Bytes of the head that [`PackOpener::new`] needs.
    pub fn head_size(kind: ObjectType) -> usize {
        if kind == ObjectType::ContentPack { CONTENT_HEAD_SIZE } else { METADATA_HEAD_SIZE }
    }

    /// Reads the head of a pack of type `kind` and checks its key commitment.
    pub fn new(keys: &Keys, kind: ObjectType, stored: &[u8]) -> Result<Self, SealError> {
        let head = Head::decode(stored)?;
        if head.kind != kind {
            return Err(SealError::WrongType { expected: kind, found: head.kind });
        }
        let missing = Self::head_size(kind).saturating_sub(stored.len());
        if missing > 0 {
            return Err(FormatError::Truncated { what: "head of the pack", missing }.into());
        }
        let bytes = head.encode();
        let (key, commitment) = if kind == ObjectType::ContentPack {
            let secret = keys.content_key(head.generation)?;
            let enc = &stored[HEAD_SIZE..HEAD_SIZE + 32];
            decapsulate(secret, enc, &keys.repository, &bytes)?
        } else {
            let derived = ObjectKey::derive(keys.metadata_key(head.generation)?, &keys.repository, &bytes);
            (derived.key, derived.commitment)
        };
        let size = Self::head_size(kind);
        if !equal(&commitment, stored[size - 32..size].try_into().expect("32 bytes")) {
            return Err(SealError::Commitment);
        }
        Ok(Self { key: PackKey { key, associated: associated(&keys.repository, &bytes) } })
    }

    /// Opens segment `ordinal`, which stands at `offset` and whose plaintext has `plain_length` bytes, against `base`.
    pub fn unseal(
        &self,
        ordinal: u32,
        offset: u32,
        sealed: &[u8],
        base: &[u8],
        plain_length: u64,
    ) -> Result<Vec<u8>, SealError> {
        CodedSegment::decode(self.key.open(ordinal, offset, sealed)?, base, plain_length)
    }

    /// Opens the footer of a tree pack whose bytes are `stored`.
    pub fn footer(&self, stored: &[u8], size_max: u64) -> Result<Vec<u8>, SealError> {
        let truncated = || SealError::Format(FormatError::Truncated { what: "pack footer", missing: 1 });
        let end = stored.len().checked_sub(4).ok_or_else(truncated)?;
        let length = u32::from_le_bytes(stored[end..].try_into().expect("4 bytes"));
        let length = usize::try_from(length).expect("usize has 32 bits or more");
        let offset = end.checked_sub(length).ok_or_else(truncated)?;
        let place = u32::try_from(offset).map_err(|_| truncated())?;
        let coded = self.key.open(FOOTER_ORDINAL, place, &stored[offset..end])?;
        match coded.split_first() {
            Some((&CODING_RAW, data)) => Ok(data.to_vec()),
            Some((&CODING_ZSTD, data)) => decompress(data, &[], size_max),
            _ => Err(SealError::Decompress),
        }
    }
}

fn pack_info(repository: &RepositoryId, head: &[u8; HEAD_SIZE]) -> Vec<u8> {
    [b"infrahub-backup 1 content pack", &repository.as_bytes()[..], head].concat()
}

/// Splits 64 exported bytes into key and commitment.
fn split_export(exported: &[u8; 64]) -> (Zeroizing<[u8; 32]>, [u8; 32]) {
    let (key, commitment) = exported.split_at(32);
    (Zeroizing::new(key.try_into().expect("32 bytes")), commitment.try_into().expect("32 bytes"))
}

fn encapsulate(
    public: &[u8; 32],
    repository: &RepositoryId,
    head: &[u8; HEAD_SIZE],
    entropy: &dyn Entropy,
) -> ([u8; 32], Zeroizing<[u8; 32]>, [u8; 32]) {
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public).expect("32 bytes are an X25519 public key");
    let (enc, context) = setup_sender_with_rng::<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        &pack_info(repository, head),
        &mut EntropyRng(entropy),
    )
    .expect("the content key's public half, signed by the root, is not of small order");
    let mut exported = Zeroizing::new([0; 64]);
    context.export(b"pack", &mut *exported).expect("64 bytes are within HKDF's limit");
    let (key, commitment) = split_export(&exported);
    (enc.to_bytes().as_slice().try_into().expect("32 bytes"), key, commitment)
}

fn decapsulate(
    secret: &SecretBytes,
    enc: &[u8],
    repository: &RepositoryId,
    head: &[u8; HEAD_SIZE],
) -> Result<(Zeroizing<[u8; 32]>, [u8; 32]), SealError> {
    let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&**secret).expect("32 bytes are an X25519 key");
    let enc = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(enc).map_err(|_| SealError::Commitment)?;
    let context = setup_receiver::<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &secret,
        &enc,
        &pack_info(repository, head),
    )
    .map_err(|_| SealError::Commitment)?;
    let mut exported = Zeroizing::new([0; 64]);
    context.export(b"pack", &mut *exported).expect("64 bytes are within HKDF's limit");
    Ok(split_export(&exported))
}
