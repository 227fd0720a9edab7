//! A row, or the part of it that is told.

use super::{DecodeError, Reader};

/// The values of a row in the order of the relation's columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuple<'a>(pub Vec<Datum<'a>>);

/// One value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datum<'a> {
    /// SQL's NULL; in an old row of which only the key is told, also what is not told.
    Null,
    /// A large value that the statement did not change, and so is not in the log.
    Unchanged,
    /// The value as PostgreSQL prints it.
    Text(&'a [u8]),
    /// The value in its type's binary form; only when asked for.
    Binary(&'a [u8]),
}

/// The old values of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Old<'a> {
    /// Only those of the replica identity; the others are null whatever they were.
    Key(Tuple<'a>),
    /// All of them.
    Whole(Tuple<'a>),
}

/// The letter of a null.
const LEAST_DATUM_BYTES: usize = 1;

impl<'a> Tuple<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = usize::from(reader.u16()?);
        Ok(Self(reader.list(count, LEAST_DATUM_BYTES, Datum::read)?))
    }
}

impl<'a> Datum<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            b'n' => Ok(Self::Null),
            b'u' => Ok(Self::Unchanged),
            b't' => Ok(Self::Text(counted(reader)?)),
            b'b' => Ok(Self::Binary(counted(reader)?)),
            _ => Err(reader.unknown()),
        }
    }
}

/// Bytes after their number.
pub(super) fn counted<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let length = reader.u32()?;
    reader.take(usize::try_from(length).unwrap_or(usize::MAX))
}
