//! What the tasks of a source and those who ask it share; locks are held for moments only.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tidewire::Publisher;
use tidewire::history::Mark;
use tidewire::sparing::Sparing;
use tidewire_protocol::change::Snapshot;
use tidewire_protocol::{Code, GapReason, Refusal, Topic, TopicKind};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::error::WalError;
use super::metrics::WalMetrics;
use super::partitions::Known;
use super::pgoutput::Lsn;
use super::resume::Marks;
use super::slot::SlotStatus;
use super::standing::Admitted;
use super::tables::{Run, Tables};
use crate::changes::SourceStatus;
use crate::connect::Pool;
use crate::partitions::Layout;
use crate::steadiness::Steadiness;

/// How far the stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The run of the stream, while there is one.
    pub(super) run: Option<Run>,
    /// Everything that committed before this place was published.
    pub(super) processed: Lsn,
}

/// The publication that is read and the slot it is read with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) publication: u32,
    pub(super) ours: bool,
    pub(super) slot: String,
    pub(super) since: Instant,
}

/// What the tasks share.
pub(super) struct Shared {
    pub(super) pool: Pool,
    pub(super) publisher: Publisher,
    /// The publication's name.
    pub(super) publication: String,
    /// What begins the names of the slot's marks, if the history keeps any.
    slot_mark: Option<Arc<str>>,
    pub(super) metrics: WalMetrics,
    tables: Mutex<Tables>,
    partitions: Mutex<Known>,
    progress: watch::Sender<Progress>,
    /// Somebody wants to know how far the server is.
    pub(super) ask: Notify,
    /// Why the stream must begin anew, if it must.
    anew: Mutex<Option<WalError>>,
    anew_asked: Notify,
    epoch: Mutex<Option<Snapshot>>,
    reading: Mutex<Option<Reading>>,
    status: Mutex<Status>,
    slot: Mutex<SlotStatus>,
    /// Gaps that the history does not take.
    complaints: Sparing,
}

struct Status {
    since: SystemTime,
    /// Whether it works, as last looked at.
    connected: bool,
    steadiness: Steadiness,
    last_error: Option<String>,
    /// Why nothing comes although the stream runs.
    stalled: Option<String>,
    connections: u64,
}

impl Shared {
    pub(super) fn new(
        pool: Pool,
        publisher: Publisher,
        publication: String,
        slot_mark: Option<Arc<str>>,
    ) -> Self {
        Self {
            pool,
            publisher,
            publication,
            slot_mark,
            metrics: WalMetrics::default(),
            tables: Mutex::default(),
            partitions: Mutex::default(),
            progress: watch::Sender::new(Progress::default()),
            ask: Notify::new(),
            anew: Mutex::default(),
            anew_asked: Notify::new(),
            epoch: Mutex::default(),
            reading: Mutex::default(),
            status: Mutex::new(Status {
                since: SystemTime::now(),
                connected: false,
                steadiness: Steadiness::default(),
                last_error: None,
                stalled: None,
                connections: 0,
            }),
            slot: Mutex::default(),
            complaints: Sparing::new(),
        }
    }

