//! Secrets of the deployment: where they come from, how they are held, and how they are kept out of what people read.
//!
//! Holds: a [`Secret`] has no `Display`, no `Serialize`, and a `Debug` without content; its memory is wiped on drop. It
//! reaches a child by its environment only, never by its arguments. Whatever a child says goes through a [`Masker`].
//! Does not: protect against a child that writes its secret into its own dump.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

use super::exec::{self, CommandSpec, ExecError};

/// Largest secret, in bytes: 4 KiB, room for a private key in PEM.
pub const SECRET_SIZE_MAX: usize = 4 << 10;

/// How long a command that prints a secret may take.
pub const SECRET_COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text as it is.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The content, for the one place that hands it to a child or a server.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a secret is read from: `{ file = "…" }`, `{ command = ["…"] }` or `{ env = "NAME" }`.
///
/// There is no way to write the secret itself into the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The content of a file, on the machine where this tool runs.
    File(PathBuf),
    /// What a command prints, run on the machine where this tool runs, without any wrapper.
    Command(Vec<String>),
    /// A variable of this tool's own environment.
    Env(String),
    /// Known already: found in the deployment itself. No configuration can say this.
    Held(Secret),
}

impl SecretSource {
    /// Reads the secret; one newline at its end is dropped.
    ///
    /// # Errors
    ///
    /// When there is none, it is empty, longer than [`SECRET_SIZE_MAX`], or not UTF-8. No error holds any of its content.
    pub async fn read(&self) -> Result<Secret, SecretError> {
        let bytes = match self {
            Self::File(path) => read_file(path).await?,
            Self::Command(argv) => read_command(argv).await?,
            Self::Env(name) => read_env(name)?,
            Self::Held(secret) => return Ok(secret.clone()),
        };
        self.check(bytes)
    }

    /// Names the source for people: the file, the command, the variable.
    pub fn describe(&self) -> String {
        match self {
            Self::File(path) => format!("file `{}`", path.display()),
            Self::Command(argv) => format!("command `{}`", argv.join(" ")),
            Self::Env(name) => format!("environment variable `{name}`"),
            Self::Held(_) => "the deployment".to_owned(),
        }
    }

    fn check(&self, mut bytes: Zeroizing<Vec<u8>>) -> Result<Secret, SecretError> {
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.is_empty() {
            return Err(SecretError::Empty { origin: self.describe() });
        }
        if bytes.len() > SECRET_SIZE_MAX {
            return Err(SecretError::TooLong { origin: self.describe() });
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotText { origin: self.describe() })?;
        if text.contains('\0') {
            return Err(SecretError::NotText { origin: self.describe() });
        }
        Ok(Secret::new(text.to_owned()))
    }
}

async fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let error = |source| SecretError::Read { path: path.to_owned(), source };
    // Room for everything from the start: a vector that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_SIZE_MAX + 3));
    let file = tokio::fs::File::open(path).await.map_err(error)?;
    file.take(SECRET_SIZE_MAX as u64 + 3).read_to_end(&mut bytes).await.map_err(error)?;
    Ok(bytes)
}

async fn read_command(argv: &[String]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let mut spec = CommandSpec::new(argv.to_vec());
    spec.total_timeout = SECRET_COMMAND_TIMEOUT;
    // Boxed: a command's environment may again hold secrets that come from commands, as far as the types know.
    let output = Box::pin(exec::run(&spec, &Masker::default())).await;
    // What such a command says when it fails may be what it was to keep: `sh -x` is enough.
    let output = output.map_err(|source| SecretError::Command { source: Box::new(source.without_log()) })?;
    Ok(Zeroizing::new(output.stdout))
}

fn read_env(name: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let value = std::env::var_os(name).ok_or_else(|| SecretError::NoVariable { name: name.to_owned() })?;
    Ok(Zeroizing::new(value.into_encoded_bytes()))
}

/// The value of an environment variable of a child: a secret, or a plain `{ value = "…" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// A text that anybody may read.
    Plain(String),
    /// A secret, read each time the child is started.
    Secret(SecretSource),
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(SourceVisitor { plain: false })? {
            EnvValue::Secret(source) => Ok(source),
            EnvValue::Plain(_) => Err(de::Error::custom(NOT_HERE)),
        }
    }
}

