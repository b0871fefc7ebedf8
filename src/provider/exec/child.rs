//! One running command: a child in its own group, or what a [`Place`](super::place::Place) runs; its standard error read, all of
//! it ended when it must end.
//!
//! Holds: the group is never signalled after its leader was reaped, since the number may belong to somebody else by then.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::place::{Place, PlacedCommand, PlacedProcess, Reading, Writing};
use super::{CommandSpec, DRAIN_GRACE, END_GRACE, ExecError, LOG_LINE_SIZE_MAX, LOG_LINES_MAX, OWN_SECRET_VARIABLES};
use crate::provider::secret::{EnvValue, Masker};

/// Bytes of one line that are looked at: a secret in its longest form that begins within [`LOG_LINE_SIZE_MAX`] is whole,
/// and therefore masked, before the line is cut.
const LINE_BUFFER_SIZE: usize = LOG_LINE_SIZE_MAX + 3 * crate::provider::secret::SECRET_SIZE_MAX;

/// How often an ending child is looked at.
const END_POLL: Duration = Duration::from_millis(10);

/// What runs.
enum Process {
    Child {
        child: Child,
        /// The group's number; none once its leader was reaped.
        group: Option<Pid>,
    },
    Placed(Box<dyn PlacedProcess>),
}

/// Which of its streams are ours; the others are empty or thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Streams {
    /// It reads.
    Input,
    /// It writes.
    Output,
    /// It does both.
    Both,
}

impl Streams {
    fn takes_input(self) -> bool {
        matches!(self, Self::Input | Self::Both)
    }

    fn gives_output(self) -> bool {
        matches!(self, Self::Output | Self::Both)
    }
}

pub(super) struct Running {
    process: Process,
    stdin: Option<Writing>,
    stdout: Option<Reading>,
    command: String,
    started: Instant,
    pub(super) stall_timeout: Duration,
    total_timeout: Duration,
    log: Arc<Mutex<VecDeque<String>>>,
    reader: JoinHandle<()>,
}

impl Running {
    pub(super) async fn spawn(spec: &CommandSpec, masker: &Masker, streams: Streams) -> Result<Self, ExecError> {
        let parts = match &spec.place {
            None => spawn_child(spec, masker, streams).await?,
            Some(place) => start_placed(&**place, spec, masker, streams).await?,
        };
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let reader = tokio::spawn(read_log(parts.stderr, Arc::clone(&log), masker.clone()));
        Ok(Self {
            process: parts.process,
            stdin: parts.stdin,
            stdout: parts.stdout,
            command: spec.display(masker),
            started: parts.started,
            stall_timeout: spec.stall_timeout,
            total_timeout: spec.total_timeout,
            log,
            reader,
        })
    }

    pub(super) fn take_stdout(&mut self) -> Reading {
        self.stdout.take().expect("standard output is asked for and taken once")
    }

    pub(super) fn take_stdin(&mut self) -> Writing {
        self.stdin.take().expect("standard input is asked for and taken once")
    }

