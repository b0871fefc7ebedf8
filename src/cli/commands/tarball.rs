//! `create --backend tarball`: a backup straight into an archive of the predecessor, for scripts that expect one.
//!
//! The dumps go into a repository that lives as long as the command, below the folder of backups, and from there into the archive:
//! an archive tells the length and hash of a dump before the dump.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::create::stay;
use super::export::{Uploaded, database, make_folder, tell};
use crate::cli::archives::{Scratch, archive_path, backup_id, public_key};
use crate::cli::args::CreateFlags;
use crate::cli::buckets::{self, Bucket};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::deployment::ComponentKind;
use crate::error::ErrorKind;
use crate::id::ObjectName;
use crate::ops::Level;
use crate::ops::create::{CreateOptions, Source, execute, plan};
use crate::ops::export::{ExportOptions, export};
use crate::repository::snapshots::Snapshot;
use crate::storage::remote::RemotePlace;
use crate::storage::retry::{Patience, Retries};
use crate::storage::upload::Upload;
use crate::storage::wait::SystemWait;

/// Makes the archive.
pub async fn create(
    session: &Session,
    source: Source,
    mut options: CreateOptions,
    flags: &CreateFlags,
) -> Result<Exit, Failure> {
    let recipient = flags.legacy.encrypt_key.as_ref().map(|path| public_key(path.as_ref())).transpose()?;
    let database = database(None)?;
    let bucket = bucket(session, flags)?;
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
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let object = ObjectName::parse(file).expect("the name of an archive has digits, letters, `.` and `_`");
    let retries = || {
        Retries::new(Patience::default(), Arc::clone(&session.context.outside.entropy), Arc::<SystemWait>::default())
    };
    let upload = match &bucket {
        Some(bucket) => Some(Upload::new(&bucket.place, &bucket.variables, &object, retries())?),
        None => None,
    };
    if let Some(upload) = &upload {
        // Before anything is stopped.
        session.context.cancel.or(upload.check()).await??;
    }
    make_folder(&folder)?;
    let scratch = Scratch::new(session, Some(&folder)).await?;
    let created = execute(&session.context, &scratch.repository, plan).await?;
    created.warnings.iter().for_each(|warning| session.context.warn(warning));
    if !created.manifest.is_complete() {
        return Err(Failure::new(ErrorKind::Source, "a component is not whole, and an archive has no way to say so"));
    }
    let snapshot = Snapshot::new(created.id, created.manifest);
    let options = ExportOptions { path, backup_id, database, recipient, exclude: vec![] };
    let mut exported = export(&session.context, &scratch.repository, &snapshot, options).await?;
    // The evidence went with the repository that it was in.
    (exported.report, exported.left_out) = (None, left_out);
    let uploaded = match (&bucket, &upload) {
        (Some(bucket), Some(upload)) => {
            send(session, upload, &exported.path, flags.legacy.s3_keep_local).await?;
            let object = object_name(&bucket.place, &object);
            Some(Uploaded { object, kept_local: flags.legacy.s3_keep_local })
        }
        _ => None,
    };
    let exit = tell(session, &exported, uploaded.as_ref())?;
    stay(session, flags.legacy.sleep).await?;
    Ok(exit)
}

/// Where the archive is uploaded to, if it is.
fn bucket(session: &Session, flags: &CreateFlags) -> Result<Option<Bucket>, Failure> {
    if !flags.legacy.s3_upload {
        return Ok(None);
    }
    let bucket = buckets::from_flags(&session.settings.global().legacy, buckets::environment())?;
    let missing = || {
        Failure::usage("`--s3-upload` is given, and no bucket")
            .hint("name the bucket: --s3-bucket BUCKET --s3-prefix PREFIX")
    };
    bucket.ok_or_else(missing).map(Some)
}

/// Uploads the archive, and removes the file unless it is to stay.
async fn send(session: &Session, upload: &Upload<'_>, file: &Path, keep_local: bool) -> Result<(), Failure> {
    session.context.info("uploading the archive");
    let sent = session.context.cancel.or(upload.send(file)).await.and_then(|sent| Ok(sent?));
    sent.map_err(|error| error.context(format!("the archive was not uploaded, and stays in `{}`", file.display())))?;
    if !keep_local && let Err(error) = std::fs::remove_file(file) {
        session.context.warn(format!("`{}` was uploaded and cannot be removed: {error}", file.display()));
    }
    Ok(())
}

/// An object as `restore` takes it.
fn object_name(place: &RemotePlace, object: &ObjectName) -> String {
    let folder = if place.prefix.is_empty() { String::new() } else { format!("{}/", place.prefix) };
    format!("s3://{}/{folder}{object}", place.bucket)
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
