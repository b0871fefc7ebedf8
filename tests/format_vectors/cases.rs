//! Vectors of what is sealed or binary: heads, objects, packs, indexes, trees, frames, cuts.

use std::collections::{BTreeMap, BTreeSet};

use infrahub_backup::chunker::{Chunker, CutSizes};
use infrahub_backup::component::neo4j::dump_format::encode_frame;
use infrahub_backup::env::Entropy;
use infrahub_backup::format::envelope::{Head, ObjectType};
use infrahub_backup::format::index::{ChunkEntry, Index, PackEntry, PackFooter, SegmentEntry, SegmentKind};
use infrahub_backup::format::key_slot::Role;
use infrahub_backup::format::tree::{ContentRoot, FileContent, TreeEncoder, TreeEntry};
use infrahub_backup::id::{ChunkId, ObjectId, RepositoryId, SlotId};
use infrahub_backup::limits::{CHUNK_SIZE_MAX, PACK_SIZE_MAX};
use infrahub_backup::seal::compress::compress;
use infrahub_backup::seal::keys::{ContentPublic, KeyParts, Keys};
use infrahub_backup::seal::object::seal_object;
use infrahub_backup::seal::pack::{CodedSegment, PackSealer};
use infrahub_backup::tree_entry::{EntryKind, EntryMeta, FileTime};
use zeroize::Zeroizing;

use crate::craft::{self, SeededEntropy, secret};
use crate::file::Vector;

const REPOSITORY: [u8; 16] = *b"\x00repository\x01\x02\x03\x04\x05";
const BODY: &[u8] = b"the body of an object, the body of an object";

pub fn all() -> Vec<Vector> {
    [heads(), objects(), content_packs(), tree_packs(), indexes(), trees(), frames(), cuts()].concat()
}

fn keys() -> Keys {
    let key = |name: &str| Zeroizing::new(secret(name));
    let content_public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(secret("content"))).to_bytes();
    let parts = KeyParts {
        repository: RepositoryId::from_bytes(REPOSITORY),
        slot: SlotId::from_bytes([0; 16]),
        role: Role::Writer,
        id_key: key("id"),
        metadata: BTreeMap::from([(1, key("metadata"))]),
        content: BTreeMap::new(),
        content_public: ContentPublic { generation: 1, key: content_public },
        signer: key("signer"),
        certified: BTreeSet::new(),
        root_public: [0; 32],
    };
    Keys::from_parts(parts).expect("there is a metadata key")
}

/// A vector with the keys that open it.
fn keyed(name: &str, kind: &str, expect: &str, comment: &str, bytes: Vec<u8>) -> Vector {
    let signer = ed25519_dalek::SigningKey::from_bytes(&secret("signer")).verifying_key().to_bytes();
    Vector::new(name, kind, expect, comment, bytes)
        .with_hex("repository", &REPOSITORY)
        .with_hex("id-key", &secret("id"))
        .with_hex("metadata-key", &secret("metadata"))
        .with_hex("signer-public", &signer)
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

fn heads() -> Vec<Vector> {
    let good = Head { kind: ObjectType::Index, generation: 7, salt: secret("salt") }.encode();
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        bytes
    };
    let bad = |name, comment, bytes| Vector::new(name, "head", "envelope failure", comment, bytes);
    vec![
        Vector::new("a_head_of_an_index", "head", "success", "type 3, generation 7", good.to_vec()),
        bad("a_head_that_ends_early", "43 of 44 bytes", good[..43].to_vec()),
        bad("a_head_with_another_magic", "the first letter is small", changed(0, b'i')),
        bad("a_head_of_version_2", "byte 4 is 2", changed(4, 2)),
        bad("a_head_of_an_unassigned_type", "byte 5 is 9", changed(5, 9)),
        bad("a_head_with_a_reserved_bit", "byte 6 is not zero", changed(6, 1)),
    ]
}

