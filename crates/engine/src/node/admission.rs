//! Who is let in: tokens are checked and places given within the budgets of the client's address
//! and subject.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use tidewire_protocol::{Code, Refusal, Subscription, Token};

use super::{Inner, Node};
use crate::auth::{Authenticator, Identity};
use crate::budget::{
    self, Allowance, Budget, Full, Principal, Rate, Rates, Room, Share, Shares, TokenDigest, Turn,
    Turns,
};
use crate::limits::Limits;

/// Tokens of one address that wait for the check of others: a crowd behind one address comes back
/// at once, and each of them waits on a socket of its own, which are bounded too.
const STANDING: usize = 512;

/// What is counted to admit clients.
#[derive(Default)]
pub(super) struct Admission {
    connections: Shares,
    checks: Turns,
    snapshots: Turns,
    failures: Rates,
    pub(super) filters: Shares,
    pub(super) channels: Shares,
}

/// A place among the connections, for a session that is to be opened; dropping it gives it back.
#[derive(Debug)]
pub struct Place(Share);

impl Place {
    /// Whose place it is.
    pub fn principal(&self) -> &Principal {
        self.0.principal()
    }

    /// Whether it is the place of a client that showed a good token.
    pub fn is_authenticated(&self) -> bool {
        self.0.principal().is_authenticated()
    }
}

impl Node {
    /// Who the bearer of a token at this address is; without a token, an anonymous client, or one
    /// that may do everything where no authentication is configured.
    ///
    /// # Errors
    /// What the authenticator refuses, and `OverBudget` for an address with too many refused
    /// tokens. A token on a server without authentication is ignored.
    pub async fn identify(
        &self,
        token: Option<&Token>,
        address: Option<IpAddr>,
    ) -> Result<Identity, Refusal> {
        match (&self.0.authenticator, token) {
            (None, _) => Ok(Identity::everything()),
            (Some(_), None) => Ok(Identity::anonymous()),
            (Some(authenticator), Some(token)) => {
                self.0.identify(authenticator.as_ref(), token, Principal::at(address)).await
            }
        }
    }

    /// Refuses a client that showed no token where one is needed; for requests whose body is
    /// read before it is known what they are about.
    ///
    /// # Errors
    /// `Unauthorized`.
    pub fn admit(&self, identity: &Identity) -> Result<(), Refusal> {
        if self.admits_anonymous() || identity.has_token() {
            return Ok(());
        }
        Err(Refusal::new(Code::Unauthorized, "a token is needed here"))
    }

    /// Takes a place among the connections, for an [`Opening`](crate::Opening).
    ///
    /// # Errors
    /// `TooManyConnections` when all are taken, or all for clients without a token; `OverBudget`
    /// when the address or the subject has as many as one may.
    pub fn place(&self, identity: &Identity, address: Option<IpAddr>) -> Result<Place, Refusal> {
        let principal = Principal::of(identity, address);
        let limits = self.0.limits.load();
        let allowance = connections(&limits, &principal);
        let share = self.0.admission.connections.take(&principal, 1, &allowance);
        share.map(Place).map_err(|full| self.0.no_place(full, &principal, &allowance))
    }
}

impl Inner {
    /// Who the bearer of a token shown on a live connection is. `principal` is who the client was
    /// until now: what others at its address get wrong does not keep it from a newer token.
    pub(crate) async fn check_token(
        &self,
        token: &Token,
        principal: Principal,
    ) -> Result<Identity, Refusal> {
        let Some(authenticator) = &self.authenticator else {
            let message = "this server has no authentication configured";
            return Err(Refusal::new(Code::AuthenticationOff, message));
        };
        self.identify(authenticator.as_ref(), token, principal).await
    }

