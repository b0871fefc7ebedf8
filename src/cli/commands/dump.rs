//! `dump`: one component, or one artifact file, to standard output.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use crate::cli::args::Dump;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render::reader_gone;
use crate::cli::session::Session;
use crate::ops::dump::dump;

/// `dump`
pub async fn run(session: &Session, args: &Dump) -> Result<Exit, Failure> {
    if io::stdout().is_terminal() {
        return Err(Failure::usage("a dump is binary and standard output is a terminal")
            .hint(format!("infrahub-backup dump {} {} > FILE", args.id, args.component)));
    }
    let repository = session.open().await?;
    let snapshot = session.snapshot(&repository, &args.id, session.settings.deployment_name().as_deref()).await?;
    let path = args.path.as_deref().map(OsStrExt::as_bytes);
    // Not `io::stdout()`, which looks for the ends of lines and copies what comes behind the last.
    let out = io::stdout().as_fd().try_clone_to_owned();
    let out = out.map_err(|source| Failure::io("standard output could not be opened", source))?;
    let mut out = Watched { out: File::from(out), reader_gone: false };
    let dumped = dump(&session.context, &repository, &snapshot, &args.component, path, &mut out).await;
    let flushed = out.flush();
    if out.reader_gone {
        return Err(reader_gone());
    }
    let bytes = dumped?;
    flushed.map_err(|source| Failure::io("standard output could not be written", source))?;
    session.context.info(format!("{bytes} bytes of `{}` from snapshot {}", args.component, snapshot.id.short()));
    Ok(Exit::Done)
}

/// Standard output that remembers that its reader went away.
struct Watched {
    out: File,
    reader_gone: bool,
}

impl Watched {
    fn watch<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        self.reader_gone |= done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        done
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.out.write(bytes);
        self.watch(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.out.flush();
        self.watch(done)
    }
}
