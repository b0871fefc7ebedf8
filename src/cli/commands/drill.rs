//! `drill`: a restore that nobody needs, timed.

use std::sync::Arc;

use serde_json::{Value, json};

use super::report::outcome;
use super::restore::component_document;
use super::verify::finding_text;
use crate::cli::args::Drill as DrillArgs;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render;
use crate::cli::session::{Session, newest};
use crate::format::report::Step;
use crate::ops::drill::{Drill, DrillOptions, DrillTarget, Drilled, ELAPSED_MS, RECOVER, millis, plan};
use crate::ops::resume::reach_by_config;
use crate::provider::Reach;
use crate::repository::Repository;
use crate::repository::snapshots::Snapshot;

/// `drill`
pub async fn run(session: &Session, args: DrillArgs) -> Result<Exit, Failure> {
    let context = &session.context;
    let drill = Drill::begin(context);
    let options = options(session, &args)?;
    let stage = drill.stage(context, "open", "repository");
    let repository = session.open().await?;
    drill.ended(context, stage);
    let stage = drill.stage(context, "choose", &args.id);
    let snapshot = choose(session, &repository, &args).await?;
    drill.ended(context, stage);
    let (id, target) = (snapshot.id, options.target.told());
    if args.dry_run {
        let lines = plan(context, &repository, &snapshot, &options).await?;
        let document = json!({ "dry_run": true, "snapshot": id, "target": target, "plan": lines });
        session.out.result(&document, || lines.join("\n") + "\n")?;
        return Ok(Exit::Done);
    }
    let objective = options.objective;
    let drilled = drill.run(context, &repository, snapshot, options).await?;
    let exit = exit(&drilled);
    let document = document(&drilled, &target, objective.map(millis));
    session.out.done(exit, &document, || text(&drilled, &target, objective.map(millis)))
}

fn options(session: &Session, args: &DrillArgs) -> Result<DrillOptions, Failure> {
    let target = match &args.target_config {
        None => DrillTarget::Files(args.scratch.clone().unwrap_or_else(std::env::temp_dir)),
        Some(file) => match reach_by_config(file)? {
            Reach::Bespoke(provider, path) => DrillTarget::Deployment(provider, path),
            Reach::Docker(_) => return Err(Failure::usage("a configuration file describes no Compose project")),
        },
    };
    let live = match &target {
        DrillTarget::Files(_) => None,
        DrillTarget::Deployment(..) => session.settings.config()?.map(|file| file.config.clone()),
    };
    Ok(DrillOptions { target, fast: args.fast, force: args.force, wait: args.wait, objective: args.rto, live })
}

async fn choose(session: &Session, repository: &Arc<Repository>, args: &DrillArgs) -> Result<Snapshot, Failure> {
    let deployment = args.deployment.clone().or_else(|| session.settings.deployment_name());
    let Some(at) = args.at else {
        return session.snapshot(repository, &args.id, deployment.as_deref()).await;
    };
    if args.id != "latest" {
        return Err(Failure::usage("`--at` and an id exclude each other"));
    }
    let (snapshots, _) = session.snapshots(repository).await?;
    newest(snapshots, deployment.as_deref(), |snapshot| snapshot.manifest.created_at <= at)
}

fn exit(drilled: &Drilled) -> Exit {
    if !drilled.findings.is_empty() {
        return Exit::Damage;
    }
    if drilled.is_incomplete() || drilled.cleaned == Some(false) {
        return Exit::Incomplete;
    }
    if drilled.objective_met == Some(false) { Exit::Objective } else { Exit::Done }
}

fn elapsed_ms(step: &Step) -> u64 {
    u64::try_from(step.end.duration_since(step.start).as_millis()).unwrap_or(0)
}

fn document(drilled: &Drilled, target: &str, rto_ms: Option<u64>) -> Value {
    let stage = |step: &Step| {
        json!({
            "action": step.action,
            "target": step.target,
            "start": step.start,
            "elapsed_ms": elapsed_ms(step),
            "outcome": step.outcome,
            "bytes": step.numbers.get("bytes"),
        })
    };
    let components = drilled.components.iter().map(component_document);
    json!({
        "snapshot": drilled.snapshot,
        "target": target,
        (ELAPSED_MS): millis(drilled.elapsed),
        "rto_ms": rto_ms,
        "rto_met": drilled.objective_met,
        "stages": drilled.steps.iter().map(stage).collect::<Vec<_>>(),
        "components": components.collect::<Vec<_>>(),
        "findings": drilled.findings,
        "cleaned": drilled.cleaned,
        "report": drilled.report,
    })
}

fn text(drilled: &Drilled, target: &str, rto_ms: Option<u64>) -> String {
    let findings: String = drilled.findings.iter().map(finding_text).collect();
    let rows: Vec<Vec<String>> = drilled
        .steps
        .iter()
        .filter(|step| step.action != RECOVER)
        .map(|step| {
            let bytes = step.numbers.get("bytes").map(|bytes| render::size(*bytes)).unwrap_or_default();
            let ended = outcome(step.outcome).to_owned();
            vec![step.action.clone(), step.target.clone(), render::millis(elapsed_ms(step)), bytes, ended]
        })
        .collect();
    let table = render::table(&["STAGE", "OF", "TOOK", "BYTES", "OUTCOME"], &[2, 3], &rows);
    let notes = drilled
        .components
        .iter()
        .flat_map(|component| component.notes.iter().chain(&component.problems).map(move |note| (component, note)))
        .map(|(component, note)| format!("{}: {note}\n", component.name));
    let verdict = match (drilled.findings.is_empty(), drilled.counts_match(), drilled.is_incomplete()) {
        (false, _, _) => "snapshot cannot be restored: damage",
        (true, false, _) => "restored, and counts DIFFER from those of the snapshot",
        (true, true, true) => "restored, and not as a whole",
        (true, true, false) => "restored and checked",
    };
    let objective = match (drilled.objective_met, rto_ms) {
        (Some(true), Some(rto)) => format!("within the objective of {}\n", render::millis(rto)),
        (Some(false), Some(rto)) => format!("OBJECTIVE MISSED: not recovered within {}\n", render::millis(rto)),
        (_, _) => String::new(),
    };
    format!(
        "{findings}{table}{}{verdict}: {} into {target} in {}\n{objective}",
        notes.collect::<String>(),
        drilled.snapshot.short(),
        render::millis(millis(drilled.elapsed))
    )
}
