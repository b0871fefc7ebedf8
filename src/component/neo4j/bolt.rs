//! Questions to a Neo4j server.
//!
//! Holds: every question is bounded in time (the driver by itself retries for a minute and more), and no error shows a
//! secret. Does not: keep connections; a server may have been stopped between two questions.

use std::time::Duration;

use neo4rs::{ConfigBuilder, Graph, Query};

use crate::component::TakeStorageId;
use crate::component::graph::{ROOT, Root};
use crate::provider::config::Neo4jSection;
use crate::provider::secret::{Masker, SecretError};

/// Where and as whom to ask.
#[derive(Clone)]
pub(super) struct Bolt {
    section: Neo4jSection,
    masker: Masker,
}

/// What `dbms.components()` says.
pub(super) struct Server {
    pub(super) version: String,
    /// Lower case.
    pub(super) edition: String,
}

impl Bolt {
    pub(super) fn new(section: Neo4jSection, masker: Masker) -> Self {
        Self { section, masker }
    }

    pub(super) fn uri(&self) -> &str {
        &self.section.uri
    }

    pub(super) fn database(&self) -> &str {
        &self.section.database
    }

    /// Version and edition. Asked in `system`, which is there even when the database is not.
    pub(super) async fn server(&self, limit: Duration) -> Result<Server, BoltError> {
        self.within(limit, async {
            // `system` takes no more than these clauses, so the row is picked here.
            let statement = "CALL dbms.components() YIELD name, versions, edition RETURN name, versions, edition";
            let rows = self.rows("system", statement).await?;
            let kernel = rows.iter().find(|row| row.get::<String>("name").is_ok_and(|name| name == "Neo4j Kernel"));
            let kernel = kernel.ok_or(BoltError::Answer { what: "Neo4j Kernel" })?;
            let versions = kernel.get::<Vec<String>>("versions").unwrap_or_default();
            let version = versions.into_iter().next().ok_or(BoltError::Answer { what: "versions" })?;
            let edition = kernel.get::<String>("edition").map_err(|_| BoltError::Answer { what: "edition" })?;
            Ok(Server { version, edition: edition.to_lowercase() })
        })
        .await
    }

    /// The number that `statement` returns as `value`.
    pub(super) async fn count(&self, statement: &str, limit: Duration) -> Result<u64, BoltError> {
        self.count_on(self.database(), statement, limit).await
    }

    /// The same in `system`; `$name` is the database's name.
    pub(super) async fn count_on_system(&self, statement: &str, limit: Duration) -> Result<u64, BoltError> {
        self.count_on("system", statement, limit).await
    }

    async fn count_on(&self, database: &str, statement: &str, limit: Duration) -> Result<u64, BoltError> {
        self.within(limit, async {
            let rows = self.rows(database, statement).await?;
            let value = rows.first().and_then(|row| row.get::<i64>("value").ok());
            let value = value.and_then(|value| u64::try_from(value).ok());
            value.ok_or(BoltError::Answer { what: "value" })
        })
        .await
    }

    /// What the database says about its nodes labelled `Root`.
    pub(super) async fn root(&self, limit: Duration) -> Result<Root, BoltError> {
        self.within(limit, async {
            let rows = self.rows(self.database(), ROOT).await?;
            let row = rows.first().ok_or(BoltError::Answer { what: "roots" })?;
            let nodes = row.get::<i64>("roots").ok().and_then(|count| u64::try_from(count).ok());
            let nodes = nodes.ok_or(BoltError::Answer { what: "roots" })?;
            let id = row.get::<Option<String>>("id").map_err(|_| BoltError::Answer { what: "id" })?;
            Ok(Root { nodes, id })
        })
        .await
    }

    /// Runs `statement` in the database for its effect.
    pub(super) async fn run(&self, statement: &str, limit: Duration) -> Result<(), BoltError> {
        self.within(limit, async {
            let graph = self.connect(self.database()).await?;
            let mut transaction = graph.start_txn().await.map_err(|error| self.driver(error))?;
            transaction.run(self.query(statement)).await.map_err(|error| self.driver(error))?;
            transaction.commit().await.map_err(|error| self.driver(error))
        })
        .await
    }

