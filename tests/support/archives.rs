//! Archives of the predecessor, made as its description says (docs/reference/archives.md), and wrongly where a test wants that.
//!
//! Shares nothing with `src/archive` but the crates below: headers, metadata and encryption are written here once more.

use std::collections::BTreeMap;
use std::io::Write as _;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::{aead, hkdf, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A Neo4j dump of Community.
pub const DATABASE: &[u8] = include_bytes!("../../src/demo/database-day1.dump");
/// A PostgreSQL dump.
pub const TASK_MANAGER: &[u8] = include_bytes!("../../src/demo/task-manager-db-day1.dump");

/// A full backup of Enterprise, not compressed, around the tar of [`DATABASE`]: metadata as Neo4j's sources write them.
pub fn enterprise() -> Vec<u8> {
    let text = |text: &[u8]| [&[u8::try_from(text.len()).expect("short")], text].concat();
    let contents = zstd::decode_all(DATABASE.strip_prefix(b"DZV1").expect("a dump")).expect("a frame");
    // Behind `zstd`, a number and two counts.
    let tar = &contents[4 + 4 + 8 + 8..];
    let store = [vec![1], vec![7; 16], text(b"record"), text(b"aligned"), vec![1, 1]].concat();
    let metadata = [store, text(&[1; 16]), text(b"neo4j"), vec![0; 24], text(&[0b101])].concat();
    [b"BTV1", &metadata[..], tar].concat()
}

/// One member of a tar.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub kind: u8,
    pub data: Vec<u8>,
    pub link: String,
    /// What the header says instead of the data's length.
    pub size: Option<u64>,
    /// Pax records in front of it.
    pub pax: String,
}

impl Entry {
    pub fn file(name: &str, data: impl Into<Vec<u8>>) -> Self {
        let (name, data) = (name.to_owned(), data.into());
        Self { name, kind: b'0', data, link: String::new(), size: None, pax: String::new() }
    }

    pub fn folder(name: &str) -> Self {
        Self { kind: b'5', ..Self::file(name, []) }
    }

    pub fn link(name: &str, kind: u8, to: &str) -> Self {
        Self { kind, link: to.to_owned(), ..Self::file(name, []) }
    }
}

/// An archive before it is packed.
#[derive(Clone)]
pub struct Archive {
    pub version: u64,
    pub components: Vec<&'static str>,
    pub created_at: &'static str,
    pub edition: Option<&'static str>,
    /// More keys of the metadata, each with a comma in front of it.
    pub more: String,
    /// What the metadata list; by default what `files` hash to.
    pub checksums: BTreeMap<String, String>,
    pub files: Vec<(String, Vec<u8>)>,
}

impl Archive {
    /// One as v1.7.4 wrote it.
    pub fn community() -> Self {
        let mut archive = Self {
            version: 2_025_111_200,
            components: vec!["database", "task-manager-db"],
            created_at: "2025-12-24T18:00:05Z",
            edition: Some("community"),
            more: String::new(),
            checksums: BTreeMap::new(),
            files: vec![],
        };
        archive.add("database/neo4j.dump", DATABASE);
        archive.add("prefect.dump", TASK_MANAGER);
        archive
    }

    /// Adds a file and its checksum.
    pub fn add(&mut self, name: &str, data: &[u8]) {
        self.checksums.insert(name.to_owned(), sha256(data));
        self.files.push((name.to_owned(), data.to_vec()));
    }

    /// Takes a file and its checksum away.
    pub fn remove(&mut self, name: &str) {
        self.checksums.remove(name);
        self.files.retain(|(known, _)| known != name);
    }

    pub fn information(&self) -> String {
        let list = |items: Vec<String>| items.join(",\n        ");
        let components = list(self.components.iter().map(|name| format!("\"{name}\"")).collect());
        let checksums = list(self.checksums.iter().map(|(name, sum)| format!("\"{name}\": \"{sum}\"")).collect());
        let edition = self.edition.map_or(String::new(), |edition| format!(",\n    \"neo4j_edition\": \"{edition}\""));
        format!(
            "{{\n    \"metadata_version\": {},\n    \"backup_id\": \"infrahub_backup_20251224_190005\",\n    \
             \"created_at\": \"{}\",\n    \"tool_version\": \"1.7.4\",\n    \"infrahub_version\": \"1.6.2\",\n    \
             \"components\": [\n        {components}\n    ],\n    \"checksums\": {{\n        {checksums}\n    }}{edition}{}\n}}",
            self.version, self.created_at, self.more
        )
    }

