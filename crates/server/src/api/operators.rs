//! Who is told how the server is: operators everything, strangers only what a load balancer needs.
//!
//! An operator shows an administrator's token, or comes by a listener of operators' own
//! (`listen_operators`). Where no authentication is configured everybody may do everything, this
//! too.

use std::time::Duration;

use http::request::Parts;
use tidewire_axum::Caller;
use tidewire_protocol::{Code, Refusal};

use super::Api;

/// By which listeners requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Those that everybody reaches.
    Public {
        /// Operators have listeners of their own.
        operators_elsewhere: bool,
    },
    /// Those that operators alone reach.
    Operators,
}

/// How long a token is checked before its bearer counts as a stranger: a load balancer waits for
/// the answer, and the token may be a matter for the database that is just down.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the request comes from an operator; whatever is unclear is not.
pub(super) async fn is_operator(api: &Api, request: &Parts) -> bool {
    if api.door == Door::Operators {
        return true;
    }
    let caller = Caller::with_any(&api.transports, request);
    let caller = tokio::time::timeout(PATIENCE, caller).await;
    matches!(caller, Ok(Ok(caller)) if caller.identity.superuser)
}

/// Refuses who may not see the metrics: where operators have listeners of their own, strangers.
pub(super) async fn may_measure(api: &Api, request: &Parts) -> Result<(), Refusal> {
    let is_closed = api.door == Door::Public { operators_elsewhere: true };
    if !is_closed || is_operator(api, request).await {
        return Ok(());
    }
    Err(Refusal::new(Code::Forbidden, "metrics are for operators, see listen_operators"))
}
