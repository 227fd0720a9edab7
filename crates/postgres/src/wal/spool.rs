//! Where messages of running transactions are kept: a file each, without a name.
//!
//! A file is unlinked as soon as it is open, so nothing is left behind however this process ends.
//! Parts of it are written and read by threads that may wait for the disk, some hundred kilobytes
//! at a time, so a transaction of any size takes little memory. All files together may take so many
//! bytes and no more.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::task::spawn_blocking;

use super::error::{WalError, WalErrorKind};
use super::metrics::WalMetrics;

/// Bytes that are gathered before they are written, and read at a time.
const PIECE: usize = 256 * 1024;

/// What is before each message: its length, and how many bytes of it were too many to be kept.
const HEAD: usize = 12;

/// A message that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) message: Bytes,
    /// Bytes that were too many; only the beginning of the message is there then.
    pub(super) skipped: usize,
}

/// The files of all running transactions.
#[derive(Debug)]
pub(super) struct Spools {
    directory: PathBuf,
    limit: u64,
    /// Bytes in all files and in `gathered`.
    bytes: u64,
    spools: HashMap<u32, Spool>,
    /// What is to be written to the file of the transaction whose part is being sent.
    gathered: BytesMut,
    metrics: WalMetrics,
}

#[derive(Debug)]
struct Spool {
    file: Arc<File>,
    written: u64,
    bytes: u64,
}

impl Spools {
    pub(super) fn new(directory: PathBuf, limit: u64, metrics: WalMetrics) -> Self {
        let (spools, gathered) = (HashMap::new(), BytesMut::new());
        Self { directory, limit, bytes: 0, spools, gathered, metrics }
    }

    /// Keeps a message. `beside` are bytes that count as well.
    ///
    /// # Errors
    /// When all files together would be too large, or one cannot be written.
    pub(super) async fn keep(
        &mut self,
        xid: u32,
        kept: &Kept,
        beside: u64,
    ) -> Result<(), WalError> {
        let bytes = (HEAD + kept.message.len()) as u64;
        if self.bytes + bytes + beside > self.limit {
            return Err(self.full());
        }
        if !self.spools.contains_key(&xid) {
            let file = self.open().await.map_err(|error| self.broken(error))?;
            self.spools.insert(xid, Spool { file, written: 0, bytes: 0 });
        }
        self.spools.get_mut(&xid).expect("it was put there").bytes += bytes;
        self.count(self.bytes + bytes);
        self.gathered.put_u32(kept.message.len() as u32);
        self.gathered.put_u64(kept.skipped as u64);
        self.gathered.put_slice(&kept.message);
        self.metrics.spooled.inc_by(bytes);
        match self.gathered.len() >= PIECE {
            true => self.write(xid).await,
            false => Ok(()),
        }
    }

    /// Writes what was gathered; to be called when a part of the transaction is complete.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) async fn write(&mut self, xid: u32) -> Result<(), WalError> {
        let piece = self.gathered.split().freeze();
        let Some(spool) = self.spools.get_mut(&xid) else { return Ok(()) };
        let (file, at) = (Arc::clone(&spool.file), spool.written);
        spool.written += piece.len() as u64;
        let written = blocking(move || file.write_all_at(&piece, at)).await;
        written.map_err(|error| self.broken(error))
    }

    /// Lets go of what was kept of a transaction.
    pub(super) fn forget(&mut self, xid: u32) {
        self.take(xid);
    }

    /// Gives what was kept of a transaction, which is complete.
    pub(super) fn take(&mut self, xid: u32) -> Option<Replay> {
        let spool = self.spools.remove(&xid)?;
        self.count(self.bytes - spool.bytes);
        let directory = self.directory.clone();
        Some(Replay {
            file: spool.file,
            at: 0,
            end: spool.written,
            input: BytesMut::new(),
            directory,
        })
    }

    /// Lets go of everything: another connection sends it again.
    pub(super) fn clear(&mut self) {
        self.spools.clear();
        self.gathered.clear();
        self.count(0);
    }

    async fn open(&self) -> io::Result<Arc<File>> {
        let directory = self.directory.clone();
        blocking(move || tempfile::tempfile_in(directory).map(Arc::new)).await
    }

    fn count(&mut self, bytes: u64) {
        self.bytes = bytes;
        self.metrics.spool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn full(&self) -> WalError {
        WalError::new(
            WalErrorKind::Unstreamable,
            format!(
                "running transactions are larger together than wal.spool_bytes allows, {} bytes: \
                 reading goes on without wal.streaming, which needs no disk",
                self.limit
            ),
        )
    }

    fn broken(&self, error: io::Error) -> WalError {
        broken(&self.directory, error)
    }
}

