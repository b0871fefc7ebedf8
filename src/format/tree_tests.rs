//! Tests of the tree codec.

use proptest::prelude::*;

use super::*;

fn meta() -> EntryMeta {
    EntryMeta { mode: 0o644, uid: 1, gid: 2, mtime: FileTime { seconds: -3, nanoseconds: 999_999_999 } }
}

fn entry(path: &[u8], kind: EntryKind<FileContent>) -> TreeEntry {
    Entry { path: path.to_vec(), meta: meta(), kind }
}

fn directory(path: &[u8]) -> TreeEntry {
    entry(path, EntryKind::Directory)
}

fn file(path: &[u8]) -> TreeEntry {
    let root = ContentRoot { depth: 0, chunks: vec![ChunkId::from_bytes([7; 32])] };
    entry(path, EntryKind::File(FileContent { size: 5, root }))
}

fn symlink(path: &[u8], target: &[u8]) -> TreeEntry {
    entry(path, EntryKind::Symlink { target: target.to_vec() })
}

fn hard_link(path: &[u8], first: &[u8]) -> TreeEntry {
    entry(path, EntryKind::HardLink { first: first.to_vec() })
}

/// The refusal of `entries`, which encoder and decoder must agree on.
fn refusal(entries: &[TreeEntry]) -> TreeError {
    let mut encoder = TreeEncoder::new();
    let encoded = entries.iter().try_for_each(|entry| encoder.push(entry, &mut Vec::new())).unwrap_err();
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| write_entry(entry, &mut bytes));
    let decoded = TreeDecoder::new().push(&bytes).unwrap_err();
    assert_eq!(encoded, decoded);
    decoded
}

fn refusal_below_root(entries: impl IntoIterator<Item = TreeEntry>) -> TreeError {
    let mut all = vec![directory(b"")];
    all.extend(entries);
    refusal(&all)
}

fn encode(entries: &[TreeEntry]) -> Vec<u8> {
    let (mut encoder, mut bytes) = (TreeEncoder::new(), Vec::new());
    entries.iter().for_each(|entry| encoder.push(entry, &mut bytes).unwrap());
    encoder.finish().unwrap();
    bytes
}

