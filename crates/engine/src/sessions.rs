//! The sessions of a node, for whoever must reach them all; and what they leave behind.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tidewire_protocol::{Close, SessionId, Topic};
use tokio::sync::Notify;

use crate::limits::Limits;
use crate::mailbox::Mailbox;

/// Sessions are found by this many locks.
const SESSION_SHARDS: usize = 16;

/// The mailboxes of all open sessions.
pub(crate) struct Sessions {
    shards: Vec<Mutex<HashMap<SessionId, Arc<Mailbox>>>>,
    count: AtomicUsize,
    empty: Notify,
    /// Over how many seconds clients come back, once the node shuts down.
    restart: OnceLock<u16>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            shards: (0..SESSION_SHARDS).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            empty: Notify::new(),
            restart: OnceLock::new(),
        }
    }
}

impl Sessions {
    fn shard(&self, id: SessionId) -> &Mutex<HashMap<SessionId, Arc<Mailbox>>> {
        &self.shards[id.0 as usize % SESSION_SHARDS]
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Adds a session unless there are `limit`.
    pub(crate) fn insert(&self, id: SessionId, mailbox: Arc<Mailbox>, limit: usize) -> bool {
        let one_more = |count| (count < limit).then_some(count + 1);
        if self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            return false;
        }
        let mut shard = self.shard(id).lock();
        // Under the lock: either `close_all` finds the session, or this finds that it has begun.
        if let Some(&spread) = self.restart.get() {
            mailbox.close(Close::Restart { after: random_up_to(spread) });
        }
        shard.insert(id, mailbox);
        true
    }

    pub(crate) fn remove(&self, id: SessionId) {
        self.shard(id).lock().remove(&id);
        if self.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.empty.notify_waiters();
        }
    }

    pub(crate) fn tick(&self, limits: &Limits, now: u32, wall: u64) {
        for shard in &self.shards {
            let mailboxes: Vec<_> = shard.lock().values().cloned().collect();
            for mailbox in mailboxes {
                mailbox.tick(limits, now, wall);
            }
        }
    }

    pub(crate) fn close_all(&self, spread: u16) {
        let spread = *self.restart.get_or_init(|| spread);
        for shard in &self.shards {
            for mailbox in shard.lock().values() {
                mailbox.close(Close::Restart { after: random_up_to(spread) });
            }
        }
    }

    pub(crate) async fn emptied(&self) {
        loop {
            let empty = self.empty.notified();
            if self.len() == 0 {
                return;
            }
            empty.await;
        }
    }
}

fn random_up_to(limit: u16) -> u16 {
    let random = getrandom::u32().expect("the system has randomness");
    ((u64::from(random) * (u64::from(limit) + 1)) >> 32) as u16
}

/// Members whose sessions have ended and who are still to be taken off; never more than were
/// tracked.
#[derive(Default)]
pub(crate) struct Departures {
    list: Mutex<Vec<(Topic, Arc<str>)>>,
    /// Someone was added.
    pub(crate) changed: Notify,
}

impl Departures {
    pub(crate) fn add(&self, members: impl IntoIterator<Item = (Topic, Arc<str>)>) {
        self.list.lock().extend(members);
        self.changed.notify_one();
    }

    pub(crate) fn take(&self) -> Vec<(Topic, Arc<str>)> {
        std::mem::take(&mut self.list.lock())
    }
}
