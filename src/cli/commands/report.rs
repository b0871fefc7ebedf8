//! `report`: the evidence of operations.

use std::sync::Arc;

use serde_json::json;

use super::documents::ReportDocument;
use super::verify::finding_text;
use crate::cli::args::ReportCommand;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render;
use crate::cli::session::Session;
use crate::error::{Error, ErrorKind};
use crate::format::report::{Outcome, Report, Step};
use crate::id::ObjectId;
use crate::repository::Repository;
use crate::repository::check::reports::check_reports;
use crate::repository::snapshots::by_prefix;

/// `report`, `report list`, `report show`
pub async fn run(session: &Session, command: Option<ReportCommand>) -> Result<Exit, Failure> {
    if let Some(ReportCommand::Export { ids, html, .. }) = &command {
        return super::report_export::run(session, ids, html.as_deref()).await;
    }
    let repository = session.open().await?;
    if let Some(ReportCommand::Verify { head }) = command {
        return verify(session, &repository, &head).await;
    }
    let (reports, damages) = session.context.cancel.or(repository.reports()).await?.map_err(Error::from)?;
    damages.iter().for_each(|damage| session.context.warn(damage.to_string()));
    match command.unwrap_or(ReportCommand::List) {
        ReportCommand::List => {
            let documents: Vec<_> = reports.iter().map(|(id, report)| ReportDocument { id: *id, report }).collect();
            session.out.result(&documents, || list_text(&reports))?;
        }
        ReportCommand::Show { id } => {
            let (id, report) = find(&reports, &id)?;
            session.out.result(&ReportDocument { id: *id, report }, || show_text(id, report))?;
        }
        ReportCommand::Verify { .. } | ReportCommand::Export { .. } => {
            return Err(Failure::new(ErrorKind::Internal, "this command was dispatched twice"));
        }
    }
    Ok(if damages.is_empty() { Exit::Done } else { Exit::Damage })
}

/// `report verify`
async fn verify(session: &Session, repository: &Arc<Repository>, heads: &[ObjectId]) -> Result<Exit, Failure> {
    let heads = heads.iter().copied().collect();
    let checking = check_reports(repository, &session.context.executor, &heads);
    let checked = session.context.cancel.or(checking).await?.map_err(Error::from)?;
    let exit = if checked.findings.is_empty() { Exit::Done } else { Exit::Damage };
    let document = json!({ "reports": checked.reports, "newest": checked.newest, "findings": checked.findings });
    session.out.done(exit, &document, || {
        let findings: String = checked.findings.iter().map(finding_text).collect();
        let newest = match &checked.newest {
            Some(id) => format!("newest report: {id}; later: infrahub-backup report verify --head {id}\n"),
            None => String::new(),
        };
        let verdict = match checked.findings.len() {
            0 => "each is signed and undamaged, and the one before it is there".to_owned(),
            1 => "1 finding of damage".to_owned(),
            many => format!("{many} findings of damage"),
        };
        format!("{findings}checked {} reports: {verdict}\n{newest}", checked.reports)
    })
}

fn find<'a>(reports: &'a [(ObjectId, Report)], text: &str) -> Result<&'a (ObjectId, Report), Failure> {
    let missing = || {
        Failure::new(ErrorKind::NotFound, format!("`{text}` names no report, or more than one"))
            .hint("see what there is: infrahub-backup report list")
    };
    if text == "latest" {
        return reports.last().ok_or_else(missing);
    }
    let id = by_prefix(reports.iter().map(|(id, _)| id), text).map_err(|_| missing())?;
    reports.iter().find(|(found, _)| *found == id).ok_or_else(missing)
}

/// How something ended, in one word.
pub fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Incomplete => "incomplete",
        Outcome::Failed => "failed",
    }
}

fn list_text(reports: &[(ObjectId, Report)]) -> String {
    if reports.is_empty() {
        return "there are no reports\n".to_owned();
    }
    let row = |(id, report): &(ObjectId, Report)| {
        vec![
            id.short(),
            render::time(report.start),
            report.operation.clone(),
            outcome(report.outcome).to_owned(),
            report.deployment.clone().unwrap_or_default(),
            report.snapshots.iter().map(ObjectId::short).collect::<Vec<_>>().join(","),
        ]
    };
    let rows: Vec<_> = reports.iter().map(row).collect();
    render::table(&["ID", "BEGAN", "OPERATION", "OUTCOME", "DEPLOYMENT", "SNAPSHOTS"], &[], &rows)
}

fn show_text(id: &ObjectId, report: &Report) -> String {
    let mut lines = vec![
        format!("report      {id}"),
        format!("operation   {}, {}", report.operation, outcome(report.outcome)),
        format!("began       {}", render::time(report.start)),
        format!("ended       {}", render::time(report.end)),
        format!("by          {} on {}, {}", report.user, report.host, report.tool),
    ];
    lines.extend(report.deployment.iter().map(|name| format!("deployment  {name}")));
    lines.extend(report.snapshots.iter().map(|id| format!("snapshot    {id}")));
    lines.extend(report.error.iter().map(|line| format!("error       {line}")));
    lines.extend(report.plan.iter().map(|line| format!("planned     {line}")));
    report.steps.iter().for_each(|step| lines.extend(step_lines(step)));
    lines.extend(report.findings.iter().map(|finding| format!("damage      {}: {}", finding.object, finding.problem)));
    lines.join("\n") + "\n"
}

fn step_lines(step: &Step) -> Vec<String> {
    let seconds = step.end.duration_since(step.start).as_secs();
    let mut lines =
        vec![format!("step        {} {}, {}, {seconds} s", step.action, step.target, outcome(step.outcome))];
    lines.extend(step.command.iter().map(|command| format!("  command   {command}")));
    lines.extend(step.numbers.iter().map(|(name, number)| format!("  {name} {number}")));
    lines.extend(step.note.iter().map(|note| format!("  note      {note}")));
    lines.extend(step.log.iter().map(|line| format!("  | {line}")));
    lines
}
