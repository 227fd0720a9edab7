//! What the server is told: flags over environment over file over defaults.
//!
//! *As written* ([`Written`]) becomes *as used* ([`Settings`]) in one step that collects every
//! problem before it refuses. Every key stands once in [`keys`]; all else is made from there.
//! No other module reads the environment or a configuration file.

mod settings;

mod written;

pub mod keys;

mod values;

mod value;

mod web_url;

mod check;

mod changes;

mod error;

mod print;

mod docs;

mod nearest;

mod postgres_url;

mod units;

pub use changes::{Changes, changes};
pub use error::{ConfigError, Problem};
pub use postgres_url::PostgresUrl;
pub use settings::{
    ApiKeySettings, AuthSettings, BudgetSettings, Grants, HistorySettings, IdempotencySettings,
    JwtSettings, LimitSettings, LogFormat, LogSettings, NamespaceSettings, PostgresSettings,
    Settings, ShutdownSettings, TableSettings, TlsSettings, Who,
};
pub(crate) use units::parse_duration;
pub use value::Kind;
pub use values::Origin;
pub use written::{Override, Written};

impl Settings {
    /// What holds, as TOML, each value with its origin in a comment; secrets are hidden.
    ///
    /// The text reads back as a configuration file with the same effect but for what is hidden.
    pub fn to_toml(&self) -> String {
        print::print(self)
    }
}

/// `docs/config.md`: every key with its meaning, in Markdown.
pub fn documentation() -> String {
    docs::page()
}

/// The environment variables that set a key, the strongest first; none for what is no key.
pub(crate) fn variables_of(path: &str) -> Vec<String> {
    let key = keys::KEYS.iter().find(|key| key.path() == path);
    key.map(keys::Key::variables).unwrap_or_default()
}

#[cfg(test)]
mod tests;
