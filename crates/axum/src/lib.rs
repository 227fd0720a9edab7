//! The transports of Tidewire: how bytes reach a session, and nothing of what they mean.
//!
//! [`listen`] takes in connections, [`router()`] says which path speaks which dialect, and behind
//! each path stands the same [`Session`](tidewire::Session): on a WebSocket, on Server-Sent
//! Events, or for the time of one long-poll. `docs/transports.md` is the page for users.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use tidewire::Node;
//! use tidewire_axum::{Listening, Origins, Transports, finish, router, serve};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn run() -> std::io::Result<()> {
//! let node = Node::builder().start();
//! let transports = Transports::new(node, Origins::Same);
//! let app = finish(router(&transports), &transports);
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! serve(vec![listener], app, Listening::default(), CancellationToken::new()).await;
//! # Ok(())
//! # }
//! ```

pub mod listen;

mod app;

pub mod router;

pub mod origin;

mod host;

mod handshake;

mod caller;

mod bodies;

pub mod client;

mod alle;

mod fluxbase;

mod poll;

mod refusal;

mod socket;

mod sse;

mod started;

mod takeover;

mod websocket;

pub use app::App;
pub use caller::Caller;
pub use client::{ForwardedHeader, Proxies};
pub use handshake::{Query, redacted};
pub use listen::{Listening, ListeningMetrics, Threads, Tls, TlsError, serve};
pub use origin::{Origin, OriginError, Origins};
pub use refusal::{method_not_allowed, response as refusal_response};
pub use router::{Transports, finish, router};
pub use websocket::is_upgrade;
