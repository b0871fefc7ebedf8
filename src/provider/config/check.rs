//! What a configuration must fulfil beyond its form. Each function returns the problem as a sentence.

use std::collections::BTreeSet;

use super::{BespokeConfig, ComponentConfig, EditionSetting, ServiceConfig};
use crate::deployment::ComponentKind;

/// Longest name, in bytes.
const NAME_SIZE_MAX: usize = 64;

/// Longest name of a PostgreSQL database, in bytes (`NAMEDATALEN` - 1).
const POSTGRES_NAME_SIZE_MAX: usize = 63;

pub(super) fn check(config: &BespokeConfig) -> Result<(), String> {
    name("deployment", &config.deployment.name)?;
    unique("service", config.services.iter().map(|service| service.name.as_str()))?;
    unique("component", config.components.iter().map(|component| component.name.as_str()))?;
    if config.components.is_empty() {
        return Err("there is no `[[component]]`".to_owned());
    }
    argv("`[scratch]`", "clean", config.scratch.as_ref().and_then(|scratch| scratch.clean.as_ref()))?;
    timeouts("`[defaults]`", config.defaults.stall_timeout, config.defaults.total_timeout)?;
    config.services.iter().try_for_each(service)?;
    config.components.iter().try_for_each(|item| component(config, item))
}

fn name(what: &str, name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > NAME_SIZE_MAX || !name.chars().all(good) || name.starts_with(['-', '.']) {
        return Err(format!("`{name}` cannot name a {what}: letters, digits, `-`, `_`, `.`, at most {NAME_SIZE_MAX}"));
    }
    Ok(())
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for item in names {
        name(what, item)?;
        if !seen.insert(item) {
            return Err(format!("two {what}s have the name `{item}`"));
        }
    }
    Ok(())
}

fn timeouts(place: &str, stall: std::time::Duration, total: std::time::Duration) -> Result<(), String> {
    if stall > total {
        return Err(format!("{place}: `stall_timeout` is longer than `total_timeout`"));
    }
    Ok(())
}

fn service(service: &ServiceConfig) -> Result<(), String> {
    let place = format!("service `{}`", service.name);
    argv(&place, "stop", Some(&service.stop))?;
    argv(&place, "start", Some(&service.start))?;
    argv(&place, "probe", Some(&service.probe))?;
    argv(&place, "ready", service.ready.as_ref())?;
    if service.stopped_codes.is_empty() || service.stopped_codes.contains(&0) {
        return Err(format!("{place}: `stopped_codes` must name exit codes other than 0"));
    }
    Ok(())
}

fn argv(place: &str, key: &str, argv: Option<&Vec<String>>) -> Result<(), String> {
    match argv.map(|argv| argv.first()) {
        Some(None) => Err(format!("{place}: `{key}` is empty")),
        Some(Some(program)) if program.is_empty() => Err(format!("{place}: the program of `{key}` is empty")),
        Some(Some(_)) | None => Ok(()),
    }
}

fn component(config: &BespokeConfig, component: &ComponentConfig) -> Result<(), String> {
    let place = format!("component `{}`", component.name);
    for service in component.service.iter().chain(&component.also_stop).chain(&component.also_stop_for_load) {
        if config.service(service).is_none() {
            return Err(format!("{place}: there is no service `{service}`"));
        }
    }
    argv(&place, "dump", component.dump.as_ref())?;
    argv(&place, "load", component.load.as_ref())?;
    let stall = component.stall_timeout.unwrap_or(config.defaults.stall_timeout);
    timeouts(&place, stall, component.total_timeout.unwrap_or(config.defaults.total_timeout))?;
    only_for(component, &place)?;
    match component.kind {
        ComponentKind::Neo4j => neo4j(component, &place),
        ComponentKind::Postgres => postgres(config, component, &place),
        ComponentKind::Artifacts => artifacts(component, &place),
        ComponentKind::Opaque => both_commands(component, &place),
    }
}

/// Sections and keys that only one kind has.
fn only_for(component: &ComponentConfig, place: &str) -> Result<(), String> {
    let keys = [
        ("neo4j", ComponentKind::Neo4j, component.neo4j.is_some()),
        ("edition", ComponentKind::Neo4j, component.edition.is_some()),
        ("postgres", ComponentKind::Postgres, component.postgres.is_some()),
        ("path", ComponentKind::Artifacts, component.path.is_some()),
    ];
    for (key, kind, given) in keys {
        if given && component.kind != kind {
            let (wanted, found) = (kind.as_str(), component.kind.as_str());
            return Err(format!("{place}: `{key}` belongs to kind `{wanted}`, not to `{found}`"));
        }
    }
    Ok(())
}

