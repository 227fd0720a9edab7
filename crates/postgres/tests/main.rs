//! The crate against a real PostgreSQL; one binary, a module for each subject.

mod auth_function;
mod doctor;
mod filter;
mod hostile_path;
mod least_privilege;
mod names;
mod notify;
mod outbox;
mod partitions;
mod private_cluster;
mod renames;
mod row_security;
mod snapshot;
mod sql;
mod support;
mod tls;
mod undeliverable;
mod wal;
