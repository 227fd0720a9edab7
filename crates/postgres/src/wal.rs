//! The write-ahead log as a source of row changes.

pub mod pgoutput;
