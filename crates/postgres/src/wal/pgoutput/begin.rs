//! A transaction begins. Sent when it has committed, so its commit is known already.

use super::{DecodeError, Lsn, Moment, Reader};

/// A transaction begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Where its commit is; the same as in its Commit message.
    pub commit_lsn: Lsn,
    /// When it committed, before the flush.
    pub committed_at: Moment,
    /// The low 32 bits of its id.
    pub xid: u32,
}

impl Begin {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { commit_lsn: reader.lsn()?, committed_at: reader.moment()?, xid: reader.u32()? })
    }
}
