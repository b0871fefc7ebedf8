//! The arguments, as clap reads them. What they mean is decided elsewhere.
//!
//! Every flag is global or belongs to one command; a global one may stand before or after the command's name.

use std::path::PathBuf;
use std::time::Duration;

use crate::id::{ObjectId, SnapshotId};
use crate::repository::check::choice::Shard;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::archive_args::{Export, Import, Keygen};
use super::legacy;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "infrahub-backup",
    version,
    about = "Back up, verify and restore Infrahub deployments, and prove it",
    after_help = "Each flag can also be given as a variable: `--backup-dir` as INFRAHUB_BACKUP_DIR.\n\
                  Try it without any deployment: infrahub-backup demo",
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 110
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Where the repository is: a path, fs://PATH, s3://BUCKET/PREFIX, gs://…, az://… [default: BACKUP_DIR/repository]
    #[arg(long, global = true, value_name = "PLACE")]
    pub repo: Option<String>,
    /// Send no faster than this many bytes a second
    #[arg(long, global = true, value_name = "SIZE", value_parser = super::values::rate)]
    pub limit_upload: Option<u64>,
    /// Receive no faster than this many bytes a second
    #[arg(long, global = true, value_name = "SIZE", value_parser = super::values::rate)]
    pub limit_download: Option<u64>,
    /// The key file that opens the repository
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// An identity file, as age-keygen makes it, with a line that says which root to trust
    #[arg(long, global = true, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// A file with the password that opens the repository [variable: INFRAHUB_REPO_PASSWORD_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// A command that prints the password, run by `sh -c`
    #[arg(long, global = true, value_name = "COMMAND")]
    pub password_command: Option<String>,
    /// Go on although the place holds another repository than it did before
    #[arg(long, global = true)]
    pub accept_new_repository: bool,
    /// The configuration file [default: infrahub-backup.toml here, then in the user's and the system's folder]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The folder of backups [default: infrahub_backups here]
    #[arg(long, global = true, value_name = "DIR")]
    pub backup_dir: Option<PathBuf>,
    /// Where this machine remembers unfinished runs and which repository is where
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where indexes are cached; it may be deleted at any time
    #[arg(long, global = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Keep no cache on disk
    #[arg(long, global = true)]
    pub no_cache: bool,
    /// Print the result as one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// How logs and errors are written to standard error
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Tell every step
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Tell only what must be looked at: nothing of a success
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Flags of the predecessor.
    #[command(flatten)]
    pub legacy: legacy::Predecessor,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a repository
    Init(Init),
    /// Back up a deployment as one snapshot
    Create(Box<Create>),
    /// List and show snapshots
    Snapshots(Snapshots),
    /// Put a snapshot back, into a deployment or into files
    Restore(Box<Restore>),
    /// Write one component, or one artifact file, to standard output
    Dump(Dump),
    /// Check that everything is there and undamaged
    Verify(Verify),
    /// Rehearse a restore, time it, and keep the evidence
    Drill(Box<Drill>),
    /// Forget snapshots that no rule keeps
    Forget(Box<Forget>),
    /// Free what no snapshot needs, in two runs a grace period apart
    Prune(Box<Prune>),
    /// Bring snapshots into another repository, which holds a copy then
    Replicate(Box<Replicate>),
    /// Mend what is damaged or missing, and tell exactly what is lost
    Repair(Repair),
    /// Make snapshots of the predecessor's archives
    Import(Import),
    /// Write a snapshot as an archive that the predecessor restores
    Export(Export),
    /// Make a pair of keys for encrypted archives
    Keygen(Keygen),
    /// List, add, remove and renew what opens the repository
    Key(Key),
    /// Tell which deployment would be backed up
    Environment(Environment),
    /// Tell whether good snapshots keep coming, and how the repository grows
    Status(Status),
    /// List, show and check the evidence of operations
    Report(Report),
    /// Clear the task manager of old runs
    Taskmanager(super::taskmanager::Taskmanager),
    /// Start what a killed run left stopped
    Resume(Resume),
    /// Try it all in a throw-away folder, with example data
    Demo(Demo),
    /// Tell the version
    Version,
    /// Write a completion script for a shell
    Completion(Completion),
}

