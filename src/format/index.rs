//! Where chunks are: descriptions of packs, as they stand in index objects and in the footers of tree packs.
//!
//! One codec, [`PackEntry`], serves both, so that an index can be rebuilt from packs by copying.

use super::bytes::{FieldReader, put_chunk_ids, put_count};
use super::envelope::ObjectType;
use super::{FORMAT_VERSION, FormatError};
use crate::id::{ChunkId, ObjectId, PackId};
use crate::limits::{
    BASE_DEPTH_MAX, CHUNK_SIZE_MAX, INDEX_CHUNKS_MAX, PACK_SIZE_MAX, SEGMENT_BASE_SIZE_MAX, SEGMENT_SEAL_OVERHEAD,
    SEGMENT_SIZE_MAX,
};

/// What the plaintext of a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SegmentKind {
    /// Chunks, one behind the other.
    Chunks = 0,
    /// The [`PackEntry`] of a content pack, as one chunk; only in tree packs.
    PackEntry = 1,
}

impl SegmentKind {
    fn from_code(code: u8) -> Result<Self, FormatError> {
        match code {
            0 => Ok(Self::Chunks),
            1 => Ok(Self::PackEntry),
            _ => Err(FormatError::Invalid { what: "the segment kind", why: format!("{code} is not assigned") }),
        }
    }
}

/// One chunk inside a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkEntry {
    /// Its identity.
    pub id: ChunkId,
    /// Its length in bytes of plaintext.
    pub length: u32,
}

/// One segment inside a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentEntry {
    /// What its plaintext is.
    pub kind: SegmentKind,
    /// Where it begins in the pack, in bytes.
    pub offset: u32,
    /// Its length in the pack, nonce and tag included, in bytes.
    pub stored_length: u32,
    /// How many bases must be decoded before it, one behind the other; 0 without a base.
    pub depth: u8,
    /// The chunks whose plaintexts, one behind the other, are its compression prefix.
    pub base: Vec<ChunkId>,
    /// Its chunks in order.
    pub chunks: Vec<ChunkEntry>,
}

impl SegmentEntry {
    /// How deep the segments of its bases may be, at most.
    pub fn base_depth(&self) -> u32 {
        u32::from(self.depth).saturating_sub(1)
    }

    /// The chunks of its base, each with how deep the segment may be that it is read from.
    pub fn bases(&self) -> impl Iterator<Item = (ChunkId, u32)> + use<'_> {
        self.base.iter().map(|id| (*id, self.base_depth()))
    }

    /// Length of its plaintext, in bytes.
    pub fn plain_length(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.length)).sum()
    }

    /// Where it lies in the pack.
    pub fn range(&self) -> std::ops::Range<u64> {
        let start = u64::from(self.offset);
        start..start + u64::from(self.stored_length)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind as u8);
        out.push(self.depth);
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.stored_length.to_le_bytes());
        put_count(out, self.base.len());
        put_chunk_ids(out, &self.base);
        put_count(out, self.chunks.len());
        self.chunks.iter().for_each(|chunk| out.extend_from_slice(chunk.id.as_bytes()));
        self.chunks.iter().for_each(|chunk| out.extend_from_slice(&chunk.length.to_le_bytes()));
    }

    fn decode(fields: &mut FieldReader<'_>) -> Result<Self, FormatError> {
        let kind = SegmentKind::from_code(fields.u8()?)?;
        let depth = fields.u8()?;
        let offset = fields.u32()?;
        let stored_length = fields.u32()?;
        let base_count = fields.count(ChunkId::SIZE)?;
        let base = fields.chunk_ids(base_count)?;
        let count = fields.count(ChunkId::SIZE + 4)?;
        let ids = fields.chunk_ids(count)?;
        let chunks = ids
            .into_iter()
            .map(|id| Ok(ChunkEntry { id, length: fields.u32()? }))
            .collect::<Result<Vec<_>, FormatError>>()?;
        let entry = Self { kind, offset, stored_length, depth, base, chunks };
        entry.check()?;
        Ok(entry)
    }

    fn check(&self) -> Result<(), FormatError> {
        let invalid = |what, why: &str| Err(FormatError::Invalid { what, why: why.to_owned() });
        if let Some(chunk) = self.chunks.iter().find(|chunk| u64::from(chunk.length) > CHUNK_SIZE_MAX) {
            return Err(FormatError::Limit {
                what: "the length of a chunk",
                found: chunk.length.into(),
                limit: CHUNK_SIZE_MAX,
            });
        }
        if self.chunks.iter().any(|chunk| chunk.length == 0) {
            return invalid("a chunk", "it is empty");
        }
        if self.chunks.is_empty() {
            return invalid("a segment", "it has no chunk");
        }
        let limit =
            |what, found, limit| if found > limit { Err(FormatError::Limit { what, found, limit }) } else { Ok(()) };
        limit("the plaintext of a segment", self.plain_length(), SEGMENT_SIZE_MAX)?;
        limit("the depth of a base", self.depth.into(), BASE_DEPTH_MAX.into())?;
        limit("the number of chunks in a base", self.base.len() as u64, SEGMENT_BASE_SIZE_MAX / 64)?;
        limit("the end of a segment", u64::from(self.offset) + u64::from(self.stored_length), PACK_SIZE_MAX)?;
        if u64::from(self.stored_length) <= SEGMENT_SEAL_OVERHEAD {
            return invalid("the stored length of a segment", "it holds no data");
        }
        if self.base.is_empty() != (self.depth == 0) {
            return invalid("the depth of a base", "it does not fit the base");
        }
        Ok(())
    }
}

