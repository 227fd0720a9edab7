//! Values by key, each with where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use super::keys::Key;
use super::postgres_url::PostgresUrl;
use super::value::Value;

/// Where a value was written. A later one is stronger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// In the configuration file at this path.
    File(Arc<Path>),
    /// In the environment variable of this name.
    Environment(String),
    /// In the command-line flag of this name.
    Flag(String),
}

impl Origin {
    /// How strong the place is, whatever its name.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(_) => 1,
            Self::Environment(_) => 2,
            Self::Flag(_) => 3,
        }
    }

    /// What stands before a complaint about `path`: the name under which it was written.
    pub(super) fn place(&self, path: &str) -> String {
        match self {
            Self::Default => path.to_owned(),
            Self::File(file) => format!("{path} in {}", file.display()),
            Self::Environment(name) => format!("{path} ({name})"),
            Self::Flag(name) => format!("{path} ({name})"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file) => write!(f, "file {}", file.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value and its origin.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// The values of one table of keys: the whole configuration, or one record of a list.
///
/// Keys without a default that nobody wrote are absent. The accessors expect a key of the table
/// with the kind asked for; anything else is a mistake in this crate, which every test that
/// loads a configuration would show.
#[derive(Clone, Debug)]
pub(super) struct Values {
    keys: &'static [Key],
    entries: BTreeMap<&'static str, Entry>,
}

impl Values {
    pub(super) fn new(keys: &'static [Key]) -> Self {
        Self { keys, entries: BTreeMap::new() }
    }

    /// The table these are values of.
    pub(super) fn keys(&self) -> &'static [Key] {
        self.keys
    }

    /// Keeps `value` unless a stronger one is there.
    pub(super) fn offer(&mut self, path: &'static str, value: Value, origin: Origin) {
        let weaker = self.entries.get(path).is_some_and(|kept| kept.origin.rank() > origin.rank());
        if !weaker {
            self.entries.insert(path, Entry { value, origin });
        }
    }

    pub(super) fn remove(&mut self, path: &str) {
        self.entries.remove(path);
    }

    pub(super) fn entry(&self, path: &str) -> Option<&Entry> {
        debug_assert!(self.keys.iter().any(|key| key.path() == path), "{path} is no key");
        self.entries.get(path)
    }

    /// Whether anybody wrote a value for the key.
    pub(super) fn is_written(&self, path: &str) -> bool {
        self.entry(path).is_some_and(|entry| entry.origin != Origin::Default)
    }

    /// What stands before a complaint about the key.
    pub(super) fn place(&self, path: &str) -> String {
        self.entry(path).map_or_else(|| path.to_owned(), |entry| entry.origin.place(path))
    }

    /// What stands before a complaint about a field of one record in the list at `path`.
    pub(super) fn place_within(&self, path: &str, index: usize, field: &str) -> String {
        let field = format!("{path}[{index}].{field}");
        self.entry(path).map_or_else(|| field.clone(), |entry| entry.origin.place(&field))
    }

    /// What somebody wrote, in the order of the table.
    pub(super) fn written(&self) -> impl Iterator<Item = (&'static str, &Entry)> {
        self.keys
            .iter()
            .filter_map(|key| Some((key.path(), self.entries.get(key.path())?)))
            .filter(|(_, entry)| entry.origin != Origin::Default)
    }

    fn find<'a, T>(&'a self, path: &str, pick: impl Fn(&'a Value) -> Option<T>) -> Option<T> {
        let value = &self.entry(path)?.value;
        Some(pick(value).expect("a key is asked for by its own kind"))
    }

    pub(super) fn find_text(&self, path: &str) -> Option<&str> {
        self.find(path, |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub(super) fn find_number(&self, path: &str) -> Option<u64> {
        self.find(path, |value| match value {
            Value::Number(amount) | Value::Size(amount) => Some(*amount),
            _ => None,
        })
    }

    pub(super) fn find_time(&self, path: &str) -> Option<Duration> {
        self.find(path, |value| match value {
            Value::Time(time) => Some(*time),
            _ => None,
        })
    }

    pub(super) fn find_file(&self, path: &str) -> Option<&PathBuf> {
        self.find(path, |value| match value {
            Value::File(file) => Some(file),
            _ => None,
        })
    }

    pub(super) fn find_secret(&self, path: &str) -> Option<&SecretString> {
        self.find(path, |value| match value {
            Value::Secret(secret) => Some(secret),
            _ => None,
        })
    }

    pub(super) fn find_postgres_url(&self, path: &str) -> Option<&PostgresUrl> {
        self.find(path, |value| match value {
            Value::PostgresUrl(url) => Some(url),
            _ => None,
        })
    }

    pub(super) fn texts(&self, path: &str) -> &[String] {
        self.find(path, |value| match value {
            Value::Texts(items) => Some(items.as_slice()),
            _ => None,
        })
        .unwrap_or_default()
    }

    pub(super) fn addresses(&self, path: &str) -> &[SocketAddr] {
        self.find(path, |value| match value {
            Value::Addresses(addresses) => Some(addresses.as_slice()),
            _ => None,
        })
        .unwrap_or_default()
    }

    pub(super) fn records(&self, path: &str) -> &[Values] {
        self.find(path, |value| match value {
            Value::Records(records) => Some(records.as_slice()),
            _ => None,
        })
        .unwrap_or_default()
    }

    pub(super) fn is_on(&self, path: &str) -> bool {
        self.find(path, |value| match value {
            Value::Switch(on) => Some(*on),
            _ => None,
        })
        .unwrap_or_default()
    }

    pub(super) fn text(&self, path: &str) -> &str {
        self.find_text(path).expect("a key that is asked for without question has a default")
    }

    pub(super) fn time(&self, path: &str) -> Duration {
        self.find_time(path).expect("a key that is asked for without question has a default")
    }

    /// A number or an amount of bytes; the bounds of its kind make it fit `T`.
    pub(super) fn amount<T: TryFrom<u64>>(&self, path: &str) -> T {
        let amount = self.find_number(path);
        let amount = amount.expect("a key that is asked for without question has a default");
        T::try_from(amount).ok().expect("the bounds of a key fit its type")
    }
}

/// Equal in effect: where the values came from does not count.
impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self.entries.iter().all(|(path, entry)| {
                other.entries.get(path).is_some_and(|there| there.value == entry.value)
            })
    }
}
