//! Vectors of what people can read: config, key slots, key files, and the JSON of metadata objects.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use infrahub_backup::format::config::{Config, ProfileName, Profiles, SignedText};
use infrahub_backup::format::key_slot::{KeySlot, Role, Unlock};
use infrahub_backup::format::lease::Lease;
use infrahub_backup::format::manifest::{
    ComponentRecord, ComponentStatus, Consistency, Layout, Manifest, Sizes, StreamRecord, Window,
};
use infrahub_backup::format::mark::{Decisions, Mark};
use infrahub_backup::format::report::{Outcome, Report, Step};
use infrahub_backup::format::tree::ContentRoot;
use infrahub_backup::id::{ChunkId, ObjectId, RunId, bytes_of_hex, hex_of};
use infrahub_backup::seal::change::{Renewal, add_slot, renew};
use infrahub_backup::seal::slot::{KdfCost, NewCredential, NewRepository, found_repository, open_config};
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::craft::{CONFIG, KEY_SLOT, SeededEntropy, grant, secret, signed_text};
use crate::file::Vector;

const PASSPHRASE: &str = "correct horse battery staple";

pub fn all() -> Vec<Vector> {
    [configs(), key_slots(), key_files(), manifests(), others(), marks()].concat()
}

fn moment() -> Timestamp {
    Timestamp::new(1_795_478_400, 120_000_000).expect("a moment of 2026")
}

fn founded(passphrase: bool) -> NewRepository {
    let cost = KdfCost { memory_kib: 8192, passes: 2, lanes: 2 };
    let credential = if passphrase {
        NewCredential::Passphrase(Zeroizing::new(PASSPHRASE.to_owned()), cost)
    } else {
        NewCredential::KeyFile
    };
    found_repository(&SeededEntropy::new("repository"), moment(), Profiles::DEFAULT, credential)
}

/// `change` applied to a config, signed by a root of our own.
fn own_config(change: impl FnOnce(&mut Config)) -> Vec<u8> {
    let mut config = open_config(&founded(true).config).expect("a good config");
    config.root = hex_of(&ed25519_dalek::SigningKey::from_bytes(&secret("root")).verifying_key().to_bytes());
    change(&mut config);
    signed_text(&secret("root"), config.repository.as_bytes(), CONFIG, config.body())
}

fn configs() -> Vec<Vector> {
    let good = founded(true).config;
    let vector = |name, expect, comment, bytes| Vector::new(name, "config", expect, comment, bytes);
    let newer = |config: &mut Config| config.format = 2;
    let flipped = {
        let mut bytes = good.clone();
        let at = bytes.len() - 2;
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        bytes
    };
    vec![
        vector("a_config", "success", "generation 1 of a repository", good.clone()),
        vector(
            "a_config_with_an_unknown_feature",
            "decode failure",
            "features: holograms",
            own_config(|config| config.features = vec!["holograms".to_owned()]),
        ),
        vector("a_config_of_version_2", "decode failure", "format 2", own_config(newer)),
        vector(
            "a_config_of_another_suite",
            "decode failure",
            "suite: rot13",
            own_config(|config| config.suite = "rot13".to_owned()),
        ),
        vector(
            "a_config_whose_recipes_would_be_too_deep",
            "decode failure",
            "meta chunks of 512 bytes and more",
            own_config(|config| config.profiles.meta.min = 512),
        ),
        vector(
            "a_config_with_an_odd_chunk_size",
            "decode failure",
            "dump chunks of at least 4097 bytes",
            own_config(|config| config.profiles.dump.min = 4097),
        ),
        vector(
            "a_config_that_another_root_signed",
            "signature failure",
            "the root it names did not sign it",
            own_config(|config| {
                config.root =
                    hex_of(&ed25519_dalek::SigningKey::from_bytes(&secret("other")).verifying_key().to_bytes())
            }),
        ),
        vector("a_config_with_a_flipped_signature", "signature failure", "its last digit", flipped),
        vector(
            "a_config_without_its_last_line_feed",
            "decode failure",
            "the last byte is missing",
            good[..good.len() - 1].to_vec(),
        ),
    ]
}

fn slot_of(new: &NewRepository) -> KeySlot {
    let text = SignedText::decode("key slot", &new.slot).expect("two lines");
    KeySlot::decode_body(&text.body).expect("a good slot")
}

fn own_slot(change: impl FnOnce(&mut KeySlot)) -> Vec<u8> {
    own_slot_as(KEY_SLOT, change)
}