/// What was kept of a transaction, piece by piece and in order.
#[derive(Debug)]
pub(super) struct Replay {
    file: Arc<File>,
    at: u64,
    end: u64,
    input: BytesMut,
    directory: PathBuf,
}

impl Replay {
    /// The next messages; none at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) async fn next(&mut self) -> Result<Vec<Kept>, WalError> {
        let mut kept = Vec::new();
        while kept.is_empty() && (self.at < self.end || !self.input.is_empty()) {
            self.read().await.map_err(|error| broken(&self.directory, error))?;
            while let Some(one) = self.cut() {
                kept.push(one);
            }
        }
        Ok(kept)
    }

    async fn read(&mut self) -> io::Result<()> {
        // A message larger than a piece is read whole.
        let wanted =
            self.next_length().map_or(PIECE, |length| PIECE.max(length - self.input.len()));
        let rest = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let length = wanted.min(rest);
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a message is cut short"));
        }
        let (file, at) = (Arc::clone(&self.file), self.at);
        let mut input = std::mem::take(&mut self.input);
        self.input = blocking(move || {
            let before = input.len();
            input.resize(before + length, 0);
            file.read_exact_at(&mut input[before..], at).map(|()| input)
        })
        .await?;
        self.at += length as u64;
        Ok(())
    }

    /// How long the next message is with what is before it.
    fn next_length(&self) -> Option<usize> {
        let mut head = self.input.get(..HEAD)?;
        Some(HEAD + head.get_u32() as usize)
    }

    fn cut(&mut self) -> Option<Kept> {
        let length = self.next_length().filter(|length| *length <= self.input.len())?;
        let mut bytes = self.input.split_to(length);
        bytes.advance(4);
        let skipped = usize::try_from(bytes.get_u64()).unwrap_or(usize::MAX);
        Some(Kept { message: bytes.freeze(), skipped })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn broken(directory: &std::path::Path, error: io::Error) -> WalError {
    let message = format!(
        "what running transactions wrote cannot be kept in {}: {error} (name another directory in \
         wal.spool_dir); reading goes on without wal.streaming, which needs no disk",
        directory.display()
    );
    WalError::because(WalErrorKind::Unstreamable, message, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(n: usize, length: usize) -> Kept {
        Kept { message: vec![n as u8; length].into(), skipped: n % 3 }
    }

    async fn all(mut replay: Replay) -> Vec<Kept> {
        let mut all = Vec::new();
        loop {
            let some = replay.next().await.unwrap();
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    #[tokio::test]
    async fn what_is_kept_of_each_transaction_comes_back_in_order_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let metrics = WalMetrics::default();
        let mut spools = Spools::new(directory.path().to_owned(), 10 << 20, metrics.clone());
        let lengths = [0, 1, 100, PIECE - HEAD, PIECE, 3 * PIECE + 7, 20];
        for part in 0..3 {
            for xid in [7, 9] {
                for (n, length) in lengths.into_iter().enumerate() {
                    spools.keep(xid, &kept(n + part, length + xid as usize), 0).await.unwrap();
                }
                spools.write(xid).await.unwrap();
            }
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "it has no name");
        for xid in [9, 7] {
            let told = all(spools.take(xid).unwrap()).await;
            let expected: Vec<Kept> = (0..3)
                .flat_map(|part| {
                    lengths.into_iter().enumerate().map(move |(n, length)| (n + part, length))
                })
                .map(|(n, length)| kept(n, length + xid as usize))
                .collect();
            assert_eq!(told, expected);
        }
        assert!(spools.take(7).is_none());
        assert_eq!(metrics.spool_bytes.get(), 0);
    }

    #[tokio::test]
    async fn all_together_may_take_so_many_bytes_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let mut spools = Spools::new(directory.path().to_owned(), 1_000, WalMetrics::default());
        spools.keep(1, &kept(1, 400), 0).await.unwrap();
        spools.keep(2, &kept(1, 400), 0).await.unwrap();
        let full = spools.keep(1, &kept(1, 400), 0).await.unwrap_err();
        assert_eq!(full.kind(), WalErrorKind::Unstreamable);
        assert!(full.to_string().contains("wal.spool_bytes"), "{full}");
        assert!(spools.keep(1, &kept(1, 100), 100).await.is_err(), "what is beside counts");
        spools.forget(2);
        spools.keep(1, &kept(1, 400), 0).await.unwrap();
        spools.clear();
        spools.keep(1, &kept(1, 900), 0).await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_named() {
        let directory = PathBuf::from("/nowhere/at/all");
        let mut spools = Spools::new(directory, 1_000, WalMetrics::default());
        let told = spools.keep(1, &kept(1, 4), 0).await.unwrap_err().to_string();
        assert!(told.contains("/nowhere/at/all") && told.contains("wal.spool_dir"), "{told}");
    }
}
