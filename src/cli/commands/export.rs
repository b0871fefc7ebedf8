//! `export`: a snapshot becomes an archive that the predecessor restores.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::archive_args::Export;
use crate::cli::archives::{archive_path, backup_id, public_key};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render;
use crate::cli::session::Session;
use crate::cli::variables::get;
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
        ExportOptions { path, backup_id, database: database(args.database)?, recipient, exclude: args.exclude };
    let exported = export(&session.context, &repository, &snapshot, options).await?;
    tell(session, &exported, None)
}

/// Where an archive was uploaded to.
pub struct Uploaded {
    /// The object, as `restore` takes it.
    pub object: String,
    /// Whether the file is still there.
    pub kept_local: bool,
}

/// Tells what was exported.
pub fn tell(session: &Session, exported: &Exported, uploaded: Option<&Uploaded>) -> Result<Exit, Failure> {
    for name in &exported.left_out {
        session.context.warn(format!("`{name}` is not in the archive: the predecessor has no place for it"));
    }
    session.out.done(Exit::Done, &document(exported, uploaded), || text(exported, uploaded))
}

/// The folder of backups, made if it is not there.
pub fn make_folder(folder: &PathBuf) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|error| {
        let text = format!("the folder of backups `{}` cannot be made", folder.display());
        let error = crate::error::Error::with_source(ErrorKind::Unavailable, text, error);
        Failure::from(error).hint("name another one: --backup-dir DIR")
    })
}

/// The name of the database, which becomes that of a file.
pub fn database(given: Option<String>) -> Result<String, Failure> {
    let configured = || get("INFRAHUB_DB_DATABASE").and_then(|name| name.into_string().ok());
    let name = given.or_else(configured).unwrap_or_else(|| "neo4j".to_owned());
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(fits) {
        return Err(Failure::usage("the name of the database is not one of Neo4j's: letters, digits, `.`, `-`"));
    }
    Ok(name)
}

fn document(exported: &Exported, uploaded: Option<&Uploaded>) -> Value {
    let is_there = uploaded.is_none_or(|uploaded| uploaded.kept_local);
    json!({
        "archive": is_there.then_some(&exported.path),
        "uploaded": uploaded.map(|uploaded| &uploaded.object),
        "bytes": exported.bytes,
        "sha256": exported.sha256,
        "components": exported.components,
        "left_out": exported.left_out,
        "report": exported.report,
    })
}

fn text(exported: &Exported, uploaded: Option<&Uploaded>) -> String {
    let place = uploaded.map_or_else(|| exported.path.display().to_string(), |uploaded| uploaded.object.clone());
    format!(
        "archive {place} of {}, {}\nSHA-256 {}\n",
        exported.components.join(" and "),
        render::size(exported.bytes),
        exported.sha256
    )
}