    /// Hands over what `statement` gives as `id` and `in_use`, row by row.
    pub(super) async fn storage_ids(
        &self,
        statement: &str,
        limit: Duration,
        take: &mut TakeStorageId<'_>,
    ) -> Result<(), BoltError> {
        self.within(limit, async {
            let graph = self.connect(self.database()).await?;
            let mut transaction = graph.start_txn().await.map_err(|error| self.driver(error))?;
            let mut rows = transaction.execute(self.query(statement)).await.map_err(|error| self.driver(error))?;
            while let Some(row) = rows.next(transaction.handle()).await.map_err(|error| self.driver(error))? {
                let id: String = row.get("id").map_err(|_| BoltError::Answer { what: "id" })?;
                take(&id, row.get("in_use").map_err(|_| BoltError::Answer { what: "in_use" })?);
            }
            Ok(())
        })
        .await
    }

    /// Runs `statement` in `system` for its effect.
    pub(super) async fn run_on_system(&self, statement: &str, limit: Duration) -> Result<(), BoltError> {
        self.within(limit, async {
            let graph = self.connect("system").await?;
            let mut rows = graph.execute(self.query(statement)).await.map_err(|error| self.driver(error))?;
            while let Some(row) = rows.next().await.map_err(|error| self.driver(error))? {
                // What `… DATABASE … WAIT` says per server of a cluster.
                if matches!(row.get::<bool>("success"), Ok(false)) {
                    let message = row.get::<String>("message").unwrap_or_default();
                    return Err(BoltError::Driver { uri: self.uri().to_owned(), message: self.masker.mask(&message) });
                }
            }
            Ok(())
        })
        .await
    }

    /// In a transaction of its own, because the driver does not retry those: who asks decides how long to go on.
    async fn rows(&self, database: &str, statement: &str) -> Result<Vec<neo4rs::Row>, BoltError> {
        let graph = self.connect(database).await?;
        let mut transaction = graph.start_txn().await.map_err(|error| self.driver(error))?;
        let mut stream = transaction.execute(self.query(statement)).await.map_err(|error| self.driver(error))?;
        let mut rows = Vec::new();
        while let Some(row) = stream.next(transaction.handle()).await.map_err(|error| self.driver(error))? {
            rows.push(row);
        }
        Ok(rows)
    }

    fn query(&self, statement: &str) -> Query {
        let query = neo4rs::query(statement);
        if statement.contains("$name") { query.param("name", self.database()) } else { query }
    }

    async fn connect(&self, database: &str) -> Result<Graph, BoltError> {
        let password = match &self.section.password {
            Some(source) => {
                let secret = source.read().await.map_err(|source| BoltError::Secret { source })?;
                self.masker.add(&secret);
                secret.expose().to_owned()
            }
            None => String::new(),
        };
        let config = ConfigBuilder::default()
            .uri(self.uri())
            .user(&self.section.user)
            .password(password)
            .db(database)
            .max_connections(1)
            .build()
            .map_err(|error| self.driver(error))?;
        Graph::connect(config).await.map_err(|error| self.driver(error))
    }

    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, BoltError>>,
    ) -> Result<T, BoltError> {
        let waited = tokio::time::timeout(limit, work).await;
        waited.unwrap_or_else(|_| Err(BoltError::Timeout { uri: self.uri().to_owned(), waited: limit }))
    }

    /// The driver's error as text, masked: its variants may repeat what was sent.
    fn driver(&self, error: neo4rs::Error) -> BoltError {
        BoltError::Driver { uri: self.uri().to_owned(), message: self.masker.mask(&error.to_string()) }
    }
}

/// Why a server did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoltError {
    /// The password could not be read.
    #[error("the password of the Neo4j user cannot be read")]
    Secret {
        /// The cause.
        #[source]
        source: SecretError,
    },
    /// The server refused, or could not be reached.
    #[error("{uri}: {message}")]
    Driver {
        /// The server.
        uri: String,
        /// What the driver says, masked.
        message: String,
    },
    /// It took too long.
    #[error("{uri}: no answer within {} s", waited.as_secs())]
    Timeout {
        /// The server.
        uri: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The answer has not the expected form.
    #[error("the answer has no usable `{what}`")]
    Answer {
        /// The missing part.
        what: &'static str,
    },
}