fn both_commands(component: &ComponentConfig, place: &str) -> Result<(), String> {
    for (key, given) in [("dump", component.dump.is_some()), ("load", component.load.is_some())] {
        if !given {
            return Err(format!("{place}: `{key}` is missing"));
        }
    }
    Ok(())
}

fn neo4j(component: &ComponentConfig, place: &str) -> Result<(), String> {
    both_commands(component, place)?;
    let edition = component.edition.unwrap_or_default();
    match (edition, &component.neo4j) {
        (EditionSetting::Auto, None) => Err(format!(
            "{place}: without `[component.neo4j]` the edition cannot be asked for: give `edition = \"community\"` or \
             `edition = \"enterprise\"`"
        )),
        (EditionSetting::Enterprise, None) => {
            Err(format!("{place}: Enterprise is stopped through bolt for a load: `[component.neo4j]` is missing"))
        }
        (EditionSetting::Auto | EditionSetting::Community, _) if component.service.is_none() => {
            Err(format!("{place}: `service` is missing: a Community database is stopped for its dump"))
        }
        (_, Some(section)) => neo4j_uri(&section.uri, place),
        (EditionSetting::Community, None) => Ok(()),
    }
}

fn neo4j_uri(uri: &str, place: &str) -> Result<(), String> {
    let schemes = ["bolt://", "bolt+s://", "neo4j://", "neo4j+s://"];
    let rest = schemes.iter().find_map(|scheme| uri.strip_prefix(scheme));
    match rest {
        // Not repeated: what stands before the `@` may be a password.
        Some(rest) if rest.contains('@') => Err(format!("{place}: `uri` must not hold a user or a password")),
        Some("") | None => Err(format!("{place}: `uri` must begin with one of {} and name a host", schemes.join(", "))),
        Some(_) => Ok(()),
    }
}

fn postgres(config: &BespokeConfig, component: &ComponentConfig, place: &str) -> Result<(), String> {
    let Some(section) = &component.postgres else {
        return Err(format!("{place}: `[component.postgres]` is missing"));
    };
    for (key, value) in [
        ("host", &section.host),
        ("user", &section.user),
        ("database", &section.database),
        ("maintenance_database", &section.maintenance_database),
    ] {
        if value.is_empty() || value.contains('\0') {
            return Err(format!("{place}: `{key}` is empty or holds a zero byte"));
        }
    }
    // The tools would take it for a connection string.
    if section.database.contains('=') || section.database.contains("://") {
        return Err(format!("{place}: `database` must be a name, not a connection string"));
    }
    if section.database.len() > POSTGRES_NAME_SIZE_MAX {
        return Err(format!("{place}: `database` is longer than {POSTGRES_NAME_SIZE_MAX} bytes"));
    }
    if section.database == section.maintenance_database {
        return Err(format!("{place}: `database` and `maintenance_database` must differ"));
    }
    if ["template0", "template1"].contains(&section.database.as_str()) {
        return Err(format!("{place}: `{}` is a template, not a database to load", section.database));
    }
    let own_load = component.load.as_ref().is_some_and(|load| !load.iter().any(|word| word.contains("{database}")));
    if own_load && !config.component_wrap(component).is_empty() {
        return Err(format!(
            "{place}: `load` needs `{{database}}` in an argument: behind a wrapper `PGDATABASE` may not arrive, and the \
             database itself would be loaded"
        ));
    }
    Ok(())
}

fn artifacts(component: &ComponentConfig, place: &str) -> Result<(), String> {
    for (key, given) in [("dump", component.dump.is_some()), ("load", component.load.is_some())] {
        if given {
            return Err(format!("{place}: `{key}` does not belong to kind `artifacts`, whose folder is read itself"));
        }
    }
    match &component.path {
        None => Err(format!("{place}: `path` is missing")),
        Some(path) if !path.is_absolute() => Err(format!("{place}: `path` must be absolute")),
        Some(_) => Ok(()),
    }
}
