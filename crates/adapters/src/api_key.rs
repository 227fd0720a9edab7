//! Keys for programs that publish: long random texts of which the server keeps only a hash.
//!
//! A key is `twk_` and 32 random bytes in base64url. With 256 random bits there is nothing to
//! guess, so one plain SHA-256 is enough to keep a leaked configuration from giving the key away;
//! slow password hashes exist for texts that people choose, and here they would only make each
//! request dear.
//!
//! The subject of a key's bearer is `key:` and the name of the key.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tidewire::protocol::{Code, Refusal, Token};
use tidewire::{Authenticator, Credential, Identity};

use crate::rights::Rights;

/// What every key begins with, so that people and secret scanners know one when they see it.
pub const PREFIX: &str = "twk_";

/// What the subject of a key's bearer begins with, before the name of the key.
pub(crate) const SUBJECT: &str = "key:";

/// Random bytes in a key: as many as the hash has, so that the hash is no easier to meet.
const RANDOM_BYTES: usize = 32;

/// What a written hash begins with; leaves room for another function later.
const HASH_PREFIX: &str = "sha256:";

type Hash = [u8; 32];

/// One key as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// What the key is called in logs and as a subject; unique, not empty.
    pub name: String,
    /// `sha256:` and the hash in hexadecimal, as [`generate`] returns it.
    pub hash: String,
    /// What the bearer may do beside what the namespaces give to anyone with a token.
    pub rights: Option<Rights>,
}

/// Why a key cannot be used as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// The name is empty.
    #[error("an API key without a name: give each entry of auth.keys a name")]
    NoName,
    /// Two keys have one name.
    #[error("two API keys are named {0:?}: names in auth.keys must differ")]
    Repeated(String),
    /// The hash is not one.
    #[error(
        "the hash of API key {0:?} is not \"sha256:\" and 64 hexadecimal digits: \
         make a key and its hash with `tidewire key new`"
    )]
    BadHash(String),
}

/// Makes a new key; returns it and the hash to configure.
///
/// The key itself is kept nowhere: whoever asked for it sees it once.
///
/// # Errors
/// When the operating system has no random bytes to give.
pub fn generate() -> Result<(Token, String), getrandom::Error> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random)?;
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let hash = written_hash(&key);
    Ok((Token::new(key), hash))
}

/// The hash of a key as it is to be configured.
pub fn written_hash(key: &str) -> String {
    format!("{HASH_PREFIX}{:x}", Sha256::digest(key))
}

/// Knows the bearers of API keys.
#[derive(Debug)]
pub struct ApiKeys {
    known: RwLock<Arc<[Known]>>,
}

#[derive(Debug)]
struct Known {
    hash: Hash,
    identity: Identity,
}

impl ApiKeys {
    /// Reads configured keys.
    ///
    /// # Errors
    /// [`ApiKeyError`] names the first key that cannot be used.
    pub fn new(keys: impl IntoIterator<Item = ApiKey>) -> Result<Self, ApiKeyError> {
        Ok(Self { known: RwLock::new(read(keys)?) })
    }

    /// Exchanges all keys at once; on an error the old ones stay.
    ///
    /// # Errors
    /// As [`ApiKeys::new`].
    pub fn reload(&self, keys: impl IntoIterator<Item = ApiKey>) -> Result<(), ApiKeyError> {
        *self.known.write() = read(keys)?;
        Ok(())
    }
}

#[async_trait]
impl Authenticator for ApiKeys {
    async fn identify(&self, token: &Token) -> Result<Identity, Refusal> {
        crate::authenticators::check_size(token)?;
        let known = Arc::clone(&self.known.read());
        find(&known, &Sha256::digest(token.expose()).into()).ok_or_else(unknown)
    }

    fn review(&self, identity: &Identity) -> Result<Identity, Refusal> {
        let Some(Credential::Key(hash)) = &identity.credential else { return Ok(identity.clone()) };
        find(&Arc::clone(&self.known.read()), hash).ok_or_else(unknown)
    }
}

fn unknown() -> Refusal {
    Refusal::new(Code::TokenInvalid, "this API key is not known here")
}

/// Compares with every known hash, each in constant time, so that the time taken tells neither
/// how much of a hash was right nor which key it was.
fn find(known: &[Known], hash: &Hash) -> Option<Identity> {
    let mut found = None;
    for candidate in known {
        if bool::from(candidate.hash.ct_eq(hash)) {
            found = Some(candidate);
        }
    }
    found.map(|known| known.identity.clone())
}

fn read(keys: impl IntoIterator<Item = ApiKey>) -> Result<Arc<[Known]>, ApiKeyError> {
    let mut names = std::collections::HashSet::new();
    keys.into_iter()
        .map(|key| {
            if key.name.is_empty() {
                return Err(ApiKeyError::NoName);
            }
            let hash =
                read_hash(&key.hash).ok_or_else(|| ApiKeyError::BadHash(key.name.clone()))?;
            if !names.insert(key.name.clone()) {
                return Err(ApiKeyError::Repeated(key.name));
            }
            Ok(Known { hash, identity: bearer(&key.name, hash, key.rights) })
        })
        .collect()
}

fn bearer(name: &str, hash: Hash, rights: Option<Rights>) -> Identity {
    let (subject, credential) =
        (Some(format!("{SUBJECT}{name}").into()), Some(Credential::Key(hash)));
    let identity = Identity { subject, credential, ..Identity::default() };
    match rights {
        Some(rights) => rights.given_to(identity),
        None => identity,
    }
}

fn read_hash(written: &str) -> Option<Hash> {
    let digits = written.strip_prefix(HASH_PREFIX)?;
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = Hash::default();
    for (byte, digits) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(hash)
}
