//! `init`: makes a repository, and its key file where it has one.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::args::Init;
use crate::cli::credential::{self, Given};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::key_file::{self, Reserved, Wanted};
use crate::cli::place::{self, Place, look};
use crate::cli::session::{Session, interactive};
use crate::cli::settings::Location;
use crate::error::{Error, ErrorKind};
use crate::format::config::Config;
use crate::format::key_file::KeyFile;
use crate::ops;
use crate::repository::RepositoryError;
use crate::seal::slot::{Credential, KdfCost, NewCredential};
use crate::storage::Store;

/// What shall open the new repository.
pub enum NewKey {
    /// A password.
    Password(Zeroizing<String>),
    /// A key file, at this place.
    KeyFile(Wanted),
}

/// A repository that was made.
pub struct Made {
    /// Its store.
    pub store: Arc<dyn Store>,
    /// Its configuration.
    pub config: Config,
    /// What opens it.
    pub credential: Credential,
    /// Its key file, if it has one.
    pub key_file: Option<PathBuf>,
}

/// `init`
pub async fn run(session: &Session, args: &Init) -> Result<Exit, Failure> {
    let location = match look(&session.settings, &session.context.state).await? {
        Place::Empty(location) => location,
        Place::Repository { store, .. } => {
            return Err(Error::from(RepositoryError::Exists { location: store.location() }).into());
        }
    };
    let key = session.context.cancel.or(new_key(session, &location, args.no_password, false)).await??;
    if args.dry_run {
        let opened_by = match &key {
            NewKey::Password(_) => "a password".to_owned(),
            NewKey::KeyFile(Wanted::At(path)) => format!("a new key file `{}`", path.display()),
            NewKey::KeyFile(Wanted::Default(folder)) => format!("a new key file in `{}`", folder.display()),
        };
        let document = json!({ "dry_run": true, "location": location.to_string(), "opened_by": opened_by });
        session.out.result(&document, || format!("would make a repository in {location}, opened by {opened_by}\n"))?;
        return Ok(Exit::Done);
    }
    let made = make(session, &location, key, args.single_writer).await?;
    let document = json!({
        "repository": made.config.repository,
        "location": made.store.location(),
        "key_file": made.key_file,
    });
    if made.key_file.is_some() {
        // A key file of which there is no copy yet must be looked at, however quiet it is to be.
        session.out.result(&document, || text(&made))?;
        return Ok(Exit::Done);
    }
    session.out.done(Exit::Done, &document, || text(&made))
}

fn text(made: &Made) -> String {
    let head = format!("made repository {} in {}\n", made.config.repository, made.store.location());
    match &made.key_file {
        Some(path) => format!("{head}{}", key_advice(path)),
        None => format!("{head}Without its password the backups cannot be read. Nobody can recover it.\n"),
    }
}

/// What to do with a new key file.
pub fn key_advice(path: &std::path::Path) -> String {
    format!(
        "its key file is {path}\n\
         Without it the backups cannot be read: keep a copy away from this machine and from the repository.\n\
         To recover with that copy: infrahub-backup restore --key-file COPY --repo PLACE\n",
        path = path.display()
    )
}

/// Decides what shall open a new repository, and asks where nothing says so. `key_file_else` makes a key file where nobody
/// can be asked. Makes nothing.
pub async fn new_key(
    session: &Session,
    location: &Location,
    no_password: bool,
    key_file_else: bool,
) -> Result<NewKey, Failure> {
    let settings = &session.settings;
    let folder = match location {
        Location::Folder(path) => Some(path.clone()),
        Location::Bucket(_) | Location::Memory => None,
    };
    // The repository may lie deep below something else; the folder of backups is copied as a whole.
    let forbidden: Vec<PathBuf> = folder.into_iter().chain([settings.backup_dir()]).collect();
    let key_file = |path| Ok(NewKey::KeyFile(key_file::choose(path, &forbidden)?));
    match credential::given(settings)? {
        Some((Given::KeyFile(path), _)) => key_file(Some(path)),
        Some((Given::Identity(_), _)) => {
            let text = "a repository is founded with a password or a key file, and recipients are added to it";
            Err(Failure::usage(text).hint("then: infrahub-backup key add --role reader --recipient age1…"))
        }
        Some((Given::Password(_), true)) if no_password => {
            Err(Failure::usage("`--no-password` and a password exclude each other"))
        }
        Some((Given::Password(source), _)) if !no_password => {
            Ok(NewKey::Password(credential::read_password(&source).await?))
        }
        Some((Given::Password(_), _)) => key_file(None),
        None if no_password || (key_file_else && !interactive()) => key_file(None),
        None => ask_twice("Password for the new repository: ").await.map_err(unasked).map(NewKey::Password),
    }
}

fn unasked(failure: Failure) -> Failure {
    match interactive() {
        true => failure,
        false => {
            failure.hint("give --password-file FILE, or let a key file be made: infrahub-backup init --no-password")
        }
    }
}

/// Asks for a new password, twice.
pub async fn ask_twice(question: &'static str) -> Result<Zeroizing<String>, Failure> {
    let first = credential::ask(question).await?;
    let second = credential::ask("Once more: ").await?;
    if *first == *second { Ok(first) } else { Err(Failure::new(ErrorKind::Credentials, "the two passwords differ")) }
}

/// Makes the repository. A key file is on disk when this returns.
pub async fn make(session: &Session, location: &Location, key: NewKey, single_writer: bool) -> Result<Made, Failure> {
    let reserved = match &key {
        NewKey::Password(_) => None,
        NewKey::KeyFile(wanted) => Some(Reserved::new(wanted)?),
    };
    let store = place::make_store(location, &session.settings)?;
    let new = match &key {
        NewKey::Password(password) => NewCredential::Passphrase(password.clone(), KdfCost::DEFAULT),
        NewKey::KeyFile(_) => NewCredential::KeyFile,
    };
    let context = &session.context;
    let single_writer = ops::init::try_out(context, &*store, single_writer).await?;
    let ops::init::Initialised { config, key_file } = ops::init::init(context, &*store, single_writer, new).await?;
    let (credential, key_file) = match (key, key_file, reserved) {
        (NewKey::KeyFile(_), Some(key), Some(reserved)) => match keep(reserved, &config, &key) {
            Ok(path) => (Credential::KeyFile(key), Some(path)),
            Err(failure) => return Err(key_file::unfound(&*store, failure).await),
        },
        (NewKey::Password(password), _, _) => (Credential::Passphrase(password), None),
        (NewKey::KeyFile(_), _, _) => {
            let failure = Failure::new(ErrorKind::Internal, "no key came with the new repository");
            return Err(key_file::unfound(&*store, failure).await);
        }
    };
    place::remember_at(&session.context.state, &*store, config.repository)?;
    Ok(Made { store, config, credential, key_file })
}

fn keep(reserved: Reserved, config: &Config, key: &KeyFile) -> Result<PathBuf, Failure> {
    reserved.write(config, key)
}
