//! One connected client: reads frames as commands and writes events as frames.
//!
//! A subscription is either *catching up*, when the session pulls pages from the history, or
//! *live*, when the hub pushes into the mailbox. It goes live when it has come to where the topic
//! is, under the topic's lock, so there is neither a hole nor a repeat at the seam; and it goes
//! back to catching up, at the last event taken, when the mailbox is full. Resuming, long-polling
//! and slow readers are all this one rule.

mod beginning;
mod catch_up;
mod commands;
mod membership;
mod requests;
mod review;
mod sharing;
mod silence;
mod subscribed;
mod waiting;

use std::sync::Arc;

use bytes::Bytes;
use tidewire_protocol::{
    Answer, Close, Code, Command, Frame, Position, Refusal, SessionId, Shape, Topic, TopicKind,
    Wire,
};
use tokio::time::Instant;

use crate::auth::Identity;
use crate::delivery::{Everyone, Form};
use crate::hub::Member;
use crate::limits::Bucket;
use crate::mailbox::{Mailbox, Outgoing};
use crate::node::{Inner, labels};
use crate::session::catch_up::Reading;
use crate::session::requests::{Requests, request_done};
use crate::session::subscribed::{Phase, Subscribed, Subscriptions};
use crate::session::waiting::{Pending, first_done};

/// Requests refused for coming too fast, beyond those that were not, after which a client is let
/// go: it asks at more than twice its rate and takes no notice of the answers.
const PATIENCE: u32 = 1_000;

/// One connected client. Owned by its transport's task; dropping it leaves all its topics and
/// takes its members off presence.
pub struct Session {
    node: Arc<Inner>,
    id: SessionId,
    mailbox: Arc<Mailbox>,
    form: Form,
    identity: Identity,
    subscriptions: Subscriptions,
    next_key: u32,
    tracked: Vec<(Topic, Arc<str>)>,
    /// A page on its way from the history, for one subscription at a time.
    reading: Option<Box<Reading>>,
    /// Wishes that wait for what they need, in the order in which they came.
    pending: Vec<Pending>,
    /// A request that waits for something outside, and those behind it.
    requests: Option<Box<Requests>>,
    patience: Patience,
    /// Which subscription's turn it is to catch up.
    turn: usize,
    bucket: Bucket,
    /// Requests refused for coming too fast, less those that were not.
    too_fast: u32,
    /// How many of the mailbox's requests to judge the client again were carried out.
    reviewed: u32,
}

/// Whether a request that needs something is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// The caller wants to know what came of it.
    Now,
    /// The client is told when it is so.
    Later,
}

impl Session {
    pub(crate) fn new(
        node: Arc<Inner>,
        id: SessionId,
        mailbox: Arc<Mailbox>,
        shape: Shape,
        marked: bool,
        composite: bool,
    ) -> Self {
        let bucket = Bucket::full(node.limits.load().burst, Instant::now());
        let asks = shape.dialect.asks_for_members();
        let everyone = asks.then(|| Everyone(Arc::clone(&node.presence)));
        Self {
            node,
            id,
            mailbox,
            form: Form { shape, marked, composite, columns: None, everyone },
            identity: Identity::anonymous(),
            subscriptions: Subscriptions::default(),
            next_key: 0,
            tracked: Vec::new(),
            reading: None,
            pending: Vec::new(),
            requests: None,
            patience: Patience::Now,
            turn: 0,
            bucket,
            too_fast: 0,
            reviewed: 0,
        }
    }

    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Who the client is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Queues the dialect's welcome, if it has one.
    pub fn welcome(&self) {
        let subject = self.identity.subject.clone();
        self.say(&Answer::Welcome { session: self.id, subject });
    }

    /// Acts on one frame from the client; what it is told is queued.
    ///
    /// A request that has to wait for something outside is answered later, after
    /// [`Session::ready`], and those that come meanwhile are carried out after it.
    ///
    /// Not cancel safe: a request that is dropped halfway may or may not be carried out.
    ///
    /// # Errors
    /// The connection must end so.
    pub async fn receive(&mut self, frame: Frame) -> Result<(), Close> {
        self.node.metrics.requests.inc();
        self.review().await;
        self.mailbox.closing().map_or(Ok(()), Err)?;
        if !self.is_in_time() {
            self.refuse_too_fast(&frame)?;
        } else {
            match self.form.shape.dialect.decode(&frame) {
                Ok(commands) => self.carry_out_all(commands, frame_bytes(&frame)).await,
                Err(refusal) => self.refuse(refusal),
            }
        }
        self.mailbox.closing().map_or(Ok(()), Err)
    }

