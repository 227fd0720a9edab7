//! What differs between two configurations, for a server that is told to read its own again.

use super::settings::Settings;

/// Paths of the keys whose values differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that take effect at once.
    pub live: Vec<&'static str>,
    /// Those that need a restart.
    pub restart: Vec<&'static str>,
}

/// Compares effect: a value that only came from another place has not changed.
pub fn changes(old: &Settings, new: &Settings) -> Changes {
    let mut changes = Changes::default();
    for key in old.values.keys() {
        let before = old.values.entry(key.path()).map(|entry| &entry.value);
        let after = new.values.entry(key.path()).map(|entry| &entry.value);
        if before == after {
            continue;
        }
        let is_rewired = key.path().starts_with("auth.") && ways(old) != ways(new);
        let is_live = key.is_live() && !is_rewired;
        let list = if is_live { &mut changes.live } else { &mut changes.restart };
        list.push(key.path());
    }
    changes
}

/// The ways in which clients are told apart: a running server changes their keys, but neither
/// gains a way nor loses one.
fn ways(settings: &Settings) -> (bool, bool) {
    (settings.auth.jwt.is_some(), settings.auth.keys.is_empty())
}
