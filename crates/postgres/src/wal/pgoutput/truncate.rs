//! Tables that were emptied by one statement.

use super::{DecodeError, Reader};

/// Tables that were emptied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// Whether `CASCADE` was said.
    pub cascade: bool,
    /// Whether `RESTART IDENTITY` was said.
    pub restart_identity: bool,
    /// The tables' oids.
    pub relations: Vec<u32>,
}

impl Truncate {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
        let options = reader.u8()?;
        Ok(Self {
            cascade: options & 1 != 0,
            restart_identity: options & 2 != 0,
            relations: reader.list(count, size_of::<u32>(), Reader::u32)?,
        })
    }
}