/// `init`
#[derive(Debug, Args)]
pub struct Init {
    /// Make a key file instead of asking for a password; `--key-file` says where
    #[arg(long)]
    pub no_password: bool,
    /// Go on although the store cannot keep several writers apart; then nothing else may write to it at the same time
    #[arg(long)]
    pub single_writer: bool,
    /// Only tell what would be made
    #[arg(long)]
    pub dry_run: bool,
}

/// `create`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = false)]
pub struct Create {
    /// Where the dumps come from, if not from a deployment.
    #[command(subcommand)]
    pub from: Option<CreateFrom>,
    /// How it is stored.
    #[command(flatten)]
    pub options: CreateFlags,
}

/// Flags of `create`, before or after `from-files`.
#[derive(Debug, Clone, Args)]
pub struct CreateFlags {
    /// Make the repository if the place is empty
    #[arg(long, global = true)]
    pub init: bool,
    /// Mark the snapshot; may be given more than once
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = super::values::tag)]
    pub tag: Vec<(String, String)>,
    /// Back up only this component; may be given more than once
    #[arg(long, global = true, value_name = "NAME", value_delimiter = ',')]
    pub component: Vec<String>,
    /// Leave this component out; may be given more than once
    #[arg(long, global = true, value_name = "NAME", value_delimiter = ',')]
    pub exclude: Vec<String>,
    /// Make a snapshot, marked incomplete, even if a component fails
    #[arg(long, global = true)]
    pub allow_partial: bool,
    /// Keep a stream that is not a valid dump of its kind, as it is
    #[arg(long, global = true)]
    pub allow_raw: bool,
    /// Accept a component that is much smaller than in the last snapshot
    #[arg(long, global = true)]
    pub allow_shrink: bool,
    /// Rely on nothing that other keys wrote: what only they stored is stored again
    #[arg(long, global = true)]
    pub dedup_own: bool,
    /// Where sealed packs wait while the repository is slow
    #[arg(long, global = true, value_name = "DIR")]
    pub stage: Option<PathBuf>,
    /// How much may wait there
    #[arg(long, global = true, value_name = "SIZE", default_value = "5GB", value_parser = super::values::size)]
    pub stage_size: u64,
    /// How long to wait for another operation on this deployment
    #[arg(long, global = true, value_name = "TIME", value_parser = super::values::duration)]
    pub wait: Option<Duration>,
    /// How long to wait until no task runs, before services are stopped: most take seconds, a big import many minutes
    #[arg(long, global = true, value_name = "TIME", default_value = "30m", value_parser = super::values::duration)]
    pub wait_for_tasks: Duration,
    /// Do not wait for running tasks: they are interrupted
    #[arg(long, global = true)]
    pub force: bool,
    /// Only tell what would be done
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Flags of the predecessor.
    #[command(flatten)]
    pub legacy: legacy::PredecessorCreate,
}

/// `create from-files`
#[derive(Debug, Subcommand)]
pub enum CreateFrom {
    /// Back up dumps that lie in files or come by standard input
    FromFiles(FromFiles),
}

/// `create from-files`
#[derive(Debug, Args)]
pub struct FromFiles {
    /// The Neo4j dump; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub neo4j_path: Option<PathBuf>,
    /// The PostgreSQL dump (custom format); `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub postgres_path: Option<PathBuf>,
    /// The folder of artifacts
    #[arg(long, value_name = "DIR")]
    pub artifacts_path: Option<PathBuf>,
    /// Edition of the Neo4j that wrote the dump
    #[arg(long, value_name = "EDITION", value_parser = ["community", "enterprise"])]
    pub neo4j_edition: Option<String>,
    /// Version of Infrahub that the dumps belong to
    #[arg(long, value_name = "VERSION")]
    pub infrahub_version: Option<String>,
    /// Name of the deployment, which groups its snapshots [default: that of the configuration, or `files`]
    #[arg(long, value_name = "NAME")]
    pub deployment: Option<String>,
}

/// `snapshots`
#[derive(Debug, Args)]
pub struct Snapshots {
    /// What to tell of them; without it, the list.
    #[command(subcommand)]
    pub command: Option<SnapshotsCommand>,
}

/// `key …`
#[derive(Debug, Args)]
pub struct Key {
    /// What to do with them; without it, the list.
    #[command(subcommand)]
    pub command: Option<KeyCommand>,
}

