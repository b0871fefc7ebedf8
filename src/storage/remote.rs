//! Stores in buckets: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.
//!
//! Where a bucket is, is a [`RemotePlace`]; how to get in is [`Variables`], under the names that each service's own tools
//! read from the environment. Whoever calls reads the environment; nothing here does.
//!
//! Holds: a put is conditional and, on S3, carries a SHA-256 checksum and an MD5, which buckets with Object Lock ask for. Nothing is
//! retried here ([`super::retry`] does). Without TLS only where the endpoint says `http://`.
//! Does not: make buckets, or connect before the first request.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use zeroize::Zeroizing;

use super::StoreError;
use super::answer::{Meaning, Unspeakable, meaning};
use super::http::WatchedConnector;
use super::object::RemoteStore;

/// How long a connection may take to come about.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);

/// How long nothing may be heard, the sending of a whole pack included: 8 MiB in two minutes is 0.6 Mbit/s.
const SILENCE_TIME_MAX: Duration = Duration::from_secs(120);

/// How long one request may take altogether.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(900);

/// The region that S3's kin accept where nobody names one.
const REGION_DEFAULT: &str = "us-east-1";

/// Where a store is, without any secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemotePlace {
    /// Who keeps it.
    pub service: Service,
    /// The bucket or container.
    pub bucket: String,
    /// The folder in it, `a/b`; empty for the whole bucket.
    pub prefix: String,
}

/// Who keeps a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// S3, or what speaks like it.
    S3 {
        /// Scheme, host and port; `None` for Amazon's own.
        endpoint: Option<String>,
        /// The region; `None` for what the variables say.
        region: Option<String>,
    },
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl fmt::Display for RemotePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, endpoint) = match &self.service {
            Service::S3 { endpoint, .. } => ("s3", endpoint.as_deref()),
            Service::Google => ("gs", None),
            Service::Azure => ("az", None),
        };
        write!(f, "{scheme}://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        endpoint.map_or(Ok(()), |endpoint| write!(f, " at {endpoint}"))
    }
}

/// Settings of a service by the names of its environment variables, secrets among them. Later ones win.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(Vec<(String, Zeroizing<String>)>);

impl Variables {
    /// Adds one.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), Zeroizing::new(value.into())));
    }

    /// Takes one away.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    /// The value of one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (String, &'a str)> {
        let below = self.0.iter().filter(move |(name, _)| name.starts_with(prefix));
        below.map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }

    /// The values that may be secrets: all but those that say where something is or how it is called.
    pub(super) fn unspeakable(&self) -> Unspeakable {
        const SECRET: [&str; 6] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "SAS", "CREDENTIAL"];
        let secret = self.0.iter().filter(|(name, _)| SECRET.iter().any(|word| name.contains(word)));
        Unspeakable::new(secret.map(|(_, value)| value.clone()))
    }
}

