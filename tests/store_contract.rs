//! What every store promises, checked against every store, and what the local one promises beyond.
//!
//! The checks themselves are in `contract`. Some local tests run again in a child process of their own, because
//! they change what belongs to a whole process: its umask, its user.

mod contract;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::{name, names_below, put};
use infrahub_backup::env::SystemEntropy;
use infrahub_backup::storage::count::Counted;
use infrahub_backup::storage::limit::{Limited, Limits};
use infrahub_backup::storage::local::LocalStore;
use infrahub_backup::storage::object::RemoteStore;
use infrahub_backup::storage::retry::{Patience, Retried};
use infrahub_backup::storage::wait::SystemWait;
use infrahub_backup::storage::{ObjectName, Store, StoreError};

/// Makes a test of each check for each store.
macro_rules! contract {
    ($($check:ident)+) => {
        mod local {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let folder = tempfile::tempdir().unwrap();
                let store = super::LocalStore::create(folder.path().join("repository")).unwrap();
                super::contract::$check(std::sync::Arc::new(store)).await;
            })+
        }
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                super::contract::$check(std::sync::Arc::new(super::RemoteStore::memory())).await;
            })+
        }
        // The wrappers that every store gets keep what it promises.
        mod wrapped {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                super::contract::$check(super::wrapped()).await;
            })+
        }
    };
}

contract::for_all_checks! { contract }

fn wrapped() -> Arc<dyn Store> {
    let wait = Arc::new(SystemWait::default());
    let limits = Limits { up: Some(1 << 30), down: Some(1 << 30) };
    let limited = Limited::new(Arc::new(RemoteStore::memory()), limits, wait.clone());
    let counted = Counted::new(Arc::new(limited));
    Arc::new(Retried::new(Arc::new(counted), Patience::default(), Arc::new(SystemEntropy), wait))
}

#[test]
fn a_name_that_could_leave_the_store_or_differ_between_stores_is_refused() {
    for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "A", "a b", "a\\b", "a\0", "ä", "a+b", "a\n"]
    {
        assert_eq!(ObjectName::parse(bad.to_owned()), None, "{bad:?}");
    }
}

#[test]
fn a_name_of_parts_is_taken() {
    for good in ["a", "a/b", "config/1", "a.b-c_d/0", "..a", "a..", "..."] {
        assert!(ObjectName::parse(good.to_owned()).is_some(), "{good:?}");
    }
}

/// Tells a child process which test it is for.
const CHILD: &str = "STORE_CONTRACT_CHILD";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// This test alone in a process of its own.
fn child(test: &str, argument: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, argument);
    command
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn modes_below(folder: &Path, modes: &mut Vec<(String, u32)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        modes.push((entry.path().display().to_string(), metadata.permissions().mode() & 0o7777));
        if metadata.is_dir() {
            modes_below(&entry.path(), modes);
        }
    }
}

fn modes_are_ours() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("made/with/parents");
    runtime().block_on(async {
        let store = LocalStore::create(&root).unwrap();
        put(&store, "packs/ab/one", b"x").await;
    });
    let mut modes = Vec::new();
    modes_below(folder.path(), &mut modes);
    assert_eq!(modes.len(), 7, "{modes:?}");
    for (path, mode) in modes {
        let expected = if path.ends_with("one") { 0o600 } else { 0o700 };
        assert_eq!(mode, expected, "{path}: {mode:o}");
    }
}

fn run_under_umask(test: &str, mask: u32) {
    if is_child() {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
        modes_are_ours();
    } else {
        let output = child(test, "umask").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}

#[test]
fn nobody_else_may_read_even_under_an_umask_that_takes_nothing() {
    run_under_umask("nobody_else_may_read_even_under_an_umask_that_takes_nothing", 0);
}

#[test]
fn the_owner_may_read_and_write_even_under_an_umask_that_takes_much() {
    // The owner's right to read is taken too; the temporary folder itself must stay usable.
    run_under_umask("the_owner_may_read_and_write_even_under_an_umask_that_takes_much", 0o277);
}

#[tokio::test]
async fn staging_files_are_neither_listed_nor_read_nor_put_nor_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::create(folder.path()).unwrap();
    put(&store, "packs/one", b"x").await;
    fs::write(folder.path().join("staging/left"), "half").unwrap();
    assert_eq!(names_below(&store, "").await, ["packs/one"]);
    assert_eq!(names_below(&store, "staging").await, [""; 0]);
    assert!(store.get(&name("staging/left"), 100).await.unwrap_err().is_not_found());
    assert!(store.put_new(&name("staging/new"), Bytes::new()).await.is_err());
    store.delete(&name("staging/left")).await.unwrap();
    assert!(folder.path().join("staging/left").exists());
}

