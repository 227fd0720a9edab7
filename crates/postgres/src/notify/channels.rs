//! Which channels are wanted, which are listened to, and what to say next; pure.
//!
//! The loop in [`listener`](super::listener) asks for the next [`Batch`], sends it, and reports
//! the answer. At most one batch is on its way, so what the server listens to is always `active`
//! plus whatever that batch changes.
//!
//! A channel that begins to be listened to may have missed something, so it *owes* its readers a
//! gap: the connection was lost, or nobody listened. The gap is said after LISTEN is active, when
//! nothing more can be missed, and before the first notification that came after it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tidewire_protocol::{GapReason, Topic};

/// Statements in one round trip: with LISTEN at 0.3 ms for a server with 10,000 channels, a batch
/// takes at most some 150 ms, after which whoever came meanwhile has its turn.
pub(super) const BATCH: usize = 500;

/// What is said to the server in one round trip, and what it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    listen: Vec<Arc<str>>,
    unlisten: Vec<Arc<str>>,
}

impl Batch {
    /// The statements, each a word and the channel it is about.
    pub(super) fn statements(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let listen = self.listen.iter().map(|channel| ("LISTEN", &**channel));
        listen.chain(self.unlisten.iter().map(|channel| ("UNLISTEN", &**channel)))
    }

    pub(super) fn listen_count(&self) -> usize {
        self.listen.len()
    }

    pub(super) fn unlisten_count(&self) -> usize {
        self.unlisten.len()
    }
}

/// Appends an SQL identifier that keeps case and every character, in any encoding that a database
/// can have: in all of them a quote is never a part of another character.
pub(super) fn quote(name: &[u8], sql: &mut Vec<u8>) {
    sql.push(b'"');
    for byte in name {
        if *byte == b'"' {
            sql.push(b'"');
        }
        sql.push(*byte);
    }
    sql.push(b'"');
}

/// What to do with a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Hand it to the publisher.
    Publish(Topic),
    /// Its LISTEN is not confirmed, so its gap is not said yet.
    Hold,
    /// Nobody wants it, or it falls into a gap that could not be said yet.
    Drop,
}

/// There are as many channels as allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Who wants a channel.
#[derive(Debug, Default)]
struct Wish {
    /// Listened to from the start and for ever.
    always: bool,
    /// Attached, and not detached since.
    attached: bool,
    /// Attaches that wait for LISTEN to be active.
    waiting: usize,
}

impl Wish {
    fn is_over(&self) -> bool {
        !self.always && !self.attached && self.waiting == 0
    }
}

/// Everything that is known about channels.
#[derive(Debug)]
pub(super) struct Channels {
    limit: usize,
    connected: bool,
    wishes: HashMap<Arc<str>, Wish>,
    /// Listened to on this connection, as far as the server has confirmed.
    active: HashMap<Arc<str>, Topic>,
    /// On its way to the server.
    sent: Option<Batch>,
    /// Where wish and truth may differ.
    changed: HashSet<Arc<str>>,
    /// Gaps to be said.
    owed: HashMap<Arc<str>, GapReason>,
}

impl Channels {
    /// No channels but those listened to always; `limit` is the most there may be.
    pub(super) fn new(limit: usize, always: impl IntoIterator<Item = Arc<str>>) -> Self {
        let mut channels = Self {
            limit,
            connected: false,
            wishes: HashMap::new(),
            active: HashMap::new(),
            sent: None,
            changed: HashSet::new(),
            owed: HashMap::new(),
        };
        for channel in always {
            channels.wishes.entry(channel).or_default().always = true;
        }
        channels
    }

    /// Somebody attaches and waits; every call is answered by one of
    /// [`Channels::settled`] later.
    pub(super) fn want(&mut self, channel: &str) -> Result<(), Full> {
        if !self.wishes.contains_key(channel) && self.wishes.len() >= self.limit {
            return Err(Full);
        }
        let channel: Arc<str> = channel.into();
        self.wishes.entry(Arc::clone(&channel)).or_default().waiting += 1;
        if !self.active.contains_key(&channel) || self.is_being_left(&channel) {
            self.changed.insert(channel);
        }
        Ok(())
    }

    /// The wait of an attach is over: it was told that LISTEN is active, or it went away.
    pub(super) fn settled(&mut self, channel: &str, attached: bool) {
        let Some(wish) = self.wishes.get_mut(channel) else { return };
        wish.waiting -= 1;
        wish.attached |= attached;
        self.forget_if_over(channel);
    }

