//! The bucket that holds the artifact store, by the settings of Infrahub's server.
//!
//! The names are Infrahub's own, in both families: `INFRAHUB_STORAGE_…`, else `AWS_…`. An endpoint that is a service or a
//! container of the project is looked up on the engine: its name means nothing outside of the project's networks.
//!
//! Holds: an endpoint that the operator's environment gives beats what the server has. No problem that is told holds a value that may
//! be a secret. Does not: connect to the bucket.

use std::net::IpAddr;

use bollard::models::{ContainerInspectResponse, EndpointSettings};
use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use futures::StreamExt as _;

use super::credentials::Variables;
use super::engine::Engine;
use super::error::DockerError;
use super::project::{self, Container};
use crate::provider::bucket::BucketAccess;
use crate::provider::secret::Secret;

/// The variable of the operator's environment that says where the endpoint is from here.
pub(super) const ENDPOINT: &str = "INFRAHUB_STORAGE_ENDPOINT_URL";

/// The endpoint's names, the first one wins.
const ENDPOINTS: [&str; 2] = [ENDPOINT, "AWS_S3_ENDPOINT_URL"];
const BUCKETS: [&str; 2] = ["INFRAHUB_STORAGE_BUCKET_NAME", "AWS_S3_BUCKET_NAME"];
const USE_SSL: [&str; 2] = ["INFRAHUB_STORAGE_USE_SSL", "AWS_S3_USE_SSL"];
const ACLS: [&str; 2] = ["INFRAHUB_STORAGE_DEFAULT_ACL", "AWS_DEFAULT_ACL"];
const CERTIFICATES: [&str; 2] = ["INFRAHUB_STORAGE_TLS_CA_FILE", "AWS_CA_BUNDLE"];
const ANY_CERTIFICATE: [&str; 1] = ["INFRAHUB_STORAGE_TLS_INSECURE"];
const REGIONS: [&str; 2] = ["AWS_DEFAULT_REGION", "AWS_REGION"];
const ACCESS_KEY: [&str; 1] = ["AWS_ACCESS_KEY_ID"];
const SECRET_KEY: [&str; 1] = ["AWS_SECRET_ACCESS_KEY"];

/// Largest file of certificates, in bytes: all that Debian trusts are a fifth of it.
const CERTIFICATES_SIZE_MAX: usize = 1 << 20;

/// What the settings say, before anything is asked of the engine.
#[derive(Debug)]
struct Settings {
    access: BucketAccess,
    /// A file in the server's container.
    certificate_file: Option<String>,
}

/// Looks for the bucket of the deployment that `containers` are; `server` is its server's container. If it cannot be used, why.
pub(super) async fn find(
    engine: &Engine,
    containers: &[Container],
    server: &ContainerInspectResponse,
    variables: &Variables,
    given: Option<&str>,
) -> Result<Result<BucketAccess, String>, DockerError> {
    let Settings { mut access, certificate_file } = match settings(variables, given) {
        Ok(settings) => settings,
        Err(why) => return Ok(Err(format!("the artifact store is in a bucket, and {why}"))),
    };
    if let Some(path) = certificate_file {
        match read_certificates(engine, server, &path).await? {
            Ok(text) => access.certificates = Some(text),
            Err(why) => return Ok(Err(why)),
        }
    }
    if given.is_none() {
        match address(engine, containers, server, host_of(&access.endpoint)).await? {
            Ok(address) => access.address = address,
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(access))
}

/// What the variables of the server say, and the operator's endpoint.
fn settings(variables: &Variables, given: Option<&str>) -> Result<Settings, String> {
    let text = |names: &[&str]| names.iter().find_map(|name| variables.get(*name)).cloned();
    let needed = |names: &[&str]| {
        let all = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" nor ");
        let neither = if names.len() > 1 { "neither " } else { "no " };
        text(names).ok_or_else(|| format!("`infrahub-server` has {neither}{all}"))
    };
    let flag = |names: &[&str], default: bool| -> Result<bool, String> {
        let Some((name, value)) = names.iter().find_map(|name| Some((name, variables.get(*name)?))) else {
            return Ok(default);
        };
        switch(value).ok_or_else(|| format!("`{name}` of `infrahub-server` is neither true nor false"))
    };
    let use_ssl = flag(&USE_SSL, true)?;
    let endpoint = given.map_or_else(|| needed(&ENDPOINTS), |given| Ok(given.to_owned()))?;
    let endpoint = endpoint_of(&endpoint, use_ssl)?;
    let keys = needed(&ACCESS_KEY).and_then(|access| Ok((access, needed(&SECRET_KEY)?)));
    let (access_key, secret_key) = keys.map_err(|why| {
        format!("{why}: what a role of its machine would give it (IRSA, instance profile) is not asked for here")
    })?;
    let certificates = text(&CERTIFICATES);
    // As Infrahub reads it: the text itself, or a path.
    let (certificates, certificate_file) = match certificates {
        Some(text) if text.contains("-----BEGIN") => (Some(text), None),
        Some(path) => (None, Some(path)),
        None => (None, None),
    };
    let access = BucketAccess {
        bucket: needed(&BUCKETS)?,
        endpoint,
        address: None,
        region: text(&REGIONS),
        access_key: Secret::new(access_key),
        secret_key: Secret::new(secret_key),
        certificates,
        any_certificate: flag(&ANY_CERTIFICATE, false)?,
        is_shared: text(&ACLS).is_some_and(|acl| acl != "private"),
    };
    Ok(Settings { access, certificate_file })
}

