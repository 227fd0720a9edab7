//! Suites that every [`History`], [`Broker`] and [`Presence`] must pass.
//!
//! Call them from a test of your own, on a multi-thread runtime, with a function that makes the
//! part; it is called once for each check, and may give the same store each time, because every
//! check uses topics of its own. A broken promise is a panic that says which in a sentence.
//!
//! ```
//! # use std::sync::Arc;
//! # use parking_lot::RwLock;
//! use tidewire::conformance;
//! use tidewire::history::{HistoryLimits, MemoryHistory, MemorySettings};
//! use tidewire::Namespaces;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let limits = HistoryLimits { events: conformance::KEPT, ..HistoryLimits::default() };
//! conformance::history(async || {
//!     let namespaces = Namespaces::new(Vec::new(), limits, false);
//!     let namespaces = Arc::new(RwLock::new(Arc::new(namespaces)));
//!     Arc::new(MemoryHistory::new(MemorySettings::default(), namespaces)) as _
//! })
//! .await;
//! # }
//! ```
//!
//! [`History`]: crate::History
//! [`Broker`]: crate::Broker
//! [`Presence`]: crate::Presence

mod broker;
mod history;
mod presence;
mod survival;

use std::fmt::Display;
use std::time::Duration;

pub use broker::{broker, broker_between_nodes};
pub use history::{KEPT, history};
pub use presence::{MEMBERS, presence};
pub use survival::{Ending, surviving_history};
use tidewire_protocol::{Draft, Payload, Topic};
use tokio::time::{Instant, sleep};

/// How long a part has for something that happens soon: much more than a service on the same
/// machine needs, so that only what never happens fails.
const SOON: Duration = Duration::from_secs(10);

/// Pause between two looks at something that happens soon.
const LOOK: Duration = Duration::from_millis(5);

/// A topic that no other check uses, on whatever store.
fn new_topic() -> Topic {
    let random = getrandom::u64().expect("the system has randomness");
    Topic::application(&format!("conformance:{random:016x}")).expect("a topic's name")
}

/// A message whose content tells it apart from others.
fn message(topic: &Topic, content: impl Display) -> Draft {
    Draft::message(topic.clone(), Payload::Text(format!("{content}").into()))
}

/// Looks until there is something, and fails with the sentence when it takes too long.
async fn eventually<T>(sentence: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{sentence}");
        sleep(LOOK).await;
    }
}
