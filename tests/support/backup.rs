//! A repository and snapshots of one stream each, made by the library alone: for tests and benches that need no deployment.
//!
//! Each step can be taken by itself, so that a test can stop between two of them.

// Each test target uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use infrahub_backup::env::{SystemEntropy, random_bytes};
use infrahub_backup::format::FORMAT_VERSION;
use infrahub_backup::format::config::{ProfileName, Profiles};
use infrahub_backup::format::manifest::{
    ComponentRecord, ComponentStatus, Consistency, Layout, Manifest, Sizes, StreamRecord, Window,
};
use infrahub_backup::id::{ObjectId, RunId, SnapshotId};
use infrahub_backup::repository::budget::{BUDGET_BYTES_MIN, Budget};
use infrahub_backup::repository::chunks::ChunkReader;
use infrahub_backup::repository::executor::{Executor, RayonExecutor};
use infrahub_backup::repository::lease::{Claimant, RunLease};
use infrahub_backup::repository::session::{
    ComponentWriter, IndexDurable, InputBlock, OpenStream, SessionOptions, WriteSession,
};
use infrahub_backup::repository::stream::StreamReader;
use infrahub_backup::repository::{Outside, Repository, RepositoryError, confirm, open};
use infrahub_backup::seal::slot::{Credential, NewCredential};
use infrahub_backup::storage::Store;
use jiff::Timestamp;

/// Founds a repository in an empty store.
pub async fn found(store: &Arc<dyn Store>, outside: &Outside) -> Credential {
    found_with(store, outside, Profiles::DEFAULT).await
}

/// The same, with streams cut otherwise.
pub async fn found_with(store: &Arc<dyn Store>, outside: &Outside, profiles: Profiles) -> Credential {
    let founded = open::found(&**store, outside, profiles, NewCredential::KeyFile).await.expect("founded");
    Credential::KeyFile(founded.1.expect("a key file was asked for"))
}

/// Opens it as a machine that keeps its cache in `cache`.
pub async fn opened(
    store: &Arc<dyn Store>,
    key: &Credential,
    cache: Option<&Path>,
    outside: &Outside,
) -> Arc<Repository> {
    let repository = open::open(Arc::clone(store), key, cache, outside.clone()).await.expect("opened");
    repository.sync_index().await.expect("indexed");
    Arc::new(repository)
}

/// A run of its own.
pub fn claimant(operation: &'static str) -> Claimant {
    Claimant { run: RunId::from_bytes(random_bytes(&SystemEntropy)), operation, holder: "test".to_owned() }
}

/// A session of the least memory.
pub async fn session(repository: &Arc<Repository>, executor: Arc<dyn Executor>) -> WriteSession {
    let budget = Budget::new(BUDGET_BYTES_MIN).expect("the least budget is enough");
    repository.write(SessionOptions { budget, executor, stage: None }).await.expect("a session")
}

/// Writes `content` as a stream comes from a dump: piece by piece.
pub async fn write(
    session: &WriteSession,
    component: &mut ComponentWriter,
    stream: &mut OpenStream,
    content: &[u8],
) -> Result<(), RepositoryError> {
    for piece in content.chunks(200_000) {
        let permit = session.budget().acquire(piece.len() as u64).await;
        let block = InputBlock { bytes: Bytes::copy_from_slice(piece), border: false, permit: Some(permit) };
        component.write(stream, block).await?;
    }
    Ok(())
}

/// Writes `content` as the only stream of a component, to its end.
pub async fn write_component(session: &WriteSession, content: &[u8]) -> Result<StreamRecord, RepositoryError> {
    let mut component = session.component().await;
    let mut stream = component.content(ProfileName::Dump);
    write(session, &mut component, &mut stream, content).await?;
    let (record, _) = component.end_as("content", stream).await?;
    component.finish().await?;
    Ok(record)
}

/// Makes all that was written durable.
pub async fn finish(session: &WriteSession) -> Result<IndexDurable, RepositoryError> {
    let packs = session.flush().await?;
    session.write_index(packs).await
}

/// A manifest of one component of one stream, by a run that has long to go.
pub fn manifest(now: Timestamp, stream: StreamRecord, indexes: &[ObjectId]) -> Manifest {
    let component = ComponentRecord {
        name: "database".to_owned(),
        kind: "opaque".to_owned(),
        status: ComponentStatus::Complete,
        failure: None,
        consistency: Consistency::Given,
        window: Window { start: now, end: now },
        layout: Layout::Plain,
        streams: vec![stream],
        sizes: Sizes::default(),
        version: None,
        edition: None,
        counts: BTreeMap::new(),
        warnings: vec![],
    };
    Manifest {
        format: FORMAT_VERSION,
        deployment: "test".to_owned(),
        created_at: now,
        finished_at: now,
        run: RunId::from_bytes([1; 16]),
        lease_deadline: now + jiff::SignedDuration::from_hours(6),
        previous: None,
        host: "test".to_owned(),
        tool: "test".to_owned(),
        infrahub_version: None,
        indexes: indexes.to_vec(),
        components: vec![component],
        tags: BTreeMap::new(),
    }
}

/// The same, by the run that holds `lease`.
pub fn manifest_under(lease: &RunLease, now: Timestamp, stream: StreamRecord, indexes: &[ObjectId]) -> Manifest {
    let (run, lease_deadline) = (lease.claimant().run, lease.deadline());
    Manifest { run, lease_deadline, ..manifest(now, stream, indexes) }
}

/// Commits a snapshot of a stream that was written, and ends its run.
pub async fn commit(
    repository: &Arc<Repository>,
    session: WriteSession,
    lease: RunLease,
    stream: StreamRecord,
) -> Result<SnapshotId, RepositoryError> {
    let index = finish(&session).await?;
    let manifest = manifest_under(&lease, repository.clock().now(), stream, index.indexes());
    let id = session.commit(&manifest, &index).await?;
    let executor: Arc<dyn Executor> = Arc::new(RayonExecutor);
    confirm::settle(repository, &executor, lease, &id, &manifest).await?;
    Ok(id)
}

/// A snapshot of one stream, under a lease.
pub async fn back_up(repository: &Arc<Repository>, content: &[u8]) -> SnapshotId {
    let lease = RunLease::begin(repository, claimant("create")).await.expect("a lease");
    let session = session(repository, Arc::new(RayonExecutor)).await;
    let stream = write_component(&session, content).await.expect("written");
    commit(repository, session, lease, stream).await.expect("backed up")
}

/// The bytes of a stream, each of them checked.
pub async fn read_stream(repository: &Arc<Repository>, stream: &StreamRecord) -> Result<Vec<u8>, RepositoryError> {
    let reader = Arc::new(ChunkReader::new(Arc::clone(repository), Arc::new(RayonExecutor)));
    let mut stream = StreamReader::new(reader, &stream.root, stream.length)?;
    let mut out = Vec::new();
    while let Some(piece) = stream.next().await? {
        out.extend_from_slice(&piece);
    }
    Ok(out)
}

/// The only stream of a snapshot.
pub async fn read_back(repository: &Arc<Repository>, id: &SnapshotId) -> Result<Vec<u8>, RepositoryError> {
    let manifest = repository.manifest(id).await?;
    read_stream(repository, &manifest.components[0].streams[0]).await
}

/// Bytes that do not compress and share nothing with those of another seed.
pub fn noise(seed: u8, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}
