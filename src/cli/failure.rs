//! An error on its way to the operator: what happened, and what to type next.

use crate::error::{Error, ErrorKind};
use crate::provider::config::ConfigError;
use crate::provider::secret::SecretError;
use crate::repository::RepositoryError;
use crate::state::StateError;
use crate::storage::StoreError;

use super::hints;

/// An error and the hint that goes with it.
#[derive(Debug)]
pub struct Failure {
    /// What happened.
    pub error: Error,
    hint: Option<String>,
}

impl Failure {
    /// An error found here.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error::new(kind, message).into()
    }

    /// Wrong arguments.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// Something that cannot be done with this.
    pub fn incompatible(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Incompatible, message)
    }

    /// Something that is planned.
    pub fn not_built(what: &str) -> Self {
        Self::incompatible(format!("{what} is not built yet in this version"))
    }

    /// The system refused something.
    pub fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        Error::with_source(ErrorKind::Internal, message, source).into()
    }

    /// The same with this hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to type next, if that is known.
    pub fn hint_text(&self) -> Option<String> {
        self.hint.clone().or_else(|| hints::of(&self.error))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, hint: None }
    }
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        Error::from(error).into()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Error::from(error).into()
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Error::from(error).into()
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        with_causes(ErrorKind::Config, error)
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        with_causes(ErrorKind::Credentials, error)
    }
}

/// Gives an error of another module its kind, with its text as the message and its cause as the cause.
fn with_causes(kind: ErrorKind, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    let message = error.to_string();
    // `chain` leaves out a cause that repeats the message.
    Error::with_source(kind, message, error).into()
}
