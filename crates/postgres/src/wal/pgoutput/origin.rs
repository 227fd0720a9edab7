//! Where a transaction came from, when another server replicated it to this one.

use super::{DecodeError, Lsn, Reader};

/// Where a transaction came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Where its commit is on that server.
    pub commit_lsn: Lsn,
    /// The name of that server.
    pub name: &'a [u8],
}

impl<'a> Origin<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { commit_lsn: reader.lsn()?, name: reader.name()? })
    }
}