/// `key …`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// All key slots
    List,
    /// Let one more password or key file open the repository
    Add(KeyAdd),
    /// Let a key slot open nothing that is written from now on
    Remove {
        /// Its id, any unique beginning of it, or its label
        slot: String,
    },
    /// Copy config and key slots, sealed and signed as they are, into a folder of their own
    Export {
        /// A folder that is not there
        folder: PathBuf,
    },
    /// Seal what is written from now on under new keys
    Rotate {
        /// The keys of content as well
        #[arg(long)]
        content: bool,
    },
}

/// `key add`
#[derive(Debug, Args)]
pub struct KeyAdd {
    /// What it allows
    #[arg(long, value_enum, value_name = "ROLE")]
    pub role: KeyRole,
    /// What people call it [default: USER@HOST]
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// Who has the secret half of this X25519 key, as age-keygen prints it: age1…
    #[arg(long, value_name = "RECIPIENT", group = "new")]
    pub recipient: Option<String>,
    /// Make a key file, here
    #[arg(long, value_name = "FILE", group = "new")]
    pub new_key_file: Option<PathBuf>,
    /// A file with the new password
    #[arg(long, value_name = "FILE", group = "new")]
    pub new_password_file: Option<PathBuf>,
    /// A command that prints the new password, run by `sh -c`
    #[arg(long, value_name = "COMMAND", group = "new")]
    pub new_password_command: Option<String>,
}

/// What a key slot allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyRole {
    /// Everything
    Reader,
    /// Back up, but not read what was backed up
    Writer,
    /// List, and verify structure and evidence
    Auditor,
}

/// `snapshots …`
#[derive(Debug, Subcommand)]
pub enum SnapshotsCommand {
    /// All snapshots, oldest first
    List {
        /// Only those of this deployment
        #[arg(long, value_name = "NAME")]
        deployment: Option<String>,
    },
    /// One snapshot
    Show {
        /// Its id, any unique beginning of it, or `latest`
        id: String,
    },
    /// What changed from one snapshot to another, told without reading content
    Diff {
        /// The one before: its id, any unique beginning of it, or `latest`
        a: String,
        /// The one after
        b: String,
    },
    /// Keep snapshots whatever the rules say
    Hold {
        /// Ids, any unique beginnings of them, or `latest`
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Let the rules decide about snapshots again
    Release {
        /// Ids, any unique beginnings of them, or `latest`
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Mark a snapshot, or take marks away
    Tag {
        /// Its id, any unique beginning of it, or `latest`
        id: String,
        /// KEY=VALUE sets, KEY= takes away
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = super::values::tag)]
        tags: Vec<(String, String)>,
    },
}

/// `restore`
#[derive(Debug, Args)]
pub struct Restore {
    /// The snapshot: its id, any unique beginning of it, or `latest`; or an archive of the predecessor: a file, s3://BUCKET/KEY
    #[arg(default_value = "latest")]
    pub snapshot_id: String,
    /// The private key file of an encrypted archive
    #[arg(long, value_name = "FILE")]
    pub decrypt_key: Option<PathBuf>,
    /// The newest snapshot at or before this time: 2026-11-22T15:00:00Z, or "2026-11-22 15:00" in local time
    #[arg(long, value_name = "TIME", value_parser = super::values::moment)]
    pub at: Option<jiff::Timestamp>,
    /// Write the components into this folder instead of a deployment
    #[arg(long, value_name = "DIR")]
    pub to_files: Option<PathBuf>,
    /// Choose among the snapshots of this deployment [default: that of the configuration]
    #[arg(long, value_name = "NAME")]
    pub deployment: Option<String>,
    /// Restore only this component; may be given more than once
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub component: Vec<String>,
    /// Leave this component as it is; may be given more than once
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub exclude: Vec<String>,
    /// Do not read everything once before the first change
    #[arg(long)]
    pub fast: bool,
    /// Do not back up the running deployment first
    #[arg(long)]
    pub no_safety_snapshot: bool,
    /// Restore into another version or edition
    #[arg(long)]
    pub force: bool,
    /// How long to wait for another operation on this deployment
    #[arg(long, value_name = "TIME", value_parser = super::values::duration)]
    pub wait: Option<Duration>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Only tell what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Flags of the predecessor.
    #[command(flatten)]
    pub legacy: legacy::PredecessorRestore,
}

