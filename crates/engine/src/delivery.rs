//! A run of events on one topic, encoded once per shape.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tidewire_protocol::dialect::{Movement, View};
use tidewire_protocol::presence::Member;
use tidewire_protocol::{Audience, Body, Event, Position, SessionId, Shape, Wire};

use crate::mailbox::{Offer, Outgoing};
use crate::presence::Presence;

/// Bytes of one batch at most: a client whose socket takes it in one write should not hold the
/// lane's lock for long, and a mailbox must have room for several.
pub(crate) const BATCH_BYTES: usize = 128 << 10;

/// Forms whose bytes a batch keeps for its other lanes: clients of one topic speak few languages,
/// and where each has a tag of its own there is nothing to share.
const SHARED_FORMS: usize = 8;

/// Content of a topic's members that is told with a change of presence, at most, in bytes.
///
/// Everyone who listens is sent it, and a mailbox of the default size should have room for some.
/// A thousand members with a name and a few words each fit in.
const MEMBERS_BYTES: usize = 128 << 10;

/// Events that follow each other without a hole, to be handed over in one go.
#[derive(Debug)]
pub(crate) struct Batch {
    events: Vec<Arc<Event>>,
    /// Whether some session may not have one of the events.
    selective: bool,
    bytes: usize,
    /// Bytes that other lanes can use; `None` for a batch that only one receives.
    encoded: Option<Mutex<Vec<(Form, Encoded)>>>,
}

impl Batch {
    /// A batch of at least one event.
    pub(crate) fn new(events: Vec<Arc<Event>>) -> Self {
        assert!(!events.is_empty(), "a batch has at least one event");
        let selective = events.iter().any(|event| event.audience != Audience::Everyone);
        let bytes = events.iter().map(|event| event.content_bytes()).sum();
        Self { events, selective, bytes, encoded: None }
    }

    /// The same, to be handed to several lanes: it is encoded by the first that comes to it.
    pub(crate) fn shared(events: Vec<Arc<Event>>) -> Self {
        Self { encoded: Some(Mutex::default()), ..Self::new(events) }
    }

    pub(crate) fn events(&self) -> &[Arc<Event>] {
        &self.events
    }

    pub(crate) fn first(&self) -> Position {
        self.events[0].position
    }

    pub(crate) fn last(&self) -> Position {
        self.events[self.events.len() - 1].position
    }

    /// Bytes of content.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the session may have every event of the batch.
    pub(crate) fn is_for(&self, session: SessionId) -> bool {
        !self.selective || self.events.iter().all(|event| event.audience.admits(session))
    }

    /// The bytes of all events for those who want them in this form.
    pub(crate) fn encoded(&self, form: &Form) -> Encoded {
        let encode = || form.encode(self.events.iter().map(within));
        let Some(encoded) = &self.encoded else { return encode() };
        // Another lane waits while this one encodes, and then need not.
        let mut encoded = encoded.lock();
        if let Some((_, known)) = encoded.iter().find(|(known, _)| known == form) {
            return known.clone();
        }
        let made = encode();
        if encoded.len() < SHARED_FORMS {
            encoded.push((form.clone(), made.clone()));
        }
        made
    }
}

/// How a subscription wants its events: what decides whether two can share bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) shape: Shape,
    /// One event at a time, each with its mark; see [`Opening::marked`](crate::Opening).
    pub(crate) marked: bool,
    /// Event streams without `id:` lines, because the transport writes its own.
    pub(crate) composite: bool,
    /// The columns of a table that are told; `None` for all.
    pub(crate) columns: Option<Arc<[Arc<str>]>>,
    /// For dialects that ask for it.
    pub(crate) everyone: Option<Everyone>,
}

/// Where to look for who is there; one for all sessions of a node.
#[derive(Clone)]
pub(crate) struct Everyone(pub(crate) Arc<dyn Presence>);

impl PartialEq for Everyone {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Everyone {}

impl std::fmt::Debug for Everyone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Everyone")
    }
}

/// An event that means to its listeners just what it is.
pub(crate) fn within(event: &Arc<Event>) -> (&Arc<Event>, Movement) {
    (event, Movement::Within)
}

