//! Where the artifact store of a deployment lies.
//!
//! Holds: a volume that is mounted only while a container uses it is never taken for the empty folder that it is mounted on. A
//! folder of this machine is taken for a container's only if both have the same time of change to the nanosecond
//! and the same mode: this program may itself run in a container, where the same path is another folder. Does not: read
//! stores that are elsewhere; why one cannot be read is told to whoever wants it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bollard::container::PathStatResponse;
use bollard::models::{MountPoint, Volume};
use bollard::query_parameters::ContainerArchiveInfoOptionsBuilder;
use jiff::Timestamp;

use super::bucket;
use super::credentials::variables;
use super::engine::Engine;
use super::error::DockerError;
use super::project::{self, Container};
use crate::provider::bucket::BucketAccess;

/// The service whose settings say where the store is.
const SERVER: &str = "infrahub-server";

/// Where Infrahub keeps it when it is told nothing.
const PATH_DEFAULT: &str = "/opt/infrahub/storage";

/// The bits of a mode that both sides write alike.
const PERMISSIONS: u32 = 0o777;

/// The services that use a store in a bucket.
const BUCKET_USERS: [&str; 2] = [SERVER, "task-worker"];

/// What is known of the artifact store.
pub(super) struct Store {
    /// Where it is, or why it cannot be read.
    pub(super) place: Result<Place, String>,
    /// Services that use it.
    pub(super) users: Vec<String>,
}

/// Where an artifact store is.
pub(super) enum Place {
    /// A folder on this machine.
    Folder(PathBuf),
    /// A bucket.
    Bucket(Box<BucketAccess>),
}

/// Looks for the store of the deployment that `containers` are; `endpoint` is what the operator says of a bucket's.
pub(super) async fn find(
    engine: &Engine,
    containers: &[Container],
    endpoint: Option<&str>,
) -> Result<Store, DockerError> {
    let server = containers.iter().find(|container| container.service == SERVER);
    let server = server.expect("a deployment has a server: the project was chosen for it");
    let found = project::inspect(engine, &server.id).await?;
    let settings = found.config.as_ref().and_then(|config| config.env.as_deref()).unwrap_or_default();
    let settings = variables(settings);
    let driver = settings.get("INFRAHUB_STORAGE_DRIVER").map_or("local", String::as_str);
    if driver == "s3" {
        let access = bucket::find(engine, containers, &found, &settings, endpoint).await?;
        let place = access.map(|access| Place::Bucket(Box::new(access)));
        return Ok(Store { place, users: BUCKET_USERS.map(str::to_owned).to_vec() });
    }
    if driver != "local" {
        let text = format!("the driver `{driver}` of the artifact store is not known");
        return Ok(Store { place: Err(text), users: vec![SERVER.to_owned()] });
    }
    let path = settings.get("INFRAHUB_STORAGE_LOCAL_PATH").map_or(PATH_DEFAULT, String::as_str);
    let mounts = found.mounts.unwrap_or_default();
    let mount = mounts.iter().find(|mount| mount.destination.as_deref() == Some(path));
    let Some((mount, source)) = mount.and_then(|mount| Some((mount, PathBuf::from(mount.source.as_ref()?)))) else {
        let text = format!("the artifact store `{path}` of service `{SERVER}` is on no volume");
        return Ok(Store { place: Err(text), users: vec![SERVER.to_owned()] });
    };
    let users = users(engine, containers, &source).await?;
    let folder = match lies_in(engine, mount, source).await? {
        Ok(folder) => check(engine, &server.id, path, &folder).await?.map(|()| folder),
        Err(why) => Err(format!("the artifact store `{path}` of service `{SERVER}` cannot be read: {why}")),
    };
    Ok(Store { place: folder.map(Place::Folder), users })
}

/// The folder of the engine's machine that holds what `mount` shows, whether a container runs or not; if there is none, why.
async fn lies_in(engine: &Engine, mount: &MountPoint, source: PathBuf) -> Result<Result<PathBuf, String>, DockerError> {
    let Some(name) = mount.name.as_ref().filter(|_| mount.typ.as_deref() == Some("volume")) else {
        return Ok(Ok(source));
    };
    let asked = engine.docker().inspect_volume(name);
    let volume = engine.ask(format!("inspect volume `{name}`"), asked).await?;
    Ok(folder_of(&volume, source))
}

