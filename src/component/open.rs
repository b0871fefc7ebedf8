//! From a configuration to components.

use std::sync::Arc;

use super::neo4j::Neo4j;
use super::opaque::Opaque;
use super::postgres::Postgres;
use super::{Component, ComponentError};
use crate::deployment::{ComponentInfo, ComponentKind};
use crate::env::Entropy;
use crate::provider::bespoke::{BespokeProvider, info};
use crate::provider::config::{ComponentConfig, EditionSetting};
use crate::provider::exec::CommandSpec;

/// What [`open_components`] gives, each list in the order of the configuration.
pub struct OpenComponents {
    /// Components whose content is a stream.
    pub streams: Vec<Box<dyn Component>>,
    /// Components that are a folder of files; `folder` is set.
    pub folders: Vec<ComponentInfo>,
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
    }
}