/// One pack and all its segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackEntry {
    /// Its name.
    pub id: PackId,
    /// [`ObjectType::ContentPack`] or [`ObjectType::TreePack`].
    pub kind: ObjectType,
    /// Its length as stored, in bytes.
    pub stored_size: u32,
    /// Its segments, in the order of their ordinals.
    pub segments: Vec<SegmentEntry>,
}

impl PackEntry {
    /// Chunks in all segments.
    pub fn chunk_count(&self) -> usize {
        self.segments.iter().map(|segment| segment.chunks.len()).sum()
    }

    /// Appends the entry.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.id.as_bytes());
        out.push(self.kind.code());
        out.extend_from_slice(&self.stored_size.to_le_bytes());
        put_count(out, self.segments.len());
        self.segments.iter().for_each(|segment| segment.encode(out));
    }

    /// Takes one entry.
    pub fn decode(fields: &mut FieldReader<'_>) -> Result<Self, FormatError> {
        let id = ObjectId::from_bytes(fields.array()?);
        let kind = match ObjectType::from_code(fields.u8()?) {
            Some(kind @ (ObjectType::ContentPack | ObjectType::TreePack)) => kind,
            _ => return Err(FormatError::Invalid { what: "the type of a pack", why: "it is no pack".to_owned() }),
        };
        let stored_size = fields.u32()?;
        // The shortest segment: 18 bytes of fields and one chunk.
        let count = fields.count(18 + ChunkId::SIZE + 4)?;
        let segments = (0..count).map(|_| SegmentEntry::decode(fields)).collect::<Result<Vec<_>, FormatError>>()?;
        let entry = Self { id, kind, stored_size, segments };
        entry.check()?;
        Ok(entry)
    }

    fn check(&self) -> Result<(), FormatError> {
        let (found, limit) = (u64::from(self.stored_size), PACK_SIZE_MAX);
        if found > limit {
            return Err(FormatError::Limit { what: "the size of a pack", found, limit });
        }
        let mut end = 0;
        for segment in &self.segments {
            if segment.offset < end || segment.offset + segment.stored_length > self.stored_size {
                let why = format!("a segment at {} overlaps or leaves the pack", segment.offset);
                return Err(FormatError::Invalid { what: "the description of a pack", why });
            }
            end = segment.offset + segment.stored_length;
        }
        Ok(())
    }
}

/// The segments of a tree pack, as its own footer tells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackFooter {
    /// In the order of their ordinals.
    pub segments: Vec<SegmentEntry>,
}

impl PackFooter {
    /// The bytes of the footer, before compression and sealing.
    pub fn encode(segments: &[SegmentEntry]) -> Vec<u8> {
        let mut out = Vec::new();
        put_count(&mut out, segments.len());
        segments.iter().for_each(|segment| segment.encode(&mut out));
        out
    }

