//! A command whose standard input takes a stream of bytes: a load, or a filter that gives another stream when it has all.

use bytes::{Buf, Bytes};
use tokio::io::AsyncWriteExt;

use super::child::{Running, Streams};
use super::place::Writing;
use super::{CommandSpec, END_GRACE, Ended, ExecError, ProcessOutput};
use crate::provider::secret::Masker;

/// A running command, its standard input open. What it writes to its standard output is thrown away, unless it is a filter.
pub struct ProcessInput {
    running: Running,
    stdin: Writing,
    bytes: u64,
}

impl ProcessInput {
    /// Starts the command.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub async fn start(spec: &CommandSpec, masker: &Masker) -> Result<Self, ExecError> {
        let mut running = Running::spawn(spec, masker, Streams::Input).await?;
        let stdin = running.take_stdin();
        Ok(Self { running, stdin, bytes: 0 })
    }

    /// Starts a command that writes nothing before it has read everything.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub async fn start_filter(spec: &CommandSpec, masker: &Masker) -> Result<Self, ExecError> {
        let mut running = Running::spawn(spec, masker, Streams::Both).await?;
        let stdin = running.take_stdin();
        Ok(Self { running, stdin, bytes: 0 })
    }

    /// Closes the input of a filter, and gives its output.
    pub async fn end_input(self) -> ProcessOutput {
        let Self { running, mut stdin, .. } = self;
        // As in `finish`: if it is gone, the exit status says more.
        let _ = stdin.shutdown().await;
        drop(stdin);
        ProcessOutput::of(running)
    }

    /// Bytes that were handed over so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hands over all of `piece`; waits while the command does not take it.
    ///
    /// # Errors
    ///
    /// When it takes nothing for the stall timeout, its time is over, or it stopped reading. It is gone then.
    pub async fn write(&mut self, mut piece: Bytes) -> Result<(), ExecError> {
        while piece.has_remaining() {
            let remaining = self.running.remaining();
            if remaining.is_zero() {
                return Err(self.running.total_timeout().await);
            }
            let limit = self.running.stall_timeout.min(remaining);
            match tokio::time::timeout(limit, self.stdin.write_buf(&mut piece)).await {
                Ok(Ok(size)) => self.bytes += size as u64,
                Ok(Err(_)) => return Err(self.closed_early().await),
                Err(_) if self.running.remaining().is_zero() => return Err(self.running.total_timeout().await),
                Err(_) => return Err(self.running.stalled(self.bytes).await),
            }
        }
        Ok(())
    }

    /// Closes the input and waits for the exit status. Only the total timeout counts from here: a database that has all
    /// bytes may still build indexes for a long time.
    ///
    /// # Errors
    ///
    /// Anything but exit status 0.
    pub async fn finish(self) -> Result<Ended, ExecError> {
        let Self { mut running, mut stdin, bytes } = self;
        // A pipe ends when it is closed, a connection when it is told so. If it is gone, the exit status says more.
        let _ = stdin.shutdown().await;
        drop(stdin);
        match tokio::time::timeout(running.remaining(), running.wait()).await {
            Ok(status) => {
                running.settle().await;
                running.check(status?)?;
                let (command, elapsed, log) = (running.command().to_owned(), running.elapsed(), running.log());
                Ok(Ended { command, bytes, elapsed, log })
            }
            Err(_) => Err(running.total_timeout().await),
        }
    }

    /// Ends the command and all of its group, and returns when it is gone.
    pub async fn abort(mut self) {
        self.running.end().await;
    }

    /// Its exit status says more than the broken pipe does, if it has one soon.
    async fn closed_early(&mut self) -> ExecError {
        let status = tokio::time::timeout(END_GRACE, self.running.wait()).await;
        self.running.end().await;
        let verdict = match status {
            Ok(Ok(status)) => self.running.check(status).err(),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        verdict.unwrap_or_else(|| ExecError::BrokenPipe {
            command: self.running.command().to_owned(),
            bytes: self.bytes,
            log: self.running.log(),
        })
    }
}
