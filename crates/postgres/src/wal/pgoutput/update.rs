//! A changed row.

use super::{DecodeError, Old, Reader, Tuple};

/// A changed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// The table's oid.
    pub relation: u32,
    /// The row before: whole when the table says so, its key when that changed, otherwise nothing.
    pub old: Option<Old<'a>>,
    /// The row after.
    pub new: Tuple<'a>,
}

impl<'a> Update<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let relation = reader.u32()?;
        let old = match reader.u8()? {
            b'N' => return Ok(Self { relation, old: None, new: Tuple::read(reader)? }),
            b'K' => Old::Key(Tuple::read(reader)?),
            b'O' => Old::Whole(Tuple::read(reader)?),
            _ => return Err(reader.unknown()),
        };
        match reader.u8()? {
            b'N' => Ok(Self { relation, old: Some(old), new: Tuple::read(reader)? }),
            _ => Err(reader.unknown()),
        }
    }
}