fn objects() -> Vec<Vector> {
    let lease = ObjectType::Lease;
    let good = seal_object(&keys(), &SeededEntropy::new("object"), lease, BODY);
    let vector = |name, expect, comment, bytes| {
        keyed(name, "object", expect, comment, bytes).with("type", lease.code().to_string()).with_hex("body", BODY)
    };
    let by_hand = |plain: &[u8]| craft::object(&secret("metadata"), &REPOSITORY, lease.code(), &compress(plain, &[]));
    let signature = craft::signature(&secret("signer"), &REPOSITORY, lease.code(), BODY);
    let stranger = craft::signature(&secret("stranger"), &REPOSITORY, lease.code(), BODY);
    let elsewhere = craft::signature(&secret("signer"), &REPOSITORY, ObjectType::Report.code(), BODY);
    let frame = |bytes: &[u8]| craft::object(&secret("metadata"), &REPOSITORY, lease.code(), bytes);
    vec![
        vector("a_sealed_object", "success", "a lease by its type; the body is no lease", good.clone()),
        vector(
            "a_sealed_object_made_by_hand",
            "success",
            "from the text of the specification",
            by_hand(&[&signature, BODY].concat()),
        ),
        keyed(
            "a_sealed_object_of_another_type",
            "object",
            "envelope failure",
            "a lease where a manifest is asked for",
            good.clone(),
        )
        .with("type", ObjectType::Manifest.code().to_string())
        .with_hex("body", BODY),
        vector("a_sealed_object_that_ends_in_its_commitment", "envelope failure", "75 bytes", good[..75].to_vec()),
        vector("a_sealed_object_with_a_flipped_salt", "commitment failure", "a bit of byte 12", flipped(&good, 12)),
        vector(
            "a_sealed_object_of_another_repository",
            "commitment failure",
            "sealed for another repository id",
            craft::object(&secret("metadata"), &[7; 16], lease.code(), &compress(&[&signature, BODY].concat(), &[])),
        ),
        vector(
            "a_sealed_object_with_a_flipped_bit_of_ciphertext",
            "decrypt failure",
            "a bit of byte 80",
            flipped(&good, 80),
        ),
        vector(
            "a_sealed_object_that_ends_in_its_tag",
            "decrypt failure",
            "the last byte is missing",
            good[..good.len() - 1].to_vec(),
        ),
        vector(
            "a_sealed_object_whose_content_is_no_frame",
            "decompress failure",
            "sealed text where a zstd frame belongs",
            frame(BODY),
        ),
        vector(
            "a_sealed_object_whose_frame_does_not_tell_its_size",
            "decompress failure",
            "a zstd frame without content size",
            frame(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0x09, 0x00, 0x00, b'a']),
        ),
        vector(
            "a_sealed_object_with_a_second_frame",
            "decompress failure",
            "an empty zstd frame behind the first",
            frame(&[compress(&[&signature, BODY].concat(), &[]), compress(&[], &[])].concat()),
        ),
        vector(
            "a_sealed_object_whose_signer_is_not_certified",
            "signature failure",
            "a good signature of a stranger",
            by_hand(&[&stranger, BODY].concat()),
        ),
        vector(
            "a_sealed_object_whose_signature_is_for_another_type",
            "signature failure",
            "signed as a report, sealed as a lease",
            by_hand(&[&elsewhere, BODY].concat()),
        ),
        vector(
            "a_sealed_object_whose_body_was_not_signed",
            "signature failure",
            "one byte behind the signed body",
            by_hand(&[&signature, BODY, b"!"].concat()),
        ),
    ]
}

/// Bytes that do not compress.
fn noise(name: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SeededEntropy::new(name).fill(&mut bytes);
    bytes
}

fn chunk(keys: &Keys, plain: &[u8]) -> ChunkEntry {
    ChunkEntry { id: keys.chunk_id(plain), length: u32::try_from(plain.len()).expect("short") }
}

fn segment(offset: u32, coded: &CodedSegment, base: Vec<ChunkId>, chunks: Vec<ChunkEntry>) -> SegmentEntry {
    let depth = u8::from(!base.is_empty());
    let stored_length = u32::try_from(coded.stored_length()).expect("short");
    SegmentEntry { kind: SegmentKind::Chunks, offset, stored_length, depth, base, chunks }
}

