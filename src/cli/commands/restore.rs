//! `restore`: puts a snapshot back, after showing what that does.

use std::io::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use super::create::{excluded, stay};
use super::import::import;
use crate::cli::archives::{FILES, Scratch, is_archive};
use crate::cli::args::Restore;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::place::{Place, look};
use crate::cli::render;
use crate::cli::session::{Session, interactive, newest};
use crate::cli::settings::Location;
use crate::cli::target;
use crate::error::ErrorKind;
use crate::ops::create::CreateOptions;
use crate::ops::restore::{RestoreOptions, RestorePlan, Restored, RestoredComponent, Target, execute, plan, told};
use crate::repository::Repository;
use crate::repository::snapshots::Snapshot;

/// `restore`
pub async fn run(session: &Session, args: Restore) -> Result<Exit, Failure> {
    check_names(session, &args)?;
    if !args.yes && !args.dry_run && !interactive() {
        return Err(Failure::usage("nobody can be asked whether to restore")
            .hint("see the plan with --dry-run, then say --yes"));
    }
    let target = match &args.to_files {
        Some(folder) => Target::Folder(folder.clone()),
        None => Target::Deployment(target::reach(session).await?),
    };
    if !args.dry_run {
        stay(session, args.legacy.sleep).await?;
    }
    let Found { repository, snapshot, scratch } = find(session, &args, &target).await?;
    let id = snapshot.id;
    let options = RestoreOptions {
        components: args.component.clone(),
        exclude: excluded(&args.exclude, args.legacy.exclude_taskmanager),
        fast: args.fast,
        // One in a repository that is removed in a moment would save nothing.
        no_safety_snapshot: args.no_safety_snapshot || scratch.is_some(),
        force: args.force,
        migrate_format: args.legacy.migrate_format,
        reset_deployment_id: args.legacy.reset_deployment_id,
        wait: args.wait,
    };
    let plan = plan(&session.context, &repository, snapshot, target, options).await?;
    if args.dry_run {
        let document = json!({ "dry_run": true, "snapshot": id, "destroys": plan.destroys(), "plan": plan.lines() });
        session.out.result(&document, || plan.lines().join("\n") + "\n")?;
        return Ok(Exit::Done);
    }
    plan.lines().iter().for_each(|line| session.log.plain(line));
    if !args.yes {
        confirm(session, &plan).await?;
    }
    let mut restored = execute(&session.context, &repository, plan).await?;
    if scratch.is_some() {
        restored.report = None;
    }
    show(session, id, &restored)
}

/// What is restored, and from where.
struct Found {
    repository: Arc<Repository>,
    snapshot: Snapshot,
    /// Where there is no repository: one that lives until the archive in it is restored.
    scratch: Option<Scratch>,
}

/// Refuses names that do not go together.
fn check_names(session: &Session, args: &Restore) -> Result<(), Failure> {
    let legacy = &session.settings.global().legacy;
    if !is_archive(&args.snapshot_id) {
        if legacy.is_tarball() {
            return Err(Failure::usage("`--backend tarball` restores an archive, and none is named").hint(
                "name it: infrahub-backup restore FILE; for a snapshot, leave out --backend and INFRAHUB_BACKEND",
            ));
        }
        return Ok(());
    }
    if args.at.is_some() || legacy.snapshot.is_some() {
        return Err(Failure::usage("an archive and `--at` or `--snapshot` name two things to restore"));
    }
    Ok(())
}

/// The snapshot that was named; an archive becomes one first, and is thereby checked as a whole.
async fn find(session: &Session, args: &Restore, target: &Target) -> Result<Found, Failure> {
    if !is_archive(&args.snapshot_id) {
        let repository = session.open().await?;
        let snapshot = choose(session, &repository, args, target).await?;
        return Ok(Found { repository, snapshot, scratch: None });
    }
    let legacy = &session.settings.global().legacy;
    let place = if legacy.is_tarball() && session.settings.global().repo.is_none() {
        // Buckets and folders hold archives then.
        Place::Empty(Location::Folder(session.settings.backup_dir().join("repository")))
    } else {
        look(&session.settings, &session.context.state).await?
    };
    let there = match place {
        // A dry run changes nothing.
        Place::Repository { store, config } if !args.dry_run => Some(session.open_found(store, &config).await?),
        Place::Repository { .. } => None,
        Place::Empty(location) => {
            if matches!(target, Target::Deployment(_)) {
                let text = "so that what is there now cannot be saved first; to keep one: infrahub-backup init";
                session.context.warn(format!("there is no repository at {location}, {text}"));
            }
            None
        }
    };
    let scratch = if there.is_none() { Some(Scratch::new(session, None).await?) } else { None };
    let (context, repository) = match (&there, &scratch) {
        (Some(repository), _) => (&session.context, repository),
        (None, Some(scratch)) => (&scratch.context, &scratch.repository),
        (None, None) => return Err(Failure::new(ErrorKind::Internal, "there is no repository for the archive")),
    };
    let deployment = match target {
        Target::Deployment(reach) => reach.deployment().name.clone(),
        Target::Folder(_) => session.settings.deployment_name().unwrap_or_else(|| FILES.to_owned()),
    };
    let deployment = args.deployment.clone().unwrap_or(deployment);
    let options = CreateOptions { wait: args.wait, ..CreateOptions::default() };
    let key = args.decrypt_key.as_deref();
    let created = import(session, context, repository, &args.snapshot_id, &deployment, key, options).await?;
    session.context.info(format!("the archive is whole, and is snapshot {}", created.id.short()));
    let snapshot = Snapshot::new(created.id, created.manifest);
    Ok(Found { repository: Arc::clone(repository), snapshot, scratch })
}

