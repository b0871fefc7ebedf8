//! A repository of many small packs, made quickly: real seals, real index objects, real recipes, tiny packs.

// Each test target uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use infrahub_backup::env::{SystemEntropy, random_bytes};
use infrahub_backup::format::config::{ProfileName, Profiles};
use infrahub_backup::format::envelope::ObjectType;
use infrahub_backup::format::index::{ChunkEntry, Index, PackEntry, SegmentEntry, SegmentKind};
use infrahub_backup::format::layout;
use infrahub_backup::format::manifest::{
    ComponentRecord, ComponentStatus, Consistency, Layout, Manifest, Sizes, Window,
};
use infrahub_backup::id::{ChunkId, ObjectId, RunId, SnapshotId};
use infrahub_backup::repository::budget::{BUDGET_BYTES_MIN, Budget};
use infrahub_backup::repository::executor::{Executor, RayonExecutor};
use infrahub_backup::repository::lease::{Claimant, RunLease};
use infrahub_backup::repository::session::SessionOptions;
use infrahub_backup::repository::{Outside, Repository, confirm, open};
use infrahub_backup::seal::pack::{CodedSegment, PackSealer};
use infrahub_backup::seal::slot::{Credential, NewCredential};
use infrahub_backup::storage::Store;

/// Packs that one index object describes.
const PACKS_OF_AN_INDEX: usize = 5_000;

/// Founds a repository in an empty store.
pub async fn found(store: &Arc<dyn Store>, outside: &Outside) -> Credential {
    let founded = open::found(&**store, outside, Profiles::DEFAULT, NewCredential::KeyFile).await.expect("founded");
    Credential::KeyFile(founded.1.expect("a key file was asked for"))
}

/// Opens it as a machine that keeps its cache in `cache`.
pub async fn opened(
    store: &Arc<dyn Store>,
    key: &Credential,
    cache: Option<&std::path::Path>,
    outside: &Outside,
) -> Arc<Repository> {
    let repository = open::open(Arc::clone(store), key, cache, outside.clone()).await.expect("opened");
    repository.sync_index().await.expect("indexed");
    Arc::new(repository)
}

/// Puts `count` packs of one chunk each, and the index of them. Gives the chunks.
pub async fn put_packs(repository: &Arc<Repository>, count: usize) -> Vec<(ChunkId, u64)> {
    let (mut chunks, mut entries) = (Vec::with_capacity(count), Vec::new());
    for n in 0..count {
        let plain = format!("chunk {n} {:?}", random_bytes::<8>(&SystemEntropy));
        let id = repository.keys().chunk_id(plain.as_bytes());
        let length = u32::try_from(plain.len()).expect("a short text");
        let mut sealer = PackSealer::new(repository.keys(), &SystemEntropy, ObjectType::ContentPack, 256);
        let coded = CodedSegment::encode(plain.as_bytes(), &[]);
        let offset = sealer.push(&SystemEntropy, &coded);
        let stored = Bytes::from(sealer.finish());
        let segment = SegmentEntry {
            kind: SegmentKind::Chunks,
            offset,
            stored_length: u32::try_from(coded.stored_length()).expect("a short text"),
            depth: 0,
            base: vec![],
            chunks: vec![ChunkEntry { id, length }],
        };
        let pack = ObjectId::of(&stored);
        let stored_size = u32::try_from(stored.len()).expect("a small pack");
        entries.push(PackEntry { id: pack, kind: ObjectType::ContentPack, stored_size, segments: vec![segment] });
        repository.store().put_new(&layout::object(ObjectType::ContentPack, &pack), stored).await.expect("put");
        chunks.push((id, u64::from(length)));
    }
    for packs in entries.chunks(PACKS_OF_AN_INDEX) {
        let index = Index { supersedes: vec![], packs: packs.to_vec() };
        repository.put_object(ObjectType::Index, &index.encode()).await.expect("put");
    }
    chunks
}

/// Makes a snapshot of one stream that consists of these chunks.
pub async fn snapshot_of(repository: &Arc<Repository>, chunks: &[(ChunkId, u64)]) -> SnapshotId {
    let executor: Arc<dyn Executor> = Arc::new(RayonExecutor);
    let claimant = Claimant {
        run: RunId::from_bytes(random_bytes(&SystemEntropy)),
        operation: "create",
        holder: "test".to_owned(),
    };
    let lease = RunLease::begin(repository, claimant).await.expect("a lease");
    let budget = Budget::new(BUDGET_BYTES_MIN).expect("the least budget is enough");
    let options = SessionOptions { budget, executor: Arc::clone(&executor), stage: None };
    let session = repository.write(options).await.expect("a session");
    let mut component = session.component().await;
    let mut stream = component.content(ProfileName::Dump);
    for some in chunks.chunks(10_000) {
        component.reuse(&mut stream, some.to_vec()).await.expect("reused");
    }
    let (record, _) = component.end_as("content", stream).await.expect("ended");
    component.finish().await.expect("packed");
    let packs = session.flush().await.expect("durable");
    let index = session.write_index(packs).await.expect("indexed");
    let now = repository.clock().now();
    let component = ComponentRecord {
        name: "database".to_owned(),
        kind: "opaque".to_owned(),
        status: ComponentStatus::Complete,
        failure: None,
        consistency: Consistency::Given,
        window: Window { start: now, end: now },
        layout: Layout::Plain,
        streams: vec![record],
        sizes: Sizes::default(),
        version: None,
        edition: None,
        counts: BTreeMap::new(),
        warnings: vec![],
    };
    let manifest = Manifest {
        format: 1,
        deployment: "synthetic".to_owned(),
        created_at: now,
        finished_at: now,
        run: lease.claimant().run,
        lease_deadline: lease.deadline(),
        previous: None,
        host: "test".to_owned(),
        tool: "test".to_owned(),
        infrahub_version: None,
        indexes: index.indexes().to_vec(),
        components: vec![component],
        tags: BTreeMap::new(),
    };
    let id = session.commit(&manifest, &index).await.expect("committed");
    confirm::settle(repository, &executor, lease, &id, &manifest).await.expect("in time");
    id
}