/// `dump`
#[derive(Debug, Args)]
pub struct Dump {
    /// The snapshot: its id, any unique beginning of it, or `latest`
    pub id: String,
    /// The component: `database`, `task-manager-db`, `artifacts`, …
    pub component: String,
    /// One file of it, where it is a folder
    pub path: Option<std::ffi::OsString>,
}

/// `verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Only these snapshots: ids, beginnings of them, or `latest`
    pub ids: Vec<String>,
    /// How thorough to be
    #[arg(long, value_enum, default_value = "structure")]
    pub depth: DepthArg,
    /// Read only a random part of the packs: 5%
    #[arg(long, value_name = "PERCENT", value_parser = super::values::percent)]
    pub sample: Option<u32>,
    /// Draw the same sample again
    #[arg(long, value_name = "NUMBER", hide = true, requires = "sample")]
    pub seed: Option<u32>,
    /// Read only packs that were not read whole and sound within this time: 30d
    #[arg(long, value_name = "TIME", value_parser = super::values::duration, conflicts_with = "without_key")]
    pub max_age: Option<Duration>,
    /// Read at most this much, what was not read for the longest time first: 5GB
    #[arg(long, value_name = "SIZE", value_parser = super::values::size)]
    pub budget: Option<u64>,
    /// Read only this share of the packs: 1/4, 2/4, … on as many workers
    #[arg(long, value_name = "I/N", value_parser = super::values::shard)]
    pub shard: Option<Shard>,
    /// Ask for no key: hash everything that is named by its content, open nothing, write nothing
    #[arg(long, conflicts_with_all = ["ids", "depth"])]
    pub without_key: bool,
    /// Where `--depth rehearsal` writes its files [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// A snapshot that is known to have been there, all digits of its id: it must be there still, or forgotten by a decision on record
    #[arg(long, value_name = "ID", conflicts_with = "without_key")]
    pub head: Vec<SnapshotId>,
}

/// How thorough `verify` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DepthArg {
    /// Everything is there and resolves
    Structure,
    /// Every byte is read and hashed as well
    Data,
    /// Also, snapshots are restored to scratch files, which are decoded and removed
    Rehearsal,
}

/// `drill`
#[derive(Debug, Args)]
pub struct Drill {
    /// The snapshot: its id, any unique beginning of it, or `latest`
    #[arg(default_value = "latest")]
    pub id: String,
    /// The newest snapshot at or before this time: 2026-11-22T15:00:00Z, or "2026-11-22 15:00" in local time
    #[arg(long, value_name = "TIME", value_parser = super::values::moment)]
    pub at: Option<jiff::Timestamp>,
    /// Choose among the snapshots of this deployment [default: that of the configuration]
    #[arg(long, value_name = "NAME")]
    pub deployment: Option<String>,
    /// Where files are written and removed again [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Restore into the deployment of this configuration file, which its section [scratch] allows
    #[arg(long, value_name = "FILE", conflicts_with = "scratch")]
    pub target_config: Option<PathBuf>,
    /// Recovery time objective: end with 5 if it takes longer than this: 1h, 500ms
    #[arg(long, value_name = "TIME", value_parser = super::values::objective)]
    pub rto: Option<Duration>,
    /// Do not read everything once before the restore
    #[arg(long)]
    pub fast: bool,
    /// Restore into another version or edition
    #[arg(long)]
    pub force: bool,
    /// How long to wait for another operation on the scratch deployment
    #[arg(long, value_name = "TIME", value_parser = super::values::duration)]
    pub wait: Option<Duration>,
    /// Only tell what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `forget`
#[derive(Debug, Args)]
pub struct Forget {
    /// These snapshots, whatever the rules say: ids or beginnings of them
    pub ids: Vec<String>,
    /// Which ones stay.
    #[command(flatten)]
    pub keep: super::keep::KeepArgs,
    /// Only tell what would be forgotten, and what that would free
    #[arg(long)]
    pub dry_run: bool,
}

/// `prune`
#[derive(Debug, Args)]
pub struct Prune {
    /// Forget first what these do not keep.
    #[command(flatten)]
    pub keep: super::keep::KeepArgs,
    /// How long a pack that nobody needs is kept before it is deleted
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = super::values::duration)]
    pub grace: Duration,
    /// How much may be rewritten to free what is mostly dead
    #[arg(long, value_name = "SIZE", default_value = "10GB", value_parser = super::values::size)]
    pub max_repack: u64,
    /// Compress again against the snapshots before
    #[arg(long, hide = true)]
    pub rebase: bool,
    /// Only tell what would be freed
    #[arg(long)]
    pub dry_run: bool,
}

