//! The end of a transaction.

use super::{DecodeError, Lsn, Moment, Reader};

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Where the commit is.
    pub commit_lsn: Lsn,
    /// The place after it: what is confirmed once the transaction is kept.
    pub end_lsn: Lsn,
    /// When it committed.
    pub committed_at: Moment,
}

impl Commit {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        // Flags, of which there are none yet.
        reader.u8()?;
        Ok(Self {
            commit_lsn: reader.lsn()?,
            end_lsn: reader.lsn()?,
            committed_at: reader.moment()?,
        })
    }
}