fn content_packs() -> Vec<Vector> {
    let keys = keys();
    let entropy = SeededEntropy::new("content pack");
    let mut sealer = PackSealer::new(&keys, &entropy, ObjectType::ContentPack, 4096);
    let (text, random) = (b"a row of a table\n".repeat(20), noise("first chunk", 300));
    let mut near = random.clone();
    near[150] ^= 0xff;
    let coded = CodedSegment::encode(&[&text[..], &random].concat(), &[]);
    let offset = sealer.push(&entropy, &coded);
    let first = segment(offset, &coded, vec![], vec![chunk(&keys, &text), chunk(&keys, &random)]);
    let raw = noise("second chunk", 64);
    let coded = CodedSegment::encode(&raw, &[]);
    let offset = sealer.push(&entropy, &coded);
    let second = segment(offset, &coded, vec![], vec![chunk(&keys, &raw)]);
    let coded = CodedSegment::encode(&near, &random);
    let offset = sealer.push(&entropy, &coded);
    let third = segment(offset, &coded, vec![keys.chunk_id(&random)], vec![chunk(&keys, &near)]);
    let stored = sealer.finish();
    let vector = |name, expect, comment, bytes: Vec<u8>, segments: &[&SegmentEntry]| {
        let entry = PackEntry {
            id: ObjectId::of(&bytes),
            kind: ObjectType::ContentPack,
            stored_size: u32::try_from(bytes.len()).expect("short"),
            segments: segments.iter().map(|segment| (*segment).clone()).collect(),
        };
        let mut description = Vec::new();
        entry.encode(&mut description);
        keyed(name, "content pack", expect, comment, bytes)
            .with_hex("content-secret", &secret("content"))
            .with_hex("entry", &description)
            .with_hex("base-chunk", &random)
    };
    let stretched = |segment: &SegmentEntry, at: usize| {
        let mut segment = segment.clone();
        segment.chunks[at].length += 1;
        segment
    };
    let mut renamed = second.clone();
    renamed.chunks[0].id = ChunkId::from_bytes([0xee; 32]);
    let two_end = (second.offset + second.stored_length) as usize;
    vec![
        vector(
            "a_content_pack_with_two_segments",
            "success",
            "the first as a zstd frame, the second as it is",
            stored[..two_end].to_vec(),
            &[&first, &second],
        ),
        vector(
            "a_content_pack_whose_third_segment_has_a_base",
            "success",
            "the base is the second chunk of the first segment",
            stored.clone(),
            &[&first, &second, &third],
        ),
        vector(
            "a_content_pack_with_a_flipped_bit_of_its_encapsulated_key",
            "commitment failure",
            "a bit of byte 44",
            flipped(&stored, 44),
            &[&first],
        ),
        vector(
            "a_content_pack_with_a_flipped_bit_of_its_commitment",
            "commitment failure",
            "a bit of byte 76",
            flipped(&stored, 76),
            &[&first],
        ),
        vector(
            "a_content_pack_with_a_flipped_bit_of_a_segment",
            "decrypt failure",
            "a bit of the second segment",
            flipped(&stored, second.offset as usize + 30),
            &[&first, &second],
        ),
        vector(
            "a_content_pack_whose_segment_is_taken_for_another",
            "decrypt failure",
            "the second segment described as the first",
            stored.clone(),
            &[&second],
        ),
        vector(
            "a_content_pack_whose_segment_is_shorter_than_its_description",
            "decompress failure",
            "its last chunk is described one byte longer",
            stored.clone(),
            &[&stretched(&first, 1)],
        ),
        vector(
            "a_content_pack_whose_chunk_has_another_id",
            "chunk failure",
            "the chunk of the second segment is described as another",
            stored.clone(),
            &[&first, &renamed],
        ),
    ]
}

