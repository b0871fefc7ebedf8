//! What a PostgreSQL database says about itself.

use super::session::{Server, Session, identifier, literal};
use crate::component::ComponentError;
use crate::deployment::Inspection;

pub(super) async fn inspect(server: &Server) -> Result<Inspection, ComponentError> {
    let session = server.database().await?;
    let section = server.section();
    let mut inspection = Inspection {
        evidence: format!("database `{}` at {}:{}", section.database, section.host, section.port),
        ..Inspection::default()
    };
    let statement = "SELECT current_setting('server_version'), pg_database_size(current_database())";
    for row in session.rows(statement).await? {
        if let [version, size] = &row[..] {
            inspection.version.clone_from(version);
            inspection.size_bytes = size.as_ref().and_then(|size| size.parse().ok());
        }
    }
    if section.count_rows {
        count_rows(&session, &mut inspection).await?;
    }
    Ok(inspection)
}

/// Longest statement that counts, in bytes: an argument of a program may have 128 KiB.
const COUNT_STATEMENT_MAX: usize = 64 << 10;

/// Exact counts in one moment: one statement sees one state, so that a writer between two tables does not make the counts
/// contradict each other. Hundreds of tables take more than one.
async fn count_rows(session: &Session, inspection: &mut Inspection) -> Result<(), ComponentError> {
    let tables = "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                  WHERE c.relkind = 'r' AND c.relpersistence <> 't' \
                  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1, 2";
    let mut statements: Vec<String> = Vec::new();
    for table in session.rows(tables).await? {
        let [Some(schema), Some(name)] = &table[..] else { continue };
        let label = literal(&format!("{schema}.{name}"));
        let count = format!("SELECT {label}, count(*) FROM ONLY {}.{}", identifier(schema), identifier(name));
        match statements.last_mut() {
            Some(statement) if statement.len() + count.len() < COUNT_STATEMENT_MAX => {
                statement.push_str(" UNION ALL ");
                statement.push_str(&count);
            }
            Some(_) | None => statements.push(count),
        }
    }
    for statement in statements {
        for row in session.rows(&statement).await? {
            if let [Some(table), Some(rows)] = &row[..] {
                inspection.counts.insert(table.clone(), rows.parse().unwrap_or(0));
            }
        }
    }
    Ok(())
}