    /// Does what the client wants, in order; it is told what came of each, also of what cannot be
    /// done at once. For what is asked for otherwise than in a frame, such as by the address of a
    /// connection.
    ///
    /// Not cancel safe: a command that is dropped halfway may or may not be carried out.
    pub async fn carry_out(&mut self, commands: Vec<Command>) {
        self.carry_out_all(commands, 0).await;
    }

    async fn carry_out_all(&mut self, commands: Vec<Command>, bytes: usize) {
        for command in commands {
            self.carry_out_one(command, bytes).await;
        }
    }

    /// Whether another request may come already.
    fn is_in_time(&mut self) -> bool {
        let limits = self.node.limits.load();
        let (rate, burst) = (limits.messages_per_second, limits.burst);
        let in_time = self.bucket.take(rate, burst, Instant::now());
        self.too_fast = match in_time {
            true => self.too_fast.saturating_sub(1),
            false => self.too_fast + 1,
        };
        in_time
    }

    /// Names the request, so that the client knows what was not done.
    fn refuse_too_fast(&self, frame: &Frame) -> Result<(), Close> {
        if self.too_fast >= PATIENCE {
            return Err(Close::TooFast);
        }
        let rate = self.node.limits.load().messages_per_second;
        let message = format!("more than {rate} requests in a second");
        let mut refusal = Refusal::new(Code::RateLimited, message);
        if let Ok(commands) = self.form.shape.dialect.decode(frame)
            && let Some(command) = commands.first()
        {
            refusal.topic = command.topic().cloned();
            refusal.reference = command.reference().cloned();
        }
        self.refuse(refusal);
        Ok(())
    }

    /// Waits until there is something to hand to the transport, or something for
    /// [`Session::go_on`] to do, reading from history meanwhile what subscriptions have to catch
    /// up with.
    ///
    /// After a [`Session::flush`] that did not write everything, waits only for the end; the
    /// transport waits for the socket beside it. Cancel safe.
    ///
    /// # Errors
    /// The connection must end so.
    pub async fn ready(&mut self) -> Result<(), Close> {
        loop {
            self.review().await;
            if let Some(why) = self.mailbox.closing() {
                return Err(why);
            }
            self.note_fallen();
            if self.mailbox.has_output() || self.can_go_on() {
                return Ok(());
            }
            if !self.catch_up() {
                self.something_new().await;
            }
        }
    }

    /// Waits for a page from the history, or for anything else. Cancel safe: the page is still on
    /// its way afterwards.
    async fn something_new(&mut self) {
        if self.reading.is_none() && self.pending.is_empty() && self.requests.is_none() {
            return self.mailbox.changed().await;
        }
        let found = async {
            match &mut self.reading {
                Some(reading) => reading.found().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // 1. A page has come; first, so that a busy mailbox does not keep it waiting.
            found = found => self.take_in(found),
            // 2. A wish that waited can be carried out, or cannot.
            (place, done) = first_done(&mut self.pending) => self.settle(place, done),
            // 3. A request that waited is done; `go_on` answers it.
            () = request_done(&mut self.requests) => {}
            // 4. Something was queued, a subscription fell behind, or the session is to end.
            () = self.mailbox.changed() => {}
        }
    }

    /// Takes all that waits, in order, for transports without an outlet.
    pub fn take(&mut self) -> Vec<Outgoing> {
        self.mailbox.take()
    }

    /// Writes what waits, for transports with an outlet; `false` when the socket took only part.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn flush(&mut self) -> std::io::Result<bool> {
        self.mailbox.flush()
    }

    /// Notes a sign of life from the client. Cheap.
    pub fn heard(&self) {
        self.mailbox.heard(self.node.clock.seconds());
    }

    /// Queues bytes that the transport made, such as a pong.
    pub fn push_raw(&self, bytes: Bytes) {
        let outgoing = Outgoing { bytes, mark: None };
        self.mailbox.queue(outgoing, self.node.limits.load().mailbox_bytes);
    }

    /// Queues the dialect's goodbye and leaves everything. The transport writes what waits and
    /// closes the socket.
    pub fn close(&mut self, why: Close) {
        if let Some(frame) = self.form.shape.dialect.close(why) {
            self.mailbox.queue_last(self.form.shape.wire.seal(&frame, None));
        }
        self.mailbox.close(why);
        let name = self.mailbox.closing().unwrap_or(why).name();
        self.node.metrics.closes.get_or_create(&crate::metrics::NameLabel { name }).inc();
        self.leave_everything();
    }

