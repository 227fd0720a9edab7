//! Every way a connection ends, by name.
//!
//! Codes of 4000 to 4499 mean *come back*, 4500 to 4999 mean *do not, unless something changes*;
//! where RFC 6455 has a code of its own, that one is used. `docs/close-codes.md` lists them and a
//! test keeps the two equal.

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Close {
    /// The client went away, or asked to end.
    Normal,
    /// The server stops or restarts; come back after the given number of seconds.
    Restart {
        /// Seconds to wait, different for each client so that they do not all come at once.
        after: u16,
    },
    /// Nothing was heard from the client for too long.
    Idle,
    /// The client did not read for too long.
    SlowConsumer,
    /// The client sent far more requests than allowed and did not stop.
    TooFast,
    /// The server failed; its log says why.
    Internal,
    /// The token has run out; come back with a new one.
    TokenExpired,
    /// No valid token was shown in time.
    Unauthorized,
    /// The key or the token by which the client came is not accepted any more.
    Revoked,
    /// The client broke the WebSocket protocol.
    ProtocolError,
    /// A message was larger than allowed.
    TooLarge,
    /// A text message was not UTF-8.
    BadUtf8,
}

impl Close {
    /// All endings, in the order of the documentation.
    pub const ALL: [Close; 12] = [
        Self::Normal,
        Self::Restart { after: 0 },
        Self::Idle,
        Self::SlowConsumer,
        Self::TooFast,
        Self::Internal,
        Self::TokenExpired,
        Self::Unauthorized,
        Self::Revoked,
        Self::ProtocolError,
        Self::TooLarge,
        Self::BadUtf8,
    ];

    /// The WebSocket close code.
    pub fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::ProtocolError => 1002,
            Self::BadUtf8 => 1007,
            Self::TooLarge => 1009,
            Self::Restart { .. } => 4000,
            Self::Idle => 4001,
            Self::SlowConsumer => 4002,
            Self::TooFast => 4003,
            Self::Internal => 4004,
            Self::TokenExpired => 4500,
            Self::Unauthorized => 4501,
            Self::Revoked => 4502,
        }
    }

    /// The name on every wire, in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Restart { .. } => "restart",
            Self::Idle => "idle",
            Self::SlowConsumer => "slow_consumer",
            Self::TooFast => "too_fast",
            Self::Internal => "internal",
            Self::TokenExpired => "token_expired",
            Self::Unauthorized => "unauthorized",
            Self::Revoked => "revoked",
            Self::ProtocolError => "protocol_error",
            Self::TooLarge => "too_large",
            Self::BadUtf8 => "bad_utf8",
        }
    }

    /// What it means, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Normal => "the connection ended as asked",
            Self::Restart { .. } => "the server restarts, come back after the given pause",
            Self::Idle => "nothing was heard from the client for too long",
            Self::SlowConsumer => "the client did not read for too long",
            Self::TooFast => "the client sent far more requests than allowed",
            Self::Internal => "the server failed",
            Self::TokenExpired => "the token has run out, come back with a new one",
            Self::Unauthorized => "no valid token was shown in time",
            Self::Revoked => "the key or token is not accepted any more, come back with another",
            Self::ProtocolError => "the client broke the WebSocket protocol",
            Self::TooLarge => "a message was larger than allowed",
            Self::BadUtf8 => "a text message was not UTF-8",
        }
    }

    /// Whether the client should come back without changing anything.
    pub fn come_back(self) -> bool {
        matches!(
            self,
            Self::Restart { .. } | Self::Idle | Self::SlowConsumer | Self::TooFast | Self::Internal
        )
    }

    /// Seconds the client should wait before it comes back; `None` when it should not.
    pub fn retry_after(self) -> Option<u16> {
        match self {
            Self::Restart { after } => Some(after),
            Self::TooFast => Some(10),
            other if other.come_back() => Some(1),
            _ => None,
        }
    }
}
