//! Who calls the HTTP API, and with which parameters.

use std::net::SocketAddr;

use http::request::Parts;
use tidewire::budget::Principal;
use tidewire::{Action, Allowed, Identity};
use tidewire_protocol::{Refusal, Topic};

use crate::bodies::BodyShare;
use crate::client::client;
use crate::handshake::{Query, Subprotocol, token};
use crate::router::Transports;

/// A checked request of the HTTP API.
pub struct Caller {
    /// Who asks.
    pub identity: Identity,
    /// The client's address, where it is known.
    pub client: Option<SocketAddr>,
    /// The parameters, decoded.
    pub query: Query,
}

impl Caller {
    /// Reads the parameters, of which only those in `known` and a token may be there, and checks
    /// the token.
    ///
    /// # Errors
    /// `BadField` for parameters, and what the authenticator refuses.
    pub async fn of(
        transports: &Transports,
        request: &Parts,
        known: &[&str],
    ) -> Result<Self, Refusal> {
        let query = Query::read(&request.uri)?;
        query.expect_only(known)?;
        Self::of_query(transports, query, request).await
    }

    /// The same with whatever parameters, for paths whose clients may send others.
    ///
    /// # Errors
    /// `BadField` for parameters, and what the authenticator refuses.
    pub async fn with_any(transports: &Transports, request: &Parts) -> Result<Self, Refusal> {
        Self::of_query(transports, Query::read(&request.uri)?, request).await
    }

    async fn of_query(
        transports: &Transports,
        query: Query,
        request: &Parts,
    ) -> Result<Self, Refusal> {
        let client = client(&request.extensions);
        let shown = token(&request.headers, &query, Subprotocol::default())?;
        let address = client.map(|client| client.ip());
        let identity = transports.node().identify(shown.as_ref(), address).await?;
        if let Some(body) = request.extensions.get::<BodyShare>() {
            body.pass_to(&identity, client);
        }
        Ok(Self { identity, client, query })
    }

    /// Whose budgets the caller uses.
    pub fn principal(&self) -> Principal {
        Principal::of(&self.identity, self.client.map(|client| client.ip()))
    }

    /// Refuses what the caller may not do, and gives what it may see.
    ///
    /// # Errors
    /// What the authorizer refuses.
    pub async fn may(
        &self,
        transports: &Transports,
        action: Action,
        topic: &Topic,
    ) -> Result<Allowed, Refusal> {
        transports.node().authorizer().authorize(&self.identity, action, topic).await
    }
}
