//! A bucket of the deployment's own, and how it is entered, as plain data.

use std::net::IpAddr;

use super::secret::Secret;

/// A bucket in S3, or in what speaks like it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketAccess {
    /// Its name.
    pub bucket: String,
    /// Scheme, host and port, as the deployment knows them.
    pub endpoint: String,
    /// Where the endpoint's host is, where its name means something within the deployment only.
    pub address: Option<IpAddr>,
    /// The region, where the deployment names one.
    pub region: Option<String>,
    /// Who asks.
    pub access_key: Secret,
    /// What proves it.
    pub secret_key: Secret,
    /// Certificates in PEM that the deployment trusts.
    pub certificates: Option<String>,
    /// Whether the deployment trusts any certificate.
    pub any_certificate: bool,
    /// Whether the deployment lets others than its own user read the objects that it puts.
    pub is_shared: bool,
}

impl std::fmt::Display for BucketAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bucket `{}` at {}", self.bucket, self.endpoint)
    }
}
