//! Everything a bearer can show, from outside: tokens made with fresh keys, key servers on
//! loopback, API keys, and the choice between them.

mod support;

mod algorithms;

mod key_server;

mod choice;
#[cfg(feature = "disk")]
mod disk;

mod api_keys;

mod minted;

mod strangers;
