//! What opens a repository: where it is read from, in which order.
//!
//! A flag beats the variables, these beat the configuration file, that beats the key file in the user's folder, and that
//! a prompt. Two of the same rank are an error: guessing which one is meant could cost a repository. No password is ever
//! an argument.

use std::io::Read;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::failure::Failure;
use super::session::interactive;
use super::settings::{Settings, user_config_dir};
use super::variables::is_set;
use crate::error::{Error, ErrorKind};
use crate::format::FormatError;
use crate::format::config::Config;
use crate::format::identity::Identity;
use crate::format::key_file::KeyFile;
use crate::limits::CLEAR_OBJECT_SIZE_MAX;
use crate::provider::secret::SecretSource;
use crate::seal::slot::Credential;

/// Names of the flags that say where a secret is, as clap knows them.
pub const FLAGS: [&str; 4] = ["key_file", "identity", "password_file", "password_command"];

/// The variable that holds the password itself.
const PASSWORD_VARIABLE: &str = "INFRAHUB_REPO_PASSWORD";

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// In a key file.
    KeyFile(PathBuf),
    /// In an identity file.
    Identity(PathBuf),
    /// A password, somewhere.
    Password(SecretSource),
}

/// What was given, and whether by a flag on the command line.
pub fn given(settings: &Settings) -> Result<Option<(Given, bool)>, Failure> {
    let global = settings.global();
    let file = global.key_file.clone().map(Given::KeyFile);
    let identity = global.identity.clone().map(Given::Identity);
    let password_file = global.password_file.clone().map(|path| Given::Password(SecretSource::File(path)));
    let command = global.password_command.as_ref().map(|command| {
        let argv = ["sh", "-c", command].map(str::to_owned).to_vec();
        Given::Password(SecretSource::Command(argv))
    });
    let (typed, from_variables): (Vec<_>, Vec<_>) = FLAGS
        .into_iter()
        .zip([file, identity, password_file, command])
        .filter_map(|(flag, given)| Some((flag, given?)))
        .partition(|(flag, _)| settings.is_typed(flag));
    if let Some(one) = only(typed, |flag| format!("`--{}`", flag.replace('_', "-")))? {
        return Ok(Some((one, true)));
    }
    let password = is_set(PASSWORD_VARIABLE).then(|| Given::Password(SecretSource::Env(PASSWORD_VARIABLE.to_owned())));
    let variables: Vec<_> = from_variables.into_iter().chain(password.map(|given| ("repo_password", given))).collect();
    let name = |flag: &str| match flag {
        "password_file" => "`INFRAHUB_REPO_PASSWORD_FILE`".to_owned(),
        flag => format!("`INFRAHUB_{}`", flag.to_ascii_uppercase()),
    };
    if let Some(one) = only(variables, name)? {
        return Ok(Some((one, false)));
    }
    let (key_file, password_file) = settings.configured_secrets()?;
    let configured = [
        ("key_file", key_file.map(Given::KeyFile)),
        ("password_file", password_file.map(|path| Given::Password(SecretSource::File(path)))),
    ];
    let configured = configured.into_iter().filter_map(|(name, given)| Some((name, given?))).collect();
    Ok(only(configured, |name| format!("`{name}` in the configuration file"))?.map(|one| (one, false)))
}

fn only(mut given: Vec<(&'static str, Given)>, name: impl Fn(&str) -> String) -> Result<Option<Given>, Failure> {
    if let [(first, _), (second, _), ..] = &given[..] {
        let text = format!("{} and {} both say what opens the repository", name(first), name(second));
        return Err(Failure::usage(text).hint("give one of them"));
    }
    Ok(given.pop().map(|(_, one)| one))
}

/// What opens the repository of this configuration.
pub async fn to_open(settings: &Settings, config: &Config) -> Result<Credential, Failure> {
    match given(settings)? {
        Some((Given::KeyFile(path), _)) => read_key_file(&path),
        Some((Given::Identity(path), _)) => read_identity(&path),
        Some((Given::Password(source), _)) => Ok(Credential::Passphrase(read_password(&source).await?)),
        None => match default_key_file(config).filter(|path| path.exists()) {
            Some(path) => read_key_file(&path),
            None => Ok(Credential::Passphrase(ask("Password of the repository: ").await?)),
        },
    }
}

/// Where `init` writes the key file of a repository if it is not told otherwise.
pub fn default_key_file(config: &Config) -> Option<PathBuf> {
    Some(user_config_dir()?.join(format!("{}.key", config.repository)))
}

/// Reads a password.
pub async fn read_password(source: &SecretSource) -> Result<Zeroizing<String>, Failure> {
    Ok(Zeroizing::new(source.read().await?.expose().to_owned()))
}

/// Asks for a password, if somebody is there to answer.
pub async fn ask(question: &'static str) -> Result<Zeroizing<String>, Failure> {
    if !interactive() {
        return Err(Failure::new(
            ErrorKind::Credentials,
            "nothing was given that opens the repository, and nobody can be asked",
        )
        .hint(
            "give --key-file FILE, --password-file FILE or --password-command COMMAND, or set INFRAHUB_REPO_PASSWORD",
        ));
    }
    let asked = tokio::task::spawn_blocking(move || rpassword::prompt_password(question).map(Zeroizing::new)).await;
    let answer = asked.map_err(std::io::Error::other).and_then(|answer| answer);
    let answer = answer
        .map_err(|source| Error::with_source(ErrorKind::Credentials, "the password could not be asked for", source))?;
    if answer.is_empty() { Err(Failure::new(ErrorKind::Credentials, "the password is empty")) } else { Ok(answer) }
}

fn read_key_file(path: &Path) -> Result<Credential, Failure> {
    Ok(Credential::KeyFile(read_secret_file("key file", path, KeyFile::decode)?))
}

fn read_identity(path: &Path) -> Result<Credential, Failure> {
    Ok(Credential::Identity(read_secret_file("identity file", path, Identity::decode)?))
}

fn read_secret_file<T>(
    what: &str,
    path: &Path,
    decode: impl FnOnce(&str) -> Result<T, FormatError>,
) -> Result<T, Failure> {
    let text = format!("the {what} `{}` cannot be used", path.display());
    let read = || {
        let mut content = Zeroizing::new(String::new());
        std::fs::File::open(path)?.take(CLEAR_OBJECT_SIZE_MAX).read_to_string(&mut content)?;
        Ok(content)
    };
    let refused = |source: Box<dyn std::error::Error + Send + Sync>| {
        Error::with_source(ErrorKind::Credentials, text.clone(), source)
    };
    let content: Zeroizing<String> = read().map_err(|error: std::io::Error| refused(error.into()))?;
    Ok(decode(&content).map_err(|error| refused(error.into()))?)
}
