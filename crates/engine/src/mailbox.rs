//! What waits for one client.
//!
//! While nothing waits and the transport has an [`Outlet`], bytes go straight into the socket.
//! What the socket does not take is queued, up to a limit in bytes; an offer beyond it is turned
//! down and the subscription goes on from history instead. Offering never waits.
//!
//! The mailbox is also where a session is told to end, and where the ticker finds it.

mod totals;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tidewire_protocol::wire::WEBSOCKET_PING;
use tidewire_protocol::{Close, Position, Topic, Wire};
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use self::totals::Totals;
use crate::limits::Limits;

/// Buffers handed to one vectored write; more than a burst usually has, far under the kernel's
/// limit of 1,024.
const WRITE_BUFFERS: usize = 64;

/// Seconds between the heartbeats of languages that have them: what their clients are told to
/// expect, and half of the time after which a silent client is taken for gone.
const HEARTBEAT_SECONDS: u32 = 30;

/// A socket that takes bytes at once or not at all.
pub trait Outlet: Send + Sync + 'static {
    /// Writes as much as the socket takes now; 0 when it takes nothing. Never blocks.
    ///
    /// # Errors
    /// When the socket is broken; `WouldBlock` is not an error but 0.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// The same for several buffers in one system call.
    ///
    /// # Errors
    /// As [`Outlet::try_write`].
    fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// Finished bytes for a client.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The bytes, frame headers included.
    pub bytes: Bytes,
    /// What they tell about, for sessions that need it to make a cursor; see
    /// [`Opening`](crate::Opening).
    pub mark: Option<Box<(Topic, Position)>>,
}

/// Which of a session's subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SubscriptionKey(pub(crate) u32);

/// Whether an offer was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    Taken,
    Full,
}

/// What waits for one client.
pub(crate) struct Mailbox {
    state: Mutex<State>,
    /// There was no room, because of what waits in other mailboxes.
    starved: AtomicBool,
    wake: Notify,
    wire: Wire,
    /// Seconds of [`clock`] at the last sign of life.
    heard: AtomicU32,
    /// Seconds of [`clock`] when something was last sent for its own sake.
    pinged: AtomicU32,
    /// Seconds since 1970 when the token runs out; `u64::MAX` for never.
    expires: AtomicU64,
    /// Seconds of [`clock`] by when a token must be shown; `u32::MAX` when none is needed.
    deadline: AtomicU32,
    /// How often the session was asked to judge its client again.
    reviews: AtomicU32,
}

struct State {
    totals: Totals,
    queue: VecDeque<Waiting>,
    bytes: usize,
    /// How many of the bytes the client asked for itself.
    answers: usize,
    outlet: Option<Box<dyn Outlet>>,
    /// The outlet took nothing at the last try; its transport waits for writability.
    blocked: bool,
    /// Since when bytes wait without any being taken.
    stalled: Option<Instant>,
    fallen: Vec<(SubscriptionKey, Position)>,
    closing: Option<Close>,
    heartbeat: Option<Box<Bytes>>,
}

struct Waiting {
    outgoing: Outgoing,
    /// How many of its bytes count as an answer.
    answer: usize,
}

impl Mailbox {
    #[cfg(test)]
    pub(crate) fn new(wire: Wire, outlet: Option<Box<dyn Outlet>>, now: u32) -> Self {
        Self::among(Totals::default(), wire, outlet, now)
    }

    /// A mailbox among others that share a limit.
    pub(crate) fn among(
        totals: Totals,
        wire: Wire,
        outlet: Option<Box<dyn Outlet>>,
        now: u32,
    ) -> Self {
        let state = State {
            totals,
            queue: VecDeque::new(),
            bytes: 0,
            answers: 0,
            outlet,
            blocked: false,
            stalled: None,
            fallen: Vec::new(),
            closing: None,
            heartbeat: None,
        };
        Self {
            state: Mutex::new(state),
            starved: AtomicBool::new(false),
            wake: Notify::new(),
            wire,
            heard: AtomicU32::new(now),
            pinged: AtomicU32::new(now),
            expires: AtomicU64::new(u64::MAX),
            deadline: AtomicU32::new(u32::MAX),
            reviews: AtomicU32::new(0),
        }
    }

    /// Takes the bytes unless `limit` bytes wait already.
    pub(crate) fn offer(&self, outgoing: Outgoing, limit: usize) -> Offer {
        let mut state = self.state.lock();
        if state.closing.is_some() {
            return Offer::Taken;
        }
        if state.queue.is_empty() {
            let Some(wake) = state.write_or_queue(outgoing, limit) else { return Offer::Full };
            drop(state);
            if wake {
                self.wake.notify_one();
            }
            return Offer::Taken;
        }
        // What was read from history for this session alone, when there was room, is taken.
        let limit = if limit == usize::MAX { limit } else { limit.min(state.totals.part()) };
        if state.bytes + outgoing.bytes.len() > limit {
            return Offer::Full;
        }
        state.push(outgoing, 0);
        Offer::Taken
    }

