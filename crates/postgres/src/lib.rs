//! PostgreSQL for Tidewire.
//!
//! This crate brings what happens in a PostgreSQL database to the engine. It knows tokio-postgres
//! and the engine's traits; it never sees HTTP, a dialect or a transport. Reading order:
//! [`connect`] reads connection strings and speaks TLS, [`notify`] listens to channels,
//! [`auth_function`] asks an SQL function who a client is, and [`private_cluster`] starts a
//! PostgreSQL of our own for trying and testing.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use tidewire::Node;
//! use tidewire::protocol::TopicKind;
//! use tidewire_postgres::{NotifyOptions, NotifySource, Target};
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let target: Target = "postgresql://app@db.example/shop?sslmode=verify-full".parse()?;
//! let prepared = Node::builder().prepare();
//! let publisher = prepared.publisher().clone();
//! let source = Arc::new(NotifySource::start(target, publisher, NotifyOptions::default()));
//! let node = prepared.upstream(TopicKind::Notify, source).start();
//! # Ok(())
//! # }
//! ```

pub mod connect;

pub mod notify;

pub mod wal;

mod charset;

mod key;

mod naming;

mod partitions;

mod steadiness;

mod values;

mod changes;

pub mod outbox;

pub mod sql;

pub mod doctor;

pub mod prepare;

pub mod row_security;

pub mod snapshot;

pub mod tables;

pub mod auth_function;

pub mod private_cluster;

pub use auth_function::AuthFunction;
pub use changes::SourceStatus;
pub use connect::{ConnectError, ErrorKind, Probe, SslMode, Target};
pub use notify::{NotifyMetrics, NotifyOptions, NotifySource, NotifyStatus};
pub use outbox::{OutboxMetrics, OutboxOptions, OutboxSource};
pub use prepare::Preparer;
pub use row_security::{RowSecurity, SecuredTables};
pub use snapshot::{SnapshotLimits, Snapshots};
pub use tables::{SourceChoice, TableOptions, TableSource};
pub use wal::{SlotKind, SlotStatus, WalError, WalErrorKind, WalMetrics, WalOptions, WalSource};
