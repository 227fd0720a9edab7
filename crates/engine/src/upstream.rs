//! Worlds outside whose topics must be asked for, such as NOTIFY channels.
//!
//! The hub attaches a topic when its first local listener arrives and detaches it some seconds
//! after the last one left, so a page reload does not flap. What the upstream hears it hands to
//! the [`Publisher`](crate::Publisher) like any other source.

use async_trait::async_trait;
use tidewire_protocol::{Payload, Refusal, Topic};

/// A world outside whose topics must be asked for.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// Returns once everything said on the topic from now on is sure to reach the publisher.
    ///
    /// Called again for a topic that is attached already; that must be cheap and harmless.
    ///
    /// # Errors
    /// A refusal for the client that asked, for example that the database is down.
    async fn attach(&self, topic: &Topic) -> Result<(), Refusal>;

    /// Nobody on this node listens to the topic any more.
    fn detach(&self, topic: &Topic);

    /// Says something there; it comes back as an event through the publisher.
    ///
    /// # Errors
    /// A refusal for the client that asked, for example that the payload is too large there.
    async fn emit(&self, topic: &Topic, payload: &Payload) -> Result<(), Refusal>;
}
