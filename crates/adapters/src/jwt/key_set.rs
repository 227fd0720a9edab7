//! A set of keys as it is published (RFC 7517, section 5).
//!
//! Keys that are of no use here, such as those for encryption, are passed over, as the standard
//! asks; a set without a single usable key is an error that says what each of them was.

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use tidewire::protocol::FromObject;

use super::key::{Jwk, Key, Place};

/// Most keys in a set.
///
/// Each may have to be tried for a token that names none; providers publish two to a dozen.
const MAX_KEYS: usize = 100;

/// Largest document, in bytes: a hundred RSA keys of 4096 bits with their certificates fit.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// Why a document is not a set of keys.
#[derive(Debug, Error)]
pub enum KeySetError {
    /// Not JSON, or without a list `keys`.
    #[error("not a JSON object with a list \"keys\"")]
    NotASet(#[source] serde_json::Error),
    /// More keys than are looked at.
    #[error("{0} keys, more than the {MAX_KEYS} that are read")]
    TooMany(usize),
    /// Nothing to verify a signature with.
    #[error("no key in it that can verify a signature{0}")]
    NoneUsable(String),
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// Reads all usable keys of a document.
pub(super) fn parse(document: &[u8], place: Place) -> Result<Vec<Key>, KeySetError> {
    let FromObject(document): FromObject<Document> =
        serde_json::from_slice(document).map_err(KeySetError::NotASet)?;
    if document.keys.len() > MAX_KEYS {
        return Err(KeySetError::TooMany(document.keys.len()));
    }
    let mut keys = Vec::new();
    let mut passed_over = String::new();
    for (index, value) in document.keys.into_iter().enumerate() {
        match read(value, place) {
            Ok(key) => keys.push(key),
            Err(reason) => {
                tracing::debug!(key = index, reason, "passing over a key of the set");
                passed_over.push_str(&format!("; key {index}: {reason}"));
            }
        }
    }
    if keys.is_empty() { Err(KeySetError::NoneUsable(passed_over)) } else { Ok(keys) }
}

fn read(value: Value, place: Place) -> Result<Key, String> {
    let FromObject(jwk): FromObject<Jwk> =
        serde_json::from_value(value).map_err(|_| "not a JWK".to_owned())?;
    Key::from_jwk(&jwk, place).map_err(|error| error.to_string())
}
