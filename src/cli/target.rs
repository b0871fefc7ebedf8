//! Which deployment a command works on, and how it is reached.
//!
//! Holds: what is named explicitly is used or is an error; nothing else is taken in its place. Order: `--k8s-namespace`,
//! `--project`, a configuration file, and only then the one Infrahub deployment that a Docker engine has.

use std::path::PathBuf;

use super::failure::Failure;
use super::session::Session;
use super::settings::Settings;
use super::variables::get;
use crate::error::Error;
use crate::ops::resume::{reach_by_config, reach_project};
use crate::provider::docker::{DockerVariables, Engine, Given, Places, deployments, places};
use crate::provider::secret::Secret;
use crate::provider::{ProviderError, Reach};

/// Reaches the deployment that the flags, the variables and the configuration file name.
pub async fn reach(session: &Session) -> Result<Reach, Failure> {
    let settings = &session.settings;
    let flags = &settings.global().legacy;
    flags.check_deployment()?;
    if flags.project.is_some() && settings.global().config.is_some() {
        return Err(Failure::usage("`--project` and `--config` name two deployments")
            .hint("give one of them; is INFRAHUB_PROJECT or INFRAHUB_BACKUP_CONFIG set?"));
    }
    if flags.project.is_none()
        && let Some(file) = settings.config()?
    {
        return Ok(reach_by_config(&file.path)?);
    }
    let reaching = async {
        let engine = Engine::find(&where_to_look()?).await.map_err(docker_error)?;
        Ok::<Reach, Failure>(reach_project(&session.context, engine, flags.project.as_deref(), given()).await?)
    };
    session.context.cancel.or(reaching).await?
}

/// Names of all deployments that can be found. An engine that nobody named need not be there.
pub async fn list(session: &Session) -> Result<Vec<String>, Failure> {
    let settings = &session.settings;
    settings.global().legacy.check_deployment()?;
    let mut names: Vec<String> = configured(settings)?.into_iter().collect();
    let places = where_to_look()?;
    match (&places, session.context.cancel.or(Engine::find(&places)).await?) {
        (_, Ok(engine)) => names.extend(deployments(&engine).await.map_err(docker_error)?),
        (Places::Named(_), Err(error)) => return Err(docker_error(error)),
        (Places::Usual(_), Err(error)) => session.context.info(error.to_string()),
    }
    Ok(names)
}

fn configured(settings: &Settings) -> Result<Option<String>, Failure> {
    Ok(settings.config()?.map(|file| file.config.deployment.name.clone()))
}

fn docker_error(error: crate::provider::docker::DockerError) -> Failure {
    Error::from(ProviderError::from(error)).into()
}

fn where_to_look() -> Result<Places, Failure> {
    let text = |name| get(name).map(|value| value.to_string_lossy().into_owned());
    let folder = |name| get(name).map(PathBuf::from);
    let variables = DockerVariables {
        host: text("DOCKER_HOST"),
        tls: get("DOCKER_TLS_VERIFY").is_some(),
        cert_path: folder("DOCKER_CERT_PATH"),
        context: text("DOCKER_CONTEXT"),
        config_folder: folder("DOCKER_CONFIG").or_else(|| folder("HOME").map(|home| home.join(".docker"))),
        runtime_folder: folder("XDG_RUNTIME_DIR"),
    };
    places(&variables).map_err(docker_error)
}

/// What the operator's environment says about databases and artifact store, under Infrahub's own names.
fn given() -> Given {
    let text = |name: &str| get(name).and_then(|value| value.into_string().ok());
    let url = text("PREFECT_SERVER_DATABASE_CONNECTION_URL").or_else(|| text("PREFECT_API_DATABASE_CONNECTION_URL"));
    Given {
        neo4j_database: text("INFRAHUB_DB_DATABASE"),
        neo4j_user: text("INFRAHUB_DB_USERNAME"),
        neo4j_password: text("INFRAHUB_DB_PASSWORD").map(Secret::new),
        postgres_url: url.map(Secret::new),
        artifacts_endpoint: text("INFRAHUB_STORAGE_ENDPOINT_URL"),
    }
}
