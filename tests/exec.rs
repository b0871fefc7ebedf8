//! How commands run and end, tried with `sh`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use infrahub_backup::component::stream::{ExecDump, ExecLoad};
use infrahub_backup::component::{ComponentError, DumpStream, ExitOk, LoadStream};
use infrahub_backup::limits::INPUT_BLOCK_SIZE_MAX;
use infrahub_backup::provider::exec::{CommandSpec, ExecError, LOG_LINES_MAX, RUN_OUTPUT_SIZE_MAX, run};
use infrahub_backup::provider::secret::{EnvValue, Masker, SecretSource};

fn sh(script: &str) -> CommandSpec {
    let mut spec = CommandSpec::new(["sh", "-c", script].map(str::to_owned).to_vec());
    spec.total_timeout = Duration::from_secs(30);
    spec.stall_timeout = Duration::from_secs(20);
    spec
}

async fn dump(spec: &CommandSpec) -> Box<ExecDump> {
    Box::new(ExecDump::start("database", spec, &Masker::default()).await.unwrap())
}

async fn load(spec: &CommandSpec) -> Box<ExecLoad> {
    Box::new(ExecLoad::start("database", spec, &Masker::default()).await.unwrap())
}

/// Reads to the end and asks for the verdict.
async fn drain(mut dump: Box<ExecDump>) -> (Vec<u8>, Result<ExitOk, ExecError>) {
    let mut bytes = Vec::new();
    loop {
        match dump.next().await {
            Ok(Some(piece)) => {
                assert!(!piece.is_empty() && piece.len() <= INPUT_BLOCK_SIZE_MAX);
                bytes.extend_from_slice(&piece);
            }
            Ok(None) => return (bytes, dump.finish().await.map_err(exec_error)),
            Err(error) => return (bytes, Err(exec_error(error))),
        }
    }
}

fn exec_error(error: ComponentError) -> ExecError {
    match error {
        ComponentError::Exec { source, .. } => source,
        other => panic!("not an error of a command: {other}"),
    }
}

async fn output(spec: &CommandSpec) -> String {
    String::from_utf8(run(spec, &Masker::default()).await.unwrap().stdout).unwrap()
}

/// Whether a process with this number lives; a zombie does not.
fn lives(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !matches!(status.rsplit(") ").next().and_then(|rest| rest.chars().next()), None | Some('Z'))
}

async fn is_gone_soon(pid: &str) -> bool {
    let since = Instant::now();
    while lives(pid) && since.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    !lives(pid)
}

#[tokio::test]
async fn a_dump_gives_every_byte_and_a_proof() {
    let (bytes, end) = drain(dump(&sh("head -c 1000000 /dev/zero")).await).await;
    assert_eq!((bytes.len(), end.unwrap().bytes), (1_000_000, 1_000_000));
}

#[tokio::test]
async fn a_dump_that_exits_nonzero_after_its_last_byte_gives_no_proof() {
    let (bytes, end) = drain(dump(&sh("printf all; exec >&-; echo 'disk full' >&2; exit 3")).await).await;
    assert_eq!(bytes, b"all");
    let error = end.unwrap_err();
    assert!(matches!(error, ExecError::Exit { code: 3, .. }), "{error:?}");
    assert!(error.to_string().ends_with("exited with 3: disk full"), "{error}");
}

#[tokio::test]
async fn a_dump_killed_half_way_gives_no_proof() {
    let (bytes, end) = drain(dump(&sh("printf half; kill -9 $$; printf rest")).await).await;
    assert_eq!(bytes, b"half");
    assert!(matches!(end, Err(ExecError::Signal { signal: 9, .. })), "{end:?}");
}

#[tokio::test]
async fn a_dump_that_is_not_read_to_its_end_gives_no_proof() {
    let mut dump = dump(&sh("printf one; sleep 60")).await;
    dump.next().await.unwrap();
    let error = exec_error(dump.finish().await.unwrap_err());
    assert!(matches!(error, ExecError::Unread { bytes: 3, .. }), "{error:?}");
}

#[tokio::test]
async fn a_dump_that_moves_no_byte_is_ended_by_the_stall_timeout() {
    let mut spec = sh("printf one; sleep 60");
    spec.stall_timeout = Duration::from_millis(300);
    let (bytes, end) = drain(dump(&spec).await).await;
    assert_eq!(bytes, b"one");
    assert!(matches!(end, Err(ExecError::Stalled { bytes: 3, .. })), "{end:?}");
}