    /// Queues bytes of an answer without trying the socket, whatever waits; for answers, of which a session
    /// makes no more than its client asks for.
    ///
    /// A client that asks and asks and does not read ends; what waits besides answers is no
    /// reason, because that is bounded where it is offered.
    pub(crate) fn queue(&self, outgoing: Outgoing, limit: usize) {
        let mut state = self.state.lock();
        if state.closing.is_some() {
            return;
        }
        if state.answers > limit {
            state.closing = Some(Close::SlowConsumer);
        } else {
            let length = outgoing.bytes.len();
            state.push(outgoing, length);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Queues the very last bytes, after the session was told to end.
    pub(crate) fn queue_last(&self, bytes: Bytes) {
        let mut state = self.state.lock();
        state.push(Outgoing { bytes, mark: None }, 0);
        state.blocked = false;
    }

    /// Tells the session that a subscription was taken off the live topic after `position`.
    pub(crate) fn fell_behind(&self, key: SubscriptionKey, position: Position) {
        self.state.lock().fallen.push((key, position));
        self.wake.notify_one();
    }

    pub(crate) fn take_fallen(&self) -> Vec<(SubscriptionKey, Position)> {
        std::mem::take(&mut self.state.lock().fallen)
    }

    /// Tells the session to end; the first reason stays.
    pub(crate) fn close(&self, why: Close) {
        self.state.lock().closing.get_or_insert(why);
        self.wake.notify_one();
    }

    pub(crate) fn closing(&self) -> Option<Close> {
        self.state.lock().closing
    }

    /// Asks the session to judge its client again.
    pub(crate) fn review(&self) {
        self.reviews.fetch_add(1, Ordering::Release);
        self.wake.notify_one();
    }

    /// How often [`Mailbox::review`] was called.
    pub(crate) fn reviews(&self) -> u32 {
        self.reviews.load(Ordering::Acquire)
    }

    /// Whether the transport should come and write.
    pub(crate) fn has_output(&self) -> bool {
        let state = self.state.lock();
        !state.queue.is_empty() && !state.blocked
    }

    /// Whether a page from history fits without soon being too much.
    pub(crate) fn has_room(&self, limit: usize) -> bool {
        let room = self.room(limit);
        self.starved.store(room == 0, Ordering::Relaxed);
        room > 0 && self.state.lock().bytes <= room / 2
    }

    /// Most bytes that may wait here now, of `limit` at most.
    pub(crate) fn room(&self, limit: usize) -> usize {
        limit.min(self.state.lock().totals.part())
    }

    /// Waits for anything above to change. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// All that waits, in order.
    pub(crate) fn take(&self) -> Vec<Outgoing> {
        let mut state = self.state.lock();
        let was_full = state.bytes > 0;
        state.totals.remove(state.bytes);
        state.bytes = 0;
        state.answers = 0;
        state.stalled = None;
        let taken = std::mem::take(&mut state.queue);
        drop(state);
        if was_full {
            // There is room again for whoever catches up.
            self.wake.notify_one();
        }
        taken.into_iter().map(|waiting| waiting.outgoing).collect()
    }

    /// Writes what waits; `true` when nothing is left.
    pub(crate) fn flush(&self) -> io::Result<bool> {
        let mut state = self.state.lock();
        state.blocked = false;
        while !state.queue.is_empty() {
            let written = state.write_queue()?;
            if written == 0 {
                state.blocked = true;
                return Ok(false);
            }
            state.advance(written);
        }
        state.stalled = None;
        if state.queue.capacity() > 4 {
            state.queue = VecDeque::new();
        }
        drop(state);
        self.wake.notify_one();
        Ok(true)
    }

    /// From now on these bytes are sent at every heartbeat, whether the client is silent or not.
    pub(crate) fn beat_with(&self, bytes: Bytes) {
        self.state.lock().heartbeat = Some(Box::new(bytes));
    }

    /// Notes a sign of life.
    pub(crate) fn heard(&self, now: u32) {
        self.heard.store(now, Ordering::Relaxed);
    }

    /// When the present token runs out, in seconds since 1970.
    pub(crate) fn expire_at(&self, at: Option<u64>) {
        self.expires.store(at.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// By when, in seconds of [`clock`], a token must be shown; `None` when none is needed.
    pub(crate) fn authenticate_by(&self, deadline: Option<u32>) {
        self.deadline.store(deadline.unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Ends or pings the session if it is time; called about once a second.
    pub(crate) fn tick(&self, limits: &Limits, now: u32, wall: u64) {
        if self.starved.swap(false, Ordering::Relaxed) {
            // There may be room again; nobody else tells of what other mailboxes gave back.
            self.wake.notify_one();
        }
        if let Some(why) = self.overdue(limits, now, wall) {
            self.close(why);
        } else if self.heartbeat_is_due(now) {
            self.pinged.store(now, Ordering::Relaxed);
            self.beat(limits);
        } else if self.ping_is_due(limits, now) {
            self.pinged.store(now, Ordering::Relaxed);
            self.ping(limits);
        }
    }

    fn overdue(&self, limits: &Limits, now: u32, wall: u64) -> Option<Close> {
        if wall >= self.expires.load(Ordering::Relaxed) {
            return Some(Close::TokenExpired);
        }
        if now >= self.deadline.load(Ordering::Relaxed) {
            return Some(Close::Unauthorized);
        }
        if self.silence(now) >= limits.idle_timeout && self.wire == Wire::WebSocket {
            return Some(Close::Idle);
        }
        let stalled = self.state.lock().stalled;
        stalled
            .is_some_and(|since| since.elapsed() >= limits.write_timeout)
            .then_some(Close::SlowConsumer)
    }

    fn silence(&self, now: u32) -> Duration {
        let heard = self.heard.load(Ordering::Relaxed);
        Duration::from_secs(u64::from(now.saturating_sub(heard)))
    }

    fn heartbeat_is_due(&self, now: u32) -> bool {
        let since = now.saturating_sub(self.pinged.load(Ordering::Relaxed));
        since >= HEARTBEAT_SECONDS && self.state.lock().heartbeat.is_some()
    }

    /// The language's heartbeat, and a ping with it: only the latter must be answered.
    fn beat(&self, limits: &Limits) {
        let heartbeat = self.state.lock().heartbeat.clone();
        if let Some(bytes) = heartbeat {
            let _ = self.offer(Outgoing { bytes: *bytes, mark: None }, limits.mailbox_bytes);
        }
        self.ping(limits);
    }

    fn ping_is_due(&self, limits: &Limits, now: u32) -> bool {
        let since = now.saturating_sub(self.pinged.load(Ordering::Relaxed));
        let pinged = Duration::from_secs(u64::from(since));
        // A language with heartbeats has them at its own pace, which is as good.
        pinged >= limits.ping_interval
            && self.state.lock().heartbeat.is_none()
            && (self.wire != Wire::WebSocket || self.silence(now) >= limits.ping_interval)
    }

    fn ping(&self, limits: &Limits) {
        let bytes = match self.wire {
            Wire::WebSocket => WEBSOCKET_PING,
            Wire::EventStream => Bytes::from_static(b": keep-alive\n\n"),
            // A long-poll ends by itself.
            Wire::Lines => return,
        };
        // A client for which bytes wait already needs no more of them.
        let _ = self.offer(Outgoing { bytes, mark: None }, limits.mailbox_bytes);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.totals.remove(self.bytes);
    }
}

impl State {
    /// Writes directly or queues what is left: whether the session's task must be woken, or `None`
    /// when nothing was written and there is no room in all mailboxes together.
    fn write_or_queue(&mut self, mut outgoing: Outgoing, limit: usize) -> Option<bool> {
        let is_full = limit < usize::MAX && self.totals.part() == 0;
        if let Some(outlet) = &self.outlet {
            match outlet.try_write(&outgoing.bytes) {
                Ok(written) if written == outgoing.bytes.len() => return Some(false),
                Ok(0) if is_full => return None,
                Ok(written) => outgoing.bytes.advance(written),
                Err(_) => {
                    self.closing = Some(Close::Normal);
                    return Some(true);
                }
            }
        }
        self.push(outgoing, 0);
        Some(true)
    }

    fn push(&mut self, outgoing: Outgoing, answer: usize) {
        if self.queue.is_empty() {
            self.stalled = Some(Instant::now());
        }
        self.bytes += outgoing.bytes.len();
        self.totals.add(outgoing.bytes.len());
        self.answers += answer;
        self.queue.push_back(Waiting { outgoing, answer });
    }

    fn write_queue(&self) -> io::Result<usize> {
        let Some(outlet) = &self.outlet else { return Ok(0) };
        if let [only] = self.queue.as_slices().0
            && self.queue.len() == 1
        {
            return outlet.try_write(&only.outgoing.bytes);
        }
        let mut buffers = [IoSlice::new(&[]); WRITE_BUFFERS];
        let mut count = 0;
        for (buffer, waiting) in buffers.iter_mut().zip(&self.queue) {
            *buffer = IoSlice::new(&waiting.outgoing.bytes);
            count += 1;
        }
        outlet.try_write_vectored(&buffers[..count])
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        self.totals.remove(written);
        self.stalled = Some(Instant::now());
        while let Some(first) = self.queue.front_mut() {
            let bytes = &mut first.outgoing.bytes;
            if bytes.len() > written {
                bytes.advance(written);
                return;
            }
            written -= bytes.len();
            self.answers -= first.answer;
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
