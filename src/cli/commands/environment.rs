//! `environment`: which deployment would be backed up.

use serde_json::json;

use crate::cli::args::EnvironmentCommand;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::target;
use crate::deployment::Deployment;

/// `environment detect` and `environment list`
pub async fn run(session: &Session, command: EnvironmentCommand) -> Result<Exit, Failure> {
    match command {
        EnvironmentCommand::Detect => {
            let reach = target::reach(session).await?;
            session.out.result(reach.deployment(), || text(reach.deployment()))?;
        }
        // Two spaces before each name: scripts of the predecessor expect them.
        EnvironmentCommand::List => {
            let names = target::list(session).await?;
            session.out.result(&json!(names), || names.iter().map(|name| format!("  {name}\n")).collect())?;
        }
    }
    Ok(Exit::Done)
}

fn text(deployment: &Deployment) -> String {
    let components: String = deployment
        .components
        .iter()
        .map(|component| {
            let stopped = match &component.stopped_for_dump[..] {
                [] => "dumped while everything runs".to_owned(),
                names => format!("dumped while these are stopped: {}", names.join(", ")),
            };
            format!("  component {} ({}): {stopped}\n", component.name, component.kind.as_str())
        })
        .collect();
    let services: String = deployment.services.iter().map(|service| format!("  service {service}\n")).collect();
    format!("deployment {}\n  from {}\n{services}{components}", deployment.name, deployment.evidence)
}
