//! `demo`: the whole way, from an empty folder to a restored one, with nothing but this program.
//!
//! It runs the commands that it shows, in a throw-away folder, on two days of real dumps of a small deployment. State
//! and cache are in that folder too: nothing is left behind, and nothing of the user's is read.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches};

use super::args::Cli;
use super::exit::Exit;
use super::failure::Failure;
use super::log::Log;
use super::render;
use super::session::Session;
use super::settings::Settings;
use super::{Out, dispatch, new_log, typed};
use crate::error::ErrorKind;
use crate::id::SnapshotId;
use crate::ops::Cancel;

/// Dumps of one day: Neo4j, PostgreSQL.
type Day = (&'static [u8], &'static [u8]);

const DAY_1: Day = (include_bytes!("../demo/database-day1.dump"), include_bytes!("../demo/task-manager-db-day1.dump"));
const DAY_2: Day = (include_bytes!("../demo/database-day2.dump"), include_bytes!("../demo/task-manager-db-day2.dump"));

/// Artifact files that are made up.
const ARTIFACTS: u32 = 24;

/// What a dump of Neo4j begins with, before the compressed part.
const NEO4J_MAGIC: &[u8] = b"DZV1";

/// Runs the demo; `keep` leaves the folder.
pub async fn run(keep: bool, log: &Arc<Log>, cancel: Cancel) -> Result<Exit, Failure> {
    let folder = tempfile::Builder::new().prefix("infrahub-backup-demo-").tempdir();
    let folder = folder.map_err(|source| Failure::io("no temporary folder can be made", source))?;
    let demo = Demo { root: folder.path().to_owned(), cancel };
    let done = demo.play().await;
    if keep {
        let kept = folder.keep();
        log.plain(&format!("kept: {}", kept.display()));
    }
    done
}

struct Demo {
    root: PathBuf,
    cancel: Cancel,
}

impl Demo {
    async fn play(&self) -> Result<Exit, Failure> {
        say(&format!("Everything happens in {} and leaves nothing behind (--keep leaves it).", self.root.display()))?;
        say("\n== 1. A repository. It is always encrypted; its key file lies outside of it.")?;
        self.command(&["init", "--no-password"]).await?;

        say("\n== 2. Day 1: a Neo4j dump, a PostgreSQL dump and a folder of artifacts, as one snapshot.")?;
        self.write_day(DAY_1)?;
        self.write_artifacts()?;
        self.create().await?;
        let first = self.newest().await?;

        say("\n== 3. What there is, and whether every byte of it is sound.")?;
        self.command(&["snapshots", "list"]).await?;
        self.command(&["verify", "--depth", "data"]).await?;

        say(
            "\n== 4. Day 2: both databases were written to, one artifact changed and one is new. ADDED is what it costs.",
        )?;
        self.write_day(DAY_2)?;
        self.change_artifacts()?;
        self.create().await?;
        self.command(&["snapshots", "list"]).await?;

        say(
            "\n== 5. Back to day 1. The plan is shown first; everything is read and checked before anything is written.",
        )?;
        self.command(&["restore", &first.short(), "--to-files", &self.path("restored"), "--yes"]).await?;

        say("\n== 6. Is it what was there on day 1?")?;
        let same = self.compare()?;
        say("\n== 7. Each of these operations left its evidence in the repository.")?;
        self.command(&["report", "list"]).await?;
        if !same {
            return Err(Failure::new(ErrorKind::Internal, "what was restored is not what was backed up"));
        }
        say("\nNext: describe your deployment in infrahub-backup.toml, then: infrahub-backup create --init")?;
        Ok(Exit::Done)
    }

    fn path(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }

    async fn create(&self) -> Result<(), Failure> {
        let paths = ["database.dump", "task-manager-db.dump", "artifacts"].map(|name| self.path(name));
        let [neo4j, postgres, artifacts] = &paths;
        let line = ["create", "from-files", "--deployment", "demo", "--neo4j-path", neo4j, "--postgres-path", postgres];
        self.command(&[&line[..], &["--artifacts-path", artifacts]].concat()).await
    }

    /// Shows a command and runs it, as if it had been typed.
    async fn command(&self, line: &[&str]) -> Result<(), Failure> {
        say(&format!(
            "$ infrahub-backup {} --repo {} --key-file {}",
            line.join(" "),
            self.path("repository"),
            self.path("demo.key")
        ))?;
        let (mut cli, typed) = self.parse(line)?;
        let log = Arc::new(new_log(&cli.global));
        // The log alone is quiet: what a command prints is what there is to see.
        cli.global.quiet = false;
        // Boxed: the demo is itself a command.
        match Box::pin(dispatch(cli, typed, log, self.cancel.clone())).await? {
            Exit::Done => Ok(()),
            other => Err(Failure::new(ErrorKind::Internal, other.meaning())),
        }
    }

