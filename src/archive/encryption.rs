//! Encrypted archives: ECDH on P-256 with a key of its own for each file, HKDF-SHA256, AES-256-GCM in chunks of 4 MiB.
//!
//! The scheme is the predecessor's. It authenticates neither its head nor the order and number of its chunks: the checksums inside
//! do that, and here also the head's own counts, which must fit exactly.
//!
//! Holds: what comes out of [`Opener`] was authenticated chunk by chunk; it ends well only where head and chunks agree.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use bytes::{Bytes, BytesMut};

use super::error::ArchiveError;
use super::keys::{POINT_SIZE, PrivateKey, PublicKey};
use crate::env::{Entropy, random_bytes};

/// The first byte of an encrypted archive: version 2 of the scheme.
pub(super) const VERSION: u8 = 2;

/// Length of the head, in bytes.
pub const HEADER_SIZE: usize = 1 + POINT_SIZE + 4 + 8 + 8;

/// Plaintext of every chunk but the last, in bytes: 4 MiB.
const CHUNK_SIZE: usize = 4 << 20;

const TAG_SIZE: usize = 16;
const CHUNK_HEAD_SIZE: usize = NONCE_LEN + 4;
const INFO: &[u8] = b"opsmill-upload-ecies";

fn derive(shared: &[u8]) -> Result<LessSafeKey, ArchiveError> {
    let extracted = Salt::new(HKDF_SHA256, &[0; 32]).extract(shared);
    let expanded = extracted.expand(&[INFO], &AES_256_GCM);
    let expanded = expanded.map_err(|_| ArchiveError::Key { what: "no key can be derived from it" })?;
    Ok(LessSafeKey::new(UnboundKey::from(expanded)))
}

fn chunks_of(size: u64) -> u64 {
    size.div_ceil(CHUNK_SIZE as u64)
}

/// Takes an encrypted archive as it comes and gives the plain one.
pub(super) struct Opener {
    private: PrivateKey,
    buffered: BytesMut,
    opened: Option<Opened>,
}

/// What the head told.
struct Opened {
    key: LessSafeKey,
    /// Plaintext still to come, in bytes.
    left: u64,
    chunk: u64,
}

impl Opener {
    pub fn new(private: PrivateKey) -> Self {
        Self { private, buffered: BytesMut::new(), opened: None }
    }

