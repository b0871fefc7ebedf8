//! Every decoder of bytes that come from elsewhere, as one function each: for tests (`tests/decoders.rs`) and for libFuzzer
//! (`fuzz/`). Each panics where an oracle does not hold: what was accepted must say the same again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use infrahub_backup::archive::keys::{PrivateKey, PublicKey};
use infrahub_backup::archive::{ArchiveReader, ArchiveWriter, Event, Information, Member, Sealer};
use infrahub_backup::component::neo4j::dump_format::{FrameDecoder, UnwrapSink, Unwrapper, encode_frame};
use infrahub_backup::component::postgres::dump_format::CustomFormatCheck;
use infrahub_backup::env::Entropy;
use infrahub_backup::format::config::{self, ProfileName, Profiles};
use infrahub_backup::format::envelope::{Head, ObjectType};
use infrahub_backup::format::identity::{Identity, recipient};
use infrahub_backup::format::index::{Index, PackFooter};
use infrahub_backup::format::key_file::KeyFile;
use infrahub_backup::format::key_slot::{KeySlot, Role};
use infrahub_backup::format::lease::Lease;
use infrahub_backup::format::manifest::Manifest;
use infrahub_backup::format::mark::Mark;
use infrahub_backup::format::report::Report;
use infrahub_backup::format::tree::{TreeDecoder, TreeEncoder};
use infrahub_backup::id::{ObjectId, RepositoryId, SlotId, bytes_of_hex};
use infrahub_backup::provider::config::BespokeConfig;
use infrahub_backup::seal::compress::decompress;
use infrahub_backup::seal::keys::{ContentPublic, KeyParts, Keys};
use infrahub_backup::seal::object::unseal_object;
use infrahub_backup::seal::pack::PackOpener;
use infrahub_backup::seal::slot::{open_config, slot_repository};

/// What a decoder of this program may take of memory: this much at least, in bytes.
const LEAST: usize = 256 << 10;

/// What reading an archive may take: the largest metadata, parsed, two pieces, and the window of its compression.
const ARCHIVE_LEAST: usize = 3 << 20;

/// What a frame may grow to in these runs, in bytes. Real limits are the caller's.
const FRAME_SIZE_MAX: usize = 1 << 20;

/// One decoder.
pub struct Decoder {
    /// Its name, also that of its fuzz target.
    pub name: &'static str,
    /// Decodes, and checks what was accepted.
    pub run: fn(&[u8]),
    /// Bytes of memory that it may take for each byte of input, beside `least`.
    pub factor: usize,
    /// Bytes of memory that it may take for any input.
    pub least: usize,
    /// Kinds of vectors that are seeds for it.
    pub vectors: &'static [&'static str],
    /// Files of this package that are seeds for it.
    pub files: &'static [&'static str],
}