fn tree_packs() -> Vec<Vector> {
    let keys = keys();
    let entropy = SeededEntropy::new("tree pack");
    let mut sealer = PackSealer::new(&keys, &entropy, ObjectType::TreePack, 4096);
    let plain = noise("ids", 96).repeat(2);
    let coded = CodedSegment::encode(&plain, &[]);
    let offset = sealer.push(&entropy, &coded);
    let entry = segment(offset, &coded, vec![], vec![chunk(&keys, &plain)]);
    let good = sealer.finish_with_footer(&entropy, &PackFooter::encode(std::slice::from_ref(&entry)));
    let by_hand = |coded: &[u8]| {
        let stored_length = u32::try_from(24 + coded.len() + 16).expect("short");
        let entry = SegmentEntry { offset: 76, stored_length, ..entry.clone() };
        craft::tree_pack(&secret("metadata"), &REPOSITORY, coded, &PackFooter::encode(&[entry]))
    };
    let vector = |name, expect, comment, bytes| keyed(name, "tree pack", expect, comment, bytes);
    let beyond = SegmentEntry { stored_length: entry.stored_length + 4096, ..entry.clone() };
    let beyond = craft::tree_pack(
        &secret("metadata"),
        &REPOSITORY,
        &[&[0], &plain[..]].concat(),
        &PackFooter::encode(&[SegmentEntry { offset: 76, ..beyond }]),
    );
    let bomb = infrahub_backup::seal::compress::compress(&vec![0; 64 << 20], &[]);
    assert_eq!(bomb[6..10], (64u32 << 20).to_le_bytes(), "magic, descriptor, window, content size");
    let length = u32::try_from(plain.len()).expect("short").to_le_bytes();
    let liar = [&bomb[..6], &length, &bomb[10..]].concat();
    let far = [&good[..good.len() - 4], &u32::MAX.to_le_bytes()].concat();
    let near = [&good[..good.len() - 4], &41u32.to_le_bytes()].concat();
    vec![
        vector("a_tree_pack_with_a_footer", "success", "one segment; the footer describes it", good.clone()),
        vector(
            "a_tree_pack_made_by_hand",
            "success",
            "from the text of the specification",
            by_hand(&[&[0], &plain[..]].concat()),
        ),
        vector("a_tree_pack_with_a_flipped_salt", "commitment failure", "a bit of byte 12", flipped(&good, 12)),
        vector("a_tree_pack_whose_footer_begins_before_it", "decode failure", "the footer's length is 4294967295", far),
        vector("a_tree_pack_whose_footer_begins_elsewhere", "decrypt failure", "the footer's length is 41", near),
        vector(
            "a_tree_pack_whose_segment_has_an_unassigned_coding",
            "decompress failure",
            "coding byte 2",
            by_hand(&[&[2], &plain[..]].concat()),
        ),
        vector(
            "a_tree_pack_whose_segment_is_longer_than_its_description",
            "decompress failure",
            "one raw byte too much",
            by_hand(&[&[0], &plain[..], &[0]].concat()),
        ),
        vector(
            "a_tree_pack_whose_footer_describes_a_segment_beyond_it",
            "decode failure",
            "its only segment is said to be 4096 bytes longer than it is",
            beyond,
        ),
        vector(
            "a_tree_pack_whose_segment_would_grow_to_64_mib",
            "decompress failure",
            "a frame of zeros that says its size, far above the description",
            by_hand(&[&[1], &bomb[..]].concat()),
        ),
        vector(
            "a_tree_pack_whose_segment_holds_more_than_its_frame_says",
            "decompress failure",
            "the same frame, with the size of the description in its header",
            by_hand(&[&[1], &liar[..]].concat()),
        ),
    ]
}

