//! A row that is gone.

use super::{DecodeError, Old, Reader, Tuple};

/// A row that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    /// The table's oid.
    pub relation: u32,
    /// The row, or its key.
    pub old: Old<'a>,
}

impl<'a> Delete<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let relation = reader.u32()?;
        let old = match reader.u8()? {
            b'K' => Old::Key(Tuple::read(reader)?),
            b'O' => Old::Whole(Tuple::read(reader)?),
            _ => return Err(reader.unknown()),
        };
        Ok(Self { relation, old })
    }
}
