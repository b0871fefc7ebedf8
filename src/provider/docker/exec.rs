//! A command in a container that runs.
//!
//! Holds: the engine cannot end a command that it runs by exec, so each tells its number in the container first, and is
//! ended there by `kill`. Does not: survive a container without `sh`; every image that Infrahub uses has it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::ContainerSummaryStateEnum;

use super::attached::{PID_MARK, Pid, Pump};
use super::engine::Engine;
use super::error::DockerError;
use super::one_off::User;
use super::project;
use crate::provider::exec::END_GRACE;
use crate::provider::exec::place::{Place, Placed, PlacedCommand, PlacedProcess};

/// Room for pieces of output.
const OUTPUT_CAPACITY: usize = 256 << 10;

/// How long the engine may take to know the exit code of a command whose output has ended, and how often it is asked.
const CODE_TIMEOUT: Duration = Duration::from_secs(30);
const CODE_PERIOD: Duration = Duration::from_millis(20);

/// The first container of a service that runs.
#[derive(Debug, Clone)]
pub struct InService {
    pub(super) engine: Arc<Engine>,
    pub(super) project: String,
    pub(super) service: String,
    pub(super) user: User,
}

impl InService {
    async fn container(&self) -> Result<String, DockerError> {
        let containers = project::of_service(&self.engine, &self.project, &self.service).await?;
        let running = containers.into_iter().find(|found| found.state == ContainerSummaryStateEnum::RUNNING);
        running
            .map(|found| found.id)
            .ok_or_else(|| DockerError::NotRunning { project: self.project.clone(), service: self.service.clone() })
    }

    async fn begin(&self, command: PlacedCommand) -> Result<Placed, DockerError> {
        let container = self.container().await?;
        let pid = Pid::default();
        let PlacedCommand { argv, env, cwd, stdin } = command;
        let tell = format!("echo {PID_MARK}$$ >&2; exec \"$@\"");
        let cmd = ["sh", "-c", &tell, "sh"].map(str::to_owned).into_iter().chain(argv).collect();
        let user = match &self.user {
            User::Same => None,
            User::Named(user) => Some(user.clone()),
        };
        let options = CreateExecOptions {
            user,
            attach_stdin: Some(stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            env: Some(env.iter().map(|(name, value)| format!("{name}={}", value.as_str())).collect()),
            cmd: Some(cmd),
            working_dir: cwd.map(|path| path.display().to_string()),
            ..CreateExecOptions::default()
        };
        let what = format!("run a command in service `{}`", self.service);
        let docker = self.engine.docker();
        let exec = self.engine.ask(&what, docker.create_exec(&container, options)).await?.id;
        let start = StartExecOptions { output_capacity: Some(OUTPUT_CAPACITY), ..StartExecOptions::default() };
        let StartExecResults::Attached { output, input } =
            self.engine.ask(&what, docker.start_exec(&exec, Some(start))).await?
        else {
            return Err(DockerError::Answer { about: container, what: "streams" });
        };
        let (pump, stdout, stderr) = Pump::start(output, Some(Arc::clone(&pid)));
        let engine = Arc::clone(&self.engine);
        let process = Box::new(ExecProcess { engine, container, exec, pid, pump, code: None });
        // Without an input there is nothing to keep: the writing half must not hold the connection open.
        Ok(Placed { stdin: stdin.then_some(Box::new(input) as _), stdout, stderr, process })
    }
}

#[async_trait]
impl Place for InService {
    async fn start(&self, command: PlacedCommand) -> io::Result<Placed> {
        self.begin(command).await.map_err(io::Error::other)
    }
}

struct ExecProcess {
    engine: Arc<Engine>,
    container: String,
    exec: String,
    pid: Pid,
    pump: Pump,
    code: Option<i32>,
}

impl ExecProcess {
    /// Its exit code; `None` while it runs.
    async fn code(&self) -> Result<Option<i32>, DockerError> {
        let what = format!("tell how a command in container `{}` ended", self.container);
        let found = self.engine.ask(what, self.engine.docker().inspect_exec(&self.exec)).await?;
        if found.running.unwrap_or(true) {
            return Ok(None);
        }
        let missing = || DockerError::Answer { about: self.container.clone(), what: "exit code" };
        let code = found.exit_code.ok_or_else(missing)?;
        i32::try_from(code).map(Some).map_err(|_| missing())
    }

    async fn known_code(&self) -> io::Result<i32> {
        let since = std::time::Instant::now();
        loop {
            if let Some(code) = self.code().await.map_err(io::Error::other)? {
                return Ok(code);
            }
            if since.elapsed() >= CODE_TIMEOUT {
                let what = "tell the exit code of a command whose output has ended".to_owned();
                return Err(io::Error::other(DockerError::Slow { what, seconds: CODE_TIMEOUT.as_secs() }));
            }
            tokio::time::sleep(CODE_PERIOD).await;
        }
    }

    async fn signal(&self, signal: &str) {
        let Some(pid) = self.pid.get().filter(|pid| !pid.is_empty()) else { return };
        kill(&self.engine, &self.container, pid, signal).await;
    }
}

/// Best effort: a process that is gone cannot be ended, and an engine that is gone took it along.
async fn kill(engine: &Engine, container: &str, pid: &str, signal: &str) {
    let cmd = ["sh", "-c", "kill -\"$1\" \"$2\"", "sh", signal, pid].map(str::to_owned).to_vec();
    let options = CreateExecOptions { cmd: Some(cmd), ..CreateExecOptions::default() };
    let Ok(made) = engine.ask("end a command", engine.docker().create_exec(container, options)).await else { return };
    let start = StartExecOptions { detach: true, ..StartExecOptions::default() };
    let _ = engine.ask("end a command", engine.docker().start_exec(&made.id, Some(start))).await;
}

#[async_trait]
impl PlacedProcess for ExecProcess {
    async fn wait(&mut self) -> io::Result<i32> {
        if let Some(code) = self.code {
            return Ok(code);
        }
        self.pump.ended().await?;
        let code = self.known_code().await?;
        self.code = Some(code);
        Ok(code)
    }

    async fn end(&mut self) {
        if self.code.is_some() {
            return;
        }
        for signal in ["TERM", "KILL"] {
            self.signal(signal).await;
            if tokio::time::timeout(END_GRACE, self.wait()).await.is_ok_and(|ended| ended.is_ok()) {
                return;
            }
        }
    }
}

impl Drop for ExecProcess {
    fn drop(&mut self) {
        let pid = self.pid.get().filter(|pid| !pid.is_empty()).cloned();
        if let (None, Some(pid), Ok(runtime)) = (self.code, pid, tokio::runtime::Handle::try_current()) {
            let (engine, container) = (Arc::clone(&self.engine), self.container.clone());
            runtime.spawn(async move { kill(&engine, &container, &pid, "KILL").await });
        }
    }
}
