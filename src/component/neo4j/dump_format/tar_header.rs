//! One 512-byte header block of a tar, and the pax records.

/// Size of a block of a tar, in bytes.
pub(super) const BLOCK_SIZE: usize = 512;

/// What a header block announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// A regular file.
    File,
    /// A folder, link, device or pipe: no data.
    Other,
    /// Pax records for the next member (`x`).
    PaxNext,
    /// Pax records for all later members (`g`).
    PaxGlobal,
    /// A long name or link name of GNU's (`L`, `K`).
    LongName,
}

/// Reads a header block: what it announces, and the size it names.
pub(super) fn read(block: &[u8; BLOCK_SIZE]) -> Result<(Entry, u64), &'static str> {
    if &block[257..262] != b"ustar" {
        return Err("a header without `ustar`");
    }
    if number(&block[148..156]) != Some(checksum(block)) {
        return Err("a header with a wrong checksum");
    }
    let entry = match block[156] {
        0 | b'0' | b'7' => Entry::File,
        b'1'..=b'6' => Entry::Other,
        b'x' => Entry::PaxNext,
        b'g' => Entry::PaxGlobal,
        b'L' | b'K' => Entry::LongName,
        _ => return Err("a member of unknown type"),
    };
    let size = number(&block[124..136]).filter(|size| i64::try_from(*size).is_ok());
    Ok((entry, size.ok_or("a header with an unreadable size")?))
}

/// Bytes that fill the last block of `size` bytes of data.
pub(super) const fn padding(size: u64) -> u64 {
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

/// The `size` that pax records name, if they name one. A record is its own length in decimal, a blank, `key=value`, `\n`.
pub(super) fn pax_size(mut records: &[u8]) -> Result<Option<u64>, &'static str> {
    let mut size = None;
    while !records.is_empty() {
        let (record, rest) = pax_record(records).ok_or("unreadable pax records")?;
        if let Some(value) = record.strip_prefix(b"size=") {
            let value = decimal(value).filter(|size| i64::try_from(*size).is_ok());
            size = Some(value.ok_or("a pax record with an unreadable size")?);
        }
        records = rest;
    }
    Ok(size)
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
}
