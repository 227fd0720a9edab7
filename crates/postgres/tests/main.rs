//! The crate against a real PostgreSQL; one binary, a module for each subject.

mod auth_function;
mod filter;
mod notify;
mod outbox;
mod private_cluster;
mod sql;
mod snapshot;
mod support;
mod tls;
mod wal;
