//! The error that operations give: what the operator does next ([`ErrorKind`]), what happened, and its causes.

use std::error::Error as StdError;
use std::fmt;

use crate::component::ComponentError;
use crate::provider::ProviderError;
use crate::repository::RepositoryError;
use crate::seal::SealError;
use crate::state::StateError;
use crate::storage::StoreError;

/// What the operator does next. A new kind needs a decision record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Call again with other arguments.
    Usage,
    /// Mend the configuration.
    Config,
    /// Name something that is there.
    NotFound,
    /// There is no repository: name another place, or `init`.
    NoRepository,
    /// Wait for the other operation, or look what holds it.
    Busy,
    /// Give the right password or key.
    Credentials,
    /// The store, a service or a network does not answer: look there, then again.
    Unavailable,
    /// A dump or load command did not do its work: look at its output.
    Source,
    /// Another version, edition or format: the operation cannot be done with this.
    Incompatible,
    /// Data is damaged: `verify` tells what.
    Damaged,
    /// Done in part.
    Incomplete,
    /// Interrupted by the operator.
    Cancelled,
    /// A bug or a local failure: report it.
    Internal,
}

/// Why an operation did not do what it was asked.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error without a cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// An error with its cause.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// What the operator does next.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The error and its causes, one text each.
    pub fn chain(&self) -> Vec<String> {
        let mut texts = vec![self.to_string()];
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Transparent errors repeat their cause.
            if texts.last() != Some(&text) {
                texts.push(text);
            }
            cause = error.source();
        }
        texts
    }

    /// The same error, told as the cause of `message`.
    pub fn context(self, message: impl Into<String>) -> Self {
        let kind = self.kind;
        Self::with_source(kind, message, self)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Gives an error of a module its kind; its own text becomes the message.
fn told<E: StdError + Send + Sync + 'static>(kind: ErrorKind, error: E) -> Error {
    let message = error.to_string();
    match take_source(&error) {
        Some(text) => Error::with_source(kind, message, text),
        None => Error::new(kind, message),
    }
}

/// The causes of an error as one chain of texts; the typed error itself is not kept.
fn take_source(error: &dyn StdError) -> Option<Box<dyn StdError + Send + Sync>> {
    let mut texts = Vec::new();
    let mut cause = error.source();
    while let Some(next) = cause {
        texts.push(next.to_string());
        cause = next.source();
    }
    texts.into_iter().rev().fold(None, |source, text| {
        Some(Box::new(Error { kind: ErrorKind::Internal, message: text, source }) as Box<dyn StdError + Send + Sync>)
    })
}

impl From<RepositoryError> for Error {
    fn from(error: RepositoryError) -> Self {
        use RepositoryError as R;
        let kind = match &error {
            R::NotFound { .. } | R::Foreign { .. } => ErrorKind::NoRepository,
            R::Exists { .. } | R::NotEmpty { .. } => ErrorKind::Usage,
            R::Locked { .. } => ErrorKind::Credentials,
            R::Unsupported { source: SealError::Role { .. } | SealError::NoKey { .. }, .. } => ErrorKind::Credentials,
            R::Unsupported { .. } | R::NoDeletion { .. } => ErrorKind::Incompatible,
            R::Damaged(_) | R::MissingChunk { .. } | R::NeededChunksMissing { .. } => ErrorKind::Damaged,
            R::SnapshotName { .. } => ErrorKind::NotFound,
            R::Stage { .. } | R::Cache(_) | R::Late { .. } => ErrorKind::Unavailable,
            R::Contended { .. } | R::KeysChanged { .. } => ErrorKind::Busy,
            R::Store(error) => kind_of_store(error),
        };
        told(kind, error)
    }
}

fn kind_of_store(error: &StoreError) -> ErrorKind {
    match error {
        StoreError::NotFound { .. } => ErrorKind::NoRepository,
        StoreError::AlreadyExists { .. } | StoreError::TooShort { .. } => ErrorKind::Damaged,
        _ => ErrorKind::Unavailable,
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        told(kind_of_store(&error), error)
    }
}

impl From<ProviderError> for Error {
    fn from(error: ProviderError) -> Self {
        let kind = match &error {
            ProviderError::NoSuchService { .. } => ErrorKind::Config,
            _ => ErrorKind::Unavailable,
        };
        told(kind, error)
    }
}

impl From<ComponentError> for Error {
    fn from(error: ComponentError) -> Self {
        let kind = match &error {
            ComponentError::NotConfigured { .. } => ErrorKind::Config,
            ComponentError::Misfit { .. } => ErrorKind::Incompatible,
            ComponentError::Query { .. } | ComponentError::NotReady { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::Source,
        };
        told(kind, error)
    }
}

impl From<StateError> for Error {
    fn from(error: StateError) -> Self {
        let kind = match &error {
            StateError::Busy { .. } => ErrorKind::Busy,
            _ => ErrorKind::Unavailable,
        };
        told(kind, error)
    }
}
