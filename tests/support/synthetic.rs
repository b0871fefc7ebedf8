//! A repository of many small packs, made quickly: real seals, real index objects, real recipes, tiny packs.

// Each test target uses a part of this.
#![allow(dead_code)]

#[path = "backup.rs"]
pub mod backup;

use std::sync::Arc;

use bytes::Bytes;
use infrahub_backup::env::{SystemEntropy, random_bytes};
use infrahub_backup::format::config::ProfileName;
use infrahub_backup::format::envelope::ObjectType;
use infrahub_backup::format::index::{ChunkEntry, Index, PackEntry, SegmentEntry, SegmentKind};
use infrahub_backup::format::layout;
use infrahub_backup::id::{ChunkId, ObjectId, SnapshotId};
use infrahub_backup::repository::Repository;
use infrahub_backup::repository::executor::RayonExecutor;
use infrahub_backup::repository::lease::RunLease;
use infrahub_backup::seal::pack::{CodedSegment, PackSealer};

/// Packs that one index object describes.
const PACKS_OF_AN_INDEX: usize = 5_000;

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
    let lease = RunLease::begin(repository, backup::claimant("create")).await.expect("a lease");
    let session = backup::session(repository, Arc::new(RayonExecutor)).await;
    let mut component = session.component().await;
    let mut stream = component.content(ProfileName::Dump);
    for some in chunks.chunks(10_000) {
        component.reuse(&mut stream, some.to_vec()).await.expect("reused");
    }
    let (record, _) = component.end_as("content", stream).await.expect("ended");
    component.finish().await.expect("packed");
    backup::commit(repository, session, lease, record).await.expect("committed")
}
