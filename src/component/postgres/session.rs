//! Ways to a PostgreSQL server, for questions and for moving databases about: a connection, or `psql` where the server is.
//!
//! Holds: connecting is bounded in time; no error shows a secret; values are texts, the same both ways. Does not: TLS; a
//! server beyond this machine is reached through a tunnel.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::component::ComponentError;
use crate::provider::config::PostgresSection;
use crate::provider::exec::{self, CommandSpec};
use crate::provider::secret::{EnvValue, Masker};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long one statement may take in `psql`: half an hour. Counting the rows of a big table takes minutes, no more.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// What stands for NULL, and behind values and rows, where `psql` writes them: characters that no name and no number has.
const NULL: &str = "\u{2}";
const FIELD_END: char = '\u{1f}';
const ROW_END: char = '\u{1e}';

/// Where and as whom to connect.
#[derive(Clone)]
pub(super) struct Server {
    component: String,
    section: PostgresSection,
    /// How its programs run, without arguments.
    base: CommandSpec,
    masker: Masker,
}

impl Server {
    pub(super) fn new(component: String, section: PostgresSection, base: CommandSpec, masker: Masker) -> Self {
        Self { component, section, base, masker }
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
        let way = match &self.base.place {
            None => Way::Direct(self.connect_directly(database, limit).await?),
            Some(_) => Way::Program(Box::new(self.program(database, limit))),
        };
        Ok(Session { server: self.clone(), way })
    }

    async fn connect_directly(&self, database: &str, limit: Duration) -> Result<Direct, ComponentError> {
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
        Ok(Direct { client, driver })
    }

