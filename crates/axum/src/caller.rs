//! Who calls the HTTP API, and with which parameters.

use http::{HeaderMap, Uri};
use tidewire::{Action, Allowed, Identity};
use tidewire_protocol::{Refusal, Topic};

use crate::handshake::{Query, Subprotocol, token};
use crate::router::Transports;

/// A checked request of the HTTP API.
pub struct Caller {
    /// Who asks.
    pub identity: Identity,
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
        uri: &Uri,
        headers: &HeaderMap,
        known: &[&str],
    ) -> Result<Self, Refusal> {
        let query = Query::read(uri)?;
        query.expect_only(known)?;
        Self::of_query(transports, query, headers).await
    }

    /// The same with whatever parameters, for paths whose clients may send others.
    ///
    /// # Errors
    /// `BadField` for parameters, and what the authenticator refuses.
    pub async fn with_any(
        transports: &Transports,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        Self::of_query(transports, Query::read(uri)?, headers).await
    }

    async fn of_query(
        transports: &Transports,
        query: Query,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        let shown = token(headers, &query, Subprotocol::default())?;
        let identity = transports.node().identify(shown.as_ref()).await?;
        Ok(Self { identity, query })
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
