//! The Tidewire engine: ordered topics, history, sessions and presence, with no HTTP and no
//! database in it.
//!
//! Five sentences to hold in the head:
//!
//! 1. Everything that is said enters through one door, the [`Publisher`], as a [`Draft`].
//! 2. [`History`] turns a draft into an [`Event`] by giving it a [`Position`]; nothing else can.
//! 3. The [`Broker`] carries events between nodes and may lose, repeat or reorder them; the relay
//!    puts them right with a [`Cursor`] and the history.
//! 4. The hub hands each event to the mailboxes of its topic and never waits.
//! 5. A [`Session`] is one client: it reads frames as commands and writes events as frames
//!    through a [`Dialect`]; transports only move frames.
//!
//! ```
//! use std::sync::Arc;
//!
//! use tidewire::protocol::dialect::Native;
//! use tidewire::protocol::{Command, Draft, Payload, Subscription, Topic, Wire};
//! use tidewire::{Identity, Node, Opening};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let node = Node::builder().start();
//! let topic = Topic::application("room:42").unwrap();
//!
//! let opening = Opening::new(Arc::new(Native), Wire::Lines, Identity::everything());
//! let mut session = node.open(opening).unwrap();
//! session.perform(Command::Subscribe(Subscription::to(topic.clone()))).await.unwrap();
//!
//! let hello = Draft::message(topic, Payload::Text("hello".into()));
//! node.publisher().publish(vec![hello]).await;
//!
//! session.ready().await.unwrap();
//! let frames = session.take();
//! assert!(frames.iter().any(|frame| frame.bytes.starts_with(br#"{"type":"subscribed""#)));
//! # }
//! ```

pub mod node;

pub mod publisher;

mod idempotency;

pub mod upstream;

pub mod history;

pub mod broker;

pub mod cursor;

mod topic_map;

mod relay;

mod hub;

pub mod mailbox;

mod delivery;

pub mod session;

mod sessions;

pub mod presence;

pub mod auth;

pub mod namespace;

pub mod limits;

pub mod budget;

mod bookmark;

mod ticker;

pub mod metrics;

pub mod error;

pub mod sparing;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use auth::{
    Action, Allowed, Authenticator, Authorizer, Credential, Grant, Identity, Pattern, PatternError,
    RowRule, RowRuleError, Signature,
};
pub use broker::{Broker, Inlet};
pub use cursor::{Cursor, Step};
pub use error::Error;
pub use history::{History, HistoryLimits, Mark, Page};
pub use limits::{Budgets, Limits};
pub use mailbox::{Outgoing, Outlet};
pub use metrics::Metrics;
pub use namespace::{Namespace, Namespaces, Who};
pub use node::{Node, NodeBuilder, Opening, Place, Stats};
pub use presence::Presence;
pub use publisher::Publisher;
pub use session::Session;
pub use sessions::Connection;
pub use tidewire_protocol as protocol;
pub use tidewire_protocol::{Dialect, Draft, Event, Position, Topic};
pub use upstream::{Prepared, RowFilter, TableRows, Upstream};
