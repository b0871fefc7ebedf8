//! `import`: archives of the predecessor become snapshots.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::create::{created_document, open_or_make, text};
use crate::cli::archive_args::Import;
use crate::cli::archives::{self, FILES, Scratch};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::ops::Context;
use crate::ops::create::{CreateOptions, Created, Source, execute, plan};
use crate::repository::Repository;
use crate::repository::snapshots::Snapshot;

/// `import`
pub async fn run(session: &Session, args: Import) -> Result<Exit, Failure> {
    let deployment = args.deployment.clone().or_else(|| session.settings.deployment_name());
    let deployment = deployment.unwrap_or_else(|| FILES.to_owned());
    let options = CreateOptions {
        components: args.component.clone(),
        exclude: args.exclude.clone(),
        tags: args.tag.iter().cloned().collect(),
        allow_raw: args.allow_raw,
        wait: args.wait,
        ..CreateOptions::default()
    };
    let key = args.decrypt_key.as_deref();
    if args.dry_run {
        return check(session, &args, &deployment, options).await;
    }
    let repository = open_or_make(session, args.init).await?;
    let (mut documents, mut texts): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    for archive in &args.archives {
        let created = import(session, &session.context, &repository, archive, &deployment, key, options.clone()).await;
        // What was imported before is there, and is told.
        let created = match created {
            Ok(created) => created,
            Err(failure) => {
                tell(session, &documents, &texts)?;
                return Err(failure);
            }
        };
        documents.push(created_document(session, &created));
        let stored_bytes = created.stored_bytes;
        texts.push(text(&Snapshot::new(created.id, created.manifest), stored_bytes));
    }
    tell(session, &documents, &texts)?;
    Ok(Exit::Done)
}

fn tell(session: &Session, documents: &[Value], texts: &[String]) -> Result<(), Failure> {
    if !documents.is_empty() {
        session.out.done(Exit::Done, &documents, || texts.concat())?;
    }
    Ok(())
}

/// Makes a snapshot of an archive.
pub async fn import(
    session: &Session,
    context: &Context,
    repository: &Arc<Repository>,
    archive: &str,
    deployment: &str,
    key: Option<&Path>,
    options: CreateOptions,
) -> Result<Created, Failure> {
    let source = archives::open(session, archive, deployment.to_owned(), key).await?;
    // An older archive may be much smaller than what the repository has of later days.
    let options = CreateOptions { allow_shrink: true, ..options };
    let plan = plan(context, Source::Archive(source), options).await?;
    Ok(execute(context, repository, plan).await?)
}

/// Reads and checks archives as `import` does, into a repository that nobody sees.
async fn check(session: &Session, args: &Import, deployment: &str, options: CreateOptions) -> Result<Exit, Failure> {
    let (mut documents, mut texts) = (Vec::new(), Vec::new());
    for archive in &args.archives {
        let scratch = Scratch::new(session, None).await?;
        let key = args.decrypt_key.as_deref();
        let (context, repository) = (&scratch.context, &scratch.repository);
        let created = import(session, context, repository, archive, deployment, key, options.clone()).await?;
        let manifest = &created.manifest;
        let names: Vec<&str> = manifest.components.iter().map(|component| component.name.as_str()).collect();
        texts.push(format!(
            "whole: an archive of {}, made {}; would become a snapshot of `{}`\n",
            names.join(" and "),
            manifest.created_at,
            manifest.deployment
        ));
        documents.push(json!({
            "dry_run": true,
            "created_at": manifest.created_at,
            "deployment": manifest.deployment,
            "components": names,
            "tags": manifest.tags,
        }));
    }
    session.out.result(&documents, || texts.concat())?;
    Ok(Exit::Done)
}
