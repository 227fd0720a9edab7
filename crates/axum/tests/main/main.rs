//! Transports against real sockets: a listening server, clients not written by us where there are
//! any, raw bytes where a client must misbehave.

mod alle;
mod browsers;
mod fluxbase;
mod listening;
mod plain;
mod poll;
mod server;
mod sse;
mod tables;
mod websocket;
mod websocket_rules;