fn own_slot_as(kind: u8, change: impl FnOnce(&mut KeySlot)) -> Vec<u8> {
    let mut slot = slot_of(&founded(true));
    change(&mut slot);
    signed_text(&secret("root"), slot.repository.as_bytes(), kind, slot.body())
}

/// Everything in the grant is a stranger's, the root as well.
fn strangers_grant(slot: &mut KeySlot) {
    let root = hex_of(&ed25519_dalek::SigningKey::from_bytes(&secret("root")).verifying_key().to_bytes());
    let key = base64::engine::general_purpose::STANDARD.encode(secret("stranger"));
    let secrets = format!(
        r#"{{"format":1,"repository":"{}","root_public":"{root}","id_key":"{key}","metadata":{{"1":"{key}"}},"signer":"{key}"}}"#,
        slot.repository
    );
    let public = bytes_of_hex(&slot.public).expect("hexadecimal");
    let (enc, sealed) = grant(&public, slot.repository.as_bytes(), slot.slot.as_bytes(), secrets.as_bytes());
    (slot.grant.enc, slot.grant.sealed) = (hex_of(&enc), hex_of(&sealed));
}

fn key_slots() -> Vec<Vector> {
    let new = founded(true);
    let id = new.keys.chunk_id(b"chunk").to_hex();
    let vector = |name, expect, comment, config: &[u8], bytes| {
        Vector::new(name, "key slot", expect, comment, bytes).with_hex("config", config).with("id-of-chunk", id.clone())
    };
    let with_passphrase = |name, expect, comment, config: &[u8], bytes| {
        vector(name, expect, comment, config, bytes).with("passphrase", PASSPHRASE)
    };
    let with_file = founded(false);
    let text = with_file.key_file.as_ref().expect("asked for").encode();
    let costly = |slot: &mut KeySlot| {
        if let Unlock::Passphrase { argon2id, .. } = &mut slot.unlock {
            argon2id.memory_kib = 1 << 31;
        }
    };
    let salted = |slot: &mut KeySlot| {
        if let Unlock::Passphrase { argon2id, .. } = &mut slot.unlock {
            argon2id.salt.truncate(30);
        }
    };
    let writer = add_slot(
        &new.keys,
        &SeededEntropy::new("writer"),
        moment(),
        (2, Role::Writer, "cron".to_owned()),
        NewCredential::KeyFile,
    );
    let writer_text = writer.key_file.as_ref().expect("asked for").encode();
    let config = open_config(&new.config).expect("a good config");
    let (removed, _) = renew(
        &new.keys,
        &SeededEntropy::new("removed"),
        moment(),
        (&config, 2),
        &[slot_of(&new)],
        (Renewal::All, Some(new.keys.slot)),
    )
    .expect("a good slot");
    let own = own_config(|_| {});
    let file_id = with_file.keys.chunk_id(b"chunk").to_hex();
    vec![
        with_passphrase(
            "a_key_slot_that_a_passphrase_opens",
            "success",
            "Argon2id of little cost",
            &new.config,
            new.slot.clone(),
        ),
        Vector::new(
            "a_key_slot_that_a_key_file_opens",
            "key slot",
            "success",
            "the key file is text in hexadecimal",
            with_file.slot.clone(),
        )
        .with_hex("config", &with_file.config)
        .with("id-of-chunk", file_id)
        .with_hex("key-file", text.as_bytes()),
        vector("a_key_slot_of_a_writer", "success", "it grants no content key", &new.config, writer.stored)
            .with_hex("key-file", writer_text.as_bytes()),
        with_passphrase(
            "a_key_slot_that_was_removed",
            "decrypt failure",
            "it opens nothing",
            &new.config,
            removed[0].clone(),
        ),
        vector(
            "a_key_slot_that_another_passphrase_does_not_open",
            "decrypt failure",
            "another passphrase",
            &new.config,
            new.slot.clone(),
        )
        .with("passphrase", "Correct horse battery staple"),
        with_passphrase(
            "a_key_slot_that_another_root_signed",
            "signature failure",
            "the root of the config did not sign it",
            &new.config,
            own_slot(|_| {}),
        ),
        with_passphrase(
            "a_key_slot_whose_owner_trusts_another_root",
            "signature failure",
            "config and slot were signed anew by another root",
            &own,
            own_slot(|_| {}),
        ),
        with_passphrase(
            "a_key_slot_whose_grant_a_stranger_made",
            "signature failure",
            "config, slot and grant are a stranger's; what the passphrase opens tells another root",
            &own,
            own_slot(strangers_grant),
        ),
        with_passphrase(
            "a_key_slot_that_was_signed_as_a_config",
            "signature failure",
            "a signature over type byte 0x80",
            &own,
            own_slot_as(CONFIG, |_| {}),
        ),
        with_passphrase(
            "a_key_slot_of_version_2",
            "decode failure",
            "format 2",
            &own,
            own_slot(|slot| slot.format = 2),
        ),
        with_passphrase(
            "a_key_slot_with_a_short_salt",
            "decode failure",
            "an Argon2id salt of 15 bytes",
            &own,
            own_slot(salted),
        ),
        with_passphrase(
            "a_key_slot_that_costs_two_terabytes",
            "limit failure",
            "Argon2id memory of 2^31 KiB",
            &own,
            own_slot(costly),
        ),
    ]
}