    /// The last listener left.
    pub(super) fn release(&mut self, channel: &str) {
        if let Some(wish) = self.wishes.get_mut(channel) {
            wish.attached = false;
            self.forget_if_over(channel);
        }
    }

    fn forget_if_over(&mut self, channel: &str) {
        if let Some((channel, _)) =
            self.wishes.get_key_value(channel).filter(|(_, wish)| wish.is_over())
        {
            let channel = Arc::clone(channel);
            self.wishes.remove(&channel);
            if !self.active.contains_key(&channel) {
                self.owed.remove(&channel);
            }
            self.changed.insert(channel);
        }
    }

    /// Whether everything said on the channel from now on is sure to arrive.
    pub(super) fn is_listening(&self, channel: &str) -> bool {
        self.active.contains_key(channel) && !self.is_being_left(channel)
    }

    /// Whether a new reader may be let in: listening, and with no gap to be said that it would
    /// hear of although it missed nothing.
    pub(super) fn is_ready(&self, channel: &str) -> bool {
        self.is_listening(channel) && !self.owed.contains_key(channel)
    }

    fn is_being_left(&self, channel: &str) -> bool {
        self.sent.as_ref().is_some_and(|batch| batch.unlisten.iter().any(|c| **c == *channel))
    }

    /// A new connection, on which nothing is listened to yet.
    pub(super) fn connected(&mut self) {
        self.disconnected();
        self.connected = true;
        self.changed = self.wishes.keys().cloned().collect();
    }

    /// The connection is gone; what was listened to owes a gap.
    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.sent = None;
        self.changed.clear();
        for (channel, _) in self.active.drain() {
            if self.wishes.contains_key(&channel) {
                self.owed.insert(channel, GapReason::ConnectionLost);
            } else {
                self.owed.remove(&channel);
            }
        }
    }

    /// What to say to the server now; it is on its way from here on.
    pub(super) fn next_batch(&mut self) -> Option<Batch> {
        if !self.connected || self.sent.is_some() {
            return None;
        }
        let mut batch = Batch::default();
        while batch.listen.len() + batch.unlisten.len() < BATCH
            && let Some(channel) = self.changed.iter().next().cloned()
        {
            self.changed.remove(&channel);
            match (self.wishes.contains_key(&channel), self.active.contains_key(&channel)) {
                (true, false) => batch.listen.push(channel),
                (false, true) => batch.unlisten.push(channel),
                _ => {}
            }
        }
        if batch == Batch::default() {
            return None;
        }
        self.sent = Some(batch.clone());
        Some(batch)
    }

    /// The server has done what was sent.
    pub(super) fn batch_done(&mut self) {
        let Some(batch) = self.sent.take() else { return };
        for channel in batch.unlisten {
            self.active.remove(&channel);
            self.owed.remove(&channel);
        }
        for channel in batch.listen {
            let topic = Topic::notify(&channel).expect("a channel was a topic before");
            self.active.insert(Arc::clone(&channel), topic);
            self.owed.entry(channel).or_insert(GapReason::NotListening);
        }
    }

    /// Gaps that can be said now.
    pub(super) fn owed(&self) -> Vec<(Topic, GapReason)> {
        self.owed
            .iter()
            .filter_map(|(channel, reason)| Some((self.active.get(channel)?.clone(), *reason)))
            .collect()
    }

    /// The gap was said.
    pub(super) fn paid(&mut self, channel: &str) {
        self.owed.remove(channel);
    }

    /// A notification could not be published: what comes next on the channel has a gap before it.
    pub(super) fn owe(&mut self, channel: &str) {
        if self.active.contains_key(channel) {
            self.owed.insert(channel.into(), GapReason::ConnectionLost);
        }
    }

    /// What to do with a notification of the channel.
    pub(super) fn fate(&self, channel: &str) -> Fate {
        match self.active.get(channel) {
            Some(_) if self.owed.contains_key(channel) => Fate::Drop,
            Some(topic) => Fate::Publish(topic.clone()),
            None if self.is_being_joined(channel) => Fate::Hold,
            None => Fate::Drop,
        }
    }

    fn is_being_joined(&self, channel: &str) -> bool {
        self.sent.as_ref().is_some_and(|batch| batch.listen.iter().any(|c| **c == *channel))
    }

    /// Channels that are wanted.
    pub(super) fn len(&self) -> usize {
        self.wishes.len()
    }
}

#[cfg(test)]
mod tests;
