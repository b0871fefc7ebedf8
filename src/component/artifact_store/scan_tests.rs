//! Tests of the scan.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::*;

fn scan(folder: &Path) -> Vec<Scanned> {
    SourceFolder::open(folder).unwrap().scan().unwrap().collect()
}

fn entries(folder: &Path) -> Vec<ScannedEntry> {
    let entry = |scanned| match scanned {
        Scanned::Entry(entry) => entry,
        other => panic!("{other:?}"),
    };
    scan(folder).into_iter().map(entry).collect()
}

fn file_in(folder: &Path, name: &str) -> ScannedEntry {
    entries(folder).into_iter().find(|found| found.entry.path == name.as_bytes()).unwrap()
}

#[test]
fn entries_come_in_the_order_of_trees_with_any_bytes_in_names() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "a-", "empty"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    for name in [&b"a.txt"[..], b"a/z", b"\xff\xfe"] {
        fs::write(folder.path().join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
    }
    std::os::unix::fs::symlink("/nowhere/at all", folder.path().join("dangling")).unwrap();
    let paths: Vec<_> = entries(folder.path()).into_iter().map(|found| found.entry.path).collect();
    let expected: [&[u8]; 8] = [b"", b"a", b"a/z", b"a-", b"a.txt", b"dangling", b"empty", b"\xff\xfe"];
    assert_eq!(paths, expected);
}

#[test]
fn a_missing_top_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(SourceFolder::open(&folder.path().join("gone")), Err(ScanError::Folder { .. })));
}

#[test]
fn a_symlink_to_a_folder_is_not_walked() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc", folder.path().join("a")).unwrap();
    let found = entries(folder.path());
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].entry.kind, EntryKind::Symlink { target: b"/etc".to_vec() });
}

#[test]
fn a_socket_is_skipped_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
    assert!(matches!(scan(folder.path()).pop(), Some(Scanned::Skipped { reason: "socket", .. })));
}

#[test]
fn the_next_name_becomes_the_file_when_the_first_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "x").unwrap();
    for name in ["b", "c"] {
        fs::hard_link(folder.path().join("a"), folder.path().join(name)).unwrap();
    }
    assert_eq!(file_in(folder.path(), "b").entry.kind, EntryKind::HardLink { first: b"a".to_vec() });
    let mut scan = SourceFolder::open(folder.path()).unwrap().scan().unwrap();
    let Some(Scanned::Entry(first)) = scan.nth(1) else { panic!("no file") };
    scan.forget(&first.state);
    let Some(Scanned::Entry(second)) = scan.next() else { panic!("no second file") };
    assert_eq!(second.entry.kind, EntryKind::File(()));
}

#[test]
fn an_entry_that_vanished_after_the_listing_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "x").unwrap();
    let mut scan = SourceFolder::open(folder.path()).unwrap().scan().unwrap();
    fs::remove_file(folder.path().join("a")).unwrap();
    assert!(scan.next().is_some());
    assert!(scan.next().is_none());
}

#[test]
fn a_file_changed_while_it_is_read_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "before").unwrap();
    let found = file_in(folder.path(), "a");
    let source = SourceFolder::open(folder.path()).unwrap();
    let mut file = source.open_checked(b"a", &found.state).unwrap();
    assert_eq!(file.read(&mut [0; 100]).unwrap(), 6);
    fs::write(folder.path().join("a"), "afterwards").unwrap();
    assert!(matches!(file.finish(), Err(ScanError::Changed { what: "size", .. })));
}

#[test]
fn a_file_that_was_not_read_to_its_end_does_not_finish() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "content").unwrap();
    let found = file_in(folder.path(), "a");
    let mut file = SourceFolder::open(folder.path()).unwrap().open_checked(b"a", &found.state).unwrap();
    file.read(&mut [0; 3]).unwrap();
    assert!(file.finish().is_err());
}

#[test]
fn a_link_or_fifo_swapped_in_for_a_file_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, "x").unwrap();
    let found = file_in(folder.path(), "a");
    let source = SourceFolder::open(folder.path()).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(matches!(source.open_checked(b"a", &found.state), Err(ScanError::Changed { .. })));
    fs::remove_file(&path).unwrap();
    let kind = FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, Mode::RUSR, 0).unwrap();
    assert!(matches!(source.open_checked(b"a", &found.state), Err(ScanError::Changed { what: "kind", .. })));
}

#[test]
fn a_file_that_was_recent_when_the_last_run_began_does_not_count_as_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "x").unwrap();
    let state = file_in(folder.path(), "a").state;
    let now = Timestamp::now();
    assert!(!is_unchanged(&state, &state, now));
    let later = Timestamp::try_from(SystemTime::now() + Duration::from_secs(60)).unwrap();
    assert!(is_unchanged(&state, &state, later));
    assert!(is_unchanged(&FileState { device: 99, ..state }, &state, later));
    assert!(!is_unchanged(&FileState { inode: 0, ..state }, &state, later));
    assert!(!is_unchanged(&FileState { ctime: state.mtime, size: 9, ..state }, &state, later));
}
