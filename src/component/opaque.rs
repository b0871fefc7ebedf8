//! A component of unknown content: a dump command and a load command, nothing that could be asked.

use std::time::Duration;

use async_trait::async_trait;

use super::stream::{ExecDump, ExecLoad};
use super::{Component, ComponentError, DumpStream, LoadStream};
use crate::deployment::{ComponentInfo, Inspection};
use crate::provider::exec::CommandSpec;
use crate::provider::secret::Masker;

/// A component behind two commands.
pub struct Opaque {
    info: ComponentInfo,
    dump: Option<CommandSpec>,
    load: Option<CommandSpec>,
    masker: Masker,
}

impl Opaque {
    /// Takes the commands, as far as they are configured.
    pub fn new(info: ComponentInfo, dump: Option<CommandSpec>, load: Option<CommandSpec>, masker: Masker) -> Self {
        Self { info, dump, load, masker }
    }
}

/// The command, or an error that names the missing key.
pub(super) fn wanted<'a>(
    info: &ComponentInfo,
    spec: Option<&'a CommandSpec>,
    what: &'static str,
) -> Result<&'a CommandSpec, ComponentError> {
    spec.ok_or_else(|| ComponentError::NotConfigured { component: info.name.clone(), what })
}

#[async_trait]
impl Component for Opaque {
    fn info(&self) -> &ComponentInfo {
        &self.info
    }

    /// Nothing is known about it.
    async fn inspect(&self) -> Result<Inspection, ComponentError> {
        Ok(Inspection { evidence: "a component of kind `opaque` is not asked".to_owned(), ..Inspection::default() })
    }

    async fn dump(&self) -> Result<Box<dyn DumpStream>, ComponentError> {
        let spec = wanted(&self.info, self.dump.as_ref(), "dump")?;
        Ok(Box::new(ExecDump::start(&self.info.name, spec, &self.masker).await?))
    }

    async fn load(&self) -> Result<Box<dyn LoadStream>, ComponentError> {
        let spec = wanted(&self.info, self.load.as_ref(), "load")?;
        Ok(Box::new(ExecLoad::start(&self.info.name, spec, &self.masker).await?))
    }

    /// There is nothing to ask: whether its services serve is the provider's business.
    async fn wait_ready(&self, _: Duration) -> Result<(), ComponentError> {
        Ok(())
    }
}
