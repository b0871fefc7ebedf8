//! The local cache: where chunks are, manifests, and the states of artifact files. It may be deleted at any time and costs
//! only speed.
//!
//! One SQLite database per repository, shared by processes (write-ahead log). A file that is not such a database, or that an
//! other version wrote, is replaced. Holds: what it says of an index object is what that object said when its signature
//! was checked. Does not: decide what is in the store; callers compare with a listing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::format::bytes::FieldReader;
use crate::format::envelope::ObjectType;
use crate::format::index::{Index, PackEntry, SegmentEntry};
use crate::id::{ChunkId, ObjectId, PackId, SnapshotId};

/// Version of the tables; another one is deleted.
const SCHEMA_VERSION: i64 = 4;

/// Pages that SQLite may hold, in KiB.
const PAGE_CACHE_KIB: i64 = 8 << 10;

/// How long one process waits for another one's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

const SCHEMA: &str = "
    CREATE TABLE indexes (id BLOB PRIMARY KEY, supersedes BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE packs (
        number INTEGER PRIMARY KEY, id BLOB NOT NULL, index_id BLOB NOT NULL, kind INTEGER NOT NULL,
        stored_size INTEGER NOT NULL, based INTEGER NOT NULL, entry BLOB NOT NULL
    );
    CREATE INDEX packs_by_id ON packs (id);
    CREATE INDEX packs_by_index ON packs (index_id);
    CREATE TABLE chunks (
        id BLOB NOT NULL, pack INTEGER NOT NULL, segment INTEGER NOT NULL, position INTEGER NOT NULL,
        length INTEGER NOT NULL, depth INTEGER NOT NULL, PRIMARY KEY (id, pack, segment)
    ) WITHOUT ROWID;
    CREATE TABLE marks (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE tree_segments (
        pack BLOB NOT NULL, segment INTEGER NOT NULL, plain BLOB NOT NULL, PRIMARY KEY (pack, segment)
    ) WITHOUT ROWID;
    CREATE TABLE manifests (id BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE files (
        component TEXT NOT NULL, path BLOB NOT NULL, state BLOB NOT NULL, run BLOB NOT NULL,
        PRIMARY KEY (component, path)
    ) WITHOUT ROWID;
    CREATE TABLE damaged (pack BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE file_runs (component TEXT PRIMARY KEY, started_ns INTEGER NOT NULL) WITHOUT ROWID;
";

/// Why the cache could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// SQLite refused.
    #[error("the local cache {path} did not {action}")]
    Sqlite {
        /// Its file.
        path: String,
        /// What was to be done, as a verb.
        action: &'static str,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// A row that this program did not write.
    #[error("the local cache {path} is damaged; it may be deleted")]
    Damaged {
        /// Its file.
        path: String,
    },
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The pack.
    pub pack: PackId,
    /// [`ObjectType::ContentPack`] or [`ObjectType::TreePack`].
    pub kind: ObjectType,
    /// Ordinal of the segment.
    pub segment: u32,
    /// Place among all chunks of the pack.
    pub position: u32,
    /// Length of the chunk, in bytes.
    pub length: u32,
    /// Depth of the segment: a base must be less deep than what it is a base of.
    pub depth: u8,
}

impl Location {
    /// Whether a segment whose bases may be that deep can be based on it; whatever is no base may be as deep as it likes.
    pub fn is_within(&self, depth: u32) -> bool {
        u32::from(self.depth) <= depth
    }
}

/// Pack; kind and depth; segment, position and length.
type LocationRow = (PackId, [u8; 2], [u32; 3]);

/// A pack that an index names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownPack {
    /// The pack.
    pub id: PackId,
    /// [`ObjectType::ContentPack`] or [`ObjectType::TreePack`].
    pub kind: ObjectType,
    /// Its length as stored, in bytes.
    pub stored_size: u64,
}

/// The cache of one repository.
pub struct Cache {
    path: String,
    connection: Mutex<Connection>,
}

impl Cache {
    /// Opens or makes the database at `path`; anything else that is there is replaced.
    pub fn open(path: &Path) -> Result<Self, CacheError> {
        match Self::prepare(path) {
            Ok(cache) => Ok(cache),
            Err(_) => {
                remove_database(path);
                Self::prepare(path)
            }
        }
    }

    /// A database that ends with the process, where no folder can be written.
    pub fn temporary() -> Result<Self, CacheError> {
        // An empty name is a temporary file on disk: memory stays bounded.
        Self::with(Connection::open(""), "(temporary)".to_owned())
    }

    fn prepare(path: &Path) -> Result<Self, CacheError> {
        Self::with(Connection::open(path), path.display().to_string())
    }

    fn with(opened: Result<Connection, rusqlite::Error>, path: String) -> Result<Self, CacheError> {
        let error = |source| CacheError::Sqlite { path: path.clone(), action: "open", source };
        let mut connection = opened.map_err(error)?;
        setup(&mut connection).map_err(error)?;
        Ok(Self { path, connection: Mutex::new(connection) })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, action: &'static str) -> impl FnOnce(rusqlite::Error) -> CacheError + use<'_> {
        move |source| CacheError::Sqlite { path: self.path.clone(), action, source }
    }

    fn damaged(&self) -> CacheError {
        CacheError::Damaged { path: self.path.clone() }
    }

    /// The index objects whose content is here.
    pub fn known_indexes(&self) -> Result<BTreeSet<ObjectId>, CacheError> {
        let connection = self.lock();
        let query = || -> rusqlite::Result<BTreeSet<ObjectId>> {
            let mut statement = connection.prepare_cached("SELECT id FROM indexes")?;
            statement.query_map([], |row| Ok(ObjectId::from_bytes(row.get(0)?)))?.collect()
        };
        query().map_err(self.error("list index objects"))
    }

    /// Takes over the content of an index object.
    pub fn add_index(&self, id: &ObjectId, index: &Index) -> Result<(), CacheError> {
        let mut connection = self.lock();
        let mut add = || -> rusqlite::Result<()> {
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let supersedes: Vec<u8> = index.supersedes.iter().flat_map(|id| *id.as_bytes()).collect();
            let new = transaction
                .execute("INSERT OR IGNORE INTO indexes VALUES (?1, ?2)", params![id.as_bytes(), supersedes])?;
            if new == 1 {
                index.packs.iter().try_for_each(|pack| add_pack(&transaction, id, pack))?;
            }
            transaction.commit()
        };
        add().map_err(self.error("take over an index object"))
    }

    /// Forgets an index object and what it said.
    pub fn remove_index(&self, id: &ObjectId) -> Result<(), CacheError> {
        let mut connection = self.lock();
        let mut remove = || -> rusqlite::Result<()> {
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            transaction.execute(
                "DELETE FROM chunks WHERE pack IN (SELECT number FROM packs WHERE index_id = ?1)",
                params![id.as_bytes()],
            )?;
            transaction.execute("DELETE FROM packs WHERE index_id = ?1", params![id.as_bytes()])?;
            transaction.execute("DELETE FROM indexes WHERE id = ?1", params![id.as_bytes()])?;
            transaction.commit()
        };
        remove().map_err(self.error("forget an index object"))
    }

    /// Everywhere a chunk is.
    pub fn find_all(&self, id: &ChunkId) -> Result<Vec<Location>, CacheError> {
        let connection = self.lock();
        let query = || -> rusqlite::Result<Vec<LocationRow>> {
            let mut statement = connection.prepare_cached(
                "SELECT packs.id, packs.kind, chunks.segment, chunks.position, chunks.length, chunks.depth
                 FROM chunks
                 JOIN packs ON packs.number = chunks.pack WHERE chunks.id = ?1",
            )?;
            let rows = statement.query_map(params![id.as_bytes()], |row| {
                let numbers = [row.get(2)?, row.get(3)?, row.get(4)?];
                Ok((ObjectId::from_bytes(row.get(0)?), [row.get(1)?, row.get(5)?], numbers))
            })?;
            rows.collect()
        };
        let rows = query().map_err(self.error("look a chunk up"))?;
        let location = |(pack, [kind, depth], [segment, position, length]): LocationRow| {
            let kind = ObjectType::from_code(kind).ok_or_else(|| self.damaged())?;
            Ok(Location { pack, kind, segment, position, length, depth })
        };
        rows.into_iter().map(location).collect()
    }

    /// The description of one segment.
    pub fn segment(&self, pack: &PackId, ordinal: u32) -> Result<Option<SegmentEntry>, CacheError> {
        let entry = self.pack(pack)?;
        let ordinal = usize::try_from(ordinal).expect("usize has 32 bits or more");
        Ok(entry.and_then(|mut entry| (ordinal < entry.segments.len()).then(|| entry.segments.swap_remove(ordinal))))
    }

    /// The description of one pack.
    pub fn pack(&self, pack: &PackId) -> Result<Option<PackEntry>, CacheError> {
        let connection = self.lock();
        let query = || -> rusqlite::Result<Option<Vec<u8>>> {
            let mut statement = connection.prepare_cached("SELECT entry FROM packs WHERE id = ?1 LIMIT 1")?;
            statement.query_row(params![pack.as_bytes()], |row| row.get(0)).optional()
        };
        let Some(bytes) = query().map_err(self.error("look a pack up"))? else { return Ok(None) };
        let mut fields = FieldReader::new("description of a pack", &bytes);
        PackEntry::decode(&mut fields).map(Some).map_err(|_| self.damaged())
    }

    /// All packs that an index names, each once.
    pub fn packs(&self) -> Result<Vec<KnownPack>, CacheError> {
        let connection = self.lock();
        let query = || -> rusqlite::Result<Vec<(ObjectId, u8, u32)>> {
            let mut statement =
                connection.prepare_cached("SELECT id, kind, stored_size FROM packs GROUP BY id ORDER BY id")?;
            let rows =
                statement.query_map([], |row| Ok((ObjectId::from_bytes(row.get(0)?), row.get(1)?, row.get(2)?)))?;
            rows.collect()
        };
        let rows = query().map_err(self.error("list packs"))?;
        let known = |(id, kind, stored_size): (ObjectId, u8, u32)| {
            let kind = ObjectType::from_code(kind).ok_or_else(|| self.damaged())?;
            Ok(KnownPack { id, kind, stored_size: stored_size.into() })
        };
        rows.into_iter().map(known).collect()
    }

    /// Descriptions of all packs that an index names, one after the other, each once: memory holds one.
    pub fn for_each_pack(&self, mut visit: impl FnMut(PackEntry)) -> Result<(), CacheError> {
        for pack in self.packs()? {
            visit(self.pack(&pack.id)?.ok_or_else(|| self.damaged())?);
        }
        Ok(())
    }

    /// The packs that have a segment with a base.
    pub fn based_packs(&self) -> Result<BTreeSet<PackId>, CacheError> {
        let connection = self.lock();
        let query = || -> rusqlite::Result<BTreeSet<PackId>> {
            let mut statement = connection.prepare_cached("SELECT DISTINCT id FROM packs WHERE based")?;
            statement.query_map([], |row| Ok(ObjectId::from_bytes(row.get(0)?)))?.collect()
        };
        query().map_err(self.error("list packs with bases"))
    }

    /// The packs that each index object names.
    pub fn packs_by_index(&self) -> Result<BTreeMap<ObjectId, Vec<PackId>>, CacheError> {
        let connection = self.lock();
        let query = || -> rusqlite::Result<Vec<(ObjectId, ObjectId)>> {
            let mut statement = connection.prepare_cached("SELECT index_id, id FROM packs ORDER BY number")?;
            let rows = statement
                .query_map([], |row| Ok((ObjectId::from_bytes(row.get(0)?), ObjectId::from_bytes(row.get(1)?))))?;
            rows.collect()
        };
        let mut packs: BTreeMap<ObjectId, Vec<PackId>> = BTreeMap::new();
        for (index, pack) in query().map_err(self.error("list packs of index objects"))? {
            packs.entry(index).or_default().push(pack);
        }
        Ok(packs)
    }

    /// The index objects that an index object supersedes.
    pub fn superseded(&self, id: &ObjectId) -> Result<Vec<ObjectId>, CacheError> {
        let connection = self.lock();
        let query = || -> rusqlite::Result<Option<Vec<u8>>> {
            let mut statement = connection.prepare_cached("SELECT supersedes FROM indexes WHERE id = ?1")?;
            statement.query_row(params![id.as_bytes()], |row| row.get(0)).optional()
        };
        let bytes = query().map_err(self.error("look an index object up"))?.unwrap_or_default();
        let (ids, _) = bytes.as_chunks::<{ ObjectId::SIZE }>();
        Ok(ids.iter().map(|id| ObjectId::from_bytes(*id)).collect())
    }

    /// The body of a mark that was checked before.
    pub fn mark(&self, number: u32) -> Result<Option<Vec<u8>>, CacheError> {
        let connection = self.lock();
        let query = || -> rusqlite::Result<Option<Vec<u8>>> {
            let mut statement = connection.prepare_cached("SELECT body FROM marks WHERE number = ?1")?;
            statement.query_row(params![number], |row| row.get(0)).optional()
        };
        query().map_err(self.error("look a mark up"))
    }

    /// Keeps the body of a mark that was checked.
    pub fn put_mark(&self, number: u32, body: &[u8]) -> Result<(), CacheError> {
        let connection = self.lock();
        connection
            .execute("INSERT OR IGNORE INTO marks VALUES (?1, ?2)", params![number, body])
            .map(drop)
            .map_err(self.error("keep a mark"))
    }

    /// The plaintext of a segment of a tree pack that was read before.
    pub fn tree_segment(&self, pack: &PackId, segment: u32) -> Result<Option<Vec<u8>>, CacheError> {
        let connection = self.lock();
        let query = || -> rusqlite::Result<Option<Vec<u8>>> {
            let mut statement =
                connection.prepare_cached("SELECT plain FROM tree_segments WHERE pack = ?1 AND segment = ?2")?;
            statement.query_row(params![pack.as_bytes(), segment], |row| row.get(0)).optional()
        };
        query().map_err(self.error("look a segment up"))
    }

    /// Keeps the plaintext of a segment of a tree pack.
    pub fn put_tree_segment(&self, pack: &PackId, segment: u32, plain: &[u8]) -> Result<(), CacheError> {
        let connection = self.lock();
        connection
            .execute(
                "INSERT OR IGNORE INTO tree_segments VALUES (?1, ?2, ?3)",
                params![pack.as_bytes(), segment, plain],
            )
            .map(drop)
            .map_err(self.error("keep a segment"))
    }

    /// Forgets segments of tree packs that no index names any more.
    pub fn drop_stale_segments(&self) -> Result<(), CacheError> {
        let connection = self.lock();
        connection
            .execute("DELETE FROM tree_segments WHERE pack NOT IN (SELECT id FROM packs)", [])
            .map(drop)
            .map_err(self.error("forget segments"))
    }

    /// Remembers that a pack was found damaged, or whole again: nobody deduplicates against what is known to be rotten.
    pub fn set_damaged(&self, pack: &PackId, damaged: bool) -> Result<(), CacheError> {
        let connection = self.lock();
        let statement =
            if damaged { "INSERT OR IGNORE INTO damaged VALUES (?1)" } else { "DELETE FROM damaged WHERE pack = ?1" };
        connection
            .execute(statement, params![pack.as_bytes()])
            .map(drop)
            .map_err(self.error("keep the state of a pack"))
    }

    /// Packs that were found damaged.
    pub fn damaged_packs(&self) -> Result<BTreeSet<PackId>, CacheError> {
        let connection = self.lock();
        let query = || -> rusqlite::Result<BTreeSet<PackId>> {
            let mut statement = connection.prepare_cached("SELECT pack FROM damaged")?;
            statement.query_map([], |row| Ok(ObjectId::from_bytes(row.get(0)?)))?.collect()
        };
        query().map_err(self.error("list damaged packs"))
    }

    /// The body of a manifest that was checked before.
    pub fn manifest(&self, id: &SnapshotId) -> Result<Option<Vec<u8>>, CacheError> {
        let connection = self.lock();
        let query = || -> rusqlite::Result<Option<Vec<u8>>> {
            let mut statement = connection.prepare_cached("SELECT body FROM manifests WHERE id = ?1")?;
            statement.query_row(params![id.as_bytes()], |row| row.get(0)).optional()
        };
        query().map_err(self.error("look a manifest up"))
    }

    /// Keeps the body of a manifest that was checked.
    pub fn put_manifest(&self, id: &SnapshotId, body: &[u8]) -> Result<(), CacheError> {
        let connection = self.lock();
        connection
            .execute("INSERT OR IGNORE INTO manifests VALUES (?1, ?2)", params![id.as_bytes(), body])
            .map(drop)
            .map_err(self.error("keep a manifest"))
    }

    /// The state that a file had when it was last stored, and its content root, as [`Cache::put_files`] got it.
    pub fn file(&self, component: &str, path: &[u8]) -> Result<Option<Vec<u8>>, CacheError> {
        let connection = self.lock();
        let query = || -> rusqlite::Result<Option<Vec<u8>>> {
            let mut statement =
                connection.prepare_cached("SELECT state FROM files WHERE component = ?1 AND path = ?2")?;
            statement.query_row(params![component, path], |row| row.get(0)).optional()
        };
        query().map_err(self.error("look a file up"))
    }

    /// Keeps states of files that `run` saw.
    pub fn put_files(&self, component: &str, run: &[u8], files: &[(Vec<u8>, Vec<u8>)]) -> Result<(), CacheError> {
        let mut connection = self.lock();
        let mut put = || -> rusqlite::Result<()> {
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            {
                let mut statement =
                    transaction.prepare_cached("INSERT OR REPLACE INTO files VALUES (?1, ?2, ?3, ?4)")?;
                for (path, state) in files {
                    statement.execute(params![component, path, state, run])?;
                }
            }
            transaction.commit()
        };
        put().map_err(self.error("keep the states of files"))
    }

    /// Ends a run over a component: what it did not see is forgotten, and when it began is kept.
    pub fn finish_files(&self, component: &str, run: &[u8], started_ns: i64) -> Result<(), CacheError> {
        let connection = self.lock();
        let finish = || -> rusqlite::Result<()> {
            connection.execute("DELETE FROM files WHERE component = ?1 AND run <> ?2", params![component, run])?;
            connection.execute("INSERT OR REPLACE INTO file_runs VALUES (?1, ?2)", params![component, started_ns])?;
            Ok(())
        };
        finish().map_err(self.error("end a run over files"))
    }

    /// When the last finished run over a component began, in nanoseconds since 1970.
    pub fn last_file_run(&self, component: &str) -> Result<Option<i64>, CacheError> {
        let connection = self.lock();
        let query = || {
            let mut statement = connection.prepare_cached("SELECT started_ns FROM file_runs WHERE component = ?1")?;
            statement.query_row(params![component], |row| row.get(0)).optional()
        };
        query().map_err(self.error("look a run up"))
    }
}

fn setup(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Not OFF: after a power loss a torn cache could claim chunks that nobody stored.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -PAGE_CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(32);
    // Otherwise a statement is planned anew each time another chunk is asked for, which costs several times what it takes to run.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    } else if version != SCHEMA_VERSION {
        return Err(rusqlite::Error::InvalidQuery);
    }
    transaction.commit()
}

fn add_pack(transaction: &Transaction<'_>, index: &ObjectId, pack: &PackEntry) -> rusqlite::Result<()> {
    let mut entry = Vec::new();
    pack.encode(&mut entry);
    transaction
        .prepare_cached(
            "INSERT INTO packs (id, index_id, kind, stored_size, based, entry) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            pack.id.as_bytes(),
            index.as_bytes(),
            pack.kind.code(),
            pack.stored_size,
            based(pack),
            entry
        ])?;
    let number = transaction.last_insert_rowid();
    let mut statement = transaction.prepare_cached("INSERT OR IGNORE INTO chunks VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    let mut position = 0u32;
    for (ordinal, segment) in (0u32..).zip(&pack.segments) {
        for chunk in &segment.chunks {
            statement.execute(params![chunk.id.as_bytes(), number, ordinal, position, chunk.length, segment.depth])?;
            position += 1;
        }
    }
    Ok(())
}

/// Whether a segment of the pack has a base.
fn based(pack: &PackEntry) -> bool {
    pack.segments.iter().any(|segment| segment.depth > 0)
}

/// Removes a database and the files beside it. That something is not there is what is wanted.
fn remove_database(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let _ = std::fs::remove_file(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::index::{ChunkEntry, SegmentKind};

    fn index() -> Index {
        let chunk = ChunkEntry { id: ChunkId::from_bytes([4; 32]), length: 77 };
        let segment = SegmentEntry {
            kind: SegmentKind::Chunks,
            offset: 108,
            stored_length: 100,
            depth: 0,
            base: vec![],
            chunks: vec![chunk],
        };
        let id = ObjectId::of(b"pack");
        let pack = PackEntry { id, kind: ObjectType::ContentPack, stored_size: 208, segments: vec![segment] };
        Index { supersedes: vec![], packs: vec![pack] }
    }

    #[test]
    fn a_chunk_is_found_until_its_index_is_forgotten() {
        let cache = Cache::temporary().expect("a temporary database");
        let (id, index) = (ObjectId::of(b"index"), index());
        cache.add_index(&id, &index).expect("added");
        cache.add_index(&id, &index).expect("added twice");
        let chunk = index.packs[0].segments[0].chunks[0].id;
        assert_eq!(cache.find_all(&chunk).expect("found").len(), 1);
        assert_eq!(cache.pack(&index.packs[0].id).expect("read"), Some(index.packs[0].clone()));
        cache.remove_index(&id).expect("removed");
        assert!(cache.find_all(&chunk).expect("looked up").is_empty());
    }

    #[test]
    fn a_file_that_is_no_database_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cache.sqlite");
        std::fs::write(&path, b"not a database, not at all, but long enough to look like something else")
            .expect("written");
        let cache = Cache::open(&path).expect("replaced");
        assert!(cache.known_indexes().expect("empty").is_empty());
    }
}
