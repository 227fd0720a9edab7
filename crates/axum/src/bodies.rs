//! The bytes of request bodies that are in memory, by who sent them.
//!
//! A body is counted from its first byte until the request is answered: for the client's address
//! at first, and for its subject once its token was checked. Bodies that came whole with their
//! request in one read are not counted; a socket has one of those at most.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewire::budget::{self, Allowance, Budget, Full, Principal, Share, Shares};
use tidewire::{Identity, Limits, Node};
use tidewire_protocol::{Code, Refusal};

/// All bodies; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bodies(Shares);

/// One request's body; cheap to clone.
#[derive(Clone)]
pub(crate) struct BodyShare(Arc<Inner>);

struct Inner {
    bodies: Bodies,
    node: Node,
    state: Mutex<State>,
}

struct State {
    principal: Principal,
    share: Option<Share>,
    refusal: Option<Refusal>,
}

/// The body is more than its sender, or all together, may have in memory.
#[derive(Debug, thiserror::Error)]
#[error("over the budget for request bodies")]
pub(crate) struct OverBudget;

impl Bodies {
    /// A body of a client of which nothing but its address is known.
    pub(crate) fn begin(&self, node: &Node, client: SocketAddr) -> BodyShare {
        let principal = match node.has_authentication() {
            true => Principal::at(Some(client.ip())),
            false => Principal::Local,
        };
        let state = Mutex::new(State { principal, share: None, refusal: None });
        BodyShare(Arc::new(Inner { bodies: self.clone(), node: node.clone(), state }))
    }
}

impl BodyShare {
    /// Counts bytes that came.
    ///
    /// # Errors
    /// When they are too many; they are not to be kept then.
    pub(crate) fn grow(&self, bytes: usize) -> Result<(), OverBudget> {
        let Inner { bodies, node, state } = &*self.0;
        let state = &mut *state.lock();
        let allowance = allowance(&node.limits(), &state.principal);
        let grown = match &mut state.share {
            Some(share) => share.grow(bytes, &allowance),
            none => {
                bodies.0.take(&state.principal, bytes, &allowance).map(|share| *none = Some(share))
            }
        };
        grown.map_err(|full| state.refuse(full, &allowance, node))
    }

    /// The body is counted for who the client turned out to be; where that is too much, it fails
    /// with its next bytes.
    pub(crate) fn pass_to(&self, identity: &Identity, client: Option<SocketAddr>) {
        let Inner { node, state, .. } = &*self.0;
        let state = &mut *state.lock();
        state.principal = Principal::of(identity, client.map(|client| client.ip()));
        if let Some(share) = &mut state.share {
            let allowance = allowance(&node.limits(), &state.principal);
            if let Err(full) = share.pass_to(&state.principal, &allowance) {
                state.refuse(full, &allowance, node);
            }
        }
    }

    /// Why the body could not be read, where that was for want of budget.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.0.state.lock().refusal.clone()
    }
}

impl State {
    fn refuse(&mut self, full: Full, allowance: &Allowance, node: &Node) -> OverBudget {
        let message = match full {
            Full::Principal => {
                format!("{} has more than {} bytes of bodies", self.principal, allowance.each)
            }
            Full::All => "this server receives as many bytes as it has room for".to_owned(),
        };
        budget::exceeded(Budget::Bodies, &self.principal, node.metrics());
        self.refusal = Some(Refusal::new(Code::OverBudget, message));
        OverBudget
    }
}

fn allowance(limits: &Limits, principal: &Principal) -> Allowance {
    let budgets = &limits.budgets;
    let each = match principal.is_authenticated() {
        true => budgets.subject_body_bytes,
        false => budgets.address_body_bytes,
    };
    // One body of the size that is allowed is always possible.
    let each = each.max(limits.body_bytes);
    Allowance { each, all: budgets.body_bytes, unauthenticated: budgets.body_bytes / 2 }
}
