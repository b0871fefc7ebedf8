//! A command whose standard output is a stream of bytes: a dump.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use super::child::{Running, Streams};
use super::place::Reading;
use super::{CommandSpec, Ended, ExecError};
use crate::limits::INPUT_BLOCK_SIZE_MAX;
use crate::provider::secret::Masker;

/// A running command, its standard output in pieces.
///
/// The stall timeout counts only while [`ProcessOutput::next`] waits: a slow reader is not the command's fault.
pub struct ProcessOutput {
    running: Running,
    stdout: Reading,
    bytes: u64,
    at_end: bool,
}

impl ProcessOutput {
    /// Starts the command.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub async fn start(spec: &CommandSpec, masker: &Masker) -> Result<Self, ExecError> {
        Ok(Self::of(Running::spawn(spec, masker, Streams::Output).await?))
    }

    /// The output of a command that runs.
    pub(super) fn of(mut running: Running) -> Self {
        let stdout = running.take_stdout();
        Self { running, stdout, bytes: 0, at_end: false }
    }

    /// The next piece, at most [`INPUT_BLOCK_SIZE_MAX`] bytes, never empty; `None` at the end, which is not success yet.
    ///
    /// # Errors
    ///
    /// When a timeout has passed; the command is gone then.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ExecError> {
        if self.at_end {
            return Ok(None);
        }
        let remaining = self.running.remaining();
        if remaining.is_zero() {
            return Err(self.running.total_timeout().await);
        }
        let mut piece = BytesMut::with_capacity(INPUT_BLOCK_SIZE_MAX);
        let limit = self.running.stall_timeout.min(remaining);
        let mut room = (&mut piece).limit(INPUT_BLOCK_SIZE_MAX);
        match tokio::time::timeout(limit, self.stdout.read_buf(&mut room)).await {
            Ok(Ok(0)) => {
                self.at_end = true;
                Ok(None)
            }
            Ok(Ok(size)) => {
                self.bytes += size as u64;
                Ok(Some(piece.freeze()))
            }
            Ok(Err(source)) => Err(ExecError::Io { command: self.running.command().to_owned(), source }),
            Err(_) if self.running.remaining().is_zero() => Err(self.running.total_timeout().await),
            Err(_) => Err(self.running.stalled(self.bytes).await),
        }
    }

    /// Waits for the exit status. A command that has closed its output must exit within the stall timeout.
    ///
    /// # Errors
    ///
    /// Anything but exit status 0 after output that was read to its end.
    pub async fn finish(mut self) -> Result<Ended, ExecError> {
        if !self.at_end {
            self.running.end().await;
            return Err(ExecError::Unread { command: self.running.command().to_owned(), bytes: self.bytes });
        }
        let limit = self.running.stall_timeout.min(self.running.remaining());
        match tokio::time::timeout(limit, self.running.wait()).await {
            Ok(status) => {
                self.running.settle().await;
                self.running.check(status?)?;
                Ok(Ended {
                    command: self.running.command().to_owned(),
                    bytes: self.bytes,
                    elapsed: self.running.elapsed(),
                    log: self.running.log(),
                })
            }
            Err(_) if self.running.remaining().is_zero() => Err(self.running.total_timeout().await),
            Err(_) => Err(self.running.stalled(self.bytes).await),
        }
    }

    /// Ends the command and all of its group, and returns when it is gone.
    pub async fn abort(mut self) {
        self.running.end().await;
    }
}
