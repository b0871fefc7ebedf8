//! Identity files and recipients: an X25519 pair that its owner made himself, in the form of age (`age-keygen`).
//!
//! The file also says which root to trust, in a comment that age passes over: anybody can seal a grant to a public key.
//! Normative: `format-spec/07-keys.md`, "Identity file".

use std::collections::BTreeMap;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use zeroize::Zeroizing;

use super::FormatError;
use crate::id::{RepositoryId, bytes_of_hex, hex_of};

/// What a recipient begins with, before the `1`.
const RECIPIENT: &str = "age";
/// What a secret begins with, before the `1`; written in upper case.
const SECRET: &str = "age-secret-key-";
/// First words of the line that names a root.
const ROOT_LINE: &str = "# infrahub-backup-root-1 ";

/// An identity file's content. No Debug: it is a secret.
pub struct Identity {
    /// Secret half of the pair (X25519).
    pub secret: Zeroizing<[u8; 32]>,
    /// Public half of the root (Ed25519) that is trusted for each repository.
    pub roots: BTreeMap<RepositoryId, [u8; 32]>,
}

impl Identity {
    /// Reads the text. Errors never hold content.
    ///
    /// # Errors
    /// [`FormatError::Invalid`] unless there is exactly one secret, and for each repository at most one root.
    pub fn decode(text: &str) -> Result<Self, FormatError> {
        let (mut secret, mut roots) = (None, BTreeMap::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(named) = line.strip_prefix(ROOT_LINE) {
                let (repository, root) =
                    root_of(named).ok_or_else(|| invalid("a line that names a root is not valid"))?;
                if roots.insert(repository, root).is_some_and(|other| other != root) {
                    return Err(invalid("it names two roots for one repository"));
                }
            } else if !line.starts_with('#') && secret.replace(secret_of(line)?).is_some() {
                return Err(invalid("it holds more than one key"));
            }
        }
        Ok(Self { secret: secret.ok_or_else(|| invalid("it holds no key"))?, roots })
    }
}

/// The line that makes an identity file trust `root` for `repository`.
pub fn root_line(repository: &RepositoryId, root: &[u8; 32]) -> String {
    format!("{ROOT_LINE}{repository} {}", hex_of(root))
}

/// The public half (X25519) that `age1…` stands for. Whether it is one to which something can be sealed is not checked.
///
/// # Errors
/// [`FormatError::Invalid`].
pub fn recipient(text: &str) -> Result<[u8; 32], FormatError> {
    bech32_of(RECIPIENT, text).ok_or_else(|| FormatError::Invalid {
        what: "the recipient",
        why: "it is not `age1` and 58 more characters, as age-keygen prints".to_owned(),
    })
}

fn root_of(named: &str) -> Option<(RepositoryId, [u8; 32])> {
    let (repository, root) = named.split_once(' ')?;
    Some((repository.parse().ok()?, bytes_of_hex(root)?.try_into().ok()?))
}

fn secret_of(line: &str) -> Result<Zeroizing<[u8; 32]>, FormatError> {
    let key = bech32_of(SECRET, line).map(Zeroizing::new);
    key.ok_or_else(|| invalid("a line is neither `AGE-SECRET-KEY-1…` nor a comment"))
}

fn bech32_of(prefix: &str, text: &str) -> Option<[u8; 32]> {
    let checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
    if checked.hrp() != Hrp::parse(prefix).ok()? {
        return None;
    }
    let mut bytes = checked.byte_iter();
    let mut key = [0; 32];
    for byte in &mut key {
        *byte = bytes.next()?;
    }
    bytes.next().is_none().then_some(key)
}

fn invalid(why: &str) -> FormatError {
    FormatError::Invalid { what: "the identity file", why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made by age-keygen's own rules, from the tests of the age specification.
    const LINE: &str = "AGE-SECRET-KEY-1XMWWC06LY3EE5RYTXM9MFLAZ2U56JJJ36S0MYPDRWSVLUL66MV4QX3S7F6";

    #[test]
    fn an_error_about_an_identity_file_does_not_repeat_its_content() {
        let Err(error) = Identity::decode("AGE-SECRET-KEY-1SECRETSECRET") else { panic!("accepted") };
        assert!(!error.to_string().contains("SECRETSECRET"));
    }

    #[test]
    fn an_identity_trusts_the_roots_that_it_names() {
        let repository = RepositoryId::from_bytes([1; 16]);
        let text = format!("# made today\n\n{}\n{LINE}\n", root_line(&repository, &[2; 32]));
        let Ok(identity) = Identity::decode(&text) else { panic!("refused") };
        assert_eq!(identity.roots, BTreeMap::from([(repository, [2; 32])]));
        let twice = format!("{text}{}\n", root_line(&repository, &[3; 32]));
        assert!(Identity::decode(&twice).is_err());
        assert!(Identity::decode(&format!("{LINE}\n{LINE}\n")).is_err());
    }

    #[test]
    fn a_mistyped_recipient_is_refused() {
        let good = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
        assert!(recipient(good).is_ok());
        assert!(recipient(&good.replace("nujwj", "nujwk")).is_err());
        assert!(recipient(LINE).is_err());
    }
}