#[tokio::test]
async fn a_dump_that_closed_its_output_but_does_not_exit_is_ended() {
    let mut spec = sh("printf one; exec >&-; sleep 60");
    spec.stall_timeout = Duration::from_millis(300);
    let (_, end) = drain(dump(&spec).await).await;
    assert!(matches!(end, Err(ExecError::Stalled { .. })), "{end:?}");
}

#[tokio::test]
async fn the_stall_timeout_does_not_count_while_the_reader_is_busy() {
    let mut spec = sh("printf one; sleep 0.2; printf two");
    spec.stall_timeout = Duration::from_millis(600);
    let mut dump = dump(&spec).await;
    let first = dump.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    let (rest, end) = drain(dump).await;
    assert_eq!((&first[..], &rest[..], end.unwrap().bytes), (&b"one"[..], &b"two"[..], 6));
}

#[tokio::test]
async fn a_dump_that_never_ends_is_ended_by_the_total_timeout() {
    let mut spec = sh("while :; do echo more; sleep 0.05; done");
    spec.total_timeout = Duration::from_millis(500);
    let (bytes, end) = drain(dump(&spec).await).await;
    assert!(!bytes.is_empty());
    assert!(matches!(end, Err(ExecError::TotalTimeout { .. })), "{end:?}");
}

