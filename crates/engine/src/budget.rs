//! What one principal may use of what all of them share.
//!
//! Before authentication a client is its address, afterwards its subject: a [`Principal`]. What
//! may be held (connections, bytes of bodies) is counted by [`Shares`], what may be done in a
//! second by [`Rates`], and who waits for a turn stands in `Turns`. A request over a budget is
//! refused with [`Code::OverBudget`]; others do not notice. Everything here is synchronous but
//! for the wait in `Turns`.

mod principal;
mod rates;
mod shares;
mod turns;

use tidewire_protocol::{Code, Refusal};

pub use self::principal::{Network, Principal, TokenDigest};
pub use self::rates::{Rate, Rates};
pub use self::shares::{Allowance, Full, Share, Shares};
pub(crate) use self::turns::{Room, Turn, Turns};
use crate::metrics::{Metrics, NameLabel};
use crate::sparing::Sparing;

macro_rules! budgets {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal;)+) => {
        /// What is shared; `docs/metrics.md` lists the words.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Budget { $($(#[doc = $doc])+ $name,)+ }

        impl Budget {
            /// All budgets.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The word for it in metrics and in the log.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }
        }
    };
}

budgets! {
    /// Open sockets.
    Sockets = "sockets";
    /// Sockets on which no request came yet.
    Handshakes = "handshakes";
    /// Bytes of request bodies that are being received or answered.
    Bodies = "bodies";
    /// Open sessions.
    Connections = "connections";
    /// Tokens that are being checked.
    TokenChecks = "token_checks";
    /// Tokens that were refused.
    FailedTokens = "failed_tokens";
    /// Snapshots that are read, or wait to be.
    Snapshots = "snapshots";
    /// Bytes of filters in use.
    Filters = "filters";
    /// Topics that a publication made.
    NewTopics = "new_topics";
    /// NOTIFY channels that are followed.
    Channels = "channels";
    /// Publications over HTTP.
    Publications = "publications";
}

/// One line about each budget in a while: an attacker must not fill the log either.
static LINES: [Sparing; Budget::ALL.len()] = [const { Sparing::new() }; Budget::ALL.len()];

/// Counts and logs that a principal is over a budget.
pub fn exceeded(budget: Budget, principal: &Principal, metrics: &Metrics) {
    metrics.over_budget.get_or_create(&NameLabel { name: budget.word() }).inc();
    if let Some(unsaid) = LINES[budget as usize].due() {
        tracing::warn!(budget = budget.word(), %principal, unsaid, "over budget");
    }
}

/// The refusal for a principal over a budget, which is counted and logged.
pub fn refusal(
    budget: Budget,
    principal: &Principal,
    metrics: &Metrics,
    message: impl Into<String>,
) -> Refusal {
    exceeded(budget, principal, metrics);
    Refusal::new(Code::OverBudget, message)
}
