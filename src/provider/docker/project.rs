//! Compose projects and their services, by the labels that Compose gives its containers.
//!
//! Holds: names are compared whole; containers of `compose run` are nobody's service. Does not: change anything.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::ListContainersOptionsBuilder;

use super::engine::Engine;
use super::error::DockerError;

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const NUMBER: &str = "com.docker.compose.container-number";
const ONE_OFF: &str = "com.docker.compose.oneoff";
const DEPENDS_ON: &str = "com.docker.compose.depends_on";

/// The services without which a project is no Infrahub deployment.
const NEEDED: [&str; 2] = ["database", "infrahub-server"];

/// One container of a service.
#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) id: String,
    /// For people.
    pub(super) name: String,
    pub(super) service: String,
    number: u32,
    pub(super) state: ContainerSummaryStateEnum,
    /// Services that are started before this one, from its labels.
    pub(super) depends_on: Vec<String>,
}

impl Container {
    fn new(summary: ContainerSummary) -> Option<(String, Self)> {
        let labels = summary.labels.unwrap_or_default();
        if labels.get(ONE_OFF).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        let (project, service) = (labels.get(PROJECT)?.clone(), labels.get(SERVICE)?.clone());
        let id = summary.id?;
        let name = summary.names.and_then(|names| names.into_iter().next());
        let name = name.map_or_else(|| id.clone(), |name| name.trim_start_matches('/').to_owned());
        let number = labels.get(NUMBER).and_then(|number| number.parse().ok()).unwrap_or(u32::MAX);
        let state = summary.state.unwrap_or(ContainerSummaryStateEnum::EMPTY);
        let depends_on = labels.get(DEPENDS_ON).map(|text| dependencies(text)).unwrap_or_default();
        Some((project, Self { id, name, service, number, state, depends_on }))
    }
}

/// `a:service_healthy:false,b:service_started:true`, as Compose writes it.
fn dependencies(text: &str) -> Vec<String> {
    let name = |part: &str| part.split(':').next().unwrap_or_default().to_owned();
    text.split(',').map(name).filter(|name| !name.is_empty()).collect()
}

/// All containers of Compose projects, by project, in the order of service and number.
pub(super) async fn all(engine: &Engine) -> Result<BTreeMap<String, Vec<Container>>, DockerError> {
    listed(engine, vec![PROJECT.to_owned()]).await
}

/// The containers of one service, the first replica first.
pub(super) async fn of_service(engine: &Engine, project: &str, service: &str) -> Result<Vec<Container>, DockerError> {
    let labels = vec![format!("{PROJECT}={project}"), format!("{SERVICE}={service}")];
    let found = listed(engine, labels).await?.remove(project).unwrap_or_default();
    if found.is_empty() {
        let (project, service) = (project.to_owned(), service.to_owned());
        return Err(DockerError::NoContainer { project, service });
    }
    Ok(found)
}

async fn listed(engine: &Engine, labels: Vec<String>) -> Result<BTreeMap<String, Vec<Container>>, DockerError> {
    let filters = HashMap::from([("label".to_owned(), labels)]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let found = engine.ask("list containers", engine.docker().list_containers(Some(options))).await?;
    let mut projects: BTreeMap<String, Vec<Container>> = BTreeMap::new();
    for (project, container) in found.into_iter().filter_map(Container::new) {
        projects.entry(project).or_default().push(container);
    }
    for containers in projects.values_mut() {
        containers.sort_by(|a, b| (&a.service, a.number, &a.id).cmp(&(&b.service, b.number, &b.id)));
    }
    Ok(projects)
}

/// What the engine knows of a container.
pub(super) async fn inspect(engine: &Engine, id: &str) -> Result<ContainerInspectResponse, DockerError> {
    engine.ask(format!("inspect container `{id}`"), engine.docker().inspect_container(id, None)).await
}

/// Names of the projects that are Infrahub deployments.
pub async fn deployments(engine: &Engine) -> Result<Vec<String>, DockerError> {
    let projects = all(engine).await?;
    Ok(projects.into_iter().filter(|(_, containers)| is_deployment(containers)).map(|(name, _)| name).collect())
}

fn is_deployment(containers: &[Container]) -> bool {
    NEEDED.iter().all(|needed| containers.iter().any(|container| container.service == *needed))
}

/// The project to work on and its containers: the named one, or the only one that is an Infrahub deployment.
pub(super) async fn choose(engine: &Engine, named: Option<&str>) -> Result<(String, Vec<Container>), DockerError> {
    let mut projects = all(engine).await?;
    let known: Vec<String> = projects.keys().cloned().collect();
    let name = match named {
        Some(name) => name.to_owned(),
        None => {
            let mut found: Vec<String> = projects
                .iter()
                .filter(|(_, containers)| is_deployment(containers))
                .map(|(name, _)| name.clone())
                .collect();
            match found.len() {
                0 => return Err(DockerError::NoDeployment { known }),
                1 => found.remove(0),
                _ => return Err(DockerError::SeveralDeployments { found }),
            }
        }
    };
    let Some(containers) = projects.remove(&name) else {
        return Err(DockerError::NoProject { project: name, known });
    };
    let missing = NEEDED.iter().find(|needed| !containers.iter().any(|container| container.service == **needed));
    match missing {
        Some(service) => Err(DockerError::NoService { project: name, service }),
        None => Ok((name, containers)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_the_names_before_the_first_colon() {
        assert_eq!(dependencies("cache:service_healthy:false,database:service_started:true"), ["cache", "database"]);
        assert!(dependencies("").is_empty());
    }

    #[test]
    fn a_container_of_compose_run_is_no_service() {
        let labels = |one_off: &str| {
            let pairs = [(PROJECT, "p"), (SERVICE, "database"), (ONE_OFF, one_off)];
            Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
        };
        let summary = |one_off| ContainerSummary {
            id: Some("1".to_owned()),
            labels: labels(one_off),
            ..ContainerSummary::default()
        };
        assert!(Container::new(summary("True")).is_none());
        assert!(Container::new(summary("False")).is_some());
    }
}
