//! Protocol 2: large transactions sent in parts while they still run.

use super::{DecodeError, Lsn, Moment, Reader};

/// Part of a transaction that is still running; until the stop, every message names its
/// subtransaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStart {
    /// The low 32 bits of the transaction's id.
    pub xid: u32,
    /// Whether it is the first part.
    pub first: bool,
}

impl StreamStart {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { xid: reader.u32()?, first: reader.u8()? == 1 })
    }
}

/// A transaction sent in parts has committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamCommit {
    /// The low 32 bits of its id.
    pub xid: u32,
    /// Where its commit is.
    pub commit_lsn: Lsn,
    /// The place after it.
    pub end_lsn: Lsn,
    /// When it committed.
    pub committed_at: Moment,
}

impl StreamCommit {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let xid = reader.u32()?;
        // Flags, of which there are none yet.
        reader.u8()?;
        Ok(Self {
            xid,
            commit_lsn: reader.lsn()?,
            end_lsn: reader.lsn()?,
            committed_at: reader.moment()?,
        })
    }
}

/// A transaction sent in parts, or one of its subtransactions, was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamAbort {
    /// The low 32 bits of the transaction's id.
    pub xid: u32,
    /// Those of the subtransaction; the same when all of it was rolled back.
    pub subxid: u32,
    /// Where and when; only told to readers that apply in parallel (protocol 4).
    pub at: Option<(Lsn, Moment)>,
}

impl StreamAbort {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (xid, subxid) = (reader.u32()?, reader.u32()?);
        let at = match reader.is_empty() {
            true => None,
            false => Some((reader.lsn()?, reader.moment()?)),
        };
        Ok(Self { xid, subxid, at })
    }
}