/// Scheme, host and port of an endpoint that has a scheme or not.
fn endpoint_of(text: &str, use_ssl: bool) -> Result<String, String> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some(_) => return Err(format!("`{ENDPOINT}` is neither `http://` nor `https://`")),
        None => (if use_ssl { "https" } else { "http" }, text),
    };
    let place = rest.trim_end_matches('/');
    // What is before an `@` may be a password.
    if place.is_empty() || place.contains(['/', '@', '?', '#', ' ']) {
        return Err(format!("`{ENDPOINT}` is not a host with or without a port"));
    }
    Ok(format!("{scheme}://{place}"))
}

/// What pydantic takes for a switch.
fn switch(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Some(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Some(false),
        _ => None,
    }
}

/// The host of an endpoint, without its port and the brackets of an IPv6 address.
fn host_of(endpoint: &str) -> &str {
    let place = endpoint.split_once("://").map_or(endpoint, |(_, place)| place);
    match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => place.split(':').next().unwrap_or(place),
    }
}

/// Where `host` is, if it is a container of the project; `None` if it is anything else. If its address is of no use here, why.
async fn address(
    engine: &Engine,
    containers: &[Container],
    server: &ContainerInspectResponse,
    host: &str,
) -> Result<Result<Option<IpAddr>, String>, DockerError> {
    for container in containers {
        let found = project::inspect(engine, &container.id).await?;
        let named = container.service == host || container.name == host;
        if !named && !networks(&found).any(|(_, network)| is_alias(network, host)) {
            continue;
        }
        let told = format!("the artifact store's endpoint `{host}` is container `{}`", container.name);
        let configure = format!("set {ENDPOINT} in the environment of this command to where it is from here");
        if engine.endpoint().socket().is_none() {
            return Ok(Err(format!("{told} of an engine on another machine; {configure}")));
        }
        return Ok(match shared_address(&found, server) {
            Some(address) => Ok(Some(address)),
            None => Err(format!(
                "{told}, which has no address in a network of `infrahub-server` (does it run?); {configure}"
            )),
        });
    }
    Ok(Ok(None))
}

fn networks(container: &ContainerInspectResponse) -> impl Iterator<Item = (&String, &EndpointSettings)> {
    container.network_settings.iter().flat_map(|settings| &settings.networks).flatten()
}

fn is_alias(network: &EndpointSettings, host: &str) -> bool {
    let names = network.aliases.iter().chain(&network.dns_names).flatten();
    names.into_iter().any(|name| name == host)
}

/// The address of a container in a network that the server is in as well.
fn shared_address(container: &ContainerInspectResponse, server: &ContainerInspectResponse) -> Option<IpAddr> {
    let servers: Vec<&String> = networks(server).map(|(name, _)| name).collect();
    networks(container)
        .filter(|(name, _)| servers.contains(name))
        .flat_map(|(_, network)| [&network.ip_address, &network.global_ipv6_address])
        .find_map(|address| address.as_deref()?.parse().ok())
}

