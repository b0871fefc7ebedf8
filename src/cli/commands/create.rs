//! `create`: backs up a deployment, or files, as one snapshot.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::documents::{SnapshotDocument, component_status};
use super::{init, tarball};
use crate::cli::archives::FILES;
use crate::cli::args::{Create, CreateFlags, CreateFrom, FromFiles};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::place::{Place, look, missing};
use crate::cli::render;
use crate::cli::session::Session;
use crate::cli::settings::Location;
use crate::cli::target;
use crate::limits::PACK_SIZE_MAX;
use crate::ops::create::{CreateOptions, CreatePlan, Created, FilesSource, Metadata, Source, execute, plan};
use crate::ops::{self, Level};
use crate::repository::Repository;
use crate::repository::pack_writer::Stage;
use crate::repository::snapshots::Snapshot;

/// The component that `--exclude-taskmanager` leaves out.
pub const TASK_MANAGER: &str = "task-manager-db";

/// `create` and `create from-files`
pub async fn run(session: &Session, args: Create) -> Result<Exit, Failure> {
    let Create { from, options: flags } = args;
    let into_archive = session.settings.global().legacy.is_tarball();
    for note in flags.legacy.check(in_bucket(session, &flags)?, into_archive)? {
        session.context.info(note);
    }
    if from.is_some() && flags.legacy.neo4jmetadata.is_some() {
        session.context.info("`--neo4jmetadata` has no effect here: a file holds what it holds");
    }
    if flags.legacy.redact && flags.force {
        session.context.info("`--redact` changes what is stored; what runs stays as it is, with `--force` as well");
    }
    let source = match from {
        Some(CreateFrom::FromFiles(files)) => Source::Files(files_source(session, files)?),
        None => Source::Reached(target::reach(session).await?),
    };
    if into_archive {
        return tarball::create(session, source, options(&flags)?, &flags).await;
    }
    let plan = plan(&session.context, source, options(&flags)?).await?;
    plan.lines().iter().for_each(|line| session.context.events.message(Level::Debug, line));
    if flags.dry_run {
        return show_plan(session, &plan, flags.init).await;
    }
    let repository = open_or_make(session, flags.init).await?;
    ops::init::single_writer_warning(repository.config()).into_iter().for_each(|text| session.context.warn(text));
    let created = execute(&session.context, &repository, plan).await?;
    let exit = show(session, created)?;
    stay(session, flags.legacy.sleep).await?;
    Ok(exit)
}

/// Whether the repository is in a bucket, where that matters to a flag.
fn in_bucket(session: &Session, flags: &CreateFlags) -> Result<bool, Failure> {
    let asked = flags.legacy.s3_upload && !session.settings.global().legacy.is_tarball();
    Ok(asked && matches!(session.settings.location()?, Location::Bucket(_)))
}

fn files_source(session: &Session, files: FromFiles) -> Result<FilesSource, Failure> {
    let FromFiles { neo4j_path, postgres_path, artifacts_path, neo4j_edition, infrahub_version, deployment } = files;
    let paths = [&neo4j_path, &postgres_path, &artifacts_path];
    if paths.iter().all(|path| path.is_none()) {
        return Err(Failure::usage("there is nothing to back up")
            .hint("give --neo4j-path FILE, --postgres-path FILE or --artifacts-path DIR"));
    }
    if paths.iter().filter(|path| path.as_deref() == Some("-".as_ref())).count() > 1 {
        return Err(Failure::usage("standard input can be one dump only"));
    }
    let named = deployment.or_else(|| session.settings.deployment_name());
    Ok(FilesSource {
        deployment: named.unwrap_or_else(|| FILES.to_owned()),
        neo4j: neo4j_path,
        postgres: postgres_path,
        artifacts: artifacts_path,
        neo4j_edition,
        infrahub_version,
    })
}

fn options(flags: &CreateFlags) -> Result<CreateOptions, Failure> {
    Ok(CreateOptions {
        components: flags.component.clone(),
        exclude: excluded(&flags.exclude, flags.legacy.exclude_taskmanager),
        tags: flags.tag.iter().cloned().collect(),
        allow_partial: flags.allow_partial,
        may_fail: vec![],
        allow_raw: flags.allow_raw,
        allow_shrink: flags.allow_shrink,
        dedup_own: flags.dedup_own,
        stage: stage(flags)?,
        redact: flags.legacy.redact,
        wait: flags.wait,
        wait_for_tasks: (!flags.force).then_some(flags.wait_for_tasks),
        neo4j_metadata: flags.legacy.neo4jmetadata.as_deref().and_then(Metadata::named),
    })
}

/// What is left out, with the predecessor's flag.
pub fn excluded(names: &[String], task_manager: bool) -> Vec<String> {
    let more = task_manager && !names.iter().any(|name| name == TASK_MANAGER);
    names.iter().cloned().chain(more.then(|| TASK_MANAGER.to_owned())).collect()
}

