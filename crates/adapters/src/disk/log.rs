//! The segments of the log as files: appends to the newest, drops the oldest.
//!
//! All of this is synchronous and is done by the history's own thread. A write that failed leaves
//! the file as it was before, so the next one may succeed.

use std::collections::BTreeMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tidewire_protocol::Epoch;

use super::error::DiskError;
use super::upto::{UpTo, UpToFile};

/// The smallest and the largest segment: small ones give back their space soon and are quickly
/// cleaned, large ones are few.
const SMALLEST: u64 = 64 << 10;
const LARGEST: u64 = 16 << 20;

/// Segments that the limit of bytes makes at least, so that letting go of one is no great loss.
const PARTS: u64 = 32;

/// How soon an append is safe from what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// When the operating system has it: safe from the end of the process, however it ends. After
    /// the machine itself went down, the history begins anew.
    #[default]
    Never,
    /// When the disk has it: safe from a power failure, too, and much slower.
    Batch,
}

/// A segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) bytes: u64,
    /// Bytes of its first record, which is no reason to begin another one.
    pub(super) first: u64,
    /// Events written to it.
    pub(super) events: u64,
    /// Those of them that are still kept.
    pub(super) live: u64,
    /// Until when keys in it are remembered, in milliseconds since 1970; 0 where there are none.
    pub(super) keys_until: u64,
}

/// Where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

/// The log.
pub(super) struct Log {
    pub(super) folder: PathBuf,
    pub(super) segments: BTreeMap<u32, Segment>,
    pub(super) epoch: Epoch,
    newest: u32,
    file: File,
    path: PathBuf,
    upto: UpToFile,
    sync: Sync,
    boot: [u8; 16],
    /// A write failed and could not be undone; to be tried again before the next one.
    torn: bool,
}

impl Segment {
    /// Notes that it holds keys which are remembered until then.
    pub(super) fn keeps_keys(&mut self, until: u64) {
        self.keys_until = self.keys_until.max(until);
    }
}

impl Log {
    /// Goes on at the end of the newest segment, whose file has just so many bytes.
    pub(super) fn go_on(
        folder: &Path,
        segments: BTreeMap<u32, Segment>,
        epoch: Epoch,
        upto: UpToFile,
        sync: Sync,
        boot: [u8; 16],
    ) -> Result<Self, DiskError> {
        let newest = *segments.keys().next_back().expect("a log has a segment");
        let path = segment_path(folder, newest);
        let file = open(&path)?;
        let folder = folder.to_owned();
        let mut log =
            Self { folder, segments, epoch, newest, file, path, upto, sync, boot, torn: true };
        log.mend()?;
        // From here on the log is in use; the disk itself has to know, lest it take an old state
        // of this file for a log that was closed.
        log.acknowledge(false)?;
        log.upto.sync().map_err(DiskError::of("write", &log.path))?;
        Ok(log)
    }

    /// Appends records; gives where they begin.
    pub(super) fn append(&mut self, records: &[u8]) -> Result<Place, DiskError> {
        self.check_place()?;
        self.mend()?;
        let segment = self.segments.get(&self.newest).expect("the newest segment is known");
        let offset =
            u32::try_from(segment.bytes).expect("a segment is closed before it is so long");
        let written = self.write(records);
        if let Err(error) = written {
            self.torn = true;
            let _ = self.mend();
            return Err(DiskError::of("write", &self.path)(error));
        }
        self.newest_mut().bytes += records.len() as u64;
        if let Err(error) = self.acknowledge(false) {
            // Not acknowledged is not appended.
            self.newest_mut().bytes -= records.len() as u64;
            self.torn = true;
            let _ = self.mend();
            return Err(error);
        }
        Ok(Place { segment: self.newest, offset })
    }

