//! How a command did not end well.

use std::time::Duration;

use crate::provider::secret::SecretError;

/// Lines of a command's standard error that an error shows; all that were kept are in its `log`.
const SHOWN_LINES: usize = 3;

/// Why a command did not do its work. Commands and logs are masked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// There is nothing to run.
    #[error("the command is empty")]
    Empty,
    /// There is no such program.
    #[error("the program `{program}` of `{command}` does not exist")]
    NotFound {
        /// The first word.
        program: String,
        /// The command.
        command: String,
    },
    /// The system did not start it.
    #[error("`{command}` cannot be started")]
    Spawn {
        /// The command.
        command: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A secret of its environment could not be read.
    #[error("`{command}` cannot be started without its variable `{variable}`")]
    Secret {
        /// The command.
        command: String,
        /// The variable.
        variable: String,
        /// The cause.
        #[source]
        source: Box<SecretError>,
    },
    /// A pipe to it, or the wait for it, broke.
    #[error("the connection to `{command}` broke")]
    Io {
        /// The command.
        command: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It exited, but not with 0.
    #[error("`{command}` exited with {code}{}", tail(log))]
    Exit {
        /// The command.
        command: String,
        /// Its exit code.
        code: i32,
        /// The last lines of its standard error.
        log: Vec<String>,
    },
    /// A signal killed it.
    #[error("`{command}` was killed by signal {signal}{}", tail(log))]
    Signal {
        /// The command.
        command: String,
        /// The signal's number.
        signal: i32,
        /// The last lines of its standard error.
        log: Vec<String>,
    },
    /// No byte moved for the stall timeout; it was killed.
    #[error("`{command}` moved no byte for {} s (after {bytes} bytes){}", waited.as_secs(), tail(log))]
    Stalled {
        /// The command.
        command: String,
        /// The stall timeout.
        waited: Duration,
        /// Bytes that crossed before.
        bytes: u64,
        /// The last lines of its standard error.
        log: Vec<String>,
    },
    /// It ran for longer than it may; it was killed.
    #[error("`{command}` did not end within {} s{}", limit.as_secs(), tail(log))]
    TotalTimeout {
        /// The command.
        command: String,
        /// The total timeout.
        limit: Duration,
        /// The last lines of its standard error.
        log: Vec<String>,
    },
    /// It stopped reading before it had everything, without saying that anything is wrong.
    #[error("`{command}` closed its input after {bytes} bytes{}", tail(log))]
    BrokenPipe {
        /// The command.
        command: String,
        /// Bytes that it may have taken.
        bytes: u64,
        /// The last lines of its standard error.
        log: Vec<String>,
    },
    /// It said more than a short answer.
    #[error("`{command}` wrote more than {limit} bytes")]
    TooMuchOutput {
        /// The command.
        command: String,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Its verdict was asked for before its output was read to the end; it was killed.
    #[error("the output of `{command}` was not read to its end ({bytes} bytes were)")]
    Unread {
        /// The command.
        command: String,
        /// Bytes that were read.
        bytes: u64,
    },
}

impl ExecError {
    /// Whether the command never ran, or ended by itself with another code than 0.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Empty | Self::NotFound { .. } | Self::Spawn { .. } | Self::Secret { .. } | Self::Exit { .. } => true,
            Self::Io { .. }
            | Self::Signal { .. }
            | Self::Stalled { .. }
            | Self::TotalTimeout { .. }
            | Self::BrokenPipe { .. }
            | Self::TooMuchOutput { .. }
            | Self::Unread { .. } => false,
        }
    }

    /// The same without what the command said.
    #[must_use]
    pub fn without_log(mut self) -> Self {
        match &mut self {
            Self::Exit { log, .. }
            | Self::Signal { log, .. }
            | Self::Stalled { log, .. }
            | Self::TotalTimeout { log, .. }
            | Self::BrokenPipe { log, .. } => log.clear(),
            Self::Empty
            | Self::NotFound { .. }
            | Self::Spawn { .. }
            | Self::Secret { .. }
            | Self::Io { .. }
            | Self::TooMuchOutput { .. }
            | Self::Unread { .. } => {}
        }
        self
    }
}

fn tail(log: &[String]) -> String {
    let said: Vec<_> = log.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
    if said.is_empty() {
        return String::new();
    }
    format!(": {}", said[said.len().saturating_sub(SHOWN_LINES)..].join("; "))
}
