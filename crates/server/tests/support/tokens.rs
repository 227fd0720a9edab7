//! Tokens for a server that knows one secret.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tidewire_adapters::jwt::{Mint, mint};
use tidewire_adapters::{JwtSettings, Rights};

/// The secret of the servers in tests.
pub(crate) const SECRET: &str = "a secret for tests, thirty-two bytes or more";

/// A token that names somebody, good for an hour.
pub(crate) fn token(subject: &str) -> String {
    jwt(SECRET, &Mint { subject: Some(subject.to_owned()), ..Mint::default() })
}

/// Any token.
pub(crate) fn jwt(secret: &str, wanted: &Mint) -> String {
    let settings = JwtSettings { secret: Some(secret.into()), ..JwtSettings::default() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    mint(&settings, wanted, now).expect("a good secret").expose().to_owned()
}

/// A token with rights of its own, as the claim has them.
pub(crate) fn granted(subject: &str, rights: &Value) -> String {
    let rights = Some(Rights::from_json(rights).expect("good rights"));
    jwt(SECRET, &Mint { subject: Some(subject.to_owned()), rights, ..Mint::default() })
}

/// A token that runs out after so many seconds.
pub(crate) fn short_lived(subject: &str, seconds: u64) -> String {
    let ttl = Duration::from_secs(seconds);
    jwt(SECRET, &Mint { subject: Some(subject.to_owned()), ttl, ..Mint::default() })
}
