//! The containers, and what must be remembered of one to write it again.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{bytes_of_hex, hex_of};

/// Bytes that [`recognise`] needs.
pub const RECOGNISE_SIZE: usize = 4;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// The containers that Neo4j 5 reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerKind {
    /// `DZV1`, zstd: what `database dump` writes.
    DumpZstd,
    /// `DGV1`, gzip: what `database dump` writes where zstd cannot be loaded.
    DumpGzip,
    /// zstd without a magic of Neo4j's own: dumps before `DZV1`.
    LegacyZstd,
    /// gzip without a magic of Neo4j's own. Neo4j reads it from a file, but not from its standard input.
    LegacyGzip,
    /// `BTV1`: an uncompressed full backup of the Enterprise edition, older metadata.
    BackupTarV1,
    /// `BZV1`: a compressed full backup, older metadata.
    BackupZstdV1,
    /// `BTV2`: an uncompressed full backup of the Enterprise edition.
    BackupTarV2,
    /// `BZV2`: a compressed full backup of the Enterprise edition.
    BackupZstdV2,
}

/// What compresses a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Zstd,
    Gzip,
}

impl ContainerKind {
    /// The bytes before the compression; empty for the legacy kinds.
    pub(super) const fn magic(self) -> &'static [u8] {
        match self {
            Self::DumpZstd => b"DZV1",
            Self::DumpGzip => b"DGV1",
            Self::LegacyZstd | Self::LegacyGzip => b"",
            Self::BackupTarV1 => b"BTV1",
            Self::BackupZstdV1 => b"BZV1",
            Self::BackupTarV2 => b"BTV2",
            Self::BackupZstdV2 => b"BZV2",
        }
    }

    pub(super) const fn compression(self) -> Compression {
        match self {
            Self::DumpZstd | Self::LegacyZstd | Self::BackupZstdV1 | Self::BackupZstdV2 => Compression::Zstd,
            Self::DumpGzip | Self::LegacyGzip => Compression::Gzip,
            Self::BackupTarV1 | Self::BackupTarV2 => Compression::None,
        }
    }
}

impl fmt::Display for ContainerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DumpZstd => "dump-zstd",
            Self::DumpGzip => "dump-gzip",
            Self::LegacyZstd => "legacy-zstd",
            Self::LegacyGzip => "legacy-gzip",
            Self::BackupTarV1 => "backup-tar-v1",
            Self::BackupZstdV1 => "backup-zstd-v1",
            Self::BackupTarV2 => "backup-tar-v2",
            Self::BackupZstdV2 => "backup-zstd-v2",
        })
    }
}

/// The container that begins with these bytes; `None` for any other bytes and for fewer than [`RECOGNISE_SIZE`].
pub fn recognise(first_bytes: &[u8]) -> Option<ContainerKind> {
    let magic = first_bytes.first_chunk::<RECOGNISE_SIZE>()?;
    match magic {
        b"DZV1" => Some(ContainerKind::DumpZstd),
        b"DGV1" => Some(ContainerKind::DumpGzip),
        b"BTV1" => Some(ContainerKind::BackupTarV1),
        b"BZV1" => Some(ContainerKind::BackupZstdV1),
        b"BTV2" => Some(ContainerKind::BackupTarV2),
        b"BZV2" => Some(ContainerKind::BackupZstdV2),
        &ZSTD_MAGIC => Some(ContainerKind::LegacyZstd),
        magic if magic.starts_with(&GZIP_MAGIC) => Some(ContainerKind::LegacyGzip),
        _ => None,
    }
}

/// What must be remembered of a container to write it again, and what was seen in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// Which container.
    pub kind: ContainerKind,
    /// The bytes between the start of the (decompressed) contents and the tar, at most [`super::PREFIX_SIZE_MAX`].
    /// Hexadecimal when serialised.
    #[serde(serialize_with = "write_hex", deserialize_with = "read_hex")]
    pub prefix: Vec<u8>,
    /// Regular files in the tar.
    pub files: u64,
    /// Sum of their sizes, in bytes.
    pub data_bytes: u64,
}

fn write_hex<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex_of(bytes))
}

fn read_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    bytes_of_hex(&text).ok_or_else(|| serde::de::Error::custom("the header of a container is not hexadecimal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_record_survives_json_with_its_prefix_in_hexadecimal() {
        let info = ContainerInfo { kind: ContainerKind::BackupTarV2, prefix: vec![0, 255], files: 3, data_bytes: 9 };
        let json = serde_json::to_string(&info).unwrap();
        assert_eq!(json, r#"{"kind":"backup-tar-v2","prefix":"00ff","files":3,"data_bytes":9}"#);
        assert_eq!(serde_json::from_str::<ContainerInfo>(&json).unwrap(), info);
    }

    #[test]
    fn the_displayed_kind_is_the_serialised_kind() {
        for kind in [ContainerKind::DumpZstd, ContainerKind::BackupZstdV1, ContainerKind::LegacyGzip] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
        }
    }

    #[test]
    fn three_bytes_of_a_magic_are_not_recognised() {
        assert_eq!(recognise(b"DZV"), None);
        assert_eq!(recognise(b"DZV1 and more"), Some(ContainerKind::DumpZstd));
    }
}
