//! What a bespoke configuration may say, and what it is told when it says something else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use infrahub_backup::component::{ComponentError, open_components};
use infrahub_backup::env::{Entropy, SystemEntropy};
use infrahub_backup::provider::bespoke::BespokeProvider;
use infrahub_backup::provider::config::BespokeConfig;
use infrahub_backup::provider::{Provider, ProviderError, ServiceState};

const GOOD: &str = r#"
[deployment]
name = "site-a"

[defaults]
stall_timeout = "5m"
wrap = ["nice"]

[[service]]
name = "database"
wrap = ["ssh", "db1", "--"]
stop = ["systemctl", "stop", "neo4j"]
start = ["systemctl", "start", "neo4j"]
probe = ["systemctl", "is-active", "neo4j"]
stopped_codes = [3]
stop_timeout = "3m"

[[service]]
name = "infrahub-server"
stop = ["stop"]
start = ["start"]
probe = ["probe"]

[[component]]
name = "database"
kind = "neo4j"
service = "database"
edition = "community"
dump = ["neo4j-admin", "database", "dump", "--to-stdout", "neo4j"]
load = ["neo4j-admin", "database", "load", "--from-stdin", "--overwrite-destination=true", "neo4j"]
env = { JAVA_HOME = { value = "/usr/lib/jvm" } }
also_stop = ["infrahub-server"]
[component.neo4j]
uri = "bolt://127.0.0.1:7687"
password = { file = "/etc/infrahub/neo4j" }

[[component]]
name = "task-manager-db"
kind = "postgres"
[component.postgres]
user = "prefect"
password = { command = ["pass", "prefect"] }
database = "prefect"

[[component]]
name = "artifacts"
kind = "artifacts"
service = "infrahub-server"
path = "/srv/infrahub/storage"

[[component]]
name = "queue"
kind = "opaque"
dump = ["dump-queue"]
load = ["load-queue"]

[repository]
url = "file:///srv/backup"
"#;

fn parse(text: &str) -> Result<BespokeConfig, String> {
    BespokeConfig::parse(text, Path::new("site.toml")).map_err(|error| error.to_string())
}

fn error_of(text: &str) -> String {
    parse(text).expect_err("this must be refused")
}

/// The error when `from` in the good file is replaced by `to`.
fn error_with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    error_of(&GOOD.replacen(from, to, 1))
}

#[test]
fn a_good_file_gives_the_deployment_in_its_order() {
    let provider = BespokeProvider::new(parse(GOOD).unwrap(), Path::new("site.toml"));
    let deployment = provider.deployment();
    assert_eq!(deployment.services, ["database", "infrahub-server"]);
    let names: Vec<_> = deployment.components.iter().map(|component| component.name.as_str()).collect();
    assert_eq!(names, ["database", "task-manager-db", "artifacts", "queue"]);
    assert_eq!(deployment.components[0].stopped_for_dump, ["database", "infrahub-server"]);
}

#[test]
fn an_artifact_folder_stops_its_service_for_a_load_only() {
    let provider = BespokeProvider::new(parse(GOOD).unwrap(), Path::new("site.toml"));
    let artifacts = &provider.deployment().components[2];
    assert_eq!((artifacts.stopped_for_dump.len(), artifacts.stopped_for_load.len()), (0, 1));
    assert_eq!(artifacts.folder, Some(PathBuf::from("/srv/infrahub/storage")));
}

#[test]
fn the_nearest_wrapper_and_timeout_win() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.component_wrap(&config.components[0]), ["ssh", "db1", "--"]);
    assert_eq!(config.component_wrap(&config.components[3]), ["nice"]);
    assert_eq!(config.defaults.stall_timeout, Duration::from_secs(300));
    assert_eq!(config.defaults.total_timeout, Duration::from_secs(12 * 3600));
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let error = error_with("probe = [\"probe\"]", "probe = [\"probe\"]\nrestart = [\"x\"]");
    assert!(error.starts_with("`site.toml` line 23: unknown field `restart`"), "{error}");
}

#[test]
fn two_components_of_one_name_are_refused() {
    let error = error_with("name = \"queue\"", "name = \"artifacts\"");
    assert_eq!(error, "`site.toml`: two components have the name `artifacts`");
}

#[test]
fn two_services_of_one_name_are_refused() {
    let error = error_with("name = \"infrahub-server\"", "name = \"database\"");
    assert_eq!(error, "`site.toml`: two services have the name `database`");
}

#[test]
fn a_service_that_is_not_there_is_named() {
    let error = error_with("also_stop = [\"infrahub-server\"]", "also_stop = [\"infrahub\"]");
    assert_eq!(error, "`site.toml`: component `database`: there is no service `infrahub`");
}

#[test]
fn a_bad_duration_is_named_with_its_line() {
    let error = error_with("stop_timeout = \"3m\"", "stop_timeout = \"3 minutes\"");
    assert!(error.starts_with("`site.toml` line 16: `3 minutes` is not a duration"), "{error}");
}

