//! What a key file opens, by the text of format-spec/07-keys.md and not by the code that is tested.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, setup_receiver};
use infrahub_backup::id::bytes_of_hex;
use serde_json::Value;

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type EncappedKey = <X25519HkdfSha256 as Kem>::EncappedKey;

/// Bytes of a hexadecimal text.
pub fn hex(value: &Value) -> Vec<u8> {
    value.as_str().and_then(bytes_of_hex).expect("hexadecimal")
}

/// Bytes of a text in Base64.
pub fn base64_of(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().expect("a text")).expect("base64")
}

/// What a key file opens: the key itself, the slot's secret, and the grant.
pub fn opened(repository: &Path, key_file: &Path) -> (Vec<u8>, Vec<u8>, Value) {
    let text = fs::read_to_string(key_file).expect("a key file");
    let line: Vec<&str> = text.lines().last().expect("a line").split(' ').collect();
    let (id, slot, key) = (line[1], line[2], STANDARD.decode(line[3]).expect("base64"));
    let slots = fs::read_dir(repository.join("keys")).expect("slots").map(|entry| {
        let stored = fs::read_to_string(entry.expect("an entry").path()).expect("text");
        serde_json::from_str::<Value>(stored.lines().next().expect("a line")).expect("JSON")
    });
    let found = slots.into_iter().find(|value| value["slot"] == slot).expect("its slot");
    let place = [bytes_of_hex(id).expect("an id"), bytes_of_hex(slot).expect("an id")].concat();
    let wrapped = hex(&found["unlock"]["wrapped"]);
    let aad = [&b"infrahub-backup 1 slot"[..], &place].concat();
    let nonce = XNonce::try_from(&wrapped[..24]).expect("a nonce");
    let aead = XChaCha20Poly1305::new_from_slice(&key).expect("32 bytes");
    let unwrapped = aead.decrypt(&nonce, Payload { msg: &wrapped[24..], aad: &aad }).expect("it opens");
    let secret = PrivateKey::from_bytes(&unwrapped[..32]).expect("32 bytes");
    let enc = EncappedKey::from_bytes(&hex(&found["grant"]["enc"])).expect("32 bytes");
    let info = [&b"infrahub-backup 1 grant"[..], &place].concat();
    let mode = OpModeR::Base;
    let mut context = setup_receiver::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(&mode, &secret, &enc, &info);
    let context = context.as_mut().unwrap_or_else(|error| panic!("{error}"));
    let grant = context.open(&hex(&found["grant"]["sealed"]), &[]).expect("it opens");
    (key, unwrapped[..32].to_vec(), serde_json::from_slice(&grant).expect("JSON"))
}
