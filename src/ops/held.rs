//! A dump that has begun and is read later.
//!
//! `pg_dump` shows the database as it was when its transaction began. Its first bytes are written behind that: the archive's
//! list of contents, for which it read the catalogue and locked the tables. So a database that is dumped while it runs has
//! to be still only until then; its rows may be read when the services run again.
//! Source: `CloseArchive` of PostgreSQL's `pg_backup_custom.c` writes head and contents, called at the very end of `main`.
//!
//! Holds: dropped, it ends the process, as any dump does.

use async_trait::async_trait;
use bytes::Bytes;

use crate::component::{ComponentError, DumpStream, ExitOk};

/// A dump whose first piece is there.
pub struct HeldDump {
    first: Option<Result<Option<Bytes>, ComponentError>>,
    rest: Box<dyn DumpStream>,
}

impl HeldDump {
    /// Waits until `dump` has begun. How it begins is told by reading it, also where that is an error.
    pub async fn begin(mut dump: Box<dyn DumpStream>) -> Self {
        Self { first: Some(dump.next().await), rest: dump }
    }
}

#[async_trait]
impl DumpStream for HeldDump {
    async fn next(&mut self) -> Result<Option<Bytes>, ComponentError> {
        match self.first.take() {
            Some(first) => first,
            None => self.rest.next().await,
        }
    }

    async fn finish(self: Box<Self>) -> Result<ExitOk, ComponentError> {
        self.rest.finish().await
    }

    async fn abort(self: Box<Self>) {
        self.rest.abort().await;
    }
}
