//! Tests of the restore.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::tree_entry::FileTime;

const TAG: u32 = 0xab;

fn entry(path: &str, kind: EntryKind<()>) -> Entry<()> {
    let mtime = FileTime { seconds: 1_000_000_000, nanoseconds: 123_456_789 };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Entry { path: path.as_bytes().to_vec(), meta: EntryMeta { mode: 0o700, uid, gid, mtime }, kind }
}

fn directory(path: &str) -> Entry<()> {
    entry(path, EntryKind::Directory)
}

fn symlink(path: &str, target: &str) -> Entry<()> {
    entry(path, EntryKind::Symlink { target: target.as_bytes().to_vec() })
}

fn put_file(restorer: &mut TreeRestorer, file: &Entry<()>, content: &[u8]) -> Result<(), RestoreError> {
    let mut writer = restorer.begin_file(file, u64::try_from(content.len()).unwrap())?;
    writer.write(content)?;
    writer.finish()
}

/// A target with an old file, and a restorer for it that has the root folder.
fn begun(inside: bool) -> (tempfile::TempDir, PathBuf, TreeRestorer) {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("old"), "old").unwrap();
    let new = if inside { TreeRestorer::new_inside } else { TreeRestorer::new };
    let mut restorer = new(&target, Overwrite::Replace, TAG).unwrap();
    restorer.put(&directory("")).unwrap();
    (parent, target, restorer)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn commit_replaces_the_old_content_and_leaves_nothing_beside() {
    for inside in [false, true] {
        let (parent, target, mut restorer) = begun(inside);
        restorer.put(&directory("d")).unwrap();
        put_file(&mut restorer, &entry("d/f", EntryKind::File(())), b"new").unwrap();
        let summary = restorer.commit().unwrap();
        assert_eq!((summary.files, summary.directories, summary.bytes, summary.old_kept), (1, 2, 3, None));
        assert_eq!((names(&target), names(parent.path())), (vec!["d".to_owned()], vec!["target".to_owned()]));
        assert_eq!(fs::read(target.join("d/f")).unwrap(), b"new");
        for path in [target.clone(), target.join("d"), target.join("d/f")] {
            assert_eq!(fs::metadata(path).unwrap().mtime_nsec(), 123_456_789);
        }
    }
}

#[test]
fn abort_leaves_the_target_untouched() {
    for inside in [false, true] {
        let (parent, target, mut restorer) = begun(inside);
        restorer.put(&directory("d")).unwrap();
        restorer.abort().unwrap();
        assert_eq!((names(&target), names(parent.path())), (vec!["old".to_owned()], vec!["target".to_owned()]));
    }
}

#[test]
fn a_missing_target_is_created() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("target");
    let mut restorer = TreeRestorer::new(&target, Overwrite::Refuse, TAG).unwrap();
    restorer.put(&directory("")).unwrap();
    restorer.commit().unwrap();
    assert_eq!(names(parent.path()), ["target"]);
}

#[test]
fn a_target_with_content_is_refused_when_it_may_not_be_overwritten() {
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join("x"), "x").unwrap();
    let refused = TreeRestorer::new(parent.path(), Overwrite::Refuse, TAG);
    assert!(matches!(refused, Err(RestoreError::TargetNotEmpty { .. })));
}

#[test]
fn content_that_came_to_an_empty_target_meanwhile_survives_the_commit() {
    for inside in [false, true] {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("target");
        fs::create_dir(&target).unwrap();
        let new = if inside { TreeRestorer::new_inside } else { TreeRestorer::new };
        let mut restorer = new(&target, Overwrite::Refuse, TAG).unwrap();
        restorer.put(&directory("")).unwrap();
        fs::write(target.join("x"), "x").unwrap();
        restorer.commit().unwrap_err();
        assert_eq!((names(&target), names(parent.path())), (vec!["x".to_owned()], vec!["target".to_owned()]));
    }
}

