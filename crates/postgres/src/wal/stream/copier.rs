//! The task that owns the socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tidewire::sparing::Sparing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::pace::{Pace, REST};
use super::pause::Pause;
use super::{Batch, Feedback, Item, StreamOptions, units};
use crate::connect::ErrorKind;
use crate::connect::replication::{Frame, Line, LineError, Said};
use crate::wal::error::{WalError, WalErrorKind};
use crate::wal::pgoutput::{Lsn, Moment};

/// How often the server is told how far we are at least. It ends a stream after
/// `wal_sender_timeout` without a word, a minute unless changed.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How soon it is told after a batch was kept. Each telling wakes the server's process, so batches
/// of some milliseconds share one.
const TELL_SOON: Duration = Duration::from_millis(50);

/// Bytes that a message takes beside its content: its header, which stays in the buffer, and its
/// place in a list that grows by doubling.
const MESSAGE: usize = 128;

/// Bytes read ahead while there is no room in the queue.
const AHEAD: usize = 64 * 1024;

pub(super) struct Copier {
    line: Line,
    feedback: Arc<Feedback>,
    batches: mpsc::Sender<Result<Batch, WalError>>,
    room: Arc<Semaphore>,
    /// All the room there is.
    capacity: usize,
    stop: CancellationToken,
    options: StreamOptions,
    pending: Vec<Item>,
    pending_bytes: usize,
    /// Since when there is no room.
    full_since: Option<Instant>,
    /// The pulse when there was no room any more.
    moved: u64,
    /// How far the server is.
    received: Lsn,
    heard: Instant,
    /// Whether the server was asked for a sign of life.
    asked: bool,
    tell_at: Instant,
    pace: Pace,
    /// `None` where the system has none: then bytes are read as they come.
    pause: Option<Pause>,
    /// What PostgreSQL says beside the log.
    notices: Sparing,
    /// Whether bytes are left to gather.
    resting: bool,
}

enum Ended {
    Stopped,
    Lost(WalError),
}

impl From<WalError> for Ended {
    fn from(error: WalError) -> Self {
        Self::Lost(error)
    }
}

impl Copier {
    pub(super) fn new(
        mut line: Line,
        feedback: Arc<Feedback>,
        batches: mpsc::Sender<Result<Batch, WalError>>,
        room: Arc<Semaphore>,
        stop: CancellationToken,
        options: StreamOptions,
    ) -> Self {
        line.frames.limit(options.row_bytes);
        let (capacity, now) = (room.available_permits(), Instant::now());
        Self {
            line,
            feedback,
            batches,
            room,
            capacity,
            stop,
            options,
            pending: Vec::new(),
            pending_bytes: 0,
            full_since: None,
            moved: 0,
            received: Lsn(0),
            heard: now,
            asked: false,
            tell_at: now,
            pace: Pace::new(now),
            pause: Pause::new().ok(),
            notices: Sparing::new(),
            resting: false,
        }
    }

    pub(super) async fn run(mut self) {
        let ended = loop {
            if let Err(ended) = self.step().await {
                break ended;
            }
        };
        match ended {
            Ended::Stopped => self.say_goodbye().await,
            Ended::Lost(error) => self.hand_over_last(error).await,
        }
    }

    async fn step(&mut self) -> Result<(), Ended> {
        let is_full = self.pending_bytes >= AHEAD;
        let patience = if self.asked { self.options.answer_timeout } else { self.options.silence };
        let stalled_at = self.full_since.unwrap_or(self.heard) + self.options.stall_limit;
        tokio::select! {
            biased;
            // 1. Shutdown ends the stream politely.
            () = self.stop.cancelled() => Err(Ended::Stopped),
            // 2. The server is told how far we are.
            () = sleep_until(self.tell_at) => Ok(self.tell(false).await?),
            // 3. More was kept, or somebody wants to know how far the server is.
            () = self.feedback.changed.notified() => Ok(self.tell_soon().await?),
            // 4. What was read goes into the queue.
            room = room(&self.room, units(self.pending_bytes).min(self.capacity)),
                if !self.pending.is_empty() => self.hand_over(room),
            // 5. More is read.
            read = self.line.plug.read_buf(self.line.frames.input()),
                if !is_full && !self.resting => Ok(self.take(read)?),
            // 6. Enough has gathered.
            () = end(self.pause.as_mut()), if self.resting => {
                self.resting = false;
                Ok(())
            }
            // 7. The queue stays full.
            () = sleep_until(stalled_at), if is_full => Ok(self.stalls()?),
            // 8. Silence.
            () = sleep_until(self.heard + patience), if !is_full => Ok(self.silent().await?),
        }
    }

