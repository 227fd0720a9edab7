//! A history in a folder: it survives a restart of the server, however that ended.
//!
//! It is a log of segments. One call of `append` is one record with a checksum, and the log is read
//! once, when it is opened; from then on an index in memory knows where each event is, and the
//! newest events are in memory themselves. A small file beside it says how much was acknowledged, so
//! that a tail that was *lost* is told from one that was never whole: the first begins a new epoch,
//! and every client is told, the second is cut off.
//!
//! Why not an embedded store? `fjall` and `redb` are good, pure Rust, and were weighed. But all that
//! is written here is written at the end and let go of at the beginning, reads are of what is newest
//! and in memory anyway, and two promises are ours to keep: bytes on disk have a hard limit (a
//! log-structured tree frees space some time after a delete, a copy-on-write tree never shrinks while
//! in use), and a tail that an operating system lost must be *noticed*, which a store that mends its
//! journal when it opens does not say.
//!
//! An append costs a hand-over to the writing thread and one write for all that wait: measured, 24,000
//! calls of one event a second from a single caller, 1,050,000 events in calls of a hundred.
//!
//! It must not: hand out a number twice within an epoch, block a thread of the runtime (one thread
//! of its own writes, and reads from disk are on threads that may wait), or keep presence, whose
//! sessions do not survive; events of presence topics stay in memory.

mod body;
mod books;
mod codec;
mod error;
mod fetch;
mod index;
mod log;
mod metrics;
mod record;
mod replay;
mod room;
mod upto;
mod writer;

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tidewire::Namespaces;
use tidewire::error::{Error, Kind};
use tidewire::history::{
    History, KEY_PREFIX, Mark, MemoryHistory, MemorySettings, Page, PublishedKey,
};
use tidewire_protocol::{Draft, Event, GapReason, Position, Topic, TopicKind};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

pub use error::DiskError;
pub use log::Sync;
pub use metrics::DiskMetrics;

use books::Books;
use fetch::{Trouble, fetch};
use index::{Found, Index, Slot};
use replay::Opened;
use writer::{Append, Job, Writer};

/// Calls that may wait for the writing thread; more wait in their own tasks. A write joins all that
/// wait, so this is about how many it takes to keep it busy.
const QUEUE: usize = 256;

/// Times a reader looks again when what it wanted was moved meanwhile; each takes a whole segment
/// to be cleaned in between.
const LOOKS: usize = 5;

/// What a source said of where it is.
type Marks = HashMap<Arc<str>, Bytes>;

/// Where a [`DiskHistory`] is and how much it may use.
#[derive(Clone, Debug)]
pub struct DiskSettings {
    /// A folder of its own; made if it is not there.
    pub path: PathBuf,
    /// Bytes on disk, for all topics together; the oldest events are let go of before they pass it.
    /// 1 GiB by default, at least 1 MiB.
    pub total_bytes: u64,
    /// Bytes of memory for the newest events and for the places of all; 256 MiB by default.
    pub memory_bytes: usize,
    /// How soon an append is safe from what.
    pub sync: Sync,
    /// Topics at the same time; 500,000 by default. For another, some are forgotten that were idle
    /// for a minute; where there are none, the new one is refused, unless it is a table.
    pub topics: usize,
    /// How long idempotency keys of publications are remembered; 5 minutes by default. While there
    /// is room on disk, what holds a younger one is not let go of.
    pub key_time: Duration,
    /// A topic without events that was neither written nor read for so long is forgotten; an hour
    /// by default, at least ten minutes, except where topics fill the memory.
    pub idle: Duration,
}

impl DiskSettings {
    /// The defaults, in this folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            total_bytes: 1 << 30,
            memory_bytes: 256 << 20,
            sync: Sync::Never,
            topics: 500_000,
            key_time: Duration::from_secs(300),
            idle: Duration::from_secs(3_600),
        }
    }
}

