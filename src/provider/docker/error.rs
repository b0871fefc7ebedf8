//! Why a Docker engine, or a Compose project on it, cannot be used.

use crate::provider::exec::ExecError;

/// Names joined for people, or that there are none.
fn listed(names: &[String]) -> String {
    if names.is_empty() { "there is none".to_owned() } else { format!("there is: {}", names.join(", ")) }
}

/// Why something about containers was not possible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DockerError {
    /// Nothing names an engine and none answers at the usual places.
    #[error("no Docker engine answers; looked at {}", tried.join(", "))]
    NoEngine {
        /// Where was looked.
        tried: Vec<String>,
    },
    /// The engine that was named does not answer.
    #[error("the Docker engine at `{endpoint}` does not answer")]
    Unreachable {
        /// Where it should be.
        endpoint: String,
        /// What was tried and what came of it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A place that this program has no transport for.
    #[error("`{host}` is not a place of a Docker engine that can be reached: `unix://PATH` or `tcp://HOST:PORT`")]
    Scheme {
        /// The place.
        host: String,
    },
    /// A context of the Docker command line cannot be used.
    #[error("the Docker context `{name}` cannot be used: {problem}")]
    Context {
        /// Its name.
        name: String,
        /// Why.
        problem: String,
    },
    /// The engine refused, or the connection broke.
    #[error("the Docker engine did not {what}")]
    Request {
        /// What was asked of it, as a verb.
        what: String,
        /// What it said.
        #[source]
        source: bollard::errors::Error,
    },
    /// The engine took too long.
    #[error("the Docker engine did not {what} within {seconds} s")]
    Slow {
        /// What was asked of it, as a verb.
        what: String,
        /// How long was waited, in seconds.
        seconds: u64,
    },
    /// An answer lacks what it must have.
    #[error("the Docker engine's answer about `{about}` lacks its `{what}`")]
    Answer {
        /// A container.
        about: String,
        /// The missing part.
        what: &'static str,
    },
    /// The project that was named is not there.
    #[error("there is no Compose project `{project}`; {}", listed(known))]
    NoProject {
        /// Its name.
        project: String,
        /// Those that are there.
        known: Vec<String>,
    },
    /// No project looks like Infrahub.
    #[error(
        "no Compose project is an Infrahub deployment (it has services `infrahub-server` and `database`); {}",
        listed(known)
    )]
    NoDeployment {
        /// Those that are there.
        known: Vec<String>,
    },
    /// Several projects look like Infrahub.
    #[error("more than one Compose project is an Infrahub deployment: {}", found.join(", "))]
    SeveralDeployments {
        /// Their names.
        found: Vec<String>,
    },
    /// The project is no Infrahub deployment.
    #[error("the Compose project `{project}` has no service `{service}`, so it is not an Infrahub deployment")]
    NoService {
        /// The project.
        project: String,
        /// What is missing.
        service: &'static str,
    },
    /// A service has no container any more.
    #[error("service `{service}` of Compose project `{project}` has no container")]
    NoContainer {
        /// The project.
        project: String,
        /// The service.
        service: String,
    },
    /// A command was to run in a service that does not run.
    #[error("no container of service `{service}` of Compose project `{project}` runs")]
    NotRunning {
        /// The project.
        project: String,
        /// The service.
        service: String,
    },
    /// A container is in a state from which nothing can be concluded.
    #[error("container `{container}` of service `{service}` is {state}")]
    State {
        /// The container.
        container: String,
        /// The service.
        service: String,
        /// Its state, as the engine calls it.
        state: String,
    },
    /// A container ended although it was started and nothing restarts it.
    #[error("container `{container}` of service `{service}` ended with {code} as soon as it was started")]
    Ended {
        /// The container.
        container: String,
        /// The service.
        service: String,
        /// Its exit code.
        code: i64,
    },
    /// A server did not stop by itself.
    #[error("container `{container}` of service `{service}` was killed instead of stopped{}", if *oom { ": it had no memory left" } else { "" })]
    Killed {
        /// The container.
        container: String,
        /// The service.
        service: String,
        /// Whether the kernel did it for want of memory.
        oom: bool,
    },
    /// A service that was to be emptied was not.
    #[error("service `{service}` could not be emptied")]
    NotCleared {
        /// The service.
        service: String,
        /// How the command ended.
        #[source]
        source: Box<ExecError>,
    },
    /// What this program made in a container is still there.
    #[error("`{path}` in the container of service `{service}` could not be removed")]
    NotRemoved {
        /// The service.
        service: String,
        /// What is there.
        path: String,
        /// How the command ended.
        #[source]
        source: Box<ExecError>,
    },
    /// The task manager did not tell which tasks run.
    #[error("whether tasks run is not known: `{service}` does not tell")]
    TasksUnknown {
        /// The service.
        service: String,
        /// What it said instead.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The task manager did not do what was asked about flow runs.
    #[error("`{service}` did not do what was asked about its flow runs: {what}")]
    FlowRuns {
        /// The service.
        service: String,
        /// What was asked.
        what: &'static str,
        /// What it said instead.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server did not tell its version.
    #[error("the version of Infrahub is not known: `{service}` does not tell")]
    VersionUnknown {
        /// The service.
        service: String,
        /// What it said instead.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What the deployment's settings say cannot be done by this version.
    #[error("{what} is not built yet")]
    NotBuilt {
        /// What it is.
        what: String,
    },
    /// A setting of the deployment cannot be understood.
    #[error("variable `{variable}` of service `{service}` {problem}")]
    Setting {
        /// The variable.
        variable: String,
        /// Where it is set.
        service: String,
        /// What is wrong with it, without its value.
        problem: &'static str,
    },
    /// The output of a container ended, but not the container.
    #[error("the connection to container `{container}` ended, but it runs on: not all that it says has come")]
    RunsOn {
        /// The container.
        container: String,
    },
    /// The connection to a command's streams broke.
    #[error("the connection to the container broke after {bytes} bytes")]
    Broken {
        /// Bytes that had come.
        bytes: u64,
    },
}

impl DockerError {
    /// The code of the engine's answer, if it refused a request.
    pub(super) fn status(&self) -> Option<u16> {
        use bollard::errors::Error::DockerResponseServerError as Answer;
        let Self::Request { source: Answer { status_code, .. }, .. } = self else { return None };
        Some(*status_code)
    }
}
