//! How the databases of a deployment are entered, as the deployment itself says it.
//!
//! Order: what the operator's environment gives, then the variables of the services' containers, then Infrahub's own
//! defaults, which are what its server uses when it is told nothing. Does not: connect, or keep anything on disk.

use std::collections::BTreeMap;

use super::error::DockerError;
use crate::provider::secret::Secret;

/// Infrahub's own defaults.
const NEO4J_NAME: &str = "neo4j";
const NEO4J_PASSWORD: &str = "admin";
const POSTGRES_PORT: u16 = 5432;

/// The variables that hold the task manager's connection, the newer name first.
const POSTGRES_URLS: [&str; 2] = ["PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL"];

/// Names under which a deployment's PostgreSQL is on the same machine as its service's container.
const POSTGRES_HOSTS: [&str; 3] = ["task-manager-db", "localhost", "127.0.0.1"];

/// What the operator's own environment gives; it beats what the deployment says.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// `INFRAHUB_DB_DATABASE`
    pub neo4j_database: Option<String>,
    /// `INFRAHUB_DB_USERNAME`
    pub neo4j_user: Option<String>,
    /// `INFRAHUB_DB_PASSWORD`
    pub neo4j_password: Option<Secret>,
    /// `PREFECT_SERVER_DATABASE_CONNECTION_URL` or `PREFECT_API_DATABASE_CONNECTION_URL`
    pub postgres_url: Option<Secret>,
    /// `INFRAHUB_STORAGE_ENDPOINT_URL`: where the bucket of the artifact store is from here.
    pub artifacts_endpoint: Option<String>,
}

/// How Neo4j is entered.
#[derive(Debug, Clone)]
pub struct Neo4jLogin {
    /// The database.
    pub database: String,
    /// The user.
    pub user: String,
    /// The user's password.
    pub password: Secret,
}

/// How PostgreSQL is entered, from inside its own container.
#[derive(Debug, Clone)]
pub struct PostgresLogin {
    /// The port that the server listens on.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The user's password, if there is one.
    pub password: Option<Secret>,
    /// The database.
    pub database: String,
}

/// Variables of a container.
pub(super) type Variables = BTreeMap<String, String>;

/// `NAME=value` lines as a map; an empty value counts as none.
pub(super) fn variables(lines: &[String]) -> Variables {
    let pair = |line: &String| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    lines.iter().filter_map(pair).filter(|(_, value)| !value.is_empty()).collect()
}

/// From the variables of `infrahub-server`, then of `database` itself.
pub(super) fn neo4j(given: &Given, server: &Variables, database: &Variables) -> Neo4jLogin {
    let of_server = |name: &str| server.get(name).cloned();
    let auth = database.get("NEO4J_AUTH").and_then(|auth| auth.split_once('/'));
    let user = given.neo4j_user.clone().or_else(|| of_server("INFRAHUB_DB_USERNAME"));
    let user = user.unwrap_or_else(|| auth.map_or(NEO4J_NAME, |(user, _)| user).to_owned());
    // The initial password is only the first user's.
    let initial = auth.filter(|(first, _)| *first == user).map(|(_, password)| password.to_owned());
    let known = of_server("INFRAHUB_DB_PASSWORD").or(initial).unwrap_or_else(|| NEO4J_PASSWORD.to_owned());
    Neo4jLogin {
        database: given
            .neo4j_database
            .clone()
            .or_else(|| of_server("INFRAHUB_DB_DATABASE"))
            .unwrap_or_else(|| NEO4J_NAME.to_owned()),
        user,
        password: given.neo4j_password.clone().unwrap_or_else(|| Secret::new(known)),
    }
}

/// From the connection of `task-manager`, else from the variables of `task-manager-db` itself.
///
/// # Errors
///
/// [`DockerError::Setting`] for a connection that cannot be understood, [`DockerError::NotBuilt`] for a server elsewhere.
pub(super) fn postgres(given: &Given, manager: &Variables, db: &Variables) -> Result<PostgresLogin, DockerError> {
    if let Some(url) = &given.postgres_url {
        return from_url(url.expose(), POSTGRES_URLS[0], "the operator's environment", db);
    }
    let found = POSTGRES_URLS.iter().find_map(|name| Some((*name, manager.get(*name)?)));
    match found {
        Some((variable, url)) => from_url(url, variable, "task-manager", db),
        None => {
            let user = db.get("POSTGRES_USER").cloned().unwrap_or_else(|| "postgres".to_owned());
            let database = db.get("POSTGRES_DB").cloned().unwrap_or_else(|| user.clone());
            let password = db.get("POSTGRES_PASSWORD").cloned().map(Secret::new);
            Ok(PostgresLogin { port: POSTGRES_PORT, user, password, database })
        }
    }
}

