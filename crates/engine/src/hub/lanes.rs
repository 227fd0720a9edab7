//! One topic's listeners, in lanes of some hundred each.
//!
//! A lane is a [`LiveTopic`] of its own: a position, listeners, a lock. The first is all that most
//! topics have, and whoever brings events hands them over in it directly. A topic with more
//! listeners has further lanes; then every lane has an inbox, what is to be handed over is put
//! into all of them at once, and each lane is worked by one thread at a time
//! ([`Carriers`](crate::relay::Carriers)), as far as it comes, in its own time.
//!
//! Why so, and not one position for all with the sockets of a batch split over threads: to each
//! lane the others do not exist, so the rule of catching up holds in it unchanged; no thread waits
//! for the slowest of several; what comes while a lane waits for its turn is joined for it. No
//! lock is held for longer than one batch takes to one lane. And there is no assignment of
//! listeners to threads that could get out of balance: whichever thread is free takes the next
//! lane.
//!
//! Pure and synchronous; nothing here waits or spawns.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tidewire_protocol::{Event, Position, SessionId};

use super::live_topic::{Delivered, LiveTopic, Member};
use crate::delivery::{BATCH_BYTES, Batch, Form};
use crate::mailbox::SubscriptionKey;

/// How much a lane takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Listeners before the next lane is begun.
    listeners: usize,
    /// Events that wait in an inbox before the topic waits.
    events: usize,
    /// Bytes of their content.
    bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            // About two milliseconds of writes, beside which what a lane costs for itself (a
            // place in a queue, a yield) is some thousandths; and not much longer than anything
            // else that waits for this thread should wait.
            listeners: 512,
            // As many as wait in the inbox of a relay worker.
            events: 16_384,
            // Of each topic: events of some hundred bytes reach the limit above first.
            bytes: 16 << 20,
        }
    }
}

/// Which of a topic's lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneIndex(u32);

/// One topic's listeners.
#[derive(Default)]
pub(crate) struct Lanes {
    first: Arc<Lane>,
    /// Made when the first lane is full.
    further: OnceLock<Box<Mutex<Further>>>,
    /// Something was not put in because a lane had no room.
    held: AtomicBool,
    bounds: Bounds,
}

/// What a topic with several lanes has besides.
struct Further {
    /// Everything up to here was put into the inboxes.
    at: Option<Position>,
    lanes: Vec<Arc<Lane>>,
}

/// Some of a topic's listeners.
#[derive(Default)]
pub(crate) struct Lane {
    live: Mutex<LiveTopic>,
    /// How many listen, to be asked without the lock.
    listeners: AtomicUsize,
    inbox: Mutex<Inbox>,
}

/// What a lane has not come to.
#[derive(Default)]
struct Inbox {
    waiting: VecDeque<Portion>,
    events: usize,
    bytes: usize,
    /// Someone was told to work the lane, or works it.
    summoned: bool,
}

/// Something to hand over.
#[derive(Clone, Debug)]
pub(crate) enum Portion {
    /// Events that follow.
    Events(Arc<Batch>),
    /// The news that events are missing.
    Gap(Arc<Batch>),
}

/// What became of a portion.
pub(crate) enum Fed {
    /// It was handed over.
    Delivered(Delivered),
    /// It was put into the inboxes; these lanes must be worked.
    Waits(Vec<Arc<Lane>>),
    /// Some lane has no room; nothing was done. [`Lanes::is_released`] tells when to try again.
    Full,
}

impl Portion {
    /// Where a topic is after it.
    pub(crate) fn last(&self) -> Position {
        self.batch().last()
    }

    /// What is in it.
    pub(crate) fn events(&self) -> &[Arc<Event>] {
        self.batch().events()
    }

    fn batch(&self) -> &Batch {
        match self {
            Self::Events(batch) | Self::Gap(batch) => batch,
        }
    }
}

impl Lanes {
    #[cfg(test)]
    pub(crate) fn tiny(listeners: usize, events: usize) -> Self {
        let bounds = Bounds { listeners, events, ..Bounds::default() };
        Self { bounds, ..Self::default() }
    }

    /// Places the topic before anything was handed over.
    pub(crate) fn place(&self, at: Position) {
        self.first.live.lock().place(at);
    }

    /// Lanes that this topic has.
    pub(crate) fn len(&self) -> usize {
        1 + self.further.get().map_or(0, |further| further.lock().lanes.len())
    }

    /// Whether what is fed is handed over at once and not by way of inboxes.
    pub(crate) fn is_direct(&self) -> bool {
        self.further.get().is_none()
    }