fn key_files() -> Vec<Vector> {
    let file = founded(false).key_file.expect("asked for");
    let text = file.encode().as_bytes().to_vec();
    let twice = [&text[..], &text].concat();
    let short = text[..text.len() - 5].to_vec();
    let vector = |name, expect, comment, bytes| {
        Vector::new(name, "key file", expect, comment, bytes).with_hex("key", &*file.key)
    };
    vec![
        vector("a_key_file", "success", "two lines of comment and the key", text),
        vector("a_key_file_with_two_keys", "decode failure", "the same twice", twice),
        vector("a_key_file_whose_key_is_short", "decode failure", "the last digits are missing", short),
    ]
}

fn manifest() -> Manifest {
    let window = Window { start: moment(), end: moment() };
    let stream = |name: &str, profile, depth, ids: &[u8]| StreamRecord {
        name: name.to_owned(),
        profile,
        length: 1 << 33,
        root: ContentRoot { depth, chunks: ids.iter().map(|id| ChunkId::from_bytes([*id; 32])).collect() },
    };
    let container = r#"{"kind":"dump-zstd","prefix":"7a7374640000000100000000000000020000000200000000","files":2,"data_bytes":8589934592}"#;
    let component = ComponentRecord {
        name: "database".to_owned(),
        kind: "neo4j".to_owned(),
        status: ComponentStatus::Complete,
        failure: None,
        consistency: Consistency::Quiesced,
        window,
        layout: Layout::Neo4jDump { container: serde_json::from_str(container).expect("JSON") },
        streams: vec![stream("content", ProfileName::Dump, 1, &[1, 2]), stream("headers", ProfileName::Meta, 0, &[3])],
        sizes: Sizes { logical_bytes: 1 << 33, chunks: 3, new_chunks: 3, ..Sizes::default() },
        version: Some("5.26.30".to_owned()),
        edition: Some("community".to_owned()),
        counts: BTreeMap::from([("nodes".to_owned(), 42)]),
        warnings: vec![],
    };
    Manifest {
        format: 1,
        deployment: "infrahub".to_owned(),
        created_at: moment(),
        finished_at: moment(),
        run: RunId::from_bytes([1; 16]),
        lease_deadline: moment(),
        previous: None,
        host: "host".to_owned(),
        tool: "0.1.0".to_owned(),
        infrahub_version: None,
        indexes: vec![ObjectId::of(b"index")],
        components: vec![component],
        tags: BTreeMap::new(),
    }
}

