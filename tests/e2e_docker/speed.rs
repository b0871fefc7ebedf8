//! How fast streams go out of and into a container, beside the engine's own command line.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use infrahub_backup::component::stream::{ExecDump, ExecLoad};
use infrahub_backup::component::{DumpStream, LoadStream};
use infrahub_backup::deployment::Endpoint;
use infrahub_backup::provider::docker::{DockerProvider, Engine, Given};
use infrahub_backup::provider::exec::CommandSpec;
use infrahub_backup::provider::secret::Masker;

use crate::project::Project;

const BYTES: usize = 256 << 20;
const PIECE: usize = 1 << 18;

/// Times each is tried, the best counts: other work of the machine disturbs some of them.
const ROUNDS: usize = 2;

/// How much of the command line's speed must be reached at the least. On an idle machine it is about all of it; this only
/// notices what is wrong in kind, such as a copy byte by byte.
const RATIO_MIN: f64 = 0.2;

async fn provider(real: &Project) -> DockerProvider {
    let endpoint = Endpoint { host: real.engine().to_owned(), tls: None };
    let engine = Engine::connect(&endpoint).await.expect("the engine answers");
    DockerProvider::open(engine, Some(real.name()), Given::default(), "tests".to_owned())
        .await
        .expect("the project is there")
}

fn command(provider: &DockerProvider, script: &str) -> CommandSpec {
    let mut spec = CommandSpec::new(["sh", "-c", script].map(str::to_owned).to_vec());
    spec.place = Some(Arc::new(provider.in_service("infrahub-server")));
    spec
}

async fn out(provider: &DockerProvider) -> Duration {
    let spec = command(provider, &format!("head -c {BYTES} /dev/zero"));
    let since = Instant::now();
    let mut stream = Box::new(ExecDump::start("x", &spec, &Masker::default()).await.expect("it starts"));
    let mut bytes = 0;
    while let Some(piece) = stream.next().await.expect("it goes on") {
        bytes += piece.len();
    }
    stream.finish().await.expect("it ends well");
    assert_eq!(bytes, BYTES);
    since.elapsed()
}

async fn into(provider: &DockerProvider) -> Duration {
    let spec = command(provider, &format!("test \"$(wc -c)\" = {BYTES}"));
    let piece = Bytes::from(vec![0; PIECE]);
    let since = Instant::now();
    let mut stream = Box::new(ExecLoad::start("x", &spec, &Masker::default()).await.expect("it starts"));
    for _ in 0..BYTES / PIECE {
        stream.write(piece.clone()).await.expect("it goes on");
    }
    stream.finish().await.expect("everything arrived");
    since.elapsed()
}

/// The engine's own command line, with `script` in the container.
fn beside(real: &Project, script: &str, input: Stdio) -> Duration {
    let since = Instant::now();
    let mut docker = Command::new("docker");
    docker.args(["exec", "-i", &real.container("infrahub-server"), "sh", "-c", script]);
    docker.env("DOCKER_HOST", real.engine()).stdin(input).stdout(Stdio::piped());
    let mut child = docker.spawn().expect("docker starts");
    let mut stdout = child.stdout.take().expect("it is piped");
    std::io::copy(&mut stdout, &mut std::io::sink()).expect("it can be read");
    assert!(child.wait().expect("it ends").success());
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::await_holding_lock, reason = "one test at a time has the project")]
async fn a_large_stream_goes_both_ways_at_about_the_speed_of_the_engines_own_command_line() {
    let Some(real) = Project::take("the speed of streams on Docker") else { return };
    let provider = provider(&real).await;
    let (mut ours, mut theirs) = ([Duration::MAX; 2], [Duration::MAX; 2]);
    for _ in 0..ROUNDS {
        ours[0] = ours[0].min(out(&provider).await);
        theirs[0] = theirs[0].min(beside(&real, &format!("head -c {BYTES} /dev/zero"), Stdio::null()));
        ours[1] = ours[1].min(into(&provider).await);
        let zeros = Command::new("head").args(["-c", &BYTES.to_string(), "/dev/zero"]).stdout(Stdio::piped()).spawn();
        let zeros = zeros.expect("head starts").stdout.expect("it is piped");
        theirs[1] = theirs[1].min(beside(&real, "cat >/dev/null", Stdio::from(std::os::fd::OwnedFd::from(zeros))));
    }
    for (way, (ours, theirs)) in ["out", "into"].iter().zip(ours.iter().zip(&theirs)) {
        let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
        eprintln!("256 MiB {way}: {ours:?}, docker exec {theirs:?}, ratio {ratio:.2}");
        assert!(ratio >= RATIO_MIN, "{way}: {ratio}");
    }
}