impl<'de> Deserialize<'de> for EnvValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourceVisitor { plain: true })
    }
}

const NOT_HERE: &str = "a secret is not written into the configuration: give `{ file = \"…\" }`, \
                        `{ command = [\"…\"] }` or `{ env = \"NAME\" }`";

/// Reads both forms. Written by hand because the derived errors repeat the text they did not expect, and that text may
/// be a password.
struct SourceVisitor {
    plain: bool,
}

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = EnvValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table with one of `file`, `command`, `env`")?;
        if self.plain { f.write_str(", `value`") } else { Ok(()) }
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<EnvValue, E> {
        Err(E::custom(if self.plain { "a plain value is written `{ value = \"…\" }`" } else { NOT_HERE }))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<EnvValue, E> {
        self.visit_str("")
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<EnvValue, E> {
        self.visit_str("")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<EnvValue, E> {
        self.visit_str("")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EnvValue, A::Error> {
        let Some(key) = map.next_key::<String>()? else {
            return Err(de::Error::custom(format_args!("empty table, expected {self}", self = Expecting(&self))));
        };
        let value = match key.as_str() {
            "file" => EnvValue::Secret(SecretSource::File(map.next_value()?)),
            "command" => EnvValue::Secret(SecretSource::Command(map.next_value()?)),
            "env" => EnvValue::Secret(SecretSource::Env(map.next_value()?)),
            "value" if self.plain => EnvValue::Plain(map.next_value()?),
            "value" => return Err(de::Error::custom(NOT_HERE)),
            other => {
                return Err(de::Error::custom(format_args!("unknown key `{other}`, expected {}", Expecting(&self))));
            }
        };
        if let Some(second) = map.next_key::<String>()? {
            return Err(de::Error::custom(format_args!("`{key}` and `{second}` exclude each other")));
        }
        Ok(value)
    }
}

struct Expecting<'a>(&'a SourceVisitor);

impl fmt::Display for Expecting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Its file could not be read.
    #[error("the secret in `{}` cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Its command did not end well; the cause names it.
    #[error(
        "the command that prints a secret did not end well; run it by itself to see what it says, which may be secret and is not shown"
    )]
    Command {
        /// How it ended.
        #[source]
        source: Box<ExecError>,
    },
    /// Its variable is not set.
    #[error("the environment variable `{name}`, which holds a secret, is not set")]
    NoVariable {
        /// The variable.
        name: String,
    },
    /// Nothing was in it.
    #[error("the secret from {origin} is empty")]
    Empty {
        /// Where it was read.
        origin: String,
    },
    /// Too much was in it.
    #[error("the secret from {origin} is longer than {SECRET_SIZE_MAX} bytes")]
    TooLong {
        /// Where it was read.
        origin: String,
    },
    /// It is not UTF-8, or holds a zero byte.
    #[error("the secret from {origin} is not text")]
    NotText {
        /// Where it was read.
        origin: String,
    },
}

/// Replaces every secret it was told by `***`: as it is, percent-encoded, in Base64 and in hexadecimal.
///
/// Clones share what they know, so that a secret read late is masked everywhere.
#[derive(Clone, Default)]
pub struct Masker(Arc<RwLock<Vec<Zeroizing<String>>>>);

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masker(…)")
    }
}

/// Secrets shorter than this, in bytes, are masked as they are only: their encoded forms occur by chance.
const ENCODED_SIZE_MIN: usize = 4;