fn indexes() -> Vec<Vector> {
    let segment = |offset: u32| SegmentEntry {
        kind: SegmentKind::Chunks,
        offset,
        stored_length: 100,
        depth: 1,
        base: vec![ChunkId::from_bytes([3; 32])],
        chunks: vec![ChunkEntry { id: ChunkId::from_bytes([4; 32]), length: 77 }],
    };
    let pack = |kind, name: &[u8], segments| PackEntry { id: ObjectId::of(name), kind, stored_size: 400, segments };
    let described = SegmentEntry { kind: SegmentKind::PackEntry, depth: 0, base: vec![], ..segment(76) };
    let good = Index {
        supersedes: vec![ObjectId::of(b"old")],
        packs: vec![
            pack(ObjectType::ContentPack, b"content", vec![segment(108), segment(208)]),
            pack(ObjectType::TreePack, b"tree", vec![described]),
        ],
    };
    let bytes = good.encode();
    let changed = |change: &dyn Fn(&mut SegmentEntry)| {
        let mut index = good.clone();
        change(&mut index.packs[0].segments[1]);
        index.encode()
    };
    let mut large = good.clone();
    large.packs[0].stored_size = u32::try_from(PACK_SIZE_MAX).expect("16 MiB") + 1;
    let bad = |name, expect, comment, bytes| Vector::new(name, "index", expect, comment, bytes);
    let mut kind = bytes.clone();
    kind[1 + 4 + 32 + 4 + 32] = ObjectType::Index.code();
    vec![
        bad(
            "an_index_of_two_packs",
            "success",
            "a content pack of two segments with bases, a tree pack with a pack entry",
            bytes.clone(),
        ),
        bad("an_index_with_a_byte_behind_its_end", "decode failure", "one zero byte", [&bytes[..], &[0]].concat()),
        bad(
            "an_index_that_ends_early",
            "decode failure",
            "the last byte is missing",
            bytes[..bytes.len() - 1].to_vec(),
        ),
        bad("an_index_of_version_2", "decode failure", "byte 0 is 2", [&[2], &bytes[1..]].concat()),
        bad(
            "an_index_of_more_packs_than_it_can_hold",
            "decode failure",
            "the number of packs is 4294967295",
            [&bytes[..37], &u32::MAX.to_le_bytes(), &bytes[41..]].concat(),
        ),
        bad("an_index_that_describes_an_index", "decode failure", "the type of the first pack is 3", kind),
        bad(
            "an_index_with_an_empty_chunk",
            "decode failure",
            "a chunk of 0 bytes",
            changed(&|segment| segment.chunks[0].length = 0),
        ),
        bad(
            "an_index_with_a_chunk_above_the_limit",
            "limit failure",
            "a chunk of CHUNK_SIZE_MAX + 1 bytes",
            changed(&|segment| segment.chunks[0].length = u32::try_from(CHUNK_SIZE_MAX).expect("a MiB") + 1),
        ),
        bad(
            "an_index_with_a_segment_without_chunks",
            "decode failure",
            "the second segment",
            changed(&|segment| segment.chunks.clear()),
        ),
        bad(
            "an_index_with_overlapping_segments",
            "decode failure",
            "the second begins one byte early",
            changed(&|segment| segment.offset -= 1),
        ),
        bad(
            "an_index_with_a_segment_beyond_its_pack",
            "decode failure",
            "it ends at byte 401 of 400",
            changed(&|segment| segment.offset = 301),
        ),
        bad(
            "an_index_with_a_pack_above_the_limit",
            "limit failure",
            "a pack of PACK_SIZE_MAX + 1 bytes",
            large.encode(),
        ),
        bad(
            "an_index_with_a_base_that_has_no_depth",
            "decode failure",
            "depth 0 with a base",
            changed(&|segment| segment.depth = 0),
        ),
        bad("an_index_with_a_base_too_deep", "limit failure", "depth 5", changed(&|segment| segment.depth = 5)),
    ]
}

fn entry(path: &str, kind: EntryKind<FileContent>) -> TreeEntry {
    let mtime = FileTime { seconds: -1, nanoseconds: 999_999_999 };
    TreeEntry { path: path.as_bytes().to_vec(), meta: EntryMeta { mode: 0o2755, uid: 0, gid: 1000, mtime }, kind }
}