impl fmt::Debug for Variables {
    /// Names only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// The store at a place. Connects to nothing.
///
/// # Errors
/// [`StoreError::Io`] if the settings do not fit together, with what is wrong with them as its cause.
pub fn open(place: &RemotePlace, variables: &Variables) -> Result<RemoteStore, StoreError> {
    let location = place.to_string();
    let unspeakable = variables.unspeakable();
    let refuse = |source: io::Error| StoreError::Io {
        action: "open",
        name: place.bucket.clone(),
        location: location.clone(),
        source,
    };
    let bucket = build(place, variables).map_err(|error| match meaning(&error, &unspeakable) {
        Meaning::MayPass(source) | Meaning::Denied(source) | Meaning::Failed(source) => refuse(source),
        Meaning::Full => refuse(io::ErrorKind::StorageFull.into()),
    })?;
    let prefix = Path::parse(&place.prefix)
        .map_err(|_| refuse(io::Error::new(io::ErrorKind::InvalidInput, "the folder's name is not a path")))?;
    let inner: Arc<dyn ObjectStore> = match prefix.as_ref() {
        "" => bucket,
        _ => Arc::new(PrefixStore::new(bucket, prefix)),
    };
    Ok(RemoteStore::new(inner, location, unspeakable))
}

/// The client of a bucket in S3.
///
/// # Errors
/// If the place is in no S3, or the settings do not fit together.
pub(super) fn amazon(place: &RemotePlace, variables: &Variables) -> object_store::Result<AmazonS3> {
    amazon_with(place, variables, |client| client)
}

/// The same with changes of the caller's to how it connects.
pub(super) fn amazon_with(
    place: &RemotePlace,
    variables: &Variables,
    connecting: impl FnOnce(ClientOptions) -> ClientOptions,
) -> object_store::Result<AmazonS3> {
    let Service::S3 { endpoint, region } = &place.service else {
        return Err(object_store::Error::NotSupported { source: "only S3 takes an object in parts here".into() });
    };
    // Names that are not known belong to other tools.
    let mut builder = variables.below("AWS_").fold(AmazonS3Builder::new(), |builder, (name, value)| {
        match name.parse::<AmazonS3ConfigKey>() {
            Ok(key) => builder.with_config(key, value),
            Err(_) => builder,
        }
    });
    if let Some(endpoint) = endpoint {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    let said = ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| variables.get(name));
    builder
        .with_region(region.as_deref().or(said).unwrap_or(REGION_DEFAULT))
        .with_bucket_name(&place.bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_checksum_algorithm(Checksum::SHA256)
        // One by one: only then is it told that a delete merely hid something.
        .with_disable_bulk_delete(true)
        .with_client_options(connecting(client(endpoint.as_deref())))
        .with_http_connector(WatchedConnector { content_md5: true })
        .with_retry(no_retry())
        .build()
}

fn no_retry() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn build(place: &RemotePlace, variables: &Variables) -> object_store::Result<Arc<dyn ObjectStore>> {
    Ok(match &place.service {
        Service::S3 { .. } => Arc::new(amazon(place, variables)?),
        Service::Google => {
            let builder =
                variables.below("GOOGLE_").fold(GoogleCloudStorageBuilder::new(), |builder, (name, value)| {
                    match name.parse::<GoogleConfigKey>() {
                        Ok(key) => builder.with_config(key, value),
                        Err(_) => builder,
                    }
                });
            let google = builder
                .with_bucket_name(&place.bucket)
                .with_client_options(client(variables.get("GOOGLE_BASE_URL")))
                .with_http_connector(WatchedConnector::default())
                .with_retry(no_retry());
            Arc::new(google.build()?)
        }
        Service::Azure => {
            let builder = variables.below("AZURE_").fold(MicrosoftAzureBuilder::new(), |builder, (name, value)| {
                match name.parse::<AzureConfigKey>() {
                    Ok(key) => builder.with_config(key, value),
                    Err(_) => builder,
                }
            });
            let azure = builder
                .with_container_name(&place.bucket)
                .with_client_options(client(variables.get("AZURE_ENDPOINT")))
                .with_http_connector(WatchedConnector::default())
                .with_retry(no_retry());
            Arc::new(azure.build()?)
        }
    })
}

fn client(endpoint: Option<&str>) -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(CONNECT_TIME_MAX)
        .with_read_timeout(SILENCE_TIME_MAX)
        .with_timeout(REQUEST_TIME_MAX)
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Store;

    fn s3(endpoint: Option<&str>) -> RemotePlace {
        let service = Service::S3 { endpoint: endpoint.map(str::to_owned), region: None };
        RemotePlace { service, bucket: "backups".to_owned(), prefix: "infrahub/one".to_owned() }
    }

    fn keys() -> Variables {
        let mut variables = Variables::default();
        variables.set("AWS_ACCESS_KEY_ID", "ACCESSKEY");
        variables.set("AWS_SECRET_ACCESS_KEY", "SECRETKEY");
        variables
    }

    #[test]
    fn a_store_is_named_by_bucket_folder_and_endpoint() {
        assert_eq!(s3(None).to_string(), "s3://backups/infrahub/one");
        let store = open(&s3(Some("http://127.0.0.1:9")), &keys()).unwrap();
        assert_eq!(store.location(), "s3://backups/infrahub/one at http://127.0.0.1:9");
    }

    #[test]
    fn no_debug_form_shows_a_secret() {
        let store = open(&s3(None), &keys()).unwrap();
        for text in [format!("{store:?}"), format!("{:?}", keys()), format!("{:?}", keys().unspeakable())] {
            assert!(!text.contains("SECRETKEY") && !text.contains("ACCESSKEY"), "{text}");
        }
    }

    #[test]
    fn half_a_credential_is_refused_without_telling_it() {
        let mut variables = Variables::default();
        variables.set("AWS_SECRET_ACCESS_KEY", "SECRETKEY");
        let error = open(&s3(None), &variables).unwrap_err();
        let told = format!("{error} {:?}", std::error::Error::source(&error));
        assert!(told.contains("Missing AccessKeyId"), "{told}");
        assert!(!told.to_lowercase().contains("secretkey"), "{told}");
    }

    #[tokio::test]
    async fn nobody_at_the_endpoint_is_no_answer_and_tells_no_secret() {
        // Port 9 of this machine: discard, which nobody runs.
        let store = open(&s3(Some("http://127.0.0.1:9")), &keys()).unwrap();
        let error = store.list("").await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        let told = format!("{error:?}");
        assert!(!told.contains("SECRETKEY") && !told.contains("ACCESSKEY"), "{told}");
    }
}
