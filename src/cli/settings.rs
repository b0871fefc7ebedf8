//! Where things are: configuration file, repository, folders. Flag, then variable, then configuration file, then default;
//! clap has already put the variable in the flag's place.
//!
//! The configuration file is read when something is needed from it, so that a broken one does not stand in the way of
//! somebody who restores with everything on the command line.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::args::Global;
use super::buckets::{self, Bucket};
use super::failure::Failure;
use super::legacy::Predecessor;
use super::variables::get;
use crate::provider::config::BespokeConfig;
use crate::storage::limit::Limits;

/// Name of the configuration file in the working directory.
const CONFIG_HERE: &str = "infrahub-backup.toml";

/// The configuration file and where it lies.
#[derive(Debug)]
pub struct ConfigFile {
    /// Its path.
    pub path: PathBuf,
    /// What it says.
    pub config: BespokeConfig,
}

/// Where things are.
pub struct Settings {
    global: Global,
    typed: Vec<&'static str>,
    config: OnceLock<Option<ConfigFile>>,
}

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In a folder.
    Folder(PathBuf),
    /// In an object store.
    Bucket(Box<Bucket>),
    /// In the memory of this process.
    Memory,
}

impl Settings {
    /// Takes the flags, and the names of those among [`super::credential::FLAGS`] that stand on the command line itself.
    pub fn new(global: Global, typed: Vec<&'static str>) -> Self {
        Self { global, typed, config: OnceLock::new() }
    }

    /// Whether this flag stands on the command line itself.
    pub fn is_typed(&self, flag: &str) -> bool {
        self.typed.contains(&flag)
    }

    /// The flags.
    pub fn global(&self) -> &Global {
        &self.global
    }

    /// The configuration file, if there is one.
    pub fn config(&self) -> Result<Option<&ConfigFile>, Failure> {
        if self.config.get().is_none() {
            let read = self.read_config()?;
            // Whoever was faster read the same file.
            let _ = self.config.set(read);
        }
        Ok(self.config.get().and_then(Option::as_ref))
    }

    fn read_config(&self) -> Result<Option<ConfigFile>, Failure> {
        let path = match &self.global.config {
            Some(path) => Some(path.clone()),
            None => config_places().into_iter().find(|path| path.exists()),
        };
        let Some(path) = path else { return Ok(None) };
        let path = std::path::absolute(&path).map_err(|source| Failure::io("there is no working directory", source))?;
        Ok(Some(ConfigFile { config: BespokeConfig::read(&path)?, path }))
    }

    /// Name of the configured deployment, if there is one. A configuration that cannot be read counts as none.
    pub fn deployment_name(&self) -> Option<String> {
        self.config().ok().flatten().map(|file| file.config.deployment.name.clone())
    }

    /// The folder of backups.
    pub fn backup_dir(&self) -> PathBuf {
        let old_name = || get("BACKUP_DIR").map(PathBuf::from);
        self.global.backup_dir.clone().or_else(old_name).unwrap_or_else(|| PathBuf::from("infrahub_backups"))
    }

    /// Where the repository is.
    pub fn location(&self) -> Result<Location, Failure> {
        if let Some(text) = &self.global.repo {
            return self.location_of(text, Path::new(""));
        }
        if let Some(bucket) = buckets::from_flags(&self.global.legacy, buckets::environment())? {
            return Ok(Location::Bucket(Box::new(bucket)));
        }
        if let Some((url, folder)) = self.configured_place()? {
            return self.location_of(url, folder);
        }
        Ok(Location::Folder(self.backup_dir().join("repository")))
    }

    /// Whether the repository is in S3, or in what speaks like it.
    pub fn is_in_s3(&self) -> Result<bool, Failure> {
        match &self.global.repo {
            Some(text) => Ok(is_s3(text)),
            None if self.global.legacy.s3_bucket.is_some() => Ok(true),
            None => Ok(self.configured_place()?.is_some_and(|(url, _)| is_s3(url))),
        }
    }

    /// What the configuration file says, and where that lies. A folder of backups that is given beats it.
    fn configured_place(&self) -> Result<Option<(&str, &Path)>, Failure> {
        if self.global.backup_dir.is_some() {
            return Ok(None);
        }
        let Some(file) = self.config()? else { return Ok(None) };
        let url = file.config.repository.as_ref().and_then(|section| section.url.as_deref());
        Ok(url.map(|url| (url, folder_of(&file.path))))
    }

