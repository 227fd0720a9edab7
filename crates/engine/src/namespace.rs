//! Rules for topics by pattern: who may do what, and how much history is kept.

use std::time::Duration;

use async_trait::async_trait;
use tidewire_protocol::{Code, Refusal, Topic, TopicKind};

use crate::auth::{Action, Allowed, Authorizer, Identity, Pattern, RowRule};
use crate::history::HistoryLimits;

/// Who may do something without a grant in the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// Anyone whom the server lets in, anonymous clients included.
    Anyone,
    /// Clients with a valid token.
    Authenticated,
    /// Nobody; a grant is needed.
    Nobody,
}

/// Rules for the topics of one pattern.
///
/// What is `None` is not said here: as if this entry did not match.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Which topics.
    pub pattern: Pattern,
    /// Who may receive events and read the history.
    pub subscribe: Option<Who>,
    /// Of tables, which rows `subscribe` is about; `None` for all.
    pub rows: Option<RowRule>,
    /// Who may publish.
    pub publish: Option<Who>,
    /// Who may see presence and be seen.
    pub presence: Option<Who>,
    /// How many events are kept.
    pub events: Option<usize>,
    /// How many bytes of them.
    pub bytes: Option<usize>,
    /// How long.
    pub age: Option<Duration>,
}

impl Namespace {
    /// An entry that says nothing yet.
    pub fn of(pattern: Pattern) -> Self {
        let (subscribe, rows, publish, presence) = (None, None, None, None);
        let (events, bytes, age) = (None, None, None);
        Self { pattern, subscribe, rows, publish, presence, events, bytes, age }
    }

    fn who(&self, action: Action) -> Option<Who> {
        match action {
            Action::Subscribe | Action::History => self.subscribe,
            Action::Publish => self.publish,
            Action::Presence | Action::Track => self.presence,
        }
    }
}

/// All rules. Each right, and each limit of the history, is decided by the first namespace that
/// covers the topic and says something of it. Where its pattern names the subject, the topics of
/// other subjects are decided, too: they are nobody's without a grant.
#[derive(Clone, Debug)]
pub struct Namespaces {
    list: Vec<Namespace>,
    /// For what no namespace says.
    default_history: HistoryLimits,
    anonymous: bool,
}

impl Default for Namespaces {
    fn default() -> Self {
        Self::new(Vec::new(), HistoryLimits::default(), false)
    }
}

impl Namespaces {
    /// Rules in order; `default_history` is for what none of them says, and `anonymous` says
    /// whether clients without a token are let in at all.
    ///
    /// A right of which no namespace says anything belongs to every client that was let in on
    /// application topics, and to nobody on private topics, tables and NOTIFY channels.
    pub fn new(list: Vec<Namespace>, default_history: HistoryLimits, anonymous: bool) -> Self {
        Self { list, default_history, anonymous }
    }

    /// How much of the topic is kept.
    pub fn history(&self, topic: &Topic) -> HistoryLimits {
        let topic = topic.subject();
        let (mut events, mut bytes, mut age) = (None, None, None);
        for namespace in self.list.iter().filter(|it| it.pattern.covers(&topic)) {
            events = events.or(namespace.events);
            bytes = bytes.or(namespace.bytes);
            age = age.or(namespace.age);
        }
        HistoryLimits {
            events: events.unwrap_or(self.default_history.events),
            bytes: bytes.unwrap_or(self.default_history.bytes),
            age: age.unwrap_or(self.default_history.age),
        }
    }

    /// Who has the right, and of which rows.
    fn who(&self, identity: &Identity, action: Action, topic: &Topic) -> (Who, Option<&RowRule>) {
        let subject = identity.subject.as_deref();
        let mut covering = self.list.iter().filter(|it| it.pattern.covers(topic));
        let decided = covering.find_map(|it| {
            let who = it.who(action)?;
            // A topic of somebody else's own.
            let is_meant = it.pattern.matches(topic, subject);
            Some((if is_meant { who } else { Who::Nobody }, it.rows.as_ref()))
        });
        let (who, rows) = decided.unwrap_or((unnamed(topic.kind()), None));
        let is_about_rows = matches!(action, Action::Subscribe | Action::History);
        (who, rows.filter(|_| is_about_rows))
    }

    /// Whether `identity` may do `action` on `topic`; the synchronous form of the authorizer.
    ///
    /// # Errors
    /// As [`Authorizer::authorize`].
    pub fn check(
        &self,
        identity: &Identity,
        action: Action,
        topic: &Topic,
    ) -> Result<Allowed, Refusal> {
        let topic = topic.subject();
        if topic.is_reserved() && !identity.is_unchecked() {
            let message = "channels of this name are the server's own";
            return Err(Refusal::new(Code::Forbidden, message).about(&topic));
        }
        if identity.superuser {
            return Ok(Allowed::EVERYTHING);
        }
        let (who, rows) = self.who(identity, action, &topic);
        let included = match who {
            Who::Anyone => !identity.is_anonymous() || self.anonymous,
            Who::Authenticated => identity.subject.is_some(),
            Who::Nobody => false,
        };
        let subject = identity.subject.as_deref();
        let by_rule = included.then(|| Allowed::by(rows, subject)).flatten();
        let allowed = Allowed::any_of(identity.granted(action, &topic).chain(by_rule));
        allowed.ok_or_else(|| refusal(identity, who, action).about(&topic))
    }
}

/// Says what would help: a token, a subject in it, or another one.
fn refusal(identity: &Identity, who: Who, action: Action) -> Refusal {
    let what = verb(action);
    let nameless = identity.is_anonymous() && who != Who::Nobody;
    let (code, message) = match identity.has_token() {
        false => (Code::Unauthorized, format!("a token is needed to {what} here")),
        true if nameless => (
            Code::Forbidden,
            format!(
                "this token has no subject (the claim \"sub\"), so it is good for its grants \
                 alone, and none of them allows to {what} here"
            ),
        ),
        true => (Code::Forbidden, format!("this token does not allow to {what} here")),
    };
    Refusal::new(code, message)
}

/// What is refused, for a sentence.
fn verb(action: Action) -> &'static str {
    match action {
        Action::Subscribe => "subscribe",
        Action::Publish => "publish",
        Action::Presence => "see who is",
        Action::Track => "be seen",
        Action::History => "read the history",
    }
}

/// Who has a right on topics of a kind of which no namespace says anything.
fn unnamed(kind: TopicKind) -> Who {
    match kind {
        TopicKind::Application => Who::Anyone,
        // The last is never asked for by itself.
        TopicKind::Private | TopicKind::Table | TopicKind::Notify | TopicKind::Presence => {
            Who::Nobody
        }
    }
}

#[async_trait]
impl Authorizer for parking_lot::RwLock<std::sync::Arc<Namespaces>> {
    async fn authorize(
        &self,
        identity: &Identity,
        action: Action,
        topic: &Topic,
    ) -> Result<Allowed, Refusal> {
        let namespaces = std::sync::Arc::clone(&self.read());
        namespaces.check(identity, action, topic)
    }
}

#[cfg(test)]
mod tests;