    pub(super) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock()
    }

    /// The partitions of tables as they were last looked at.
    pub(super) fn partitions(&self) -> MutexGuard<'_, Known> {
        self.partitions.lock()
    }

    /// Tells how far the stream is.
    pub(super) fn advance(&self, processed: Lsn) {
        self.progress.send_if_modified(|progress| {
            let later = processed > progress.processed;
            progress.processed = progress.processed.max(processed);
            later
        });
    }

    /// The stream runs and tables flow by what is in `tables` now.
    pub(super) fn connected(&self, reading: Reading, processed: Lsn) {
        *self.reading.lock() = Some(reading);
        let run = self.tables.lock().run();
        self.progress.send_replace(Progress { run, processed });
        let mut status = self.status.lock();
        status.stalled = None;
        status.steadiness.opened();
        status.connections += 1;
        if status.connections > 1 {
            self.metrics.reconnects.inc();
        }
        status.look(&self.metrics);
    }

    /// Looks whether reading works.
    pub(super) fn look(&self) {
        self.status.lock().look(&self.metrics);
    }

    /// The stream ended.
    pub(super) fn disconnected(&self, may_resume: bool) {
        self.tables.lock().disconnected(may_resume);
        *self.reading.lock() = None;
        self.progress.send_modify(|progress| progress.run = None);
        let mut status = self.status.lock();
        status.steadiness.closed();
        status.look(&self.metrics);
    }

    /// Keeps and logs an error; the same one again is not worth a line.
    pub(super) fn failed(&self, error: &WalError) {
        let text = error.to_string();
        let mut status = self.status.lock();
        match status.steadiness.is_news(&text) {
            true => tracing::warn!(error = text, "not reading the write-ahead log, trying again"),
            false => tracing::debug!(error = text, "still not reading the write-ahead log"),
        }
        status.last_error = Some(text);
    }

    /// What is read now.
    pub(super) fn reading(&self) -> Option<Reading> {
        self.reading.lock().clone()
    }

    /// Has the stream begin anew.
    pub(super) fn begin_anew(&self, why: WalError) {
        self.anew.lock().get_or_insert(why);
        self.anew_asked.notify_one();
    }

    /// Waits until the stream must begin anew. Cancel safe.
    pub(super) async fn must_begin_anew(&self) -> WalError {
        loop {
            if let Some(why) = self.anew.lock().take() {
                return why;
            }
            self.anew_asked.notified().await;
        }
    }

    /// What was asked of the last stream is nothing to the next one.
    pub(super) fn forget_anew(&self) {
        *self.anew.lock() = None;
    }

    pub(super) fn set_epoch(&self, epoch: Snapshot) {
        *self.epoch.lock() = Some(epoch);
    }

    pub(super) fn epoch(&self) -> Option<Snapshot> {
        self.epoch.lock().clone()
    }

    pub(super) fn set_slot(&self, slot: SlotStatus) {
        self.metrics.lag_bytes.set(i64::try_from(slot.lag_bytes).unwrap_or(i64::MAX));
        *self.slot.lock() = slot;
    }

    /// The stream stands still, or does so no longer.
    pub(super) fn set_stalled(&self, why: Option<String>) {
        let mut status = self.status.lock();
        if status.stalled.is_some() == why.is_some() {
            return;
        }
        match &why {
            Some(why) => tracing::warn!(why, "the write-ahead log stands still"),
            None => tracing::info!("the write-ahead log goes on"),
        }
        self.metrics.connected.set(i64::from(status.connected && why.is_none()));
        (status.stalled, status.since) = (why, SystemTime::now());
    }

    pub(super) fn slot(&self) -> SlotStatus {
        self.slot.lock().clone()
    }

    pub(super) fn status(&self) -> SourceStatus {
        let mut status = self.status.lock();
        status.look(&self.metrics);
        SourceStatus {
            name: "wal",
            connected: status.connected && status.stalled.is_none(),
            since: status.since,
            last_error: status.stalled.as_ref().or(status.last_error.as_ref()).cloned(),
            tables: self.tables.lock().len(),
        }
    }

    /// Waits until the progress is as wanted.
    ///
    /// # Errors
    /// `Unavailable` when that takes too long.
    pub(super) async fn until(
        &self,
        deadline: Instant,
        mut so: impl FnMut(&Progress) -> bool,
    ) -> Result<Progress, Refusal> {
        let mut progress = self.progress.subscribe();
        match timeout_at(deadline, progress.wait_for(|progress| so(progress))).await {
            Ok(Ok(progress)) => Ok(*progress),
            _ => Err(self.unavailable()),
        }
    }

    /// What a client is told when the log is not read in time.
    pub(super) fn unavailable(&self) -> Refusal {
        Refusal::new(Code::Unavailable, "changes of tables cannot be read at the moment")
    }

    /// Says what the table owes its listeners and lets its changes flow; gives whether they do.
    pub(super) async fn pay(&self, topic: &Topic) -> bool {
        loop {
            let Some((run, owed)) = self.tables().debt(topic) else { return false };
            if let Some(reason) = owed
                && !self.interrupt(topic, reason, self.flows(topic)).await
            {
                return false;
            }
            if self.tables().paid(topic, run) {
                return true;
            }
        }
    }

    /// Tells those who listen to tables that stopped. What the history does not take is tried again.
    pub(super) async fn tell_stops(&self) {
        let untold = self.tables().untold();
        for topic in untold {
            tracing::warn!(%topic,
                "the table was renamed, moved or dropped, or left the publication, perhaps for a \
                 while: there is a gap, and the topic follows the table that has the name now");
            let marks = self.flows_no_more(&topic);
            if self.interrupt(&topic, GapReason::ConnectionLost, marks).await {
                self.tables().told(&topic);
            }
        }
    }

    /// What remembers that everything said on the topic is told from here on, and which partitions
    /// the table has then.
    pub(super) fn flows(&self, topic: &Topic) -> Vec<Mark> {
        let place = match topic.kind() {
            TopicKind::Table => self.tables().admission(topic).as_ref().map(Admitted::put),
            _ => Some(Bytes::from_static(b"1")),
        };
        let mut marks = Marks::of_topic(self.slot_mark.as_ref(), topic, place);
        if let Some(layout) = self.partitions().get(topic) {
            marks.extend(self.has_parts(topic, layout));
        }
        marks
    }

    /// What remembers that it is not.
    pub(super) fn flows_no_more(&self, topic: &Topic) -> Vec<Mark> {
        let mut marks = Marks::of_topic(self.slot_mark.as_ref(), topic, None);
        if self.partitions().get(topic).is_some() {
            marks.extend(Marks::of_layout(self.slot_mark.as_ref(), topic, None));
        }
        marks
    }

    /// What remembers that a table has these partitions.
    pub(super) fn has_parts(&self, topic: &Topic, layout: &Layout) -> Option<Mark> {
        Marks::of_layout(self.slot_mark.as_ref(), topic, Some(layout))
    }

    /// Keeps marks alone; gives whether they are kept.
    pub(super) async fn keep(&self, marks: Vec<Mark>) -> bool {
        marks.is_empty() || self.publisher.publish_marked(Vec::new(), marks).await.is_ok()
    }

    /// Says a gap, and keeps marks with it; gives whether it was said.
    pub(super) async fn interrupt(
        &self,
        topic: &Topic,
        reason: GapReason,
        marks: Vec<Mark>,
    ) -> bool {
        match self.publisher.interrupt_marked(topic, reason, marks).await {
            Ok(()) => true,
            Err(error) => {
                if let Some(unsaid) = self.complaints.due() {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(%topic, %reason, error, unsaid,
                        "a gap could not be told, so the table stays silent until it can");
                }
                false
            }
        }
    }
}

impl Status {
    fn look(&mut self, metrics: &WalMetrics) {
        let works = self.steadiness.is_steady();
        if self.connected != works {
            (self.connected, self.since) = (works, SystemTime::now());
        }
        metrics.connected.set(i64::from(works && self.stalled.is_none()));
    }
}

/// The age of a slot that is in use since then.
pub(super) fn age(since: Instant) -> Duration {
    since.elapsed()
}
