//! The broker of a single node: what is announced is handed over at once.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tidewire_protocol::{Event, Topic};

use super::{Broker, Inlet};
use crate::error::Error;

/// Hands every announcement straight to this node's relay.
#[derive(Default)]
pub struct LocalBroker {
    inlet: OnceLock<Inlet>,
}

#[async_trait]
impl Broker for LocalBroker {
    fn attach(&self, inlet: Inlet) {
        self.inlet.set(inlet).ok().expect("a broker is attached once");
    }

    async fn announce(&self, events: &[Arc<Event>]) -> Result<(), Error> {
        if let Some(inlet) = self.inlet.get() {
            inlet.hand_over(events.to_vec());
        }
        Ok(())
    }

    async fn follow(&self, _: &Topic) -> Result<(), Error> {
        Ok(())
    }

    async fn unfollow(&self, _: &Topic) -> Result<(), Error> {
        Ok(())
    }
}
