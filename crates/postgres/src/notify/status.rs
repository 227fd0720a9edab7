//! How listening goes, for `/ready` and for people.

use std::time::SystemTime;

/// Whether notifications can arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no connection; it is tried again and again.
    Disconnected,
    /// The listening connection stands, and a notification sent as a test has arrived.
    Connected,
}

/// How listening goes.
#[derive(Clone, Debug)]
pub struct NotifyStatus {
    /// Whether notifications can arrive.
    pub state: State,
    /// Since when.
    pub since: SystemTime,
    /// What went wrong last, without secrets; kept after it works again.
    pub last_error: Option<String>,
    /// Channels that are wanted.
    pub channels: usize,
    /// Connections that were listened on since the start.
    pub(super) connections: u64,
}

impl NotifyStatus {
    /// Whether notifications can arrive.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }
}
