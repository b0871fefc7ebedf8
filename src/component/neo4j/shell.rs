//! A Neo4j server in a container, asked by its own `cypher-shell`.
//!
//! Holds: the password stands in the environment of the command only, and every question is bounded in time.

use std::sync::Arc;
use std::time::Duration;

use crate::component::ComponentError;
use crate::provider::docker::DockerProvider;
use crate::provider::exec::{self, CommandSpec};

/// The database that knows the others.
pub(super) const SYSTEM: &str = "system";

/// What enters one server.
#[derive(Clone)]
pub(super) struct Shell {
    pub(super) component: String,
    pub(super) provider: Arc<DockerProvider>,
    /// The database that is backed up.
    pub(super) database: String,
    /// The way in, without a command.
    pub(super) spec: CommandSpec,
}

impl Shell {
    /// The command that asks `statement` in a database.
    pub(super) fn asks(&self, database: &str, statement: &str, limit: Duration) -> CommandSpec {
        let mut spec = self.spec.clone();
        let argv = ["cypher-shell", "--format", "plain", "-d", database, statement];
        spec.argv = argv.map(str::to_owned).to_vec();
        spec.total_timeout = limit;
        spec
    }

    /// The last line of what is answered.
    pub(super) async fn query_in(
        &self,
        database: &str,
        statement: &str,
        limit: Duration,
    ) -> Result<String, ComponentError> {
        let said = exec::run(&self.asks(database, statement, limit), self.provider.masker()).await;
        let said = said.map_err(|error| self.query_error(statement, Box::new(error)))?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        Ok(text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned())
    }

    /// The same in the database that is backed up.
    pub(super) async fn query(&self, statement: &str, limit: Duration) -> Result<String, ComponentError> {
        self.query_in(&self.database, statement, limit).await
    }

    pub(super) fn query_error(
        &self,
        question: &str,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> ComponentError {
        ComponentError::Query { component: self.component.clone(), question: question.to_owned(), source }
    }
}
