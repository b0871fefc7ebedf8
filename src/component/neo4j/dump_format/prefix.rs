//! The header between the start of a container's contents and its tar. All integers are big-endian.
//!
//! - zstd containers: `"zstd"`, then for backups the metadata, then `i32 1`, `i64 files`, `i64 bytes`;
//! - gzip containers: nothing;
//! - uncompressed backups: the metadata.
//!
//! Metadata of a backup: in version 2 one byte `2`; store id (`u8 1`, `i64` time, `i64` random, two texts, `u8` major,
//! `u8` minor); database id, name (texts); `i64` time, lowest and highest append index; flags (a text whose bit 2 is
//! "full"); in version 2 `i32` pairs of texts with `i32` lengths. A text is a `u8` length and its bytes.

use super::kind::ContainerKind;

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    /// Length, in bytes.
    pub size: usize,
    /// Regular files and the sum of their sizes, where the header names them; zero is "unknown".
    pub counts: Option<(u64, u64)>,
}

/// Why there is no header yet, or never will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// More bytes are needed.
    More,
    /// It is wrong at this byte.
    Wrong(&'static str, u64),
}

/// The header of a container of `kind` at the start of `bytes`.
pub(super) fn parse(kind: ContainerKind, bytes: &[u8]) -> Result<Prefix, Stop> {
    let mut at = Cursor { bytes, at: 0 };
    let counts = match kind {
        ContainerKind::DumpZstd | ContainerKind::LegacyZstd => {
            at.zstd()?;
            Some(at.counts()?)
        }
        ContainerKind::DumpGzip | ContainerKind::LegacyGzip => None,
        ContainerKind::BackupTarV1 => {
            at.metadata()?;
            None
        }
        ContainerKind::BackupTarV2 => {
            at.versioned_metadata()?;
            None
        }
        ContainerKind::BackupZstdV1 => {
            at.zstd()?;
            at.metadata()?;
            Some(at.counts()?)
        }
        ContainerKind::BackupZstdV2 => {
            at.zstd()?;
            at.versioned_metadata()?;
            Some(at.counts()?)
        }
    };
    Ok(Prefix { size: at.at, counts })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, size: usize) -> Result<&'a [u8], Stop> {
        let found = self.bytes[self.at..].get(..size).ok_or(Stop::More)?;
        self.at += size;
        Ok(found)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        Ok(self.take(N)?.try_into().expect("`take` gives as many bytes as asked"))
    }

    fn wrong<T>(&self, what: &'static str, size: usize) -> Result<T, Stop> {
        Err(Stop::Wrong(what, (self.at - size) as u64))
    }

    fn zstd(&mut self) -> Result<(), Stop> {
        if self.array()? == *b"zstd" { Ok(()) } else { self.wrong("no `zstd` in front", 4) }
    }

    fn counts(&mut self) -> Result<(u64, u64), Stop> {
        if i32::from_be_bytes(self.array()?) != 1 {
            return self.wrong("an unknown version", 4);
        }
        Ok((self.count()?, self.count()?))
    }

    fn count(&mut self) -> Result<u64, Stop> {
        match u64::try_from(i64::from_be_bytes(self.array()?)) {
            Ok(count) => Ok(count),
            Err(_) => self.wrong("a negative count", 8),
        }
    }

    fn text(&mut self) -> Result<&'a [u8], Stop> {
        let [size] = self.array()?;
        self.take(usize::from(size))
    }

    fn long_text(&mut self) -> Result<(), Stop> {
        match usize::try_from(i32::from_be_bytes(self.array()?)) {
            Ok(size) => self.take(size).map(|_| ()),
            Err(_) => self.wrong("a text of negative length", 4),
        }
    }

    fn metadata(&mut self) -> Result<(), Stop> {
        if self.array()? != [1u8] {
            return self.wrong("a store id of unknown version", 1);
        }
        self.take(16)?;
        self.text()?;
        self.text()?;
        self.take(2)?;
        self.text()?;
        self.text()?;
        self.take(24)?;
        let flags = self.text()?;
        if flags.first().is_none_or(|bits| bits & 4 == 0) {
            return self.wrong("the mark of a differential backup, which cannot be loaded alone", flags.len());
        }
        Ok(())
    }

    fn versioned_metadata(&mut self) -> Result<(), Stop> {
        if self.array()? != [2u8] {
            return self.wrong("metadata of unknown version", 1);
        }
        self.metadata()?;
        let pairs = i32::from_be_bytes(self.array()?);
        if pairs < 0 {
            return self.wrong("a negative number of fields", 4);
        }
        for _ in 0..pairs {
            self.long_text()?;
            self.long_text()?;
        }
        Ok(())
    }
}
