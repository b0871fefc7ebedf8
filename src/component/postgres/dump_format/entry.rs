//! One entry of the table of contents.

use super::scanner::{Token, Want};

/// The fields of an entry, in the order in which they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    DumpId,
    HadDumper,
    TableOid,
    Oid,
    Tag,
    Description,
    Section,
    Definition,
    Drop,
    Copy,
    Namespace,
    Tablespace,
    /// Since 1.14.
    AccessMethod,
    /// Since 1.16.
    RelationKind,
    Owner,
    WithOids,
    /// As often as needed; "no text" ends the list.
    Dependency,
    /// A flag and an offset into the file.
    Offset,
}

impl Field {
    /// How the field is written.
    pub fn wanted(self, offset_size: usize) -> Want {
        match self {
            Self::DumpId | Self::HadDumper | Self::Section | Self::RelationKind => Want::Int,
            Self::TableOid
            | Self::Oid
            | Self::Tag
            | Self::Description
            | Self::Definition
            | Self::Drop
            | Self::Copy
            | Self::Namespace
            | Self::Tablespace
            | Self::AccessMethod
            | Self::Owner
            | Self::WithOids
            | Self::Dependency => Want::Text,
            Self::Offset => Want::Bytes(1 + offset_size),
        }
    }

    /// The field after this one, once it is done with.
    fn next(self, minor: u8) -> Option<Self> {
        Some(match self {
            Self::DumpId => Self::HadDumper,
            Self::HadDumper => Self::TableOid,
            Self::TableOid => Self::Oid,
            Self::Oid => Self::Tag,
            Self::Tag => Self::Description,
            Self::Description => Self::Section,
            Self::Section => Self::Definition,
            Self::Definition => Self::Drop,
            Self::Drop => Self::Copy,
            Self::Copy => Self::Namespace,
            Self::Namespace => Self::Tablespace,
            Self::Tablespace if minor >= 14 => Self::AccessMethod,
            Self::AccessMethod if minor >= 16 => Self::RelationKind,
            Self::Tablespace | Self::AccessMethod | Self::RelationKind => Self::Owner,
            Self::Owner => Self::WithOids,
            Self::WithOids => Self::Dependency,
            Self::Dependency => Self::Offset,
            Self::Offset => return None,
        })
    }
}

/// What is remembered of an entry.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub dump_id: i64,
    pub tag: String,
    pub description: String,
    /// Whether a data block belongs to it.
    pub has_data: bool,
}

impl Entry {
    /// Takes a field; gives the next one, `None` behind the last.
    pub fn take(&mut self, field: Field, token: Token, minor: u8) -> Result<Option<Field>, &'static str> {
        match (field, token) {
            (Field::DumpId, Token::Int(id)) if id > 0 => self.dump_id = id,
            (Field::DumpId, _) => return Err("an entry without a valid dump id"),
            (Field::Tag, Token::Text(text)) => self.tag = name(text),
            (Field::Description, Token::Text(text)) => self.description = name(text),
            (Field::Dependency, Token::Text(Some(_))) => return Ok(Some(Field::Dependency)),
            (Field::Offset, Token::Bytes(bytes)) => self.has_data = has_data(bytes[0])?,
            (_, Token::Bytes(_) | Token::Int(_) | Token::Text(_) | Token::Rest) => {}
        }
        Ok(field.next(minor))
    }
}

/// The flag before the offset. `pg_dump` writes "not set" for an entry with data until it knows the offset, and never
/// learns it when it writes into a pipe; entries without data have a flag of their own.
fn has_data(flag: u8) -> Result<bool, &'static str> {
    match flag {
        1 | 2 => Ok(true),
        3 => Ok(false),
        _ => Err("an entry with an unknown offset flag"),
    }
}

fn name(text: Option<Vec<u8>>) -> String {
    String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
}
