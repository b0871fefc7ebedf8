//! Loading beside the target: into a scratch database, which takes the target's name when all is in it.
//!
//! Holds: until the one transaction that swaps the names the target is untouched, and after it the new content is complete.
//! Owner, encoding, locale, comment, privileges and settings of the database itself stay those of the target. What a killed
//! run left behind is dropped by the next: only databases that carry our mark and nobody's connection.
//!
//! Does not: need less room than both databases together.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::session::{Server, Session, identifier, literal};
use crate::component::stream::ExecLoad;
use crate::component::{ComponentError, ExitOk, LoadStream};
use crate::env::{Entropy, random_bytes};
use crate::id::hex_of;
use crate::provider::exec::CommandSpec;
use crate::provider::secret::Masker;

/// The comment of databases that may be dropped: unfinished ones, and replaced ones.
const MARK: &str = "infrahub-backup: may be dropped";

/// Longest part of the target's name that its scratch database repeats, in bytes: 63 less `_restore_` and eight digits.
const PREFIX_SIZE_MAX: usize = 46;

/// How often the swap is tried while others keep connecting to the target, and the pause between.
const SWAP_ATTEMPTS: u32 = 10;
const SWAP_PAUSE: Duration = Duration::from_millis(200);

const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// A database that is being filled.
pub(super) struct Scratch {
    server: Server,
    name: String,
    /// The name that the target gets when it is replaced.
    old: String,
}

impl Scratch {
    /// Drops what earlier runs left behind and makes a new one, like the target if there is one.
    pub(super) async fn create(server: &Server, entropy: &dyn Entropy) -> Result<Self, ComponentError> {
        let session = server.maintenance(CONNECT_LIMIT).await?;
        drop_leftovers(&session).await?;
        let digits = hex_of(&random_bytes::<4>(entropy));
        let target = &server.section().database;
        let mut size = target.len().min(PREFIX_SIZE_MAX);
        while !target.is_char_boundary(size) {
            size -= 1;
        }
        let prefix = &target[..size];
        let scratch = Self {
            server: server.clone(),
            name: format!("{prefix}_restore_{digits}"),
            old: format!("{prefix}_old_{digits}"),
        };
        let name = identifier(&scratch.name);
        session.run(&format!("CREATE DATABASE {name} TEMPLATE template0{}", shape(&session, target).await?)).await?;
        if let Err(error) = session.run(&format!("COMMENT ON DATABASE {name} IS {}", literal(MARK))).await {
            let _ = session.run(&format!("DROP DATABASE {name}")).await;
            return Err(error);
        }
        Ok(scratch)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Starts the load into it.
    pub(super) async fn start(
        self,
        spec: &CommandSpec,
        masker: &Masker,
    ) -> Result<Box<dyn LoadStream>, ComponentError> {
        match ExecLoad::start(self.server.component(), spec, masker).await {
            Ok(load) => Ok(Box::new(PostgresLoad { load, scratch: self })),
            Err(error) => {
                self.discard().await;
                Err(error)
            }
        }
    }

    /// Drops it. When that does not work the next load does: it carries the mark.
    async fn discard(&self) {
        if let Ok(session) = self.server.maintenance(CONNECT_LIMIT).await {
            let _ = terminate(&session, &self.name).await;
            let _ = session.run(&format!("DROP DATABASE IF EXISTS {}", identifier(&self.name))).await;
        }
    }

    /// Gives it the target's name, and drops what had it.
    async fn become_target(&self) -> Result<(), ComponentError> {
        let session = self.server.maintenance(CONNECT_LIMIT).await?;
        let target = &self.server.section().database;
        let existed = exists(&session, target).await?;
        let swap = self.swap_statements(&session, target, existed).await?;
        let mut attempt = 1;
        loop {
            if existed {
                terminate(&session, target).await?;
            }
            terminate(&session, &self.name).await?;
            match session.run(&swap).await {
                Ok(()) => break,
                Err(error) if attempt == SWAP_ATTEMPTS => return Err(error),
                Err(_) => {
                    let _ = session.run("ROLLBACK").await;
                    tokio::time::sleep(SWAP_PAUSE).await;
                }
            }
            attempt += 1;
        }
        if existed {
            // It carries the mark: if this does not work, the next load drops it. The restore itself is done.
            let _ = terminate(&session, &self.old).await;
            let _ = session.run(&format!("DROP DATABASE {}", identifier(&self.old))).await;
        }
        Ok(())
    }

    /// One transaction: both renames happen, or none.
    async fn swap_statements(&self, session: &Session, target: &str, existed: bool) -> Result<String, ComponentError> {
        let mut statements = vec!["BEGIN".to_owned()];
        let mut comment = None;
        if existed {
            let (settings, found) = of_database(session, target, &self.name).await?;
            comment = found;
            statements.extend(settings);
            statements.push(format!("ALTER DATABASE {} RENAME TO {}", identifier(target), identifier(&self.old)));
            statements.push(format!("COMMENT ON DATABASE {} IS {}", identifier(&self.old), literal(MARK)));
        }
        let comment = comment.map_or_else(|| "NULL".to_owned(), |comment: String| literal(&comment));
        statements.push(format!("ALTER DATABASE {} RENAME TO {}", identifier(&self.name), identifier(target)));
        statements.push(format!("COMMENT ON DATABASE {} IS {comment}", identifier(target)));
        statements.push("COMMIT".to_owned());
        Ok(statements.join("; "))
    }
}

async fn exists(session: &Session, database: &str) -> Result<bool, ComponentError> {
    let statement = format!("SELECT 1 FROM pg_database WHERE datname = {}", literal(database));
    Ok(!session.rows(&statement).await?.is_empty())
}

/// Owner, encoding and locale of `target` as options of `CREATE DATABASE`; nothing if there is no such database. Read as
/// JSON because the columns differ between server versions.
async fn shape(session: &Session, target: &str) -> Result<String, ComponentError> {
    let statement = format!(
        "SELECT pg_get_userbyid(datdba)::text, pg_encoding_to_char(encoding)::text, \
         j->>'datcollate', j->>'datctype', j->>'datlocprovider', \
         coalesce(j->>'datlocale', j->>'daticulocale') \
         FROM (SELECT d.*, to_jsonb(d) AS j FROM pg_database d) d WHERE datname = {}",
        literal(target)
    );
    let mut options = String::new();
    for row in session.rows(&statement).await? {
        let text = |column: usize| row.get(column).and_then(Option::as_deref);
        let named = [("OWNER", text(0).map(identifier)), ("ENCODING", text(1).map(literal))];
        let locale = [("LC_COLLATE", text(2).map(literal)), ("LC_CTYPE", text(3).map(literal))];
        for (option, value) in named.into_iter().chain(locale) {
            if let Some(value) = value {
                options += &format!(" {option} {value}");
            }
        }
        match (text(4), text(5)) {
            (Some("i"), Some(locale)) => options += &format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(locale)),
            (Some("b"), Some(locale)) => {
                options += &format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", literal(locale));
            }
            (_, _) => {}
        }
    }
    Ok(options)
}

