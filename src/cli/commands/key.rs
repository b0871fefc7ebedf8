//! `key`: who may open the repository.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cli::args::{KeyAdd, KeyCommand, KeyRole};
use crate::cli::commands::init::ask_twice;
use crate::cli::credential;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::key_file::{self, Reserved};
use crate::cli::render;
use crate::cli::session::Session;
use crate::cli::settings::Location;
use crate::error::{Error, ErrorKind};
use crate::format::config::Config;
use crate::format::identity::root_line;
use crate::format::key_slot::{KeySlot, Role, Unlock};
use crate::id::SlotId;
use crate::ops::keys;
use crate::provider::secret::SecretSource;
use crate::repository::Repository;
use crate::repository::keys::Slots;
use crate::seal::SealError;
use crate::seal::change::Renewal;
use crate::seal::slot::{KdfCost, NewCredential, recipient_key};

/// `key …`
pub async fn run(session: &Session, command: Option<KeyCommand>) -> Result<Exit, Failure> {
    match command.unwrap_or(KeyCommand::List) {
        KeyCommand::List => list(session).await,
        KeyCommand::Add(args) => add(session, &args).await,
        KeyCommand::Remove { slot } => remove(session, &slot).await,
        KeyCommand::Export { folder } => export(session, &folder).await,
        KeyCommand::Rotate { content } => rotate(session, content).await,
    }
}

async fn list(session: &Session) -> Result<Exit, Failure> {
    let repository = session.open().await?;
    let slots = read(session, &repository).await?;
    let documents: Vec<Value> = slots.slots.iter().map(|slot| document(slot, &repository)).collect();
    let config = repository.config();
    let document = json!({
        "slots": documents,
        "metadata_generation": config.metadata_generation,
        "content_generation": config.content_generation,
        "root": config.root,
    });
    session.out.result(&document, || list_text(&slots.slots, &repository) + &identity_text(&repository))?;
    Ok(if slots.damages.is_empty() { Exit::Done } else { Exit::Damage })
}

/// What owners of identity files need, if there are any.
fn identity_text(repository: &Repository) -> String {
    let line = root_line(&repository.keys().repository, &repository.keys().root_public);
    format!("identity files trust this repository by the line\n{line}\n")
}

async fn read(session: &Session, repository: &Repository) -> Result<Slots, Failure> {
    let slots = session.context.cancel.or(repository.key_slots()).await?.map_err(Error::from)?;
    slots.damages.iter().for_each(|damage| session.context.warn(damage.to_string()));
    Ok(slots)
}

fn document(slot: &KeySlot, repository: &Repository) -> Value {
    json!({
        "id": slot.slot,
        "role": slot.role.as_str(),
        "label": slot.label,
        "opened_by": opened_by(slot),
        "created_at": slot.created_at,
        "version": slot.version,
        "removed": slot.is_removed(),
        "current": slot.slot == repository.keys().slot,
    })
}

fn opened_by(slot: &KeySlot) -> &'static str {
    match slot.unlock {
        Unlock::Passphrase { .. } => "password",
        Unlock::KeyFile { .. } => "key file",
        Unlock::Recipient {} => "recipient",
        Unlock::Removed {} => "nothing",
    }
}

fn list_text(slots: &[KeySlot], repository: &Repository) -> String {
    let rows: Vec<Vec<String>> = slots
        .iter()
        .map(|slot| {
            let current = if slot.slot == repository.keys().slot { "in use" } else { "" };
            let note = if slot.is_removed() { "removed" } else { current };
            let role = slot.role.as_str().to_owned();
            vec![short(&slot.slot), role, opened_by(slot).to_owned(), slot.label.clone(), note.to_owned()]
        })
        .collect();
    render::table(&["ID", "ROLE", "OPENED BY", "LABEL", ""], &[], &rows)
}

fn short(slot: &SlotId) -> String {
    slot.to_string().chars().take(8).collect()
}

async fn add(session: &Session, args: &KeyAdd) -> Result<Exit, Failure> {
    let reserved = args.new_key_file.as_ref().map(|path| reserve(session, path)).transpose()?;
    let recipient = args.recipient.as_deref().map(recipient_key).transpose().map_err(not_a_recipient)?;
    let repository = session.open().await?;
    let credential = match (&reserved, recipient) {
        (_, Some(public)) => NewCredential::Recipient(public),
        (Some(_), None) => NewCredential::KeyFile,
        (None, None) => NewCredential::Passphrase(new_password(session, args).await?, KdfCost::DEFAULT),
    };
    let label = args.label.clone().unwrap_or_else(|| format!("{}@{}", session.context.user, session.context.host));
    let (added, report) = keys::add(&session.context, &repository, role(args.role), label, credential).await?;
    let path = match (&added.key_file, reserved) {
        (Some(key), Some(reserved)) => Some(reserved.write(repository.config(), key).map_err(|failure| {
            failure
                .hint(format!("nobody has the new key; remove it: infrahub-backup key remove {}", short(&added.slot)))
        })?),
        _ => None,
    };
    let document = json!({ "slot": added.slot, "role": role(args.role).as_str(), "key_file": path, "report": report });
    let text = || {
        let file = path.as_ref().map_or(String::new(), |path| format!("its key file is {}\n", path.display()));
        let identity = if recipient.is_some() { identity_text(&repository) } else { String::new() };
        format!("added key {}, whose role is {}\n{file}{identity}", short(&added.slot), role(args.role).as_str())
    };
    session.out.done(Exit::Done, &document, text)
}

