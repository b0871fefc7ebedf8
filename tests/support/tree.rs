//! A folder as a value: every path with all that a restore must bring back.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What is at a path: kind, mode, owner, modification time to the nanosecond, content or target, first name of a hard link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    content: String,
    same_file_as: Option<PathBuf>,
}

/// Everything below `root`, the root included.
pub fn facts(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut all = BTreeMap::new();
    let mut first_names = BTreeMap::new();
    let mut paths = vec![root.to_owned()];
    while let Some(path) = paths.pop() {
        let meta = path.symlink_metadata().expect("it is there");
        let content = if meta.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder that can be read");
            paths.extend(entries.map(|entry| entry.expect("an entry").path()));
            "folder".to_owned()
        } else if meta.is_symlink() {
            format!("link to {:?}", fs::read_link(&path).expect("a link"))
        } else {
            format!("file {}", blake3::hash(&fs::read(&path).expect("a file")))
        };
        let name = path.strip_prefix(root).expect("it lies below").to_owned();
        if meta.is_file() && meta.nlink() > 1 {
            let names: &mut Vec<PathBuf> = first_names.entry(meta.ino()).or_default();
            names.push(name.clone());
        }
        let (owner, modified) = ((meta.uid(), meta.gid()), (meta.mtime(), meta.mtime_nsec()));
        all.insert(name, Facts { mode: meta.mode(), owner, modified, content, same_file_as: None });
    }
    for names in first_names.values() {
        let first = names.iter().min().expect("a file has a name");
        for name in names {
            all.get_mut(name).expect("seen above").same_file_as = Some(first.clone());
        }
    }
    all
}

/// The two folders are the same; says which paths differ.
#[track_caller]
pub fn assert_same(left: &BTreeMap<PathBuf, Facts>, right: &BTreeMap<PathBuf, Facts>) {
    let differ: Vec<_> = left
        .keys()
        .chain(right.keys().filter(|path| !left.contains_key(*path)))
        .filter(|path| left.get(*path) != right.get(*path))
        .map(|path| format!("{path:?}:\n  {:?}\n  {:?}", left.get(path), right.get(path)))
        .collect();
    assert!(differ.is_empty(), "{} of {} paths differ\n{}", differ.len(), left.len(), differ.join("\n"));
}

/// Fills `root` with what artifact folders should not hold and do: names that are no text, links, odd modes and times; and
/// with `many` files, at least ten, that are as they should be.
pub fn write_odd(root: &Path, many: u32) {
    let file = |name: &[u8], content: &[u8]| {
        let path = root.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder");
        fs::write(&path, content).expect("a file");
        path
    };
    file(b"objects/plain.json", br#"{"kind": "artifact"}"#);
    file(b"objects/empty", b"");
    file(b"objects/\xff\xfe not text \x80", b"a name that is no text");
    file(b"objects/new\nline\ttab", b"blanks of all kinds");
    file(b"objects/-rf", b"looks like a flag");
    file("objects/Größe \u{1f600}".as_bytes(), "beyond ASCII".as_bytes());
    file(b"objects/large", &super::noise("large", 3_000_000));
    file(b"objects/zeros", &vec![0; 700_000]);
    for number in 0..many {
        file(format!("many/{number}").as_bytes(), format!("artifact {number}").as_bytes());
    }
    let deep: Vec<u8> = [b'd', b'/'].repeat(30);
    file(&[&deep[..], b"end"].concat(), b"deep");
    fs::create_dir_all(root.join("empty/also empty")).expect("folders");

    symlink("plain.json", root.join("objects/link")).expect("a link");
    symlink("/does/not/exist", root.join("objects/dangling")).expect("a link");
    symlink(OsStr::from_bytes(b"../\xff"), root.join("objects/link to no text")).expect("a link");
    fs::hard_link(root.join("objects/large"), root.join("many/the same file")).expect("a hard link");

    for (name, mode) in
        [("objects/plain.json", 0o600), ("objects/empty", 0o400), ("many/1", 0o4755), ("many/2", 0o2711)]
    {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    if rustix::process::geteuid().is_root() {
        // Setting the owner takes the set-id bits away: other files.
        std::os::unix::fs::chown(root.join("many/3"), Some(12345), Some(54321)).expect("an owner");
        std::os::unix::fs::lchown(root.join("objects/link"), Some(1), Some(1)).expect("an owner");
    }
    let long_ago = |nanoseconds| SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, nanoseconds);
    for (name, time) in [
        ("many/4", long_ago(1)),
        ("many/5", long_ago(999_999_999)),
        ("many/6", SystemTime::UNIX_EPOCH - Duration::new(86_400, 500)),
        ("empty", long_ago(123_456_789)),
    ] {
        let file = fs::File::open(root.join(name)).expect("it is there");
        file.set_modified(time).expect("a time");
    }
    fs::set_permissions(root.join("empty/also empty"), fs::Permissions::from_mode(0o1555)).expect("a mode");
}
