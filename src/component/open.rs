//! From a configuration to components.

use std::sync::Arc;

use super::neo4j::container::ContainerNeo4j;
use super::neo4j::{Metadata, Neo4j};
use super::opaque::Opaque;
use super::postgres::Postgres;
use super::{Component, ComponentError};
use crate::deployment::{ComponentInfo, ComponentKind};
use crate::env::Entropy;
use crate::provider::bespoke::{BespokeProvider, info};
use crate::provider::config::{ComponentConfig, EditionSetting, PostgresSection};
use crate::provider::docker::{DockerProvider, TASK_MANAGER_DB};
use crate::provider::exec::CommandSpec;
use crate::provider::secret::SecretSource;
use crate::provider::{Provider as _, Reach};

/// What [`open_components`] gives, each list in the order of the configuration.
pub struct OpenComponents {
    /// Components whose content is a stream.
    pub streams: Vec<Box<dyn Component>>,
    /// Components that are a tree of files: in a folder, which is set, or in the deployment's bucket.
    pub folders: Vec<ComponentInfo>,
}

/// Opens the components for which `wanted` holds, however their deployment is reached. `metadata` is what their dumps take along.
///
/// # Errors
///
/// When something that must be known about one does not become known, or one cannot be backed up from here.
pub async fn open(
    reach: &Reach,
    entropy: &Arc<dyn Entropy>,
    wanted: &(dyn Fn(&str) -> bool + Sync),
    metadata: Metadata,
) -> Result<OpenComponents, ComponentError> {
    match reach {
        Reach::Bespoke(provider, _) => open_components(provider, entropy, wanted).await,
        Reach::Docker(provider) => open_containers(provider, entropy, wanted, metadata).await,
    }
}

async fn open_containers(
    provider: &Arc<DockerProvider>,
    entropy: &Arc<dyn Entropy>,
    wanted: &(dyn Fn(&str) -> bool + Sync),
    metadata: Metadata,
) -> Result<OpenComponents, ComponentError> {
    let mut open = OpenComponents { streams: Vec::new(), folders: Vec::new() };
    for info in provider.deployment().components.iter().filter(|info| wanted(&info.name)).cloned() {
        match info.kind {
            ComponentKind::Neo4j => {
                open.streams.push(Box::new(ContainerNeo4j::open(info, Arc::clone(provider), metadata).await?));
            }
            ComponentKind::Postgres => {
                open.streams.push(Box::new(postgres_in_container(info, provider, entropy).await?));
            }
            ComponentKind::Artifacts | ComponentKind::Opaque => match provider.store_problem() {
                None => open.folders.push(info),
                Some(problem) => {
                    let (component, problem) = (info.name, problem.to_owned());
                    return Err(ComponentError::Folder { component, problem });
                }
            },
        }
    }
    Ok(open)
}

async fn postgres_in_container(
    info: ComponentInfo,
    provider: &Arc<DockerProvider>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Postgres, ComponentError> {
    let login = provider.postgres_login().await;
    let login = login.map_err(|source| ComponentError::Docker { component: info.name.clone(), source })?;
    // To rename a database one must be in another.
    let maintenance = if login.database == "postgres" { "template1" } else { "postgres" };
    let section = PostgresSection {
        host: "localhost".to_owned(),
        port: login.port,
        user: login.user,
        password: login.password.map(SecretSource::Held),
        database: login.database,
        maintenance_database: maintenance.to_owned(),
        bin: None,
        count_rows: true,
    };
    let mut base = CommandSpec::new(vec![]);
    base.place = Some(Arc::new(provider.in_service(TASK_MANAGER_DB)));
    Ok(Postgres::at(info, section, base, provider.masker().clone(), Arc::clone(entropy)))
}

/// Opens the components of a bespoke deployment for which `wanted` holds. A Neo4j whose edition is `auto` is asked for it;
/// nothing else is run or reached.
///
/// # Errors
///
/// When an edition was asked for and did not become known.
pub async fn open_components(
    provider: &Arc<BespokeProvider>,
    entropy: &Arc<dyn Entropy>,
    wanted: &(dyn Fn(&str) -> bool + Sync),
) -> Result<OpenComponents, ComponentError> {
    let mut open = OpenComponents { streams: Vec::new(), folders: Vec::new() };
    for config in provider.config().components.iter().filter(|config| wanted(&config.name)) {
        let masker = provider.masker().clone();
        let dump = config.dump.as_ref().map(|argv| command(provider, config, argv));
        let load = config.load.as_ref().map(|argv| command(provider, config, argv));
        // The edition says something about Neo4j only; there it is replaced by what `Neo4j::open` finds out.
        let info = |edition| info(config, edition);
        match config.kind {
            ComponentKind::Neo4j => open.streams.push(Box::new(Neo4j::open(config, dump, load, masker).await?)),
            ComponentKind::Postgres => {
                let base = command(provider, config, &[]);
                let info = info(EditionSetting::Auto);
                open.streams.push(Box::new(Postgres::new(info, config, base, masker, Arc::clone(entropy))?));
            }
            ComponentKind::Artifacts => open.folders.push(info(EditionSetting::Auto)),
            ComponentKind::Opaque => {
                open.streams.push(Box::new(Opaque::new(info(EditionSetting::Auto), dump, load, masker)));
            }
        }
    }
    Ok(open)
}

/// `argv` with all that the configuration says about how this component's commands run.
fn command(provider: &BespokeProvider, component: &ComponentConfig, argv: &[String]) -> CommandSpec {
    let config = provider.config();
    CommandSpec {
        argv: argv.to_vec(),
        env: component.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        wrap: config.component_wrap(component),
        stall_timeout: component.stall_timeout.unwrap_or(config.defaults.stall_timeout),
        total_timeout: component.total_timeout.unwrap_or(config.defaults.total_timeout),
        cwd: component.cwd.clone(),
        place: None,
    }
}
