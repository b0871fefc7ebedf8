//! `restore`: puts a snapshot back, after showing what that does.

use std::io::Write;
use std::sync::Arc;

use serde_json::json;

use super::create::{excluded, stay};
use crate::cli::args::Restore;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::legacy::refuse_archive;
use crate::cli::render;
use crate::cli::session::{Session, interactive, newest};
use crate::cli::target;
use crate::error::ErrorKind;
use crate::ops::restore::{RestoreOptions, RestorePlan, Restored, RestoredComponent, Target, execute, plan};
use crate::repository::Repository;
use crate::repository::snapshots::Snapshot;

/// `restore`
pub async fn run(session: &Session, args: Restore) -> Result<Exit, Failure> {
    args.legacy.check()?;
    refuse_archive(&args.snapshot_id)?;
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
    let repository = session.open().await?;
    let snapshot = choose(session, &repository, &args, &target).await?;
    let id = snapshot.id;
    let options = RestoreOptions {
        components: args.component.clone(),
        exclude: excluded(&args.exclude, args.legacy.exclude_taskmanager),
        fast: args.fast,
        no_safety_snapshot: args.no_safety_snapshot,
        force: args.force,
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
    let restored = execute(&session.context, &repository, plan).await?;
    show(session, id, &restored)
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
    let components: Vec<_> = restored
        .components
        .iter()
        .map(|component| {
            json!({
                "name": component.name,
                "bytes": component.bytes,
                "files": component.files,
                "counts_match": component.counts_match,
                "notes": component.notes,
            })
        })
        .collect();
    let document = json!({
        "snapshot": id,
        "components": components,
        "safety_snapshot": restored.safety_snapshot,
        "report": restored.report,
    });
    let differs = restored.components.iter().any(|component| component.counts_match == Some(false));
    let exit = if differs { Exit::Incomplete } else { Exit::Done };
    session.out.done(exit, &document, || {
        let lines: String = restored.components.iter().map(component_text).collect();
        let safety = restored.safety_snapshot.map_or(String::new(), |id| {
            format!("what was there before is snapshot {id}; to go back: infrahub-backup restore {}\n", id.short())
        });
        format!("restored snapshot {id}\n{lines}{safety}")
    })
}

fn component_text(component: &RestoredComponent) -> String {
    let files = component.files.map_or(String::new(), |files| format!(", {files} files"));
    let counts = match component.counts_match {
        Some(true) => ", counts are those of the snapshot",
        Some(false) => ", counts DIFFER from those of the snapshot",
        None => "",
    };
    let notes: String = component.notes.iter().map(|note| format!("    {note}\n")).collect();
    format!("  {}: {}{files}{counts}\n{notes}", component.name, render::size(component.bytes))
}