    /// The members, in the order of their names.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = vec![
            Entry::folder("backup"),
            Entry::file("backup/backup_information.json", self.information()),
            Entry::folder("backup/database"),
        ];
        entries.extend(self.files.iter().map(|(name, data)| Entry::file(&format!("backup/{name}"), data.clone())));
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        entries
    }

    /// The whole file.
    pub fn pack(&self) -> Vec<u8> {
        gzip(&tar(&self.entries()))
    }
}

pub fn sha256(data: &[u8]) -> String {
    digest(&SHA256, data).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tar of these, with its two zero blocks.
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        if !entry.pax.is_empty() {
            let pax = Entry { kind: b'x', ..Entry::file("backup/PaxHeaders.0/x", entry.pax.as_bytes()) };
            block(&pax, &mut out);
        }
        block(entry, &mut out);
    }
    out.extend_from_slice(&[0; 1024]);
    out
}

fn block(entry: &Entry, out: &mut Vec<u8>) {
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    let size = entry.size.unwrap_or(entry.data.len() as u64);
    put(0, &entry.name);
    put(100, "0000644\u{0}0000000\u{0}0000000\u{0}");
    put(124, &format!("{:011o}\u{0}15116200005\u{0}        ", size & 0o77_777_777_777));
    put(156, std::str::from_utf8(&[entry.kind]).expect("ASCII"));
    put(157, &entry.link);
    put(257, "ustar\u{0}00root");
    put(297, "root");
    put(329, "0000000\u{0}0000000\u{0}");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\u{0} ").as_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(&entry.data);
    out.resize(out.len().next_multiple_of(512), 0);
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new().operating_system(255).write(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).expect("memory");
    encoder.finish().expect("memory")
}

/// A pair of keys: private as PEM, public as base64.
pub fn keys() -> (String, String) {
    let private = PrivateKey::generate(&ECDH_P256).expect("a key");
    let der: Pkcs8V1Der = private.as_der().expect("a form");
    let body = STANDARD.encode(der.as_ref());
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    (pem, STANDARD.encode(private.compute_public_key().expect("a half").as_ref()))
}

struct Length;

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        32
    }
}

/// Encrypts as v1.5.0 and later did.
pub fn encrypt(plain: &[u8], public: &str) -> Vec<u8> {
    let public = UnparsedPublicKey::new(&ECDH_P256, STANDARD.decode(public).expect("base64"));
    let ephemeral = PrivateKey::generate(&ECDH_P256).expect("a key");
    let key = agree(&ephemeral, public, (), |shared| {
        let mut key = [0; 32];
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &[0; 32]).extract(shared);
        extracted.expand(&[b"opsmill-upload-ecies"], Length).expect("short").fill(&mut key).expect("as long");
        Ok(key)
    });
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, &key.expect("agreed")).expect("as long");
    let key = aead::LessSafeKey::new(key);
    let chunk_size = 4 << 20;
    let chunks = plain.len().div_ceil(chunk_size);
    let mut out = vec![2];
    out.extend_from_slice(ephemeral.compute_public_key().expect("a half").as_ref());
    out.extend_from_slice(&u32::try_from(chunk_size).expect("4 MiB").to_be_bytes());
    out.extend_from_slice(&(plain.len() as u64).to_be_bytes());
    out.extend_from_slice(&(chunks as u64).to_be_bytes());
    for chunk in plain.chunks(chunk_size) {
        let mut nonce = [0; 12];
        rand::fill(&mut nonce).expect("random");
        let mut sealed = chunk.to_vec();
        let unique = aead::Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(unique, aead::Aad::empty(), &mut sealed).expect("sealed");
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&u32::try_from(sealed.len()).expect("short").to_be_bytes());
        out.extend_from_slice(&sealed);
    }
    out
}
