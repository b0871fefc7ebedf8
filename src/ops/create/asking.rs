//! What a deployment is asked before anything of it is stopped.
//!
//! Does not: change anything.

use super::{Opened, Run, redact};
use crate::component::{self, Component, OpenComponents};
use crate::deployment::{ComponentKind, Inspection};
use crate::error::Error;
use crate::ops::evidence::StepFacts;
use crate::provider::{Provider, Reach, ServiceState};

impl Run<'_> {
    pub(super) async fn open(&self, reach: &Reach) -> Result<Opened, Error> {
        let entropy = &self.context.outside.entropy;
        let wanted = |name: &str| self.plan.wants(name);
        let asked = self.plan.options.neo4j_metadata;
        let opening = component::open(reach, entropy, &wanted, asked.unwrap_or_default());
        let OpenComponents { streams, folders } = self.context.cancel.or(opening).await??;
        let neo4j = streams.iter().filter(|component| component.info().kind == ComponentKind::Neo4j);
        for component in neo4j.filter(|_| asked.is_some()) {
            if let Err(reason) = component.takes_metadata() {
                self.context.info(format!("`--neo4jmetadata` has no effect on `{}`: {reason}", component.info().name));
            }
        }
        if self.plan.options.redact {
            redact::check(&streams)?;
        }
        Ok(Opened { streams, folders })
    }

    /// Asks the components while they run. One whose service is stopped is not asked.
    pub(super) async fn inspect(
        &self,
        provider: &dyn Provider,
        streams: &[Box<dyn Component>],
    ) -> Result<Vec<Inspection>, Error> {
        let mut inspections = Vec::new();
        for component in streams {
            let info = component.info();
            let mut runs = true;
            for service in info.asked_of(&info.stopped_for_dump) {
                runs &= provider.state(service).await? == ServiceState::Running;
            }
            if !runs {
                self.context.warn(format!("`{}` is not running and is not asked for versions and counts", info.name));
                inspections.push(Inspection::default());
                continue;
            }
            let step = self.recorder.begin(self.context, "inspect", &info.name);
            let result = self.context.cancel.or(component.inspect()).await;
            let facts = |found: &Inspection| StepFacts {
                numbers: found.counts.clone(),
                note: Some(found.evidence.clone()),
                ..StepFacts::default()
            };
            inspections.push(self.recorder.end_with(self.context, step, result.and_then(|found| Ok(found?)), facts)?);
        }
        Ok(inspections)
    }

    /// The version of Infrahub. A snapshot without it is better than none.
    pub(super) async fn version(&self, provider: &dyn Provider) -> Result<Option<String>, Error> {
        Ok(self.context.cancel.or(provider.infrahub_version()).await?.unwrap_or_else(|error| {
            self.context.warn(Error::from(error).chain().join(": "));
            None
        }))
    }
}
