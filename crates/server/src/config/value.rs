//! Kinds of values and how each is read, compared and written.
//!
//! A value arrives as text (flag, variable) or as a piece of a file, is read once by its key's
//! [`Kind`] and is typed from then on. A value that does not fit is refused here with what would
//! fit; whether values fit *each other* is the business of `check`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value as Json;
use subtle::ConstantTimeEq;
use tracing_subscriber::EnvFilter;

use super::keys::Key;
use super::postgres_url::PostgresUrl;
use super::units::{parse_duration, parse_size, print_duration, print_size};
use super::values::Values;
use super::web_url::without_credentials;

/// What may be written for a key.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// `true` or `false`.
    Switch,
    /// A whole number between two bounds, both allowed.
    Number(u64, u64),
    /// A length of time between two bounds in milliseconds, both allowed.
    Time(u64, u64),
    /// An amount of bytes between two bounds, both allowed.
    Size(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of texts; separated by commas in flags and variables, or there as JSON too.
    Texts,
    /// A list of addresses with ports; separated by commas in flags and variables.
    Addresses,
    /// The path of a file; in a configuration file it is relative to that file.
    File,
    /// A log filter such as `info` or `tidewire=debug,info`.
    Filter,
    /// The name of an SQL function, with or without its schema.
    Function,
    /// An address that begins with `https://` or `http://`.
    Web,
    /// Text that is never printed.
    Secret,
    /// A PostgreSQL connection string, printed without its password.
    PostgresUrl,
    /// A list of tables with these keys; JSON in flags and variables.
    Records(&'static [Key]),
}

/// A value that fits its kind.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Switch(bool),
    Number(u64),
    Time(Duration),
    Size(u64),
    Texts(Vec<String>),
    Addresses(Vec<SocketAddr>),
    File(PathBuf),
    Secret(SecretString),
    PostgresUrl(PostgresUrl),
    Records(Vec<Values>),
}

impl Kind {
    /// Reads what was written in a flag, a variable or the table of defaults.
    ///
    /// # Errors
    /// What would have fitted, in words.
    pub(super) fn read_text(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Text => Ok(Value::Text(text.to_owned())),
            Self::Switch => read_switch(text).map(Value::Switch),
            Self::Number(min, max) => {
                let number = text.trim().parse().map_err(|_| self.not_this(text))?;
                within(number, min, max, |n| n.to_string()).map(Value::Number)
            }
            Self::Time(min, max) => {
                let time = parse_duration(text).ok_or_else(|| self.not_this(text))?;
                let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                within(millis, min, max, print_millis).map(|_| Value::Time(time))
            }
            Self::Size(min, max) => {
                let size = parse_size(text).ok_or_else(|| self.not_this(text))?;
                within(size, min, max, print_size).map(Value::Size)
            }
            Self::Word(words) => words
                .contains(&text)
                .then(|| Value::Text(text.to_owned()))
                .ok_or_else(|| self.not_this(text)),
            Self::Texts => Ok(Value::Texts(split_list(text))),
            Self::Addresses => read_addresses(&split_list(text)),
            Self::File => Ok(Value::File(PathBuf::from(text))),
            Self::Filter => match EnvFilter::try_new(text) {
                Ok(_) => Ok(Value::Text(text.to_owned())),
                Err(_) => Err(self.not_this(text)),
            },
            Self::Function => match is_function(text) {
                true => Ok(Value::Text(text.to_owned())),
                false => Err(self.not_this(text)),
            },
            Self::Web => match text.starts_with("https://") || text.starts_with("http://") {
                true => Ok(Value::Text(text.to_owned())),
                // It is not repeated: it may hold a password.
                false => Err(format!("not {}", self.expected())),
            },
            Self::Secret => Ok(Value::Secret(text.into())),
            Self::PostgresUrl => PostgresUrl::parse(text).map(Value::PostgresUrl),
            Self::Records(_) => Err(format!("expected {}", self.expected())),
        }
    }

    /// Reads what was written in a file; lists of tables are not read here.
    ///
    /// # Errors
    /// What would have fitted, in words.
    pub(super) fn read_json(self, json: &Json) -> Result<Value, String> {
        match (self, json) {
            (_, Json::String(text)) => self.read_text(text),
            (Self::Switch, Json::Bool(on)) => Ok(Value::Switch(*on)),
            (Self::Number(..) | Self::Size(..), Json::Number(number)) => {
                self.read_text(&number.to_string())
            }
            (Self::Texts, Json::Array(items)) => texts(items).map(Value::Texts),
            (Self::Addresses, Json::Array(items)) => read_addresses(&texts(items)?),
            // What is secret is not repeated, not even when it is a number by mistake.
            _ => Err(format!("expected {}, found {}", self.expected(), sort_of(json))),
        }
    }

    /// What fits, with an example: completes the sentence "expected …".
    pub(super) fn expected(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Number(min, max) => format!("a whole number from {min} to {}", at_most(max)),
            Self::Time(..) => "a length of time with its unit, such as 10s, 5m or 1h30m".to_owned(),
            Self::Size(..) => "an amount of bytes, such as 4096, 64KiB or 1MB".to_owned(),
            Self::Word(words) => format!("one of {}", words.join(", ")),
            Self::Texts => "a list of texts".to_owned(),
            Self::Addresses => "an address with its port, such as 127.0.0.1:8080".to_owned(),
            Self::File => "the path of a file".to_owned(),
            Self::Filter => "a log filter such as info or tidewire=debug,info".to_owned(),
            Self::Function => {
                "the plain name of an SQL function, such as authenticate or app.authenticate"
                    .to_owned()
            }
            Self::Web => "an address that begins with https:// or http://".to_owned(),
            Self::Secret => "text".to_owned(),
            Self::PostgresUrl => {
                "a connection string such as postgresql://user@localhost/database".to_owned()
            }
            Self::Records(_) => "a list of tables".to_owned(),
        }
    }

    /// A value of this kind as TOML, without what is secret.
    pub(super) fn shown(self, value: &Value) -> String {
        match (self, value) {
            (Self::Web, Value::Text(url)) => quoted(&without_credentials(url)),
            _ => value.to_string(),
        }
    }

    /// Whether something secret is left out of what is shown.
    pub(super) fn is_cut(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Secret(_)) => true,
            (_, Value::PostgresUrl(url)) => url.to_string() != url.expose(),
            (Self::Web, Value::Text(url)) => without_credentials(url) != *url,
            _ => false,
        }
    }

    fn not_this(self, text: &str) -> String {
        format!("{text:?} does not fit, expected {}", self.expected())
    }
}

