//! A Neo4j server in a container: asked by its own `cypher-shell`. Community is dumped, and dumps are loaded, beside it while it
//! is stopped; Enterprise is backed up, and takes a backup, while it runs ([`super::online`]).
//!
//! Holds: the edition is what the running server says, or what its image says where the server is stopped or does not answer;
//! anything else is an error.
//! Data that is on no volume is refused: beside a stopped container nothing of it could be seen. Dump and load run as whoever
//! owns the data. Passwords stand in environments only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

use super::online::{Online, not_running};
use super::shell::Shell;
use super::{
    COMMUNITY_HAS_NO_BLOCK_FORMAT, Edition, Metadata, QUERY_TIMEOUT, READY_PERIOD, check_edition, edition_named,
    storage_ids,
};
use crate::component::graph::{self, Graph, NewDeploymentId, Root};
use crate::component::stream::{ExecDump, ExecFilter, ExecLoad};
use crate::component::{
    Component, ComponentError, DumpStream, FilterStream, LoadStream, Migration, OnlineRestore, Redaction, Served,
    TakeStorageId,
};
use crate::deployment::{ComponentInfo, Inspection};
use crate::provider::docker::{DATABASE, DockerError, DockerProvider, EDITION, User};
use crate::provider::exec::place::Place;
use crate::provider::exec::{self, CommandSpec, ExecError, ProcessOutput};
use crate::provider::secret::{EnvValue, SecretSource};
use crate::provider::{Provider as _, ServiceState};

/// Where the image keeps databases.
const DATA: &str = "/data";
pub(super) const DATABASES: &str = "/data/databases";

/// What makes another dump of a dump.
const REDACT: &str = include_str!("redact.sh");

/// One question for all that is asked: each `cypher-shell` costs seconds.
const INSPECTION: &str = "CALL dbms.components() YIELD name, versions, edition \
    WITH name, versions, edition WHERE name = 'Neo4j Kernel' \
    CALL { MATCH (n) RETURN count(n) AS nodes } CALL { MATCH ()-[r]->() RETURN count(r) AS relationships } \
    RETURN edition, versions[0] AS version, nodes, relationships";

/// One database of one server in a container.
pub struct ContainerNeo4j {
    info: ComponentInfo,
    provider: Arc<DockerProvider>,
    edition: Edition,
    /// Whom the data belongs to.
    user: User,
    /// What enters the running server.
    shell: Shell,
    /// What runs in its container.
    online: Online,
    /// What runs beside the stopped one.
    admin: CommandSpec,
    metadata: Metadata,
}

impl ContainerNeo4j {
    /// Finds out how the server is entered, of which edition it is, and who owns its data.
    ///
    /// # Errors
    ///
    /// When any of this does not become known, or cannot be backed up by this version.
    pub async fn open(
        mut info: ComponentInfo,
        provider: Arc<DockerProvider>,
        metadata: Metadata,
    ) -> Result<Self, ComponentError> {
        let failed = |source| ComponentError::Docker { component: info.name.clone(), source };
        if !provider.mounted(DATABASE).await.map_err(failed)?.iter().any(|path| path == DATA) {
            let what = format!("backing up a database whose data (`{DATA}`) is on no volume");
            return Err(failed(DockerError::NotBuilt { what }));
        }
        let login = provider.neo4j_login().await.map_err(failed)?;
        let mut spec = CommandSpec::new(vec![]);
        spec.env = vec![
            ("NEO4J_USERNAME".to_owned(), EnvValue::Plain(login.user)),
            ("NEO4J_PASSWORD".to_owned(), EnvValue::Secret(SecretSource::Held(login.password))),
        ];
        spec.place = Some(Arc::new(provider.in_service(DATABASE)));
        let (component, database) = (info.name.clone(), login.database);
        let shell = Shell { component, provider: Arc::clone(&provider), database, spec };
        let edition = Finding { shell: &shell }.edition().await?;
        let user = Finding { shell: &shell }.user().await?;
        if edition == Edition::Enterprise {
            // Whatever the image says of itself.
            info.stopped_for_dump.clear();
        }
        let online = Online { shell: shell.clone(), user: user.clone() };
        let mut admin = CommandSpec::new(vec![]);
        admin.place = Some(Arc::new(provider.beside(DATABASE, user.clone(), None)));
        Ok(Self { info, provider, edition, user, shell, online, admin, metadata })
    }

    fn not_built(&self, what: &str) -> ComponentError {
        let source = DockerError::NotBuilt { what: what.to_owned() };
        ComponentError::Docker { component: self.info.name.clone(), source }
    }

