//! Founding a repository.

use super::Context;
use crate::error::{Error, ErrorKind};
use crate::format::config::{Config, Profiles};
use crate::format::key_file::KeyFile;
use crate::repository::open;
use crate::seal::slot::NewCredential;
use crate::storage::Store;
use crate::storage::probe::probe;

/// A repository that was founded.
pub struct Initialised {
    /// Its configuration.
    pub config: Config,
    /// The key file to hand out, where one was asked for. The caller keeps it before it says that all is well.
    pub key_file: Option<KeyFile>,
}

/// Tries out a place where a repository shall be founded; whether it has to do with one writer.
///
/// # Errors
/// Names what the store lacks, unless `single_writer` is asked for and one writer can do without it.
pub async fn try_out(context: &Context, store: &dyn Store, single_writer: bool) -> Result<bool, Error> {
    // What lives in this process has no other writer and nothing to try out.
    if !store.capabilities().durable {
        return Ok(single_writer);
    }
    let lacks = context.cancel.or(probe(store, context.entropy())).await??;
    let refused: Vec<String> = lacks
        .iter()
        .filter(|lack| !(single_writer && lack.spares_a_single_writer()))
        .map(ToString::to_string)
        .collect();
    if refused.is_empty() {
        lacks.iter().for_each(|lack| context.warn(format!("{}: {lack}", store.location())));
        return Ok(single_writer);
    }
    let location = store.location();
    Err(Error::new(ErrorKind::Incompatible, format!("{location} cannot keep a repository: {}", refused.join("; "))))
}

/// Founds a repository in an empty place that was tried out.
pub async fn init(
    context: &Context,
    store: &dyn Store,
    single_writer: bool,
    credential: NewCredential,
) -> Result<Initialised, Error> {
    let outside = &context.outside;
    let (config, key_file) = open::found_in(store, outside, Profiles::DEFAULT, single_writer, credential).await?;
    Ok(Initialised { config, key_file })
}

/// What to tell before something is written to a repository that has to do with one writer.
pub fn single_writer_warning(config: &Config) -> Option<&'static str> {
    config.single_writer.then_some(
        "the store of this repository cannot keep several writers apart: nothing else may write to it at the same time",
    )
}
