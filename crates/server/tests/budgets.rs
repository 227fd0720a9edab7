//! One client costs itself only: attacks from one address without a token, and by one subject with
//! a good one, while others are served.

mod bodies;
mod connections;
mod keys;
mod peer;
mod sockets;
mod tokens;
mod topics;

pub(crate) use self::peer::Peer;
use crate::support::{SECRET, Server};

/// The attacker's address.
const ATTACKER: &str = "127.0.0.1";

/// Another client's.
const OTHER: &str = "127.0.0.2";

/// A server with authentication, and these keys.
async fn guarded(keys: &[(&'static str, &str)]) -> Server {
    let mut all = vec![("auth.jwt.secret", SECRET)];
    all.extend_from_slice(keys);
    Server::start(&all).await
}
