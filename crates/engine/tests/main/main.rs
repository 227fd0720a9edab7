//! The engine as a whole: sessions on a real node, without sockets.

mod support;

mod authentication;
#[cfg(feature = "conformance")]
mod conformance;
mod counts;
mod crowd;
mod documentation;
mod heartbeat;
mod interest;
mod limits;
mod memory;
mod presence;
mod publish;
mod shutdown;
mod slow;
mod storm;
mod subscribe;
mod tables;
mod underway;
mod upstream;
mod waiting;