fn not_a_recipient(source: SealError) -> Failure {
    let error = Error::with_source(ErrorKind::Usage, "`--recipient` names nobody", source);
    Failure::from(error).hint("make a pair and give its public half: age-keygen -o FILE")
}

/// Copies what opens the repository, so that its loss is not the loss of everything.
async fn export(session: &Session, folder: &Path) -> Result<Exit, Failure> {
    let repository = session.open().await?;
    let cannot = |source| {
        let text = format!("`{}` could not be written", folder.display());
        Failure::from(Error::with_source(ErrorKind::Internal, text, source)).hint("name a folder that is not there")
    };
    let objects = session.context.cancel.or(repository.key_objects()).await?.map_err(Error::from)?;
    std::fs::create_dir(folder).map_err(cannot)?;
    for (name, stored) in &objects {
        let path = folder.join(name.as_str());
        std::fs::create_dir_all(path.parent().expect("an object lies in a folder")).map_err(cannot)?;
        std::fs::File::create_new(&path)
            .and_then(|mut file| {
                file.write_all(stored)?;
                file.sync_all()
            })
            .map_err(cannot)?;
    }
    let names: Vec<&str> = objects.iter().map(|(name, _)| name.as_str()).collect();
    session.out.done(Exit::Done, &json!({ "folder": folder, "objects": names }), || {
        format!(
            "copied {} objects to {}: they are sealed as in the repository, and open nothing without a password or key\n",
            names.len(),
            folder.display()
        )
    })
}

/// Takes the place of a key file, outside of the repository and the folder of backups.
fn reserve(session: &Session, path: &std::path::Path) -> Result<Reserved, Failure> {
    let folder = match session.settings.location()? {
        Location::Folder(path) => Some(path),
        Location::Bucket(_) | Location::Memory => None,
    };
    let forbidden: Vec<PathBuf> = folder.into_iter().chain([session.settings.backup_dir()]).collect();
    Reserved::new(&key_file::choose(Some(path.to_owned()), &forbidden)?)
}

async fn new_password(session: &Session, args: &KeyAdd) -> Result<Zeroizing<String>, Failure> {
    let source = match (&args.new_password_file, &args.new_password_command) {
        (Some(path), _) => SecretSource::File(path.clone()),
        (None, Some(command)) => SecretSource::Command(["sh", "-c", command].map(str::to_owned).to_vec()),
        (None, None) => {
            let asked = session.context.cancel.or(ask_twice("Password of the new key: ")).await?;
            let hint =
                "say what opens it: --new-key-file FILE, --new-password-file FILE or --new-password-command COMMAND";
            return asked.map_err(|failure| failure.hint(hint));
        }
    };
    session.context.cancel.or(credential::read_password(&source)).await?
}

fn role(role: KeyRole) -> Role {
    match role {
        KeyRole::Reader => Role::Reader,
        KeyRole::Writer => Role::Writer,
        KeyRole::Auditor => Role::Auditor,
    }
}

async fn remove(session: &Session, text: &str) -> Result<Exit, Failure> {
    let repository = session.open().await?;
    let slots = read(session, &repository).await?;
    let slot = find(&slots.slots, text)?;
    if slot.slot == repository.keys().slot {
        let text = format!("key {} is the one that opened the repository, and cannot remove itself", short(&slot.slot));
        return Err(Failure::usage(text).hint("open the repository with another key whose role is reader"));
    }
    let (changed, report) = keys::renew(&session.context, &repository, Renewal::All, Some(slot.slot)).await?;
    let document = json!({ "removed": slot.slot, "metadata_generation": changed.config.metadata_generation,
        "content_generation": changed.config.content_generation, "report": report });
    session.out.done(Exit::Done, &document, || {
        let id = short(&slot.slot);
        format!("removed key {id}: it opens nothing that is written from now on\n{REMOVED_KEEPS}")
    })
}

/// What removing a key does not do.
const REMOVED_KEEPS: &str = "Who kept a copy of it still opens what was written before, where the objects can be had: \
                             take away the access to the store as well.\n";

/// The slot whose id begins with `text`, or whose label it is.
fn find<'a>(slots: &'a [KeySlot], text: &str) -> Result<&'a KeySlot, Failure> {
    let begins = |slot: &&KeySlot| slot.slot.to_string().starts_with(&text.to_ascii_lowercase());
    let fitting: Vec<&KeySlot> = slots.iter().filter(|slot| begins(slot) || slot.label == text).collect();
    match fitting[..] {
        [slot] if !text.is_empty() => Ok(slot),
        _ => {
            let told = format!("`{text}` names {} keys", fitting.len());
            Err(Failure::new(ErrorKind::NotFound, told).hint("see what there is: infrahub-backup key list"))
        }
    }
}

async fn rotate(session: &Session, content: bool) -> Result<Exit, Failure> {
    let repository = session.open().await?;
    let renewal = if content { Renewal::All } else { Renewal::Metadata };
    let (changed, report) = keys::renew(&session.context, &repository, renewal, None).await?;
    let Config { metadata_generation, content_generation, .. } = changed.config;
    let document = json!({ "metadata_generation": metadata_generation, "content_generation": content_generation,
        "slots": changed.slots, "report": report });
    session.out.done(Exit::Done, &document, || {
        format!(
            "renewed keys for {} key slots: metadata {metadata_generation}, content {content_generation}\n",
            changed.slots
        )
    })
}