#[test]
fn a_file_entry_has_the_bytes_that_the_module_header_says() {
    let mut expected = vec![1];
    expected.extend_from_slice(&[0xa4, 1, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
    expected.extend_from_slice(&[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc9, 0x9a, 0x3b]);
    expected.extend_from_slice(&[3, 0, b'a', b'/', b'b', 5, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    expected.extend_from_slice(&[7; 32]);
    let mut bytes = Vec::new();
    write_entry(&file(b"a/b"), &mut bytes);
    assert_eq!(bytes, expected);
}

#[test]
fn absolute_paths_are_refused() {
    assert!(matches!(refusal_below_root([file(b"/x")]), TreeError::Entry(EntryError::PathAbsolute { .. })));
}

#[test]
fn paths_with_dots_are_refused() {
    for path in [&b"../x"[..], b"a/../x", b"./x", b".", b"..", b"a/.."] {
        assert!(matches!(refusal_below_root([file(path)]), TreeError::Entry(EntryError::PathDots { .. })));
    }
}

#[test]
fn paths_with_empty_components_are_refused() {
    for path in [&b"a//x"[..], b"a/"] {
        assert!(matches!(refusal_below_root([file(path)]), TreeError::Entry(EntryError::PathEmptyComponent { .. })));
    }
}

#[test]
fn paths_with_zero_bytes_are_refused() {
    assert!(matches!(refusal_below_root([file(b"a\0")]), TreeError::Entry(EntryError::PathNul { .. })));
}

#[test]
fn too_long_paths_are_refused_before_they_have_come() {
    let long = file(&[b'a'; TREE_PATH_SIZE_MAX + 1]);
    assert!(matches!(refusal_below_root([long.clone()]), TreeError::Entry(EntryError::PathTooLong { .. })));
    let mut bytes = Vec::new();
    write_entry(&long, &mut bytes);
    assert!(TreeDecoder::new().push(&bytes[..31]).is_err());
}

#[test]
fn mode_bits_above_07777_are_refused() {
    let mut refused = file(b"a");
    refused.meta.mode = 0o100_644;
    assert!(matches!(refusal_below_root([refused]), TreeError::Entry(EntryError::Mode { .. })));
}

#[test]
fn an_owner_that_chown_would_pass_over_is_refused() {
    let mut refused = file(b"a");
    refused.meta.gid = u32::MAX;
    assert!(matches!(refusal_below_root([refused]), TreeError::Entry(EntryError::Owner { .. })));
}

#[test]
fn a_second_of_nanoseconds_is_refused() {
    let mut refused = file(b"a");
    refused.meta.mtime.nanoseconds = 1_000_000_000;
    assert!(matches!(refusal_below_root([refused]), TreeError::Entry(EntryError::Nanoseconds { .. })));
}

#[test]
fn reserved_kinds_are_refused() {
    for kind in [0, 5, 255] {
        assert_eq!(TreeDecoder::new().push(&[kind]), Err(TreeError::ReservedKind { kind }));
    }
}

#[test]
fn symlinks_to_nothing_too_much_or_a_zero_byte_are_refused() {
    for target in [&b""[..], b"a\0", &[b'a'; TREE_PATH_SIZE_MAX + 1]] {
        let refused = refusal_below_root([symlink(b"a", target)]);
        assert!(matches!(refused, TreeError::Entry(EntryError::SymlinkTarget { .. })));
    }
}

#[test]
fn a_hard_link_to_itself_a_later_path_or_the_root_is_refused() {
    for first in [&b"b"[..], b"c", b""] {
        let refused = refusal_below_root([file(b"a"), hard_link(b"b", first)]);
        assert!(matches!(refused, TreeError::Entry(EntryError::LinkNotEarlier { .. })));
    }
}

#[test]
fn a_hard_link_that_leads_outside_is_refused() {
    let refused = refusal_below_root([file(b"a"), hard_link(b"b", b"../a")]);
    assert!(matches!(refused, TreeError::Entry(EntryError::PathDots { .. })));
}

#[test]
fn a_stream_that_does_not_begin_with_the_root_folder_is_refused() {
    assert!(matches!(refusal(&[directory(b"a")]), TreeError::Entry(EntryError::RootMissing { .. })));
    assert!(matches!(refusal(&[file(b"")]), TreeError::Entry(EntryError::RootMissing { .. })));
}

#[test]
fn a_path_that_repeats_is_refused() {
    let refused = refusal_below_root([file(b"a"), file(b"a")]);
    assert!(matches!(refused, TreeError::Entry(EntryError::Order { .. })));
    assert!(matches!(refusal_below_root([directory(b"")]), TreeError::Entry(EntryError::Order { .. })));
}

#[test]
fn an_entry_between_a_directory_and_its_subtree_is_refused() {
    let refused = refusal_below_root([directory(b"a"), file(b"a.txt"), file(b"a/b")]);
    assert!(matches!(refused, TreeError::Entry(EntryError::Order { .. })));
}

#[test]
fn an_entry_without_its_directory_is_refused() {
    let refused = refusal_below_root([directory(b"a"), file(b"b/c")]);
    assert!(matches!(refused, TreeError::Entry(EntryError::ParentMissing { .. })));
}

#[test]
fn an_entry_below_a_symlink_is_refused() {
    let refused = refusal_below_root([symlink(b"a", b"/etc"), file(b"a/passwd")]);
    assert!(matches!(refused, TreeError::Entry(EntryError::ParentNotDirectory { .. })));
}

#[test]
fn a_content_root_that_is_too_deep_is_refused() {
    let root = ContentRoot { depth: RECIPE_DEPTH_MAX + 1, chunks: vec![ChunkId::from_bytes([0; 32])] };
    let refused = refusal_below_root([entry(b"a", EntryKind::File(FileContent { size: 1, root }))]);
    assert!(matches!(refused, TreeError::ContentRoot { source: ContentRootError::Depth { .. }, .. }));
}

#[test]
fn a_content_root_with_too_many_chunks_is_refused() {
    let root = ContentRoot { depth: 1, chunks: vec![ChunkId::from_bytes([0; 32]); RECIPE_INLINE_MAX + 1] };
    let refused = refusal_below_root([entry(b"a", EntryKind::File(FileContent { size: 1, root }))]);
    assert!(matches!(refused, TreeError::ContentRoot { source: ContentRootError::Count { .. }, .. }));
}

#[test]
fn a_recipe_of_nothing_is_refused() {
    let content = FileContent { size: 0, root: ContentRoot { depth: 1, chunks: Vec::new() } };
    let refused = refusal_below_root([entry(b"a", EntryKind::File(content))]);
    assert!(matches!(refused, TreeError::ContentRoot { source: ContentRootError::EmptyRecipe { .. }, .. }));
}

#[test]
fn a_size_without_chunks_and_chunks_without_a_size_are_refused() {
    for (size, chunks) in [(1, Vec::new()), (0, vec![ChunkId::from_bytes([0; 32])])] {
        let content = FileContent { size, root: ContentRoot { depth: 0, chunks } };
        let refused = refusal_below_root([entry(b"a", EntryKind::File(content))]);
        assert!(matches!(refused, TreeError::SizeAndChunks { .. }));
    }
}

#[test]
fn a_stream_cut_anywhere_inside_an_entry_does_not_finish() {
    let root_size = encode(&[directory(b"")]).len();
    let bytes = encode(&[directory(b""), file(b"a")]);
    for end in (0..bytes.len()).filter(|end| *end != root_size) {
        let mut decoder = TreeDecoder::new();
        decoder.push(&bytes[..end]).unwrap();
        assert!(decoder.finish().is_err(), "cut at {end}");
    }
}

#[test]
fn an_empty_stream_is_not_an_empty_tree() {
    assert_eq!(TreeDecoder::new().finish(), Err(TreeError::Empty));
    assert_eq!(TreeEncoder::new().finish(), Err(TreeError::Empty));
}

#[test]
fn a_refused_stream_stays_refused() {
    let mut decoder = TreeDecoder::new();
    let mut bytes = encode(&[directory(b""), file(b"a")]);
    bytes.push(9);
    assert_eq!(decoder.push(&bytes), Err(TreeError::ReservedKind { kind: 9 }));
    assert_eq!(decoder.push(&[2]), Err(TreeError::ReservedKind { kind: 9 }));
    assert!(decoder.finish().is_err());
}

#[test]
fn a_content_root_is_depth_and_hexadecimal_chunks_in_json_and_checked_when_read() {
    let root = ContentRoot { depth: 2, chunks: vec![ChunkId::from_bytes([0xab; 32])] };
    let json = format!("{{\"depth\":2,\"chunks\":[\"{}\"]}}", "ab".repeat(32));
    assert_eq!(serde_json::to_string(&root).unwrap(), json);
    assert_eq!(serde_json::from_str::<ContentRoot>(&json).unwrap(), root);
    assert!(serde_json::from_str::<ContentRoot>(&json.replace(":2", ":5")).is_err());
}

prop_compose! {
    fn any_meta()(mode in 0..=0o7777u32, uid in 0..u32::MAX, gid in 0..u32::MAX, seconds: i64,
                  nanoseconds in 0..1_000_000_000u32) -> EntryMeta {
        EntryMeta { mode, uid, gid, mtime: FileTime { seconds, nanoseconds } }
    }
}

fn any_content() -> impl Strategy<Value = FileContent> {
    let chunks = prop::collection::vec(any::<[u8; 32]>().prop_map(ChunkId::from_bytes), 1..=RECIPE_INLINE_MAX);
    let filled = (1..=u64::MAX, 0..=RECIPE_DEPTH_MAX, chunks);
    prop_oneof![
        Just(FileContent { size: 0, root: ContentRoot { depth: 0, chunks: Vec::new() } }),
        filled.prop_map(|(size, depth, chunks)| FileContent { size, root: ContentRoot { depth, chunks } }),
    ]
}

fn any_kind() -> impl Strategy<Value = EntryKind<FileContent>> {
    prop_oneof![
        any_content().prop_map(EntryKind::File),
        Just(EntryKind::Directory),
        prop::collection::vec(1..=255u8, 1..40).prop_map(|target| EntryKind::Symlink { target }),
        Just(EntryKind::HardLink { first: b"\x01".to_vec() }),
    ]
}

/// Names over few bytes, so that prefixes and bytes on both sides of `/` meet.
fn any_tree() -> impl Strategy<Value = Vec<TreeEntry>> {
    let name = prop::collection::vec(prop::sample::select(vec![2u8, b'-', b'0', b'a', 0xff]), 1..4);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join(&b'/'));
    prop::collection::vec((path, any_meta(), any_kind()), 0..12).prop_map(|found| {
        let mut entries = std::collections::BTreeMap::new();
        for (path, meta, kind) in found {
            let mut parent = tree_entry::parent_of(&path);
            while let Some(folder) = parent {
                entries.insert(folder.to_vec(), Entry { path: folder.to_vec(), meta, kind: EntryKind::Directory });
                parent = tree_entry::parent_of(folder);
            }
            entries.entry(path.clone()).or_insert(Entry { path, meta, kind });
        }
        entries.entry(Vec::new()).or_insert_with(|| directory(b""));
        let mut entries: Vec<_> = entries.into_values().collect();
        entries.sort_by(|a, b| tree_entry::compare_paths(&a.path, &b.path));
        entries
    })
}

proptest! {
    #[test]
    fn what_was_encoded_decodes_to_the_same_entries_in_pieces_of_any_size(tree in any_tree(), piece in 1..200usize) {
        let bytes = encode(&tree);
        let mut decoder = TreeDecoder::new();
        let mut found = Vec::new();
        for piece in bytes.chunks(piece) {
            found.extend(decoder.push(piece).unwrap());
        }
        decoder.finish().unwrap();
        prop_assert_eq!(found, tree);
    }

    #[test]
    fn what_decodes_at_all_encodes_to_the_same_bytes(
        tree in any_tree(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut bytes = encode(&tree);
        for (index, byte) in flips {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let mut decoder = TreeDecoder::new();
        if let Ok(found) = decoder.push(&bytes) && decoder.finish().is_ok() {
            prop_assert_eq!(encode(&found), bytes);
        }
    }
}
