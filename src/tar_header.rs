//! One 512-byte header block of a tar, and the pax records.
//!
//! Does not: walk a tar, nor touch files. Neo4j's dumps and the predecessor's archives are both tars, and are walked for
//! different reasons: the one must come back byte for byte, of the other only its files count.

/// Size of a block of a tar, in bytes.
pub const BLOCK_SIZE: usize = 512;

/// What a header block announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File,
    /// A folder: no data.
    Folder,
    /// A link, device or pipe: no data.
    Other,
    /// Pax records for the next member (`x`).
    PaxNext,
    /// Pax records for all later members (`g`).
    PaxGlobal,
    /// A long name or link name of GNU's (`L`, `K`).
    LongName,
}

/// Reads a header block: what it announces, and the size it names.
///
/// # Errors
/// What is wrong with it.
pub fn read(block: &[u8; BLOCK_SIZE]) -> Result<(Entry, u64), &'static str> {
    if &block[257..262] != b"ustar" {
        return Err("a header without `ustar`");
    }
    if number(&block[148..156]) != Some(checksum(block)) {
        return Err("a header with a wrong checksum");
    }
    let entry = match block[156] {
        0 | b'0' | b'7' => Entry::File,
        b'5' => Entry::Folder,
        b'1'..=b'6' => Entry::Other,
        b'x' => Entry::PaxNext,
        b'g' => Entry::PaxGlobal,
        b'L' | b'K' => Entry::LongName,
        _ => return Err("a member of unknown type"),
    };
    let size = number(&block[124..136]).filter(|size| i64::try_from(*size).is_ok());
    Ok((entry, size.ok_or("a header with an unreadable size")?))
}

/// The name in a header block that was read: with what POSIX puts in front of it, without what pax records say instead.
pub fn name(block: &[u8; BLOCK_SIZE]) -> Vec<u8> {
    let text = |field: &[u8]| field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
    // GNU's older form keeps other things in the place of the prefix.
    let posix = block[257..263] == *b"ustar\0";
    if posix && !prefix.is_empty() { [prefix, b"/".to_vec(), name].concat() } else { name }
}

/// What a header block that is written says.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// At most 100 bytes.
    pub name: &'a str,
    /// `0`, `5` or `x`.
    pub kind: u8,
    /// Permissions.
    pub mode: u32,
    /// Bytes of data; what does not fit is written as zero, and pax records must tell it.
    pub size: u64,
    /// Seconds since 1970.
    pub modified: u64,
}

/// Largest size that a header block can tell itself.
pub const HEADER_SIZE_MAX: u64 = (1 << 33) - 1;

/// Writes a header block, owned by root, with the fields as Go's `archive/tar` fills them.
pub fn write(header: &Header) -> [u8; BLOCK_SIZE] {
    let mut block = [0; BLOCK_SIZE];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let size = if header.size > HEADER_SIZE_MAX { 0 } else { header.size };
    let name = header.name.as_bytes();
    put(0, &name[..name.len().min(100)]);
    put(100, format!("{:07o}", header.mode).as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{:011o}", header.modified & HEADER_SIZE_MAX).as_bytes());
    put(156, &[header.kind]);
    put(257, b"ustar\x0000");
    if header.kind != b'x' {
        put(265, b"root");
        put(297, b"root");
        put(329, b"0000000");
        put(337, b"0000000");
    }
    let sum = format!("{:06o}\0 ", checksum(&block));
    block[148..156].copy_from_slice(sum.as_bytes());
    block
}

/// Bytes that fill the last block of `size` bytes of data.
pub const fn padding(size: u64) -> u64 {
    let block = BLOCK_SIZE as u64;
    (block - size % block) % block
}

/// Sum of all bytes, the checksum field read as blanks.
fn checksum(block: &[u8; BLOCK_SIZE]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(&block[..148]) + 8 * u64::from(b' ') + sum(&block[156..])
}

/// Octal digits between blanks and zero bytes; or, after a byte `0x80`, a big-endian integer (GNU, star).
fn number(field: &[u8]) -> Option<u64> {
    if field[0] == 0x80 {
        return field[1..].iter().try_fold(0u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte)));
    }
    let text = field.split(|byte| *byte == 0).next()?.trim_ascii();
    text.iter().try_fold(0u64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// The `size` that pax records name, if they name one.
///
/// # Errors
/// What is wrong with the records.
pub fn pax_size(records: &[u8]) -> Result<Option<u64>, &'static str> {
    let Some(value) = pax_value(records, b"size")? else { return Ok(None) };
    let size = decimal(&value).filter(|size| i64::try_from(*size).is_ok());
    size.map(Some).ok_or("a pax record with an unreadable size")
}

/// The value that pax records last give to `key`, if any. A record is its own length in decimal, a blank, `key=value`, `\n`.
///
/// # Errors
/// What is wrong with the records.
pub fn pax_value(mut records: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let mut found = None;
    while !records.is_empty() {
        let (record, rest) = pax_record(records).ok_or("unreadable pax records")?;
        if let Some(value) = record.strip_prefix(key).and_then(|rest| rest.strip_prefix(b"=")) {
            found = Some(value.to_vec());
        }
        records = rest;
    }
    Ok(found)
}

/// One pax record.
pub fn write_pax_record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    // The length counts its own digits.
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

/// The first record (`key=value`) and the rest.
fn pax_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = records.iter().position(|byte| *byte == b' ')?;
    let size = usize::try_from(decimal(&records[..blank])?).ok()?;
    let (record, rest) = records.split_at_checked(size)?;
    let record = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    record.contains(&b'=').then_some((record, rest))
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, digit| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_beyond_eleven_octal_digits_is_read_from_base_256() {
        let mut field = [0u8; 12];
        field[0] = 0x80;
        field[7] = 2;
        assert_eq!(number(&field), Some(2 << 32));
        field[0] = 0xff;
        assert_eq!(number(&field), None, "negative sizes are refused");
    }

    #[test]
    fn the_last_size_among_pax_records_counts() {
        assert_eq!(pax_size(b"11 path=aa\n11 size=999\n"), Err("unreadable pax records"));
        assert_eq!(pax_size(b"11 path=aa\n13 size=9999\n12 size=421\n"), Ok(Some(421)));
        assert_eq!(pax_size(b"11 path=aa\n"), Ok(None));
        assert_eq!(pax_size(b"12 size=4x1\n"), Err("a pax record with an unreadable size"));
    }

    #[test]
    fn a_pax_record_counts_the_digits_of_its_own_length() {
        assert_eq!(write_pax_record("size", "8589934592"), "19 size=8589934592\n");
        assert_eq!(write_pax_record("p", "1234"), "9 p=1234\n");
        assert_eq!(write_pax_record("p", "12345"), "11 p=12345\n");
    }

    /// The second header of an archive that v1.7.4 of the predecessor wrote, in which only digits, names and marks are not zero.
    #[test]
    fn a_header_is_written_as_gos_library_writes_it() {
        let mut block = [0; BLOCK_SIZE];
        let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, "backup/backup_information.json");
        put(100, "0000644\x000000000\x000000000\x0000000001021\x0015300603162\x00017054\x00 0");
        put(257, "ustar\x0000root");
        put(297, "root");
        put(329, "0000000\x000000000\x00");
        let modified = 0o15_300_603_162;
        let header = Header { name: "backup/backup_information.json", kind: b'0', mode: 0o644, size: 529, modified };
        assert!(write(&header) == block);
        assert_eq!(read(&block), Ok((Entry::File, 529)));
        assert_eq!(name(&block), b"backup/backup_information.json");
    }
}
