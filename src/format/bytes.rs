//! Reading and writing fixed fields, little endian.

use super::FormatError;
use crate::id::ChunkId;

/// Takes fields from the front of a slice.
#[derive(Debug)]
pub struct FieldReader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> FieldReader<'a> {
    /// Reads `bytes`; `what` names them in errors.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let missing = count.saturating_sub(self.rest.len());
        if missing > 0 {
            return Err(FormatError::Truncated { what: self.what, missing });
        }
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        Ok(self.take(N)?.try_into().expect("take gives the length asked for"))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of records of `record_size` bytes each, refused if the input cannot hold them: no allocation on a lie.
    pub fn count(&mut self, record_size: usize) -> Result<usize, FormatError> {
        let count = usize::try_from(self.u32()?).expect("usize has 32 bits or more");
        let needed = count.saturating_mul(record_size);
        match needed.saturating_sub(self.rest.len()) {
            0 => Ok(count),
            missing => Err(FormatError::Truncated { what: self.what, missing }),
        }
    }

    /// `count` chunk ids.
    pub fn chunk_ids(&mut self, count: usize) -> Result<Vec<ChunkId>, FormatError> {
        let bytes = self.take(count.saturating_mul(ChunkId::SIZE))?;
        let (ids, _) = bytes.as_chunks::<{ ChunkId::SIZE }>();
        Ok(ids.iter().map(|id| ChunkId::from_bytes(*id)).collect())
    }

    /// Bytes not yet taken.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Refuses trailing bytes.
    pub fn finish(self) -> Result<(), FormatError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(FormatError::Trailing { what: self.what, extra }),
        }
    }
}

/// Appends a count as four bytes.
///
/// # Panics
/// If there are 2^32 or more: every list of the format has a limit far below.
pub fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).expect("lists of the format are below 2^32").to_le_bytes());
}

/// Appends chunk ids, without a count.
pub fn put_chunk_ids(out: &mut Vec<u8>, ids: &[ChunkId]) {
    ids.iter().for_each(|id| out.extend_from_slice(id.as_bytes()));
}
