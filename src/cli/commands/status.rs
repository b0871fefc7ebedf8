//! `status`: whether good snapshots keep coming.

use std::time::Duration;

use serde::Serialize;

use crate::cli::args::Status as StatusArgs;
use crate::cli::commands::report::outcome;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::whole_file::{self, There};
use crate::cli::{prometheus, render};
use crate::error::Error;
use crate::id::ObjectId;
use crate::ops::drill::millis;
use crate::ops::status::{DeploymentStatus, GROWTH_DAYS, Status, status};

/// Metrics are collected by somebody else.
const METRICS_MODE: u32 = 0o644;

/// What `status --json` prints.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    status: &'a Status,
    /// The objective, in seconds, if there is one.
    rpo_seconds: Option<u64>,
    /// Deployments that miss it.
    missed: Vec<&'a str>,
    /// The recovery time objective, in milliseconds, if there is one.
    rto_ms: Option<u64>,
    /// Deployments that miss that.
    rto_missed: Vec<&'a str>,
    /// Snapshots and reports that are damaged.
    damaged: usize,
}

/// `status`
pub async fn run(session: &Session, args: &StatusArgs) -> Result<Exit, Failure> {
    let repository = session.open().await?;
    let (snapshots, damaged_snapshots) = session.snapshots(&repository).await?;
    let (reports, damaged_reports) = session.context.cancel.or(repository.reports()).await?.map_err(Error::from)?;
    damaged_reports.iter().for_each(|damage| session.context.warn(damage.to_string()));
    let mut status = status(&snapshots, &reports, session.context.outside.clock.now());
    if let Some(name) = &args.deployment {
        status.deployments.retain(|deployment| deployment.deployment == *name);
        if status.deployments.is_empty() {
            status.deployments.push(DeploymentStatus::without_snapshots(name));
        }
    }
    let missed_rpo = missed(&status, args.rpo, DeploymentStatus::misses);
    let missed_rto = missed(&status, args.rto, DeploymentStatus::misses_recovery);
    if let Some(path) = &args.prometheus {
        // Replaced whole: who collects it never sees a half of it.
        whole_file::write(
            path,
            prometheus::text(&status, args.rpo, args.rto).as_bytes(),
            METRICS_MODE,
            There::Replaced,
        )
        .map_err(|error| Failure::io(format!("`{}` cannot be written", path.display()), error))?;
    }
    let damaged = damaged_snapshots + damaged_reports.len();
    let exit = match (damaged, missed_rpo.is_empty() && missed_rto.is_empty()) {
        (0, true) => Exit::Done,
        (0, false) => Exit::Objective,
        _ => Exit::Damage,
    };
    let document = Document {
        status: &status,
        rpo_seconds: args.rpo.map(|rpo| rpo.as_secs()),
        missed: missed_rpo.clone(),
        rto_ms: args.rto.map(millis),
        rto_missed: missed_rto.clone(),
        damaged,
    };
    session.out.done(exit, &document, || {
        text(&status)
            + &missed_text(args.rpo, &missed_rpo, "no good snapshot within")
            + &missed_text(args.rto, &missed_rto, "the last drill did not end well within")
    })
}

/// Deployments that miss the objective. A repository without any snapshot misses it, too.
fn missed(
    status: &Status,
    objective: Option<Duration>,
    misses: impl Fn(&DeploymentStatus, Duration) -> bool,
) -> Vec<&str> {
    let Some(objective) = objective else { return vec![] };
    if status.deployments.is_empty() {
        return vec!["(no deployment has a snapshot)"];
    }
    let late = status.deployments.iter().filter(|deployment| misses(deployment, objective));
    late.map(|deployment| deployment.deployment.as_str()).collect()
}

fn missed_text(objective: Option<Duration>, missed: &[&str], what: &str) -> String {
    let objective = render::millis(objective.map_or(0, millis));
    missed.iter().map(|name| format!("OBJECTIVE MISSED: {name}: {what} {objective}\n")).collect()
}

fn text(status: &Status) -> String {
    let mut text: String = status.deployments.iter().map(deployment_text).collect();
    if status.deployments.is_empty() {
        text.push_str("there are no snapshots\n");
    }
    text.push_str(&match status.data_verified {
        Some(verified) => format!(
            "data last verified {}, {} findings (report {})\n",
            render::time(verified.at),
            verified.findings,
            verified.report.short()
        ),
        None => "data was never verified: infrahub-backup verify --depth data\n".to_owned(),
    });
    let rows: Vec<Vec<String>> = status
        .operations
        .iter()
        .map(|operation| {
            let last_done = operation.last_done.map_or_else(|| "never".to_owned(), render::time);
            let ended = outcome(operation.outcome).to_owned();
            let report = ObjectId::short(&operation.report);
            vec![operation.operation.clone(), render::time(operation.last), ended, last_done, report]
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&render::table(&["OPERATION", "LAST", "OUTCOME", "LAST DONE", "REPORT"], &[], &rows));
    }
    text
}

fn deployment_text(status: &DeploymentStatus) -> String {
    let newest = match &status.newest_good {
        Some(good) => {
            format!(
                "newest good snapshot {}, {}, {} ago",
                good.id.short(),
                render::time(good.created_at),
                render::span(good.age_seconds)
            )
        }
        None => "no good snapshot".to_owned(),
    };
    let growth = match status.growth.bytes_per_day {
        Some(bytes) => format!("grows by {} a day (last {GROWTH_DAYS} days)", render::size(bytes)),
        None => "no growth is known yet".to_owned(),
    };
    let drill = match &status.last_drill {
        Some(drill) => format!(
            "last drill {}, {}: into {} in {} (report {})",
            render::time(drill.at),
            outcome(drill.outcome),
            drill.target,
            render::millis(drill.elapsed_ms),
            drill.report.short()
        ),
        None => "no drill yet: infrahub-backup drill".to_owned(),
    };
    format!(
        "{}: {newest}\n  {} snapshots, {} of them good; {growth}\n  {drill}\n",
        status.deployment, status.snapshots, status.good_snapshots
    )
}
