//! Commands that run somewhere else than as children of this process: in a container.
//!
//! Holds: what a place gives looks like a child from outside: three streams and an exit code. A stream that broke is never
//! taken for one that ended: then there is no exit code, only an error.

use std::fmt;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

/// Standard output or standard error, as it comes.
pub type Reading = Box<dyn AsyncRead + Send + Unpin>;

/// Standard input; shutting it down or dropping it ends it.
pub type Writing = Box<dyn AsyncWrite + Send + Unpin>;

/// One command, secrets read.
pub struct PlacedCommand {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables that are added to what the place has.
    pub env: Vec<(String, Zeroizing<String>)>,
    /// Where it runs, if not where the place says.
    pub cwd: Option<PathBuf>,
    /// Whether its standard input takes bytes.
    pub stdin: bool,
}

impl PlacedCommand {
    /// The variables as `NAME=VALUE`.
    pub fn variables(&self) -> impl Iterator<Item = String> {
        self.env.iter().map(|(name, value)| format!("{name}={}", value.as_str()))
    }
}

/// What was started.
pub struct Placed {
    /// Its standard input, where one was asked for.
    pub stdin: Option<Writing>,
    /// Its standard output. Dropped, what comes is thrown away.
    pub stdout: Reading,
    /// Its standard error.
    pub stderr: Reading,
    /// Its end.
    pub process: Box<dyn PlacedProcess>,
}

/// A command under way. Dropped before its end it is ended, as far as that can be done without waiting.
#[async_trait]
pub trait PlacedProcess: Send {
    /// Waits for its exit code; may be dropped and called again. Whatever held it is gone on return.
    async fn wait(&mut self) -> io::Result<i32>;

    /// Ends it and whatever held it, and returns when it is gone.
    async fn end(&mut self);
}

/// Where commands can run.
#[async_trait]
pub trait Place: Send + Sync + fmt::Debug {
    /// Starts a command.
    async fn start(&self, command: PlacedCommand) -> io::Result<Placed>;
}
