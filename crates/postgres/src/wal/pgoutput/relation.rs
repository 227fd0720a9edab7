//! How a table looks: before its first change on a connection, and again when it was altered.

use super::{DecodeError, Reader};

/// How a table looks from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Its oid, by which changes refer to it.
    pub oid: u32,
    /// Its schema.
    pub schema: &'a [u8],
    /// Its name.
    pub table: &'a [u8],
    /// How much of an old row is told.
    pub identity: Identity,
    /// Its columns; generated and dropped ones are absent.
    pub columns: Vec<Attribute<'a>>,
}

/// How much of an old row a table tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The primary key.
    Default,
    /// Nothing.
    Nothing,
    /// All columns.
    Full,
    /// The columns of a chosen index.
    Index,
}

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Whether it is part of the replica identity, with [`Identity::Full`] always.
    pub identity: bool,
    /// Its name.
    pub name: &'a [u8],
    /// Its type's oid.
    pub type_oid: u32,
    /// Its type's modifier, such as a length; -1 for none.
    pub modifier: i32,
}

/// Flags, an empty name, type and modifier.
const LEAST_ATTRIBUTE_BYTES: usize = 10;

impl<'a> Relation<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let oid = reader.u32()?;
        let schema = match reader.name()? {
            // How the wire spells it.
            b"" => &b"pg_catalog"[..],
            schema => schema,
        };
        let table = reader.name()?;
        let identity = Identity::read(reader)?;
        let count = usize::from(reader.u16()?);
        let columns = reader.list(count, LEAST_ATTRIBUTE_BYTES, Attribute::read)?;
        Ok(Self { oid, schema, table, identity, columns })
    }
}

impl Identity {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            b'd' => Ok(Self::Default),
            b'n' => Ok(Self::Nothing),
            b'f' => Ok(Self::Full),
            b'i' => Ok(Self::Index),
            _ => Err(reader.unknown()),
        }
    }
}

impl<'a> Attribute<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            identity: reader.u8()? & 1 != 0,
            name: reader.name()?,
            type_oid: reader.u32()?,
            modifier: reader.i32()?,
        })
    }
}