    /// `psql` where the server is, ready for a statement as its last argument.
    fn program(&self, database: &str, limit: Duration) -> CommandSpec {
        let mut argv = self.tool("psql");
        argv.extend(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"].map(str::to_owned));
        argv.extend(["--set=ON_ERROR_STOP=1", &format!("--pset=null={NULL}")].map(str::to_owned));
        argv.extend([format!("--field-separator={FIELD_END}"), format!("--record-separator={ROW_END}")]);
        let mut spec = self.command(argv, database);
        spec.total_timeout = spec.total_timeout.min(STATEMENT_TIMEOUT);
        spec.env.push(("PGCONNECT_TIMEOUT".to_owned(), EnvValue::Plain(limit.as_secs().max(1).to_string())));
        spec.env.push(("PGAPPNAME".to_owned(), EnvValue::Plain("infrahub-backup".to_owned())));
        spec
    }

    /// `program` and connection. The connection stands in the arguments as well, because an environment does not cross every
    /// wrapper; the password stands in the environment only.
    pub(super) fn tool(&self, program: &str) -> Vec<String> {
        let section = &self.section;
        let program =
            section.bin.as_ref().map_or_else(|| program.into(), |bin| bin.join(program).display().to_string());
        vec![
            program,
            format!("--host={}", section.host),
            format!("--port={}", section.port),
            format!("--username={}", section.user),
            "--no-password".to_owned(),
        ]
    }

    /// `argv`, with the variables by which PostgreSQL's programs enter `database`.
    pub(super) fn command(&self, argv: Vec<String>, database: &str) -> CommandSpec {
        let section = &self.section;
        let plain = |name: &str, value: &str| (name.to_owned(), EnvValue::Plain(value.to_owned()));
        let mut env = vec![
            plain("PGHOST", &section.host),
            plain("PGPORT", &section.port.to_string()),
            plain("PGUSER", &section.user),
        ];
        if let Some(password) = &section.password {
            env.push(("PGPASSWORD".to_owned(), EnvValue::Secret(password.clone())));
        }
        // What the configuration sets itself comes later and wins, but for the database: that is decided here.
        env.extend(self.base.env.iter().cloned());
        env.push(plain("PGDATABASE", database));
        CommandSpec { argv, env, ..self.base.clone() }
    }

    fn error(&self, question: &str, source: Box<dyn std::error::Error + Send + Sync>) -> ComponentError {
        ComponentError::Query { component: self.component.clone(), question: question.to_owned(), source }
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

/// A row: each value as text, as the server writes it.
pub(super) type Row = Vec<Option<String>>;

/// The way to one database.
pub(super) struct Session {
    server: Server,
    way: Way,
}

enum Way {
    /// One connection for all statements; closed when dropped.
    Direct(Direct),
    /// One `psql` for each statement, where the server is.
    Program(Box<CommandSpec>),
}

struct Direct {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// The same with less time for each statement, where a program runs it.
    pub(super) fn within(mut self, limit: Duration) -> Self {
        if let Way::Program(spec) = &mut self.way {
            spec.total_timeout = spec.total_timeout.min(limit);
        }
        self
    }

    /// The rows that one statement gives.
    pub(super) async fn rows(&self, statement: &str) -> Result<Vec<Row>, ComponentError> {
        match &self.way {
            Way::Direct(direct) => {
                let answers = direct.client.simple_query(statement).await;
                let answers = answers.map_err(|error| self.server.answer(statement, &error))?;
                let row = |answer: SimpleQueryMessage| match answer {
                    SimpleQueryMessage::Row(row) => {
                        Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
                    }
                    _ => None,
                };
                Ok(answers.into_iter().filter_map(row).collect())
            }
            Way::Program(spec) => {
                let said = self.psql(spec, statement).await?;
                let text = String::from_utf8(said).map_err(|error| self.server.error(statement, Box::new(error)))?;
                Ok(rows_of(&text))
            }
        }
    }

    /// Runs statements for their effect; several, joined by `;`, are one transaction.
    pub(super) async fn run(&self, statements: &str) -> Result<(), ComponentError> {
        match &self.way {
            Way::Direct(direct) => {
                let ran = direct.client.batch_execute(statements).await;
                ran.map_err(|error| self.server.answer(statements, &error))
            }
            Way::Program(spec) => self.psql(spec, statements).await.map(drop),
        }
    }

    async fn psql(&self, spec: &CommandSpec, statements: &str) -> Result<Vec<u8>, ComponentError> {
        let mut spec = spec.clone();
        spec.argv.push(format!("--command={statements}"));
        let ran = exec::run(&spec, &self.server.masker).await;
        Ok(ran.map_err(|error| self.server.error(statements, Box::new(error)))?.stdout)
    }
}

/// What `psql` wrote, with the separators that it was given. Behind the last row stands a line's end.
fn rows_of(text: &str) -> Vec<Row> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    if text.is_empty() {
        return Vec::new();
    }
    let value = |text: &str| (text != NULL).then(|| text.to_owned());
    text.split(ROW_END).map(|row| row.split(FIELD_END).map(value).collect()).collect()
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
    fn rows_of_psql_are_told_apart_from_nothing() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(rows_of("a\u{1f}\u{2}\u{1e}b\nc\u{1f}\n"), [vec![some("a"), None], vec![some("b\nc"), some("")]]);
        assert!(rows_of("").is_empty());
    }

    #[test]
    fn a_statement_of_psql_may_take_half_an_hour_and_a_probe_as_long_as_it_says() {
        let section = PostgresSection {
            host: "localhost".to_owned(),
            port: 5432,
            user: "u".to_owned(),
            password: None,
            database: "d".to_owned(),
            maintenance_database: "postgres".to_owned(),
            bin: None,
            count_rows: true,
        };
        let server = Server::new("db".to_owned(), section, CommandSpec::new(vec![]), Masker::default());
        let way = Way::Program(Box::new(server.program("d", CONNECT_TIMEOUT)));
        let limit = |session: &Session| match &session.way {
            Way::Program(spec) => spec.total_timeout,
            Way::Direct(_) => unreachable!("it is a program"),
        };
        let session = Session { server, way };
        assert_eq!(limit(&session), STATEMENT_TIMEOUT);
        assert_eq!(limit(&session.within(Duration::from_secs(10))), Duration::from_secs(10));
    }

    #[test]
    fn names_and_texts_cannot_leave_their_quotes() {
        assert_eq!(identifier(r#"a"; DROP"#), r#""a""; DROP""#);
        assert_eq!(literal(r"it's \'"), r"E'it''s \\'''");
    }
}
