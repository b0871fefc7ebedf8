//! Running commands: their bytes, their end, and the end of everything they started.
//!
//! Holds: every child leads a process group of its own, and that whole group is killed on abort, on a timeout and when its
//! handle is dropped. Standard error is read all the time, so that a talkative child never blocks. Standard input is
//! `/dev/null` unless bytes are loaded. `LC_ALL` is `C`, in a place of its own `C.UTF-8`. The secrets of this tool's own
//! repository are not in a child's environment, and no secret is in its arguments. The end of a child's output is not
//! success: only its exit status is.
//!
//! Does not: reach processes that left the group by `setsid`, or what a wrapper such as `ssh` started on another machine
//! (that ends when its connection does). The environment does not cross such a wrapper either; on the other side secrets
//! are given by files there (`~/.pgpass`).

mod child;
mod error;
mod input;
mod output;
pub mod place;

use std::borrow::Cow;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use self::child::{Running, Streams};
pub use self::error::ExecError;
pub use self::input::ProcessInput;
pub use self::output::ProcessOutput;
use self::place::{Place, Reading};
use super::secret::{EnvValue, Masker};

/// Most bytes of standard output that [`run`] takes: 1 MiB.
pub const RUN_OUTPUT_SIZE_MAX: usize = 1 << 20;

/// Lines of standard error that are kept, the last ones.
pub const LOG_LINES_MAX: usize = 200;

/// Longest line of standard error that is kept, in bytes; what is behind is cut off, after masking.
pub const LOG_LINE_SIZE_MAX: usize = 2 << 10;

/// How long a child that was asked to end (SIGTERM) has before its group is killed.
pub const END_GRACE: Duration = Duration::from_secs(2);

/// How long the pipes of an exited child are still read. A service that it started may have inherited them and keep
/// them open for good.
pub const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// Stall timeout where none is configured: a database may think for minutes between two rows.
pub const STALL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10 * 60);

/// Total timeout where none is configured.
pub const TOTAL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(12 * 3600);

/// Variables with secrets of this tool itself; no child gets them.
pub const OWN_SECRET_VARIABLES: [&str; 2] = ["INFRAHUB_REPO_PASSWORD", "INFRAHUB_REPO_PASSWORD_FILE"];

/// One command, as it was configured.
#[derive(Debug, Clone)]
pub struct CommandSpec {
    /// Program and arguments; no shell reads them.
    pub argv: Vec<String>,
    /// Variables added to this tool's own environment.
    pub env: Vec<(String, EnvValue)>,
    /// Put before `argv`, such as `ssh host --`.
    pub wrap: Vec<String>,
    /// How long no byte of a dump may come, or none of a load be taken, while this side is ready.
    pub stall_timeout: Duration,
    /// How long the command may run.
    pub total_timeout: Duration,
    /// Where it runs; this tool's own working directory if none.
    pub cwd: Option<PathBuf>,
    /// Where it runs, if not as a child of this process.
    pub place: Option<Arc<dyn Place>>,
}

impl CommandSpec {
    /// A command with the default timeouts and nothing else.
    pub fn new(argv: Vec<String>) -> Self {
        Self {
            argv,
            env: Vec::new(),
            wrap: Vec::new(),
            stall_timeout: STALL_TIMEOUT_DEFAULT,
            total_timeout: TOTAL_TIMEOUT_DEFAULT,
            cwd: None,
            place: None,
        }
    }