const fn decoder(name: &'static str, run: fn(&[u8]), factor: usize, vectors: &'static [&'static str]) -> Decoder {
    Decoder { name, run, factor, least: LEAST, vectors, files: &[] }
}

/// All of them.
pub const ALL: [Decoder; 25] = [
    decoder("head", head, 2, &["head", "object", "tree pack", "content pack"]),
    decoder("sealed_object", sealed_object, 8, &["object"]),
    decoder("pack", pack, 8, &["content pack", "tree pack"]),
    Decoder { least: LEAST + FRAME_SIZE_MAX, ..decoder("frame", frame, 8, &["object"]) },
    decoder("pack_footer", pack_footer, 8, &["index"]),
    decoder("index", index, 8, &["index"]),
    decoder("tree", tree, 32, &["tree"]),
    decoder("manifest", |bytes| same_again(bytes, Manifest::decode, Manifest::encode), 32, &["manifest"]),
    decoder("report", |bytes| same_again(bytes, Report::decode, Report::encode), 32, &["report"]),
    decoder("mark", |bytes| same_again(bytes, Mark::decode, Mark::encode), 32, &["mark"]),
    decoder("lease", |bytes| same_again(bytes, Lease::decode, Lease::encode), 32, &["lease"]),
    decoder("config", config, 32, &["config"]),
    decoder("key_slot", key_slot, 32, &["key slot"]),
    decoder("key_file", key_file, 32, &["key file"]),
    decoder("identity", identity, 32, &["identity file"]),
    decoder("neo4j_frames", neo4j_frames, 64, &["neo4j frames"]),
    Decoder {
        files: &["tests/fixtures/neo4j-community-5.26.30.dump"],
        least: 1 << 20,
        ..decoder("neo4j_dump", neo4j_dump, 8, &[])
    },
    Decoder { least: 1 << 20, ..decoder("neo4j_tar", neo4j_tar, 8, &[]) },
    Decoder {
        files: &["tests/fixtures/postgres-15-empty-database.pgdump", "tests/fixtures/postgres-15-gzip.pgdump"],
        least: 1 << 20,
        ..decoder("postgres_custom", postgres_custom, 64, &[])
    },
    Decoder { files: &["tests/decoders/bespoke.toml"], ..decoder("bespoke_config", bespoke_config, 256, &[]) },
    Decoder { least: ARCHIVE_LEAST, ..decoder("archive", |bytes| archive(bytes, None), 8, &[]) },
    Decoder { least: ARCHIVE_LEAST, ..decoder("archive_tar", |bytes| archive(&stored(bytes), None), 8, &[]) },
    Decoder { least: ARCHIVE_LEAST, ..decoder("archive_encrypted", |bytes| archive(bytes, Some(pair())), 8, &[]) },
    decoder("archive_information", |bytes| same_again(bytes, Information::decode, Information::encode), 32, &[]),
    decoder("archive_key", archive_key, 8, &[]),
];

impl Decoder {
    /// What to begin with: bytes of vectors, files, and what was once found, all of them committed.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = if root.ends_with("fuzz") { root.parent().expect("fuzz lies in the package") } else { root };
        let mut seeds = vec![vec![]];
        seeds.extend(self.files.iter().map(|name| fs::read(root.join(name)).expect("a file of the package")));
        for path in listed(&root.join("format-spec/vectors")) {
            let text = fs::read_to_string(&path).expect("text");
            let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
            let kind = head.lines().find_map(|line| line.strip_prefix("kind: ")).unwrap_or("");
            if self.vectors.contains(&kind) {
                seeds.push(bytes_of_hex(&body.lines().collect::<String>()).expect("hexadecimal"));
            }
        }
        seeds.extend(listed(&root.join("fuzz/found").join(self.name)).iter().map(|path| fs::read(path).expect("read")));
        seeds.extend(archive_seeds(self.name));
        if self.name == "neo4j_tar" {
            seeds.push(tar_of(&fs::read(root.join("tests/fixtures/neo4j-community-5.26.30.dump")).expect("a dump")));
        }
        seeds
    }
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// What is accepted reads back from its own encoding as the same.
fn same_again<T: PartialEq + Debug, E: Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    if let Ok(value) = decode(bytes) {
        assert_eq!(decode(&encode(&value)).expect("what was accepted is accepted again"), value);
    }
}

/// What has one encoding is accepted in no other one.
fn same_bytes<T, E>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, E>, encode: impl Fn(&T) -> Vec<u8>) {
    if let Ok(value) = decode(bytes) {
        assert!(encode(&value) == bytes, "two encodings of one value");
    }
}

/// Keys that open nothing but by chance: the way up to authentication is what is tried.
fn keys() -> Keys {
    let parts = KeyParts {
        repository: RepositoryId::from_bytes([1; 16]),
        slot: SlotId::from_bytes([0; 16]),
        role: Role::Auditor,
        id_key: [1; 32].into(),
        metadata: BTreeMap::from([(1, [2; 32].into())]),
        content: BTreeMap::from([(1, [3; 32].into())]),
        content_public: ContentPublic { generation: 1, key: [9; 32] },
        signer: [4; 32].into(),
        certified: BTreeSet::new(),
        root_public: [0; 32],
    };
    Keys::from_parts(parts).expect("there is a metadata key")
}

fn head(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(44)];
    same_bytes(bytes, Head::decode, |head| head.encode().to_vec());
}

fn sealed_object(bytes: &[u8]) {
    for kind in [ObjectType::Index, ObjectType::Manifest, ObjectType::Mark, ObjectType::Report] {
        assert!(unseal_object(&keys(), kind, bytes).is_err(), "opened without its key");
    }
}

fn pack(bytes: &[u8]) {
    for kind in [ObjectType::ContentPack, ObjectType::TreePack] {
        assert!(PackOpener::new(&keys(), kind, bytes).is_err(), "opened without its key");
    }
}