fn read_switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Kind::Switch.not_this(text)),
    }
}

fn within(amount: u64, min: u64, max: u64, print: impl Fn(u64) -> String) -> Result<u64, String> {
    if amount < min {
        return Err(format!("{} is too little, the least is {}", print(amount), print(min)));
    }
    if amount > max {
        return Err(format!("{} is too much, the most is {}", print(amount), print(max)));
    }
    Ok(amount)
}

/// A list as JSON or, as people mostly write it, with commas between.
fn split_list(text: &str) -> Vec<String> {
    // What only looks like JSON is a name that begins with a bracket.
    if text.trim_start().starts_with('[')
        && let Ok(items) = serde_json::from_str(text)
    {
        return items;
    }
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn texts(items: &[Json]) -> Result<Vec<String>, String> {
    items
        .iter()
        .map(|item| match item {
            Json::String(text) => Ok(text.clone()),
            other => Err(format!("expected a list of texts, found {} in it", sort_of(other))),
        })
        .collect()
}

fn read_addresses(items: &[String]) -> Result<Value, String> {
    let mut addresses = Vec::with_capacity(items.len());
    for item in items {
        let address = read_address(item).ok_or_else(|| Kind::Addresses.not_this(item))?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(Value::Addresses(addresses))
}

/// Names other than `localhost` are not looked up: what is listened on must not depend on DNS.
fn read_address(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?));
    }
    text.parse().ok()
}

/// One or two plain identifiers: what may be put into SQL without quotes.
fn is_function(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() <= 2 && parts.iter().all(|part| is_identifier(part))
}

fn is_identifier(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let goes_on = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    begins && goes_on && text.len() <= tidewire_protocol::topic::MAX_CHANNEL_BYTES
}

fn sort_of(json: &Json) -> &'static str {
    match json {
        Json::Null => "nothing",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "text",
        Json::Array(_) => "a list",
        Json::Object(_) => "a table",
    }
}

fn at_most(max: u64) -> String {
    if max == u64::MAX { "any".to_owned() } else { max.to_string() }
}

pub(super) fn print_millis(millis: u64) -> String {
    print_duration(Duration::from_millis(millis))
}

/// Equal in effect; secrets are compared in constant time.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Switch(a), Self::Switch(b)) => a == b,
            (Self::Number(a), Self::Number(b)) | (Self::Size(a), Self::Size(b)) => a == b,
            (Self::Time(a), Self::Time(b)) => a == b,
            (Self::Texts(a), Self::Texts(b)) => a == b,
            (Self::Addresses(a), Self::Addresses(b)) => a == b,
            (Self::File(a), Self::File(b)) => a == b,
            (Self::Secret(a), Self::Secret(b)) => {
                a.expose_secret().as_bytes().ct_eq(b.expose_secret().as_bytes()).into()
            }
            (Self::PostgresUrl(a), Self::PostgresUrl(b)) => a == b,
            (Self::Records(a), Self::Records(b)) => a == b,
            _ => false,
        }
    }
}

/// The value as TOML, without what is secret.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{}", quoted(text)),
            Self::Switch(on) => write!(f, "{on}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Time(time) => write!(f, "{}", quoted(&print_duration(*time))),
            Self::Size(bytes) => write!(f, "{}", quoted(&print_size(*bytes))),
            Self::Texts(items) => write_list(f, items),
            Self::Addresses(addresses) => write_list(f, addresses),
            Self::File(path) => write!(f, "{}", quoted(&path.to_string_lossy())),
            Self::Secret(_) => f.write_str("\"(hidden)\""),
            Self::PostgresUrl(url) => write!(f, "{}", quoted(&url.to_string())),
            Self::Records(records) => write_records(f, records),
        }
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn write_list(f: &mut fmt::Formatter<'_>, items: &[impl ToString]) -> fmt::Result {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    write!(f, "[{}]", items.join(", "))
}

fn write_records(f: &mut fmt::Formatter<'_>, records: &[Values]) -> fmt::Result {
    if records.is_empty() {
        return f.write_str("[]");
    }
    f.write_str("[\n")?;
    for record in records {
        let fields: Vec<String> =
            record.written().map(|(path, entry)| format!("{path} = {}", entry.value)).collect();
        writeln!(f, "  {{ {} }},", fields.join(", "))?;
    }
    f.write_str("]")
}