impl Masker {
    /// From now on `secret` is masked.
    pub fn add(&self, secret: &Secret) {
        let mut forms = Vec::new();
        add_forms(secret.expose(), &mut forms);
        // Output is masked line by line, so the lines of a longer secret (a private key) count as secrets of their own.
        if secret.expose().contains('\n') {
            for line in secret.expose().lines().filter(|line| line.len() >= 8) {
                add_forms(line, &mut forms);
            }
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for form in forms {
            if !form.is_empty() && !known.contains(&form) {
                known.push(form);
            }
        }
        // Longest first: a form that begins another must not leave the other's tail behind.
        known.sort_by_key(|form| std::cmp::Reverse(form.len()));
    }

    /// `text` without any secret.
    pub fn mask(&self, text: &str) -> String {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut masked = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if let Some(form) = known.iter().find(|form| rest.starts_with(form.as_str())) {
                masked.push_str("***");
                rest = &rest[form.len()..];
            } else {
                masked.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        masked
    }
}

fn add_forms(text: &str, forms: &mut Vec<Zeroizing<String>>) {
    forms.push(Zeroizing::new(text.to_owned()));
    if text.len() < ENCODED_SIZE_MIN {
        return;
    }
    forms.push(percent_encoded(text, true));
    forms.push(percent_encoded(text, false));
    let hex = crate::id::hex_of(text.as_bytes());
    forms.push(Zeroizing::new(hex.to_uppercase()));
    forms.push(Zeroizing::new(hex));
    for lead in 0..3 {
        add_base64(text.as_bytes(), lead, forms);
    }
}

/// Base64 of `bytes` as it looks when `lead` bytes (modulo three) stand before them and anything behind: `user:password`.
/// Characters that also depend on the neighbours are left out.
fn add_base64(bytes: &[u8], lead: usize, forms: &mut Vec<Zeroizing<String>>) {
    let mut padded = Zeroizing::new(vec![0; lead]);
    padded.extend_from_slice(bytes);
    let first = (lead * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        let whole = Zeroizing::new(engine.encode(padded.as_slice()));
        if last > first {
            forms.push(Zeroizing::new(whole[first..last].to_owned()));
        }
        if lead == 0 {
            forms.push(whole);
        }
    }
}

fn percent_encoded(text: &str, upper: bool) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(text.len() * 3));
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let hex = crate::id::hex_of(&[byte]);
            encoded.push('%');
            encoded.push_str(&if upper { hex.to_uppercase() } else { hex });
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masker(secret: &str) -> Masker {
        let masker = Masker::default();
        masker.add(&Secret::new(secret.to_owned()));
        masker
    }

    #[test]
    fn debug_of_a_secret_shows_none_of_it() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".to_owned())), "Secret(…)");
    }

    #[test]
    fn every_written_form_of_a_secret_is_masked() {
        let masker = masker("p@ss word/é");
        for text in [
            "p@ss word/é",
            "p%40ss%20word%2F%C3%A9",
            "p%40ss%20word%2f%c3%a9",
            "cEBzcyB3b3JkL8Op",
            "7040737320776f72642fc3a9",
            "7040737320776F72642FC3A9",
        ] {
            assert_eq!(masker.mask(&format!("<{text}>")), "<***>");
        }
    }

    #[test]
    fn a_secret_inside_base64_of_more_is_masked_at_every_alignment() {
        let masker = masker("correct-horse");
        for user in ["a", "ab", "abc"] {
            let header = STANDARD_NO_PAD.encode(format!("{user}:correct-horse"));
            assert!(masker.mask(&header).contains("***"), "{user}");
        }
    }

    #[test]
    fn a_secret_that_begins_another_does_not_leave_its_tail() {
        let masker = masker("pass");
        masker.add(&Secret::new("password".to_owned()));
        assert_eq!(masker.mask("password pass"), "*** ***");
    }

    #[tokio::test]
    async fn only_one_newline_at_the_end_of_a_secret_file_is_dropped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), " secret \n\n").unwrap();
        let secret = SecretSource::File(file.path().to_owned()).read().await.unwrap();
        assert_eq!(secret.expose(), " secret \n");
    }

    #[tokio::test]
    async fn a_secret_that_is_too_long_is_refused_without_showing_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2".repeat(1000)).unwrap();
        let error = SecretSource::File(file.path().to_owned()).read().await.unwrap_err();
        assert!(matches!(error, SecretError::TooLong { .. }));
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_command_gives_a_secret_by_its_standard_output() {
        let argv = ["sh", "-c", "echo hunter2"].map(str::to_owned).to_vec();
        assert_eq!(SecretSource::Command(argv).read().await.unwrap().expose(), "hunter2");
    }

    #[tokio::test]
    async fn an_empty_secret_is_refused() {
        let argv = vec!["true".to_owned()];
        assert!(matches!(SecretSource::Command(argv).read().await, Err(SecretError::Empty { .. })));
    }
}
