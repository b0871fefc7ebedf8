//! `config/<n>`: what everybody may know of a repository, signed by its root.
//!
//! Clear text, so that a person can read it with `head -n 1`: one line of JSON, a line feed, the root's Ed25519
//! signature as 128 hexadecimal digits, a line feed. The highest number wins.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{FormatError, from_versioned_json, to_json};
use crate::id::{RepositoryId, bytes_of_hex, hex_of};
use crate::limits::{CHUNK_SIZE_MAX, META_CHUNK_SIZE_MIN};

/// The algorithms of format 1, by name. A reader refuses any other suite.
pub const SUITE: &str = "blake3+zstd+xchacha20poly1305+hpke-x25519-hkdf-sha256+ed25519";

/// Features that this program knows and that a reader must know to read a repository that names them.
pub const FEATURES_KNOWN: [&str; 1] = [FEATURE_DELETION];

/// The feature of repositories from which something may have been deleted: marks decide which snapshots there are.
pub const FEATURE_DELETION: &str = "deletion";

/// How streams of one profile are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Shortest chunk, in bytes, except at a border and at the end.
    pub min: u32,
    /// Target of the cut masks, in bytes; the real mean is above it.
    pub avg: u32,
    /// Longest chunk, in bytes.
    pub max: u32,
    /// FastCDC normalisation level, 0 to 3.
    pub level: u8,
}

/// Names a profile in [`Config::profiles`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProfileName {
    /// Dump streams.
    Dump,
    /// Artifact files.
    Files,
    /// Recipes, trees and header streams.
    Meta,
}

/// The profiles of a repository, one for each kind of stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiles {
    /// Dump streams.
    pub dump: Profile,
    /// Artifact files.
    pub files: Profile,
    /// Recipes, trees and header streams.
    pub meta: Profile,
}

impl Profiles {
    /// What a new repository starts with. Sizes from the measurements in docs/design/architecture.md, "Growth".
    pub const DEFAULT: Self = Self {
        dump: Profile { min: 4 << 10, avg: 16 << 10, max: 64 << 10, level: 1 },
        files: Profile { min: 16 << 10, avg: 64 << 10, max: 256 << 10, level: 1 },
        meta: Profile { min: 1 << 10, avg: 4 << 10, max: 32 << 10, level: 1 },
    };

    /// The profile of that name.
    pub fn get(&self, name: ProfileName) -> Profile {
        match name {
            ProfileName::Dump => self.dump,
            ProfileName::Files => self.files,
            ProfileName::Meta => self.meta,
        }
    }
}

/// One generation of a repository's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Format version.
    pub format: u8,
    /// Features that a reader must know.
    pub features: Vec<String>,
    /// Which repository this is.
    pub repository: RepositoryId,
    /// Number of this generation, as in its name.
    pub generation: u32,
    /// When this generation was written.
    pub created_at: Timestamp,
    /// Names the algorithms.
    pub suite: String,
    /// Public half of the root signing key (Ed25519), hexadecimal.
    pub root: String,
    /// Newest generation of the content key.
    pub content_generation: u32,
    /// Public half of that content key (X25519), hexadecimal.
    pub content_public: String,
    /// Newest generation of the metadata key.
    pub metadata_generation: u32,
    /// How streams are cut.
    pub profiles: Profiles,
    /// Whether the store lacks what several writers at once need, as the probe of `init` found. Absent means no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub single_writer: bool,
}

impl Config {
    /// Whether something may have been deleted from the repository.
    pub fn has_deletion(&self) -> bool {
        self.features.iter().any(|name| name == FEATURE_DELETION)
    }

    /// The line of JSON, which is what the root signs.
    pub fn body(&self) -> Vec<u8> {
        to_json(self)
    }

    fn check(&self) -> Result<(), FormatError> {
        let unknown: Vec<&str> =
            self.features.iter().map(String::as_str).filter(|name| !FEATURES_KNOWN.contains(name)).collect();
        if !unknown.is_empty() {
            return Err(FormatError::Features { names: unknown.join(", ") });
        }
        if self.suite != SUITE {
            return Err(FormatError::Invalid { what: "the suite", why: format!("`{}` is not known", self.suite) });
        }
        if self.profiles.meta.min < META_CHUNK_SIZE_MIN {
            let why = format!("recipes in chunks of {} bytes grow too deep", self.profiles.meta.min);
            return Err(FormatError::Invalid { what: "a chunker profile", why });
        }
        [self.profiles.dump, self.profiles.files, self.profiles.meta].iter().try_for_each(Profile::check)
    }
}

