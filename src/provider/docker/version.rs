//! Which Infrahub runs, as its own server says.

use std::sync::Arc;
use std::time::Duration;

use super::{DockerError, DockerProvider};
use crate::provider::exec::{self, CommandSpec};

/// The service that knows.
const SERVER: &str = "infrahub-server";

/// Standard error, where imports warn, is not the answer.
const SCRIPT: &str = "import infrahub; print(infrahub.__version__)";

/// How long the import may take on a machine that has much to do.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Longest text that is taken for a version, in bytes.
const VERSION_SIZE_MAX: usize = 64;

/// The version of Infrahub that runs.
pub(super) async fn infrahub(provider: &DockerProvider) -> Result<String, DockerError> {
    let unknown = |source| DockerError::VersionUnknown { service: SERVER.to_owned(), source };
    let mut spec = CommandSpec::new(["python3", "-c", SCRIPT].map(str::to_owned).to_vec());
    spec.place = Some(Arc::new(provider.in_service(SERVER)));
    spec.total_timeout = TIMEOUT;
    let said = exec::run(&spec, provider.masker()).await.map_err(|error| unknown(Box::new(error) as Box<_>))?;
    version(&said.stdout).ok_or_else(|| unknown("what it says is no version".into()))
}

/// The last line, if it looks like a version: an import may have said something before.
fn version(answer: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(answer).ok()?.trim_end();
    let last = text.lines().next_back()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || ".+-_!~".contains(c);
    let looks = last.starts_with(|c: char| c.is_ascii_digit()) && last.chars().all(plain);
    (looks && last.len() <= VERSION_SIZE_MAX).then(|| last.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_version_and_anything_else_is_none() {
        for (answer, expected) in [
            ("1.11.9\n", Some("1.11.9")),
            ("starting\n1.5.0b2+local\n", Some("1.5.0b2+local")),
            ("", None),
            ("\n", None),
            ("unknown\n", None),
            ("1.5.0\nbye bye\n", None),
            ("1 2\n", None),
        ] {
            assert_eq!(version(answer.as_bytes()).as_deref(), expected, "{answer}");
        }
        assert_eq!(version(&[b'1'; 65]), None);
        assert_eq!(version(b"\xff"), None);
    }
}