    /// Those who listen in the first lane; all of them where there is no other.
    pub(crate) fn first_listeners(&self) -> usize {
        self.first.listeners.load(Ordering::Relaxed)
    }

    /// From now on the member receives what comes after `position`, in the lane that is given.
    ///
    /// `None` when its lane is past that position already: read on from history, then try again.
    pub(crate) fn go_live(
        &self,
        member: Member,
        form: &Form,
        position: Position,
    ) -> Option<LaneIndex> {
        let (index, lane) = self.with_room(&member);
        let live = lane.change(|live| live.go_live(member, form, position));
        live.then_some(index)
    }

    /// From now on the member receives what comes; `say` is told the position first. `None` when
    /// the topic is not placed yet.
    pub(crate) fn go_live_now(
        &self,
        member: Member,
        form: &Form,
        say: impl FnOnce(Position),
    ) -> Option<LaneIndex> {
        let (index, lane) = self.with_room(&member);
        lane.change(|live| live.go_live_now(member, form, say)).map(|_| index)
    }

    /// The member receives nothing any more; gives the place up to which it has everything, if it
    /// was live in this lane.
    pub(crate) fn leave(
        &self,
        index: LaneIndex,
        session: SessionId,
        key: SubscriptionKey,
    ) -> Option<Position> {
        self.lane(index)?.change(|live| live.leave(session, key))
    }

    /// Everything up to here was handed over in this lane.
    pub(crate) fn at(&self, index: LaneIndex) -> Option<Position> {
        self.lane(index)?.live.lock().at()
    }

    /// Hands something over, or puts it into all lanes' inboxes. It must follow what was fed
    /// before, and nobody else may feed meanwhile.
    pub(crate) fn feed(&self, portion: &Portion, limit: usize) -> Fed {
        if let Some(delivered) = self.hand_over(portion, limit) {
            return Fed::Delivered(delivered);
        }
        let mut further = self.further.get().expect("the first lane is not alone").lock();
        let lanes = || std::iter::once(&self.first).chain(&further.lanes);
        let have_room = || lanes().all(|lane| lane.has_room(self.bounds));
        if !have_room() {
            self.held.store(true, Ordering::SeqCst);
            // Whoever made room before that was stored did not find it.
            if !have_room() {
                return Fed::Full;
            }
        }
        let listened_to = lanes().filter(|lane| !lane.pass(portion));
        let summoned = listened_to.filter(|lane| lane.put(portion)).map(Arc::clone).collect();
        further.at = Some(portion.last());
        Fed::Waits(summoned)
    }

    /// The short way, where there is only one lane.
    fn hand_over(&self, portion: &Portion, limit: usize) -> Option<Delivered> {
        if !self.is_direct() {
            return None;
        }
        // No lane can be added while this one is locked.
        self.first.change(|live| self.is_direct().then(|| deliver(live, portion, limit)))
    }

    /// Whether a feed was turned away and no lane has made room since.
    pub(crate) fn are_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// Whether a feed was turned away by a lane that has room now; says so once.
    pub(crate) fn is_released(&self) -> bool {
        self.held.swap(false, Ordering::SeqCst)
    }

    /// Every lane that there is now.
    pub(crate) fn all(&self) -> Vec<Arc<Lane>> {
        let mut lanes = vec![Arc::clone(&self.first)];
        if let Some(further) = self.further.get() {
            lanes.extend(further.lock().lanes.iter().cloned());
        }
        lanes
    }

    /// Whether nobody listens.
    pub(crate) fn is_deserted(&self) -> bool {
        self.all().iter().all(|lane| lane.listeners.load(Ordering::Relaxed) == 0)
    }

    pub(crate) fn lane(&self, index: LaneIndex) -> Option<Arc<Lane>> {
        let Some(place) = index.0.checked_sub(1) else { return Some(Arc::clone(&self.first)) };
        self.further.get()?.lock().lanes.get(place as usize).cloned()
    }

    /// The first lane with room, made if there is none.
    fn with_room(&self, member: &Member) -> (LaneIndex, Arc<Lane>) {
        // A change of a table costs what matches; in many lanes it would cost a look into each.
        let stays = member.wants.is_some();
        if stays || self.first.is_open(self.bounds) {
            return (LaneIndex::default(), Arc::clone(&self.first));
        }
        let mut further = self.further().lock();
        let open = further.lanes.iter().position(|lane| lane.is_open(self.bounds));
        let place = open.unwrap_or_else(|| further.add());
        let index = u32::try_from(place + 1).expect("there are fewer lanes than sessions");
        (LaneIndex(index), Arc::clone(&further.lanes[place]))
    }