    pub(super) fn command(&self) -> &str {
        &self.command
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What is left of the total timeout.
    pub(super) fn remaining(&self) -> Duration {
        self.total_timeout.saturating_sub(self.started.elapsed())
    }

    /// The last lines that it wrote to its standard error, masked.
    pub(super) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Waits for its exit, without a limit. May be dropped and called again.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus, ExecError> {
        let status = match &mut self.process {
            Process::Child { child, group } => child.wait().await.inspect(|_| *group = None),
            // The low byte of a code is all that there ever is of it.
            Process::Placed(process) => process.wait().await.map(|code| ExitStatus::from_raw((code & 0xff) << 8)),
        };
        status.map_err(|source| ExecError::Io { command: self.command.clone(), source })
    }

    /// Lets the last lines of an exited child arrive.
    pub(super) async fn settle(&mut self) {
        // Whoever ends what has ended already waits for nothing: a task that was waited for must not be asked again.
        if !self.reader.is_finished() {
            let _ = tokio::time::timeout(DRAIN_GRACE, &mut self.reader).await;
        }
    }

    /// What its exit status means.
    pub(super) fn check(&self, status: ExitStatus) -> Result<(), ExecError> {
        if status.success() {
            return Ok(());
        }
        let (command, log) = (self.command.clone(), self.log());
        Err(match (status.code(), status.signal()) {
            (Some(code), _) => ExecError::Exit { command, code, log },
            (None, signal) => ExecError::Signal { command, signal: signal.unwrap_or(0), log },
        })
    }

    /// Ends the whole group: asks first, kills after [`END_GRACE`], and returns when the leader is gone.
    pub(super) async fn end(&mut self) {
        match &mut self.process {
            Process::Child { child, group } => {
                if let Some(leader) = group.take() {
                    end_group(leader).await;
                    let _ = child.wait().await;
                }
            }
            Process::Placed(process) => process.end().await,
        }
        self.settle().await;
    }

    /// Ends it because nothing moved; the error to return.
    pub(super) async fn stalled(&mut self, bytes: u64) -> ExecError {
        self.end().await;
        ExecError::Stalled { command: self.command.clone(), waited: self.stall_timeout, bytes, log: self.log() }
    }

    /// Ends it because its time is over; the error to return.
    pub(super) async fn total_timeout(&mut self) -> ExecError {
        self.end().await;
        ExecError::TotalTimeout { command: self.command.clone(), limit: self.total_timeout, log: self.log() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Process::Child { group: Some(group), .. } = &self.process {
            let _ = kill_process_group(*group, Signal::KILL);
        }
        self.reader.abort();
    }
}

/// What starting gives.
struct Parts {
    process: Process,
    stdin: Option<Writing>,
    stdout: Option<Reading>,
    stderr: Reading,
    started: Instant,
}

async fn spawn_child(spec: &CommandSpec, masker: &Masker, streams: Streams) -> Result<Parts, ExecError> {
    let mut words = spec.wrap.iter().chain(&spec.argv);
    let program = words.next().ok_or(ExecError::Empty)?;
    let mut command = Command::new(program);
    let stdin = if streams.takes_input() { Stdio::piped() } else { Stdio::null() };
    let stdout = if streams.gives_output() { Stdio::piped() } else { Stdio::null() };
    command.args(words).stdin(stdin).stdout(stdout).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    if let Some(folder) = &spec.cwd {
        command.current_dir(folder);
    }
    for (name, value) in variables(spec, masker).await? {
        command.env(name, &*value);
    }
    command.env("LC_ALL", "C");
    for name in OWN_SECRET_VARIABLES {
        command.env_remove(name);
    }
    let shown = spec.display(masker);
    let started = Instant::now();
    let mut child = command.spawn().map_err(|source| not_started(source, spec, program, &shown))?;
    let id = child.id().expect("a child that was not waited for has an id");
    let group = i32::try_from(id).ok().and_then(Pid::from_raw);
    let stderr = Box::new(child.stderr.take().expect("standard error is piped"));
    let stdin = child.stdin.take().map(|stdin| Box::new(stdin) as Writing);
    let stdout = child.stdout.take().map(|stdout| Box::new(stdout) as Reading);
    Ok(Parts { process: Process::Child { child, group }, stdin, stdout, stderr, started })
}

async fn start_placed(
    place: &dyn Place,
    spec: &CommandSpec,
    masker: &Masker,
    streams: Streams,
) -> Result<Parts, ExecError> {
    let argv: Vec<String> = spec.wrap.iter().chain(&spec.argv).cloned().collect();
    if argv.is_empty() {
        return Err(ExecError::Empty);
    }
    let mut env = variables(spec, masker).await?;
    // Not plain `C`: Java would take it for ASCII, and a password in its environment for another one.
    env.push(("LC_ALL".to_owned(), Zeroizing::new("C.UTF-8".to_owned())));
    let command = PlacedCommand { argv, env, cwd: spec.cwd.clone(), stdin: streams.takes_input() };
    let started = Instant::now();
    let placed = place.start(command).await;
    let placed = placed.map_err(|source| ExecError::Spawn { command: spec.display(masker), source })?;
    let stdout = streams.gives_output().then_some(placed.stdout);
    let process = Process::Placed(placed.process);
    Ok(Parts { process, stdin: placed.stdin, stdout, stderr: placed.stderr, started })
}

/// Asks the whole group to end, kills it after [`END_GRACE`]; its leader is left to be reaped.
async fn end_group(group: Pid) {
    let _ = kill_process_group(group, Signal::TERM);
    let asked = Instant::now();
    while !has_exited(group) && asked.elapsed() < END_GRACE {
        tokio::time::sleep(END_POLL).await;
    }
    let _ = kill_process_group(group, Signal::KILL);
}

/// The variables of `spec`, secrets read and known to `masker`.
async fn variables(spec: &CommandSpec, masker: &Masker) -> Result<Vec<(String, Zeroizing<String>)>, ExecError> {
    let mut variables = Vec::new();
    for (name, value) in &spec.env {
        let value = match value {
            EnvValue::Plain(text) => text.clone(),
            EnvValue::Secret(source) => {
                let secret = source.read().await.map_err(|source| ExecError::Secret {
                    command: spec.display(masker),
                    variable: name.to_owned(),
                    source: Box::new(source),
                })?;
                masker.add(&secret);
                secret.expose().to_owned()
            }
        };
        variables.push((name.clone(), Zeroizing::new(value)));
    }
    Ok(variables)
}

fn not_started(source: std::io::Error, spec: &CommandSpec, program: &str, shown: &str) -> ExecError {
    let no_folder = spec.cwd.as_ref().is_some_and(|folder| !folder.is_dir());
    if source.kind() == std::io::ErrorKind::NotFound && !no_folder {
        ExecError::NotFound { program: program.to_owned(), command: shown.to_owned() }
    } else {
        ExecError::Spawn { command: shown.to_owned(), source }
    }
}

/// Whether the leader has exited; it is not reaped, so that its number stays taken.
fn has_exited(leader: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(leader), options), Ok(None))
}

/// Reads standard error to its end and keeps its last lines, masked and cut.
async fn read_log(mut stderr: Reading, log: Arc<Mutex<VecDeque<String>>>, masker: Masker) {
    let mut line = Vec::new();
    let mut block = vec![0; 16 << 10];
    while let Ok(size @ 1..) = stderr.read(&mut block).await {
        for &byte in &block[..size] {
            if byte == b'\n' {
                keep(&log, &masker, &line);
                line.clear();
            } else if line.len() < LINE_BUFFER_SIZE {
                line.push(byte);
            }
        }
    }
    if !line.is_empty() {
        keep(&log, &masker, &line);
    }
}

fn keep(log: &Mutex<VecDeque<String>>, masker: &Masker, line: &[u8]) {
    let mut text = masker.mask(&String::from_utf8_lossy(line));
    text.retain(|c| c == '\t' || !c.is_control());
    let mut size = text.len().min(LOG_LINE_SIZE_MAX);
    while !text.is_char_boundary(size) {
        size -= 1;
    }
    text.truncate(size);
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if log.len() == LOG_LINES_MAX {
        log.pop_front();
    }
    log.push_back(text);
}