impl Profile {
    fn check(&self) -> Result<(), FormatError> {
        // The bounds of the fastcdc crate, which are those of the algorithm's masks.
        let in_order =
            self.min >= 64 && self.avg >= 256 && self.max >= 1024 && self.min <= self.avg && self.avg <= self.max;
        let even = [self.min, self.avg, self.max].iter().all(|size| size % 2 == 0);
        if !in_order || !even || self.level > 3 || u64::from(self.max) > CHUNK_SIZE_MAX {
            return Err(FormatError::Invalid { what: "a chunker profile", why: format!("{self:?}") });
        }
        Ok(())
    }
}

/// A clear object with its signature: the line that was signed, and the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedText {
    /// The line of JSON.
    pub body: Vec<u8>,
    /// Ed25519 signature.
    pub signature: [u8; 64],
}

impl SignedText {
    /// The object as stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.body.clone();
        out.push(b'\n');
        out.extend_from_slice(hex_of(&self.signature).as_bytes());
        out.push(b'\n');
        out
    }

    /// Splits a stored object. The signature is not checked here.
    pub fn decode(what: &'static str, stored: &[u8]) -> Result<Self, FormatError> {
        let invalid = |why: &str| FormatError::Invalid { what, why: why.to_owned() };
        let text = stored.strip_suffix(b"\n").ok_or_else(|| invalid("it does not end with a line feed"))?;
        let at = text.iter().position(|byte| *byte == b'\n').ok_or_else(|| invalid("it is not two lines"))?;
        let (body, signature) = (&text[..at], &text[at + 1..]);
        let signature = std::str::from_utf8(signature).ok().and_then(bytes_of_hex).and_then(|s| s.try_into().ok());
        let signature = signature.ok_or_else(|| invalid("its second line is not a signature"))?;
        Ok(Self { body: body.to_vec(), signature })
    }
}

/// Reads the JSON line of a config object. The signature is not checked here.
pub fn decode_body(body: &[u8]) -> Result<Config, FormatError> {
    let config: Config = from_versioned_json("config", body)?;
    config.check()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::FORMAT_VERSION;

    fn config() -> Config {
        Config {
            format: FORMAT_VERSION,
            features: vec![],
            repository: RepositoryId::from_bytes([1; 16]),
            generation: 1,
            created_at: Timestamp::UNIX_EPOCH,
            suite: SUITE.to_owned(),
            root: hex_of(&[2; 32]),
            content_generation: 1,
            content_public: hex_of(&[3; 32]),
            metadata_generation: 1,
            profiles: Profiles::DEFAULT,
            single_writer: false,
        }
    }

    #[test]
    fn a_config_names_a_single_writer_only_if_there_may_be_no_other() {
        assert!(!String::from_utf8(config().body()).unwrap().contains("single_writer"));
        let alone = Config { single_writer: true, ..config() };
        assert!(decode_body(&alone.body()).unwrap().single_writer);
    }

    #[test]
    fn a_config_reads_back() {
        let text = SignedText { body: config().body(), signature: [7; 64] };
        let read = SignedText::decode("config", &text.encode()).expect("two lines");
        assert_eq!(read, text);
        assert_eq!(decode_body(&read.body), Ok(config()));
    }

    #[test]
    fn an_unknown_feature_is_refused_by_name() {
        let strange = Config { features: vec!["holograms".to_owned()], ..config() };
        assert_eq!(decode_body(&strange.body()), Err(FormatError::Features { names: "holograms".to_owned() }));
    }

    #[test]
    fn a_newer_format_is_refused_even_if_its_fields_are_others() {
        let error = decode_body(br#"{"format":2}"#);
        assert!(matches!(error, Err(FormatError::Version { found: 2, .. })), "{error:?}");
    }
}
