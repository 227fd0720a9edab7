//! Why reading ends.

use std::error::Error as _;

use crate::connect::ConnectError;

/// Why a connection is no longer read from.
pub(super) enum Ended {
    /// The source is being shut down.
    Stopped,
    /// The connection is gone, or of no use.
    Lost(ConnectError),
    /// Somebody else reads, or nothing is installed: nothing is wrong with the connection.
    Waiting(String),
    /// The history does not take, or give, what has to be kept.
    History(tidewire::Error),
    /// Changes were removed, so it has to be seen what can still be told.
    Removed,
}

impl From<ConnectError> for Ended {
    fn from(error: ConnectError) -> Self {
        Self::Lost(error)
    }
}

impl From<tidewire::Error> for Ended {
    fn from(error: tidewire::Error) -> Self {
        Self::History(error)
    }
}

impl Ended {
    /// In words, for who asks how reading goes.
    pub(super) fn explain(self) -> Option<String> {
        match self {
            Self::Stopped => None,
            Self::Lost(error) => Some(error.to_string()),
            Self::Waiting(why) => Some(why),
            Self::History(error) => {
                let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                Some(format!(
                    "the history does not take what the outbox says, so reading waits for it: {why}"
                ))
            }
            Self::Removed => {
                Some("changes were removed from the outbox, by writers or by hand".to_owned())
            }
        }
    }
}
