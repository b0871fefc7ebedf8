//! What the predecessor accepted, and what of it this version does not do yet: the flags, and the refusals.
//!
//! Holds: nothing that an existing script says is passed over in silence. A flag works, is told to be without effect,
//! or is refused.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use super::failure::Failure;
use crate::ops::create::Metadata;

/// Flags of every command of the predecessor that are not flags of ours.
#[derive(Debug, Clone, Default, Args)]
pub struct Predecessor {
    /// The Compose project of the deployment [default: the only one that is an Infrahub deployment]
    #[arg(long, global = true, value_name = "NAME")]
    pub project: Option<String>,
    /// Kubernetes namespace
    #[arg(long, global = true, hide = true, value_name = "NAME")]
    pub k8s_namespace: Option<String>,
    /// Kind of storage
    #[arg(long, global = true, hide = true, value_name = "KIND")]
    pub backend: Option<String>,
    /// Group of snapshots
    #[arg(long, global = true, hide = true, value_name = "ID")]
    pub backup_id: Option<String>,
    /// Snapshot
    #[arg(long, global = true, hide = true, value_name = "ID")]
    pub snapshot: Option<String>,
    /// The S3 bucket that holds the repository, where `--repo` is not given
    #[arg(long, global = true, value_name = "NAME")]
    pub s3_bucket: Option<String>,
    /// The folder in that bucket
    #[arg(long, global = true, value_name = "PREFIX")]
    pub s3_prefix: Option<String>,
    /// The S3 server, if not Amazon's: https://HOST:PORT
    #[arg(long, global = true, value_name = "URL")]
    pub s3_endpoint: Option<String>,
    /// The region of the bucket [default: AWS_REGION, else us-east-1]
    #[arg(long, global = true, value_name = "NAME")]
    pub s3_region: Option<String>,
    /// Whether an archive is in an object store: then the server may be named for it alone.
    #[arg(skip)]
    pub archive_in_store: bool,
}

impl Predecessor {
    /// Refuses what would change where the repository is.
    pub fn check(&self) -> Result<(), Failure> {
        match self.backend.as_deref() {
            None | Some("repository" | "plakar" | "tarball") => {}
            Some(other) => {
                return Err(Failure::usage(format!(
                    "`--backend {other}` is not known: `repository`, `plakar`, `tarball`"
                )));
            }
        }
        if self.backup_id.is_some() {
            let text =
                "`--backup-id` names a group of snapshots; here one snapshot holds all components and has one id";
            return Err(Failure::usage(text).hint("infrahub-backup snapshots list"));
        }
        Ok(())
    }

    /// Whether backups are archives.
    pub fn is_tarball(&self) -> bool {
        self.backend.as_deref() == Some("tarball")
    }

    /// Refuses ways to reach a deployment that are not there.
    pub fn check_deployment(&self) -> Result<(), Failure> {
        if self.k8s_namespace.is_none() {
            return Ok(());
        }
        let text = "the Kubernetes provider is not built yet; describe the deployment in infrahub-backup.toml";
        Err(Failure::incompatible(text))
    }
}

/// Flags of `create`.
#[derive(Debug, Clone, Args)]
pub struct PredecessorCreate {
    /// Store a graph in which the values of attributes are replaced; what runs stays as it is
    #[arg(long, global = true)]
    pub redact: bool,
    /// Which metadata Neo4j Enterprise adds
    #[arg(long, global = true, hide = true, value_name = "WHAT", value_parser = Metadata::NAMES)]
    pub neo4jmetadata: Option<String>,
    /// Same as `--exclude task-manager-db`
    #[arg(long, global = true, hide = true)]
    pub exclude_taskmanager: bool,
    /// Upload to S3
    #[arg(long, global = true, hide = true)]
    pub s3_upload: bool,
    /// Keep the file after the upload
    #[arg(long, global = true, hide = true)]
    pub s3_keep_local: bool,
    /// Stay for this long at the end
    #[arg(long, global = true, hide = true, value_name = "TIME", value_parser = super::values::go_duration)]
    pub sleep: Option<Duration>,
    /// Encrypt
    #[arg(long, global = true, hide = true)]
    pub encrypt: bool,
    /// Encrypt for this public key
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub encrypt_key: Option<OsString>,
}

impl PredecessorCreate {
    /// Refuses what is not built; gives what to say about flags without effect.
    pub fn check(&self, in_bucket: bool, tarball: bool) -> Result<Vec<&'static str>, Failure> {
        let mut notes = Vec::new();
        if tarball {
            self.check_tarball()?;
            return Ok(notes);
        }
        if self.s3_upload && !in_bucket {
            return Err(Failure::usage("`--s3-upload` is given, but the repository is not in a bucket")
                .hint("name the bucket: --s3-bucket BUCKET"));
        }
        if self.encrypt_key.is_some() {
            return Err(Failure::incompatible(
                "`--encrypt-key` encrypts archives, and a repository has keys of its own",
            )
            .hint("to write an archive: --backend tarball; to let somebody else in: infrahub-backup key add"));
        }
        if self.s3_upload || self.s3_keep_local {
            notes.push(
                "`--s3-upload` and `--s3-keep-local` have no effect here: the repository itself is in the bucket",
            );
        }
        if self.encrypt {
            notes.push("`--encrypt` has no effect here: a repository is always encrypted");
        }
        Ok(notes)
    }

    /// The same where backups are archives.
    fn check_tarball(&self) -> Result<(), Failure> {
        if self.s3_keep_local && !self.s3_upload {
            return Err(
                Failure::usage("`--s3-keep-local` is given, and nothing is uploaded").hint("upload it: --s3-upload")
            );
        }
        if self.encrypt && self.encrypt_key.is_none() {
            let text = "`--encrypt` alone would encrypt for the predecessor's vendor, who alone could decrypt it then";
            return Err(
                Failure::usage(text).hint("make keys: infrahub-backup keygen -o FILE; then: --encrypt-key FILE.pub")
            );
        }
        Ok(())
    }
}

/// Flags of `restore`.
#[derive(Debug, Args)]
pub struct PredecessorRestore {
    /// Same as `--exclude task-manager-db`
    #[arg(long, hide = true)]
    pub exclude_taskmanager: bool,
    /// Bring the store of the graph into the block format of Neo4j Enterprise
    #[arg(long)]
    pub migrate_format: bool,
    /// Stay for this long at the beginning
    #[arg(long, hide = true, value_name = "TIME", value_parser = super::values::go_duration)]
    pub sleep: Option<Duration>,
    /// Give the deployment a new id, that of the snapshot being in use elsewhere
    #[arg(long)]
    pub reset_deployment_id: bool,
}

/// Refuses texts that name an archive where a snapshot of a repository is wanted.
pub fn refuse_archive(name: &str) -> Result<(), Failure> {
    if super::archives::is_archive(name) {
        // The text may hold keys of an object store: it is not repeated.
        return Err(Failure::usage("an archive is named where a snapshot is wanted")
            .hint("make a snapshot of it: infrahub-backup import ARCHIVE"));
    }
    Ok(())
}