async fn choose(
    session: &Session,
    repository: &Arc<Repository>,
    args: &Restore,
    target: &Target,
) -> Result<Snapshot, Failure> {
    let settings = &session.settings;
    let of_target = || match target {
        Target::Deployment(reach) => Some(reach.deployment().name.clone()),
        Target::Folder(_) => settings.deployment_name(),
    };
    let named = args.deployment.clone().or_else(of_target);
    let text = match (&settings.global().legacy.snapshot, args.snapshot_id.as_str()) {
        (Some(old), "latest") => old,
        (Some(old), new) if old != new => return Err(Failure::usage("`--snapshot` and an id name two snapshots")),
        (_, new) => new,
    };
    let Some(at) = args.at else {
        return session.snapshot(repository, text, named.as_deref()).await;
    };
    if text != "latest" {
        return Err(Failure::usage("`--at` and an id exclude each other"));
    }
    let (snapshots, _) = session.snapshots(repository).await?;
    newest(snapshots, named.as_deref(), |snapshot| snapshot.manifest.created_at <= at)
}

/// Asks; only `yes` is yes.
async fn confirm(session: &Session, plan: &RestorePlan) -> Result<(), Failure> {
    let question =
        if plan.destroys() { "This replaces what is there. Restore? (yes/no) " } else { "Restore? (yes/no) " };
    let ask = move || {
        let mut line = String::new();
        std::io::stderr().write_all(question.as_bytes())?;
        std::io::stdin().read_line(&mut line)?;
        Ok(line)
    };
    let answer = session.context.cancel.or(tokio::task::spawn_blocking(ask)).await?;
    let answer = answer.map_err(std::io::Error::other).and_then(|answer| answer);
    let answer = answer.map_err(|source| Failure::io("the answer could not be read", source))?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(Failure::new(ErrorKind::Cancelled, "not restored: the answer was not `yes`"))
    }
}

fn show(session: &Session, id: crate::id::SnapshotId, restored: &Restored) -> Result<Exit, Failure> {
    let components: Vec<_> = restored.components.iter().map(component_document).collect();
    let mut document = json!({
        "snapshot": id,
        "components": components,
        "deployment_id": restored.deployment_id.as_ref().map(|id| json!({ "old": id.old, "new": id.new })),
        "safety_snapshot": restored.safety_snapshot,
        "report": restored.report,
    });
    if let Some(found) = &restored.storage_ids {
        document["storage_ids"] = json!(found);
    }
    let incomplete = restored.components.iter().any(RestoredComponent::is_incomplete);
    let exit = if incomplete { Exit::Incomplete } else { Exit::Done };
    session.out.done(exit, &document, || {
        let lines: String = restored.components.iter().map(component_text).collect();
        let safety = restored.safety_snapshot.map_or(String::new(), |id| {
            format!("what was there before is snapshot {id}; to go back: infrahub-backup restore {}\n", id.short())
        });
        let new_id = restored.deployment_id.as_ref().map_or(String::new(), |id| {
            format!("the deployment id is {} now, and was {}\n", id.new, told(id.old.as_deref()))
        });
        format!("restored snapshot {id}\n{lines}{new_id}{safety}")
    })
}

/// What JSON tells of a component that was restored.
pub(super) fn component_document(component: &RestoredComponent) -> Value {
    json!({
        "name": component.name,
        "bytes": component.bytes,
        "files": component.files,
        "counts_match": component.counts_match,
        "notes": component.notes,
        "problems": component.problems,
    })
}

fn component_text(component: &RestoredComponent) -> String {
    let files = component.files.map_or(String::new(), |files| format!(", {files} files"));
    let counts = match component.counts_match {
        Some(true) => ", counts are those of the snapshot",
        Some(false) => ", counts DIFFER from those of the snapshot",
        None => "",
    };
    let notes = component.notes.iter().chain(&component.problems);
    let notes: String = notes.map(|note| format!("    {note}\n")).collect();
    format!("  {}: {}{files}{counts}\n{notes}", component.name, render::size(component.bytes))
}
