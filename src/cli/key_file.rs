//! Writing the key file of a new repository.
//!
//! Its place is taken before the repository is founded, and the key is on disk before `init` ends: a repository whose key
//! was lost on the way is taken back.
//!
//! Holds: nothing is overwritten, and no key file lies inside the repository or the folder of backups, not even through
//! symbolic links; that is refused before anything is made. Mode 0600.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use super::credential::default_key_file;
use super::failure::Failure;
use super::settings::user_config_dir;
use crate::env::{SystemEntropy, random_bytes};
use crate::error::{Error, ErrorKind};
use crate::format::config::Config;
use crate::format::key_file::KeyFile;
use crate::id::hex_of;
use crate::storage::Store;

/// Where the key file shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// At this path.
    At(PathBuf),
    /// In the user's folder, named after the repository.
    Default(PathBuf),
}

/// Decides where the key file shall be and refuses what must not be. Makes nothing.
pub fn choose(given: Option<PathBuf>, forbidden: &[PathBuf]) -> Result<Wanted, Failure> {
    let wanted = match given {
        Some(path) => Wanted::At(absolute(&path)?),
        None => Wanted::Default(user_config_dir().ok_or_else(|| {
            Failure::usage("there is no home folder to write the key file to").hint("name one: --key-file FILE")
        })?),
    };
    let path = match &wanted {
        Wanted::At(path) | Wanted::Default(path) => path,
    };
    for folder in forbidden {
        if is_inside(path, &absolute(folder)?)? {
            let text = format!(
                "the key file `{}` would lie inside `{}`: whoever takes the backups would take the key along",
                path.display(),
                folder.display()
            );
            return Err(
                Failure::usage(text).hint("name a file elsewhere, on another disk if there is one: --key-file FILE")
            );
        }
    }
    if let Wanted::At(path) = &wanted {
        check_free(path)?;
    }
    Ok(wanted)
}

fn check_free(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_ok() {
        let text = format!("`{}` is there already; a new repository gets a new key", path.display());
        return Err(Failure::usage(text).hint("name a file that is not there: --key-file FILE"));
    }
    if !path.parent().is_some_and(Path::is_dir) {
        return Err(Failure::usage(format!("the folder of the key file `{}` is not there", path.display())));
    }
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|source| Failure::io("there is no working directory", source))
}

/// Whether `path` is `folder` or lies below it, by their real names and by the folders themselves (bind mounts).
fn is_inside(path: &Path, folder: &Path) -> Result<bool, Failure> {
    let (real, real_folder) = (real_path(path)?, real_path(folder)?);
    if real.starts_with(&real_folder) {
        return Ok(true);
    }
    let Ok(wanted) = std::fs::metadata(&real_folder) else {
        return Ok(false);
    };
    let same = |found: std::fs::Metadata| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino());
    Ok(real.ancestors().any(|above| std::fs::metadata(above).is_ok_and(same)))
}

/// The path without symbolic links, as far as it exists; what does not exist yet is put behind.
fn real_path(path: &Path) -> Result<PathBuf, Failure> {
    for above in path.ancestors() {
        let Ok(real) = above.canonicalize() else { continue };
        let rest = path.strip_prefix(above).expect("an ancestor is a prefix");
        if rest.components().any(|part| part == Component::ParentDir) {
            return Err(Failure::usage(format!("`{}` leads through a folder that is not there", path.display())));
        }
        return Ok(real.join(rest));
    }
    Ok(path.to_owned())
}

/// A file that was made for the key and is still empty. Dropped without [`Reserved::write`], it is removed.
#[derive(Debug)]
pub struct Reserved {
    file: File,
    path: PathBuf,
    /// Whether the file gets the repository's name once that is known.
    renamed: bool,
    written: bool,
}