/// Keeps the newest events of each topic in a folder.
///
/// Appends are atomic over all drafts and marks of a call, and are not cancel safe: one that was
/// dropped may or may not have happened.
pub struct DiskHistory {
    jobs: mpsc::Sender<Job>,
    index: Arc<Index>,
    marks: Arc<Mutex<Marks>>,
    /// Keys of publications of earlier processes, until they are asked for.
    keys: Mutex<Vec<PublishedKey>>,
    namespaces: Arc<RwLock<Arc<Namespaces>>>,
    folder: Arc<Path>,
    /// For topics that do not survive.
    presence: MemoryHistory,
    metrics: DiskMetrics,
    /// A sweep is asked for already.
    sweeping: Arc<AtomicBool>,
    /// Why nothing can be written, while that is so.
    trouble: Arc<Mutex<Option<DiskError>>>,
}

impl DiskHistory {
    /// Opens the history in a folder, or begins one there, with limits per topic from `namespaces`.
    /// Reads all of it, so it takes about a second for each gigabyte.
    ///
    /// # Errors
    /// When another process has the folder, a program with another format wrote it, or it cannot
    /// be read or written.
    pub fn open(
        settings: DiskSettings,
        namespaces: Arc<RwLock<Arc<Namespaces>>>,
        metrics: DiskMetrics,
    ) -> Result<Self, DiskError> {
        let folder: Arc<Path> = settings.path.as_path().into();
        make_folder(&folder).map_err(DiskError::of("make the folder", &folder))?;
        let lock = take_lock(&folder)?;
        let applied = Arc::clone(&namespaces.read());
        let Opened { index, log, marks, keys, lost } = replay::open(&folder, &settings, &applied)?;
        metrics.lost.inc_by(u64::from(lost.is_some()));
        let (index, marks) = (Arc::new(index), Arc::new(Mutex::new(marks)));
        let sweeping = Arc::new(AtomicBool::new(false));
        let trouble = Arc::new(Mutex::new(None));
        let (jobs, queue) = mpsc::channel(QUEUE);
        let presence = MemorySettings {
            total_bytes: (settings.memory_bytes / 4).max(1 << 20),
            topics: settings.topics,
            idle: settings.idle,
        };
        let presence = MemoryHistory::new(presence, Arc::clone(&namespaces));
        let books = Books::new(settings.memory_bytes, &index);
        tracing::info!(path = %folder.display(), bytes = log.bytes(), events = books.events(),
            topics = index.topics(), "the history on disk is open");
        let writer = Writer {
            index: Arc::clone(&index),
            log,
            marks: Arc::clone(&marks),
            books,
            settings,
            namespaces: Arc::clone(&namespaces),
            applied,
            metrics: metrics.clone(),
            complaints: Default::default(),
            closed: false,
            sweeps: 0,
            buffer: Vec::new(),
            sweeping: Arc::clone(&sweeping),
            trouble: Arc::clone(&trouble),
            lock: Some(lock),
        };
        let thread = std::thread::Builder::new().name("history".to_owned());
        thread
            .spawn(move || writer.run(queue))
            .map_err(DiskError::of("start a thread for", &folder))?;
        let keys = Mutex::new(keys);
        Ok(Self {
            jobs,
            index,
            marks,
            keys,
            namespaces,
            folder,
            presence,
            metrics,
            sweeping,
            trouble,
        })
    }

    /// Writes everything to the disk itself, so that nothing is in doubt after the machine went
    /// down, too, and gives the folder free; appends fail from then on. One that is dropped
    /// without this does the same a little later.
    ///
    /// # Errors
    /// When the disk refuses; what was appended is still with the operating system then.
    pub async fn close(&self) -> Result<(), DiskError> {
        let (reply, closed) = oneshot::channel();
        let asked = self.jobs.send(Job::Close(reply)).await;
        match (asked, closed.await) {
            (Ok(()), Ok(closed)) => closed,
            _ => Err(self.gone()),
        }
    }

