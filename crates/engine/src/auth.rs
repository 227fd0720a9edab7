//! Who a client is and what it may do.

mod pattern;
mod rows;

use std::sync::Arc;

use async_trait::async_trait;
use tidewire_protocol::filter::Filter;
use tidewire_protocol::{Refusal, Token, Topic};

pub use self::pattern::{Pattern, PatternError};
pub(crate) use self::rows::MAX_RULES;
pub use self::rows::{RowRule, RowRuleError};

use crate::budget::TokenDigest;

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
    /// The token, where it names no subject: what its bearer uses is counted by it.
    pub token: Option<TokenDigest>,
    /// Rights the token carries, beside what the namespaces give.
    pub grants: Option<Arc<[Grant]>>,
    /// Everything is allowed: no authentication is configured, or an administrator's key.
    pub superuser: bool,
    /// By what the client proved who it is; `None` where it did not, or cannot be asked again.
    pub credential: Option<Credential>,
}

/// By what a client proved who it is, so that it can be judged again when keys change.
///
/// Holds no secret: neither the token nor anything from which it could be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A key that the client holds, by its hash.
    Key([u8; 32]),
    /// A token that was signed with a key of the authenticator's.
    Signature(Arc<Signature>),
    /// Somebody else's word, such as that of a function in the database, who is asked once.
    Word,
}

/// What was signed a token with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// A hash of the key.
    pub key: [u8; 32],
    /// How the token names its key.
    pub key_id: Option<Arc<str>>,
    /// The token's algorithm, as its header names it.
    pub algorithm: Arc<str>,
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

    /// Whether nobody is known by this identity: what is not granted to it, it may do only where
    /// everyone may.
    ///
    /// So is the bearer of a token that names no subject; see [`Identity::has_token`].
    pub fn is_anonymous(&self) -> bool {
        self.subject.is_none() && !self.superuser
    }

    /// Whether no authentication is configured, so that nobody is told from another.
    pub(crate) fn is_unchecked(&self) -> bool {
        self.superuser && self.credential.is_none()
    }

    /// Whether the client showed a token, or needs none.
    pub fn has_token(&self) -> bool {
        let shown = self.credential.is_some() || self.token.is_some() || self.grants.is_some();
        !self.is_anonymous() || shown
    }

    /// Whether the token itself carries the right, for some of the rows at least.
    pub fn is_granted(&self, action: Action, topic: &Topic) -> bool {
        self.superuser || self.granted(action, topic).next().is_some()
    }

    /// What each grant allows.
    pub(crate) fn granted(&self, action: Action, topic: &Topic) -> impl Iterator<Item = Allowed> {
        let grants = self.grants.as_deref().unwrap_or_default().iter();
        grants.filter_map(move |grant| grant.allows(action, topic, self.subject.as_deref()))
    }
}

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Receive its events, also those that are remembered.
    Subscribe,
    /// Publish on it.
    Publish,
    /// See who is there.
    Presence,
    /// Be seen there.
    Track,
    /// Read what is remembered, without receiving what comes.
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
    /// Of a table, which rows; `None` for all.
    pub rows: Option<RowRule>,
}

impl Grant {
    /// Whether the right covers this, for a client with this subject.
    ///
    /// Who may subscribe to a topic may read what is remembered of it: a subscription may begin at
    /// any position, and the server cannot know which of them a client has seen.
    pub fn allows(&self, action: Action, topic: &Topic, subject: Option<&str>) -> Option<Allowed> {
        let included = action == Action::History && self.actions.contains(&Action::Subscribe);
        let is_meant = included || self.actions.contains(&action);
        if !is_meant || !self.pattern.matches(topic, subject) {
            return None;
        }
        Allowed::by(self.rows.as_ref(), subject)
    }
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

    /// Judges a client again, by the credential that this or another authenticator gave it, after
    /// keys or settings have changed: who it is now. Asks nobody outside, and leaves what it does
    /// not know as it is.
    ///
    /// # Errors
    /// When the credential is not good any more: its key was taken away, or a token like the
    /// client's would be refused now.
    fn review(&self, identity: &Identity) -> Result<Identity, Refusal> {
        Ok(identity.clone())
    }
}

/// What a client may do with a topic that it may do something with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Of a table, the rows that may be shown; `None` for all.
    pub rows: Option<Arc<Filter>>,
}

impl Allowed {
    /// Everything of the topic.
    pub const EVERYTHING: Self = Self { rows: None };

    /// What a right with this rule allows; nothing where the rule names a subject that is missing.
    pub(crate) fn by(rows: Option<&RowRule>, subject: Option<&str>) -> Option<Self> {
        match rows {
            None => Some(Self::EVERYTHING),
            Some(rule) => Some(Self { rows: Some(rule.of(subject)?) }),
        }
    }

    /// What several rights allow together; `None` without any.
    pub(crate) fn any_of(rights: impl Iterator<Item = Self>) -> Option<Self> {
        let mut filters = Vec::new();
        for Self { rows } in rights {
            match rows {
                None => return Some(Self::EVERYTHING),
                Some(filter) if filters.contains(&filter) => {}
                Some(filter) => filters.push(filter),
            }
        }
        match filters.len() {
            0 => None,
            1 => Some(Self { rows: filters.pop() }),
            _ => {
                // A client with more is shown less, never more.
                let few = filters.into_iter().take(MAX_RULES);
                let filters = few.map(|filter| (*filter).clone()).collect();
                Some(Self { rows: Some(Arc::new(Filter::any_of(filters))) })
            }
        }
    }
}

/// Decides what a client may do.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// What `identity` may see or do of `topic` by `action`, when it may do it at all.
    ///
    /// # Errors
    /// `Unauthorized` when a token would help, `Forbidden` when this token does not allow it.
    async fn authorize(
        &self,
        identity: &Identity,
        action: Action,
        topic: &Topic,
    ) -> Result<Allowed, Refusal>;
}