#[test]
fn paths_that_lead_outside_are_refused() {
    for path in ["../x", "/x", "a/../../x"] {
        let (parent, _, mut restorer) = begun(false);
        let refused = restorer.begin_file(&entry(path, EntryKind::File(())), 0).map(|_| ());
        assert!(matches!(refused, Err(RestoreError::Entry { .. })), "{path}");
        assert!(!parent.path().join("x").exists());
    }
}

#[test]
fn an_entry_below_a_symlink_is_refused_and_the_linked_folder_untouched() {
    let (_parent, _, mut restorer) = begun(false);
    let outside = tempfile::tempdir().unwrap();
    restorer.put(&symlink("a", outside.path().to_str().unwrap())).unwrap();
    assert!(put_file(&mut restorer, &entry("a/passwd", EntryKind::File(())), b"x").is_err());
    assert!(names(outside.path()).is_empty());
}

#[test]
fn a_symlink_that_somebody_puts_into_the_new_folder_is_not_followed() {
    let (parent, _, mut restorer) = begun(false);
    let outside = tempfile::tempdir().unwrap();
    restorer.put(&directory("a")).unwrap();
    let staged = parent.path().join("target.restore-000000ab/a");
    fs::remove_dir(&staged).unwrap();
    std::os::unix::fs::symlink(outside.path(), &staged).unwrap();
    assert!(put_file(&mut restorer, &entry("a/f", EntryKind::File(())), b"x").is_err());
    assert!(names(outside.path()).is_empty());
}

#[test]
fn a_hard_link_to_a_symlink_is_refused() {
    let (_parent, _, mut restorer) = begun(false);
    restorer.put(&symlink("a", "/etc/passwd")).unwrap();
    let link = entry("b", EntryKind::HardLink { first: b"a".to_vec() });
    assert!(matches!(restorer.put(&link), Err(RestoreError::LinkTarget { .. })));
}

#[test]
fn a_tree_with_a_refused_entry_or_an_unfinished_file_is_not_committed() {
    let (_parent, target, mut restorer) = begun(false);
    restorer.begin_file(&entry("a", EntryKind::File(())), 3).unwrap().write(b"ab").unwrap();
    assert!(matches!(restorer.commit(), Err(RestoreError::Incomplete { .. })));
    assert_eq!(names(&target), ["old"]);
}

#[test]
fn a_file_with_other_than_its_size_in_bytes_is_refused() {
    let (_parent, _, mut restorer) = begun(false);
    let mut writer = restorer.begin_file(&entry("a", EntryKind::File(())), 1).unwrap();
    assert!(matches!(writer.write(b"ab"), Err(RestoreError::Size { .. })));
    let writer = restorer.begin_file(&entry("b", EntryKind::File(())), 1).unwrap();
    assert!(matches!(writer.finish(), Err(RestoreError::Size { .. })));
}

#[test]
fn setuid_and_mode_000_are_put_back() {
    let (_parent, target, mut restorer) = begun(false);
    for (name, mode) in [("none", 0), ("setuid", 0o4755)] {
        let mut file = entry(name, EntryKind::File(()));
        file.meta.mode = mode;
        put_file(&mut restorer, &file, b"x").unwrap();
    }
    restorer.commit().unwrap();
    let mode = |name| fs::metadata(target.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("none"), mode("setuid")), (0, 0o4755));
}

#[test]
fn the_names_of_our_own_folders_are_refused_inside() {
    let (_parent, _, mut restorer) = begun(true);
    assert!(matches!(restorer.put(&directory(".old-000000ab")), Err(RestoreError::NameTaken { .. })));
}

#[test]
fn a_swap_inside_that_errs_half_way_gives_the_old_content_back() {
    let (_parent, target, mut restorer) = begun(true);
    restorer.put(&directory("d")).unwrap();
    put_file(&mut restorer, &entry("f", EntryKind::File(())), b"new").unwrap();
    fs::remove_dir(target.join(".restore-000000ab/d")).unwrap();
    assert!(matches!(restorer.commit(), Err(RestoreError::Io { .. })));
    assert_eq!(names(&target), ["old"]);
    assert_eq!(fs::read(target.join("old")).unwrap(), b"old");
}