    fn admin(&self, words: &[&str]) -> CommandSpec {
        let mut spec = self.admin.clone();
        let words = ["neo4j-admin", "database"].iter().chain(words).map(|word| (*word).to_owned());
        spec.argv = words.chain([self.shell.database.clone()]).collect();
        spec
    }

    /// Refuses a cluster. A server that is broken does not tell whether it is one; it can take a dump all the same.
    async fn check_single(&self, backup: bool) -> Result<(), ComponentError> {
        let servers = match runs(&self.shell).await? {
            true => self.online.servers().await,
            false => Err(not_running(&self.shell)),
        };
        match servers {
            Ok(0 | 1) => Ok(()),
            Ok(many) => Err(self.not_built(&format!("restoring into a cluster of Neo4j (it has {many} servers)"))),
            Err(error) if backup => Err(error),
            Err(_) => Ok(()),
        }
    }
}

async fn runs(shell: &Shell) -> Result<bool, ComponentError> {
    let state = shell.provider.state(DATABASE).await;
    let state = state.map_err(|error| shell.query_error("whether it runs", Box::new(error)))?;
    Ok(state == ServiceState::Running)
}

/// What must be known before a server is worked with.
struct Finding<'a> {
    shell: &'a Shell,
}

impl Finding<'_> {
    fn docker_error(&self, source: DockerError) -> ComponentError {
        ComponentError::Docker { component: self.shell.component.clone(), source }
    }

    async fn edition(&self) -> Result<Edition, ComponentError> {
        let component = self.shell.component.clone();
        let unknown = |found, source| ComponentError::EditionUnknown { component, found, source };
        let asked = if runs(self.shell).await? { Some(ask(self.shell).await) } else { None };
        let (found, source) = match asked {
            Some(Ok(inspection)) => (inspection.edition, None),
            // A server that runs and is broken must not keep a restore from replacing its database.
            Some(Err(error)) => (self.edition_of_image().await?, Some(Box::new(error) as Box<_>)),
            None => (self.edition_of_image().await?, None),
        };
        let Some(found) = found else { return Err(unknown(None, source)) };
        edition_named(&found).ok_or_else(|| unknown(Some(found), None))
    }

    /// By the variable that the images of Neo4j have, else by what they bring along.
    async fn edition_of_image(&self) -> Result<Option<String>, ComponentError> {
        let provider = &self.shell.provider;
        let told = provider.variable(DATABASE, EDITION).await.map_err(|error| self.docker_error(error))?;
        if told.is_some() {
            return Ok(told);
        }
        let list = "ls \"${NEO4J_HOME:-/var/lib/neo4j}/lib\"";
        let mut spec = CommandSpec::new(["sh", "-c", list].map(str::to_owned).to_vec());
        spec.place = Some(Arc::new(provider.beside(DATABASE, User::Same, Some(vec![String::new()]))));
        spec.total_timeout = QUERY_TIMEOUT;
        let said = exec::run(&spec, provider.masker()).await;
        let said = said.map_err(|error| self.shell.query_error("what its image holds", Box::new(error)))?;
        Ok(edition_of_libraries(&String::from_utf8_lossy(&said.stdout)).map(str::to_owned))
    }

    /// The image starts as root and gives root up; a dump or a load must not leave files that only root may touch.
    async fn user(&self) -> Result<User, ComponentError> {
        let provider = &self.shell.provider;
        let configured = provider.configured_user(DATABASE).await.map_err(|error| self.docker_error(error))?;
        if !["", "root", "0", "0:0"].contains(&configured.as_str()) {
            return Ok(User::Same);
        }
        let can_be_entered = provider.can_be_entered(DATABASE).await.map_err(|error| self.docker_error(error))?;
        let place: Arc<dyn Place> = if can_be_entered {
            Arc::new(provider.in_service(DATABASE))
        } else {
            Arc::new(provider.beside(DATABASE, User::Same, Some(vec![String::new()])))
        };
        let mut spec = CommandSpec::new(["stat", "-c", "%u:%g", DATABASES].map(str::to_owned).to_vec());
        spec.place = Some(place);
        spec.total_timeout = QUERY_TIMEOUT;
        let said = exec::run(&spec, provider.masker()).await;
        let said = said.map_err(|error| self.shell.query_error("who owns its data", Box::new(error)))?;
        Ok(User::Named(String::from_utf8_lossy(&said.stdout).trim().to_owned()))
    }
}

