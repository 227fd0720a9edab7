//! The name of a type that is not built in; sent before the relation that uses it.

use super::{DecodeError, Reader};

/// The name of a type that is not built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type<'a> {
    /// Its oid.
    pub oid: u32,
    /// Its schema.
    pub schema: &'a [u8],
    /// Its name.
    pub name: &'a [u8],
}

impl<'a> Type<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let oid = reader.u32()?;
        let schema = match reader.name()? {
            b"" => &b"pg_catalog"[..],
            schema => schema,
        };
        Ok(Self { oid, schema, name: reader.name()? })
    }
}