/// `replicate`
#[derive(Debug, Args)]
pub struct Replicate {
    /// Where the other repository is, as for --repo
    #[arg(long, value_name = "PLACE")]
    pub to: String,
    /// Only this snapshot: its id, a beginning of it, or `latest`; may be given more than once
    #[arg(long, value_name = "ID")]
    pub snapshot: Vec<String>,
    /// Make the other repository if the place is empty: under the same keys, or new ones where --to-key-file or the like is given
    #[arg(long)]
    pub init: bool,
    /// The key file of the other repository, if it has other keys
    #[arg(long, value_name = "FILE")]
    pub to_key_file: Option<PathBuf>,
    /// A file with the password of the other repository, if it has other keys
    #[arg(long, value_name = "FILE", conflicts_with = "to_key_file")]
    pub to_password_file: Option<PathBuf>,
    /// A command that prints the password of the other repository, run by `sh -c`
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["to_key_file", "to_password_file"])]
    pub to_password_command: Option<String>,
    /// Only tell what would be copied
    #[arg(long)]
    pub dry_run: bool,
}

impl Replicate {
    /// Whether anything says how the other repository is opened.
    pub fn other_keys(&self) -> bool {
        self.to_key_file.is_some() || self.to_password_file.is_some() || self.to_password_command.is_some()
    }
}

/// `repair`
#[derive(Debug, Args)]
pub struct Repair {
    /// A replica or a copy of the repository, under the same keys, as for --repo: what is missing here is taken from there
    #[arg(long, value_name = "REPO")]
    pub from: Option<String>,
    /// Read every pack, not only those that were found damaged before
    #[arg(long)]
    pub read_data: bool,
    /// Go on without decisions (forgotten, held, tagged) of damaged marks that nobody knows any more
    #[arg(long)]
    pub accept_lost_marks: bool,
    /// Forget snapshots whose manifests are damaged or missing and in no copy
    #[arg(long)]
    pub forget_lost: bool,
    /// Only tell what would be done and what is lost
    #[arg(long)]
    pub dry_run: bool,
}

/// `environment`
#[derive(Debug, Args)]
pub struct Environment {
    /// What to tell.
    #[command(subcommand)]
    pub command: EnvironmentCommand,
}

/// `environment …`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
#[command(arg_required_else_help = true)]
pub enum EnvironmentCommand {
    /// What would be backed up, and where this was found
    Detect,
    /// Names of the deployments
    List,
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// Only this deployment
    #[arg(long, value_name = "NAME")]
    pub deployment: Option<String>,
    /// Recovery point objective: end with 5 if the newest good snapshot of a deployment is older than this: 24h
    #[arg(long, value_name = "TIME", value_parser = super::values::duration)]
    pub rpo: Option<Duration>,
    /// Recovery time objective: end with 5 if the last drill of a deployment took longer, failed, or there is none: 1h
    #[arg(long, value_name = "TIME", value_parser = super::values::objective)]
    pub rto: Option<Duration>,
    /// Write metrics into this file, for the textfile collector of Prometheus
    #[arg(long, value_name = "FILE")]
    pub prometheus: Option<PathBuf>,
}

/// `report`
#[derive(Debug, Args)]
pub struct Report {
    /// What to tell of them; without it, the list.
    #[command(subcommand)]
    pub command: Option<ReportCommand>,
}

/// `report …`
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// All reports, oldest first
    List,
    /// One report
    Show {
        /// Its id, any unique beginning of it, or `latest`
        id: String,
    },
    /// Write reports for somebody who has no key: one page of HTML, or JSON
    Export {
        /// Ids, any unique beginnings of them, or `latest`
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// All reports
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Write one self-contained page into this file, which must not be there
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Check that reports are signed, undamaged and follow one another without a gap
    Verify {
        /// A report that is known to have been there, all digits of its id: it must be there still
        #[arg(long, value_name = "ID")]
        head: Vec<ObjectId>,
    },
}

/// `resume`
#[derive(Debug, Args)]
pub struct Resume {
    /// Only this deployment
    pub deployment: Option<String>,
}

/// `demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Do not remove the folder at the end
    #[arg(long)]
    pub keep: bool,
}

/// `completion`
#[derive(Debug, Args)]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}
