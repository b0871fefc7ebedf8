//! Connections to a PostgreSQL server, for questions and for moving databases about.
//!
//! Holds: connecting is bounded in time; no error shows a secret. Does not: TLS; a server beyond this machine is reached
//! through a tunnel.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row};

use crate::component::ComponentError;
use crate::provider::config::PostgresSection;
use crate::provider::secret::Masker;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Where and as whom to connect.
#[derive(Clone)]
pub(super) struct Server {
    component: String,
    section: PostgresSection,
    masker: Masker,
}

impl Server {
    pub(super) fn new(component: String, section: PostgresSection, masker: Masker) -> Self {
        Self { component, section, masker }
    }

    pub(super) fn component(&self) -> &str {
        &self.component
    }

    pub(super) fn section(&self) -> &PostgresSection {
        &self.section
    }

    /// A session in the database itself.
    pub(super) async fn database(&self) -> Result<Session, ComponentError> {
        self.connect(&self.section.database, CONNECT_TIMEOUT).await
    }

    /// A session in the maintenance database, opened within `limit`.
    pub(super) async fn maintenance(&self, limit: Duration) -> Result<Session, ComponentError> {
        self.connect(&self.section.maintenance_database, limit.min(CONNECT_TIMEOUT)).await
    }

    async fn connect(&self, database: &str, limit: Duration) -> Result<Session, ComponentError> {
        let question = format!("connect to database `{database}`");
        let mut config = Config::new();
        config.host(&self.section.host).port(self.section.port).user(&self.section.user).dbname(database);
        config.application_name("infrahub-backup").connect_timeout(limit);
        if let Some(source) = &self.section.password {
            let secret = source.read().await.map_err(|error| self.error(&question, Box::new(error)))?;
            self.masker.add(&secret);
            config.password(secret.expose());
        }
        let connected = tokio::time::timeout(limit, config.connect(NoTls)).await;
        let connected = connected.map_err(|error| self.error(&question, Box::new(error)))?;
        let (client, connection) = connected.map_err(|error| self.answer(&question, &error))?;
        // Its end is seen by the client as a closed connection.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Session { server: self.clone(), client, driver })
    }

    fn error(&self, question: &str, source: Box<dyn std::error::Error + Send + Sync>) -> ComponentError {
        ComponentError::Query { component: self.component.clone(), question: self.masker.mask(question), source }
    }

    /// The server's error as text, masked: it may quote a statement.
    fn answer(&self, question: &str, error: &tokio_postgres::Error) -> ComponentError {
        let message = match error.as_db_error() {
            Some(error) => format!("{}: {} ({})", error.severity(), error.message(), error.code().code()),
            None => match std::error::Error::source(error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            },
        };
        self.error(question, Box::new(PostgresError { message: self.masker.mask(&message) }))
    }
}

/// What the server or the connection said.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct PostgresError {
    message: String,
}

/// One connection; closed when dropped.
pub(super) struct Session {
    server: Server,
    client: Client,
    driver: JoinHandle<()>,
}

impl Session {
    pub(super) async fn rows(
        &self,
        statement: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, ComponentError> {
        self.client.query(statement, values).await.map_err(|error| self.server.answer(statement, &error))
    }

    /// Runs statements for their effect; several, joined by `;`, are one transaction.
    pub(super) async fn run(&self, statements: &str) -> Result<(), ComponentError> {
        self.client.batch_execute(statements).await.map_err(|error| self.server.answer(statements, &error))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// `name` as an identifier in a statement.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a string constant in a statement.
pub(super) fn literal(text: &str) -> String {
    // The form with `E` means the same whatever `standard_conforming_strings` is.
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_leave_their_quotes() {
        assert_eq!(identifier(r#"a"; DROP"#), r#""a""; DROP""#);
        assert_eq!(literal(r"it's \'"), r"E'it''s \\'''");
    }
}