/// The same for a volume. Its options may hold a password, so none but their type is shown.
fn folder_of(volume: &Volume, source: PathBuf) -> Result<PathBuf, String> {
    let name = &volume.name;
    if volume.driver != "local" {
        let driver = &volume.driver;
        return Err(format!("volume `{name}` of driver `{driver}` is there only while a container runs"));
    }
    let option = |name: &str| volume.options.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let (kind, device) = (option("type").unwrap_or("none"), option("device"));
    let is_bound = option("o").is_some_and(|options| options.split(',').any(|word| ["bind", "rbind"].contains(&word)));
    match device {
        // What else there is (`size`) mounts nothing.
        None if kind == "none" => Ok(source),
        Some(device) if is_bound && device.starts_with('/') => Ok(PathBuf::from(device)),
        Some(_) | None => {
            Err(format!("volume `{name}` is a mount of type `{kind}`, there only while a container runs"))
        }
    }
}

/// The services that have `source` mounted.
async fn users(engine: &Engine, containers: &[Container], source: &Path) -> Result<Vec<String>, DockerError> {
    let mut users = Vec::new();
    for container in containers {
        let mounts = project::inspect(engine, &container.id).await?.mounts.unwrap_or_default();
        let has = mounts.iter().any(|mount| mount.source.as_deref().map(Path::new) == Some(source));
        if has && !users.contains(&container.service) {
            users.push(container.service.clone());
        }
    }
    Ok(users)
}

/// Whether `source` on this machine is what the container has at `path`; if not, why.
async fn check(engine: &Engine, id: &str, path: &str, source: &Path) -> Result<Result<(), String>, DockerError> {
    let cannot = |why: &str| Err(format!("the artifact store {} cannot be read here: {why}", source.display()));
    if engine.endpoint().socket().is_none() {
        return Ok(cannot("the engine is on another machine, and reading it there is not built yet"));
    }
    let here = match std::fs::metadata(source) {
        Ok(here) => here,
        Err(error) => return Ok(cannot(&error.to_string())),
    };
    let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
    let asked = engine.docker().get_container_archive_info(id, Some(options));
    let there = engine.ask(format!("look at `{path}` of service `{SERVER}`"), asked).await?;
    if is_same(&here, &there) {
        return Ok(Ok(()));
    }
    Ok(cannot("this path is another folder there; this program must see the host's own folders"))
}

fn is_same(here: &std::fs::Metadata, there: &PathStatResponse) -> bool {
    let time = there.modification_time.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
    let same_time = time.is_some_and(|time| {
        i128::from(here.mtime()) * 1_000_000_000 + i128::from(here.mtime_nsec()) == time.as_nanosecond()
    });
    same_time && here.mode() & PERMISSIONS == there.file_mode & PERMISSIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(driver: &str, options: &[(&str, &str)]) -> Result<PathBuf, String> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let volume = Volume { name: "v".to_owned(), driver: driver.to_owned(), options, ..Volume::default() };
        folder_of(&volume, PathBuf::from("/_data"))
    }

    #[test]
    fn a_volume_without_a_mount_of_its_own_lies_where_the_engine_says() {
        for options in [&[][..], &[("size", "10G")], &[("type", ""), ("o", ""), ("device", "")]] {
            assert_eq!(folder("local", options), Ok(PathBuf::from("/_data")), "{options:?}");
        }
    }

    #[test]
    fn a_volume_that_shows_another_folder_lies_there() {
        let options = [("type", "none"), ("o", "ro,bind"), ("device", "/srv/artifacts")];
        assert_eq!(folder("local", &options), Ok(PathBuf::from("/srv/artifacts")));
    }

    #[test]
    fn a_volume_that_is_there_only_while_a_container_runs_is_refused_without_telling_its_options() {
        let login = "username=a,password=hunter2";
        let cases = [
            folder("local", &[("type", "nfs"), ("o", "addr=h,rw"), ("device", ":/export")]),
            folder("local", &[("type", "cifs"), ("o", login), ("device", "//h/share")]),
            folder("local", &[("type", "tmpfs"), ("o", "size=1m")]),
            folder("local", &[("type", "ext4"), ("device", "/dev/sdb1")]),
            folder("sshfs", &[]),
        ];
        for refused in cases {
            let why = refused.expect_err("it must be refused");
            assert!(why.contains("only while a container runs") && !why.contains("hunter2"), "{why}");
        }
    }
}
