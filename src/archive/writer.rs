//! Writing an archive as the predecessor writes it: names, order, fields, metadata.
//!
//! What is written must be known before: metadata come first, with the hash of each dump, and a header tells how long its file is.
//! Whoever exports reads each dump twice.
//!
//! Holds: [`ArchiveWriter::finish`] succeeds only if every dump had the length and hash that were promised.

use std::io::Write;
use std::mem::take;

use aws_lc_rs::digest::{Context, SHA256};
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};

use super::error::ArchiveError;
use super::information::Information;
use super::reader::Member;
use super::{INFORMATION, NEO4J, TOP};
use crate::id::hex_of;
use crate::tar_header::{self, BLOCK_SIZE, HEADER_SIZE_MAX, Header, padding, write_pax_record};

/// Level of the compression: dumps are compressed already.
const LEVEL: u32 = 1;

/// "Unknown", as Go's library says it.
const OPERATING_SYSTEM: u8 = 255;

/// Makes an archive. Dumps come in the order of their names, which is the predecessor's.
pub struct ArchiveWriter {
    gzip: GzEncoder<Vec<u8>>,
    information: Information,
    modified: u64,
    /// Dumps that are promised, the next one last.
    promised: Vec<Member>,
    current: Option<(Member, u64, Context)>,
}

impl ArchiveWriter {
    /// Begins an archive of `members`, whose hashes `information` names.
    ///
    /// # Errors
    /// If metadata and members do not fit.
    pub fn new(information: Information, mut members: Vec<Member>) -> Result<Self, ArchiveError> {
        Information::decode(&information.encode())?;
        members.sort_by(|one, other| other.name.cmp(&one.name));
        let gzip = GzBuilder::new().operating_system(OPERATING_SYSTEM).write(Vec::new(), Compression::new(LEVEL));
        let modified = u64::try_from(information.created_at.as_second()).unwrap_or(0);
        let mut writer = Self { gzip, information, modified, promised: members, current: None };
        let body = writer.information.encode();
        writer.folder(TOP);
        writer.file(INFORMATION, body.len() as u64)?;
        writer.push(&body);
        writer.push(&vec![0; usize::try_from(padding(body.len() as u64)).expect("less than a block")]);
        writer.folder(&format!("{TOP}/{NEO4J}"));
        Ok(writer)
    }

    /// Takes the next bytes of the dumps and appends to `out` what they become.
    ///
    /// # Errors
    /// If they are not what was promised.
    pub fn data(&mut self, name: &str, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        if self.current.as_ref().is_none_or(|(member, ..)| member.name != name) {
            self.end_member()?;
            let unknown = || ArchiveError::Missing { name: name.to_owned() };
            let member = self.promised.pop().filter(|member| member.name == name).ok_or_else(unknown)?;
            self.file(name, member.size)?;
            self.current = Some((member, 0, Context::new(&SHA256)));
        }
        let (member, written, hash) = self.current.as_mut().expect("set above");
        *written += bytes.len() as u64;
        if *written > member.size {
            return Err(length(member, *written));
        }
        hash.update(bytes);
        self.push(bytes);
        out.append(&mut take(self.gzip.get_mut()));
        Ok(())
    }

    /// Appends the end of the archive to `out`.
    ///
    /// # Errors
    /// If a dump is missing or is not what was promised.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        self.end_member()?;
        if let Some(member) = self.promised.pop() {
            return Err(ArchiveError::Missing { name: member.name });
        }
        self.push(&[0; 2 * BLOCK_SIZE]);
        out.append(&mut self.gzip.finish().expect("memory takes all bytes"));
        Ok(())
    }

    fn end_member(&mut self) -> Result<(), ArchiveError> {
        let Some((member, written, hash)) = self.current.take() else { return Ok(()) };
        if written != member.size {
            return Err(length(&member, written));
        }
        let found = hex_of(hash.finish().as_ref());
        let expected = self.information.checksums.get(&member.name).cloned().unwrap_or_default();
        if found != expected {
            return Err(ArchiveError::Checksum { name: member.name, expected, found });
        }
        self.push(&vec![0; usize::try_from(padding(written)).expect("less than a block")]);
        Ok(())
    }

    fn folder(&mut self, name: &str) {
        let block = tar_header::write(&Header { name, kind: b'5', mode: 0o755, size: 0, modified: self.modified });
        self.push(&block);
    }

    /// Writes the header of `name`, below `backup/`, and pax records where it cannot tell all.
    fn file(&mut self, name: &str, size: u64) -> Result<(), ArchiveError> {
        let full = format!("{TOP}/{name}");
        let mut records = String::new();
        if full.len() > 100 {
            records.push_str(&write_pax_record("path", &full));
        }
        if size > HEADER_SIZE_MAX {
            records.push_str(&write_pax_record("size", &size.to_string()));
        }
        if !full.is_ascii() {
            return Err(ArchiveError::Member { name: full, why: "its name is not ASCII" });
        }
        let modified = self.modified;
        if !records.is_empty() {
            let (folder, file) = full.rsplit_once('/').expect("it is below the top");
            let name = format!("{folder}/PaxHeaders.0/{file}");
            let header = Header { name: &name, kind: b'x', mode: 0, size: records.len() as u64, modified: 0 };
            self.push(&tar_header::write(&header));
            self.push(records.as_bytes());
            self.push(&vec![0; usize::try_from(padding(records.len() as u64)).expect("less than a block")]);
        }
        self.push(&tar_header::write(&Header { name: &full, kind: b'0', mode: 0o644, size, modified }));
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) {
        self.gzip.write_all(bytes).expect("memory takes all bytes");
    }
}