async fn ask(shell: &Shell) -> Result<Inspection, ComponentError> {
    let row = shell.query(INSPECTION, QUERY_TIMEOUT).await?;
    let wrong = || shell.query_error(INSPECTION, format!("the answer `{row}` has another form").into());
    let cells: Vec<&str> = row.split(',').map(|cell| cell.trim().trim_matches('"')).collect();
    let [edition, version, nodes, relationships] = cells[..] else { return Err(wrong()) };
    let mut inspection = Inspection {
        version: Some(version.to_owned()),
        edition: Some(edition.to_lowercase()),
        evidence: format!("dbms.components() and counts in database `{}`, by cypher-shell", shell.database),
        ..Inspection::default()
    };
    for (what, count) in [("nodes", nodes), ("relationships", relationships)] {
        inspection.counts.insert(what.to_owned(), count.parse().map_err(|_| wrong())?);
    }
    Ok(inspection)
}

/// The edition whose libraries these are: Enterprise has all of Community's, and some of its own.
fn edition_of_libraries(names: &str) -> Option<&'static str> {
    let has = |start: &str| names.lines().any(|name| name.starts_with(start) && name.ends_with(".jar"));
    match (has("neo4j-kernel-"), has("neo4j-enterprise-")) {
        (true, true) => Some("enterprise"),
        (true, false) => Some("community"),
        (false, _) => None,
    }
}

#[async_trait]
impl Component for ContainerNeo4j {
    fn info(&self) -> &ComponentInfo {
        &self.info
    }

    async fn inspect(&self) -> Result<Inspection, ComponentError> {
        ask(&self.shell).await
    }

    async fn storage_ids(&self, take: &mut TakeStorageId<'_>) -> Result<bool, ComponentError> {
        let spec = self.shell.asks(&self.shell.database, storage_ids::QUESTION, storage_ids::TIMEOUT);
        let failed = |error| self.shell.query_error(storage_ids::QUESTION, error);
        let exec = |error: ExecError| failed(Box::new(error));
        let mut output = ProcessOutput::start(&spec, self.provider.masker()).await.map_err(exec)?;
        let mut rows = storage_ids::Rows::default();
        while let Some(piece) = output.next().await.map_err(exec)? {
            rows.push(&piece, take).map_err(|wrong| failed(wrong.into()))?;
        }
        output.finish().await.map_err(exec)?;
        rows.finish(take).map_err(|wrong| failed(wrong.into()))?;
        Ok(true)
    }

    async fn dump(&self) -> Result<Box<dyn DumpStream>, ComponentError> {
        if self.edition == Edition::Enterprise {
            return Ok(self.online.dump(self.metadata));
        }
        let spec = self.admin(&["dump", "--to-stdout"]);
        Ok(Box::new(ExecDump::start(&self.info.name, &spec, self.provider.masker()).await?))
    }

    async fn load(&self) -> Result<Box<dyn LoadStream>, ComponentError> {
        let spec = self.admin(&["load", "--from-stdin", "--overwrite-destination=true"]);
        Ok(Box::new(ExecLoad::start(&self.info.name, &spec, self.provider.masker()).await?))
    }

    async fn wait_ready(&self, timeout: Duration) -> Result<(), ComponentError> {
        let since = Instant::now();
        loop {
            match self.shell.query("RETURN 1", QUERY_TIMEOUT).await {
                Ok(_) => return Ok(()),
                Err(source) if since.elapsed() >= timeout => {
                    let (component, waited) = (self.info.name.clone(), since.elapsed());
                    return Err(ComponentError::NotReady { component, waited, source: Box::new(source) });
                }
                Err(_) => tokio::time::sleep(READY_PERIOD).await,
            }
        }
    }

    fn dumps_inside(&self) -> Option<&str> {
        (self.edition == Edition::Enterprise).then_some(DATABASE)
    }

