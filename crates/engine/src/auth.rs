//! Who a client is and what it may do.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use tidewire_protocol::{Refusal, Token, Topic, TopicKind};

/// Who a client is; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Whom the token names; `None` for an anonymous client.
    pub subject: Option<Arc<str>>,
    /// The role the token names, such as `authenticated`.
    pub role: Option<Arc<str>>,
    /// All claims of the token.
    pub claims: Option<Arc<serde_json::Value>>,
    /// When the token runs out, in seconds since 1970.
    pub expires_at: Option<u64>,
    /// Rights the token carries, beside what the namespaces give.
    pub grants: Option<Arc<[Grant]>>,
    /// Everything is allowed: no authentication is configured, or an administrator's key.
    pub superuser: bool,
}

impl Identity {
    /// A client that showed no token.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// A client of a server without authentication: it may do everything.
    pub fn everything() -> Self {
        Self { superuser: true, ..Self::default() }
    }

    /// Whether the client showed no token and has no rights of its own.
    pub fn is_anonymous(&self) -> bool {
        self.subject.is_none() && !self.superuser && self.grants.is_none()
    }

    /// Whether the token itself carries the right.
    pub fn is_granted(&self, action: Action, topic: &Topic) -> bool {
        let grants = self.grants.as_deref().unwrap_or_default();
        self.superuser || grants.iter().any(|grant| grant.allows(action, topic))
    }
}

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Receive its events.
    Subscribe,
    /// Say something on it.
    Publish,
    /// See who is there.
    Presence,
    /// Be seen there.
    Track,
    /// Read what was said.
    History,
}

impl Action {
    /// All actions, in the order of the documentation.
    pub const ALL: [Action; 5] =
        [Self::Subscribe, Self::Publish, Self::Presence, Self::Track, Self::History];

    /// The word for it in claims and configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Presence => "presence",
            Self::Track => "track",
            Self::History => "history",
        }
    }
}

/// A right that a token carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// On which topics.
    pub pattern: Pattern,
    /// To do what.
    pub actions: Vec<Action>,
}

impl Grant {
    /// Whether the right covers this.
    pub fn allows(&self, action: Action, topic: &Topic) -> bool {
        self.actions.contains(&action) && self.pattern.matches(topic)
    }
}

/// Names of topics; `*` stands for any run of characters.
///
/// Begins with a kind and a colon (`topic:`, `private:`, `notify:`, `table:`) to mean that kind
/// alone; without one it means topics and private topics, and a single `*` means everything.
///
/// ```
/// use tidewire::{Pattern, Topic};
///
/// let rooms: Pattern = "room:*".parse().unwrap();
/// assert!(rooms.matches(&Topic::application("room:42").unwrap()));
/// assert!(!rooms.matches(&Topic::notify("room:42").unwrap()));
///
/// let channels: Pattern = "notify:*".parse().unwrap();
/// assert!(channels.matches(&Topic::notify("orders").unwrap()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Arc<str>,
    kind: Option<TopicKind>,
    /// Where the name's pattern begins in `text`.
    name_at: usize,
}

/// The text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a topic pattern must not be empty, nor longer than a topic's name")]
pub struct PatternError;

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let kinds =
            [TopicKind::Application, TopicKind::Private, TopicKind::Table, TopicKind::Notify];
        let prefixed = kinds.into_iter().find_map(|kind| {
            let rest = text.strip_prefix(kind.word())?.strip_prefix(':')?;
            Some((kind, text.len() - rest.len()))
        });
        let (kind, name_at) = prefixed.map_or((None, 0), |(kind, at)| (Some(kind), at));
        // A kind's word, its colon, and a name.
        let limit = tidewire_protocol::topic::MAX_NAME_BYTES + 16;
        if text.len() == name_at || text.len() > limit {
            return Err(PatternError);
        }
        Ok(Self { text: text.into(), kind, name_at })
    }
}

impl Pattern {
    /// Whether the topic is among those meant.
    pub fn matches(&self, topic: &Topic) -> bool {
        let name = &self.text[self.name_at..];
        let kind_fits = match self.kind {
            Some(kind) => topic.kind() == kind,
            None if name == "*" => true,
            None => matches!(topic.kind(), TopicKind::Application | TopicKind::Private),
        };
        kind_fits && matches(name.as_bytes(), topic.name().as_bytes())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Matches with one point to go back to, so its time is bounded by pattern times name.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            back = Some((p + 1, n));
            p += 1;
        } else if p < pattern.len() && pattern[p] == name[n] {
            p += 1;
            n += 1;
        } else if let Some((after_star, from)) = back {
            back = Some((after_star, from + 1));
            p = after_star;
            n = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Checks tokens.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Who the bearer of the token is.
    ///
    /// # Errors
    /// `TokenInvalid`, `TokenExpired`, or `Unavailable` when keys cannot be had. Whatever is
    /// unclear is refused.
    async fn identify(&self, token: &Token) -> Result<Identity, Refusal>;
}

/// Decides what a client may do.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Returns when `identity` may do `action` on `topic`.
    ///
    /// # Errors
    /// `Unauthorized` when a token would help, `Forbidden` when this token does not allow it.
    async fn authorize(
        &self,
        identity: &Identity,
        action: Action,
        topic: &Topic,
    ) -> Result<(), Refusal>;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_matches_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("*:42", "room:42", true),
            ("a*b*c", "aXbYbZc", true),
            ("room:", "room:", true),
            ("room:", "room:1", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_without_a_kind_never_means_tables_or_channels() {
        let pattern: Pattern = "public.*".parse().unwrap();
        assert!(!pattern.matches(&Topic::table("public.orders").unwrap()));
        let everything: Pattern = "*".parse().unwrap();
        assert!(everything.matches(&Topic::table("public.orders").unwrap()));
    }

    #[test]
    fn an_empty_pattern_is_refused() {
        assert!("".parse::<Pattern>().is_err());
        assert!("notify:".parse::<Pattern>().is_err());
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_itself_with_a_star_anywhere(
            name in "[a-z]{0,12}", at in 0usize..12, cut in 0usize..12,
        ) {
            prop_assert!(matches(name.as_bytes(), name.as_bytes()));
            let at = at.min(name.len());
            let end = (at + cut).min(name.len());
            let starred = format!("{}*{}", &name[..at], &name[end..]);
            prop_assert!(matches(starred.as_bytes(), name.as_bytes()));
        }
    }
}
