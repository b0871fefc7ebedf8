//! A folder goes through scan, tree codec and restore, and a scan of the result is the same.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use infrahub_backup::component::artifact_store::restore::{Overwrite, TreeRestorer};
use infrahub_backup::component::artifact_store::scan::{Scanned, SourceFolder};
use infrahub_backup::format::tree::{ContentRoot, FileContent, TreeDecoder, TreeEncoder, TreeEntry};
use infrahub_backup::id::ChunkId;
use infrahub_backup::tree_entry::{Entry, EntryKind};

type Contents = HashMap<Vec<u8>, Vec<u8>>;

fn read_folder(folder: &Path) -> (Vec<TreeEntry>, Contents) {
    let source = SourceFolder::open(folder).unwrap();
    let mut contents = Contents::new();
    let mut tree = Vec::new();
    for scanned in source.scan().unwrap() {
        let Scanned::Entry(found) = scanned else { panic!("{scanned:?}") };
        let Entry { path, meta, kind } = found.entry;
        let kind = match kind {
            EntryKind::File(()) => {
                let mut file = source.open_checked(&path, &found.state).unwrap();
                let (mut content, mut buffer) = (Vec::new(), [0; 7]);
                while let size @ 1.. = file.read(&mut buffer).unwrap() {
                    content.extend_from_slice(&buffer[..size]);
                }
                file.finish().unwrap();
                let chunks = if content.is_empty() { Vec::new() } else { vec![ChunkId::from_bytes([1; 32])] };
                contents.insert(path.clone(), content);
                EntryKind::File(FileContent { size: found.state.size, root: ContentRoot { depth: 0, chunks } })
            }
            EntryKind::Directory => EntryKind::Directory,
            EntryKind::Symlink { target } => EntryKind::Symlink { target },
            EntryKind::HardLink { first } => EntryKind::HardLink { first },
        };
        tree.push(Entry { path, meta, kind });
    }
    (tree, contents)
}

fn fill(folder: &Path) {
    for name in ["a", "a/deep", "a/deep/empty", "a-b"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    for (name, content) in [(&b"a.txt"[..], "text"), (b"a/zero", ""), (b"a/deep/\xff\xfe", "bytes in the name")] {
        fs::write(folder.join(std::ffi::OsStr::from_bytes(name)), content).unwrap();
    }
    fs::hard_link(folder.join("a.txt"), folder.join("z")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.join("dangling")).unwrap();
    std::os::unix::fs::symlink("/etc", folder.join("a/etc")).unwrap();
    for (name, mode) in [("a.txt", 0o6751), ("a/zero", 0o400), ("a/deep", 0o2550), ("a-b", 0o1777)] {
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn restore(bytes: &[u8], contents: &Contents, mut restorer: TreeRestorer) {
    let mut decoder = TreeDecoder::new();
    for entry in decoder.push(bytes).unwrap() {
        match &entry.kind {
            EntryKind::File(content) => {
                let mut writer = restorer.begin_file(&entry, content.size).unwrap();
                writer.write(&contents[&entry.path]).unwrap();
                writer.finish().unwrap();
            }
            EntryKind::Directory | EntryKind::Symlink { .. } | EntryKind::HardLink { .. } => {
                restorer.put(&entry).unwrap();
            }
        }
    }
    decoder.finish().unwrap();
    restorer.commit().unwrap();
}

#[test]
fn a_restored_folder_scans_like_the_one_that_was_kept() {
    let parent = tempfile::tempdir().unwrap();
    let (source, beside, inside) = (parent.path().join("s"), parent.path().join("b"), parent.path().join("i"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("a"), "in the way").unwrap();
    fill(&source);
    let (tree, contents) = read_folder(&source);
    let (mut encoder, mut bytes) = (TreeEncoder::new(), Vec::new());
    tree.iter().for_each(|entry| encoder.push(entry, &mut bytes).unwrap());
    encoder.finish().unwrap();

    restore(&bytes, &contents, TreeRestorer::new(&beside, Overwrite::Refuse, 1).unwrap());
    restore(&bytes, &contents, TreeRestorer::new_inside(&inside, Overwrite::Replace, 2).unwrap());

    assert_eq!(read_folder(&beside), (tree.clone(), contents.clone()));
    assert_eq!(read_folder(&inside), (tree, contents));
}
