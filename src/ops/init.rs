//! Founding a repository.

use super::Context;
use crate::error::Error;
use crate::format::config::{Config, Profiles};
use crate::format::key_file::KeyFile;
use crate::repository::open;
use crate::seal::slot::NewCredential;
use crate::storage::Store;

/// A repository that was founded.
pub struct Initialised {
    /// Its configuration.
    pub config: Config,
    /// The key file to hand out, where one was asked for. The caller keeps it before it says that all is well.
    pub key_file: Option<KeyFile>,
}

/// Founds a repository in an empty place.
pub async fn init(context: &Context, store: &dyn Store, credential: NewCredential) -> Result<Initialised, Error> {
    let (config, key_file) = open::found(store, &context.outside, Profiles::DEFAULT, credential).await?;
    Ok(Initialised { config, key_file })
}
