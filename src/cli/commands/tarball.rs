//! `create --backend tarball`: a backup straight into an archive of the predecessor, for scripts that expect one.
//!
//! The dumps go into a repository that lives as long as the command, below the folder of backups, and from there into the archive:
//! an archive tells the length and hash of a dump before the dump.

use serde_json::json;

use super::create::stay;
use super::export::{make_folder, tell};
use crate::cli::archives::{Scratch, archive_path, backup_id, public_key};
use crate::cli::args::CreateFlags;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::variables::get;
use crate::deployment::ComponentKind;
use crate::error::ErrorKind;
use crate::ops::Level;
use crate::ops::create::{CreateOptions, Source, execute, plan};
use crate::ops::export::{ExportOptions, export};
use crate::repository::snapshots::Snapshot;

/// Makes the archive.
pub async fn create(
    session: &Session,
    source: Source,
    mut options: CreateOptions,
    flags: &CreateFlags,
) -> Result<Exit, Failure> {
    let recipient = flags.legacy.encrypt_key.as_ref().map(|path| public_key(path.as_ref())).transpose()?;
    let left_out = without_place(&source);
    options.exclude.extend(left_out.iter().filter(|name| !options.exclude.contains(name)).cloned().collect::<Vec<_>>());
    let plan = plan(&session.context, source, options).await?;
    plan.lines().iter().for_each(|line| session.context.events.message(Level::Debug, line));
    let folder = session.settings.backup_dir();
    let backup_id = backup_id(session.context.clock().now());
    let path = archive_path(None, folder.clone(), &backup_id, recipient.is_some());
    if flags.dry_run {
        let lines = plan.lines();
        let document = json!({ "dry_run": true, "archive": path, "plan": lines });
        session.out.result(&document, || format!("{}\ninto the archive {}\n", lines.join("\n"), path.display()))?;
        return Ok(Exit::Done);
    }
    if path.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!("`{}` is already there", path.display())));
    }
    make_folder(&folder)?;
    let scratch = Scratch::new(session, Some(&folder)).await?;
    let created = execute(&session.context, &scratch.repository, plan).await?;
    created.warnings.iter().for_each(|warning| session.context.warn(warning));
    if !created.manifest.is_complete() {
        return Err(Failure::new(ErrorKind::Source, "a component is not whole, and an archive has no way to say so"));
    }
    let database = get("INFRAHUB_DB_DATABASE").and_then(|name| name.into_string().ok());
    let database = super::export::database(database.as_deref().unwrap_or("neo4j"))?;
    let snapshot = Snapshot::new(created.id, created.manifest);
    let options = ExportOptions { path, backup_id, database, recipient, exclude: vec![] };
    let mut exported = export(&session.context, &scratch.repository, &snapshot, options).await?;
    // The evidence went with the repository that it was in.
    (exported.report, exported.left_out) = (None, left_out);
    let exit = tell(session, &exported)?;
    stay(session, flags.legacy.sleep).await?;
    Ok(exit)
}

/// Components that an archive has no place for: they need not be dumped.
fn without_place(source: &Source) -> Vec<String> {
    let components = match source {
        Source::Reached(reach) => reach.deployment().components.clone(),
        Source::Files(files) => files.deployment().map(|deployment| deployment.components).unwrap_or_default(),
        Source::Bespoke(_) | Source::Brought(_) | Source::Archive(_) => vec![],
    };
    let lacks = |kind: ComponentKind| matches!(kind, ComponentKind::Artifacts | ComponentKind::Opaque);
    components.into_iter().filter(|component| lacks(component.kind)).map(|component| component.name).collect()
}
