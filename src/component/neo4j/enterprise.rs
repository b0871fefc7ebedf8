//! Loading an Enterprise database: the server goes on running, the one database is stopped.
//!
//! Holds: the database is started again only after a load that ended well, or one that never began. After a load that
//! broke it stays stopped, since nobody must read half of it. Does not: load into a cluster, where a database is seeded.

use async_trait::async_trait;
use bytes::Bytes;

use super::bolt::Bolt;
use super::{QUERY_TIMEOUT, query_error};
use crate::component::stream::ExecLoad;
use crate::component::{ComponentError, ExitOk, LoadStream};
use crate::provider::exec::CommandSpec;
use crate::provider::secret::Masker;

/// How long `STOP DATABASE … WAIT` and its counterparts may take, in seconds, on the server and with some more here.
const STATEMENT_SECONDS: u64 = 300;

pub(super) async fn load(
    component: &str,
    spec: &CommandSpec,
    masker: &Masker,
    bolt: &Bolt,
) -> Result<Box<dyn LoadStream>, ComponentError> {
    let database = Database { component: component.to_owned(), bolt: bolt.clone() };
    let existed = database.exists().await?;
    if existed {
        database.command("STOP").await?;
    }
    match ExecLoad::start(component, spec, masker).await {
        Ok(load) => Ok(Box::new(EnterpriseLoad { load, database, existed })),
        Err(error) => {
            if existed {
                // The first error is the one to tell; that the database may be stopped shows at the next probe.
                let _ = database.command("START").await;
            }
            Err(error)
        }
    }
}

struct Database {
    component: String,
    bolt: Bolt,
}

impl Database {
    async fn exists(&self) -> Result<bool, ComponentError> {
        let question = "SHOW DATABASES YIELD name WHERE name = $name RETURN count(*) AS value";
        let count = self.bolt.count_on_system(question, QUERY_TIMEOUT).await;
        count.map(|count| count > 0).map_err(|source| query_error(&self.component, question, source))
    }

    /// `verb` is `STOP`, `START` or `CREATE`; waits until it is done.
    async fn command(&self, verb: &str) -> Result<(), ComponentError> {
        let name = self.bolt.database().replace('`', "``");
        let statement = format!("{verb} DATABASE `{name}` WAIT {STATEMENT_SECONDS} SECONDS");
        let done = self.bolt.run_on_system(&statement, QUERY_TIMEOUT.saturating_mul(6)).await;
        done.map_err(|source| query_error(&self.component, &statement, source))
    }
}

struct EnterpriseLoad {
    load: ExecLoad,
    database: Database,
    existed: bool,
}

#[async_trait]
impl LoadStream for EnterpriseLoad {
    async fn write(&mut self, piece: Bytes) -> Result<(), ComponentError> {
        self.load.write(piece).await
    }

    async fn finish(self: Box<Self>) -> Result<ExitOk, ComponentError> {
        let Self { load, database, existed } = *self;
        let done = Box::new(load).finish().await?;
        database.command(if existed { "START" } else { "CREATE" }).await?;
        Ok(done)
    }

    async fn abort(self: Box<Self>) {
        Box::new(self.load).abort().await;
    }
}
