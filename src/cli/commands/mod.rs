//! The commands: each reads its arguments, calls one operation, and shows what came of it.

pub mod create;
mod diff;
pub mod documents;
pub mod drill;
pub mod dump;
pub mod environment;
pub mod export;
pub mod forget;
pub mod import;
pub mod init;
pub mod key;
pub mod keygen;
pub mod prune;
pub mod repair;
pub mod replicate;
pub mod report;
mod report_export;
pub mod restore;
pub mod resume;
pub mod snapshots;
pub mod status;
mod tarball;
pub mod taskmanager;
pub mod verify;

use clap_complete::Shell;
use serde_json::json;

use super::exit::Exit;
use super::failure::Failure;
use super::render::{self, Out};
use crate::format::FORMAT_VERSION;
use crate::ops::TOOL;

/// `version`
pub fn version(out: Out) -> Result<Exit, Failure> {
    let document = json!({ "version": env!("CARGO_PKG_VERSION"), "format": FORMAT_VERSION });
    out.result(&document, || format!("{TOOL}\n"))?;
    Ok(Exit::Done)
}

/// `completion`
pub fn completion(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "infrahub-backup", &mut script);
    render::write(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