#[test]
fn a_stall_timeout_beyond_the_total_one_is_refused() {
    let error = error_with("stall_timeout = \"5m\"", "stall_timeout = \"13h\"");
    assert_eq!(error, "`site.toml`: `[defaults]`: `stall_timeout` is longer than `total_timeout`");
}

#[test]
fn a_section_of_another_kind_is_refused() {
    let error = error_with("kind = \"postgres\"", "kind = \"opaque\"\ndump = [\"d\"]\nload = [\"l\"]");
    let wanted = "component `task-manager-db`: `postgres` belongs to kind `postgres`, not to `opaque`";
    assert_eq!(error, format!("`site.toml`: {wanted}"));
}

#[test]
fn a_password_written_into_the_file_is_refused_and_not_repeated() {
    for password in ["\"hunter2\"", "{ value = \"hunter2\" }", "7777777"] {
        let error = error_with("{ file = \"/etc/infrahub/neo4j\" }", password);
        let line = GOOD.lines().position(|line| line.starts_with("password = { file")).unwrap() + 1;
        let wanted = format!("`site.toml` line {line}: a secret is not written into the configuration");
        assert!(error.starts_with(&wanted), "{error}");
        assert!(!error.contains("hunter2") && !error.contains("7777777"), "{error}");
    }
}

#[test]
fn a_password_in_the_address_is_refused_and_not_repeated() {
    let error = error_with("bolt://127", "bolt://neo4j:hunter2@127");
    assert!(error.ends_with("component `database`: `uri` must not hold a user or a password"), "{error}");
}

#[test]
fn an_edition_that_nobody_can_ask_for_must_be_given() {
    let text = GOOD.replace("edition = \"community\"", "");
    let start = text.find("[component.neo4j]").unwrap();
    let end = start + text[start..].find("\n\n").unwrap();
    let error = error_of(&format!("{}{}", &text[..start], &text[end..]));
    assert!(error.contains("component `database`: without `[component.neo4j]` the edition cannot"), "{error}");
}

#[test]
fn an_own_load_behind_a_wrapper_must_say_where_the_database_goes() {
    let error = error_with("kind = \"postgres\"", "kind = \"postgres\"\nload = [\"my-load\"]");
    assert!(error.contains("component `task-manager-db`: `load` needs `{database}` in an argument"), "{error}");
    let good = "kind = \"postgres\"\nload = [\"my-load\", \"{database}\"]";
    assert!(parse(&GOOD.replacen("kind = \"postgres\"", good, 1)).is_ok());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = BespokeConfig::read(Path::new("/nowhere/site.toml")).unwrap_err();
    assert_eq!(error.to_string(), "the configuration `/nowhere/site.toml` cannot be read");
}

fn provider(folder: &Path, probe: &str, stop: &str) -> BespokeProvider {
    let folder = folder.display();
    let text = format!(
        r#"
[deployment]
name = "site"
[[service]]
name = "server"
stop = ["sh", "-c", "{stop}", "{folder}"]
start = ["touch", "{folder}/runs"]
probe = ["sh", "-c", "{probe}", "{folder}"]
stop_timeout = "1s"
[[component]]
name = "queue"
kind = "opaque"
dump = ["true"]
load = ["true"]
"#
    );
    BespokeProvider::new(parse(&text).unwrap(), Path::new("site.toml"))
}

#[tokio::test]
async fn stop_returns_when_the_probe_says_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path(), "test -e $0/runs", "(sleep 0.3; rm $0/runs) >/dev/null 2>&1 &");
    provider.start("server", &[]).await.unwrap();
    provider.wait_ready("server", &[], Duration::from_secs(5)).await.unwrap();
    provider.stop("server", &[]).await.unwrap();
    assert_eq!(provider.state("server").await.unwrap(), ServiceState::Stopped);
}

#[tokio::test]
async fn a_service_that_does_not_stop_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path(), "test -e $0/runs", "true");
    provider.start("server", &[]).await.unwrap();
    let error = provider.stop("server", &[]).await.unwrap_err();
    assert!(matches!(error, ProviderError::NotInTime { wanted: "stopped", .. }), "{error:?}");
}

#[tokio::test]
async fn a_probe_that_says_neither_is_an_error_and_not_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path(), "exit 255", "true");
    let error = provider.state("server").await.unwrap_err();
    assert!(matches!(error, ProviderError::Service { action: "answer its probe", .. }), "{error:?}");
}

#[tokio::test]
async fn a_neo4j_that_cannot_be_asked_has_no_edition() {
    let text = GOOD.replace("edition = \"community\"", "edition = \"auto\"").replace(":7687", ":1");
    let text = text.replace("{ file = \"/etc/infrahub/neo4j\" }", "{ env = \"PATH\" }");
    let provider = Arc::new(BespokeProvider::new(parse(&text).unwrap(), Path::new("site.toml")));
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let opened = open_components(&provider, &entropy, &|name| name == "database").await;
    assert!(matches!(opened.err(), Some(ComponentError::EditionUnknown { source: Some(_), .. })));
}