    /// Takes on an identity: when it runs out, and whether one is still missing.
    pub(crate) fn become_identity(&mut self, identity: Identity) {
        self.mailbox.expire_at(identity.expires_at);
        let timeout = self.node.limits.load().authentication_timeout.as_secs() as u32;
        let missing = !identity.has_token() && !self.node.admits_anonymous();
        // Streams and polls cannot show a token later; they are refused at once instead.
        let later = missing && self.form.shape.wire == Wire::WebSocket;
        self.mailbox.authenticate_by(later.then(|| self.node.clock.seconds() + timeout));
        self.node.sessions.name(self.id, &identity);
        self.identity = identity;
    }

    fn say(&self, answer: &Answer) {
        self.say_as(answer, self.resume_position(answer));
    }

    /// Says something after which a reconnecting event stream goes on from `id`.
    fn say_as(&self, answer: &Answer, id: Option<Position>) {
        for frame in self.form.shape.dialect.answers(answer) {
            let bytes = self.form.shape.wire.seal(&frame, id);
            let outgoing = Outgoing { bytes, mark: self.mark(answer) };
            self.mailbox.queue(outgoing, self.node.limits.load().mailbox_bytes);
        }
    }

    /// Where a subscription begins, for a transport that makes cursors of several: only with the
    /// answer the client was told of a gap before that place.
    fn mark(&self, answer: &Answer) -> Option<Box<(Topic, Position)>> {
        match answer {
            Answer::Subscribed { topic, position, .. } if self.form.composite => {
                Some(Box::new((topic.clone(), *position)))
            }
            _ => None,
        }
    }

    /// The place that a reconnecting event stream should name after this answer.
    fn resume_position(&self, answer: &Answer) -> Option<Position> {
        match answer {
            Answer::Subscribed { position, .. } if !self.form.composite => Some(*position),
            _ => None,
        }
    }

    fn refuse(&self, refusal: Refusal) {
        self.node.metrics.refused(refusal.code);
        self.say(&Answer::Refused(refusal));
    }

    fn note_fallen(&mut self) {
        for (key, after) in self.mailbox.take_fallen() {
            let place = self.subscriptions.iter().position(|held| held.key == key);
            if let Some(place) = place {
                self.subscriptions.set_phase(place, Phase::CatchingUp { after });
            }
        }
    }

    fn member(&self, held: &Subscribed) -> Member {
        // Who wants everything shares a group with all who do.
        let wants = held.wants().filter(|wants| !wants.is_everything()).cloned();
        Member { session: self.id, key: held.key, mailbox: Arc::clone(&self.mailbox), wants }
    }

    fn form_of(&self, held: &Subscribed) -> Form {
        let mut form = self.form.clone();
        form.shape.tag = held.tag.clone();
        form.columns = held.wants().and_then(|wants| wants.columns.clone());
        form
    }

    fn place_of(&self, topic: &Topic, name: Option<&Arc<str>>) -> Option<usize> {
        let mut places = self.subscriptions.places_of(topic);
        places.find(|place| self.subscriptions[*place].is_named(name))
    }

    fn any_place_of(&self, topic: &Topic) -> Option<usize> {
        self.subscriptions.places_of(topic).next()
    }

    /// Ends a subscription and gives it back as [`Phase::CatchingUp`] after all it received.
    fn remove(&mut self, place: usize) -> Subscribed {
        if let Some(after) = self.leave(&self.subscriptions[place]) {
            self.subscriptions.set_phase(place, Phase::CatchingUp { after });
        } else {
            self.note_fallen();
        }
        self.subscriptions.remove(place)
    }

    fn leave(&self, subscription: &Subscribed) -> Option<Position> {
        if subscription.entry().topic.kind() != TopicKind::Presence {
            self.node.metrics.subscriptions.dec_by(subscription.count() as i64);
        }
        let Phase::Live { lane } = subscription.phase() else { return None };
        subscription.entry().lanes.leave(lane, self.id, subscription.key)
    }

    fn leave_everything(&mut self) {
        self.pending.clear();
        self.requests = None;
        self.reading = None;
        for subscription in std::mem::take(&mut self.subscriptions) {
            self.leave(&subscription);
        }
        if !self.tracked.is_empty() {
            self.node.departures.add(std::mem::take(&mut self.tracked));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.leave_everything();
        self.node.sessions.remove(self.id);
        let labels = labels(self.form.shape.dialect.name(), self.form.shape.wire);
        self.node.metrics.connections.get_or_create(&labels).dec();
    }
}

fn frame_bytes(frame: &Frame) -> usize {
    match frame {
        Frame::Text { text, .. } => text.len(),
        Frame::Binary(bytes) => bytes.len(),
    }
}
