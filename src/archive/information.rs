//! `backup_information.json`: what an archive says of itself.
//!
//! Three versions are known. They differ in which keys are there, and in whether `components` can be believed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::ser::PrettyFormatter;

use super::error::ArchiveError;
use super::{NEO4J, POSTGRES};

/// The version that is written: since v1.0.0 of the predecessor.
pub const METADATA_VERSION: u64 = 2_025_111_200;

/// Versions that are read: since v0.0.1, v0.0.7 and v1.0.0.
const KNOWN: [u64; 3] = [2_025_092_500, 2_025_102_200, METADATA_VERSION];

/// Name of the Neo4j component.
pub const DATABASE: &str = "database";

/// Name of the PostgreSQL component.
pub const TASK_MANAGER: &str = "task-manager-db";

/// What an archive says of itself. The keys stand in the order in which the predecessor writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Information {
    /// One of three.
    pub metadata_version: u64,
    /// Its file's name without `.tar.gz`.
    #[serde(default)]
    pub backup_id: String,
    /// When it was begun.
    pub created_at: Timestamp,
    /// What made it.
    #[serde(default)]
    pub tool_version: String,
    /// Of what it was made; `unknown` or empty where that was not found out.
    #[serde(default)]
    pub infrahub_version: String,
    /// Names of components.
    #[serde(default)]
    pub components: Vec<String>,
    /// SHA-256 of each file, in hexadecimal, by its path below `backup/`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checksums: BTreeMap<String, String>,
    /// `community` or `enterprise`, since v1.0.0.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub neo4j_edition: String,
    /// Whether values of attributes were replaced, since v1.4.0.
    #[serde(default, skip_serializing_if = "is_false")]
    pub redacted: bool,
    /// Whether it was encrypted, since v1.5.0.
    #[serde(default, skip_serializing_if = "is_false")]
    pub encrypted: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the form that serde asks for
fn is_false(value: &bool) -> bool {
    !value
}

impl Information {
    /// Reads it.
    ///
    /// # Errors
    /// If it is not of a known version, or names no dump of Neo4j, or several.
    pub fn decode(bytes: &[u8]) -> Result<Self, ArchiveError> {
        let mut found: Self = serde_json::from_slice(bytes).map_err(|source| ArchiveError::Information { source })?;
        if !KNOWN.contains(&found.metadata_version) {
            return wrong(format!("its metadata version {} is not known", found.metadata_version));
        }
        // A build for Windows wrote its own separator.
        let checksums = std::mem::take(&mut found.checksums);
        found.checksums =
            checksums.into_iter().map(|(name, sum)| (name.replace('\\', "/"), sum.to_lowercase())).collect();
        if let Some((name, _)) = found.checksums.iter().find(|(_, sum)| !is_sha256(sum)) {
            return wrong(format!("the checksum of `{}` is no SHA-256", name.escape_debug()));
        }
        let edition = found.neo4j_edition.as_str();
        if !matches!(edition, "" | "community" | "enterprise") {
            return wrong(format!("its edition `{}` is not known", edition.escape_debug()));
        }
        found.neo4j_dump()?;
        if found.claims_task_manager() && !found.checksums.contains_key(POSTGRES) {
            return wrong(format!("its components name `{TASK_MANAGER}`, and its checksums no `{POSTGRES}`"));
        }
        Ok(found)
    }

    /// The bytes that the predecessor would write.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"    "));
        self.serialize(&mut serializer).expect("metadata are plain data");
        let text = String::from_utf8(out).expect("JSON is text");
        // Go's library also escapes what would be something in HTML or JavaScript; outside of texts none of it occurs.
        let escapes = [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u{2028}", "\\u2028")];
        let escaped = escapes.iter().fold(text, |text, (from, to)| text.replace(from, to));
        escaped.replace('\u{2029}', "\\u2029").into_bytes()
    }

