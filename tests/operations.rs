//! The operations as a library, on the deployment `files`: real dumps in, one snapshot, the same bytes out.

mod place;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use infrahub_backup::error::ErrorKind;
use infrahub_backup::ops::create::{CreateOptions, Created, FilesSource, Source};
use infrahub_backup::ops::{dump, verify};
use infrahub_backup::repository::check::Depth;
use infrahub_backup::repository::executor::RayonExecutor;
use infrahub_backup::repository::snapshots::Snapshot;
use place::{backed_up, files, fixture, place, restored, told};

#[tokio::test(flavor = "multi_thread")]
async fn dumps_and_files_come_back_from_one_snapshot() {
    let place = place().await;
    let created = backed_up(&place, files(&place, 1), CreateOptions::default()).await;
    let created = created.unwrap_or_else(|error| panic!("{}", told(&error)));
    let folder = place.folder.path().join("out");
    restored(&place, &created, &folder).await;
    let read = |path: &Path| std::fs::read(path).expect("read");
    assert!(read(&folder.join("task-manager-db.dump")) == read(&fixture("task-manager-db-day1.dump")));
    assert!(read(&folder.join("artifacts/large")) == read(&place.folder.path().join("artifacts/large")));
    assert_eq!(std::fs::read_link(folder.join("artifacts/deep/er/link")).expect("a link"), Path::new("../nowhere"));
    let mode = folder.join("artifacts/large").metadata().expect("there").permissions().mode() & 0o7777;
    assert_eq!(mode, 0o640);
    let mut out = Vec::new();
    let snapshot = Snapshot::new(created.id, created.manifest);
    dump::dump(&place.context, &place.repository, &snapshot, "artifacts", Some(b"deep/file-7"), &mut out)
        .await
        .expect("dumped");
    assert_eq!(out, "artifact 7\n".repeat(7).into_bytes());
    let verified = verify::verify(&place.context, &place.repository, Depth::Data, &[]).await.expect("verified");
    assert_eq!(verified.checked.findings, vec![]);
    let (reports, damages) = place.repository.reports().await.expect("listed");
    assert_eq!((reports.len(), damages.len()), (3, 0), "create, restore and verify leave a report each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_unchanged_files_reads_no_file_again_and_adds_next_to_nothing() {
    let place = place().await;
    let artifacts_of = |created: &Created| created.manifest.component("artifacts").expect("there").sizes.clone();
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let first = backed_up(&place, files(&place, 1), CreateOptions::default()).await.expect("created");
    let second = backed_up(&place, files(&place, 1), CreateOptions::default()).await.expect("created");
    assert_eq!(artifacts_of(&first).files_unchanged, Some(0));
    assert_eq!(artifacts_of(&second).files_unchanged, artifacts_of(&second).files);
    assert!(
        second.stored_bytes <= first.stored_bytes / 1000 + (64 << 10),
        "{} after {}",
        second.stored_bytes,
        first.stored_bytes
    );
    let folder = place.folder.path().join("out");
    restored(&place, &second, &folder).await;
    let read = |path: &Path| std::fs::read(path).expect("read");
    assert!(read(&folder.join("artifacts/large")) == read(&place.folder.path().join("artifacts/large")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_is_no_dump_leaves_no_snapshot() {
    let place = place().await;
    let path = place.folder.path().join("garbage");
    let whole = std::fs::read(fixture("task-manager-db-day1.dump")).expect("read");
    for bytes in
        [&b""[..], b"PGDMP garbage that goes on for a while", &whole[..whole.len() - 1], &whole[..whole.len() / 2]]
    {
        std::fs::write(&path, bytes).expect("written");
        let Source::Files(source) = files(&place, 1) else { unreachable!() };
        let source = Source::Files(FilesSource { postgres: Some(path.clone()), ..source });
        let error = backed_up(&place, source, CreateOptions::default()).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Source, "{}", told(&error));
        assert!(told(&error).contains("task-manager-db"), "{}", told(&error));
    }
    assert!(place.repository.snapshots().await.expect("listed").0.is_empty());
    let verified = verify::verify(&place.context, &place.repository, Depth::Data, &[]).await.expect("verified");
    assert_eq!(verified.checked.findings, vec![]);
}

/// Gives noise that does not compress, in the largest pieces.
struct Noise(u32);

#[async_trait::async_trait]
impl infrahub_backup::component::DumpStream for Noise {
    async fn next(&mut self) -> Result<Option<bytes::Bytes>, infrahub_backup::component::ComponentError> {
        self.0 += 1;
        let piece = |n: u32| blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof();
        let mut bytes = vec![0; infrahub_backup::limits::INPUT_BLOCK_SIZE_MAX];
        piece(self.0).fill(&mut bytes);
        Ok((self.0 <= 200).then(|| bytes.into()))
    }

    async fn finish(
        self: Box<Self>,
    ) -> Result<infrahub_backup::component::ExitOk, infrahub_backup::component::ComponentError> {
        let (command, elapsed) = ("noise".to_owned(), std::time::Duration::ZERO);
        Ok(infrahub_backup::component::ExitOk { command, bytes: 0, elapsed, log: vec![] })
    }

    async fn abort(self: Box<Self>) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_at_the_least_memory_budget_does_not_deadlock() {
    use infrahub_backup::deployment::ComponentKind;
    use infrahub_backup::repository::budget::{BUDGET_BYTES_MIN, Budget};
    use infrahub_backup::repository::session::SessionOptions;
    let place = place().await;
    let budget = Budget::new(BUDGET_BYTES_MIN).expect("the least");
    let options = SessionOptions { budget, executor: Arc::new(RayonExecutor), stage: None };
    let session = place.repository.write(options).await.expect("a session");
    let stored = infrahub_backup::ops::streams::store(
        &place.context,
        &session,
        "noise",
        ComponentKind::Opaque,
        false,
        infrahub_backup::ops::streams::Expected::default(),
        Box::new(Noise(0)),
    );
    let stored = tokio::time::timeout(std::time::Duration::from_secs(120), stored).await.expect("it ends");
    assert_eq!(stored.expect("stored").0.sizes.logical_bytes, 200 * 256 * 1024);
}
