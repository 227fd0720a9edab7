//! Something said with `pg_logical_emit_message`, which the wire calls Message.

use super::{DecodeError, Lsn, Reader, tuple};

/// Something said with `pg_logical_emit_message`, by whatever role: there is no telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logical<'a> {
    /// Whether it belongs to the transaction around it. One that does not comes at once and by
    /// itself, even when its transaction was rolled back.
    pub transactional: bool,
    /// Where it is in the log.
    pub lsn: Lsn,
    /// For whom it is.
    pub prefix: &'a [u8],
    /// What was said.
    pub content: &'a [u8],
}

impl<'a> Logical<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            transactional: reader.u8()? & 1 != 0,
            lsn: reader.lsn()?,
            prefix: reader.name()?,
            content: tuple::counted(reader)?,
        })
    }
}