#[tokio::test]
async fn a_put_leaves_nothing_in_staging() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::create(folder.path()).unwrap();
    put(&store, "packs/one", b"x").await;
    store.put_new(&name("packs/one"), Bytes::new()).await.unwrap_err();
    assert_eq!(fs::read_dir(folder.path().join("staging")).unwrap().count(), 0);
    assert_eq!(fs::metadata(folder.path().join("packs/one")).unwrap().nlink(), 1);
}

#[tokio::test]
async fn a_sweep_takes_old_staging_files_and_no_young_ones() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::create(folder.path()).unwrap();
    put(&store, "packs/one", b"x").await;
    let hour = Duration::from_secs(3600);
    for (file, age) in [("old", 2 * hour), ("young", Duration::ZERO)] {
        let file = fs::File::create(folder.path().join("staging").join(file)).unwrap();
        file.set_modified(std::time::SystemTime::now() - age).unwrap();
    }
    assert_eq!(store.sweep(hour).await.unwrap(), 1);
    let left: Vec<_> = fs::read_dir(folder.path().join("staging")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["young"]);
    assert_eq!(names_below(&store, "").await, ["packs/one"]);
}

#[tokio::test]
async fn a_repository_without_staging_has_nothing_to_sweep() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(LocalStore::create(folder.path()).unwrap().sweep(Duration::ZERO).await.unwrap(), 0);
}

#[test]
fn opening_a_folder_that_is_not_there_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent");
    let error = LocalStore::open(&path).unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_symbolic_link_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::create(folder.path()).unwrap();
    put(&store, "packs/one", b"x").await;
    symlink(outside.path(), folder.path().join("linked")).unwrap();
    symlink(outside.path().join("secret"), folder.path().join("packs/linked")).unwrap();

    assert_eq!(names_below(&store, "").await, ["packs/one"]);
    assert_eq!(names_below(&store, "linked").await, [""; 0]);
    for linked in ["packs/linked", "linked/secret"] {
        assert!(store.get(&name(linked), 100).await.unwrap_err().is_not_found(), "{linked}");
    }
    store.delete(&name("linked/secret")).await.unwrap();
    assert!(store.put_new(&name("linked/new"), Bytes::new()).await.is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn files_that_are_no_objects_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::create(folder.path()).unwrap();
    put(&store, "packs/one", b"x").await;
    fs::write(folder.path().join("README"), "x").unwrap();
    fs::create_dir(folder.path().join("Lost")).unwrap();
    fs::write(folder.path().join("Lost/found"), "x").unwrap();
    assert_eq!(names_below(&store, "").await, ["packs/one"]);
}

/// Reads and writes a repository that may only be read.
fn only_reading_works(root: &Path) {
    runtime().block_on(async {
        let store = LocalStore::open(root).unwrap();
        assert_eq!(store.get(&name("packs/one"), 100).await.unwrap(), "kept");
        assert_eq!(names_below(&store, "").await, ["packs/one"]);
        for new in ["packs/two", "new", "new/folder/two"] {
            let refused = store.put_new(&name(new), Bytes::new()).await;
            assert!(matches!(refused, Err(StoreError::ReadOnly { .. })), "{new}: {refused:?}");
        }
        let refused = store.delete(&name("packs/one")).await;
        assert!(matches!(refused, Err(StoreError::ReadOnly { .. })), "{refused:?}");
        let refused = LocalStore::create(root.join("below"));
        assert!(matches!(refused, Err(StoreError::ReadOnly { .. })), "{refused:?}");
    });
}

#[test]
fn a_repository_that_may_only_be_read_is_read_and_refuses_changes() {
    const TEST: &str = "a_repository_that_may_only_be_read_is_read_and_refuses_changes";
    if let Some(root) = std::env::var_os(CHILD) {
        return only_reading_works(Path::new(&root));
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repository");
    let store = LocalStore::create(&root).unwrap();
    runtime().block_on(put(&store, "packs/one", b"kept"));
    let set_modes = |folder_mode| {
        for part in ["packs", "staging", ""] {
            fs::set_permissions(root.join(part), fs::Permissions::from_mode(folder_mode)).unwrap();
        }
    };
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("packs/one"), fs::Permissions::from_mode(0o444)).unwrap();
    set_modes(0o555);
    if rustix::process::geteuid().is_root() {
        // Permissions do not bind root: somebody else has to try.
        read_as_nobody(TEST, &root);
    } else {
        only_reading_works(&root);
    }
    set_modes(0o755);
}

fn read_as_nobody(test: &str, root: &Path) {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    match child(test, root.to_str().unwrap()).uid(NOBODY).gid(NOBODY).current_dir("/").output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
        }
        Err(error) => println!("not tested: a read-only repository; this user cannot run tests as another: {error}"),
    }
}