fn manifests() -> Vec<Vector> {
    let good = String::from_utf8(manifest().encode()).expect("JSON");
    let vector =
        |name, expect, comment, text: String| Vector::new(name, "manifest", expect, comment, text.into_bytes());
    let root = r#""depth":1"#;
    let mut twice = manifest();
    twice.components.push(twice.components[0].clone());
    let twice = String::from_utf8(twice.encode()).expect("JSON");
    vec![
        vector("a_manifest_with_two_components_of_one_name", "decode failure", "database stands twice", twice),
        vector("a_manifest_of_a_neo4j_dump", "success", "two streams, the content behind a recipe", good.clone()),
        vector(
            "a_manifest_of_version_2",
            "decode failure",
            "format 2",
            good.replacen(r#""format":1"#, r#""format":2"#, 1),
        ),
        vector(
            "a_manifest_with_an_unknown_field",
            "decode failure",
            "field moon",
            good.replacen('{', r#"{"moon":"full","#, 1),
        ),
        vector(
            "a_manifest_with_a_field_twice",
            "decode failure",
            "field deployment",
            good.replacen('{', r#"{"deployment":"another","#, 1),
        ),
        vector(
            "a_manifest_with_a_count_twice",
            "decode failure",
            "a key of a map, where any key may stand",
            good.replacen(r#""counts":{"nodes":42"#, r#""counts":{"nodes":41,"nodes":42"#, 1),
        ),
        vector(
            "a_manifest_with_a_recipe_too_deep",
            "decode failure",
            "depth 5",
            good.replacen(root, r#""depth":5"#, 1),
        ),
        vector(
            "a_manifest_with_a_recipe_of_nothing",
            "decode failure",
            "depth 1 without chunks",
            good.replacen(
                &format!(r#""depth":1,"chunks":["{}","{}"]"#, "01".repeat(32), "02".repeat(32)),
                r#""depth":1,"chunks":[]"#,
                1,
            ),
        ),
    ]
}

fn marks() -> Vec<Vector> {
    let (one, other) = (ObjectId::of(b"one"), ObjectId::of(b"other"));
    let decisions = Decisions {
        forgotten: BTreeSet::from([one]),
        condemned: BTreeSet::from([other]),
        doomed: BTreeSet::from([other]),
        pardoned: BTreeSet::from([one]),
        confirmed: BTreeSet::from([other]),
        held: BTreeSet::from([other]),
        released: BTreeSet::from([one]),
        quarantined: BTreeSet::from([other]),
        reinstated: BTreeSet::from([one]),
        tagged: BTreeMap::from([(
            other,
            BTreeMap::from([("kept".to_owned(), None), ("why".to_owned(), Some("audit".to_owned()))]),
        )]),
    };
    let mark = Mark {
        format: 1,
        number: 3,
        run: RunId::from_bytes([1; 16]),
        created_at: moment(),
        holder: "host process 4711".to_owned(),
        restated: false,
        decisions,
    };
    let empty = Mark { restated: true, decisions: Decisions::default(), ..mark.clone() };
    let good = String::from_utf8(mark.encode()).expect("JSON");
    let vector = |name: &str, expect: &str, comment: &str, body: String| {
        Vector::new(name, "mark", expect, comment, body.into_bytes())
    };
    vec![
        vector("a_mark_of_all_decisions", "success", "mark 3", good.clone()),
        vector(
            "a_mark_that_restates_nothing",
            "success",
            "only its time counts",
            String::from_utf8(empty.encode()).expect("JSON"),
        ),
        vector("a_mark_of_version_2", "decode failure", "format 2", good.replacen(r#""format":1"#, r#""format":2"#, 1)),
        vector(
            "a_mark_with_number_zero",
            "decode failure",
            "marks begin with 1",
            good.replacen(r#""number":3"#, r#""number":0"#, 1),
        ),
        vector(
            "a_mark_with_an_unknown_field",
            "decode failure",
            "field spared",
            good.replacen('{', r#"{"spared":[],"#, 1),
        ),
    ]
}

fn others() -> Vec<Vector> {
    let lease = Lease {
        format: 1,
        run: RunId::from_bytes([1; 16]),
        operation: "create".to_owned(),
        number: 2,
        created_at: moment(),
        period_seconds: 21_600,
        holder: "host 4711".to_owned(),
    };
    let step = Step {
        action: "dump".to_owned(),
        target: "database".to_owned(),
        start: moment(),
        end: moment(),
        outcome: Outcome::Done,
        command: None,
        log: vec![],
        numbers: BTreeMap::from([("bytes".to_owned(), 7)]),
        note: None,
    };
    let report = Report {
        format: 1,
        operation: "create".to_owned(),
        run: RunId::from_bytes([1; 16]),
        previous: Some(ObjectId::of(b"report")),
        deployment: Some("infrahub".to_owned()),
        snapshots: vec![],
        start: moment(),
        end: moment(),
        outcome: Outcome::Incomplete,
        host: "host".to_owned(),
        user: "user".to_owned(),
        tool: "0.1.0".to_owned(),
        plan: vec!["dump database".to_owned()],
        steps: vec![step],
        findings: vec![],
        verified: None,
        error: vec![],
    };
    vec![
        Vector::new(
            "a_lease_of_version_2",
            "lease",
            "decode failure",
            "format 2",
            Lease { format: 2, ..lease.clone() }.encode(),
        ),
        Vector::new("a_lease", "lease", "success", "the second of its run", lease.encode()),
        Vector::new(
            "a_lease_that_holds_for_too_long",
            "lease",
            "limit failure",
            "a day and a second",
            Lease { period_seconds: 86_401, ..lease }.encode(),
        ),
        Vector::new("a_report", "report", "success", "one step", report.encode()),
    ]
}
