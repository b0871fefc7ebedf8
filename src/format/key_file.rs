//! The key file: 32 random bytes as text, outside of the repository.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::FormatError;
use crate::id::{RepositoryId, SlotId};

/// First part of the line that holds the key.
const PREFIX: &str = "infrahub-backup-key-1";

/// A key file's content. No Debug: it is a secret.
pub struct KeyFile {
    /// The repository that it opens.
    pub repository: RepositoryId,
    /// The slot that it opens.
    pub slot: SlotId,
    /// The key.
    pub key: Zeroizing<[u8; 32]>,
}

impl KeyFile {
    /// The text of the file.
    pub fn encode(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(STANDARD.encode(*self.key));
        Zeroizing::new(format!(
            "# Key file of infrahub-backup repository {}.\n\
             # Without it the backups cannot be read. Keep a copy away from this machine and from the repository.\n\
             {PREFIX} {} {} {}\n",
            self.repository, self.repository, self.slot, *key
        ))
    }

    /// Reads the text; lines that begin with `#` and empty ones are passed over. Errors never hold content.
    pub fn decode(text: &str) -> Result<Self, FormatError> {
        let invalid = |why: &str| FormatError::Invalid { what: "the key file", why: why.to_owned() };
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let line = lines.next().ok_or_else(|| invalid("it holds no key"))?;
        if lines.next().is_some() {
            return Err(invalid("it holds more than one key"));
        }
        let parts: Vec<&str> = line.split(' ').collect();
        let [PREFIX, repository, slot, key] = parts[..] else {
            return Err(invalid("its line is not `infrahub-backup-key-1 REPOSITORY SLOT KEY`"));
        };
        let key = Zeroizing::new(STANDARD.decode(key).map_err(|_| invalid("its key is not base64"))?);
        Ok(Self {
            repository: repository.parse().map_err(|_| invalid("its repository is not an id"))?,
            slot: slot.parse().map_err(|_| invalid("its slot is not an id"))?,
            key: Zeroizing::new(key.as_slice().try_into().map_err(|_| invalid("its key is not 32 bytes"))?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_reads_back() {
        let (repository, slot) = (RepositoryId::from_bytes([1; 16]), SlotId::from_bytes([2; 16]));
        let file = KeyFile { repository, slot, key: Zeroizing::new([3; 32]) };
        let read = KeyFile::decode(&file.encode()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((read.repository, read.slot, *read.key), (repository, slot, [3; 32]));
    }

    #[test]
    fn an_error_about_a_key_file_does_not_repeat_its_content() {
        let Err(error) = KeyFile::decode("infrahub-backup-key-1 SECRETSECRET x y") else { panic!("accepted") };
        assert!(!error.to_string().contains("SECRET"));
    }
}
