//! A session as a member of topics: tracked until it says otherwise, or ends.

use std::sync::Arc;

use tidewire_protocol::presence::Member;
use tidewire_protocol::{Answer, Code, Reference, Refusal, Topic};

use super::Session;
use crate::auth::Action;

/// Longest meta and key of a member, together, in bytes.
///
/// A thousand members then fit into two megabytes of one answer.
const MEMBER_BYTES: usize = 2_048;

impl Session {
    pub(super) async fn track(
        &mut self,
        topic: &Topic,
        key: Option<Arc<str>>,
        meta: Arc<str>,
        reference: Option<Reference>,
    ) -> Result<(), Refusal> {
        self.may(Action::Track, topic).await?;
        if self.subscriptions.places_of(topic).next().is_none() {
            let message = "subscribe to the topic before tracking on it";
            return Err(Refusal::new(Code::NotSubscribed, message));
        }
        let member = self.new_member(topic, key, meta)?;
        let known = self.tracked_on(topic).is_some();
        if !known {
            self.check_tracked()?;
            // Before anything is waited for: if the session ends meanwhile, the member goes too.
            self.tracked.push((topic.clone(), Arc::clone(&member.reference)));
        }
        if let Err(refusal) = self.node.presence.track(topic, member.clone()).await {
            if !known {
                self.untrack(topic).await;
            }
            return Err(refusal);
        }
        self.say(&Answer::Tracked { topic: topic.clone(), member, reference });
        Ok(())
    }

    /// A member stays when the subscription ends, so they have a limit of their own.
    fn check_tracked(&self) -> Result<(), Refusal> {
        let limit = self.node.limits.load().subscriptions;
        if self.tracked.len() < limit {
            return Ok(());
        }
        let message = format!("a connection is tracked on at most {limit} topics");
        Err(Refusal::new(Code::TooManySubscriptions, message))
    }

    /// A session is one member of a topic, so tracking again replaces what it said before.
    fn new_member(
        &self,
        topic: &Topic,
        key: Option<Arc<str>>,
        meta: Arc<str>,
    ) -> Result<Member, Refusal> {
        let reference = self.tracked_on(topic).unwrap_or_else(|| self.id.to_string().into());
        let key = key.or_else(|| self.identity.subject.clone());
        let key = key.unwrap_or_else(|| Arc::clone(&reference));
        if key.len() + meta.len() > MEMBER_BYTES {
            let message = format!("key and meta of a member are at most {MEMBER_BYTES} bytes");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        let subject = self.identity.subject.clone();
        Ok(Member { reference, key, subject, meta })
    }

    fn tracked_on(&self, topic: &Topic) -> Option<Arc<str>> {
        let found = self.tracked.iter().find(|(tracked, _)| tracked == topic);
        found.map(|(_, reference)| Arc::clone(reference))
    }

    pub(super) async fn untrack(&mut self, topic: &Topic) {
        if let Some(reference) = self.tracked_on(topic) {
            self.node.presence.untrack(topic, &reference).await;
            self.tracked.retain(|(tracked, _)| tracked != topic);
        }
    }
}