impl Reserved {
    /// Makes the file, and the user's folder if that is where it goes.
    pub fn new(wanted: &Wanted) -> Result<Self, Failure> {
        let (path, renamed) = match wanted {
            Wanted::At(path) => (path.clone(), false),
            Wanted::Default(folder) => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(folder)
                    .map_err(|source| cannot(folder, source))?;
                (folder.join(format!("new-{}.key", hex_of(&random_bytes::<8>(&SystemEntropy)))), true)
            }
        };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        Ok(Self { file: file.map_err(|source| cannot(&path, source))?, path, renamed, written: false })
    }

    /// Writes the key; durable on return. Gives its path.
    pub fn write(mut self, config: &Config, key: &KeyFile) -> Result<PathBuf, Failure> {
        let target = if self.renamed { default_key_file(config) } else { None }.unwrap_or_else(|| self.path.clone());
        self.try_write(&target, key).map_err(|source| cannot(&target, source))?;
        self.written = true;
        Ok(target)
    }

    fn try_write(&mut self, target: &Path, key: &KeyFile) -> io::Result<()> {
        self.file.write_all(key.encode().as_bytes())?;
        self.file.sync_all()?;
        if target != self.path {
            // The name holds the random id of a repository made just now: nothing is there to be overwritten.
            std::fs::rename(&self.path, target)?;
            target.clone_into(&mut self.path);
        }
        File::open(target.parent().expect("a file lies in a folder"))?.sync_all()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.written {
            // An empty file that stays harms nobody, and the next `init` says that it is there.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn cannot(path: &Path, source: io::Error) -> Failure {
    let text = format!("the key file `{}` could not be written", path.display());
    Failure::from(Error::with_source(ErrorKind::Internal, text, source)).hint("name another file: --key-file FILE")
}

/// Takes a repository back that was founded just now and whose key could not be kept.
pub async fn unfound(store: &dyn Store, failure: Failure) -> Failure {
    let listed = store.list("").await;
    let mut objects = listed.unwrap_or_default();
    // The configuration first: without it, it is no repository any more.
    objects.sort_by_key(|object| object.name.clone());
    let ours =
        objects.len() == 2 && objects[0].name.as_str() == "config/1" && objects[1].name.as_str().starts_with("keys/");
    let mut removed = ours;
    for object in objects.iter().filter(|_| ours) {
        removed &= store.delete(&object.name).await.is_ok();
    }
    if removed {
        return failure;
    }
    let location = store.location();
    let hint =
        format!("nothing can open the repository that was begun: remove the folder `{location}`, then init again");
    Failure::from(failure.error.context(format!("the repository in {location} has no key"))).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{RepositoryId, SlotId};
    use crate::storage::local::LocalStore;
    use std::os::unix::fs::PermissionsExt;

    fn key() -> KeyFile {
        KeyFile {
            repository: RepositoryId::from_bytes([1; 16]),
            slot: SlotId::from_bytes([2; 16]),
            key: zeroize::Zeroizing::new([3; 32]),
        }
    }

    fn config() -> Config {
        let credential = crate::seal::slot::NewCredential::KeyFile;
        let profiles = crate::format::config::Profiles::DEFAULT;
        let new =
            crate::seal::slot::found_repository(&SystemEntropy, jiff::Timestamp::UNIX_EPOCH, profiles, credential);
        crate::seal::slot::open_config(&new.config).unwrap()
    }

    #[test]
    fn a_key_file_behind_a_symbolic_link_into_the_repository_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("repository");
        std::fs::create_dir(&repository).unwrap();
        std::os::unix::fs::symlink(&repository, folder.path().join("elsewhere")).unwrap();
        let path = folder.path().join("elsewhere/my.key");
        assert!(choose(Some(path), &[repository]).is_err());
    }

    #[test]
    fn a_key_file_inside_a_repository_that_is_not_there_yet_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("not/yet");
        assert!(choose(Some(repository.join("my.key")), &[repository]).is_err());
    }

    #[test]
    fn a_key_file_beside_the_repository_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("repository.key");
        assert_eq!(choose(Some(path.clone()), &[folder.path().join("repository")]).unwrap(), Wanted::At(path));
    }

    #[test]
    fn a_file_that_is_there_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.key");
        std::fs::write(&path, "mine").unwrap();
        assert!(choose(Some(path.clone()), &[]).is_err());
        assert!(Reserved::new(&Wanted::At(path.clone())).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn only_the_owner_can_read_a_key_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.key");
        let reserved = Reserved::new(&Wanted::At(path.clone())).unwrap();
        reserved.write(&config(), &key()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(KeyFile::decode(&std::fs::read_to_string(&path).unwrap()).is_ok());
    }

    #[test]
    fn a_place_that_was_taken_for_nothing_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.key");
        drop(Reserved::new(&Wanted::At(path.clone())).unwrap());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_repository_without_a_key_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::create(folder.path()).unwrap();
        let outside = crate::repository::Outside::system();
        let profiles = crate::format::config::Profiles::DEFAULT;
        let credential = crate::seal::slot::NewCredential::KeyFile;
        crate::repository::open::found(&store, &outside, profiles, credential).await.unwrap();
        unfound(&store, Failure::usage("the disk is full")).await;
        assert_eq!(store.list("").await.unwrap(), vec![]);
    }
}