fn from_url(url: &str, variable: &str, service: &str, db: &Variables) -> Result<PostgresLogin, DockerError> {
    let wrong = |problem| DockerError::Setting { variable: variable.to_owned(), service: service.to_owned(), problem };
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("is not a connection"))?;
    // `postgresql+asyncpg`, as SQLAlchemy writes it.
    if !["postgres", "postgresql"].contains(&scheme.split('+').next().unwrap_or_default()) {
        return Err(wrong("is not a connection to PostgreSQL"));
    }
    let behind = rest.trim_start_matches(|letter| !['/', '?', '#'].contains(&letter));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
    let (host, port) = place.rsplit_once(':').map_or((place, None), |(host, port)| (host, Some(port)));
    if !host.is_empty() && !POSTGRES_HOSTS.contains(&host) {
        // Then what looks like a host is the beginning of a login, and must not be shown.
        if login.is_empty() && behind.contains('@') {
            return Err(wrong("has a `/`, `?` or `#` in its login that is not percent-encoded"));
        }
        return Err(DockerError::NotBuilt { what: format!("a task manager's database on host `{host}`") });
    }
    let port = match port {
        Some(port) => port.parse().map_err(|_| wrong("has a port that is none"))?,
        None => POSTGRES_PORT,
    };
    let decoded = |text: &str| decode(text).ok_or_else(|| wrong("has a `%` that begins no character"));
    let password = match password {
        Some(password) => Some(Secret::new(decoded(password)?)),
        None => db.get("POSTGRES_PASSWORD").cloned().map(Secret::new),
    };
    let user = if user.is_empty() { "postgres".to_owned() } else { decoded(user)? };
    let database = if path.is_empty() { user.clone() } else { decoded(path)? };
    Ok(PostgresLogin { port, user, password, database })
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            bytes.push(digit(rest.next())? << 4 | digit(rest.next())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn login(url: &str) -> Result<PostgresLogin, DockerError> {
        postgres(&Given::default(), &set(&[(POSTGRES_URLS[1], url)]), &set(&[("POSTGRES_PASSWORD", "own")]))
    }

    #[test]
    fn a_connection_is_read_in_all_its_parts() {
        let found = login("postgresql+asyncpg://u%40s:p%25%2Fw%3A@task-manager-db:5433/pre%20fect?ssl=off").unwrap();
        let password = found.password.unwrap();
        assert_eq!((found.user.as_str(), password.expose()), ("u@s", "p%/w:"));
        assert_eq!((found.port, found.database.as_str()), (5433, "pre fect"));
    }

    #[test]
    fn what_a_connection_leaves_out_comes_from_the_database_itself() {
        let found = login("postgres://task-manager-db/prefect").unwrap();
        assert_eq!((found.user.as_str(), found.port), ("postgres", 5432));
        assert_eq!(found.password.unwrap().expose(), "own");
    }

    #[test]
    fn the_newer_variable_wins_and_the_operator_beats_both() {
        let manager = set(&[(POSTGRES_URLS[1], "postgres:///old"), (POSTGRES_URLS[0], "postgres:///new")]);
        let mut given = Given::default();
        assert_eq!(postgres(&given, &manager, &set(&[])).unwrap().database, "new");
        given.postgres_url = Some(Secret::new("postgres:///own".to_owned()));
        assert_eq!(postgres(&given, &manager, &set(&[])).unwrap().database, "own");
    }

    #[test]
    fn a_server_elsewhere_and_a_broken_connection_are_refused_without_their_password() {
        assert!(matches!(login("postgres://u:p@elsewhere/prefect"), Err(DockerError::NotBuilt { .. })));
        let unencoded = ["postgres://u:hidden:x/y@h/d", "postgres://hidden?x@h/d", "postgres://u:hidden:x#y@h/d"];
        let broken = ["mysql://u:hidden@h/d", "postgres://u:hidden%zz@/d", "postgres://u:hidden@:x/d", "hidden"];
        for url in broken.into_iter().chain(unencoded) {
            let error = login(url).unwrap_err();
            assert!(matches!(error, DockerError::Setting { .. }), "{url}");
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }

    #[test]
    fn neo4j_is_entered_as_the_server_does() {
        let database = set(&[("NEO4J_AUTH", "neo4j/initial")]);
        let found = neo4j(&Given::default(), &set(&[]), &database);
        assert_eq!(
            (found.database.as_str(), found.user.as_str(), found.password.expose()),
            ("neo4j", "neo4j", "initial")
        );
        let server = set(&[("INFRAHUB_DB_USERNAME", "keeper"), ("INFRAHUB_DB_DATABASE", "infra")]);
        let found = neo4j(&Given::default(), &server, &database);
        assert_eq!(
            (found.database.as_str(), found.user.as_str(), found.password.expose()),
            ("infra", "keeper", "admin")
        );
        let given = Given { neo4j_password: Some(Secret::new("mine".to_owned())), ..Given::default() };
        assert_eq!(neo4j(&given, &server, &database).password.expose(), "mine");
    }
}
