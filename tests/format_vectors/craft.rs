//! Sealing by hand, to make what the encoder never would. Written from `format-spec/`, not from `src/seal`.

use std::sync::Mutex;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ed25519_dalek::{Signer, SigningKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeS, Serializable};
use infrahub_backup::env::Entropy;
use infrahub_backup::format::config::SignedText;

/// Bytes that nobody chose, the same in every run: the output of BLAKE3 over a seed.
pub struct SeededEntropy(Mutex<blake3::OutputReader>);

impl SeededEntropy {
    pub fn new(seed: &str) -> Self {
        Self(Mutex::new(blake3::Hasher::new().update(seed.as_bytes()).finalize_xof()))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().expect("no test panics inside").fill(bytes);
    }
}

/// 32 bytes that stand for a secret.
pub fn secret(name: &str) -> [u8; 32] {
    *blake3::hash(format!("vector secret {name}").as_bytes()).as_bytes()
}

pub fn head(kind: u8, generation: u32, salt: [u8; 32]) -> Vec<u8> {
    [b"IHBK", &[1, kind, 0, 0][..], &generation.to_le_bytes(), &salt].concat()
}

/// Key, nonce and commitment of a metadata object or tree pack.
pub fn derive(metadata_key: &[u8; 32], repository: &[u8; 16], head: &[u8]) -> ([u8; 32], [u8; 24], [u8; 32]) {
    let mut out = [0; 88];
    let mut hasher = blake3::Hasher::new_keyed(metadata_key);
    hasher.update(b"infrahub-backup 1 object key").update(repository).update(head).finalize_xof().fill(&mut out);
    let part = |from: usize, to: usize| out[from..to].to_vec();
    let sized = "the parts have these sizes";
    (part(0, 32).try_into().expect(sized), part(32, 56).try_into().expect(sized), part(56, 88).try_into().expect(sized))
}

pub fn seal(key: &[u8; 32], nonce: &[u8; 24], associated: &[u8], plain: &[u8]) -> Vec<u8> {
    let payload = Payload { msg: plain, aad: associated };
    XChaCha20Poly1305::new(key.into()).encrypt(&XNonce::from(*nonce), payload).expect("short")
}

/// A metadata object around any frame.
pub fn object(metadata_key: &[u8; 32], repository: &[u8; 16], kind: u8, frame: &[u8]) -> Vec<u8> {
    let head = head(kind, 1, secret("salt"));
    let (key, nonce, commitment) = derive(metadata_key, repository, &head);
    let sealed = seal(&key, &nonce, &[&repository[..], &head].concat(), frame);
    [head, commitment.to_vec(), sealed].concat()
}

/// A tree pack of one segment of any coding, and its footer.
pub fn tree_pack(metadata_key: &[u8; 32], repository: &[u8; 16], coded: &[u8], footer: &[u8]) -> Vec<u8> {
    let head = head(2, 1, secret("salt"));
    let (key, _, commitment) = derive(metadata_key, repository, &head);
    let mut pack = [head.clone(), commitment.to_vec()].concat();
    let coded_footer = [&[0], footer].concat();
    for (ordinal, coded) in [(0u32, coded), (u32::MAX, &coded_footer)] {
        let nonce = [u8::try_from(ordinal & 0x7f).expect("seven bits"); 24];
        let place = [&ordinal.to_le_bytes()[..], &(pack.len() as u64).to_le_bytes()].concat();
        let associated = [&repository[..], &head, &place].concat();
        pack.extend_from_slice(&nonce);
        pack.extend_from_slice(&seal(&key, &nonce, &associated, coded));
    }
    let length = u32::try_from(24 + coded_footer.len() + 16).expect("short");
    [pack, length.to_le_bytes().to_vec()].concat()
}

/// What an object's plaintext begins with.
pub fn signature(signer: &[u8; 32], repository: &[u8; 16], kind: u8, body: &[u8]) -> Vec<u8> {
    let signer = SigningKey::from_bytes(signer);
    let message = [b"infrahub-backup 1 signed", &repository[..], &[kind], blake3::hash(body).as_bytes()].concat();
    [&signer.verifying_key().to_bytes()[..], &signer.sign(&message).to_bytes()].concat()
}

/// Type bytes of clear objects.
pub const CONFIG: u8 = 0x80;
pub const KEY_SLOT: u8 = 0x81;

/// A clear object signed by `root`.
pub fn signed_text(root: &[u8; 32], repository: &[u8; 16], kind: u8, body: Vec<u8>) -> Vec<u8> {
    let signature = signature(root, repository, kind, &body)[32..].try_into().expect("64 bytes");
    SignedText { body, signature }.encode()
}

impl rand_core::TryRng for SeededEntropy {
    type Error = rand_core::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::from_le_bytes(infrahub_backup::env::random_bytes(self)))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(u64::from_le_bytes(infrahub_backup::env::random_bytes(self)))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.fill(bytes);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for SeededEntropy {}

/// What anybody can do who sees a slot: seal a grant to its public key. Encapsulated key and sealed text.
pub fn grant(public: &[u8], repository: &[u8; 16], slot: &[u8; 16], secrets: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public).expect("32 bytes");
    let info = [b"infrahub-backup 1 grant", &repository[..], slot].concat();
    let (enc, mut context) = hpke::setup_sender_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        &info,
        &mut SeededEntropy::new("grant"),
    )
    .expect("a good key");
    let sealed = context.seal(secrets, &[]).expect("short");
    (enc.to_bytes().to_vec(), sealed)
}