impl Form {
    /// The bytes for all events, joined, or one by one where marks are wanted.
    pub(crate) fn encode<'a>(
        &self,
        events: impl Iterator<Item = (&'a Arc<Event>, Movement)>,
    ) -> Encoded {
        let events = with_last(events);
        if self.marked {
            let marked = events.filter_map(|(event, last)| self.encode_marked(event, last));
            return Encoded::Each(marked.collect());
        }
        let mut joined = BytesMut::new();
        for (event, last) in events {
            self.encode_into(&mut joined, event, last);
        }
        Encoded::Joined(joined.freeze())
    }

    fn encode_marked(
        &self,
        (event, movement): (&Arc<Event>, Movement),
        last: bool,
    ) -> Option<Outgoing> {
        let mut bytes = BytesMut::new();
        self.encode_into(&mut bytes, (event, movement), last);
        let mark = Some(Box::new((event.topic.clone(), event.position)));
        (!bytes.is_empty()).then(|| Outgoing { bytes: bytes.freeze(), mark })
    }

    fn encode_into(
        &self,
        out: &mut BytesMut,
        (event, movement): (&Arc<Event>, Movement),
        last: bool,
    ) {
        let (dialect, tag) = (&self.shape.dialect, self.shape.tag.as_ref());
        let wire = self.shape.wire;
        match &event.body {
            Body::Change(change) => {
                let (change, movement) = movement.shown(change);
                let view = View { tag, columns: self.columns.as_deref(), movement };
                let frame = dialect.change(event, &change, &view);
                frame.iter().for_each(|frame| wire.seal_into(out, frame, self.id(event)));
            }
            Body::Presence(diff) => {
                // One list for a run of changes, however many they are.
                let members = if last { self.members(event) } else { None };
                let frames = dialect.presence(event, diff, members.as_deref(), tag);
                frames.iter().for_each(|frame| wire.seal_into(out, frame, self.id(event)));
            }
            Body::Message(_) | Body::Gap(_) => {
                let frame = dialect.event(event, tag);
                frame.iter().for_each(|frame| wire.seal_into(out, frame, self.id(event)));
            }
        }
    }

    /// Everyone who is there now, for dialects that ask.
    fn members(&self, event: &Event) -> Option<Vec<Member>> {
        let Everyone(presence) = self.everyone.as_ref()?;
        presence.known_members(&event.topic.subject(), MEMBERS_BYTES)
    }

    /// What a client of an event stream resumes from; presence is told anew instead.
    fn id(&self, event: &Event) -> Option<Position> {
        let resumable = event.topic.kind() != tidewire_protocol::TopicKind::Presence;
        (self.shape.wire == Wire::EventStream && resumable && !self.composite)
            .then_some(event.position)
    }
}

/// Each of a run, and whether it is the last.
fn with_last<T>(run: impl Iterator<Item = T>) -> impl Iterator<Item = (T, bool)> {
    let mut run = run.peekable();
    std::iter::from_fn(move || Some((run.next()?, run.peek().is_none())))
}

/// Encoded events.
#[derive(Clone, Debug)]
pub(crate) enum Encoded {
    /// All in one.
    Joined(Bytes),
    /// One by one.
    Each(Vec<Outgoing>),
}

impl Encoded {
    /// Hands the bytes over in order until one is turned down.
    ///
    /// # Errors
    /// When one was turned down: the position of the last event taken, if any was.
    pub(crate) fn offer_to(
        &self,
        mut offer: impl FnMut(Outgoing) -> Offer,
    ) -> Result<(), Option<Position>> {
        match self {
            // A dialect that has no such event has nothing to say.
            Self::Joined(bytes) if bytes.is_empty() => Ok(()),
            Self::Joined(bytes) => match offer(Outgoing { bytes: bytes.clone(), mark: None }) {
                Offer::Taken => Ok(()),
                Offer::Full => Err(None),
            },
            Self::Each(list) => offer_each(list, offer),
        }
    }
}

fn offer_each(
    list: &[Outgoing],
    mut offer: impl FnMut(Outgoing) -> Offer,
) -> Result<(), Option<Position>> {
    let mut taken = None;
    for outgoing in list {
        if offer(outgoing.clone()) == Offer::Full {
            return Err(taken);
        }
        taken = outgoing.mark.as_ref().map(|mark| mark.1);
    }
    Ok(())
}
