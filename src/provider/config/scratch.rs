//! `[scratch]`: the mark of a deployment that may be overwritten, and what it shares with another one.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{BespokeConfig, ComponentConfig, Neo4jSection, PostgresSection, ServiceConfig};

/// `[scratch]`: a drill may put snapshots of other deployments here, over whatever is here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScratchSection {
    /// Takes away what a drill restored, behind the default `wrap`. Without it, that stays until the next drill.
    pub clean: Option<Vec<String>>,
}

impl BespokeConfig {
    /// What this and `other` both reach, as sentences: services that are stopped by the same command, components that are loaded
    /// by the same command, the same database, or folders of which one is in the other.
    ///
    /// That nothing is found proves nothing: two names may lead to one server.
    pub fn shared_with(&self, other: &Self) -> Vec<String> {
        let mut shared = Vec::new();
        for ours in &self.services {
            let theirs = other.services.iter().find(|theirs| self.is_same_service(ours, other, theirs));
            shared.extend(theirs.map(|_| format!("service `{}` is stopped or started by the same command", ours.name)));
        }
        for ours in &self.components {
            let reasons = other.components.iter().filter_map(|theirs| self.is_same_component(ours, other, theirs));
            shared.extend(reasons.map(|reason| format!("component `{}` {reason}", ours.name)));
        }
        shared
    }

    fn is_same_service(&self, ours: &ServiceConfig, other: &Self, theirs: &ServiceConfig) -> bool {
        let same_place = (self.service_wrap(ours), &ours.env) == (other.service_wrap(theirs), &theirs.env);
        same_place && (ours.stop == theirs.stop || ours.start == theirs.start)
    }

    fn is_same_component(
        &self,
        ours: &ComponentConfig,
        other: &Self,
        theirs: &ComponentConfig,
    ) -> Option<&'static str> {
        let place = |config: &Self, component: &ComponentConfig| {
            (config.component_wrap(component), component.cwd.clone(), component.env.clone())
        };
        let same_load = ours.load.is_some() && ours.load == theirs.load;
        if same_load && place(self, ours) == place(other, theirs) {
            return Some("is loaded by the same command");
        }
        if both(&ours.neo4j, &theirs.neo4j, is_same_graph) || both(&ours.postgres, &theirs.postgres, is_same_database) {
            return Some("is the same database");
        }
        both(&ours.path, &theirs.path, |a, b| overlap(a, b)).then_some("is the same folder, or one is in the other")
    }
}

fn both<T>(a: &Option<T>, b: &Option<T>, same: impl Fn(&T, &T) -> bool) -> bool {
    a.as_ref().zip(b.as_ref()).is_some_and(|(a, b)| same(a, b))
}

/// One server of Neo4j is one target: its load command names the database, and that is not known here.
fn is_same_graph(a: &Neo4jSection, b: &Neo4jSection) -> bool {
    let server = |section: &Neo4jSection| {
        let uri = section.uri.trim_end_matches('/').to_ascii_lowercase();
        ["localhost", "[::1]"].iter().fold(uri, |uri, name| uri.replace(&format!("//{name}"), "//127.0.0.1"))
    };
    server(a) == server(b)
}

fn is_same_database(a: &PostgresSection, b: &PostgresSection) -> bool {
    let server = |section: &PostgresSection| {
        let host = section.host.to_ascii_lowercase();
        let host = if ["localhost", "::1"].contains(&host.as_str()) { "127.0.0.1".to_owned() } else { host };
        (host, section.port, section.database.clone())
    };
    server(a) == server(b)
}

fn overlap(a: &Path, b: &Path) -> bool {
    // What is not there yet has no other name either.
    let real = |path: &Path| -> PathBuf { std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()) };
    let (a, b) = (real(a), real(b));
    a.starts_with(&b) || b.starts_with(&a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, change: impl Fn(String) -> String) -> BespokeConfig {
        let text = change(format!(
            r#"
[deployment]
name = "{name}"
[[service]]
name = "server"
stop = ["stop", "LIVE"]
start = ["start", "LIVE"]
probe = ["probe"]
[[component]]
name = "graph"
kind = "neo4j"
service = "server"
dump = ["dump"]
load = ["load", "LIVE"]
[component.neo4j]
uri = "bolt://localhost:7687"
[[component]]
name = "tasks"
kind = "postgres"
[component.postgres]
user = "u"
database = "LIVE"
[[component]]
name = "files"
kind = "artifacts"
path = "/srv/LIVE/files"
"#
        ));
        BespokeConfig::parse(&text, Path::new("a.toml")).expect("it is consistent")
    }

    fn apart(text: String) -> String {
        text.replace("LIVE", "SCRATCH").replace("localhost:7687", "127.0.0.1:9687")
    }

    #[test]
    fn a_deployment_of_its_own_shares_nothing() {
        assert_eq!(config("b", apart).shared_with(&config("a", |text| text)), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_two_configurations_reach_is_found() {
        let live = config("a", |text| text);
        for (own, shared, told) in [
            (r#"stop = ["stop", "SCRATCH"]"#, r#"stop = ["stop", "LIVE"]"#, "service `server` is stopped"),
            (r#"start = ["start", "SCRATCH"]"#, r#"start = ["start", "LIVE"]"#, "service `server` is stopped"),
            (r#"load = ["load", "SCRATCH"]"#, r#"load = ["load", "LIVE"]"#, "`graph` is loaded by the same command"),
            ("bolt://127.0.0.1:9687", "bolt://127.0.0.1:7687", "`graph` is the same database"),
            (r#"database = "SCRATCH""#, "host = \"localhost\"\ndatabase = \"LIVE\"", "`tasks` is the same database"),
            ("/srv/SCRATCH/files", "/srv/LIVE/files/below", "`files` is the same folder, or one"),
            ("/srv/SCRATCH/files", "/srv", "`files` is the same folder, or one"),
        ] {
            let found = config("b", |text| apart(text).replace(own, shared)).shared_with(&live);
            assert!(found.len() == 1 && found[0].contains(told), "{shared}: {found:?}");
        }
    }

    #[test]
    fn the_same_command_elsewhere_is_another_one() {
        let elsewhere = |text: String| format!("[defaults]\nwrap = [\"ssh\", \"other\", \"--\"]\n{text}");
        let own = |text: String| apart(text).replace("SCRATCH\"]", "LIVE\"]");
        assert_eq!(
            config("b", |text| elsewhere(own(text))).shared_with(&config("a", |text| text)),
            Vec::<String>::new()
        );
    }
}
