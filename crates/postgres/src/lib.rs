//! PostgreSQL for Tidewire.
//!
//! This crate brings what happens in a PostgreSQL database to the engine. It knows tokio-postgres
//! and the engine's traits; it never sees HTTP, a dialect or a transport.

pub mod private_cluster;
