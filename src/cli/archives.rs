//! Archives of the predecessor as the command line names them, their keys, and a repository that lives as long as a command.
//!
//! Holds: no error repeats a text that may hold keys of an object store.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::args::Command;
use super::buckets;
use super::failure::Failure;
use super::legacy::Predecessor;
use super::place;
use super::session::Session;
use crate::archive::keys::{PrivateKey, PublicKey};
use crate::error::{Error, ErrorKind};
use crate::id::ObjectName;
use crate::ops::create::ArchiveSource;
use crate::ops::import::{ArchiveBytes, ArchiveFile, ArchiveObject};
use crate::ops::{Context, init};
use crate::repository::Repository;
use crate::seal::slot::{Credential, NewCredential};
use crate::state::State;
use crate::storage::Store;
use crate::storage::local::LocalStore;

/// Name of a deployment that nobody named.
pub const FILES: &str = "files";

/// Most bytes of a key file.
const KEY_FILE_SIZE_MAX: u64 = 64 << 10;

/// Whether a text names an archive, and not a snapshot.
pub fn is_archive(text: &str) -> bool {
    text.contains("://") || text.contains('/') || text.ends_with(".tar.gz") || text.ends_with(".enc")
}

/// Whether a command names an archive in an object store.
pub fn in_store(command: &Command) -> bool {
    match command {
        Command::Restore(args) => args.snapshot_id.contains("://"),
        Command::Import(args) => args.archives.iter().any(|archive| archive.contains("://")),
        _ => false,
    }
}

/// Opens an archive and reads its metadata.
pub async fn open(
    session: &Session,
    text: &str,
    deployment: String,
    key: Option<&Path>,
) -> Result<ArchiveSource, Failure> {
    let key = key.map(private_key).transpose()?;
    let (name, bytes): (String, Box<dyn ArchiveBytes>) = match text.split_once("://") {
        Some((scheme, place)) if scheme != "fs" => object(session, scheme, place).await?,
        _ => {
            let path = Path::new(text.strip_prefix("fs://").unwrap_or(text));
            let file = ArchiveFile::open(path).await.map_err(|error| {
                Failure::from(error).hint("name a file that is there, or an object: s3://BUCKET/KEY")
            })?;
            (path.display().to_string(), Box::new(file))
        }
    };
    Ok(ArchiveSource::open(&session.context, deployment, name, bytes, key).await?)
}

async fn object(session: &Session, scheme: &str, place: &str) -> Result<(String, Box<dyn ArchiveBytes>), Failure> {
    // The place says where it is; where the repository is, the flags may say.
    let flags = Predecessor { s3_bucket: None, s3_prefix: None, ..session.settings.global().legacy.clone() };
    let mut bucket = buckets::parse(scheme, place, &flags, buckets::environment())?;
    let key = std::mem::take(&mut bucket.place.prefix);
    let (folder, file) = key.rsplit_once('/').unwrap_or(("", &key));
    let name = ObjectName::parse(file.to_owned()).ok_or_else(|| {
        Failure::usage("the place names no archive, or one whose name has other signs than a-z, 0-9, `.`, `_`, `-`")
            .hint(
                "name it: s3://BUCKET/FOLDER/infrahub_backup_20260101_020000.tar.gz; or download it and name the file",
            )
    })?;
    bucket.place.prefix = folder.to_owned();
    let shown = format!("{}, {file}", bucket.place);
    let store = place::bucket_store(bucket, &session.settings)?;
    let object = session.context.cancel.or(ArchiveObject::open(store, name)).await?;
    let object = object.map_err(|error| Failure::from(error).hint("name an object that is there: s3://BUCKET/KEY"))?;
    Ok((shown, Box::new(object)))
}

fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error| {
        let text = format!("the key file `{}` cannot be read", path.display());
        Failure::from(Error::with_source(ErrorKind::Credentials, text, error)).hint("name one that is there")
    };
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(failed)?;
    file.take(KEY_FILE_SIZE_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn refused(path: &Path, error: crate::archive::ArchiveError) -> Failure {
    let text = format!("`{}` is no key file for archives", path.display());
    Failure::from(Error::with_source(ErrorKind::Credentials, text, error))
        .hint("the private key decrypts, FILE.pub encrypts; to make both: infrahub-backup keygen -o FILE")
}

/// Reads a private key file.
pub fn private_key(path: &Path) -> Result<PrivateKey, Failure> {
    PrivateKey::decode(&read_key(path)?).map_err(|error| refused(path, error))
}

/// Reads a public key file.
pub fn public_key(path: &Path) -> Result<PublicKey, Failure> {
    let bytes = read_key(path)?;
    PublicKey::decode(&String::from_utf8_lossy(&bytes)).map_err(|error| refused(path, error))
}

/// What the predecessor would call an archive of this moment, in local time.
pub fn backup_id(made_at: Timestamp) -> String {
    TimeZone::system().to_datetime(made_at).strftime("infrahub_backup_%Y%m%d_%H%M%S").to_string()
}

/// The file of an archive: at `output`, below it if that is a folder, else below `folder`.
pub fn archive_path(output: Option<&Path>, folder: PathBuf, backup_id: &str, encrypted: bool) -> PathBuf {
    let file = format!("{backup_id}.tar.gz{}", if encrypted { ".enc" } else { "" });
    match output {
        Some(path) if !path.is_dir() => path.to_owned(),
        Some(folder) => folder.join(file),
        None => folder.join(file),
    }
}

/// What the folders of [`Scratch`] begin with.
const SCRATCH_PREFIX: &str = ".infrahub-backup-scratch-";

/// How old a folder must be to count as left behind: one that was made a moment ago may not be locked yet.
const SCRATCH_AGE_MIN: Duration = Duration::from_secs(600);

/// A repository that lives as long as a command, with keys that nobody else gets. Its folder is locked as long; what killed commands
/// left beside it is removed.
pub struct Scratch {
    /// The repository.
    pub repository: Arc<Repository>,
    /// For what is made in it: with a state folder that goes with it.
    pub context: Context,
    // Last: it is removed when nothing uses it any more.
    _folder: TempDir,
    _lock: File,
}

/// Removes what killed commands left in `parent`: their keys are gone, nobody can read it. What cannot be removed is left.
fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.filter_map(Result::ok) {
        let is_ours = entry.file_name().to_string_lossy().starts_with(SCRATCH_PREFIX);
        // Of a link this is the link's own kind.
        let is_old = entry.metadata().is_ok_and(|found| {
            let age = found.modified().ok().and_then(|modified| modified.elapsed().ok());
            found.is_dir() && age.is_some_and(|age| age >= SCRATCH_AGE_MIN)
        });
        if !is_ours || !is_old {
            continue;
        }
        let Ok(folder) = File::open(entry.path()) else { continue };
        if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // The next command tries again.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Scratch {
    /// Makes one in `parent`, or in the system's folder for temporary files.
    pub async fn new(session: &Session, parent: Option<&Path>) -> Result<Self, Failure> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        sweep(&parent);
        let failed = |source| Failure::io(format!("no folder can be made in `{}`", parent.display()), source);
        let folder = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir_in(&parent).map_err(failed)?;
        let lock = File::open(folder.path()).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| failed(error.into()))?;
        let store: Arc<dyn Store> = Arc::new(LocalStore::scratch(folder.path().join("repository"))?);
        let state = Arc::new(State::open(folder.path().join("state"))?);
        let context = Context { cache_folder: None, state, ..session.context.clone() };
        let founded = init::init(&context, &*store, false, NewCredential::KeyFile).await?;
        let key = founded.key_file.expect("a key file was asked for");
        let repository = context.open(store, &Credential::KeyFile(key)).await?;
        Ok(Self { repository, context, _folder: folder, _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_told_from_an_id() {
        for text in ["a.tar.gz", "a.tar.gz.enc", "./a", "/a", "s3://b/k"] {
            assert!(is_archive(text), "{text}");
        }
        for text in ["latest", "0a1b2c", ""] {
            assert!(!is_archive(text), "{text}");
        }
    }

    #[test]
    fn what_a_killed_command_left_is_removed_and_what_is_in_use_or_new_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - 2 * SCRATCH_AGE_MIN;
        let folder = |name: &str, old: Option<std::time::SystemTime>| {
            let path = parent.path().join(name);
            std::fs::create_dir_all(path.join("repository")).unwrap();
            let opened = File::open(&path).unwrap();
            if let Some(time) = old {
                opened.set_modified(time).unwrap();
            }
            (path, opened)
        };
        let (left, _) = folder(&format!("{SCRATCH_PREFIX}left"), Some(old));
        let (used, lock) = folder(&format!("{SCRATCH_PREFIX}used"), Some(old));
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let (new, _) = folder(&format!("{SCRATCH_PREFIX}new"), None);
        let (other, _) = folder("other", Some(old));
        sweep(parent.path());
        assert_eq!([left, used, new, other].map(|path| path.exists()), [false, true, true, true]);
    }

    #[test]
    fn an_archive_goes_into_a_folder_that_is_there_and_else_is_the_file_that_was_named() {
        let there = tempfile::tempdir().unwrap();
        let path = |output: Option<&Path>| archive_path(output, "backups".into(), "id", true);
        assert_eq!(path(None), Path::new("backups/id.tar.gz.enc"));
        assert_eq!(path(Some(there.path())), there.path().join("id.tar.gz.enc"));
        assert_eq!(path(Some(&there.path().join("x"))), there.path().join("x"));
    }
}
