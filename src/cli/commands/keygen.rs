//! `keygen`: a pair of keys for encrypted archives.
//!
//! Holds: nothing that is there is replaced unless that was asked for; both files are durable before success is told, and each
//! appears whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::archive::keys::PrivateKey;
use crate::cli::archive_args::Keygen;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;

/// `keygen`
pub fn run(session: &Session, args: &Keygen) -> Result<Exit, Failure> {
    let private_path = args.output.clone();
    let mut name = args.output.clone().into_os_string();
    name.push(".pub");
    let public_path = PathBuf::from(name);
    if !args.overwrite {
        for path in [&private_path, &public_path] {
            if path.symlink_metadata().is_ok() {
                return Err(there(path));
            }
        }
    }
    let private = PrivateKey::generate(session.context.entropy());
    let public = private.public().encode();
    write(&private_path, private.encode().as_bytes(), 0o600, args.overwrite)?;
    write(&public_path, format!("{public}\n").as_bytes(), 0o644, args.overwrite)?;
    session.log.plain(&format!("private key {}", private_path.display()));
    session.log.plain(&format!("public key {}", public_path.display()));
    session.log.plain("Without the private key, archives that are encrypted for the public one cannot be read.");
    let document = json!({ "private_key_file": private_path, "public_key_file": public_path, "public_key": public });
    session.out.result(&document, || format!("{public}\n"))?;
    Ok(Exit::Done)
}

fn there(path: &Path) -> Failure {
    Failure::usage(format!("`{}` is there already, and what it decrypts would be lost with it", path.display()))
        .hint("name another file: keygen -o FILE; if it may go: --overwrite")
}

/// Writes a file beside its name, and gives it its name when it is durable.
fn write(path: &Path, bytes: &[u8], mode: u32, overwrite: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => there(path),
        _ => Failure::io(format!("`{}` cannot be written", path.display()), error),
    };
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(name);
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        if overwrite {
            std::fs::rename(&part, path)?;
        } else {
            // A link never replaces what is there.
            std::fs::hard_link(&part, path)?;
            std::fs::remove_file(&part)?;
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    };
    written().map_err(|error| {
        // The error is about the file; that its rest cannot be removed adds nothing.
        let _ = std::fs::remove_file(&part);
        failed(error)
    })
}