    fn location_of(&self, text: &str, base: &Path) -> Result<Location, Failure> {
        location(text, base, &self.global.legacy)
    }

    /// How fast stores may be read and written.
    pub fn limits(&self) -> Limits {
        Limits { up: self.global.limit_upload, down: self.global.limit_download }
    }

    /// A key file and a password file from the configuration file, relative to where that lies.
    pub fn configured_secrets(&self) -> Result<(Option<PathBuf>, Option<PathBuf>), Failure> {
        let Some(file) = self.config()? else {
            return Ok((None, None));
        };
        let section = file.config.repository.clone().unwrap_or_default();
        let beside = |path: PathBuf| folder_of(&file.path).join(path);
        Ok((section.key_file.map(beside), section.password_file.map(beside)))
    }

    /// The state folder.
    pub fn state_dir(&self) -> Result<PathBuf, Failure> {
        let given = self.global.state_dir.clone();
        let by_user = || user_folder("XDG_STATE_HOME", ".local/state");
        let system = || rustix::process::geteuid().is_root().then(|| PathBuf::from("/var/lib/infrahub-backup"));
        given.or_else(by_user).or_else(system).ok_or_else(|| {
            Failure::usage("there is no home folder to remember runs in").hint("name a folder: --state-dir DIR")
        })
    }

    /// The cache folder; `None` for no cache on disk.
    pub fn cache_dir(&self) -> Option<PathBuf> {
        if self.global.no_cache {
            return None;
        }
        self.global.cache_dir.clone().or_else(|| user_folder("XDG_CACHE_HOME", ".cache"))
    }
}

/// The folder of this user's configuration and key files.
pub fn user_config_dir() -> Option<PathBuf> {
    user_folder("XDG_CONFIG_HOME", ".config")
}

/// This program's folder below one of the user's, by the XDG rules: a relative path in the variable does not count.
fn user_folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let given = get(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || get("HOME").map(|home| PathBuf::from(home).join(below_home));
    Some(given.or_else(home)?.join("infrahub-backup"))
}

fn config_places() -> Vec<PathBuf> {
    let here = PathBuf::from(CONFIG_HERE);
    let user = user_config_dir().map(|folder| folder.join("config.toml"));
    let system = PathBuf::from("/etc/infrahub-backup/config.toml");
    std::iter::once(here).chain(user).chain([system]).collect()
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("/"))
}

/// Whether a text names a place in S3.
pub fn is_s3(text: &str) -> bool {
    text.starts_with("s3://")
}

/// What a text says about where a repository is. Relative paths begin at `base`.
fn location(text: &str, base: &Path, flags: &Predecessor) -> Result<Location, Failure> {
    let path = match text.split_once("://") {
        None => text,
        Some(("fs", path)) => path,
        Some(("memory", _)) => return Ok(Location::Memory),
        Some((scheme @ ("s3" | "gs" | "az"), place)) => {
            if scheme != "s3" {
                buckets::check_unused(flags)?;
            }
            let bucket = buckets::parse(scheme, place, flags, buckets::environment())?;
            return Ok(Location::Bucket(Box::new(bucket)));
        }
        // The text may hold a password: it is not repeated.
        Some((scheme, _)) => {
            return Err(Failure::usage(format!("`{scheme}://` is not a place for a repository"))
                .hint("give a folder or a bucket: --repo PATH, --repo s3://BUCKET/PREFIX"));
        }
    };
    if path.is_empty() {
        return Err(Failure::usage("the place of the repository is empty"));
    }
    buckets::check_unused(flags)?;
    Ok(Location::Folder(base.join(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_path_with_or_without_its_scheme() {
        let folder = |text: &str| Location::Folder(PathBuf::from(text));
        let read = |text: &str| location(text, Path::new("/base"), &Predecessor::default()).unwrap();
        assert_eq!(read("/r"), folder("/r"));
        assert_eq!(read("fs:///r"), folder("/r"));
        assert_eq!(read("r"), folder("/base/r"));
    }

    #[test]
    fn a_place_that_is_refused_is_not_repeated() {
        for text in ["s3://KEY:SECRET@host", "ftp://KEY:SECRET@host", "gs://KEY:SECRET@bucket"] {
            let failure = location(text, Path::new(""), &Predecessor::default()).unwrap_err();
            assert!(!failure.error.to_string().contains("SECRET"));
        }
    }
}
