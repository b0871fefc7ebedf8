//! `export`: a snapshot becomes an archive that the predecessor restores.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::archive_args::Export;
use crate::cli::archives::{archive_path, backup_id, public_key};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render;
use crate::cli::session::Session;
use crate::error::ErrorKind;
use crate::ops::export::{ExportOptions, Exported, export};

/// `export`
pub async fn run(session: &Session, args: Export) -> Result<Exit, Failure> {
    let recipient = args.encrypt_key.as_deref().map(public_key).transpose()?;
    let repository = session.open().await?;
    let snapshot = session.snapshot(&repository, &args.id, session.settings.deployment_name().as_deref()).await?;
    let backup_id = backup_id(snapshot.manifest.created_at);
    let folder = session.settings.backup_dir();
    if args.output.is_none() {
        make_folder(&folder)?;
    }
    let path = archive_path(args.output.as_deref(), folder, &backup_id, recipient.is_some());
    let options =
        ExportOptions { path, backup_id, database: database(&args.database)?, recipient, exclude: args.exclude };
    let exported = export(&session.context, &repository, &snapshot, options).await?;
    tell(session, &exported)
}

/// Tells what was exported.
pub fn tell(session: &Session, exported: &Exported) -> Result<Exit, Failure> {
    for name in &exported.left_out {
        session.context.warn(format!("`{name}` is not in the archive: the predecessor has no place for it"));
    }
    session.out.done(Exit::Done, &document(exported), || text(exported))
}

/// The folder of backups, made if it is not there.
pub fn make_folder(folder: &PathBuf) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|error| {
        let text = format!("the folder of backups `{}` cannot be made", folder.display());
        let error = crate::error::Error::with_source(ErrorKind::Unavailable, text, error);
        Failure::from(error).hint("name another one: --backup-dir DIR")
    })
}

/// The name of a database, which becomes that of a file.
pub fn database(name: &str) -> Result<String, Failure> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(fits) {
        return Err(Failure::usage("the name of the database is not one of Neo4j's: letters, digits, `.`, `-`"));
    }
    Ok(name.to_owned())
}

fn document(exported: &Exported) -> Value {
    json!({
        "archive": exported.path,
        "bytes": exported.bytes,
        "sha256": exported.sha256,
        "components": exported.components,
        "left_out": exported.left_out,
        "report": exported.report,
    })
}

fn text(exported: &Exported) -> String {
    format!(
        "archive {} of {}, {}\nSHA-256 {}\n",
        exported.path.display(),
        exported.components.join(" and "),
        render::size(exported.bytes),
        exported.sha256
    )
}