    /// The command for people, with quotes where a shell would need them.
    ///
    /// Masked is what a configuration may have written there, less the names of programs. A command in a place of its own has
    /// this program's words only, and none of them is a secret: `neo4j-admin` is shown also where the password is `admin`.
    fn display(&self, masker: &Masker) -> String {
        let (wrap, ours) = (self.wrap.iter().enumerate(), self.place.is_some());
        let words = wrap.chain(self.argv.iter().enumerate()).map(|(at, word)| {
            if ours {
                return quoted(&first_line(word));
            }
            let word = quoted(word);
            if at == 0 { word } else { masker.mask(&word) }
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// What tells people which script it is; all of it would hide why it failed.
fn first_line(word: &str) -> Cow<'_, str> {
    word.split_once('\n').map_or(Cow::Borrowed(word), |(first, _)| Cow::Owned(format!("{first} …")))
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=@%+,{}".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// What a command that ended with 0 said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its standard output, as it is.
    pub stdout: Vec<u8>,
    /// The last lines of its standard error, masked.
    pub log: Vec<String>,
}

/// How a process behind a stream ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The command, masked.
    pub command: String,
    /// Bytes that crossed.
    pub bytes: u64,
    /// From its start to its exit.
    pub elapsed: Duration,
    /// The last lines of its standard error, masked.
    pub log: Vec<String>,
}

/// Runs `spec` to its end and takes what it says. Only its total timeout counts; a silent command is fine.
///
/// A process that it leaves behind on purpose (a service) lives on, but its output is not read any more.
///
/// # Errors
///
/// Anything but exit status 0 within [`RUN_OUTPUT_SIZE_MAX`] bytes of output.
pub async fn run(spec: &CommandSpec, masker: &Masker) -> Result<Output, ExecError> {
    let mut running = Running::spawn(spec, masker, Streams::Output).await?;
    let mut pipe = running.take_stdout();
    let mut stdout = Vec::with_capacity(64 << 10);
    let limit = running.remaining();
    let ended = tokio::time::timeout(limit, exit_and_output(&mut running, &mut pipe, &mut stdout)).await;
    let status = match ended {
        Ok(status) => status?,
        Err(_) => return Err(running.total_timeout().await),
    };
    match status {
        Some(status) if stdout.len() <= RUN_OUTPUT_SIZE_MAX => {
            running.settle().await;
            running.check(status)?;
            Ok(Output { stdout, log: running.log() })
        }
        Some(_) | None => {
            running.end().await;
            Err(ExecError::TooMuchOutput { command: running.command().to_owned(), limit: RUN_OUTPUT_SIZE_MAX })
        }
    }
}

/// The exit status; `None` as soon as there is too much output.
async fn exit_and_output(
    running: &mut Running,
    pipe: &mut Reading,
    stdout: &mut Vec<u8>,
) -> Result<Option<ExitStatus>, ExecError> {
    tokio::select! {
        status = running.wait() => {
            // What is in the pipe by now still belongs to the command.
            let _ = tokio::time::timeout(DRAIN_GRACE, read_bounded(pipe, stdout)).await;
            return status.map(Some);
        }
        () = read_bounded(pipe, stdout) => {}
    }
    if stdout.len() > RUN_OUTPUT_SIZE_MAX { Ok(None) } else { running.wait().await.map(Some) }
}

/// Reads to the end, or until there is more than is allowed. A pipe that cannot be read counts as ended: the exit status
/// decides. Nothing is lost when it is dropped.
async fn read_bounded(pipe: &mut Reading, bytes: &mut Vec<u8>) {
    while bytes.len() <= RUN_OUTPUT_SIZE_MAX {
        bytes.reserve(4 << 10);
        if !matches!(pipe.read_buf(bytes).await, Ok(1..)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::place::{Placed, PlacedCommand};
    use super::*;
    use crate::provider::secret::Secret;

    #[derive(Debug)]
    struct Nowhere;

    #[async_trait]
    impl Place for Nowhere {
        async fn start(&self, _: PlacedCommand) -> std::io::Result<Placed> {
            Err(std::io::Error::other("nowhere"))
        }
    }

    fn command(words: &[&str]) -> CommandSpec {
        CommandSpec::new(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn a_password_that_is_a_common_word_hides_no_word_of_ours() {
        let masker = Masker::default();
        masker.add(&Secret::new("admin".to_owned()));
        let mut spec = command(&["neo4j-admin", "database", "dump", "neo4j"]);
        spec.place = Some(Arc::new(Nowhere));
        assert_eq!(spec.display(&masker), "neo4j-admin database dump neo4j");
    }

    #[test]
    fn of_a_script_of_ours_the_first_line_is_shown() {
        let mut spec = command(&["python3", "-c", "# Counts.\nprint(1)\n", "7"]);
        spec.place = Some(Arc::new(Nowhere));
        assert_eq!(spec.display(&Masker::default()), "python3 -c '# Counts. …' 7");
    }

    #[test]
    fn of_a_configured_command_only_the_names_of_programs_are_never_masked() {
        let masker = Masker::default();
        masker.add(&Secret::new("admin".to_owned()));
        let mut spec = command(&["/opt/neo4j-admin", "--user=neo4j", "--password=admin"]);
        spec.wrap = vec!["run-as-admin".to_owned(), "admin".to_owned()];
        assert_eq!(spec.display(&masker), "run-as-admin *** /opt/neo4j-admin --user=neo4j --password=***");
    }
}