    async fn identify(
        &self,
        authenticator: &dyn Authenticator,
        token: &Token,
        principal: Principal,
    ) -> Result<Identity, Refusal> {
        let limits = self.limits.load_full();
        let rate = Rate {
            per_second: limits.budgets.failed_tokens_per_second,
            burst: limits.budgets.failed_token_burst,
        };
        let failures = &self.admission.failures;
        let checked = async {
            let at_once = limits.budgets.address_token_checks;
            let turn =
                self.admission.checks.turn(&principal, None, Room { at_once, standing: STANDING });
            let _turn = turn.await.ok_or_else(|| {
                let message = "too many tokens of this client or address are being checked";
                self.over(Budget::TokenChecks, &principal, message)
            })?;
            // Those that waited meanwhile count, too.
            if !failures.has_room(&principal, rate) {
                let message =
                    "too many tokens of this client or address were refused, try again later";
                return Err(self.over(Budget::FailedTokens, &principal, message));
            }
            authenticator.identify(token).await
        };
        match checked.await {
            Ok(identity) if identity.subject.is_none() => {
                Ok(Identity { token: Some(TokenDigest::of(token)), ..identity })
            }
            Err(refusal) if refusal.code == Code::TokenInvalid => {
                failures.take(&principal, 1, rate);
                Err(refusal)
            }
            other => other,
        }
    }

    /// Waits until the principal may have another snapshot read: a few at once, so that one which
    /// asks for many leaves connections to the database to others.
    ///
    /// # Errors
    /// `OverBudget` when too many wait already.
    pub(crate) async fn snapshot_turn<'all>(
        &'all self,
        principal: &'all Principal,
        wish: &Subscription,
    ) -> Result<Option<Turn<'all>>, Refusal> {
        if *principal == Principal::Local {
            return Ok(None);
        }
        // Those of one principal that ask for the same rows share one query.
        let mut thing = DefaultHasher::new();
        (&wish.topic, &wish.interest.columns, &wish.interest.filter).hash(&mut thing);
        let room = {
            let budgets = &self.limits.load().budgets;
            Room { at_once: budgets.snapshots, standing: budgets.waiting_snapshots }
        };
        let turn = self.admission.snapshots.turn(principal, Some(thing.finish()), room).await;
        turn.map(Some).ok_or_else(|| {
            let message = "too many snapshots of one client are waiting";
            self.over(Budget::Snapshots, principal, message)
        })
    }

    /// Gives a session's place to whom the session turned out to be.
    ///
    /// # Errors
    /// As [`Node::place`], and then the place stays whose it was.
    pub(crate) fn pass_place(&self, place: &mut Place, identity: &Identity) -> Result<(), Refusal> {
        // The address counts for who shows a token only as long as it does not.
        let principal = Principal::of(identity, None);
        let limits = self.limits.load();
        let allowance = connections(&limits, &principal);
        let passed = place.0.pass_to(&principal, &allowance);
        passed.map_err(|full| self.no_place(full, &principal, &allowance))
    }

    fn no_place(&self, full: Full, principal: &Principal, allowance: &Allowance) -> Refusal {
        let (code, message) = match full {
            Full::Principal => {
                let message = format!("{principal} has {} connections, the most", allowance.each);
                (Code::OverBudget, message)
            }
            Full::All if principal.is_authenticated() || *principal == Principal::Local => {
                let message = format!("this server takes at most {} connections", allowance.all);
                (Code::TooManyConnections, message)
            }
            Full::All => {
                let message = "this server takes no more connections without a token";
                (Code::TooManyConnections, message.to_owned())
            }
        };
        budget::exceeded(Budget::Connections, principal, &self.metrics);
        Refusal::new(code, message)
    }

    pub(crate) fn over(&self, budget: Budget, principal: &Principal, message: &str) -> Refusal {
        budget::refusal(budget, principal, &self.metrics, message)
    }
}

/// How many connections a principal, and how many all may have.
fn connections(limits: &Limits, principal: &Principal) -> Allowance {
    let budgets = &limits.budgets;
    let part = limits.connections * usize::from(budgets.unauthenticated_percent) / 100;
    let authenticated = principal.is_authenticated();
    Allowance {
        each: if authenticated { budgets.subject_connections } else { budgets.address_connections },
        all: limits.connections,
        unauthenticated: part.max(1),
    }
}