    /// What the footer says of the pack `id` whose length is `stored_size`, as an index would say it.
    ///
    /// # Errors
    /// Segments that overlap or leave the pack.
    pub fn describe(self, id: PackId, stored_size: u32) -> Result<PackEntry, FormatError> {
        let entry = PackEntry { id, kind: ObjectType::TreePack, stored_size, segments: self.segments };
        entry.check()?;
        Ok(entry)
    }

    /// Reads the footer back.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = FieldReader::new("pack footer", bytes);
        let count = fields.count(18 + ChunkId::SIZE + 4)?;
        let segments =
            (0..count).map(|_| SegmentEntry::decode(&mut fields)).collect::<Result<Vec<_>, FormatError>>()?;
        fields.finish()?;
        Ok(Self { segments })
    }
}

/// The body of an index object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Index objects that this one replaces: they may be deleted, and their absence is no damage.
    pub supersedes: Vec<ObjectId>,
    /// The packs it describes.
    pub packs: Vec<PackEntry>,
}

impl Index {
    /// The body's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT_VERSION];
        put_count(&mut out, self.supersedes.len());
        self.supersedes.iter().for_each(|id| out.extend_from_slice(id.as_bytes()));
        put_count(&mut out, self.packs.len());
        self.packs.iter().for_each(|pack| pack.encode(&mut out));
        out
    }

    /// Reads the body back.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let what = "index";
        let mut fields = FieldReader::new(what, bytes);
        let version = fields.u8()?;
        if version != FORMAT_VERSION {
            return Err(FormatError::Version { what, found: version.into(), known: FORMAT_VERSION });
        }
        let superseded = fields.count(ObjectId::SIZE)?;
        let supersedes =
            (0..superseded).map(|_| Ok(ObjectId::from_bytes(fields.array()?))).collect::<Result<_, FormatError>>()?;
        let count = fields.count(ObjectId::SIZE + 9)?;
        let packs = (0..count).map(|_| PackEntry::decode(&mut fields)).collect::<Result<Vec<_>, FormatError>>()?;
        fields.finish()?;
        let chunks: usize = packs.iter().map(PackEntry::chunk_count).sum();
        if chunks > INDEX_CHUNKS_MAX {
            let (found, limit) = (chunks as u64, INDEX_CHUNKS_MAX as u64);
            return Err(FormatError::Limit { what: "the number of chunks in an index", found, limit });
        }
        Ok(Self { supersedes, packs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(offset: u32) -> SegmentEntry {
        SegmentEntry {
            kind: SegmentKind::Chunks,
            offset,
            stored_length: 100,
            depth: 1,
            base: vec![ChunkId::from_bytes([3; 32])],
            chunks: vec![ChunkEntry { id: ChunkId::from_bytes([4; 32]), length: 77 }],
        }
    }

    fn index() -> Index {
        let pack = PackEntry {
            id: ObjectId::of(b"pack"),
            kind: ObjectType::ContentPack,
            stored_size: 400,
            segments: vec![segment(108), segment(208)],
        };
        Index { supersedes: vec![ObjectId::of(b"old")], packs: vec![pack] }
    }

    #[test]
    fn an_index_reads_back() {
        assert_eq!(Index::decode(&index().encode()), Ok(index()));
    }

    #[test]
    fn every_truncation_of_an_index_is_refused() {
        let bytes = index().encode();
        for end in 0..bytes.len() {
            assert!(Index::decode(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_segment_outside_of_its_pack_is_refused() {
        let mut wrong = index();
        wrong.packs[0].stored_size = 300;
        assert!(matches!(Index::decode(&wrong.encode()), Err(FormatError::Invalid { .. })));
    }

    #[test]
    fn a_count_that_the_input_cannot_hold_is_refused_before_anything_is_allocated() {
        let bytes = [&[FORMAT_VERSION][..], &u32::MAX.to_le_bytes()].concat();
        assert!(matches!(Index::decode(&bytes), Err(FormatError::Truncated { .. })));
    }
}
