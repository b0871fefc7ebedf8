//! The head of every sealed object: what it is, which key generation opens it, its salt and its key commitment.

use super::bytes::FieldReader;
use super::{FORMAT_VERSION, FormatError};

/// First bytes of every sealed object: "Infrahub backup", as four letters.
pub const MAGIC: [u8; 4] = *b"IHBK";

/// Length of the part of the head that all sealed objects share and that is bound as associated data, in bytes.
pub const HEAD_SIZE: usize = 44;

/// Length of a metadata object's head with its key commitment, in bytes.
pub const METADATA_HEAD_SIZE: usize = HEAD_SIZE + 32;

/// Length of a content pack's head with the encapsulated key and the key commitment, in bytes.
pub const CONTENT_HEAD_SIZE: usize = HEAD_SIZE + 32 + 32;

/// What a sealed object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ObjectType {
    /// Segments of dump streams and artifact files.
    ContentPack = 1,
    /// Segments of recipes, artifact trees and descriptions of content packs.
    TreePack = 2,
    /// Where the chunks of many packs are.
    Index = 3,
    /// One snapshot.
    Manifest = 4,
    /// A late manifest was checked again.
    Confirm = 5,
    /// Packs that are about to be deleted.
    Mark = 6,
    /// The claim of a running operation.
    Lease = 7,
    /// The evidence of one operation.
    Report = 8,
}

impl ObjectType {
    /// All types.
    pub const ALL: [Self; 8] = [
        Self::ContentPack,
        Self::TreePack,
        Self::Index,
        Self::Manifest,
        Self::Confirm,
        Self::Mark,
        Self::Lease,
        Self::Report,
    ];

    /// The byte that stands for it.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The type that `code` stands for.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// How people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ContentPack => "content pack",
            Self::TreePack => "tree pack",
            Self::Index => "index",
            Self::Manifest => "manifest",
            Self::Confirm => "confirmation",
            Self::Mark => "mark",
            Self::Lease => "lease",
            Self::Report => "report",
        }
    }
}

/// The shared head of a sealed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What the object holds.
    pub kind: ObjectType,
    /// Generation of the metadata key, or for content packs of the content key.
    pub generation: u32,
    /// Makes the object's own key: from fresh entropy and, for metadata objects, a keyed hash of the plaintext.
    pub salt: [u8; 32],
}

impl Head {
    /// The bytes, also the associated data.
    pub fn encode(&self) -> [u8; HEAD_SIZE] {
        let mut out = [0; HEAD_SIZE];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = FORMAT_VERSION;
        out[5] = self.kind.code();
        out[8..12].copy_from_slice(&self.generation.to_le_bytes());
        out[12..].copy_from_slice(&self.salt);
        out
    }

    /// Reads the head at the beginning of `stored`.
    pub fn decode(stored: &[u8]) -> Result<Self, FormatError> {
        let what = "head of the object";
        let mut fields = FieldReader::new(what, stored);
        if fields.array::<4>()? != MAGIC {
            return Err(FormatError::Magic { what });
        }
        let version = fields.u8()?;
        if version != FORMAT_VERSION {
            return Err(FormatError::Version { what, found: version.into(), known: FORMAT_VERSION });
        }
        let code = fields.u8()?;
        let kind = ObjectType::from_code(code)
            .ok_or_else(|| FormatError::Invalid { what: "the object type", why: format!("{code} is not assigned") })?;
        if fields.u16()? != 0 {
            return Err(FormatError::Invalid { what: "the reserved field", why: "it is not zero".to_owned() });
        }
        Ok(Self { kind, generation: fields.u32()?, salt: fields.array()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back() {
        for kind in ObjectType::ALL {
            let head = Head { kind, generation: 7, salt: [9; 32] };
            assert_eq!(Head::decode(&head.encode()), Ok(head));
        }
    }

    #[test]
    fn a_reserved_bit_is_refused() {
        let mut bytes = Head { kind: ObjectType::Index, generation: 1, salt: [0; 32] }.encode();
        bytes[6] = 1;
        assert!(matches!(Head::decode(&bytes), Err(FormatError::Invalid { what: "the reserved field", .. })));
    }
}
