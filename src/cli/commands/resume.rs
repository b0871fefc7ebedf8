//! `resume`: starts what a killed run left stopped.

use serde_json::json;

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::ops::resume::{Resumed, resume};

/// `resume`
pub async fn run(session: &Session, deployment: Option<&str>) -> Result<Exit, Failure> {
    let resumed = resume(&session.context, deployment).await?;
    let document: Vec<_> = resumed
        .iter()
        .map(|run| {
            json!({ "deployment": run.deployment, "operation": run.operation, "started": run.started, "gone": run.gone })
        })
        .collect();
    session.out.done(Exit::Done, &document, || text(&resumed))
}

fn text(resumed: &[Resumed]) -> String {
    if resumed.is_empty() {
        return "no run was left unfinished\n".to_owned();
    }
    let line = |run: &Resumed| {
        let started = if run.started.is_empty() {
            "nothing had to be started".to_owned()
        } else {
            format!("started {}", run.started.join(", "))
        };
        let gone =
            if run.gone.is_empty() { String::new() } else { format!("; not there any more: {}", run.gone.join(", ")) };
        format!("`{}` of deployment `{}`: {started}{gone}\n", run.operation, run.deployment)
    };
    resumed.iter().map(line).collect()
}
