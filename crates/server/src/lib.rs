//! The Tidewire server: configuration, command line and the parts put together.

pub mod args;

pub mod config;

pub mod telemetry;
