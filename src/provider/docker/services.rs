//! What each service of an Infrahub deployment is to a backup.
//!
//! Holds: only services of this list are touched. The order of starting is Compose's own, from the labels of its
//! containers; between services that do not depend on each other it is the order of the list.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::project::Container;
use super::store::{Place, Store};
use super::{ARTIFACTS, DATABASE, DockerError, DockerProvider, TASK_MANAGER_DB, User};
use crate::deployment::{ComponentInfo, ComponentKind};
use crate::provider::exec::{self, CommandSpec};

/// All services that are stopped for anything.
const SERVICES: [&str; 8] = [
    DATABASE,
    TASK_MANAGER_DB,
    "cache",
    "message-queue",
    "task-manager",
    "task-manager-background-svc",
    "infrahub-server",
    "task-worker",
];

/// Those that write to the databases by themselves.
const WRITERS: [&str; 4] = ["task-manager", "task-manager-background-svc", "infrahub-server", "task-worker"];

/// Those whose content is only of use to what was in the databases, and where it lies.
const TRANSIENT: [(&str, &str); 2] = [("cache", "/data"), ("message-queue", "/var/lib/rabbitmq")];

/// The services that a project has.
pub(super) struct Found {
    /// In the order in which they start.
    pub(super) order: Vec<String>,
    /// Of each those that start before it.
    pub(super) after: BTreeMap<String, Vec<String>>,
}

pub(super) fn found(containers: &[Container]) -> Found {
    let there = |name: &str| containers.iter().any(|container| container.service == name);
    let services: Vec<String> = SERVICES.iter().filter(|name| there(name)).map(|name| (*name).to_owned()).collect();
    let after: BTreeMap<String, Vec<String>> = services
        .iter()
        .map(|name| {
            let own = containers.iter().filter(|container| container.service == *name);
            let others: Vec<String> = own.flat_map(|container| container.depends_on.clone()).collect();
            (name.clone(), services.iter().filter(|other| others.contains(other)).cloned().collect())
        })
        .collect();
    Found { order: ordered(services, &after), after }
}

/// Each service behind those that it needs. Compose lets nobody depend on himself; where labels say so all the same, the
/// order of the list must do.
fn ordered(mut left: Vec<String>, after: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    while !left.is_empty() {
        let ready = |name: &String| after[name].iter().all(|needed| order.contains(needed));
        let next = left.iter().position(ready).unwrap_or(0);
        order.push(left.remove(next));
    }
    order
}

/// The components of a deployment whose database's image names this edition. For a backup of Enterprise nothing is stopped.
pub(super) fn components(services: &[String], store: &Store, edition: Option<&str>) -> Vec<ComponentInfo> {
    let only = |names: &[&str]| -> Vec<String> {
        services.iter().filter(|name| names.contains(&name.as_str())).cloned().collect()
    };
    let transient = TRANSIENT.map(|(name, _)| name);
    let for_load = |own: &[&str]| only(&[own, &WRITERS, &transient].concat());
    let mut components = vec![ComponentInfo {
        name: DATABASE.to_owned(),
        kind: ComponentKind::Neo4j,
        service: Some(DATABASE.to_owned()),
        stopped_for_dump: match edition {
            Some("enterprise") => vec![],
            Some(_) | None => only(&[&[DATABASE][..], &WRITERS].concat()),
        },
        stopped_for_load: for_load(&[DATABASE]),
        folder: None,
    }];
    if services.iter().any(|name| name == TASK_MANAGER_DB) {
        components.push(ComponentInfo {
            name: TASK_MANAGER_DB.to_owned(),
            kind: ComponentKind::Postgres,
            service: Some(TASK_MANAGER_DB.to_owned()),
            stopped_for_dump: vec![],
            stopped_for_load: for_load(&[]),
            folder: None,
        });
    }
    components.push(ComponentInfo {
        name: ARTIFACTS.to_owned(),
        kind: ComponentKind::Artifacts,
        service: None,
        stopped_for_dump: vec![],
        stopped_for_load: services.iter().filter(|name| store.users.contains(name)).cloned().collect(),
        folder: match &store.place {
            Ok(Place::Folder(folder)) => Some(folder.clone()),
            Ok(Place::Bucket(_)) | Err(_) => None,
        },
    });
    components
}

