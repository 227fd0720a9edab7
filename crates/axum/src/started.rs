//! Where a session's subscriptions began, for transports that make cursors.
//!
//! A stream or a poll names its topics in the query and must know from where each began and
//! whether anything before is lost. The engine tells that to the dialect; this one listens in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tidewire::{Dialect, Draft, Event, Position, Topic};
use tidewire_protocol::command::Tag;
use tidewire_protocol::dialect::View;
use tidewire_protocol::presence::{Member, PresenceDiff};
use tidewire_protocol::{
    Answer, Change, Close, Command, Frame, GapReason, Outcome, Refusal, Since, Subscription,
};

/// A subscription as it began.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    pub(crate) topic: Topic,
    /// Events after this place follow.
    pub(crate) position: Position,
    /// What was asked for is lost for this reason.
    pub(crate) gap: Option<GapReason>,
    /// Everything after the given place follows, so no rows come first.
    pub(crate) resumed: bool,
}

/// What a session of this transport is told besides events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// All that the language has.
    Told,
    /// Only rows of tables: the rest the transport says in its own way.
    Kept,
}

impl Answers {
    fn tell(self, answer: &Answer) -> bool {
        self == Self::Told || matches!(answer, Answer::Rows { .. })
    }
}

/// A dialect that notes how each of one session's subscriptions began.
pub(crate) struct Noting {
    dialect: Arc<dyn Dialect>,
    answers: Answers,
    started: Mutex<Vec<Started>>,
    rows_complete: AtomicBool,
}

impl Noting {
    pub(crate) fn new(dialect: &Arc<dyn Dialect>, answers: Answers) -> Arc<Self> {
        Arc::new(Self {
            dialect: Arc::clone(dialect),
            answers,
            started: Mutex::default(),
            rows_complete: AtomicBool::new(false),
        })
    }

    /// Whether the last rows of a table were told.
    pub(crate) fn rows_are_complete(&self) -> bool {
        self.rows_complete.load(Ordering::Relaxed)
    }

    /// The subscriptions begun so far, in order; they are forgotten here.
    pub(crate) fn take(&self) -> Vec<Started> {
        std::mem::take(&mut self.started.lock())
    }

    /// For a language that has no answer to a subscription: a gap as the event it has for it.
    fn gap(&self, started: &Started) -> Option<Frame> {
        let draft = Draft::gap(started.topic.clone(), started.gap?);
        self.dialect.event(&Event::new(draft, started.position, 0), None)
    }
}

/// Events are encoded as the dialect itself does, so their bytes are shared with its sessions.
impl Dialect for Noting {
    fn name(&self) -> &'static str {
        self.dialect.name()
    }

    fn decode(&self, frame: &Frame) -> Result<Vec<Command>, Refusal> {
        self.dialect.decode(frame)
    }

    fn answer(&self, answer: &Answer) -> Option<Frame> {
        let mut frame = match self.answers.tell(answer) {
            true => self.dialect.answer(answer),
            false => None,
        };
        if let Answer::Rows { last: true, .. } = answer {
            self.rows_complete.store(true, Ordering::Relaxed);
        }
        if let Answer::Subscribed { topic, position, outcome, .. } = answer {
            let gap = match outcome {
                Outcome::Gap(reason) => Some(*reason),
                Outcome::Fresh | Outcome::Resumed => None,
            };
            let resumed = *outcome == Outcome::Resumed;
            let started = Started { topic: topic.clone(), position: *position, gap, resumed };
            if self.answers == Answers::Told {
                frame = frame.or_else(|| self.gap(&started));
            }
            self.started.lock().push(started);
        }
        frame
    }

    fn event(&self, event: &Event, tag: Option<&Tag>) -> Option<Frame> {
        self.dialect.event(event, tag)
    }

    fn change(&self, event: &Event, change: &Change, view: &View<'_>) -> Option<Frame> {
        self.dialect.change(event, change, view)
    }

    fn presence(
        &self,
        event: &Event,
        diff: &PresenceDiff,
        members: Option<&[Member]>,
        tag: Option<&Tag>,
    ) -> Vec<Frame> {
        self.dialect.presence(event, diff, members, tag)
    }

    fn bookmark(&self, topic: &Topic, position: Position, tag: Option<&Tag>) -> Option<Frame> {
        self.dialect.bookmark(topic, position, tag)
    }

    fn close(&self, close: Close) -> Option<Frame> {
        match self.answers {
            Answers::Told => self.dialect.close(close),
            Answers::Kept => None,
        }
    }
}

/// How far each of several topics was told, as one opaque string: their positions in the order of
/// the query, joined by commas.
pub(crate) struct Progress(Vec<(Topic, Option<Position>)>);

impl Progress {
    /// Nothing is told of these topics yet; who goes on from a place has come to it.
    pub(crate) fn of(subscriptions: &[Subscription]) -> Self {
        let place = |subscription: &Subscription| match subscription.since {
            Since::Position(position) => Some(position),
            Since::Now | Since::Earliest => None,
        };
        let topics = subscriptions.iter();
        Self(topics.map(|one| (one.topic.clone(), place(one))).collect())
    }

    /// A topic is to begin with the news of a gap. Until that is told the client must not go on
    /// from behind it: it stays where it came from.
    pub(crate) fn wait_for_gap(&mut self, topic: &Topic) {
        if let Some((_, reached)) = self.0.iter_mut().find(|(held, _)| held == topic) {
            reached.get_or_insert(Position::ELSEWHERE);
        }
    }

    /// A topic was told up to this place.
    pub(crate) fn reach(&mut self, topic: &Topic, position: Position) {
        if let Some((_, reached)) = self.0.iter_mut().find(|(held, _)| held == topic) {
            *reached = Some(position);
        }
    }

    /// Whether the place is beyond what was reached. What is not is replayed to complete rows.
    pub(crate) fn is_ahead(&self, topic: &Topic, position: Position) -> bool {
        let reached = self.0.iter().find(|(held, _)| held == topic).and_then(|(_, at)| *at);
        reached.is_none_or(|at| at.epoch != position.epoch || at.seq < position.seq)
    }

    /// Nothing more was for this listener up to this place.
    pub(crate) fn pass(&mut self, topic: &Topic, position: Position) {
        let Some((_, Some(reached))) = self.0.iter_mut().find(|(held, _)| held == topic) else {
            return;
        };
        // A change of epoch is told by an event of its own.
        if reached.epoch == position.epoch && reached.seq < position.seq {
            *reached = position;
        }
    }

    /// The cursor to go on from.
    pub(crate) fn cursor(&self) -> String {
        let places = self.0.iter().map(|(_, position)| match position {
            Some(position) => position.to_string(),
            None => "-".to_owned(),
        });
        places.collect::<Vec<_>>().join(",")
    }
}