/// The certificates in a file of the server's container. If they cannot be had, why.
async fn read_certificates(
    engine: &Engine,
    server: &ContainerInspectResponse,
    path: &str,
) -> Result<Result<String, String>, DockerError> {
    let what = format!("the certificates `{path}` of `infrahub-server`");
    let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
    let id = server.id.clone().unwrap_or_default();
    let mut pieces = engine.docker().download_from_container(&id, Some(options));
    let read = async {
        let mut archive = Vec::new();
        while let Some(piece) = pieces.next().await {
            archive.extend_from_slice(&piece?);
            if archive.len() > CERTIFICATES_SIZE_MAX {
                break;
            }
        }
        Ok(archive)
    };
    let archive = engine.ask(format!("read {what}"), read).await?;
    // Only the text between the marks is taken, so that the archive around it need not be understood.
    let text = String::from_utf8_lossy(&archive);
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let (Some(from), Some(to)) = (text.find(begin), text.rfind(end)) else {
        return Ok(Err(format!("{what} hold no certificate in PEM")));
    };
    if archive.len() > CERTIFICATES_SIZE_MAX {
        return Ok(Err(format!("{what} are larger than {CERTIFICATES_SIZE_MAX} bytes")));
    }
    Ok(Ok(format!("{}\n", &text[from..to + end.len()])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "hidden")];

    fn read(pairs: &[(&str, &str)], given: Option<&str>) -> Result<Settings, String> {
        settings(&set(&[&KEYS[..], pairs].concat()), given)
    }

    #[test]
    fn both_families_are_read_and_infrahubs_own_wins() {
        let old = [("AWS_S3_BUCKET_NAME", "old"), ("AWS_S3_ENDPOINT_URL", "minio:9000"), ("AWS_S3_USE_SSL", "False")];
        let access = read(&old, None).unwrap().access;
        assert_eq!((access.bucket.as_str(), access.endpoint.as_str()), ("old", "http://minio:9000"));
        let new = [
            ("INFRAHUB_STORAGE_BUCKET_NAME", "new"),
            (ENDPOINT, "s3.example.com"),
            ("INFRAHUB_STORAGE_USE_SSL", "yes"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
        ];
        let access = read(&[&old[..], &new].concat(), None).unwrap().access;
        assert_eq!((access.bucket.as_str(), access.endpoint.as_str()), ("new", "https://s3.example.com"));
        assert_eq!((access.region.as_deref(), access.secret_key.expose()), (Some("eu-west-1"), "hidden"));
    }

    #[test]
    fn the_operators_endpoint_beats_the_servers() {
        let pairs = [("AWS_S3_BUCKET_NAME", "b"), (ENDPOINT, "minio:9000")];
        let access = read(&pairs, Some("http://127.0.0.1:9000/")).unwrap().access;
        assert_eq!(access.endpoint, "http://127.0.0.1:9000");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_and_no_value_is_told() {
        let bucket = ("AWS_S3_BUCKET_NAME", "b");
        let cases: [(&[(&str, &str)], &str); 4] = [
            (&[(ENDPOINT, "h")], "neither `INFRAHUB_STORAGE_BUCKET_NAME` nor `AWS_S3_BUCKET_NAME`"),
            (&[bucket], "neither `INFRAHUB_STORAGE_ENDPOINT_URL` nor `AWS_S3_ENDPOINT_URL`"),
            (&[bucket, (ENDPOINT, "user:hidden@host")], "not a host"),
            (&[bucket, (ENDPOINT, "h"), ("AWS_S3_USE_SSL", "hidden")], "neither true nor false"),
        ];
        for (pairs, told) in cases {
            let why = read(pairs, None).unwrap_err();
            assert!(why.contains(told) && !why.contains("hidden"), "{why}");
        }
        let why = settings(&set(&[bucket, (ENDPOINT, "h")]), None).unwrap_err();
        assert!(why.contains("no `AWS_ACCESS_KEY_ID`") && why.contains("role"), "{why}");
    }

    #[test]
    fn certificates_are_a_text_or_a_path() {
        let pairs = |value| [("AWS_S3_BUCKET_NAME", "b"), (ENDPOINT, "h"), ("AWS_CA_BUNDLE", value)];
        let text = read(&pairs("-----BEGIN CERTIFICATE-----\nx"), None).unwrap();
        assert!(text.access.certificates.is_some() && text.certificate_file.is_none());
        assert_eq!(read(&pairs("/etc/ca.pem"), None).unwrap().certificate_file.as_deref(), Some("/etc/ca.pem"));
    }

    #[test]
    fn a_host_is_what_is_before_its_port() {
        for (endpoint, host) in [("http://minio:9000", "minio"), ("https://a.b", "a.b"), ("http://[::1]:9", "::1")] {
            assert_eq!(host_of(endpoint), host);
        }
    }
}