fn frame(bytes: &[u8]) {
    for base in [&[][..], &[7; 100]] {
        if let Ok(plain) = decompress(bytes, base, FRAME_SIZE_MAX as u64) {
            assert!(plain.len() <= FRAME_SIZE_MAX, "{} bytes", plain.len());
        }
    }
}

fn pack_footer(bytes: &[u8]) {
    same_bytes(bytes, PackFooter::decode, |footer| PackFooter::encode(&footer.segments));
    if let Ok(entry) = PackFooter::decode(bytes).and_then(|footer| footer.describe(ObjectId::of(bytes), 1 << 20)) {
        assert!(entry.segments.iter().all(|segment| segment.offset + segment.stored_length <= 1 << 20));
    }
}

fn index(bytes: &[u8]) {
    same_bytes(bytes, Index::decode, Index::encode);
}

fn tree(bytes: &[u8]) {
    let whole = || {
        let (mut decoder, mut encoder, mut out) = (TreeDecoder::new(), TreeEncoder::new(), Vec::new());
        for piece in bytes.chunks(97) {
            for entry in decoder.push(piece).ok()? {
                encoder.push(&entry, &mut out).expect("what was decoded can be encoded");
            }
        }
        decoder.finish().ok()?;
        encoder.finish().expect("what was decoded is whole");
        Some(out)
    };
    if let Some(again) = whole() {
        assert!(again == bytes, "two encodings of one tree");
    }
}

fn config(bytes: &[u8]) {
    let _ = open_config(bytes);
    let body = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    same_again(body, config::decode_body, config::Config::body);
    let _ = Profiles::DEFAULT.get(ProfileName::Dump);
}

fn key_slot(bytes: &[u8]) {
    let _ = slot_repository(bytes);
    let body = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    same_again(body, KeySlot::decode_body, KeySlot::body);
}

fn key_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(file) = KeyFile::decode(text) {
        let Ok(again) = KeyFile::decode(&file.encode()) else { panic!("it is not accepted again") };
        assert!((again.repository, again.slot, *again.key) == (file.repository, file.slot, *file.key));
    }
}

fn identity(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(identity) = Identity::decode(text) {
        assert_ne!(identity.secret.len(), 0);
    }
    let _ = recipient(text);
}

fn neo4j_frames(bytes: &[u8]) {
    let (mut decoder, mut frames) = (FrameDecoder::new(), Vec::new());
    let pushed = bytes.chunks(13).try_for_each(|piece| decoder.push(piece, &mut frames));
    if pushed.is_ok() && decoder.finish().is_ok() {
        let mut again = Vec::new();
        frames.iter().for_each(|frame| encode_frame(&frame.gap, frame.data_length, &mut again));
        assert!(again == bytes, "two encodings of the same frames");
    }
}

/// Counts what comes out and keeps nothing.
#[derive(Default)]
struct Counted {
    data: u64,
    promised: u64,
}

impl UnwrapSink for Counted {
    fn data(&mut self, bytes: &[u8]) {
        self.data += bytes.len() as u64;
    }
    fn cut(&mut self) {}
    fn frame(&mut self, _gap: &[u8], data_length: u64) {
        self.promised += data_length;
    }
}

fn unwrap(bytes: &[u8]) {
    let (mut unwrapper, mut out) = (Unwrapper::new(), Counted::default());
    let pushed = bytes.chunks(4096).try_for_each(|piece| unwrapper.push(piece, &mut out));
    if pushed.is_ok()
        && let Ok(info) = unwrapper.finish(&mut out)
    {
        assert_eq!((out.data, out.promised), (info.data_bytes, info.data_bytes));
    }
}

fn neo4j_dump(bytes: &[u8]) {
    unwrap(bytes);
}

/// The tar inside, without a compression that hides it from mutations.
fn neo4j_tar(bytes: &[u8]) {
    unwrap(&[&b"BTV1"[..], bytes].concat());
}

fn postgres_custom(bytes: &[u8]) {
    let (mut check, mut last) = (CustomFormatCheck::new(), 0);
    let mut cut = |at: u64| {
        assert!(at >= last, "cuts go backwards");
        last = at;
    };
    let pushed = bytes.chunks(1000).try_for_each(|piece| check.push(piece, &mut cut));
    if pushed.is_ok() {
        let _ = check.finish();
    }
}