    /// Whether what is written can be found again: a file that was deleted is still written to, and
    /// gone with the process.
    pub(super) fn check_place(&self) -> Result<(), DiskError> {
        let file = self.file.metadata().map_err(DiskError::of("look at", &self.path))?;
        match is_deleted(&file) {
            true => Err(DiskError::Deleted(self.folder.clone())),
            false => Ok(()),
        }
    }

    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.file.write_all(records)?;
        match self.sync {
            Sync::Never => Ok(()),
            Sync::Batch => self.file.sync_data(),
        }
    }

    /// Cuts off what a failed write left.
    fn mend(&mut self) -> Result<(), DiskError> {
        if self.torn {
            let bytes = self.segments[&self.newest].bytes;
            self.file.set_len(bytes).map_err(DiskError::of("write", &self.path))?;
            self.torn = false;
        }
        Ok(())
    }

    fn acknowledge(&mut self, closed: bool) -> Result<(), DiskError> {
        let upto = UpTo {
            epoch: self.epoch,
            segment: self.newest,
            bytes: self.segments[&self.newest].bytes,
            synced: closed || self.sync == Sync::Batch,
            boot: self.boot,
        };
        self.upto.write(&upto).map_err(DiskError::of("write", &self.folder))
    }

    /// Whether the newest segment is long enough.
    pub(super) fn is_full(&self, total_bytes: u64) -> bool {
        let segment = &self.segments[&self.newest];
        segment.bytes - segment.first >= segment_bytes(total_bytes)
    }

    /// The newest segment's number.
    pub(super) fn newest(&self) -> u32 {
        self.newest
    }

    pub(super) fn newest_mut(&mut self) -> &mut Segment {
        self.segments.get_mut(&self.newest).expect("the newest segment is known")
    }

    /// The oldest segment, if it is not the newest.
    pub(super) fn oldest(&self) -> Option<(u32, Segment)> {
        let (no, segment) = self.segments.first_key_value()?;
        (*no != self.newest).then_some((*no, *segment))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// Begins another segment with this first record.
    pub(super) fn begin_segment(&mut self, no: u32, first: &[u8]) -> Result<(), DiskError> {
        self.mend()?;
        if self.sync == Sync::Batch {
            self.file.sync_all().map_err(DiskError::of("write", &self.path))?;
        }
        let (path, file) = begin_segment(&self.folder, no, first, self.sync)?;
        let bytes = first.len() as u64;
        (self.path, self.file, self.newest) = (path, file, no);
        self.segments.insert(no, Segment { bytes, first: bytes, ..Segment::default() });
        self.acknowledge(false)
    }

    /// Lets go of a segment that nothing refers to any more.
    pub(super) fn drop_segment(&mut self, no: u32) -> Result<(), DiskError> {
        let path = segment_path(&self.folder, no);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DiskError::of("delete", &path)(error))
            }
            _ => {
                self.segments.remove(&no);
                Ok(())
            }
        }
    }

    /// Has the disk itself keep everything, and says that nothing is missing.
    pub(super) fn close(&mut self) -> Result<(), DiskError> {
        self.mend()?;
        for no in self.segments.keys() {
            let path = segment_path(&self.folder, *no);
            let file = File::open(&path).and_then(|file| file.sync_all());
            file.map_err(DiskError::of("write", &path))?;
        }
        sync_folder(&self.folder).map_err(DiskError::of("write", &self.folder))?;
        self.acknowledge(true)?;
        self.upto.sync().map_err(DiskError::of("write", &self.folder))
    }
}

/// Makes the file of a segment with its first record.
pub(super) fn begin_segment(
    folder: &Path,
    no: u32,
    first: &[u8],
    sync: Sync,
) -> Result<(PathBuf, File), DiskError> {
    let path = segment_path(folder, no);
    let made = || -> io::Result<File> {
        let mut file = private().append(true).create(true).open(&path)?;
        // A failed attempt may have left something.
        file.set_len(0)?;
        file.write_all(first)?;
        if sync == Sync::Batch {
            file.sync_all()?;
            sync_folder(folder)?;
        }
        Ok(file)
    };
    let file = made().map_err(DiskError::of("write", &path))?;
    Ok((path, file))
}

fn open(path: &Path) -> Result<File, DiskError> {
    OpenOptions::new().append(true).open(path).map_err(DiskError::of("open", path))
}

/// How files are made that nobody else may read: what was said may be anything.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Whether no folder has the file any more.
#[cfg(unix)]
fn is_deleted(file: &Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(file) == 0
}

#[cfg(not(unix))]
fn is_deleted(_: &Metadata) -> bool {
    false
}

/// A new file is only there after a power failure if its folder was told, too.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(folder)?.sync_all(),
        false => Ok(()),
    }
}

/// How long a segment is, at least, where so many bytes are allowed for all.
pub(super) fn segment_bytes(total_bytes: u64) -> u64 {
    (total_bytes / PARTS).clamp(SMALLEST, LARGEST)
}

/// The file of a segment.
pub(super) fn segment_path(folder: &Path, no: u32) -> PathBuf {
    folder.join(format!("{no:010}.log"))
}

/// The number of a segment's file, if it is one.
pub(super) fn segment_no(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 10)?;
    digits.parse().ok()
}