    /// Opens the next chunk from `input`, of which it takes what it needs; `None` if that is not enough.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, ArchiveError> {
        if self.opened.is_none() {
            if !self.gather(input, HEADER_SIZE) {
                return Ok(None);
            }
            let head = self.buffered.split();
            self.opened = Some(self.head(&head)?);
        }
        let left = self.opened.as_ref().expect("opened above").left;
        if left == 0 {
            return if input.is_empty() { Ok(None) } else { Err(ArchiveError::Trailing { what: "the last chunk" }) };
        }
        if !self.gather(input, CHUNK_HEAD_SIZE) {
            return Ok(None);
        }
        let plain_size = usize::try_from(left).unwrap_or(CHUNK_SIZE).min(CHUNK_SIZE);
        let chunk = self.opened.as_ref().expect("opened above").chunk;
        let (_, said) = self.buffered[..CHUNK_HEAD_SIZE].split_at(NONCE_LEN);
        let said = u32::from_be_bytes(said.try_into().expect("four bytes"));
        if usize::try_from(said).ok() != Some(plain_size + TAG_SIZE) {
            return Err(ArchiveError::Chunk { chunk, why: "its length is not the one that the head says" });
        }
        if !self.gather(input, CHUNK_HEAD_SIZE + plain_size + TAG_SIZE) {
            return Ok(None);
        }
        self.open_chunk(plain_size).map(Some)
    }

    /// Whether `size` bytes are buffered.
    fn gather(&mut self, input: &mut Bytes, size: usize) -> bool {
        let taken = input.split_to(size.saturating_sub(self.buffered.len()).min(input.len()));
        self.buffered.extend_from_slice(&taken);
        self.buffered.len() >= size
    }

    fn head(&self, head: &[u8]) -> Result<Opened, ArchiveError> {
        let number = |from: usize, to: usize| head[from..to].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let wrong = |what| Err(ArchiveError::Head { what });
        if head[0] != VERSION {
            return wrong("its version is not 2");
        }
        let point = head[1..=POINT_SIZE].try_into().expect("65 bytes");
        let Ok(public) = PublicKey::from_point(point) else { return wrong("its public key is no point of the curve") };
        let (chunk_size, size, chunks) = (number(66, 70), number(70, 78), number(78, 86));
        if chunk_size != CHUNK_SIZE as u64 {
            return wrong("its chunks are not of 4 MiB");
        }
        if chunks != chunks_of(size) {
            return wrong("size and number of chunks do not fit");
        }
        Ok(Opened { key: self.private.agree(&public, derive)?, left: size, chunk: 0 })
    }

    fn open_chunk(&mut self, plain_size: usize) -> Result<Bytes, ArchiveError> {
        let opened = self.opened.as_mut().expect("the head came first");
        let head = self.buffered.split_to(CHUNK_HEAD_SIZE);
        let mut sealed = self.buffered.split();
        let nonce = Nonce::try_assume_unique_for_key(&head[..NONCE_LEN]).expect("twelve bytes");
        let why = match opened.chunk {
            0 => "the archive was encrypted for another key, or is damaged",
            _ => "it is damaged",
        };
        let damaged = |_| ArchiveError::Chunk { chunk: opened.chunk, why };
        opened.key.open_in_place(nonce, Aad::empty(), &mut sealed).map_err(damaged)?;
        sealed.truncate(plain_size);
        opened.left -= plain_size as u64;
        opened.chunk += 1;
        Ok(sealed.freeze())
    }

    /// Whether it may end here.
    pub fn finish(&self) -> Result<(), ArchiveError> {
        match &self.opened {
            Some(opened) if opened.left == 0 => Ok(()),
            Some(_) => Err(ArchiveError::Truncated { inside: "a chunk of its encryption" }),
            None => Err(ArchiveError::Truncated { inside: "the head of its encryption" }),
        }
    }
}

/// Makes an encrypted archive of a plain one.
///
/// The head tells how long the plain one is, and that is known last: room for it is left in front, and [`Sealer::finish`] gives it.
pub struct Sealer {
    key: LessSafeKey,
    ephemeral: PublicKey,
    pending: Vec<u8>,
    size: u64,
}

impl Sealer {
    /// Encrypts for `recipient`.
    ///
    /// # Errors
    /// If the recipient's key cannot be used.
    pub fn new(recipient: &PublicKey, entropy: &dyn Entropy) -> Result<Self, ArchiveError> {
        let private = PrivateKey::generate(entropy);
        let key = private.agree(recipient, derive)?;
        Ok(Self { key, ephemeral: private.public(), pending: Vec::new(), size: 0 })
    }

