//! The snapshot of what is there before a restore replaces it.
//!
//! Holds: whatever can be read is in it, or the restore does not begin. Left out, and told before anybody agrees, is what runs
//! and does not answer; what is stopped is tried, and told if it cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Context;
use super::create::{self, CreateOptions, Source};
use crate::deployment::ComponentInfo;
use crate::error::{Error, ErrorKind};
use crate::format::manifest::SAFETY_TAG;
use crate::id::SnapshotId;
use crate::provider::{Provider, Reach, ServiceState};
use crate::repository::Repository;
use crate::state::DeploymentLock;

/// What the snapshot will hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Safety {
    /// What can be read.
    sure: Vec<String>,
    /// What is stopped: its files may be whole or not.
    tried: Vec<String>,
    /// What runs and does not answer.
    left_out: Vec<String>,
}

impl Safety {
    /// Of these components, those in `silent` did not answer.
    pub(super) async fn of(
        provider: &dyn Provider,
        components: &[ComponentInfo],
        silent: &BTreeSet<String>,
    ) -> Result<Self, Error> {
        let mut safety = Self::default();
        for info in components {
            let stopped = match &info.service {
                Some(service) if info.folder.is_none() => provider.state(service).await? == ServiceState::Stopped,
                Some(_) | None => false,
            };
            let list = match (stopped, silent.contains(&info.name)) {
                (true, _) => &mut safety.tried,
                (false, true) => &mut safety.left_out,
                (false, false) => &mut safety.sure,
            };
            list.push(info.name.clone());
        }
        Ok(safety)
    }

    /// What will be done, for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.sure.is_empty() {
            lines.push(format!("back up what is there now first: {}", self.sure.join(", ")));
        }
        for name in &self.tried {
            lines.push(format!("back up what is in `{name}` now first, if it can be read: it is stopped"));
        }
        for name in &self.left_out {
            lines.push(format!("do NOT back up what is in `{name}` now: it runs and does not answer"));
        }
        lines
    }

    /// Makes it; `None` if nothing of what is there can be read.
    pub(super) async fn make(
        &self,
        context: &Context,
        repository: &Arc<Repository>,
        reach: Reach,
        lock: &DeploymentLock,
        before: &SnapshotId,
    ) -> Result<Option<SnapshotId>, Error> {
        let components: Vec<String> = self.sure.iter().chain(&self.tried).cloned().collect();
        if components.is_empty() {
            return Ok(None);
        }
        context.info(format!("backing up what is there now: {}", components.join(", ")));
        let tags = BTreeMap::from([(SAFETY_TAG.to_owned(), format!("before restore of {before}"))]);
        let may_fail = self.tried.clone();
        let options = CreateOptions { components, tags, may_fail, allow_shrink: true, ..CreateOptions::default() };
        let plan = create::plan(context, Source::Reached(reach), options).await?;
        match create::execute_locked(context, repository, plan, lock).await {
            Ok(created) => Ok(Some(created.id)),
            Err(error) if self.sure.is_empty() && error.kind() == ErrorKind::Source => {
                context.warn(format!("nothing of what is there now can be read: {}", error.chain().join(": ")));
                Ok(None)
            }
            Err(error) => Err(error.context("what is there now could not be backed up, so nothing was touched")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
    use crate::deployment::{ComponentKind, Deployment, DeploymentKind};
    use crate::provider::{Part, ProviderError};

    /// Services whose name begins with `down` are stopped.
    struct Services(Deployment);

    #[async_trait]
    impl Provider for Services {
        fn deployment(&self) -> &Deployment {
            &self.0
        }
        async fn state(&self, service: &str) -> Result<ServiceState, ProviderError> {
            Ok(if service.starts_with("down") { ServiceState::Stopped } else { ServiceState::Running })
        }
        async fn parts(&self, _: &str) -> Result<Vec<Part>, ProviderError> {
            Ok(vec![])
        }
        async fn stop(&self, _: &str, _: &[String]) -> Result<(), ProviderError> {
            Ok(())
        }
        async fn start(&self, _: &str, _: &[String]) -> Result<(), ProviderError> {
            Ok(())
        }
        async fn wait_ready(&self, _: &str, _: &[String], _: Duration) -> Result<(), ProviderError> {
            Ok(())
        }
    }

    fn info(name: &str, service: Option<&str>) -> ComponentInfo {
        ComponentInfo {
            name: name.to_owned(),
            kind: ComponentKind::Neo4j,
            service: service.map(str::to_owned),
            stopped_for_dump: vec!["down-worker".to_owned()],
            stopped_for_load: vec![],
            folder: None,
        }
    }

    #[tokio::test]
    async fn only_what_runs_and_does_not_answer_is_left_out() {
        let services = Services(Deployment {
            name: "d".to_owned(),
            kind: DeploymentKind::Docker,
            services: vec![],
            components: vec![],
            evidence: String::new(),
        });
        let folder = ComponentInfo { folder: Some("/a".into()), ..info("artifacts", Some("down-server")) };
        let components = [
            info("answers", Some("up")),
            info("hangs", Some("up")),
            info("stopped", Some("down")),
            info("unknown", None),
            folder,
        ];
        let silent = ["hangs", "stopped"].map(str::to_owned).into();
        let safety = Safety::of(&services, &components, &silent).await.unwrap();
        assert_eq!(safety.sure, ["answers", "unknown", "artifacts"]);
        assert_eq!(safety.tried, ["stopped"]);
        assert_eq!(safety.left_out, ["hangs"]);
    }
}
