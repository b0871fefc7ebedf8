//! Repositories in places that are full, or that may only be read. Linux and root; prints what was not tested elsewhere.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::scripted::Scripted;
use support::{Ran, tree, unwrapped};

/// A mount that is gone when this is.
struct Mount(PathBuf);

impl Mount {
    /// `None`, with a word on what was not tested, where mounting is not permitted.
    fn new(arguments: &[&str], place: &Path, untested: &str) -> Option<Self> {
        let mounted = Command::new("mount").args(arguments).arg(place).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(place.to_owned())),
            Ok(output) => {
                eprintln!("not tested: {untested}: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                eprintln!("not tested: {untested}: mount: {error}");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_no_snapshot_and_no_damage_and_is_overcome_when_freed() {
    let mut scripted = Scripted::new("site");
    let disk = scripted.sandbox.path("disk");
    fs::create_dir(&disk).expect("a folder");
    let options = ["-t", "tmpfs", "-o", "size=24m,mode=700", "none"];
    let Some(_mount) = Mount::new(&options, &disk, "a full disk") else { return };
    scripted.sandbox.repository = disk.join("repository");
    fs::remove_file(&scripted.sandbox.key).expect("the key of another repository");
    scripted.sandbox.run(["init", "--no-password"]).ok();
    scripted.sandbox.run(["create"]).ok();
    let snapshots = scripted.sandbox.snapshots();

    fs::write(scripted.artifacts().join("new"), support::noise("new", 12_000_000)).expect("an artifact");
    fs::write(disk.join("filler"), vec![1; 16 << 20]).expect("room for the filler");
    let full = scripted.sandbox.run(["create"]).with_code(1);
    assert!(full.err.to_lowercase().contains("no space"), "{}", full.err);
    scripted.assert_running();
    assert_eq!(scripted.sandbox.snapshots(), snapshots);

    fs::remove_file(disk.join("filler")).expect("the filler");
    scripted.assert_as_before(&snapshots);
    scripted.sandbox.run(["create"]).ok();
    assert_eq!(scripted.sandbox.snapshots().len(), 2);
    scripted.sandbox.assert_clean();
}

#[test]
fn a_repository_on_a_full_disk_can_be_verified_and_restored() {
    let mut scripted = Scripted::new("site");
    let disk = scripted.sandbox.path("disk");
    fs::create_dir(&disk).expect("a folder");
    let options = ["-t", "tmpfs", "-o", "size=8m,mode=700", "none"];
    let Some(_mount) = Mount::new(&options, &disk, "reading from a full disk") else { return };
    scripted.sandbox.repository = disk.join("repository");
    fs::remove_file(&scripted.sandbox.key).expect("the key of another repository");
    scripted.sandbox.run(["init", "--no-password"]).ok();
    scripted.sandbox.run(["create"]).ok();
    // Fails when it is full, which is wanted.
    let _ = fs::write(disk.join("filler"), vec![1; 9 << 20]);
    assert_readable(&scripted, Ran::of);
}

/// `verify`, `restore --to-files` and `dump` do all they can do without writing into the repository.
#[track_caller]
fn assert_readable(scripted: &Scripted, run: impl Fn(Command) -> Ran) {
    let sandbox = &scripted.sandbox;
    let before = sandbox.objects();
    run(sandbox.command(["snapshots", "list"])).ok();
    run(sandbox.command(["verify", "--depth", "data"])).ok();
    let dumped = run(sandbox.command(["dump", "latest", "database"])).ok();
    let given = fs::read(scripted.content("database")).expect("a dump");
    assert!(unwrapped(&dumped.out) == unwrapped(&given));
    let out = sandbox.path("out/restored");
    let restore = ["restore", "latest", "--yes", "--to-files"].iter().map(std::ffi::OsStr::new);
    run(sandbox.command(restore.chain([out.as_os_str()]))).ok();
    assert!(fs::read(out.join("queue.dump")).unwrap() == fs::read(scripted.content("queue")).unwrap());
    assert_eq!(sandbox.objects(), before);
}

#[test]
fn a_repository_on_a_read_only_disk_can_be_verified_and_restored() {
    let scripted = Scripted::new("site");
    scripted.sandbox.run(["create"]).ok();
    let place = scripted.sandbox.repository.clone();
    let from = place.display().to_string();
    let Some(_mount) = Mount::new(&["--bind", &from], &place, "a read-only disk") else { return };
    let remounted = Command::new("mount").args(["-o", "remount,ro,bind"]).arg(&place).status().expect("mount starts");
    assert!(remounted.success());
    fs::write(place.join("probe"), "").expect_err("the disk is read-only");
    assert_readable(&scripted, Ran::of);
    tree::assert_same(
        &tree::facts(&scripted.sandbox.path("out/restored/artifacts")),
        &tree::facts(&scripted.artifacts()),
    );
    let snapshots = scripted.sandbox.snapshots();
    scripted.sandbox.run(["create"]).with_code(1);
    scripted.assert_as_before(&snapshots);
}

#[test]
fn a_user_who_may_only_read_the_repository_can_verify_and_restore() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tested: another user who may only read: this is not root");
        return;
    }
    let mut scripted = Scripted::new("site");
    scripted.sandbox.run(["create"]).ok();
    let repository = scripted.sandbox.repository.clone();
    let opened = Command::new("chmod").arg("-R").arg("a+rX").arg(&repository).status().expect("chmod starts");
    assert!(opened.success());
    // A key file is its owner's: the reader gets one of its own, as well as folders.
    let reader = scripted.sandbox.path("reader");
    let out = scripted.sandbox.path("out");
    for folder in [&reader, &out] {
        fs::create_dir(folder).expect("a folder");
        std::os::unix::fs::chown(folder, Some(65534), Some(65534)).expect("an owner");
    }
    let key = reader.join("key");
    fs::copy(&scripted.sandbox.key, &key).expect("a key");
    std::os::unix::fs::chown(&key, Some(65534), Some(65534)).expect("an owner");
    scripted.sandbox.key = key;
    scripted.sandbox.set("XDG_STATE_HOME", reader.join("state").display().to_string());
    scripted.sandbox.set("XDG_CACHE_HOME", reader.join("cache").display().to_string());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(scripted.sandbox.path(""), mode).expect("a mode");
    let Some(binary) = readable_copy(&scripted) else { return };
    assert_readable(&scripted, |command| {
        let mut other = Command::new("setpriv");
        other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary).args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                other.env(name, value);
            }
        }
        other.current_dir(command.get_current_dir().expect("set")).stdin(std::process::Stdio::null());
        Ran::of(other)
    });
}

/// The binary where another user can run it.
fn readable_copy(scripted: &Scripted) -> Option<PathBuf> {
    let binary = scripted.sandbox.path("reader/infrahub-backup");
    fs::copy(env!("CARGO_BIN_EXE_infrahub-backup"), &binary).expect("a copy of the binary");
    let mut other = Command::new("setpriv");
    match other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary).arg("version").output() {
        Ok(output) if output.status.success() => Some(binary),
        Ok(_) | Err(_) => {
            eprintln!("not tested: another user who may only read: setpriv does not run the binary");
            None
        }
    }
}
