//! Arguments of the commands that have to do with archives of the predecessor.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// `import`
#[derive(Debug, Args)]
pub struct Import {
    /// Archives: files, or s3://BUCKET/KEY, gs://…, az://…
    #[arg(required = true, value_name = "ARCHIVE")]
    pub archives: Vec<String>,
    /// The private key file of encrypted archives
    #[arg(long, value_name = "FILE")]
    pub decrypt_key: Option<PathBuf>,
    /// Name of the deployment, which groups its snapshots [default: that of the configuration, or `files`]
    #[arg(long, value_name = "NAME")]
    pub deployment: Option<String>,
    /// Mark the snapshots; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::values::tag)]
    pub tag: Vec<(String, String)>,
    /// Import only this component; may be given more than once
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub component: Vec<String>,
    /// Leave this component out; may be given more than once
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub exclude: Vec<String>,
    /// Keep what is not a valid dump of its kind, as it is
    #[arg(long)]
    pub allow_raw: bool,
    /// Make the repository if the place is empty
    #[arg(long)]
    pub init: bool,
    /// How long to wait for another import
    #[arg(long, value_name = "TIME", value_parser = super::values::duration)]
    pub wait: Option<Duration>,
    /// Read and check the archives as a whole, and keep nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `export`
#[derive(Debug, Args)]
pub struct Export {
    /// The snapshot: its id, any unique beginning of it, or `latest`
    pub id: String,
    /// The file, or a folder that is there [default: the folder of backups]
    #[arg(long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// The public key file of who shall decrypt it, as `keygen` makes it
    #[arg(long, value_name = "FILE")]
    pub encrypt_key: Option<PathBuf>,
    /// Leave this component out; may be given more than once
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub exclude: Vec<String>,
    /// Name of the database in Neo4j, into which alone the predecessor loads it [default: INFRAHUB_DB_DATABASE, else neo4j]
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
}

/// `keygen`
#[derive(Debug, Args)]
pub struct Keygen {
    /// Where the private key goes; the public one lies beside it as FILE.pub
    #[arg(short, long, value_name = "FILE", default_value = "backup.key")]
    pub output: PathBuf,
    /// Replace key files that are there: what they alone decrypt is lost
    #[arg(long)]
    pub overwrite: bool,
}
