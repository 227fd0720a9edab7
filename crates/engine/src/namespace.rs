//! Rules for topics by pattern: who may do what, and how much history is kept.

use async_trait::async_trait;
use tidewire_protocol::{Code, Refusal, Topic, TopicKind};

use crate::auth::{Action, Authorizer, Identity, Pattern};
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
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Which topics.
    pub pattern: Pattern,
    /// Who may receive events and read the history.
    pub subscribe: Who,
    /// Who may publish.
    pub publish: Who,
    /// Who may see presence and be seen.
    pub presence: Who,
    /// How much history is kept.
    pub history: HistoryLimits,
}

/// All rules; the first namespace that matches a topic decides.
#[derive(Clone, Debug)]
pub struct Namespaces {
    list: Vec<Namespace>,
    /// For topics that no namespace names.
    default_history: HistoryLimits,
    anonymous: bool,
}

impl Default for Namespaces {
    fn default() -> Self {
        Self::new(Vec::new(), HistoryLimits::default(), false)
    }
}

impl Namespaces {
    /// Rules in order; `default_history` is for topics that none of them names, and `anonymous`
    /// says whether clients without a token are let in at all.
    ///
    /// A topic that no namespace names may be listened to and published on by every client that
    /// was let in; private topics and tables only with a grant.
    pub fn new(list: Vec<Namespace>, default_history: HistoryLimits, anonymous: bool) -> Self {
        Self { list, default_history, anonymous }
    }

    /// How much of the topic is kept.
    pub fn history(&self, topic: &Topic) -> HistoryLimits {
        self.find(topic).map_or(self.default_history, |namespace| namespace.history)
    }

    fn find(&self, topic: &Topic) -> Option<&Namespace> {
        let subject = topic.subject();
        self.list.iter().find(|namespace| namespace.pattern.matches(&subject))
    }

    fn who(&self, action: Action, topic: &Topic) -> Who {
        let Some(namespace) = self.find(topic) else {
            return unnamed(topic);
        };
        match action {
            Action::Subscribe | Action::History => namespace.subscribe,
            Action::Publish => namespace.publish,
            Action::Presence | Action::Track => namespace.presence,
        }
    }

    /// Whether `identity` may do `action` on `topic`; the synchronous form of the authorizer.
    ///
    /// # Errors
    /// As [`Authorizer::authorize`].
    pub fn check(&self, identity: &Identity, action: Action, topic: &Topic) -> Result<(), Refusal> {
        if identity.is_granted(action, topic) {
            return Ok(());
        }
        let anonymous = identity.is_anonymous();
        match self.who(action, topic) {
            Who::Anyone if !anonymous || self.anonymous => Ok(()),
            Who::Authenticated if identity.subject.is_some() => Ok(()),
            _ if anonymous => Err(Refusal::new(
                Code::Unauthorized,
                format!("a token is needed to {} here", verb(action)),
            )
            .about(topic)),
            _ => Err(Refusal::new(
                Code::Forbidden,
                format!("this token does not allow to {} here", verb(action)),
            )
            .about(topic)),
        }
    }
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

fn unnamed(topic: &Topic) -> Who {
    match topic.kind() {
        TopicKind::Application | TopicKind::Notify | TopicKind::Presence => Who::Anyone,
        TopicKind::Private | TopicKind::Table => Who::Nobody,
    }
}

#[async_trait]
impl Authorizer for parking_lot::RwLock<std::sync::Arc<Namespaces>> {
    async fn authorize(
        &self,
        identity: &Identity,
        action: Action,
        topic: &Topic,
    ) -> Result<(), Refusal> {
        let namespaces = std::sync::Arc::clone(&self.read());
        namespaces.check(identity, action, topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn someone() -> Identity {
        Identity { subject: Some("u1".into()), ..Identity::default() }
    }

    #[test]
    fn the_first_matching_namespace_decides() {
        let rule = |pattern: &str, who| Namespace {
            pattern: pattern.parse().unwrap(),
            subscribe: who,
            publish: Who::Nobody,
            presence: who,
            history: HistoryLimits::default(),
        };
        let list = vec![rule("news:*", Who::Anyone), rule("*", Who::Authenticated)];
        let rules = Namespaces::new(list, HistoryLimits::default(), true);
        let news = Topic::application("news:1").unwrap();
        let other = Topic::application("other").unwrap();

        assert!(rules.check(&Identity::anonymous(), Action::Subscribe, &news).is_ok());
        let refused = rules.check(&Identity::anonymous(), Action::Subscribe, &other).unwrap_err();
        assert_eq!(refused.code, Code::Unauthorized);
        assert!(rules.check(&someone(), Action::Subscribe, &other).is_ok());
        let refused = rules.check(&someone(), Action::Publish, &news).unwrap_err();
        assert_eq!(refused.code, Code::Forbidden);
    }

    #[test]
    fn anonymous_clients_have_no_rights_unless_switched_on() {
        let topic = Topic::application("a").unwrap();
        let off = Namespaces::default();
        assert!(off.check(&Identity::anonymous(), Action::Subscribe, &topic).is_err());
        assert!(off.check(&someone(), Action::Subscribe, &topic).is_ok());
        assert!(off.check(&Identity::everything(), Action::Publish, &topic).is_ok());
    }

    #[test]
    fn a_refusal_says_in_words_what_is_refused() {
        let topic = Topic::private("a").unwrap();
        let refused = |action| Namespaces::default().check(&someone(), action, &topic);
        for (action, words) in [
            (Action::Presence, "this token does not allow to see who is here"),
            (Action::Track, "this token does not allow to be seen here"),
            (Action::History, "this token does not allow to read the history here"),
        ] {
            assert_eq!(refused(action).unwrap_err().message, words);
        }
    }

    #[test]
    fn a_private_topic_needs_a_grant() {
        let topic = Topic::private("a").unwrap();
        let rules = Namespaces::default();
        assert!(rules.check(&someone(), Action::Subscribe, &topic).is_err());
        let grant = crate::auth::Grant {
            pattern: "private:a".parse().unwrap(),
            actions: vec![Action::Subscribe],
        };
        let granted = Identity { grants: Some(vec![grant].into()), ..someone() };
        assert!(rules.check(&granted, Action::Subscribe, &topic).is_ok());
        assert!(rules.check(&granted, Action::Publish, &topic).is_err());
    }
}