fn trees() -> Vec<Vector> {
    let content = |size, depth, chunks: &[u8]| {
        let chunks = chunks.iter().map(|byte| ChunkId::from_bytes([*byte; 32])).collect();
        EntryKind::File(FileContent { size, root: ContentRoot { depth, chunks } })
    };
    let encoded = |entries: &[TreeEntry]| {
        let (mut encoder, mut out) = (TreeEncoder::new(), Vec::new());
        entries.iter().for_each(|entry| encoder.push(entry, &mut out).expect("a valid entry"));
        encoder.finish().expect("a valid tree");
        out
    };
    let root = entry("", EntryKind::Directory);
    let all = [
        root.clone(),
        entry("a", EntryKind::Directory),
        entry("a/empty", content(0, 0, &[])),
        entry("a.txt", content(5, 0, &[1, 2])),
        entry("large", content(1 << 40, 2, &[3])),
        entry("link", EntryKind::Symlink { target: b"../elsewhere".to_vec() }),
        entry("same", EntryKind::HardLink { first: b"large".to_vec() }),
    ];
    let file = encoded(&[root.clone(), entry("file", content(5, 0, &[1]))]);
    let replaced = |from: &[u8], to: &[u8]| {
        let at = file.windows(from.len()).rposition(|window| window == from).expect("it is there");
        [&file[..at], to, &file[at + from.len()..]].concat()
    };
    let only_root = encoded(std::slice::from_ref(&root));
    let bad = |name, expect, comment, bytes| Vector::new(name, "tree", expect, comment, bytes);
    let depth = file.len() - 32 - 3;
    let with_depth = |depth_byte: u8| [&file[..depth], &[depth_byte], &file[depth + 1..]].concat();
    let twice = [&file[..], &file[only_root.len()..]].concat();
    vec![
        bad("a_tree_of_all_kinds", "success", "directories, files, a symbolic link, a hard link", encoded(&all)),
        bad(
            "a_tree_without_its_root_folder",
            "decode failure",
            "it begins with a file",
            file[only_root.len()..].to_vec(),
        ),
        bad("a_tree_that_leaves_its_root_folder", "decode failure", "a file named a/..", replaced(b"file", b"a/..")),
        bad("a_tree_with_an_absolute_path", "decode failure", "a file named /ile", replaced(b"file", b"/ile")),
        bad("a_tree_with_the_same_path_twice", "decode failure", "the second file is the first again", twice),
        bad(
            "a_tree_with_a_path_whose_directory_is_missing",
            "decode failure",
            "f/le without f",
            replaced(b"file", b"f/le"),
        ),
        bad(
            "a_tree_that_ends_inside_of_an_entry",
            "decode failure",
            "the last byte is missing",
            file[..file.len() - 1].to_vec(),
        ),
        bad(
            "a_tree_with_an_unassigned_kind",
            "decode failure",
            "kind 5",
            [&file[..only_root.len()], &[5], &file[only_root.len() + 1..]].concat(),
        ),
        bad("a_tree_with_a_recipe_too_deep", "limit failure", "a content root of depth 5", with_depth(5)),
    ]
}

fn frames() -> Vec<Vector> {
    let mut good = Vec::new();
    encode_frame(b"header", 7, &mut good);
    encode_frame(b"", 1 << 40, &mut good);
    encode_frame(&[0; 1024], 0, &mut good);
    let vector = |name, expect, comment, bytes| Vector::new(name, "neo4j frames", expect, comment, bytes);
    vec![
        vector("neo4j_frames_around_two_files", "success", "gap length + data length of each frame", good.clone())
            .with("frames", "6+7 0+1099511627776 1024+0"),
        vector(
            "neo4j_frames_with_a_byte_behind_the_last",
            "decode failure",
            "one zero byte",
            [&good[..], &[0]].concat(),
        ),
        vector(
            "neo4j_frames_without_the_last",
            "decode failure",
            "no frame says that no data follows",
            good[..30].to_vec(),
        ),
        vector(
            "neo4j_frames_with_a_gap_above_the_limit",
            "limit failure",
            "a gap of 1048577 bytes",
            [&(1u32 << 20 | 1).to_le_bytes()[..], &[0; 16]].concat(),
        ),
    ]
}

fn cuts() -> Vec<Vector> {
    let bytes = [noise("cut", 3001), vec![0; 1500], noise("cut again", 700)].concat();
    let seed = keys().cut_seed();
    let sizes = CutSizes { min: 64, avg: 256, max: 1024, level: 1 };
    let lengths: Vec<String> =
        Chunker::new(sizes, seed).lengths(&bytes, true).iter().map(ToString::to_string).collect();
    let vector =
        keyed("a_stream_that_is_cut_where_its_content_says", "cut", "success", "profile: min avg max level", bytes)
            .with("profile", "64 256 1024 1")
            .with("cut-seed", format!("{seed:016x}"))
            .with("lengths", lengths.join(" "));
    vec![vector]
}