    /// Why nothing can be written at the moment; `None` when the last write succeeded. Looked at
    /// once a second, also while nothing is appended.
    pub fn trouble(&self) -> Option<DiskError> {
        self.trouble.lock().clone()
    }

    fn gone(&self) -> DiskError {
        DiskError::Closed(self.folder.to_path_buf())
    }

    async fn write(
        &self,
        drafts: Vec<Draft>,
        marks: Vec<Mark>,
    ) -> Result<Vec<Arc<Event>>, DiskError> {
        let (reply, written) = oneshot::channel();
        let asked = self.jobs.send(Job::Append(Append { drafts, marks, reply })).await;
        match (asked, written.await) {
            (Ok(()), Ok(written)) => written,
            _ => Err(self.gone()),
        }
    }

    /// Finds events, and fetches those that are not in memory.
    async fn page(&self, topic: &Topic, find: impl Fn() -> Found) -> Result<Page, Error> {
        for _ in 0..LOOKS {
            let (slots, recent) = match find() {
                Found::Page(page) => return Ok(page),
                Found::Fetch { slots, recent } => (slots, recent),
            };
            match self.fetch(topic, slots).await {
                Ok(mut events) => {
                    events.extend(recent);
                    return Ok(Page::Events(events));
                }
                Err(Trouble::Gone) => {}
                Err(Trouble::Damaged(place)) => {
                    self.metrics.failures.inc();
                    tracing::warn!(%topic, path = %self.folder.display(), ?place,
                        "part of the history on disk is damaged, so it counts as gone");
                    let reason = GapReason::HistoryTrimmed;
                    return Ok(Page::Lost { head: self.index.head_now(topic), reason });
                }
                Err(Trouble::Io(error)) => {
                    self.metrics.failures.inc();
                    let error = DiskError::of("read", &self.folder)(error);
                    return Err(Error::new(Kind::History, error));
                }
            }
        }
        let words = "events were moved again and again while they were read";
        Err(Error::new(Kind::History, words))
    }

    async fn fetch(
        &self,
        topic: &Topic,
        slots: Vec<(u64, Slot)>,
    ) -> Result<Vec<Arc<Event>>, Trouble> {
        self.metrics.fetched.inc_by(slots.len() as u64);
        let (folder, epoch, topic) = (Arc::clone(&self.folder), self.index.epoch, topic.clone());
        let fetched = spawn_blocking(move || fetch(&folder, epoch, &topic, &slots)).await;
        fetched.unwrap_or_else(|error| Err(Trouble::Io(std::io::Error::other(error))))
    }

    fn head_of(&self, topic: &Topic) -> Result<Position, Error> {
        let head = self.index.head(topic, || self.namespaces.read().history(topic));
        head.ok_or_else(|| {
            self.metrics.topics_refused.inc();
            failed(DiskError::Topics(self.index.most))
        })
    }
}

/// Makes the folder unless it is there, and lets nobody else in: what was said may be anything.
///
/// Files of an older server are let alone: the folder keeps others from them.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let found = std::fs::metadata(folder)?.permissions();
        let closed = PermissionsExt::from_mode(found.mode() & 0o700);
        // The files are closed to others, too, so a folder of another user's will do.
        if found.mode() & 0o077 != 0
            && let Err(error) = std::fs::set_permissions(folder, closed)
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(path = %folder.display(), error,
                "others may look into the folder of the history on disk");
        }
    }
    Ok(())
}