/// Statements that give `scratch` the settings and privileges that `target` has as a database, and the target's comment.
/// A dump of one database does not hold them.
async fn of_database(
    session: &Session,
    target: &str,
    scratch: &str,
) -> Result<(Vec<String>, Option<String>), ComponentError> {
    let (scratch, name) = (identifier(scratch), literal(target));
    let mut statements = Vec::new();
    let settings = format!(
        "SELECT split_part(s, '=', 1), substr(s, strpos(s, '=') + 1), \
         CASE WHEN setrole <> 0 THEN pg_get_userbyid(setrole)::text END \
         FROM pg_db_role_setting, unnest(setconfig) s \
         WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = {name})"
    );
    for row in session.rows(&settings).await? {
        let [Some(name), Some(value), role] = &row[..] else { continue };
        let role = role.as_ref().map(|role| format!("ROLE {} IN ", identifier(role)));
        // Lists (`search_path`) are stored as they are written after SET; anything else is one constant.
        let value = if LIST_SETTINGS.contains(&name.to_lowercase().as_str()) { value.clone() } else { literal(value) };
        statements.push(format!("ALTER {}DATABASE {scratch} SET {name} TO {value}", role.unwrap_or_default()));
    }
    let privileges = format!(
        "SELECT privilege_type::text, is_grantable::text, \
         CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee)::text END \
         FROM pg_database, aclexplode(datacl) WHERE datname = {name}"
    );
    let rows = session.rows(&privileges).await?;
    if !rows.is_empty() {
        statements.push(format!("REVOKE ALL ON DATABASE {scratch} FROM PUBLIC"));
    }
    for row in rows {
        let [Some(privilege), grantable, grantee] = &row[..] else { continue };
        let grantee = grantee.as_deref().map_or_else(|| "PUBLIC".to_owned(), identifier);
        let option = if grantable.as_deref() == Some("true") { " WITH GRANT OPTION" } else { "" };
        statements.push(format!("GRANT {privilege} ON DATABASE {scratch} TO {grantee}{option}"));
    }
    let others =
        format!("SELECT datconnlimit, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = {name}");
    let mut comment = None;
    for row in session.rows(&others).await? {
        let [Some(limit), found] = &row[..] else { continue };
        statements.push(format!("ALTER DATABASE {scratch} CONNECTION LIMIT {limit}"));
        comment.clone_from(found);
    }
    Ok((statements, comment))
}

/// Settings whose value is a list (`GUC_LIST_QUOTE` in PostgreSQL's source).
const LIST_SETTINGS: [&str; 6] = [
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "local_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

async fn terminate(session: &Session, database: &str) -> Result<(), ComponentError> {
    let statement = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {} AND pid <> pg_backend_pid()",
        literal(database)
    );
    session.rows(&statement).await.map(drop)
}

async fn drop_leftovers(session: &Session) -> Result<(), ComponentError> {
    let statement = format!(
        "SELECT datname::text FROM pg_database d \
         WHERE datname ~ '_(restore|old)_[0-9a-f]{{8}}$' AND shobj_description(oid, 'pg_database') = {} \
         AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.datname = d.datname)",
        literal(MARK)
    );
    for name in session.rows(&statement).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()) {
        // Somebody may have connected since, or dropped it: then it is not ours to care about.
        let _ = session.run(&format!("DROP DATABASE IF EXISTS {}", identifier(&name))).await;
    }
    Ok(())
}

/// A load that replaces the target when it ended well.
struct PostgresLoad {
    load: ExecLoad,
    scratch: Scratch,
}

#[async_trait]
impl LoadStream for PostgresLoad {
    async fn write(&mut self, piece: Bytes) -> Result<(), ComponentError> {
        self.load.write(piece).await
    }

    async fn finish(self: Box<Self>) -> Result<ExitOk, ComponentError> {
        let Self { load, scratch } = *self;
        let done = match Box::new(load).finish().await {
            Ok(done) => scratch.become_target().await.map(|()| done),
            Err(error) => Err(error),
        };
        if done.is_err() {
            scratch.discard().await;
        }
        done
    }

    async fn abort(self: Box<Self>) {
        Box::new(self.load).abort().await;
        self.scratch.discard().await;
    }
}
