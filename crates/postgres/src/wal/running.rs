//! Transactions that are sent while they still run: which of their messages goes where; pure.
//!
//! With protocol 2 PostgreSQL sends a transaction that outgrows `logical_decoding_work_mem` in
//! parts, between others that commit, and says at its end whether it committed. Until then its
//! messages are kept; what belongs to a subtransaction that was rolled back is never told. Where
//! they are kept is the business of [`spool`](super::spool).
//!
//! Only of what SQL says with `tidewire.publish` PostgreSQL does not tell the subtransaction. So when
//! one is rolled back after that, it is read again without streaming, where PostgreSQL knows.

use std::collections::{HashMap, HashSet};

use super::error::{WalError, WalErrorKind};
use super::pgoutput::{self, DecodeError, Message, StreamCommit};

/// Bytes that remembering one rolled back subtransaction takes, with what the set around it does.
const ABORTED_BYTES: u64 = 16;

/// Where a message goes.
#[derive(Debug, PartialEq)]
pub(super) enum Course {
    /// It is not about a running transaction.
    Now,
    /// It is kept with this transaction.
    Keep(u32),
    /// A part of this transaction is complete.
    Complete(u32),
    /// This transaction was rolled back: what was kept of it is let go of.
    Forget(u32),
    /// This transaction has committed: what was kept of it is told.
    Tell(StreamCommit, Aborted),
    /// It says nothing that matters.
    Ignore,
}

/// The subtransactions of one transaction that were rolled back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Aborted {
    xids: HashSet<u32>,
    /// Whether SQL said something in the transaction, nobody knows in which subtransaction.
    said: bool,
}

impl Aborted {
    /// Whether a message that was kept belongs to one of them.
    pub(super) fn has(&self, message: &[u8]) -> bool {
        !self.xids.is_empty() && subtransaction(message).is_some_and(|xid| self.xids.contains(&xid))
    }
}

/// The transactions that run and were sent in part.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// The one whose part is being sent.
    part: Option<u32>,
    transactions: HashMap<u32, Aborted>,
    aborted: u64,
}

impl Running {
    /// Where a message goes; of one that was too large, its beginning is enough.
    pub(super) fn course(&mut self, bytes: &[u8]) -> Result<Course, WalError> {
        match (bytes.first(), self.part) {
            (Some(b'S' | b'c' | b'A'), None) => self.outside(bytes),
            (Some(b'E'), Some(xid)) => {
                self.part = None;
                Ok(Course::Complete(xid))
            }
            (Some(b'E'), None) => Err(senseless("the end of a part that did not begin")),
            (_, None) => Ok(Course::Now),
            (Some(b'M'), Some(xid)) => {
                if is_for_us(bytes) {
                    self.transactions.entry(xid).or_default().said = true;
                }
                Ok(Course::Keep(xid))
            }
            (Some(b'R' | b'Y' | b'I' | b'U' | b'D' | b'T'), Some(xid)) => Ok(Course::Keep(xid)),
            // Where the transaction came from.
            (Some(b'O'), Some(_)) => Ok(Course::Ignore),
            (_, Some(xid)) => {
                Err(senseless(format!("a message that is no part of transaction {xid}")))
            }
        }
    }

    /// Bytes of memory that rolled back subtransactions take.
    pub(super) fn bytes(&self) -> u64 {
        self.aborted * ABORTED_BYTES
    }

    fn outside(&mut self, bytes: &[u8]) -> Result<Course, WalError> {
        match pgoutput::decode(bytes).map_err(unreadable)? {
            Message::StreamStart(start) => self.begin(start.xid, start.first),
            Message::StreamCommit(commit) => match self.end(commit.xid) {
                Some(aborted) => Ok(Course::Tell(commit, aborted)),
                None => Err(senseless(format!("transaction {} did not begin", commit.xid))),
            },
            Message::StreamAbort(abort) if abort.xid == abort.subxid => {
                // One that PostgreSQL found to be rolled back before it had sent anything.
                Ok(self.end(abort.xid).map_or(Course::Ignore, |_| Course::Forget(abort.xid)))
            }
            Message::StreamAbort(abort) => {
                if let Some(aborted) = self.transactions.get_mut(&abort.xid) {
                    if aborted.said {
                        return Err(undecidable());
                    }
                    self.aborted += u64::from(aborted.xids.insert(abort.subxid));
                }
                Ok(Course::Ignore)
            }
            other => Err(senseless(format!("an unexpected message {other:?}"))),
        }
    }

    fn begin(&mut self, xid: u32, first: bool) -> Result<Course, WalError> {
        if first == self.transactions.contains_key(&xid) {
            return Err(senseless(format!("a part of transaction {xid} that does not follow")));
        }
        self.transactions.entry(xid).or_default();
        self.part = Some(xid);
        Ok(Course::Ignore)
    }

    fn end(&mut self, xid: u32) -> Option<Aborted> {
        let aborted = self.transactions.remove(&xid)?;
        self.aborted -= aborted.xids.len() as u64;
        Some(aborted)
    }
}

/// The transaction or subtransaction that a message of a part belongs to.
fn subtransaction(message: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(message.get(1..5)?.try_into().ok()?))
}

/// Whether a logical message has our prefix; one of which only the beginning is there has it too.
fn is_for_us(message: &[u8]) -> bool {
    // Behind letter, transaction, flags and place.
    const PREFIX_AT: usize = 1 + 4 + 1 + 8;
    message.get(PREFIX_AT..).is_some_and(|rest| rest.starts_with(b"tidewire\0"))
}

fn undecidable() -> WalError {
    WalError::new(
        WalErrorKind::Unstreamable,
        "a savepoint was rolled back in a running transaction that had published on a topic, and \
         PostgreSQL does not tell whether within the savepoint: reading goes on without \
         wal.streaming, where it does",
    )
}

fn unreadable(error: DecodeError) -> WalError {
    let message = "a message about a running transaction cannot be read";
    WalError::because(WalErrorKind::Protocol, message, error)
}

fn senseless(words: impl Into<String>) -> WalError {
    WalError::new(WalErrorKind::Protocol, words)
}

#[cfg(test)]
mod tests;
