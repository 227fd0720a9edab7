//! The Tidewire server: what the program `tidewire` is made of, and [`Bridge`] to run one inside
//! another program.
//!
//! The only crate that knows all others, and the only one that touches the configuration, the
//! environment and the log.

mod bridge;

mod server;

mod assemble;

mod api;

pub mod args;

pub mod config;

pub mod telemetry;

mod signals;

mod open_files;

pub mod core_dumps;

pub mod commands;

pub use bridge::{Bridge, BridgeConfig};
pub use server::{Never, Reloads, Server};
