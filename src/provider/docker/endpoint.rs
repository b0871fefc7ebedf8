//! Where the Docker engine is, by the rules of the Docker command line.
//!
//! Holds: what is named explicitly (`DOCKER_HOST`, `DOCKER_CONTEXT`, the current context) is the only choice; the usual
//! sockets, Podman's among them, are looked at only when nothing is named. Does not: connect.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::DockerError;
use crate::deployment::{Endpoint, TlsFiles};

/// The context that stands for "no context".
const DEFAULT_CONTEXT: &str = "default";

/// What the environment says about Docker engines.
#[derive(Debug, Clone, Default)]
pub struct DockerVariables {
    /// `DOCKER_HOST`
    pub host: Option<String>,
    /// Whether `DOCKER_TLS_VERIFY` is set.
    pub tls: bool,
    /// `DOCKER_CERT_PATH`
    pub cert_path: Option<PathBuf>,
    /// `DOCKER_CONTEXT`
    pub context: Option<String>,
    /// `DOCKER_CONFIG`, else `~/.docker`
    pub config_folder: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`, where engines of users without root have their sockets.
    pub runtime_folder: Option<PathBuf>,
}

/// The places to try, in order. One that was named is the only one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Places {
    /// This one and no other.
    Named(Endpoint),
    /// The first that answers.
    Usual(Vec<Endpoint>),
}

/// Decides where to look.
///
/// # Errors
///
/// [`DockerError::Context`] if a context is named that cannot be read, [`DockerError::Scheme`] for a place of another kind.
pub fn places(variables: &DockerVariables) -> Result<Places, DockerError> {
    if let Some(host) = &variables.host {
        let tls = variables.tls.then(|| cert_folder(variables)).flatten().map(|folder| TlsFiles::in_folder(&folder));
        return Ok(Places::Named(checked(host, tls)?));
    }
    let named = variables.context.clone().or_else(|| current_context(variables.config_folder.as_deref()));
    match named.filter(|name| name != DEFAULT_CONTEXT) {
        Some(name) => Ok(Places::Named(context(&name, variables.config_folder.as_deref())?)),
        None => Ok(Places::Usual(usual(variables))),
    }
}

fn cert_folder(variables: &DockerVariables) -> Option<PathBuf> {
    variables.cert_path.clone().or_else(|| variables.config_folder.clone())
}

fn checked(host: &str, tls: Option<TlsFiles>) -> Result<Endpoint, DockerError> {
    let known = ["unix://", "tcp://", "http://", "https://"];
    if !known.iter().any(|scheme| host.starts_with(scheme)) {
        return Err(DockerError::Scheme { host: host.to_owned() });
    }
    let unix = host.starts_with("unix://");
    Ok(Endpoint { host: host.to_owned(), tls: tls.filter(|_| !unix) })
}

fn usual(variables: &DockerVariables) -> Vec<Endpoint> {
    let mut paths = vec![PathBuf::from("/var/run/docker.sock")];
    paths.extend(variables.runtime_folder.as_ref().map(|folder| folder.join("docker.sock")));
    paths.extend(variables.config_folder.as_ref().map(|folder| folder.join("run/docker.sock")));
    paths.extend(variables.runtime_folder.as_ref().map(|folder| folder.join("podman/podman.sock")));
    paths.push(PathBuf::from("/run/podman/podman.sock"));
    paths.iter().map(|path| Endpoint { host: format!("unix://{}", path.display()), tls: None }).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CliConfig {
    current_context: Option<String>,
}

/// A configuration that cannot be read names no context, as for the Docker command line.
fn current_context(folder: Option<&Path>) -> Option<String> {
    let text = std::fs::read(folder?.join("config.json")).ok()?;
    serde_json::from_slice::<CliConfig>(&text).ok()?.current_context.filter(|name| !name.is_empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContextMeta {
    name: String,
    endpoints: ContextEndpoints,
}

#[derive(Deserialize)]
struct ContextEndpoints {
    docker: Option<ContextEndpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContextEndpoint {
    host: String,
}

/// The folders of contexts are named by a hash of the name, which stands inside as well: it is looked for there.
fn context(name: &str, folder: Option<&Path>) -> Result<Endpoint, DockerError> {
    let problem = |problem: &str| DockerError::Context { name: name.to_owned(), problem: problem.to_owned() };
    let folder = folder.ok_or_else(|| problem("there is no folder of contexts"))?.join("contexts");
    let entries = std::fs::read_dir(folder.join("meta")).map_err(|error| problem(&error.to_string()))?;
    for entry in entries.flatten() {
        let Ok(text) = std::fs::read(entry.path().join("meta.json")) else { continue };
        let Ok(meta) = serde_json::from_slice::<ContextMeta>(&text) else { continue };
        if meta.name != name {
            continue;
        }
        let docker = meta.endpoints.docker.ok_or_else(|| problem("it names no Docker engine"))?;
        let certificates = folder.join("tls").join(entry.file_name()).join("docker");
        let tls = certificates.is_dir().then(|| TlsFiles::in_folder(&certificates));
        return checked(&docker.host, tls);
    }
    Err(problem("there is no such context"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_named_is_the_only_choice() {
        let variables = DockerVariables {
            host: Some("tcp://h:2376".to_owned()),
            tls: true,
            cert_path: Some("/certs".into()),
            context: Some("other".to_owned()),
            ..DockerVariables::default()
        };
        let expected =
            Endpoint { host: "tcp://h:2376".to_owned(), tls: Some(TlsFiles::in_folder(Path::new("/certs"))) };
        assert_eq!(places(&variables).unwrap(), Places::Named(expected));
    }

    #[test]
    fn without_a_name_docker_comes_before_podman() {
        let variables = DockerVariables { runtime_folder: Some("/run/user/7".into()), ..DockerVariables::default() };
        let Places::Usual(found) = places(&variables).unwrap() else { panic!("nothing is named") };
        let hosts: Vec<&str> = found.iter().map(|endpoint| endpoint.host.as_str()).collect();
        let expected = [
            "unix:///var/run/docker.sock",
            "unix:///run/user/7/docker.sock",
            "unix:///run/user/7/podman/podman.sock",
            "unix:///run/podman/podman.sock",
        ];
        assert_eq!(hosts, expected);
    }

    #[test]
    fn a_context_is_found_by_its_name_with_its_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("config.json", r#"{"currentContext":"far"}"#);
        write("contexts/meta/aa/meta.json", r#"{"Name":"near","Endpoints":{"docker":{"Host":"unix:///near"}}}"#);
        write("contexts/meta/bb/meta.json", r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:2376"}}}"#);
        write("contexts/tls/bb/docker/ca.pem", "");
        let mut variables =
            DockerVariables { config_folder: Some(folder.path().to_owned()), ..DockerVariables::default() };
        let tls = Some(TlsFiles::in_folder(&folder.path().join("contexts/tls/bb/docker")));
        let far = Places::Named(Endpoint { host: "tcp://far:2376".to_owned(), tls });
        assert_eq!(places(&variables).unwrap(), far);
        variables.context = Some("near".to_owned());
        let near = Places::Named(Endpoint { host: "unix:///near".to_owned(), tls: None });
        assert_eq!(places(&variables).unwrap(), near);
        variables.context = Some("gone".to_owned());
        assert!(matches!(places(&variables), Err(DockerError::Context { .. })));
    }

    #[test]
    fn a_place_that_cannot_be_reached_is_refused() {
        let variables = DockerVariables { host: Some("ssh://me@h".to_owned()), ..DockerVariables::default() };
        assert!(matches!(places(&variables), Err(DockerError::Scheme { .. })));
    }
}
