//! What an object service's error means, and how it is told.
//!
//! Holds: the text of an error names no address and no secret. It is made anew from the innermost cause; the chain of
//! errors that the `object_store` crate builds, with the request in it, goes no further than here.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use object_store::client::{HttpError, HttpErrorKind};
use zeroize::Zeroizing;

use super::http::Refusal;

/// Texts that must not be told: keys, tokens, passwords.
#[derive(Clone, Default)]
pub struct Unspeakable(Arc<[Zeroizing<String>]>);

/// Shorter texts are no secrets, and taking them out would garble what is told.
const SECRET_LENGTH_MIN: usize = 4;

impl Unspeakable {
    /// Takes these texts.
    pub fn new(secrets: impl IntoIterator<Item = Zeroizing<String>>) -> Self {
        Self(secrets.into_iter().filter(|secret| secret.len() >= SECRET_LENGTH_MIN).collect())
    }

    /// `text` without any of them.
    pub fn strip(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "[secret]"))
    }
}

impl fmt::Debug for Unspeakable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unspeakable({})", self.0.len())
    }
}

/// What a failed request means.
#[derive(Debug)]
pub enum Meaning {
    /// The same may succeed a moment later.
    MayPass(io::Error),
    /// The service has no room.
    Full,
    /// The service does not let this user do it.
    Denied(io::Error),
    /// Anything else.
    Failed(io::Error),
}

/// What `error` means.
pub fn meaning(error: &object_store::Error, unspeakable: &Unspeakable) -> Meaning {
    let told = |kind: io::ErrorKind, text: &str| io::Error::new(kind, unspeakable.strip(text));
    if let Some(refusal) = find::<Refusal>(error) {
        let text = refusal.to_string();
        return match refusal {
            refusal if refusal.is_full() => Meaning::Full,
            refusal if refusal.may_pass() => Meaning::MayPass(told(io::ErrorKind::ResourceBusy, &text)),
            refusal if refusal.is_denied() => Meaning::Denied(told(io::ErrorKind::PermissionDenied, &text)),
            _ => Meaning::Failed(told(io::ErrorKind::Other, &text)),
        };
    }
    if let Some(broken) = find::<HttpError>(error) {
        let kind = match broken.kind() {
            HttpErrorKind::Connect => io::ErrorKind::NotConnected,
            HttpErrorKind::Timeout => io::ErrorKind::TimedOut,
            HttpErrorKind::Decode => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::ConnectionReset,
        };
        return Meaning::MayPass(told(kind, &http_text(broken)));
    }
    Meaning::Failed(told(io::ErrorKind::Other, &innermost(error).to_string()))
}

/// The first cause of this type.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    causes(error).find_map(<dyn StdError>::downcast_ref::<T>)
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |cause: &&'a (dyn StdError + 'static)| {
        let cause: &'a (dyn StdError + 'static) = *cause;
        cause.source()
    })
}

fn innermost<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    causes(error).last().expect("the chain begins with the error itself")
}

/// What broke, in a few words: what was going on, and the innermost cause.
fn http_text(error: &HttpError) -> String {
    let going_on = match error.kind() {
        HttpErrorKind::Connect => "no connection",
        HttpErrorKind::Timeout => "no answer in time",
        HttpErrorKind::Decode => "the answer ended early",
        _ => "the connection broke",
    };
    format!("{going_on}: {}", innermost(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl StdError + Send + Sync + 'static) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: Box::new(source) }
    }

    fn refused(status: u16, message: &str) -> object_store::Error {
        let refusal = Refusal { status, code: String::new(), message: message.to_owned() };
        generic(HttpError::new(HttpErrorKind::Unknown, refusal))
    }

    #[test]
    fn a_busy_service_may_pass_and_a_full_one_is_full_and_a_denial_stays() {
        let none = Unspeakable::default();
        assert!(matches!(meaning(&refused(503, ""), &none), Meaning::MayPass(_)));
        assert!(matches!(meaning(&refused(507, ""), &none), Meaning::Full));
        assert!(matches!(meaning(&refused(403, ""), &none), Meaning::Denied(_)));
        assert!(matches!(meaning(&refused(400, ""), &none), Meaning::Failed(_)));
    }

    #[test]
    fn a_broken_connection_may_pass_and_tells_the_innermost_cause() {
        let cause = io::Error::new(io::ErrorKind::ConnectionRefused, "refused by the other side");
        let error = generic(HttpError::new(HttpErrorKind::Connect, cause));
        let Meaning::MayPass(told) = meaning(&error, &Unspeakable::default()) else { panic!("{error:?}") };
        assert_eq!(told.to_string(), "no connection: refused by the other side");
    }

    #[test]
    fn a_secret_in_a_message_is_not_told() {
        let unspeakable = Unspeakable::new([Zeroizing::new("KEY-1234".to_owned()), Zeroizing::new(String::new())]);
        let Meaning::Denied(told) = meaning(&refused(403, "KEY-1234 is not known"), &unspeakable) else { panic!() };
        assert_eq!(told.to_string(), "status 403: [secret] is not known");
    }
}
