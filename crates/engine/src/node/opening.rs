//! What a transport says when it opens a session.

use std::net::SocketAddr;
use std::sync::Arc;

use tidewire_protocol::{Dialect, Wire};

use super::admission::Place;
use crate::auth::Identity;
use crate::mailbox::Outlet;

/// What a session begins with.
pub struct Opening {
    /// The client's language.
    pub dialect: Arc<dyn Dialect>,
    /// The client's transport.
    pub wire: Wire,
    /// Who the client is.
    pub identity: Identity,
    /// The other end, if it is known, for [`Node::connections`](crate::Node::connections).
    pub peer: Option<SocketAddr>,
    /// A place among the connections, where one was taken before; else it is taken when the session
    /// is opened.
    pub place: Option<Place>,
    /// The socket, where the transport can write without waiting.
    pub outlet: Option<Box<dyn Outlet>>,
    /// Every event is handed over alone with its topic and position, for transports that make
    /// cursors of several topics; always so for [`Wire::Lines`].
    pub marked: bool,
    /// Events of a stream carry no `id:` line, because the transport writes one of its own.
    pub composite: bool,
}

impl Opening {
    /// A session without outlet, marks or composite ids.
    pub fn new(dialect: Arc<dyn Dialect>, wire: Wire, identity: Identity) -> Self {
        let marked = wire == Wire::Lines;
        let (peer, place, outlet, composite) = (None, None, None, false);
        Self { dialect, wire, identity, peer, place, outlet, marked, composite }
    }

    /// The same, and who is at the other end.
    #[must_use]
    pub fn peer(mut self, peer: Option<SocketAddr>) -> Self {
        self.peer = peer;
        self
    }

    /// The same with a place that was taken by [`Node::place`](crate::Node::place).
    #[must_use]
    pub fn place(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The same with a socket to write into directly.
    #[must_use]
    pub fn outlet(mut self, outlet: Box<dyn Outlet>) -> Self {
        self.outlet = Some(outlet);
        self
    }

    /// The same with marks and without `id:` lines; see [`Opening::composite`].
    #[must_use]
    pub fn composite(mut self) -> Self {
        self.marked = true;
        self.composite = true;
        self
    }
}