    fn parse(&self, line: &[&str]) -> Result<(Cli, Vec<&'static str>), Failure> {
        let places = [
            ("repo", "repository"),
            ("key-file", "demo.key"),
            ("state-dir", "state"),
            ("cache-dir", "cache"),
            ("backup-dir", "backups"),
        ];
        let arguments = std::iter::once("infrahub-backup").chain(line.iter().copied()).map(OsString::from);
        let places = places.map(|(flag, name)| OsString::from(format!("--{flag}={}", self.path(name))));
        let all = arguments.chain(places).chain([OsString::from("--quiet")]);
        let wrong = |error: clap::Error| Failure::new(ErrorKind::Internal, error.to_string());
        let matches = Cli::command().try_get_matches_from(all).map_err(wrong)?;
        Ok((Cli::from_arg_matches(&matches).map_err(wrong)?, typed(&matches)))
    }

    async fn newest(&self) -> Result<SnapshotId, Failure> {
        let (cli, typed) = self.parse(&["snapshots"])?;
        let log = Arc::new(new_log(&cli.global));
        let settings = Settings::new(cli.global, typed);
        let session = Session::new(settings, log, Out { json: false, quiet: false }, self.cancel.clone())?;
        let repository = session.open().await?;
        Ok(session.snapshot(&repository, "latest", None).await?.id)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let path = self.root.join(name);
        let folder = path.parent().expect("a file lies in a folder");
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, content));
        written.map_err(|source| Failure::io(format!("`{}` could not be written", path.display()), source))
    }

    fn write_day(&self, (database, task_manager): Day) -> Result<(), Failure> {
        self.write("database.dump", database)?;
        self.write("task-manager-db.dump", task_manager)
    }

    fn write_artifacts(&self) -> Result<(), Failure> {
        (0..ARTIFACTS).try_for_each(|number| self.write(&artifact_path(number), artifact(number, 1).as_bytes()))
    }

    fn change_artifacts(&self) -> Result<(), Failure> {
        self.write(&artifact_path(3), artifact(3, 2).as_bytes())?;
        self.write(&artifact_path(ARTIFACTS), artifact(ARTIFACTS, 2).as_bytes())
    }

    /// Compares what was restored with what day 1 was.
    fn compare(&self) -> Result<bool, Failure> {
        let restored = self.root.join("restored");
        let database = read(&restored.join("database.dump"))?;
        let inside = (hash_inside(DAY_1.0), hash_inside(&database));
        // Neo4j's own compression is undone while it is stored, and done anew: the content is what counts.
        let same_database = matches!(&inside, (Ok(then), Ok(now)) if then == now);
        tell("database, the store inside the dump", same_database, inside.0.ok())?;
        let task_manager = read(&restored.join("task-manager-db.dump"))?;
        let same_task_manager = task_manager == DAY_1.1;
        tell("task-manager-db, byte for byte", same_task_manager, Some(blake3::hash(DAY_1.1)))?;
        let mut hasher = blake3::Hasher::new();
        let mut same_artifacts = !restored.join(artifact_path(ARTIFACTS)).exists();
        for number in 0..ARTIFACTS {
            let then = artifact(number, 1);
            hasher.update(then.as_bytes());
            same_artifacts &= read(&restored.join(artifact_path(number)))? == then.as_bytes();
        }
        tell(&format!("artifacts, {ARTIFACTS} files, byte for byte"), same_artifacts, Some(hasher.finalize()))?;
        Ok(same_database && same_task_manager && same_artifacts)
    }
}

fn artifact_path(number: u32) -> String {
    format!("artifacts/site-{}/device-{number:02}.cfg", number % 4)
}

/// A made-up configuration of a device, of a kilobyte or so, as it was on a day.
fn artifact(number: u32, day: u32) -> String {
    let mut text = format!("hostname device-{number:02}\n! rendered on day {day}\n");
    for port in 0..24 {
        text += &format!("interface Ethernet{port}\n  ip address 10.{number}.{day}.{port}/31\n");
    }
    text
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|source| Failure::io(format!("`{}` cannot be read", path.display()), source))
}

/// Hash of what is compressed inside a Neo4j dump.
fn hash_inside(dump: &[u8]) -> io::Result<blake3::Hash> {
    let compressed = dump.strip_prefix(NEO4J_MAGIC).ok_or(io::ErrorKind::InvalidData)?;
    let mut decoder = zstd::stream::read::Decoder::new(compressed)?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        match decoder.read(&mut piece)? {
            0 => return Ok(hasher.finalize()),
            read => hasher.update(&piece[..read]),
        };
    }
}

fn tell(what: &str, same: bool, hash: Option<blake3::Hash>) -> Result<(), Failure> {
    let verdict = if same { "the same" } else { "DIFFERENT" };
    let hash = hash.map_or(String::new(), |hash| format!("  BLAKE3 {}", &hash.to_hex()[..16]));
    say(&format!("  {what}: {verdict}{hash}"))
}

fn say(text: &str) -> Result<(), Failure> {
    render::write(&format!("{text}\n"))
}