    fn further(&self) -> &Mutex<Further> {
        if let Some(further) = self.further.get() {
            return further;
        }
        let live = self.first.live.lock();
        self.further
            .get_or_init(|| Box::new(Mutex::new(Further { at: live.at(), lanes: Vec::new() })))
    }
}

impl Further {
    /// One lane more, to which everything comes that is fed from now on; gives its place.
    fn add(&mut self) -> usize {
        let lane = Lane::default();
        if let Some(at) = self.at {
            lane.live.lock().place(at);
        }
        self.lanes.push(Arc::new(lane));
        self.lanes.len() - 1
    }
}

impl Lane {
    /// Hands over the next batch of what waits, joined; whether the lane must be worked again.
    ///
    /// For whoever was told to, one at a time.
    pub(crate) fn work(&self, limit: usize) -> (Delivered, bool) {
        let next = self.inbox.lock().take();
        let delivered = next.map(|next| self.change(|live| deliver(live, &next, limit)));
        let again = self.inbox.lock().rest();
        (delivered.unwrap_or_default(), again)
    }

    /// Does something with the topic as the lane sees it; never waits long.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut LiveTopic) -> T) -> T {
        let mut live = self.live.lock();
        let changed = change(&mut live);
        self.listeners.store(live.len(), Ordering::Relaxed);
        changed
    }

    fn is_open(&self, bounds: Bounds) -> bool {
        self.listeners.load(Ordering::Relaxed) < bounds.listeners
    }

    fn has_room(&self, bounds: Bounds) -> bool {
        let inbox = self.inbox.lock();
        inbox.events < bounds.events && inbox.bytes < bounds.bytes
    }

    /// Moves a lane to which nobody listens on, if nothing waits in it; whether that was so. Lanes
    /// are never taken away, so that a topic that once had a crowd does not pay for it for ever.
    fn pass(&self, portion: &Portion) -> bool {
        if self.listeners.load(Ordering::Relaxed) > 0 {
            return false;
        }
        // Whoever comes meanwhile is here before or after, as the lock has it.
        self.change(|live| {
            let passed = live.len() == 0 && self.inbox.lock().is_at_rest();
            if passed {
                live.place(portion.last());
            }
            passed
        })
    }

    /// Whether somebody must be told to work the lane.
    fn put(&self, portion: &Portion) -> bool {
        let mut inbox = self.inbox.lock();
        inbox.put(portion.clone());
        !std::mem::replace(&mut inbox.summoned, true)
    }
}

impl Inbox {
    fn put(&mut self, portion: Portion) {
        self.events += portion.batch().events().len();
        self.bytes += portion.batch().bytes();
        self.waiting.push_back(portion);
    }

    /// The next portion, with what follows it as far as it fits into a batch.
    fn take(&mut self) -> Option<Portion> {
        let portion = self.pop()?;
        let Portion::Events(first) = &portion else { return Some(portion) };
        let mut bytes = first.bytes();
        let mut joined = Vec::new();
        while let Some(Portion::Events(next)) = self.waiting.front()
            && bytes + next.bytes() <= BATCH_BYTES
        {
            bytes += next.bytes();
            if joined.is_empty() {
                joined.extend_from_slice(first.events());
            }
            joined.extend_from_slice(next.events());
            self.pop();
        }
        if joined.is_empty() {
            // As it came its bytes are shared with the other lanes.
            return Some(portion);
        }
        Some(Portion::Events(Arc::new(Batch::new(joined))))
    }

    fn pop(&mut self) -> Option<Portion> {
        let portion = self.waiting.pop_front()?;
        self.events -= portion.batch().events().len();
        self.bytes -= portion.batch().bytes();
        Some(portion)
    }

    /// Whether nothing waits and nobody works the lane.
    fn is_at_rest(&self) -> bool {
        self.waiting.is_empty() && !self.summoned
    }

    /// Whether something is left; otherwise the next who puts something in tells somebody anew.
    fn rest(&mut self) -> bool {
        self.summoned = !self.waiting.is_empty();
        if !self.summoned && self.waiting.capacity() > 16 {
            self.waiting = VecDeque::new();
        }
        self.summoned
    }
}

fn deliver(live: &mut LiveTopic, portion: &Portion, limit: usize) -> Delivered {
    match portion {
        Portion::Events(batch) => live.deliver(batch, limit),
        Portion::Gap(gap) => live.tell_gap(gap, limit),
    }
}
