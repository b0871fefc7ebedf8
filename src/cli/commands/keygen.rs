//! `keygen`: a pair of keys for encrypted archives.
//!
//! Holds: nothing that is there is replaced unless that was asked for; both files are durable before success is told, and each
//! appears whole.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::archive::keys::PrivateKey;
use crate::cli::archive_args::Keygen;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::whole_file::{self, There};

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

fn write(path: &Path, bytes: &[u8], mode: u32, overwrite: bool) -> Result<(), Failure> {
    let kept = if overwrite { There::Replaced } else { There::Kept };
    whole_file::write(path, bytes, mode, kept).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => there(path),
        _ => Failure::io(format!("`{}` cannot be written", path.display()), error),
    })
}
