//! Vectors of identity files, and of key slots that they open.

use infrahub_backup::format::config::Profiles;
use infrahub_backup::format::identity::root_line;
use infrahub_backup::format::key_slot::Role;
use infrahub_backup::seal::change::add_slot;
use infrahub_backup::seal::slot::{NewCredential, found_repository, recipient_key};
use jiff::Timestamp;

use crate::craft::SeededEntropy;
use crate::file::Vector;

// The secret is the bytes 0 to 31; both were encoded by a program of their own.
const SECRET: &str = "AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0SWRYDWG";
const STRANGER: &str = "age1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0savhh7m";

pub fn all() -> Vec<Vector> {
    [files(), slots()].concat()
}

fn key() -> Vec<u8> {
    (0..32).collect()
}

fn files() -> Vec<Vector> {
    let repository = "11111111111111111111111111111111".parse().expect("an id");
    let root = root_line(&repository, &[0x22; 32]);
    let good = format!("# created: 2026-11-26\n{root}\n\n{SECRET}\n");
    let vector = |name, expect, comment, text: String| {
        let vector = Vector::new(name, "identity file", expect, comment, text.into_bytes());
        vector.with_hex("key", &key()).with("repository", repository.to_string()).with_hex("root", &[0x22; 32])
    };
    vec![
        vector("an_identity_file", "success", "a comment, a root, an empty line, the key", good.clone()),
        vector("an_identity_file_with_two_keys", "decode failure", "the same twice", format!("{good}{SECRET}\n")),
        vector(
            "an_identity_file_whose_key_is_mistyped",
            "decode failure",
            "its last letter is another one",
            good.replace("WRYDWG", "WRYDWF"),
        ),
        vector(
            "an_identity_file_that_trusts_two_roots",
            "decode failure",
            "both for the same repository",
            format!("{good}{}\n", root_line(&repository, &[0x23; 32])),
        ),
        vector("an_identity_file_without_a_key", "decode failure", "its root alone", format!("{root}\n")),
    ]
}

fn slots() -> Vec<Vector> {
    let entropy = SeededEntropy::new("recipient");
    let now: Timestamp = "2026-11-26T00:00:00Z".parse().expect("a time");
    let new = found_repository(&entropy, now, Profiles::DEFAULT, NewCredential::KeyFile);
    let public = {
        let secret: [u8; 32] = key().try_into().expect("32 bytes");
        x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(secret)).to_bytes()
    };
    let slot = |public| {
        let facts = (2, Role::Reader, "recipient".to_owned());
        add_slot(&new.keys, &SeededEntropy::new("slot"), now, facts, NewCredential::Recipient(public)).stored
    };
    let (repository, root) = (new.keys.repository, new.keys.root_public);
    let identity = |root: &[u8; 32]| format!("{}\n{SECRET}\n", root_line(&repository, root));
    let vector = |name, expect, comment, bytes, identity: String| {
        let vector = Vector::new(name, "key slot", expect, comment, bytes).with_hex("config", &new.config);
        vector.with("id-of-chunk", new.keys.chunk_id(b"chunk").to_hex()).with_hex("identity", identity.as_bytes())
    };
    let other = slot(recipient_key(STRANGER).expect("a recipient"));
    vec![
        vector(
            "a_key_slot_that_an_identity_opens",
            "success",
            "the identity is text in hexadecimal",
            slot(public),
            identity(&root),
        ),
        vector("a_key_slot_of_another_recipient", "decrypt failure", "sealed to another key", other, identity(&root)),
        vector(
            "a_key_slot_whose_recipient_trusts_another_root",
            "signature failure",
            "the identity names another root",
            slot(public),
            identity(&[0x22; 32]),
        ),
        vector(
            "a_key_slot_whose_recipient_trusts_no_root",
            "signature failure",
            "the identity names no root of this repository",
            slot(public),
            format!("{SECRET}\n"),
        ),
    ]
}