fn length(member: &Member, found: u64) -> ArchiveError {
    ArchiveError::Length { name: member.name.clone(), expected: member.size, found }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn writer(name: &str, size: u64) -> ArchiveWriter {
        let text = format!(
            r#"{{"metadata_version":2025111200,"created_at":"2026-11-22T15:12:26Z","checksums":{{"{name}":"{NOTHING}"}}}}"#
        );
        let information = Information::decode(text.as_bytes()).unwrap();
        ArchiveWriter::new(information, vec![Member { name: name.to_owned(), size }]).unwrap()
    }

    /// What is in the tar once the writer got one byte.
    fn begun(mut writer: ArchiveWriter, name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        writer.data(name, b"x", &mut out).unwrap();
        writer.gzip.flush().unwrap();
        out.append(&mut take(writer.gzip.get_mut()));
        let mut tar = Vec::new();
        // It does not end: what came so far is what is asked for.
        let _ = flate2::read::GzDecoder::new(&out[..]).read_to_end(&mut tar);
        tar
    }

    #[test]
    fn a_dump_of_eight_gibibytes_has_its_size_in_pax_records() {
        for (size, records) in [(HEADER_SIZE_MAX, 0), (HEADER_SIZE_MAX + 1, 1)] {
            let tar = begun(writer("database/neo4j.dump", size), "database/neo4j.dump");
            let found = tar.windows(19).filter(|window| window == b"19 size=8589934592\n").count();
            assert_eq!(found, records, "{size}");
            let mut walk = crate::archive::tar::Walk::new();
            let (mut input, mut last) = (bytes::Bytes::from(tar), None);
            while let Some(item) = walk.next(&mut input).unwrap() {
                if let crate::archive::tar::Item::Entry(entry) = item {
                    last = entry.size;
                }
            }
            assert_eq!(last, Some(size));
        }
    }

    #[test]
    fn a_long_name_stands_in_pax_records() {
        let name = format!("database/{}-2026-11-22T15-12-26.backup", "x".repeat(90));
        let tar = begun(writer(&name, 1), &name);
        let record = write_pax_record("path", &format!("backup/{name}"));
        assert!(tar.windows(record.len()).any(|window| window == record.as_bytes()));
    }

    #[test]
    fn what_is_not_as_promised_is_refused() {
        let name = "database/neo4j.dump";
        let out = &mut Vec::new();
        assert!(matches!(writer(name, 0).finish(out), Err(ArchiveError::Missing { .. })));
        assert!(matches!(writer(name, 0).data(name, b"x", out), Err(ArchiveError::Length { .. })));
        assert!(matches!(writer(name, 0).data("prefect.dump", b"", out), Err(ArchiveError::Missing { .. })));
        let mut short = writer(name, 2);
        short.data(name, b"x", out).unwrap();
        assert!(matches!(short.finish(out), Err(ArchiveError::Length { found: 1, .. })));
        let mut other = writer(name, 1);
        other.data(name, b"x", out).unwrap();
        assert!(matches!(other.finish(out), Err(ArchiveError::Checksum { .. })));
        let mut right = writer(name, 0);
        right.data(name, b"", out).unwrap();
        right.finish(out).unwrap();
    }
}