    /// Takes the next bytes and appends to `out` what they become.
    pub fn push(&mut self, mut bytes: &[u8], entropy: &dyn Entropy, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at((CHUNK_SIZE - self.pending.len()).min(bytes.len()));
            self.pending.extend_from_slice(taken);
            bytes = rest;
            if self.pending.len() == CHUNK_SIZE {
                self.seal(entropy, out);
            }
        }
    }

    fn seal(&mut self, entropy: &dyn Entropy, out: &mut Vec<u8>) {
        self.size += self.pending.len() as u64;
        let nonce = random_bytes::<NONCE_LEN>(entropy);
        let sealed =
            self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut self.pending);
        sealed.expect("a chunk is shorter than what AES-GCM takes");
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&u32::try_from(self.pending.len()).expect("4 MiB and a tag").to_be_bytes());
        out.append(&mut self.pending);
    }

    /// Appends the last chunk to `out` and gives the head.
    pub fn finish(mut self, entropy: &dyn Entropy, out: &mut Vec<u8>) -> [u8; HEADER_SIZE] {
        if !self.pending.is_empty() {
            self.seal(entropy, out);
        }
        let mut head = Vec::with_capacity(HEADER_SIZE);
        head.push(VERSION);
        head.extend_from_slice(self.ephemeral.point());
        head.extend_from_slice(&u32::try_from(CHUNK_SIZE).expect("4 MiB").to_be_bytes());
        head.extend_from_slice(&self.size.to_be_bytes());
        head.extend_from_slice(&chunks_of(self.size).to_be_bytes());
        head.try_into().expect("86 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemEntropy;

    fn sealed(plain: &[u8], recipient: &PublicKey) -> Vec<u8> {
        let mut sealer = Sealer::new(recipient, &SystemEntropy).unwrap();
        let mut out = Vec::new();
        plain.chunks(100_000).for_each(|piece| sealer.push(piece, &SystemEntropy, &mut out));
        let head = sealer.finish(&SystemEntropy, &mut out);
        [head.to_vec(), out].concat()
    }

    fn opened(private: PrivateKey, sealed: &[u8]) -> Result<Vec<u8>, ArchiveError> {
        let (mut opener, mut out) = (Opener::new(private), Vec::new());
        for piece in sealed.chunks(70_000) {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(plain) = opener.next(&mut piece)? {
                out.extend_from_slice(&plain);
            }
        }
        opener.finish()?;
        Ok(out)
    }

    fn pair() -> (PublicKey, impl Fn() -> PrivateKey) {
        let private = PrivateKey::generate(&SystemEntropy);
        let (public, pem) = (private.public(), private.encode());
        (public, move || PrivateKey::decode(pem.as_bytes()).unwrap())
    }

    /// HKDF by the published parameters; expected bytes computed with another library.
    #[test]
    fn the_key_is_derived_as_published() {
        struct Length;
        impl aws_lc_rs::hkdf::KeyType for Length {
            fn len(&self) -> usize {
                32
            }
        }
        let shared: Vec<u8> = (0..32).collect();
        for (shared, expected) in [
            (&shared[..], "e42f8cf494600067ae1c96eb850f674f3207cf1ccdbf09abb7d94a4e81c61f6d"),
            (&[0; 32][..], "0d8433369ea320d8dd3a2fc3a6f7244733639d4cbbdbda9a8ed10ed59319b228"),
        ] {
            let mut found = [0; 32];
            let extracted = Salt::new(HKDF_SHA256, &[0; 32]).extract(shared);
            extracted.expand(&[INFO], Length).unwrap().fill(&mut found).unwrap();
            let text: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn what_is_sealed_opens_again_at_every_length_around_a_chunk() {
        let (public, private) = pair();
        for size in [0, 1, 100, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 10 << 20] {
            let plain: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let sealed = sealed(&plain, &public);
            assert_eq!(sealed.len(), HEADER_SIZE + size + 32 * size.div_ceil(CHUNK_SIZE));
            assert!(opened(private(), &sealed).unwrap() == plain, "{size}");
        }
    }

    #[test]
    fn another_key_a_flipped_bit_and_a_missing_chunk_are_found() {
        let (public, private) = pair();
        let whole = sealed(&[7; CHUNK_SIZE + 9], &public);
        let other = PrivateKey::generate(&SystemEntropy);
        assert!(matches!(opened(other, &whole), Err(ArchiveError::Chunk { chunk: 0, .. })));
        for at in [0, 30, 67, 75, 85, 90, 99, 200, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert!(opened(private(), &flipped).is_err(), "byte {at}");
        }
        for end in [0, 85, 86, 90, 200, whole.len() - 41, whole.len() - 1] {
            assert!(matches!(opened(private(), &whole[..end]), Err(ArchiveError::Truncated { .. })), "{end}");
        }
        let longer = [&whole[..], b"x"].concat();
        assert!(matches!(opened(private(), &longer), Err(ArchiveError::Trailing { .. })));
    }
}
