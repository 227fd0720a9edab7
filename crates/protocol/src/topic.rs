//! What events are said on and clients listen to.
//!
//! A topic has a kind and a name; kinds never collide, so the application topic `orders` and the
//! NOTIFY channel `orders` are two topics. Each dialect maps its own names to these.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// Longest topic name in bytes.
///
/// Long enough for a UUID or two and a path, short enough that ten thousand subscriptions of one
/// client stay under three megabytes.
pub const MAX_NAME_BYTES: usize = 255;

/// Longest NOTIFY channel name in bytes: PostgreSQL's `NAMEDATALEN - 1`.
///
/// PostgreSQL refuses a longer name in `pg_notify` and silently cuts it in `LISTEN`, so a longer
/// one would be subscribed to and never hear anything.
pub const MAX_CHANNEL_BYTES: usize = 63;

/// Which world a topic's name belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicKind {
    /// An application topic such as `room:42`.
    Application,
    /// An application topic whose listeners are checked one by one; a name of its own world.
    Private,
    /// A table, written `schema.table`; its events are row changes.
    Table,
    /// A PostgreSQL NOTIFY channel; the case of its name is kept.
    Notify,
    /// Who comes and goes on another topic; made by the engine, never named by a client.
    Presence,
}

impl TopicKind {
    /// All kinds, in the order of their prefixes in documentation.
    pub const ALL: [TopicKind; 5] =
        [Self::Application, Self::Private, Self::Table, Self::Notify, Self::Presence];

    /// The word that stands for this kind in native frames, query parameters and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Application => "topic",
            Self::Private => "private",
            Self::Table => "table",
            Self::Notify => "notify",
            Self::Presence => "presence",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// A checked name with its kind; cheap to clone.
///
/// ```
/// use tidewire_protocol::Topic;
///
/// let topic = Topic::application("room:42")?;
/// assert_eq!(topic.name(), "room:42");
/// assert_ne!(topic, Topic::notify("room:42")?);
/// # Ok::<(), tidewire_protocol::TopicError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic {
    kind: TopicKind,
    name: Arc<str>,
}

/// Why a name is not a topic.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TopicError {
    /// The name has no characters.
    #[error("a {} name must not be empty", .0.word())]
    Empty(TopicKind),
    /// The name is longer than its kind allows.
    #[error("a {} name is at most {limit} bytes long, this one has {bytes}", .kind.word())]
    TooLong {
        /// The kind of topic asked for.
        kind: TopicKind,
        /// Bytes in the name given.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The name has a control character, such as NUL.
    #[error("a {} name must not contain control characters", .0.word())]
    Control(TopicKind),
    /// A table name without a schema, or with an empty part.
    #[error("a table is named schema.table")]
    NotQualified,
}

impl Topic {
    /// A topic of the given kind.
    ///
    /// # Errors
    /// [`TopicError`] when the name is empty, too long, has control characters, or names a table
    /// without its schema.
    pub fn new(kind: TopicKind, name: &str) -> Result<Self, TopicError> {
        check(kind, name)?;
        Ok(Self { kind, name: name.into() })
    }

    /// An application topic; see [`Topic::new`] for errors.
    pub fn application(name: &str) -> Result<Self, TopicError> {
        Self::new(TopicKind::Application, name)
    }

    /// A private application topic; see [`Topic::new`] for errors.
    pub fn private(name: &str) -> Result<Self, TopicError> {
        Self::new(TopicKind::Private, name)
    }

    /// A NOTIFY channel; see [`Topic::new`] for errors.
    pub fn notify(channel: &str) -> Result<Self, TopicError> {
        Self::new(TopicKind::Notify, channel)
    }

    /// A table, `schema.table`; see [`Topic::new`] for errors.
    pub fn table(name: &str) -> Result<Self, TopicError> {
        Self::new(TopicKind::Table, name)
    }

    /// The topic on which the comings and goings of this one are said.
    #[must_use]
    pub fn presence(&self) -> Self {
        Self { kind: TopicKind::Presence, name: self.to_string().into() }
    }

    /// For a presence topic, the topic whose members it tells of; otherwise the topic itself.
    #[must_use]
    pub fn subject(&self) -> Self {
        if self.kind != TopicKind::Presence {
            return self.clone();
        }
        let (word, name) = self.name.split_once(':').expect("presence names are kind:name");
        let kind = TopicKind::from_word(word).expect("presence names begin with a kind");
        Self { kind, name: name.into() }
    }

    /// Whether it is a NOTIFY channel of the server's own, `tidewire` or one that begins with
    /// `tidewire_`, on which no client has any business.
    pub fn is_reserved(&self) -> bool {
        let rest = self.name.strip_prefix("tidewire");
        self.kind == TopicKind::Notify
            && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    }

    /// Which world the name belongs to.
    pub fn kind(&self) -> TopicKind {
        self.kind
    }

    /// The name without its kind.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn check(kind: TopicKind, name: &str) -> Result<(), TopicError> {
    let limit = match kind {
        TopicKind::Notify => MAX_CHANNEL_BYTES,
        // Two identifiers and the dot between them.
        TopicKind::Table => 2 * MAX_CHANNEL_BYTES + 1,
        TopicKind::Application | TopicKind::Private | TopicKind::Presence => MAX_NAME_BYTES,
    };
    if name.is_empty() {
        return Err(TopicError::Empty(kind));
    }
    if name.len() > limit {
        return Err(TopicError::TooLong { kind, bytes: name.len(), limit });
    }
    if name.chars().any(char::is_control) {
        return Err(TopicError::Control(kind));
    }
    if kind == TopicKind::Table && !is_qualified(name) {
        return Err(TopicError::NotQualified);
    }
    Ok(())
}

fn is_qualified(name: &str) -> bool {
    name.split_once('.').is_some_and(|(schema, table)| !schema.is_empty() && !table.is_empty())
}

/// Kind and name, `topic:room:42`; unique, used as a key in stores and in logs.
impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.word(), self.name)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_never_collide() {
        let application = Topic::application("orders").unwrap();
        assert_ne!(application, Topic::notify("orders").unwrap());
        assert_ne!(application, Topic::private("orders").unwrap());
    }

    #[test]
    fn names_may_hold_quotes_and_emoji_and_keep_their_case() {
        for name in ["Orders", "a\"b'c", "🦀 crab", "x; drop table y"] {
            assert_eq!(Topic::notify(name).unwrap().name(), name);
        }
    }

    #[test]
    fn a_channel_has_at_most_63_bytes_counted_in_utf8() {
        assert!(Topic::notify(&"c".repeat(63)).is_ok());
        let refused = Topic::notify(&"é".repeat(32)).unwrap_err();
        assert_eq!(refused.to_string(), "a notify name is at most 63 bytes long, this one has 64");
    }

    #[test]
    fn empty_names_and_control_characters_are_refused() {
        assert!(matches!(Topic::application(""), Err(TopicError::Empty(_))));
        assert!(matches!(Topic::application("a\0b"), Err(TopicError::Control(_))));
        assert!(matches!(Topic::application("a\nb"), Err(TopicError::Control(_))));
    }

    #[test]
    fn a_table_names_its_schema() {
        assert!(Topic::table("public.orders").is_ok());
        for name in ["orders", ".orders", "public."] {
            assert_eq!(Topic::table(name), Err(TopicError::NotQualified));
        }
    }

    #[test]
    fn a_presence_topic_remembers_its_subject() {
        let topic = Topic::private("a:b").unwrap();
        assert_eq!(topic.presence().subject(), topic);
        assert_eq!(topic.subject(), topic);
    }
}