    fn hand_over(&mut self, room: OwnedSemaphorePermit) -> Result<(), Ended> {
        let batch = Batch { items: std::mem::take(&mut self.pending), _room: room };
        self.pending_bytes = 0;
        if self.full_since.take().is_some() {
            // Nothing was read meanwhile, so nothing could be heard.
            self.heard = Instant::now();
        }
        // The queue has a place for each unit of room, so its reader went away.
        self.batches.try_send(Ok(batch)).map_err(|_| Ended::Stopped)
    }

    fn take(&mut self, read: std::io::Result<usize>) -> Result<(), WalError> {
        let read = read.map_err(|error| self.broken(error))?;
        if read == 0 {
            return Err(self.broken(crate::connect::replication::closed()));
        }
        (self.heard, self.asked) = (Instant::now(), false);
        while let Some(frame) = self.line.frames.next().map_err(|error| self.broken(error))? {
            self.take_frame(frame)?;
        }
        if self.pending_bytes >= AHEAD {
            self.full_since = Some(self.heard);
            self.moved = self.feedback.moved.load(Ordering::Relaxed);
        }
        if self.pace.read(read, self.heard) {
            self.rest().map_err(|error| self.broken(error))?;
        }
        Ok(())
    }

    fn rest(&mut self) -> std::io::Result<()> {
        let Some(pause) = &mut self.pause else { return Ok(()) };
        self.line.plug.rest()?;
        pause.begin(REST)?;
        self.resting = true;
        Ok(())
    }

