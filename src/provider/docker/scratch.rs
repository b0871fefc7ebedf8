//! A command in a container that has the image of a service and nothing else of it: no volume, no variable, no network.
//!
//! Holds: its data lies on a volume without a name, made with it and removed with it. Both are labelled as other containers of
//! ours, so that what a killed run left is found, the volume also where somebody removed its container by hand.

use std::collections::HashMap;
use std::io;

use async_trait::async_trait;
use bollard::models::{ContainerCreateBody, ContainerSummary, HostConfig, Mount, MountType, MountVolumeOptions};
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptions};

use super::engine::Engine;
use super::error::DockerError;
use super::one_off::{self, Beside, LABEL, Like, OWNER_LABEL, Volumes};
use crate::provider::exec::place::{Place, Placed, PlacedCommand};

/// The label of containers whose volumes go with them.
const SCRATCH_LABEL: &str = "infrahub-backup.scratch";

/// Beside a service, with an empty volume in the place of its data.
#[derive(Debug, Clone)]
pub struct Scratch {
    pub(super) beside: Beside,
    /// Where the volume is in the container.
    pub(super) data: &'static str,
}

impl Scratch {
    async fn begin(&self, command: PlacedCommand) -> Result<Placed, DockerError> {
        let like = self.beside.like().await?;
        let doing = format!("make a scratch container like `{}`", like.name);
        one_off::run(&self.beside.engine, &doing, self.body(like, command), Volumes::Go).await
    }

    fn body(&self, like: Like, command: PlacedCommand) -> ContainerCreateBody {
        let Like { config, host, image, .. } = like;
        let mut labels = self.beside.labels();
        let volume = MountVolumeOptions { labels: Some(labels.clone()), ..MountVolumeOptions::default() };
        labels.insert(SCRATCH_LABEL.to_owned(), "true".to_owned());
        let mount = Mount {
            target: Some(self.data.to_owned()),
            typ: Some(MountType::VOLUME),
            volume_options: Some(volume),
            ..Mount::default()
        };
        // What the service may not exceed, what stands in for it may not either.
        let memory = host.memory;
        let host_config = HostConfig { mounts: Some(vec![mount]), memory, ..one_off::closed(host) };
        ContainerCreateBody {
            image: Some(image),
            // Servers look their own name up, and without a network no other one is found.
            hostname: Some("localhost".to_owned()),
            env: Some(command.variables().collect()),
            user: self.beside.user(&config),
            entrypoint: self.beside.entrypoint.clone(),
            labels: Some(labels),
            host_config: Some(host_config),
            ..one_off::body(command)
        }
    }
}

#[async_trait]
impl Place for Scratch {
    async fn start(&self, command: PlacedCommand) -> io::Result<Placed> {
        self.begin(command).await.map_err(io::Error::other)
    }
}

/// What becomes of the volumes of a container that was left.
pub(super) fn volumes(container: &ContainerSummary) -> Volumes {
    let scratch = container.labels.as_ref().is_some_and(|labels| labels.contains_key(SCRATCH_LABEL));
    if scratch { Volumes::Go } else { Volumes::Stay }
}

/// Removes volumes that are left for `project` of the runs of `owner` without a container; how many that were.
pub(super) async fn remove_left(engine: &Engine, project: &str, owner: &str) -> Result<usize, DockerError> {
    let labels = vec![format!("{LABEL}={project}"), format!("{OWNER_LABEL}={owner}")];
    let filters = HashMap::from([("label".to_owned(), labels)]);
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let found = engine.ask("list volumes", engine.docker().list_volumes(Some(options))).await?;
    let mut removed = 0;
    for volume in found.volumes.unwrap_or_default() {
        let removing = engine.docker().remove_volume(&volume.name, None::<RemoveVolumeOptions>);
        let result = engine.ask("remove a volume", removing).await;
        match result.as_ref().err().and_then(DockerError::status) {
            // Gone, or in use: whoever uses it is a container, and removed as that.
            Some(404 | 409) => {}
            Some(_) | None => {
                result?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_volumes_that_were_made_for_a_container_go_with_it() {
        let container = |label: &str| ContainerSummary {
            labels: Some(HashMap::from([(label.to_owned(), "true".to_owned())])),
            ..ContainerSummary::default()
        };
        assert_eq!(volumes(&container(SCRATCH_LABEL)), Volumes::Go);
        assert_eq!(volumes(&container(LABEL)), Volumes::Stay);
        assert_eq!(volumes(&ContainerSummary::default()), Volumes::Stay);
    }
}
