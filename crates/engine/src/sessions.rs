//! The sessions of a node, for whoever must reach them all; and what they leave behind.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tidewire_protocol::{Close, SessionId, Topic};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::auth::Identity;
use crate::limits::Limits;
use crate::mailbox::Mailbox;
use crate::node::Place;
use crate::ticker::wall_seconds;

/// Sessions are found by this many locks.
const SESSION_SHARDS: usize = 16;

/// Longest time between the judgement of a token and the opening of its session: an authenticator
/// answers, or gives up, within seconds.
const JUDGED_BEFORE: Duration = Duration::from_secs(60);

/// An open session, as a list for operators shows it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The session's id.
    pub id: SessionId,
    /// Whom its token names; `None` for an anonymous client.
    pub subject: Option<Arc<str>>,
    /// All claims of the token.
    pub claims: Option<Arc<serde_json::Value>>,
    /// The other end, where the transport knows it.
    pub peer: Option<SocketAddr>,
    /// When it was opened, in seconds since 1970.
    pub since: u64,
}

/// All open sessions.
pub(crate) struct Sessions {
    shards: Vec<Mutex<HashMap<SessionId, Open>>>,
    count: AtomicUsize,
    empty: Notify,
    /// Over how many seconds clients come back, once the node shuts down.
    restart: OnceLock<u16>,
    /// When all were last asked to judge their clients again.
    reviewed: Mutex<Option<Instant>>,
}

struct Open {
    mailbox: Arc<Mailbox>,
    connection: Connection,
    place: Place,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            shards: (0..SESSION_SHARDS).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            empty: Notify::new(),
            restart: OnceLock::new(),
            reviewed: Mutex::default(),
        }
    }
}

impl Sessions {
    fn shard(&self, id: SessionId) -> &Mutex<HashMap<SessionId, Open>> {
        &self.shards[id.0 as usize % SESSION_SHARDS]
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Adds a session that has a place.
    pub(crate) fn insert(
        &self,
        id: SessionId,
        mailbox: Arc<Mailbox>,
        peer: Option<SocketAddr>,
        place: Place,
    ) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut shard = self.shard(id).lock();
        // Under the lock: either `close_all` finds the session, or this finds that it has begun.
        if let Some(&spread) = self.restart.get() {
            mailbox.close(Close::Restart { after: random_up_to(spread) });
        }
        let just_reviewed = |at: Instant| at.elapsed() < JUDGED_BEFORE;
        if self.reviewed.lock().is_some_and(just_reviewed) {
            mailbox.review();
        }
        let (subject, claims, since) = (None, None, wall_seconds());
        let connection = Connection { id, subject, claims, peer, since };
        shard.insert(id, Open { mailbox, connection, place });
    }

    /// Changes whose place a session has.
    pub(crate) fn with_place<T>(
        &self,
        id: SessionId,
        change: impl FnOnce(&mut Place) -> T,
    ) -> Option<T> {
        self.shard(id).lock().get_mut(&id).map(|open| change(&mut open.place))
    }

    /// Notes who the client is now.
    pub(crate) fn name(&self, id: SessionId, identity: &Identity) {
        if let Some(open) = self.shard(id).lock().get_mut(&id) {
            open.connection.subject.clone_from(&identity.subject);
            open.connection.claims.clone_from(&identity.claims);
        }
    }

    /// How many sessions are wanted, and those of one page of them, the oldest first.
    pub(crate) fn list(
        &self,
        wanted: impl Fn(&Connection) -> bool,
        page: Range<usize>,
    ) -> (usize, Vec<Connection>) {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let all = shard.values().map(|open| &open.connection);
            found.extend(all.filter(|it| wanted(it)).map(|it| (it.since, it.id)));
        }
        found.sort_unstable_by_key(|(since, id)| (*since, id.0));
        let (count, page) = (found.len(), page.start..page.end.min(found.len()));
        let ids = found.get(page).unwrap_or_default().iter();
        let open = |id: SessionId| Some(self.shard(id).lock().get(&id)?.connection.clone());
        (count, ids.filter_map(|(_, id)| open(*id)).collect())
    }

    pub(crate) fn remove(&self, id: SessionId) {
        self.shard(id).lock().remove(&id);
        if self.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.empty.notify_waiters();
        }
    }

    pub(crate) fn tick(&self, limits: &Limits, now: u32, wall: u64) {
        for shard in &self.shards {
            let shard = shard.lock();
            let mailboxes: Vec<_> = shard.values().map(|open| Arc::clone(&open.mailbox)).collect();
            drop(shard);
            for mailbox in mailboxes {
                mailbox.tick(limits, now, wall);
            }
        }
    }

    /// Asks every session to judge its client again, and those that open within a while, whose
    /// clients may have been judged before.
    pub(crate) fn review_all(&self) {
        *self.reviewed.lock() = Some(Instant::now());
        for shard in &self.shards {
            shard.lock().values().for_each(|open| open.mailbox.review());
        }
    }

    pub(crate) fn close_all(&self, spread: u16) {
        let spread = *self.restart.get_or_init(|| spread);
        for shard in &self.shards {
            for open in shard.lock().values() {
                open.mailbox.close(Close::Restart { after: random_up_to(spread) });
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
