//! What a PostgreSQL database says about itself.

use super::session::{Server, Session, identifier};
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
    for row in session.rows(statement, &[]).await? {
        inspection.version = Some(row.get(0));
        inspection.size_bytes = u64::try_from(row.get::<_, i64>(1)).ok();
    }
    if section.count_rows {
        count_rows(&session, &mut inspection).await?;
    }
    Ok(inspection)
}

/// Exact counts in one moment: one transaction that sees one state, so that a writer between two tables does not make the
/// counts contradict each other.
async fn count_rows(session: &Session, inspection: &mut Inspection) -> Result<(), ComponentError> {
    session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let tables = "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                  WHERE c.relkind = 'r' AND c.relpersistence <> 't' \
                  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1, 2";
    for table in session.rows(tables, &[]).await? {
        let (schema, name): (String, String) = (table.get(0), table.get(1));
        let statement = format!("SELECT count(*) FROM ONLY {}.{}", identifier(&schema), identifier(&name));
        for row in session.rows(&statement, &[]).await? {
            let rows = u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
            inspection.counts.insert(format!("{schema}.{name}"), rows);
        }
    }
    session.run("COMMIT").await
}