    fn takes_metadata(&self) -> Result<(), &'static str> {
        match self.edition {
            Edition::Community => Err("it is Neo4j Community, whose dumps hold none"),
            Edition::Enterprise => Ok(()),
        }
    }

    async fn check_load(&self, backup: bool) -> Result<(), ComponentError> {
        check_edition(&self.info.name, self.edition, backup)?;
        match self.edition {
            Edition::Community => Ok(()),
            Edition::Enterprise => self.check_single(backup).await,
        }
    }

    fn online_restore(&self) -> Option<&dyn OnlineRestore> {
        (self.edition == Edition::Enterprise).then_some(self)
    }

    /// A dump of Community is loaded by either edition.
    fn takes_edition(&self, edition: &str) -> bool {
        self.edition == Edition::Enterprise && edition == Edition::Community.as_str()
    }

    fn migration(&self) -> Result<&dyn Migration, &'static str> {
        match self.edition {
            Edition::Community => Err(COMMUNITY_HAS_NO_BLOCK_FORMAT),
            Edition::Enterprise => Ok(self),
        }
    }

    fn redaction(&self) -> Result<&dyn Redaction, &'static str> {
        match self.edition {
            Edition::Community => Ok(self),
            Edition::Enterprise => Err("it is Neo4j Enterprise, for which that is not built yet"),
        }
    }

    fn graph(&self) -> Option<&dyn Graph> {
        Some(self)
    }
}

#[async_trait]
impl Redaction for ContainerNeo4j {
    /// In a server of its own, which sees nothing of this one but the dump.
    async fn start(&self) -> Result<Box<dyn FilterStream>, ComponentError> {
        let mut spec = CommandSpec::new(["sh", "-c", REDACT, "sh", &self.shell.database].map(str::to_owned).to_vec());
        spec.place = Some(Arc::new(self.provider.scratch(DATABASE, self.user.clone(), DATA)));
        // Silent between its last byte of input and its first one of output: a big graph takes hours.
        spec.stall_timeout = spec.total_timeout;
        Ok(Box::new(ExecFilter::start(&self.info.name, "redaction", &spec, self.provider.masker()).await?))
    }
}

#[async_trait]
impl Migration for ContainerNeo4j {
    /// Where the load was: in the server's container if that runs, else in one beside it.
    async fn to_block(&self) -> Result<Vec<String>, ComponentError> {
        if runs(&self.shell).await? {
            return self.online.migrate().await;
        }
        // Silent for as long as it likes: a big store takes hours.
        let said = exec::run(&self.admin(&["migrate", "--to-format=block"]), self.provider.masker()).await;
        let component = self.info.name.clone();
        said.map(|said| said.log).map_err(|source| ComponentError::Exec { component, action: "migration", source })
    }
}

#[async_trait]
impl OnlineRestore for ContainerNeo4j {
    fn service(&self) -> &str {
        DATABASE
    }

    async fn load(&self) -> Result<Box<dyn LoadStream>, ComponentError> {
        self.online.load().await
    }

    async fn serve(&self) -> Result<Served, ComponentError> {
        self.online.serve().await
    }
}

#[async_trait]
impl Graph for ContainerNeo4j {
    async fn root(&self) -> Result<Root, ComponentError> {
        let row = self.shell.query(graph::ROOT, QUERY_TIMEOUT).await?;
        let wrong = || self.shell.query_error(graph::ROOT, format!("the answer `{row}` has another form").into());
        root_in(&row).ok_or_else(wrong)
    }

    async fn set_root(&self, id: NewDeploymentId, now: Timestamp) -> Result<(), ComponentError> {
        self.shell.query(&graph::set_root(id, now), QUERY_TIMEOUT).await.map(drop)
    }
}

/// The row that [`graph::ROOT`] gives, as `cypher-shell` writes it: a number, and a text in quotes or `NULL`.
fn root_in(row: &str) -> Option<Root> {
    let (nodes, id) = row.split_once(',')?;
    let id = match id.trim() {
        "NULL" => None,
        text => Some(text.strip_prefix('"')?.strip_suffix('"')?.to_owned()),
    };
    Some(Root { nodes: nodes.trim().parse().ok()?, id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_read_as_cypher_shell_writes_it() {
        let root = |nodes, id: Option<&str>| Some(Root { nodes, id: id.map(str::to_owned) });
        assert_eq!(root_in("1, \"18ebaddf-3d4c\""), root(1, Some("18ebaddf-3d4c")));
        assert_eq!(root_in("0, NULL"), root(0, None));
        assert_eq!(root_in("roots, id"), None);
    }

    #[test]
    fn libraries_tell_the_edition_or_nothing() {
        let community = "neo4j-bolt-5.26.0.jar\nneo4j-kernel-5.26.0.jar\nneo4j-kernel-api-5.26.0.jar\n";
        assert_eq!(edition_of_libraries(community), Some("community"));
        let enterprise = format!("{community}neo4j-enterprise-kernel-5.26.0.jar\n");
        assert_eq!(edition_of_libraries(&enterprise), Some("enterprise"));
        assert_eq!(edition_of_libraries("something.jar\nneo4j-kernel-notes.txt\n"), None);
    }
}
