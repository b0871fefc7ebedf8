//! The streams of something attached in the engine, as three pipes.
//!
//! Holds: standard output that nobody reads any more is thrown away, so that the command behind it can end; a connection
//! that broke is told by [`Pump::ended`] and never taken for an end. Memory is bounded by two pipes.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bollard::container::LogOutput;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;

use super::error::DockerError;
use crate::provider::exec::place::Reading;

/// Bytes of output that wait to be read. The engine sends frames of 32 KiB.
const PIPE_SIZE: usize = 1 << 20;

/// Bytes of messages that wait to be read.
const LOG_PIPE_SIZE: usize = 64 << 10;

/// What begins the line in which a command tells its number in its container.
pub(super) const PID_MARK: &str = "infrahub-backup-pid:";

/// The number of a process, known as soon as it has told it.
pub(super) type Pid = Arc<OnceLock<String>>;

pub(super) type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;

/// The task that moves bytes from the engine into the pipes.
pub(super) struct Pump {
    task: Option<JoinHandle<io::Result<()>>>,
}

impl Pump {
    /// Starts it. Where a `pid` is given, the first line of standard error is the command's number and is not passed on.
    pub(super) fn start(output: Output, pid: Option<Pid>) -> (Self, Reading, Reading) {
        let (stdout, stdout_end) = tokio::io::duplex(PIPE_SIZE);
        let (stderr, stderr_end) = tokio::io::duplex(LOG_PIPE_SIZE);
        let pipes = Pipes { stdout: Some(stdout_end), stderr: Some(stderr_end), pid, line: Vec::new(), bytes: 0 };
        let task = tokio::spawn(pipes.fill(output));
        (Self { task: Some(task) }, Box::new(stdout), Box::new(stderr))
    }

    /// Waits until the engine has sent everything; an error if the connection broke, now and whenever asked again.
    pub(super) async fn ended(&mut self) -> io::Result<()> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let ended = task.await.map_err(io::Error::other).and_then(|ended| ended);
        if ended.is_ok() {
            self.task = None;
        } else {
            // A task that was awaited cannot be awaited again: its verdict stays.
            let text = ended.as_ref().err().map(ToString::to_string).unwrap_or_default();
            self.task = Some(tokio::spawn(async move { Err(io::Error::other(text)) }));
        }
        ended
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Pipes {
    stdout: Option<DuplexStream>,
    stderr: Option<DuplexStream>,
    pid: Option<Pid>,
    /// The beginning of the line with the number.
    line: Vec<u8>,
    bytes: u64,
}

impl Pipes {
    async fn fill(mut self, mut output: Output) -> io::Result<()> {
        while let Some(piece) = output.next().await {
            match piece.map_err(io::Error::other)? {
                LogOutput::StdOut { message } => {
                    self.bytes += message.len() as u64;
                    write(&mut self.stdout, &message).await;
                }
                LogOutput::StdErr { message } => {
                    let rest = self.without_pid(&message);
                    write(&mut self.stderr, rest).await;
                }
                LogOutput::StdIn { .. } => {}
                // Without a terminal every piece has a head: what has none is what was left of a broken connection.
                LogOutput::Console { .. } => return Err(io::Error::other(DockerError::Broken { bytes: self.bytes })),
            }
        }
        Ok(())
    }

    /// What of `message` is the command's own.
    fn without_pid<'a>(&mut self, message: &'a [u8]) -> &'a [u8] {
        let Some(pid) = self.pid.as_ref().filter(|pid| pid.get().is_none()) else { return message };
        let Some(end) = message.iter().position(|&byte| byte == b'\n') else {
            self.line.extend_from_slice(message);
            return &[];
        };
        self.line.extend_from_slice(&message[..end]);
        let text = String::from_utf8_lossy(&self.line);
        let digits = text.strip_prefix(PID_MARK).unwrap_or_default();
        let _ = pid.set(digits.to_owned());
        // What is no number came from a shell that failed: the operator must see it.
        if digits.is_empty() { message } else { &message[end + 1..] }
    }
}

/// Writes into a pipe, and forgets it when its other end is gone.
async fn write(pipe: &mut Option<DuplexStream>, bytes: &[u8]) {
    if let Some(open) = pipe
        && open.write_all(bytes).await.is_err()
    {
        *pipe = None;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn output(pieces: Vec<LogOutput>) -> Output {
        Box::pin(futures::stream::iter(pieces.into_iter().map(Ok)))
    }

    fn stderr(text: &'static str) -> LogOutput {
        LogOutput::StdErr { message: Bytes::from_static(text.as_bytes()) }
    }

    fn stdout(text: &'static str) -> LogOutput {
        LogOutput::StdOut { message: Bytes::from_static(text.as_bytes()) }
    }

    #[tokio::test]
    async fn streams_are_told_apart_and_the_number_is_taken_out() {
        let pid = Pid::default();
        let pieces = vec![stderr("infrahub-backup-"), stdout("a"), stderr("pid:12\nfirst\n"), stdout("b"), stderr("x")];
        let (mut pump, mut out, mut err) = Pump::start(output(pieces), Some(Arc::clone(&pid)));
        let (mut text, mut log) = (String::new(), String::new());
        out.read_to_string(&mut text).await.unwrap();
        err.read_to_string(&mut log).await.unwrap();
        pump.ended().await.unwrap();
        assert_eq!((text.as_str(), log.as_str(), pid.get().unwrap().as_str()), ("ab", "first\nx", "12"));
    }

    #[tokio::test]
    async fn a_connection_that_ends_inside_a_piece_is_broken_however_often_it_is_asked() {
        let pieces = vec![stdout("a"), LogOutput::Console { message: Bytes::from_static(b"\x01\0") }];
        let (mut pump, _out, _err) = Pump::start(output(pieces), None);
        assert!(pump.ended().await.is_err());
        assert!(pump.ended().await.is_err());
    }

    #[tokio::test]
    async fn output_that_nobody_reads_stops_nothing() {
        let long = Bytes::from(vec![b'x'; 3 << 20]);
        let (mut pump, out, _err) = Pump::start(output(vec![LogOutput::StdOut { message: long }]), None);
        drop(out);
        pump.ended().await.unwrap();
    }
}