#[tokio::test]
async fn abort_ends_what_the_command_started_too() {
    let mut dump = dump(&sh("trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000")).await;
    let pid = String::from_utf8(dump.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(lives(pid.trim()));
    dump.abort().await;
    assert!(is_gone_soon(pid.trim()).await);
}

#[tokio::test]
async fn dropping_a_stream_ends_what_the_command_started_too() {
    let mut dump = dump(&sh("sleep 1000 & echo $!; wait")).await;
    let pid = String::from_utf8(dump.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(lives(pid.trim()));
    drop(dump);
    assert!(is_gone_soon(pid.trim()).await);
}

#[tokio::test]
async fn a_flood_on_standard_error_does_not_block_a_dump() {
    let script = "i=0; while [ $i -lt 20000 ]; do echo \"line $i of many\" >&2; i=$((i+1)); done; printf done";
    let (bytes, end) = drain(dump(&sh(script)).await).await;
    let log = end.unwrap().log;
    assert_eq!(bytes, b"done");
    assert_eq!((log.len(), log.last().map(String::as_str)), (LOG_LINES_MAX, Some("line 19999 of many")));
}

#[tokio::test]
async fn a_load_takes_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = sh("cat > taken");
    spec.cwd = Some(folder.path().to_owned());
    let mut load = load(&spec).await;
    for _ in 0..10 {
        load.write(Bytes::from(vec![7; 100_000])).await.unwrap();
    }
    assert_eq!(load.finish().await.unwrap().bytes, 1_000_000);
    assert_eq!(std::fs::read(folder.path().join("taken")).unwrap(), vec![7; 1_000_000]);
}

#[tokio::test]
async fn a_load_that_exits_nonzero_after_the_last_byte_gives_no_proof() {
    let mut load = load(&sh("cat > /dev/null; exit 4")).await;
    load.write(Bytes::from_static(b"all")).await.unwrap();
    let error = exec_error(load.finish().await.unwrap_err());
    assert!(matches!(error, ExecError::Exit { code: 4, .. }), "{error:?}");
}

async fn write_until_error(spec: &CommandSpec) -> ExecError {
    let mut load = load(spec).await;
    loop {
        if let Err(error) = load.write(Bytes::from(vec![0; 100_000])).await {
            return exec_error(error);
        }
    }
}

#[tokio::test]
async fn a_load_that_fails_early_tells_its_exit_code_and_not_the_broken_pipe() {
    let error = write_until_error(&sh("echo 'not a dump' >&2; exit 5")).await;
    assert!(matches!(error, ExecError::Exit { code: 5, .. }), "{error:?}");
}

#[tokio::test]
async fn a_load_that_failed_can_be_aborted_as_one_that_did_not() {
    for (script, stall) in [("exit 9", 20), ("sleep 60", 1)] {
        let mut spec = sh(script);
        spec.stall_timeout = Duration::from_secs(stall);
        let mut load = load(&spec).await;
        while load.write(Bytes::from(vec![0; 1 << 20])).await.is_ok() {}
        // Whoever feeds a load aborts it whatever went wrong, its own end included.
        load.abort().await;
    }
}

#[tokio::test]
async fn a_load_that_exits_with_0_before_it_has_everything_is_an_error() {
    let error = write_until_error(&sh("exit 0")).await;
    assert!(matches!(error, ExecError::BrokenPipe { .. }), "{error:?}");
}

#[tokio::test]
async fn a_load_that_takes_nothing_is_ended_by_the_stall_timeout() {
    let mut spec = sh("sleep 60");
    spec.stall_timeout = Duration::from_millis(300);
    let error = write_until_error(&spec).await;
    assert!(matches!(error, ExecError::Stalled { .. }), "{error:?}");
}

#[tokio::test]
async fn children_speak_the_c_locale_whatever_is_configured() {
    let mut spec = sh("echo $LC_ALL");
    spec.env.push(("LC_ALL".to_owned(), EnvValue::Plain("de_DE.UTF-8".to_owned())));
    assert_eq!(output(&spec).await, "C\n");
}

#[tokio::test]
async fn the_password_of_the_repository_is_not_in_a_childs_environment() {
    let mut spec = sh("env");
    for name in ["INFRAHUB_REPO_PASSWORD", "INFRAHUB_REPO_PASSWORD_FILE", "OTHER"] {
        spec.env.push((name.to_owned(), EnvValue::Plain("given".to_owned())));
    }
    let env = output(&spec).await;
    assert!(env.contains("OTHER=given") && !env.contains("INFRAHUB_REPO"), "{env}");
}

#[tokio::test]
async fn a_secret_reaches_the_child_and_is_masked_in_what_it_says() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2!\n").unwrap();
    let mut spec = sh("[ \"$PASSWORD\" = 'hunter2!' ] && echo \"bad login with $PASSWORD\" >&2; exit 9");
    spec.argv[2] = spec.argv[2].replace("'hunter2!'", "\"$(cat \"$0\")\"");
    spec.argv.push(file.path().display().to_string());
    spec.env.push(("PASSWORD".to_owned(), EnvValue::Secret(SecretSource::File(file.path().to_owned()))));
    let error = run(&spec, &Masker::default()).await.unwrap_err();
    assert!(error.to_string().ends_with("bad login with ***"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_missing_secret_names_its_variable_and_nothing_is_started() {
    let mut spec = sh("true");
    let source = SecretSource::File("/nowhere/password".into());
    spec.env.push(("PASSWORD".to_owned(), EnvValue::Secret(source)));
    let error = run(&spec, &Masker::default()).await.unwrap_err();
    assert!(matches!(&error, ExecError::Secret { variable, .. } if variable == "PASSWORD"), "{error:?}");
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_named() {
    let error = run(&CommandSpec::new(vec!["no-such-program".to_owned()]), &Masker::default()).await.unwrap_err();
    assert!(matches!(&error, ExecError::NotFound { program, .. } if program == "no-such-program"), "{error:?}");
}

#[tokio::test]
async fn a_wrapper_stands_before_the_command() {
    let mut spec = sh("echo $WRAPPED");
    spec.wrap = ["env", "WRAPPED=yes"].map(str::to_owned).to_vec();
    assert_eq!(output(&spec).await, "yes\n");
}

#[tokio::test]
async fn a_command_that_starts_a_service_ends_without_it() {
    let since = Instant::now();
    let pid = output(&sh("sleep 100 & echo $!")).await;
    assert!(since.elapsed() < Duration::from_secs(10));
    assert!(lives(pid.trim()));
    assert!(std::process::Command::new("kill").arg(pid.trim()).status().unwrap().success());
}

#[tokio::test]
async fn a_command_that_says_too_much_is_ended() {
    let error = run(&sh("exec cat /dev/zero"), &Masker::default()).await.unwrap_err();
    assert!(matches!(error, ExecError::TooMuchOutput { limit: RUN_OUTPUT_SIZE_MAX, .. }), "{error:?}");
}

#[tokio::test]
async fn a_command_that_does_not_end_is_ended_by_the_total_timeout() {
    let mut spec = sh("sleep 60");
    spec.total_timeout = Duration::from_millis(300);
    let error = run(&spec, &Masker::default()).await.unwrap_err();
    assert!(matches!(error, ExecError::TotalTimeout { .. }), "{error:?}");
}
