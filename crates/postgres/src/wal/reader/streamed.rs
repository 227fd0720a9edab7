//! Keeps what running transactions wrote until they commit, and tells it then.
//!
//! What is told is the same as without streaming, and in the same order: a transaction goes through
//! the assembly as a whole, when its commit comes.

use bytes::Bytes;

use super::{Ended, Reader};
use crate::wal::assembly::{Assembly, Trouble};
use crate::wal::pgoutput::{Begin, Commit, StreamCommit};
use crate::wal::running::{Aborted, Course};
use crate::wal::spool::Kept;

impl Reader {
    /// Takes one message, whole or, where bytes were skipped, its beginning.
    pub(super) async fn take_message(
        &mut self,
        message: &Bytes,
        skipped: usize,
    ) -> Result<(), Ended> {
        match self.running.course(message)? {
            Course::Now if skipped > 0 => {
                self.take_oversized(message, message.len() + skipped).await?;
            }
            Course::Now => self.assemble(message, Assembly::take).await?,
            Course::Keep(xid) => {
                let kept = Kept { message: message.clone(), skipped };
                self.spools.keep(xid, &kept, self.running.bytes()).await?;
            }
            Course::Complete(xid) => self.spools.write(xid).await?,
            Course::Forget(xid) => self.spools.forget(xid),
            Course::Tell(commit, aborted) => self.tell(&commit, &aborted).await?,
            Course::Ignore => {}
        }
        Ok(())
    }

    /// A transaction that was sent while it ran has committed.
    async fn tell(&mut self, commit: &StreamCommit, aborted: &Aborted) -> Result<(), Ended> {
        let StreamCommit { xid, commit_lsn, end_lsn, committed_at } = *commit;
        self.shared.metrics.streamed.inc();
        sense(self.assembly.begin_transaction(Begin { commit_lsn, committed_at, xid }))?;
        if let Some(mut replay) = self.spools.take(xid) {
            loop {
                let some = replay.next().await?;
                if some.is_empty() {
                    break;
                }
                for kept in some.iter().filter(|kept| !aborted.has(&kept.message)) {
                    self.tell_kept(kept).await?;
                }
                self.pulse.moved();
                if self.stop.is_cancelled() {
                    return Err(Ended::Stopped);
                }
            }
        }
        sense(self.assembly.commit(Commit { commit_lsn, end_lsn, committed_at }))
    }

    async fn tell_kept(&mut self, kept: &Kept) -> Result<(), Ended> {
        match kept.skipped {
            0 => self.assemble(&kept.message, Assembly::take_streamed).await?,
            skipped => {
                // The letter, and what is behind the subtransaction's id.
                let head = [kept.message.get(..1), kept.message.get(5..)];
                let head: Vec<u8> = head.into_iter().flatten().flatten().copied().collect();
                self.take_oversized(&head, kept.message.len() + skipped).await?;
            }
        }
        if self.assembly.is_ripe() {
            self.publish().await?;
        }
        Ok(())
    }
}

pub(super) fn sense(outcome: Result<(), Trouble>) -> Result<(), Ended> {
    outcome.map_err(|trouble| match trouble {
        Trouble::Senseless(error) => Ended::Lost(error),
        Trouble::Need(need) => unreachable!("the ends of a transaction need nothing: {need:?}"),
    })
}