fn bespoke_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(config) = BespokeConfig::parse(text, Path::new("fuzzed.toml")) {
        assert!(!format!("{config:?}").is_empty());
    }
}

/// Prefix and tar of a dump that zstd compressed.
fn tar_of(dump: &[u8]) -> Vec<u8> {
    zstd::decode_all(dump.strip_prefix(b"DZV1").expect("compressed by zstd")).expect("a frame")
}

/// Reads an archive as it comes. What is accepted has metadata, and all that they name.
fn archive(bytes: &[u8], key: Option<PrivateKey>) {
    let mut reader = ArchiveReader::new(key);
    let (mut information, mut ended, mut length, mut promised) = (None, 0, 0, 0);
    let mut pieces = bytes.chunks(997);
    loop {
        match reader.event() {
            Ok(Some(Event::Information(found))) => information = Some(found),
            Ok(Some(Event::Begin(member))) => promised += member.size,
            Ok(Some(Event::Data(data))) => length += data.len() as u64,
            Ok(Some(Event::End)) => ended += 1,
            Ok(None) => match pieces.next() {
                Some(piece) => reader.feed(piece.to_vec().into()),
                None => break,
            },
            Err(_) => return,
        }
    }
    if reader.finish().is_ok() {
        let information = information.expect("what is accepted has metadata");
        assert_eq!((ended, length), (information.checksums.len(), promised));
    }
}

fn archive_key(bytes: &[u8]) {
    if let Ok(private) = PrivateKey::decode(bytes) {
        let again = PrivateKey::decode(private.encode().as_bytes()).expect("it is accepted again");
        assert_eq!(again.public(), private.public());
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(public) = PublicKey::decode(text) {
        assert_eq!(public.encode(), text.trim());
    }
}

/// Sevens, so that keys are the same in every run.
struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

fn pair() -> PrivateKey {
    PrivateKey::generate(&Sevens)
}

/// A gzip file whose content stands in it as it is, so that mutations reach it.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = bytes.chunks(0xffff).peekable();
    if bytes.is_empty() {
        out.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).expect("a short block");
        out.push(u8::from(blocks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    let crc = bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)));
    out.extend_from_slice(&(!crc).to_le_bytes());
    out.extend_from_slice(&u32::try_from(bytes.len()).expect("short").to_le_bytes());
    out
}

/// What of an archive is a seed for the decoder of this name.
fn archive_seeds(name: &str) -> Vec<Vec<u8>> {
    const DUMPS: [(&str, &[u8], &str); 2] = [
        ("database/neo4j.dump", b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("prefect.dump", b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ];
    let text = format!(
        r#"{{"metadata_version":2025111200,"backup_id":"b","created_at":"2026-11-22T15:12:26Z","checksums":{{"{}":"{}","{}":"{}"}}}}"#,
        DUMPS[0].0, DUMPS[0].2, DUMPS[1].0, DUMPS[1].2
    );
    let information = Information::decode(text.as_bytes()).expect("metadata");
    let members = DUMPS.map(|(name, data, _)| Member { name: name.to_owned(), size: data.len() as u64 });
    let mut writer = ArchiveWriter::new(information, members.to_vec()).expect("a writer");
    let mut plain = Vec::new();
    DUMPS.iter().for_each(|(name, data, _)| writer.data(name, data, &mut plain).expect("as promised"));
    writer.finish(&mut plain).expect("whole");
    match name {
        "archive" => vec![plain],
        "archive_tar" => {
            let (mut tar, mut gzip) = (Vec::new(), flate2::read::GzDecoder::new(&plain[..]));
            std::io::Read::read_to_end(&mut gzip, &mut tar).expect("a gzip file");
            vec![tar]
        }
        "archive_encrypted" => {
            let (mut sealer, mut sealed) = (Sealer::new(&pair().public(), &Sevens).expect("a key"), Vec::new());
            sealer.push(&plain, &Sevens, &mut sealed);
            let head = sealer.finish(&Sevens, &mut sealed);
            vec![[&head[..], &sealed].concat()]
        }
        "archive_information" => vec![text.into_bytes()],
        "archive_key" => vec![pair().encode().as_bytes().to_vec(), pair().public().encode().into_bytes()],
        _ => vec![],
    }
}
