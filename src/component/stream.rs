//! Streams of a component that a command gives or takes.

use async_trait::async_trait;
use bytes::Bytes;

use super::{ComponentError, DumpStream, ExitOk, FilterStream, LoadStream};
use crate::provider::exec::{CommandSpec, Ended, ExecError, ProcessInput, ProcessOutput};
use crate::provider::secret::Masker;

impl From<Ended> for ExitOk {
    fn from(ended: Ended) -> Self {
        let Ended { command, bytes, elapsed, log } = ended;
        Self { command, bytes, elapsed, log }
    }
}

/// The standard output of a command, as a dump.
pub struct ExecDump {
    component: String,
    action: &'static str,
    process: ProcessOutput,
}

impl ExecDump {
    /// Starts the dump of `component`.
    ///
    /// # Errors
    ///
    /// When the command cannot be started.
    pub async fn start(component: &str, spec: &CommandSpec, masker: &Masker) -> Result<Self, ComponentError> {
        let action = "dump";
        let process = ProcessOutput::start(spec, masker).await.map_err(|source| failed(component, action, source))?;
        Ok(Self { component: component.to_owned(), action, process })
    }
}

#[async_trait]
impl DumpStream for ExecDump {
    async fn next(&mut self) -> Result<Option<Bytes>, ComponentError> {
        self.process.next().await.map_err(|source| failed(&self.component, self.action, source))
    }

    async fn finish(self: Box<Self>) -> Result<ExitOk, ComponentError> {
        let Self { component, action, process } = *self;
        process.finish().await.map(ExitOk::from).map_err(|source| failed(&component, action, source))
    }

    async fn abort(self: Box<Self>) {
        self.process.abort().await;
    }
}

/// The standard input of a command, as a load.
pub struct ExecLoad {
    component: String,
    process: ProcessInput,
}

impl ExecLoad {
    /// Starts the load of `component`.
    ///
    /// # Errors
    ///
    /// When the command cannot be started.
    pub async fn start(component: &str, spec: &CommandSpec, masker: &Masker) -> Result<Self, ComponentError> {
        let process = ProcessInput::start(spec, masker).await.map_err(|source| failed(component, "load", source))?;
        Ok(Self { component: component.to_owned(), process })
    }
}

#[async_trait]
impl LoadStream for ExecLoad {
    async fn write(&mut self, piece: Bytes) -> Result<(), ComponentError> {
        self.process.write(piece).await.map_err(|source| failed(&self.component, "load", source))
    }

    async fn finish(self: Box<Self>) -> Result<ExitOk, ComponentError> {
        let Self { component, process } = *self;
        process.finish().await.map(ExitOk::from).map_err(|source| failed(&component, "load", source))
    }

    async fn abort(self: Box<Self>) {
        self.process.abort().await;
    }
}

/// A command that takes a dump on its standard input and gives another one on its standard output.
pub struct ExecFilter {
    component: String,
    action: &'static str,
    process: ProcessInput,
}

impl ExecFilter {
    /// Starts what `action` says with the dump of `component`.
    ///
    /// # Errors
    ///
    /// When the command cannot be started.
    pub async fn start(
        component: &str,
        action: &'static str,
        spec: &CommandSpec,
        masker: &Masker,
    ) -> Result<Self, ComponentError> {
        let process =
            ProcessInput::start_filter(spec, masker).await.map_err(|source| failed(component, action, source))?;
        Ok(Self { component: component.to_owned(), action, process })
    }
}

#[async_trait]
impl FilterStream for ExecFilter {
    async fn write(&mut self, piece: Bytes) -> Result<(), ComponentError> {
        self.process.write(piece).await.map_err(|source| failed(&self.component, self.action, source))
    }

    async fn end_input(self: Box<Self>) -> Box<dyn DumpStream> {
        let Self { component, action, process } = *self;
        Box::new(ExecDump { component, action, process: process.end_input().await })
    }

    async fn abort(self: Box<Self>) {
        self.process.abort().await;
    }
}

fn failed(component: &str, action: &'static str, source: ExecError) -> ComponentError {
    ComponentError::Exec { component: component.to_owned(), action, source }
}
