//! SIGINT and SIGTERM: the first asks to stop cleanly, the second ends the process.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::exit::Exit;
use super::failure::Failure;
use super::hints;
use super::log::Log;

/// From now on signals are sent to `cancel`.
pub fn watch(cancel: watch::Sender<bool>, log: Arc<Log>) -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|source| Failure::io("signals cannot be taken", source));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::spawn(async move {
        next(&mut interrupt, &mut terminate).await;
        log.plain("stopping: what was stopped is started again; once more to end at once");
        // Whoever waited has ended already, and with it the program.
        let _ = cancel.send(true);
        next(&mut interrupt, &mut terminate).await;
        log.plain(&format!("ended at once; to start what is still stopped: {}", hints::AFTER_KILL));
        std::process::exit(i32::from(Exit::Interrupted.code()));
    });
    Ok(())
}

async fn next(interrupt: &mut tokio::signal::unix::Signal, terminate: &mut tokio::signal::unix::Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
