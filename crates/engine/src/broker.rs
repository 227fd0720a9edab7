//! Carries events between nodes.
//!
//! A broker may lose, repeat and reorder what it carries: the relay on the receiving side finds
//! what is missing by the hole it leaves and reads it from the history. So a durable history and
//! a fast bus can be chosen apart.

mod local;

use std::sync::Arc;

use async_trait::async_trait;
pub use local::LocalBroker;
use tidewire_protocol::{Event, Topic};

use crate::error::Error;

/// Where a broker hands what it received; cheap to clone.
///
/// Push rather than pull: the single-node broker hands events straight to the relay, with no
/// task in between.
#[derive(Clone)]
pub struct Inlet(Arc<dyn Fn(Vec<Arc<Event>>) + Send + Sync>);

impl Inlet {
    /// An inlet that calls `receive`, which must not block.
    pub fn new(receive: impl Fn(Vec<Arc<Event>>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(receive))
    }

    /// Hands over events in the order they arrived. Never waits; under overload some may be
    /// dropped, and the relay will find them missing.
    pub fn hand_over(&self, events: Vec<Arc<Event>>) {
        (self.0)(events);
    }
}

/// Carries events to every node that follows their topic, this one included.
///
/// Implementers promise: what was announced is handed to the inlet at most once in the usual
/// case, in order per topic in the usual case, and the inlet is not called after the broker is
/// dropped. Callers may not assume any of it.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Called once, before anything else: where to hand what arrives.
    fn attach(&self, inlet: Inlet);

    /// Sends events to every node that follows their topic.
    ///
    /// # Errors
    /// When the bus is down; the events are in the history and will be found missing.
    async fn announce(&self, events: &[Arc<Event>]) -> Result<(), Error>;

    /// This node wants the topic's events from now on; returns when that is so.
    ///
    /// # Errors
    /// When the bus is down.
    async fn follow(&self, topic: &Topic) -> Result<(), Error>;

    /// This node no longer wants the topic's events.
    ///
    /// # Errors
    /// When the bus is down.
    async fn unfollow(&self, topic: &Topic) -> Result<(), Error>;
}
