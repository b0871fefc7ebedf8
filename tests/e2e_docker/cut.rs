//! A connection to the engine that is closed between two pieces of output, as a proxy or a restarted engine does it.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use infrahub_backup::deployment::Endpoint;
use infrahub_backup::provider::docker::{DockerProvider, Engine, Given, User};
use infrahub_backup::provider::exec::{self, CommandSpec};
use infrahub_backup::provider::secret::Masker;

use crate::project::Project;
use crate::support::wait_until;

/// Bytes before each piece of output: which stream, and its length.
const HEAD_SIZE: usize = 8;

/// Passes everything on to `engine`, but closes what is attached behind its first piece of output.
fn cutting_proxy(at: &Path, engine: PathBuf) {
    let listener = UnixListener::bind(at).expect("a socket");
    std::thread::spawn(move || {
        for client in listener.incoming().filter_map(Result::ok) {
            let Ok(server) = UnixStream::connect(&engine) else { return };
            let attached = Arc::new(AtomicBool::new(false));
            let (from, to) = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
            let seen = Arc::clone(&attached);
            std::thread::spawn(move || pass_requests(from, to, &seen));
            std::thread::spawn(move || pass_answers(server, client, &attached));
        }
    });
}

fn pass_requests(mut from: UnixStream, mut to: UnixStream, attached: &AtomicBool) {
    let mut block = [0; 16 << 10];
    while let Ok(size @ 1..) = from.read(&mut block) {
        if block[..size].windows(8).any(|word| word == b"/attach?") {
            attached.store(true, Ordering::SeqCst);
        }
        if to.write_all(&block[..size]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn pass_answers(mut from: UnixStream, mut to: UnixStream, attached: &AtomicBool) {
    let (mut block, mut behind) = ([0; 16 << 10], Vec::new());
    while let Ok(size @ 1..) = from.read(&mut block) {
        if attached.load(Ordering::SeqCst) {
            behind.extend_from_slice(&block[..size]);
            if let Some(end) = end_of_first_piece(&behind) {
                let rest = size - (behind.len() - end);
                let _ = to.write_all(&block[..rest]);
                let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
                return;
            }
        }
        if to.write_all(&block[..size]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Where the first piece of output ends, behind the answer's own head.
fn end_of_first_piece(bytes: &[u8]) -> Option<usize> {
    let start = bytes.windows(4).position(|word| word == b"\r\n\r\n")? + 4;
    let head = bytes.get(start..start + HEAD_SIZE)?;
    let size = u32::from_be_bytes(head[4..].try_into().expect("four bytes"));
    let end = start + HEAD_SIZE + usize::try_from(size).expect("it fits");
    (end <= bytes.len()).then_some(end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::await_holding_lock, reason = "one test at a time has the project")]
async fn output_that_ended_while_its_container_runs_on_is_not_taken_for_all_of_it() {
    let Some(real) = Project::take("a connection that is closed between two pieces of output") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("engine.sock");
    cutting_proxy(&socket, real.engine().strip_prefix("unix://").expect("a socket").into());
    let endpoint = Endpoint { host: format!("unix://{}", socket.display()), tls: None };
    let engine = Engine::connect(&endpoint).await.expect("the engine answers");
    let owner = "tests".to_owned();
    let provider = DockerProvider::open(engine, Some(real.name()), Given::default(), owner).await;
    let provider = provider.expect("the project is there");

    let script = "echo first; sleep 100; echo second";
    let mut spec = CommandSpec::new(["sh", "-c", script].map(str::to_owned).to_vec());
    spec.place = Some(Arc::new(provider.beside("cache", User::Same, Some(vec![String::new()]))));
    let since = Instant::now();
    let error = exec::run(&spec, &Masker::default()).await.expect_err("half of its output is missing");
    assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
    let source = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(source.contains("it runs on"), "{source}");
    wait_until("the container is removed", || real.ours().is_empty());
}