/// Empties a service that is stopped, if all it holds was of use to what the databases held before only. Gives what was
/// emptied, or why it was not.
pub(super) async fn clear(provider: &DockerProvider, service: &str) -> Result<Option<String>, DockerError> {
    let Some((_, path)) = TRANSIENT.iter().find(|(name, _)| *name == service) else { return Ok(None) };
    let mounted = provider.mounted(service).await?;
    if !mounted.iter().any(|mount| mount == path) {
        return Ok(Some(format!("`{path}` of `{service}` is on no volume and was left as it is")));
    }
    let below: Vec<&String> = mounted.iter().filter(|mount| is_below(mount, path)).collect();
    let mut spec = CommandSpec::new(find_and_delete(path, &below));
    // An empty word instead of the image's entry point: the command runs as it is.
    let entrypoint = Some(vec![String::new()]);
    spec.place = Some(Arc::new(provider.beside(service, User::Named("0:0".to_owned()), entrypoint)));
    let done = exec::run(&spec, provider.masker()).await;
    done.map_err(|source| DockerError::NotCleared { service: service.to_owned(), source: Box::new(source) })?;
    let but: String = below.iter().map(|mount| format!(", but not `{mount}`, which is another volume")).collect();
    Ok(Some(format!("emptied `{path}` of `{service}`{but}")))
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder.trim_end_matches('/')).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}

/// Deletes all that is in `path`, less what is mounted `below` it, and the folders on the way there. That a file system is
/// another one does not tell: two volumes may lie on one.
fn find_and_delete(path: &str, below: &[&String]) -> Vec<String> {
    let mut argv = ["find", path, "-xdev", "-mindepth", "1"].map(str::to_owned).to_vec();
    let mut leave = |pattern: String| argv.extend(["!".to_owned(), "-path".to_owned(), pattern]);
    for mount in below {
        leave(format!("{}/*", literal(mount)));
        let way = mount.match_indices('/').map(|(at, _)| &mount[..at]).filter(|folder| is_below(folder, path));
        way.chain([mount.as_str()]).for_each(|folder| leave(literal(folder)));
    }
    argv.push("-delete".to_owned());
    argv
}

/// A pattern that only this path fits.
fn literal(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for letter in path.chars() {
        if "*?[]\\".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_below_a_folder_that_is_emptied_stays() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display().to_string();
        let mount = format!("{root}/a/m*nt");
        for path in ["a/m*nt/deep/er", "a/mint/x", "a/b", "c/d"] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let argv = find_and_delete(&root, &[&mount]);
        let found = std::process::Command::new(&argv[0]).args(&argv[1..]).status().unwrap();
        assert!(found.success(), "{argv:?}");
        let names = |path: &str| {
            let found = std::fs::read_dir(folder.path().join(path)).unwrap();
            found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(
            (names(""), names("a"), names("a/m*nt/deep")),
            (vec!["a".to_owned()], vec!["m*nt".to_owned()], vec!["er".to_owned()])
        );
    }

    #[test]
    fn only_a_whole_name_lies_below() {
        assert!(is_below("/data/a", "/data") && is_below("/data/a", "/data/"));
        assert!(!is_below("/data", "/data") && !is_below("/database/a", "/data") && !is_below("/data/", "/data"));
    }

    #[test]
    fn a_service_starts_behind_those_that_it_needs() {
        let names = ["database", "cache", "infrahub-server"].map(str::to_owned).to_vec();
        let needs = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let after = BTreeMap::from([
            ("database".to_owned(), needs(&["infrahub-server"])),
            ("cache".to_owned(), vec![]),
            ("infrahub-server".to_owned(), needs(&["cache"])),
        ]);
        assert_eq!(ordered(names.clone(), &after), ["cache", "infrahub-server", "database"]);
        let circle = names.iter().map(|name| (name.clone(), names.clone())).collect();
        assert_eq!(ordered(names.clone(), &circle), names);
    }
}
