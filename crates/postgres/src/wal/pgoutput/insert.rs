//! A new row.

use super::{DecodeError, Reader, Tuple};

/// A new row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insert<'a> {
    /// The table's oid.
    pub relation: u32,
    /// The row.
    pub new: Tuple<'a>,
}

impl<'a> Insert<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let relation = reader.u32()?;
        match reader.u8()? {
            b'N' => Ok(Self { relation, new: Tuple::read(reader)? }),
            _ => Err(reader.unknown()),
        }
    }
}