/// One process at a time.
fn take_lock(folder: &Path) -> Result<File, DiskError> {
    let path = folder.join("lock");
    let mut options = log::private();
    let file = options.write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(DiskError::of("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DiskError::Taken(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(DiskError::of("lock", &path)(error)),
    }
}

/// Whether the mark is an idempotency key, which is kept beside its event and nowhere else.
fn is_key(mark: &Mark) -> bool {
    mark.source.starts_with(KEY_PREFIX)
}

fn is_presence(topic: &Topic) -> bool {
    topic.kind() == TopicKind::Presence
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn failed(error: DiskError) -> Error {
    let kind = match error {
        DiskError::TooLarge { .. } => Kind::Refused,
        DiskError::Topics(_) => Kind::Full,
        _ => Kind::History,
    };
    Error::new(kind, error)
}

#[async_trait]
impl History for DiskHistory {
    async fn append(&self, drafts: Vec<Draft>) -> Vec<Result<Arc<Event>, Error>> {
        let fleeting: Vec<bool> = drafts.iter().map(|draft| is_presence(&draft.topic)).collect();
        let (memory, disk): (Vec<_>, Vec<_>) =
            drafts.into_iter().partition(|draft| is_presence(&draft.topic));
        let mut memory = match memory.is_empty() {
            true => Vec::new(),
            false => self.presence.append(memory).await,
        }
        .into_iter();
        let written = match disk.is_empty() {
            true => Ok(Vec::new()),
            false => self.write(disk, Vec::new()).await,
        };
        let mut written = written.map(Vec::into_iter);
        let next = |fleeting| match (fleeting, &mut written) {
            (true, _) => memory.next().expect("one result for each draft"),
            (false, Ok(events)) => Ok(events.next().expect("one event for each draft")),
            (false, Err(error)) => Err(failed(error.clone())),
        };
        fleeting.into_iter().map(next).collect()
    }

    async fn read(&self, topic: &Topic, after: Position, limit: usize) -> Result<Page, Error> {
        match is_presence(topic) {
            true => self.presence.read(topic, after, limit).await,
            false => self.page(topic, || self.index.find(topic, after, limit)).await,
        }
    }

    async fn read_back(
        &self,
        topic: &Topic,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Page, Error> {
        if is_presence(topic) {
            return self.presence.read_back(topic, before, limit).await;
        }
        let page = self.page(topic, || self.index.find_back(topic, before, limit)).await?;
        Ok(match page {
            Page::Events(mut events) => {
                events.reverse();
                Page::Events(events)
            }
            lost @ Page::Lost { .. } => lost,
        })
    }

    async fn head(&self, topic: &Topic) -> Result<Position, Error> {
        match is_presence(topic) {
            true => self.presence.head(topic).await,
            false => self.head_of(topic),
        }
    }

    async fn earliest(&self, topic: &Topic) -> Result<Position, Error> {
        match is_presence(topic) {
            true => self.presence.earliest(topic).await,
            false => Ok(self.index.earliest(topic)),
        }
    }

    fn tick(&self) {
        self.presence.sweep();
        if !self.sweeping.swap(true, Ordering::AcqRel) && self.jobs.try_send(Job::Sweep).is_err() {
            // Too busy now; the next tick asks again.
            self.sweeping.store(false, Ordering::Release);
        }
    }

    fn keeps_marks(&self) -> bool {
        true
    }

    async fn append_marked(
        &self,
        drafts: Vec<Draft>,
        marks: Vec<Mark>,
    ) -> Result<Vec<Arc<Event>>, Error> {
        if drafts.iter().any(|draft| is_presence(&draft.topic)) {
            return Err(Error::new(Kind::Refused, "presence is not kept beside marks"));
        }
        self.write(drafts, marks).await.map_err(failed)
    }

    fn published_keys(&self) -> Vec<PublishedKey> {
        std::mem::take(&mut self.keys.lock())
    }

    async fn mark(&self, source: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.marks.lock().get(source).cloned())
    }

    async fn marks(&self, prefix: &str) -> Result<Vec<Mark>, Error> {
        let marks = self.marks.lock();
        let found = marks.iter().filter(|(source, _)| source.starts_with(prefix));
        let mark = |(source, place): (&Arc<str>, &Bytes)| Mark {
            source: Arc::clone(source),
            place: place.clone(),
        };
        Ok(found.map(mark).collect())
    }
}