    /// The path, below `backup/`, of the one dump of Neo4j.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub fn neo4j_dump(&self) -> Result<&str, ArchiveError> {
        let dumps: Vec<&str> = self.checksums.keys().map(String::as_str).filter(|name| is_neo4j_dump(name)).collect();
        match dumps[..] {
            [dump] => Ok(dump),
            [] => wrong(format!("its checksums name no dump in `{NEO4J}/`")),
            _ => wrong(format!(
                "its checksums name {} dumps in `{NEO4J}/`, and a snapshot holds one: {}",
                dumps.len(),
                dumps.iter().map(|dump| dump.escape_debug().to_string()).collect::<Vec<_>>().join(", ")
            )),
        }
    }

    /// Whether it holds a dump of PostgreSQL.
    pub fn has_postgres(&self) -> bool {
        self.checksums.contains_key(POSTGRES)
    }

    /// Whether `components` says so. All versions that wrote archives without `prefect.dump` tell the truth there.
    fn claims_task_manager(&self) -> bool {
        self.components.iter().any(|name| name == TASK_MANAGER)
    }

    /// The edition: what it says, else what the dump's name says, as the versions before it was told wrote Enterprise alone.
    pub fn edition(&self) -> &str {
        match (self.neo4j_edition.as_str(), self.neo4j_dump()) {
            ("", Ok(name)) if has_extension(name, "backup") => "enterprise",
            ("", _) => "community",
            (edition, _) => edition,
        }
    }

    /// The version of Infrahub, if it is known.
    pub fn infrahub_version(&self) -> Option<&str> {
        Some(self.infrahub_version.as_str()).filter(|version| !matches!(*version, "" | "unknown"))
    }
}

/// Whether `name`, below `backup/`, is that of a Neo4j dump.
fn is_neo4j_dump(name: &str) -> bool {
    let inside = name.strip_prefix(NEO4J).and_then(|rest| rest.strip_prefix('/'));
    inside.is_some_and(|file| has_extension(file, "dump") || has_extension(file, "backup"))
}

fn has_extension(name: &str, extension: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, found)| found == extension)
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}

fn wrong<T>(what: String) -> Result<T, ArchiveError> {
    Err(ArchiveError::Inconsistent { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What v1.7.4 of the predecessor wrote, byte for byte.
    const REAL: &str = r#"{
    "metadata_version": 2025111200,
    "backup_id": "infrahub_backup_20261122_151226",
    "created_at": "2026-11-22T15:12:26Z",
    "tool_version": "\u003cnone\u003e",
    "infrahub_version": "1.11.9",
    "components": [
        "database",
        "task-manager-db"
    ],
    "checksums": {
        "database/neo4j.dump": "6575fa937aa08e5a6818925022f050b43887d2054cee39252cba05f5b760dcee",
        "prefect.dump": "3886425bea7c27c13ad13fa7ba62c217613e5a497c792959ea6ad04be8d25390"
    },
    "neo4j_edition": "community"
}"#;

    #[test]
    fn what_the_predecessor_wrote_is_written_again_as_the_same_bytes() {
        let found = Information::decode(REAL.as_bytes()).unwrap();
        assert_eq!(found.tool_version, "<none>");
        assert_eq!((found.neo4j_dump().unwrap(), found.edition()), ("database/neo4j.dump", "community"));
        assert_eq!(String::from_utf8(found.encode()).unwrap(), REAL);
    }

    #[test]
    fn the_oldest_version_names_artifacts_that_are_not_there_and_no_edition() {
        let text = REAL
            .replace("2025111200", "2025092500")
            .replace("\"task-manager-db\"", "\"task-manager-db\", \"artifacts\"")
            .replace("neo4j.dump", "neo4j-2025-10-01T10-00-00.backup")
            .replace(",\n    \"neo4j_edition\": \"community\"", "");
        let found = Information::decode(text.as_bytes()).unwrap();
        assert_eq!((found.edition(), found.has_postgres()), ("enterprise", true));
    }

    #[test]
    fn separators_of_windows_are_understood() {
        let found = Information::decode(REAL.replace("database/neo4j", r"database\\neo4j").as_bytes()).unwrap();
        assert_eq!(found.neo4j_dump().unwrap(), "database/neo4j.dump");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (from, to) in [
            ("2025111200", "2031010100"),
            ("\"community\"", "\"desktop\""),
            ("6575fa93", "6575fa9"),
            ("database/neo4j.dump", "database/neo4j.txt"),
            ("database/neo4j.dump", "neo4j.dump"),
            ("prefect.dump", "database/other.dump"),
            ("prefect.dump", "database/notes"),
            ("\"2026-11-22T15:12:26Z\"", "\"yesterday\""),
            ("\"created_at\"", "\"made_at\""),
        ] {
            let text = REAL.replacen(from, to, 1);
            assert_ne!(text, REAL);
            assert!(Information::decode(text.as_bytes()).is_err(), "{from} as {to}");
        }
    }
}
