//! The HTTP client under an object service: the usual one, watched.
//!
//! Two things get lost between a service's answer and what the `object_store` crate makes of it: why a request was
//! refused, as a value and not as a text full of a service's inner life; and what a bucket that keeps versions says about
//! an object. Both are caught here.
//!
//! Holds: an error that leaves here carries no address and no header; a refusal carries at most the service's own code
//! and message, shortened. Does not: retry, or keep anything between two requests.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use jiff::Timestamp;
use md5::{Digest, Md5};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};
use tokio::sync::watch;

/// Most bytes of a refusal that are read; services write well under one KiB.
const REFUSAL_SIZE_MAX: usize = 64 << 10;

/// How long a request waits for the others that are to be sent with it.
const GATE_TIME_MAX: Duration = Duration::from_secs(2);

/// Most characters of a service's message that are told.
const MESSAGE_LENGTH_MAX: usize = 300;

/// What a service said beside its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remarks {
    /// A delete only put a marker in front of the object.
    pub delete_marker: bool,
    /// The object may not be removed before this moment, by the service's clock.
    pub retain_until: Option<Timestamp>,
}

tokio::task_local! {
    static REMARKS: RefCell<Remarks>;
}

/// Runs requests, gives their outcome and what the service remarked. Remarks of several requests add up.
pub async fn with_remarks<T>(requests: impl Future<Output = T>) -> (T, Remarks) {
    let told = async {
        let outcome = requests.await;
        (outcome, REMARKS.with(|remarks| *remarks.borrow()))
    };
    REMARKS.scope(RefCell::default(), told).await
}

/// Holds requests back until all of them are ready to be sent.
struct Gate {
    arrived: AtomicUsize,
    expected: usize,
    open: watch::Sender<bool>,
}

impl Gate {
    async fn pass(&self) {
        if self.arrived.fetch_add(1, Ordering::Relaxed) + 1 >= self.expected {
            self.open.send_replace(true);
        }
        let mut open = self.open.subscribe();
        // One that failed before it got here must not keep the others waiting for good.
        let _ = tokio::time::timeout(GATE_TIME_MAX, open.wait_for(|open| *open)).await;
        self.open.send_replace(true);
    }
}

tokio::task_local! {
    static GATE: Arc<Gate>;
}

/// Runs `expected` requests so that all are sent at the same moment: signing them takes longer than a near server takes to
/// answer, and they would meet it one after the other.
pub async fn at_once<T>(expected: usize, requests: impl Future<Output = T>) -> T {
    let gate = Gate { arrived: AtomicUsize::new(0), expected, open: watch::Sender::new(false) };
    GATE.scope(Arc::new(gate), requests).await
}

/// The body of a put, as an extension of its request: from it the client makes the header `Content-MD5`.
#[derive(Debug, Clone)]
pub struct PutBody(pub Bytes);

/// Makes watched clients.
#[derive(Debug, Default)]
pub struct WatchedConnector {
    /// Whether puts carry `Content-MD5`. Buckets with Object Lock ask for it or for a header that the `object_store` crate
    /// does not send; other services sign it, and it must not be added behind their back.
    pub content_md5: bool,
}

impl HttpConnector for WatchedConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched { client, content_md5: self.content_md5 }))
    }
}

/// A watched client.
#[derive(Debug)]
struct Watched {
    client: HttpClient,
    content_md5: bool,
}

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if self.content_md5
            && let Some(PutBody(bytes)) = request.extensions_mut().remove()
        {
            let value = STANDARD.encode(Md5::digest(&bytes));
            request.headers_mut().insert("content-md5", value.try_into().expect("base64 is a header's value"));
        }
        if let Ok(gate) = GATE.try_with(Arc::clone) {
            gate.pass().await;
        }
        let answer = self.client.execute(request).await?;
        match answer.status().as_u16() {
            200..=299 => {
                note(&answer);
                Ok(answer)
            }
            // What these mean depends on the request; the crate knows.
            304 | 412 => Ok(shortened(&read_refusal(answer).await?)),
            // Not there may be the object, and then all is well, or the bucket, or the user.
            404 => {
                let refusal = read_refusal(answer).await?;
                if refusal.is_about_the_object() {
                    Ok(shortened(&refusal))
                } else {
                    Err(HttpError::new(HttpErrorKind::Unknown, refusal))
                }
            }
            409 => {
                let refusal = read_refusal(answer).await?;
                // Another request for the same name is under way: neither taken nor free.
                if matches!(refusal.code.as_str(), "ConditionalRequestConflict" | "OperationAborted") {
                    return Err(HttpError::new(HttpErrorKind::Unknown, refusal));
                }
                Ok(shortened(&refusal))
            }
            _ => Err(HttpError::new(HttpErrorKind::Unknown, read_refusal(answer).await?)),
        }
    }
}

/// Keeps what a good answer remarks, if anybody asked.
fn note(answer: &HttpResponse) {
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let marker = header("x-amz-delete-marker").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let retain_until = header("x-amz-object-lock-retain-until-date").and_then(|text| text.parse().ok());
    // Outside of `with_remarks` nobody asked.
    let _ = REMARKS.try_with(|remarks| {
        let mut remarks = remarks.borrow_mut();
        remarks.delete_marker |= marker;
        remarks.retain_until = remarks.retain_until.max(retain_until);
    });
}

/// The answer with a body that can be shown.
fn shortened(refusal: &Refusal) -> HttpResponse {
    let mut answer = HttpResponse::new(HttpResponseBody::from(refusal.words()));
    *answer.status_mut() = refusal.status.try_into().expect("it was the status of an answer");
    answer
}

