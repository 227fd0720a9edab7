//! How far the log was written: a small file beside it, which tells a tail that was lost from one
//! that was never whole.
//!
//! It is written after every append, in one of two places in turn, so that a power failure leaves
//! one of them. A log that is shorter than it says has lost something that was acknowledged.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use tidewire_protocol::Epoch;

use super::codec::Take;
use super::log::private;
use super::record::VERSION;

/// How far apart the two places are: no disk writes less than this at once in one piece.
const PLACE_BYTES: u64 = 512;

/// Bytes of one place.
const BYTES: usize = 4 + 1 + 8 + 8 + 4 + 8 + 1 + 16;

/// Everything up to here is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UpTo {
    pub(super) epoch: Epoch,
    pub(super) segment: u32,
    pub(super) bytes: u64,
    /// Whether all of it is on the disk itself: it was closed, or every append waits for that.
    pub(super) synced: bool,
    /// Which run of the operating system wrote this; zero where that cannot be known.
    pub(super) boot: [u8; 16],
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is none, or nothing that can be read in it.
    Nothing,
    /// A program with another format wrote it.
    OtherVersion,
    UpTo(UpTo),
}

/// The file.
pub(super) struct UpToFile {
    file: File,
    turn: u64,
}

impl UpToFile {
    /// Opens or makes the file; gives what it says.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Found)> {
        let mut options = private();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(2 * PLACE_BYTES).read_to_end(&mut bytes)?;
        let places = [0, PLACE_BYTES as usize].map(|at| bytes.get(at..at + BYTES));
        let places = places.into_iter().flatten().filter_map(take);
        let newest = places.max_by_key(|(turn, _)| *turn);
        let (turn, found) = newest.unwrap_or((0, Found::Nothing));
        Ok((Self { file, turn }, found))
    }

    /// Says how far it is now.
    pub(super) fn write(&mut self, upto: &UpTo) -> io::Result<()> {
        let turn = self.turn + 1;
        self.file.seek(SeekFrom::Start((turn % 2) * PLACE_BYTES))?;
        self.file.write_all(&put(turn, upto))?;
        self.turn = turn;
        Ok(())
    }

    /// Has the disk itself keep it.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn put(turn: u64, upto: &UpTo) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.push(VERSION);
    bytes.extend_from_slice(&turn.to_le_bytes());
    bytes.extend_from_slice(&upto.epoch.0.to_le_bytes());
    bytes.extend_from_slice(&upto.segment.to_le_bytes());
    bytes.extend_from_slice(&upto.bytes.to_le_bytes());
    bytes.push(upto.synced.into());
    bytes.extend_from_slice(&upto.boot);
    let sum = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn take(place: &[u8]) -> Option<(u64, Found)> {
    let mut bytes = Take(place);
    let sum = u32::from_le_bytes(bytes.array()?);
    if crc32fast::hash(bytes.0) != sum {
        return None;
    }
    let version = bytes.byte()?;
    let turn = u64::from_le_bytes(bytes.array()?);
    if version != VERSION {
        return Some((turn, Found::OtherVersion));
    }
    let upto = UpTo {
        epoch: Epoch(u64::from_le_bytes(bytes.array()?)),
        segment: u32::from_le_bytes(bytes.array()?),
        bytes: u64::from_le_bytes(bytes.array()?),
        synced: bytes.byte()? != 0,
        boot: bytes.array()?,
    };
    Some((turn, Found::UpTo(upto)))
}

/// Which run of the operating system this is; zero where it does not say.
pub(super) fn boot() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map(u128::to_be_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_of_two_places_counts_and_the_older_where_it_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upto");
        let (mut file, found) = UpToFile::open(&path).unwrap();
        assert_eq!(found, Found::Nothing);
        let upto = |bytes| UpTo { epoch: Epoch(1), segment: 2, bytes, synced: false, boot: boot() };
        file.write(&upto(3)).unwrap();
        file.write(&upto(4)).unwrap();
        assert_eq!(UpToFile::open(&path).unwrap().1, Found::UpTo(upto(4)));
        let mut content = std::fs::read(&path).unwrap();
        content[20] ^= 1;
        std::fs::write(&path, content).unwrap();
        assert_eq!(UpToFile::open(&path).unwrap().1, Found::UpTo(upto(3)));
    }
}