fn stage(flags: &CreateFlags) -> Result<Option<Stage>, Failure> {
    let Some(path) = flags.stage.clone() else {
        return Ok(None);
    };
    if !path.is_dir() {
        return Err(Failure::usage(format!("the stage `{}` is not a folder", path.display())));
    }
    match usize::try_from(flags.stage_size / PACK_SIZE_MAX) {
        Ok(packs_max) if packs_max > 0 => Ok(Some(Stage { path, packs_max })),
        Ok(_) | Err(_) => Err(Failure::usage(format!("a stage must hold at least one pack of {PACK_SIZE_MAX} bytes"))),
    }
}

async fn show_plan(session: &Session, plan: &CreatePlan, make: bool) -> Result<Exit, Failure> {
    let (location, there) = match look(&session.settings, &session.context.state).await? {
        Place::Repository { store, .. } => (store.location(), true),
        Place::Empty(location) if make => (location.to_string(), false),
        Place::Empty(location) => return Err(missing(&location)),
    };
    let lines = plan.lines();
    let document = json!({ "dry_run": true, "location": location, "plan": lines });
    session.out.result(&document, || {
        let into = if there { "into the repository in" } else { "into a repository that is made in" };
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        format!("{lines}{into} {location}\n")
    })?;
    Ok(Exit::Done)
}

/// The repository, made where that is allowed and the place is empty.
pub async fn open_or_make(session: &Session, make: bool) -> Result<Arc<Repository>, Failure> {
    let location = match look(&session.settings, &session.context.state).await? {
        Place::Repository { store, config } => return session.open_found(store, &config).await,
        Place::Empty(location) if make => location,
        Place::Empty(location) => return Err(missing(&location)),
    };
    let key = session.context.cancel.or(init::new_key(session, &location, false, true)).await??;
    let made = init::make(session, &location, key, false).await?;
    session.log.plain(&format!("made repository {} in {location}", made.config.repository));
    if let Some(path) = &made.key_file {
        session.log.plain(init::key_advice(path).trim_end());
    }
    Ok(session.context.open(made.store, &made.credential).await?)
}

fn show(session: &Session, created: Created) -> Result<Exit, Failure> {
    let document = created_document(session, &created);
    let Created { id, manifest, stored_bytes, .. } = created;
    let snapshot = Snapshot::new(id, manifest);
    let exit = if snapshot.is_complete() { Exit::Done } else { Exit::Incomplete };
    session.out.done(exit, &document, || text(&snapshot, stored_bytes))
}

/// What came of it, for programs; tells its warnings.
pub fn created_document(session: &Session, created: &Created) -> Value {
    let Created { id, manifest, stored_bytes, report, warnings, storage_ids } = created;
    warnings.iter().for_each(|warning| session.context.warn(warning));
    let snapshot = Snapshot::new(*id, manifest.clone());
    let mut document = serde_json::to_value(SnapshotDocument::new(&snapshot, false)).expect("a document is plain data");
    document["stored_bytes"] = json!(stored_bytes);
    document["report"] = json!(report);
    document["warnings"] = json!(warnings);
    if let Some(found) = storage_ids {
        document["storage_ids"] = json!(found);
    }
    document
}

/// What came of it, for people.
pub fn text(snapshot: &Snapshot, stored_bytes: u64) -> String {
    let manifest = &snapshot.manifest;
    let row = |component: &crate::format::manifest::ComponentRecord| {
        let sizes = &component.sizes;
        vec![
            format!("  {}", component.name),
            component_status(component).to_owned(),
            render::size(sizes.logical_bytes),
            render::size(sizes.added_bytes),
            render::size(sizes.shared_bytes),
        ]
    };
    let rows: Vec<_> = manifest.components.iter().map(row).collect();
    let table = render::table(&["  COMPONENT", "STATUS", "LOGICAL", "ADDED", "SHARED"], &[2, 3, 4], &rows);
    let failures = manifest.components.iter().filter_map(|component| {
        component.failure.as_ref().map(|failure| format!("  {} is missing: {failure}\n", component.name))
    });
    format!(
        "snapshot {} of `{}`, {}\n{table}{}stored {}\n",
        snapshot.id,
        manifest.deployment,
        super::documents::status(manifest.is_complete()),
        failures.collect::<String>(),
        render::size(stored_bytes)
    )
}

/// Stays for a while, so that somebody can come and fetch or bring something.
pub async fn stay(session: &Session, time: Option<Duration>) -> Result<(), Failure> {
    if let Some(time) = time.filter(|time| !time.is_zero()) {
        session.context.info(format!("staying for {} s", time.as_secs()));
        session.context.cancel.or(tokio::time::sleep(time)).await?;
    }
    Ok(())
}
