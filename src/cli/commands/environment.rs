//! `environment`: which deployment would be backed up.

use serde_json::json;

use crate::cli::args::EnvironmentCommand;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::deployment::Deployment;
use crate::provider::Provider;
use crate::provider::bespoke::BespokeProvider;

/// `environment detect` and `environment list`
pub fn run(session: &Session, command: EnvironmentCommand) -> Result<Exit, Failure> {
    let file = session.settings.deployment()?;
    let provider = BespokeProvider::new(file.config.clone(), &file.path);
    let deployment = provider.deployment();
    match command {
        EnvironmentCommand::Detect => session.out.result(deployment, || text(deployment))?,
        // Two spaces before each name: scripts of the predecessor expect them.
        EnvironmentCommand::List => {
            session.out.result(&json!([deployment.name]), || format!("  {}\n", deployment.name))?
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