/// Why a service refused a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The service's own code, such as `SlowDown`; may be empty.
    pub code: String,
    /// The service's own words, shortened; may be empty.
    pub message: String,
}

impl Refusal {
    /// Whether the same request may be granted a moment later.
    pub fn may_pass(&self) -> bool {
        // What came was not what was sent, or not all of it.
        let garbled = matches!(
            self.code.as_str(),
            "RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch"
        );
        let busy = matches!(self.code.as_str(), "ConditionalRequestConflict" | "OperationAborted" | "SlowDown");
        let unable = matches!(self.status, 408 | 429 | 500..=599) && !matches!(self.status, 501 | 505 | 507);
        (garbled || busy || unable) && !self.is_full()
    }

    /// Whether the service has no room.
    pub fn is_full(&self) -> bool {
        let full = ["QuotaExceeded", "XMinioStorageFull", "StorageFull", "InsufficientStorage", "NoSpaceLeft"];
        self.status == 507 || full.contains(&self.code.as_str())
    }

    /// Code and message.
    fn words(&self) -> String {
        let texts = [self.code.as_str(), self.message.as_str()];
        texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ")
    }

    /// Whether the service knows the asker and says no, or does not know the asker.
    pub fn is_denied(&self) -> bool {
        // The last is what versitygw says, with status 404.
        matches!(self.status, 401 | 403) || self.code == "XAdminUserNotFound"
    }

    /// Whether what is not there is the object asked for. An answer to HEAD has no body and so no code.
    fn is_about_the_object(&self) -> bool {
        let codes = ["", "NoSuchKey", "NoSuchVersion", "NotFound", "NOT_FOUND", "BlobNotFound", "ResourceNotFound"];
        codes.contains(&self.code.as_str())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.words();
        write!(f, "status {}{}{words}", self.status, if words.is_empty() { "" } else { ": " })
    }
}

impl std::error::Error for Refusal {}

async fn read_refusal(answer: HttpResponse) -> Result<Refusal, HttpError> {
    let status = answer.status().as_u16();
    let mut pieces = answer.into_body().bytes_stream();
    let mut body = BytesMut::new();
    while let Some(piece) = pieces.try_next().await? {
        if body.len() + piece.len() > REFUSAL_SIZE_MAX {
            break;
        }
        body.extend_from_slice(&piece);
    }
    let (code, message) = parse_refusal(&body.freeze());
    Ok(Refusal { status, code, message })
}

/// Code and message of a refusal: XML as S3 and Azure write it, JSON as Google does.
fn parse_refusal(body: &Bytes) -> (String, String) {
    let text = String::from_utf8_lossy(body);
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) {
        let error = json.get("error").unwrap_or(&json);
        let field = |name: &str| error.get(name).and_then(serde_json::Value::as_str).map(shown).unwrap_or_default();
        return (field("status"), field("message"));
    }
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(shown(rest.split_once(&format!("</{name}>"))?.0))
    };
    (element("Code").unwrap_or_default(), element("Message").unwrap_or_default())
}

/// A text from outside, fit to be shown.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_LENGTH_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &'static str) -> Refusal {
        let (code, message) = parse_refusal(&Bytes::from_static(body.as_bytes()));
        Refusal { status, code, message }
    }

    #[test]
    fn a_refusal_tells_code_and_message_and_nothing_else_of_the_body() {
        let body = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>no match</Message>\
                    <AWSAccessKeyId>KEY</AWSAccessKeyId><StringToSign>AWS4</StringToSign></Error>";
        assert_eq!(refusal(403, body).to_string(), "status 403: SignatureDoesNotMatch: no match");
        let json = r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"no","details":["KEY"]}}"#;
        assert_eq!(refusal(403, json).to_string(), "status 403: PERMISSION_DENIED: no");
        assert_eq!(refusal(502, "<html>KEY</html>").to_string(), "status 502");
    }

    #[test]
    fn busy_services_and_garbled_requests_may_pass_and_refusals_do_not() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(refusal(status, "").may_pass(), "{status}");
        }
        for status in [400, 401, 403, 404, 412, 501, 507] {
            assert!(!refusal(status, "").may_pass(), "{status}");
        }
        assert!(refusal(400, "<Code>RequestTimeout</Code>").may_pass());
        assert!(refusal(409, "<Code>ConditionalRequestConflict</Code>").may_pass());
        assert!(!refusal(403, "<Code>RequestTimeTooSkewed</Code>").may_pass());
    }

    #[test]
    fn a_bucket_or_a_user_that_is_not_there_is_not_taken_for_an_object() {
        assert!(refusal(404, "").is_about_the_object());
        assert!(refusal(404, "<Code>NoSuchKey</Code>").is_about_the_object());
        assert!(!refusal(404, "<Code>NoSuchBucket</Code>").is_about_the_object());
        let unknown = refusal(404, "<Code>XAdminUserNotFound</Code>");
        assert!(unknown.is_denied() && !unknown.is_about_the_object());
    }

    #[test]
    fn a_full_store_is_told_apart_from_a_broken_one() {
        let full = refusal(500, "<Code>XMinioStorageFull</Code>");
        assert!(full.is_full() && !full.may_pass());
        assert!(refusal(507, "").is_full());
    }

    #[test]
    fn a_message_is_shortened_and_has_no_control_characters() {
        let long: &'static str = Box::leak(format!("<Message>\u{1b}[31m{}</Message>", "x".repeat(1000)).into());
        let message = refusal(400, long).message;
        assert_eq!(message.chars().count(), MESSAGE_LENGTH_MAX);
        assert!(!message.contains('\u{1b}'));
    }
}
