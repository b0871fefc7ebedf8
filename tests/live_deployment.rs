//! Dump and load against real databases, which a bespoke configuration describes.
//!
//! `INFRAHUB_BACKUP_TEST_CONFIG` names that file; run it with `--ignored`. Its databases are replaced by their own dump.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use infrahub_backup::component::{Component, ComponentError, open_components};
use infrahub_backup::env::{Entropy, SystemEntropy};
use infrahub_backup::provider::Provider;
use infrahub_backup::provider::bespoke::BespokeProvider;
use infrahub_backup::provider::config::BespokeConfig;

const READY: Duration = Duration::from_secs(180);

async fn open() -> Option<(Arc<BespokeProvider>, Vec<Box<dyn Component>>)> {
    let Some(path) = std::env::var_os("INFRAHUB_BACKUP_TEST_CONFIG") else {
        eprintln!("not tested: INFRAHUB_BACKUP_TEST_CONFIG is not set");
        return None;
    };
    let config = BespokeConfig::read(Path::new(&path)).unwrap();
    let provider = Arc::new(BespokeProvider::new(config, Path::new(&path)));
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let open = open_components(&provider, &entropy, &|_| true).await.unwrap();
    Some((provider, open.streams))
}

async fn stop(provider: &BespokeProvider, services: &[String]) {
    for service in services {
        provider.stop(service, &[]).await.unwrap();
    }
}

async fn start(provider: &BespokeProvider, services: &[String]) {
    for service in services {
        provider.start(service, &[]).await.unwrap();
        provider.wait_ready(service, &[], READY).await.unwrap();
    }
}

async fn dump(component: &dyn Component) -> Result<Vec<u8>, ComponentError> {
    let mut dump = component.dump().await?;
    let mut bytes = Vec::new();
    while let Some(piece) = dump.next().await? {
        bytes.extend_from_slice(&piece);
    }
    dump.finish().await?;
    Ok(bytes)
}

async fn load(component: &dyn Component, bytes: Vec<u8>) -> Result<(), ComponentError> {
    let mut load = component.load().await?;
    for piece in bytes.chunks(100_000) {
        if let Err(error) = load.write(piece.to_vec().into()).await {
            load.abort().await;
            return Err(error);
        }
    }
    load.finish().await.map(drop)
}

#[ignore = "not tested: needs a deployment of its own, INFRAHUB_BACKUP_TEST_CONFIG names its configuration (tests/e2e has one)"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_database_comes_back_from_its_dump_and_survives_a_broken_one() {
    let Some((provider, components)) = open().await else {
        return;
    };
    for component in &components {
        let info = component.info().clone();
        let before = component.inspect().await.unwrap();
        eprintln!("{}: {before:?}", info.name);

        stop(&provider, &info.stopped_for_dump).await;
        let bytes = dump(&**component).await;
        start(&provider, &info.stopped_for_dump).await;
        let bytes = bytes.unwrap();
        eprintln!("{}: {} bytes", info.name, bytes.len());
        component.wait_ready(READY).await.unwrap();

        if info.kind == infrahub_backup::deployment::ComponentKind::Postgres {
            let half = bytes[..bytes.len() / 2].to_vec();
            let error = load(&**component, half).await.unwrap_err();
            eprintln!("{}: half a dump: {error}: {}", info.name, std::error::Error::source(&error).unwrap());
            assert_eq!(component.inspect().await.unwrap().counts, before.counts);
        }

        stop(&provider, &info.stopped_for_load).await;
        let loaded = load(&**component, bytes).await;
        start(&provider, &info.stopped_for_load).await;
        loaded.unwrap();
        component.wait_ready(READY).await.unwrap();
        assert_eq!(component.inspect().await.unwrap().counts, before.counts);
    }
}