    fn take_frame(&mut self, frame: Frame) -> Result<(), WalError> {
        match frame.tag {
            b'd' => self.take_copied(frame),
            b'E' => Err(WalError::said(&Said::read(&frame.body), &self.line.place)),
            b'c' | b'C' => Err(WalError::new(
                WalErrorKind::Connection(ErrorKind::Unreachable),
                format!("PostgreSQL at {} ended the stream: it shuts down", self.line.place),
            )),
            b'N' => {
                self.take_notice(&Said::read(&frame.body));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A warning comes again and again while there is a reason for it.
    fn take_notice(&self, said: &Said) {
        if let Some(unsaid) = self.notices.due() {
            tracing::warn!(code = said.code, unsaid, "PostgreSQL says about the log: {said}");
        }
    }

    fn take_copied(&mut self, frame: Frame) -> Result<(), WalError> {
        let Frame { mut body, skipped, .. } = frame;
        let short = |_| WalError::new(WalErrorKind::Protocol, "a message of the log is too short");
        match body.try_get_u8().map_err(short)? {
            b'w' => {
                body.try_get_u64().map_err(short)?;
                let end = Lsn(body.try_get_u64().map_err(short)?);
                body.try_get_u64().map_err(short)?;
                self.received = self.received.max(end);
                self.push(body, skipped);
            }
            b'k' => {
                let end = Lsn(body.try_get_u64().map_err(short)?);
                body.try_get_u64().map_err(short)?;
                self.received = self.received.max(end);
                if body.try_get_u8().map_err(short)? == 1 {
                    self.tell_at = Instant::now();
                }
                self.pending.push(Item::Sent(end));
            }
            _ => return Err(WalError::new(WalErrorKind::Protocol, "an unknown sort of message")),
        }
        Ok(())
    }

    fn push(&mut self, payload: Bytes, skipped: usize) {
        self.pending_bytes += MESSAGE + payload.len();
        self.pending.push(match skipped {
            0 => Item::Data(payload),
            _ => Item::Oversized(payload, skipped),
        });
    }

    async fn tell_soon(&mut self) -> Result<(), WalError> {
        if self.feedback.ask.swap(false, Ordering::AcqRel) {
            return self.tell(true).await;
        }
        self.tell_at = self.tell_at.min(Instant::now() + TELL_SOON);
        Ok(())
    }

    /// Says how far we are, and asks how far the server is.
    async fn tell(&mut self, ask: bool) -> Result<(), WalError> {
        let confirmed = self.feedback.confirmed.load(Ordering::Acquire);
        let mut status = BytesMut::with_capacity(34);
        status.put_u8(b'r');
        status.put_u64(self.received.0.max(confirmed));
        status.put_u64(confirmed);
        status.put_u64(confirmed);
        status.put_i64(now().0);
        status.put_u8(u8::from(ask));
        let message = frontend::CopyData::new(status).expect("34 bytes are not too many");
        let mut out = BytesMut::new();
        message.write(&mut out);
        self.tell_at = Instant::now() + TELL_EVERY;
        self.write(&out).await
    }

    async fn write(&mut self, out: &[u8]) -> Result<(), WalError> {
        let written = async {
            self.line.plug.write_all(out).await?;
            self.line.plug.flush().await
        };
        match timeout(self.options.answer_timeout, written).await {
            Ok(outcome) => outcome.map_err(|error| self.broken(error)),
            Err(_) => Err(self.lifeless()),
        }
    }

    /// Nothing came for long: asks, or gives up when that was an answer not coming.
    async fn silent(&mut self) -> Result<(), WalError> {
        if self.asked {
            return Err(self.lifeless());
        }
        (self.asked, self.heard) = (true, Instant::now());
        self.tell(true).await
    }

    async fn say_goodbye(mut self) {
        let mut out = BytesMut::new();
        frontend::copy_done(&mut out);
        // A server that is gone already needs no goodbye.
        if self.tell(false).await.is_ok() && self.write(&out).await.is_ok() {
            self.line.close().await;
        }
    }

    /// What was read before the end comes first.
    async fn hand_over_last(mut self, error: WalError) {
        if !self.pending.is_empty() {
            let wanted = units(self.pending_bytes).min(self.capacity);
            let waited = timeout(self.options.stall_limit, room(&self.room, wanted)).await;
            let Ok(room) = waited else { return };
            if self.hand_over(room).is_err() {
                return;
            }
        }
        // Nobody wants to know when there is no reader.
        let _ = self.batches.send(Err(error)).await;
    }

    fn broken(&self, error: std::io::Error) -> WalError {
        WalError::line(LineError::Broken(error), &self.line.place)
    }

    fn lifeless(&self) -> WalError {
        WalError::new(
            WalErrorKind::Connection(ErrorKind::Unreachable),
            format!("PostgreSQL at {} gives no sign of life", self.line.place),
        )
    }

    /// There has been no room for long: gives up unless what was read is being worked on.
    fn stalls(&mut self) -> Result<(), WalError> {
        let moved = self.feedback.moved.load(Ordering::Relaxed);
        if moved == self.moved {
            return Err(self.stalled());
        }
        (self.moved, self.full_since) = (moved, Some(Instant::now()));
        Ok(())
    }

    fn stalled(&self) -> WalError {
        let seconds = self.options.stall_limit.as_secs();
        WalError::new(
            WalErrorKind::TooFarBehind,
            format!("changes could not be published for {seconds} s, so the stream is begun anew"),
        )
    }
}

async fn end(pause: Option<&mut Pause>) {
    if let Some(pause) = pause {
        pause.end().await;
    }
}

async fn room(room: &Arc<Semaphore>, units: usize) -> OwnedSemaphorePermit {
    let units = u32::try_from(units).unwrap_or(u32::MAX);
    Arc::clone(room).acquire_many_owned(units).await.expect("it is never closed")
}

fn now() -> Moment {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Moment::from_unix_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
