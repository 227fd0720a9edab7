//! Which keys are trusted and what tokens must say.
//!
//! The names of the fields are those of `auth.jwt.*` in the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

use super::key::{Key, KeyError, Place, secret_bytes};
use super::key_set::{self, KeySetError};
use super::remote::{Cadence, RemoteKeys, Removals, UrlError, check_url};

/// How far the clocks of issuer and server may be apart by default.
///
/// Machines that keep time by NTP differ by far less than a second; five cover a token that is
/// used in the second it was made, on a machine that has just come up. More would let tokens live
/// longer than their issuer said.
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(5);

/// Shortest time between two requests to the key server that clients can cause, by default.
///
/// Anyone can make up a key's name; this keeps that from becoming load for the key server, and a
/// client with a truly new key waits half a minute at worst.
const DEFAULT_COOLDOWN: Duration = Duration::from_secs(30);

/// Time after which keys are fetched again unless the key server says otherwise.
///
/// Bounds how long a key that was taken back is believed.
const DEFAULT_REFRESH: Duration = Duration::from_secs(600);

/// Shortest secret, in bytes, that resists guessing as well as HMAC-SHA-256 does (RFC 7518,
/// section 3.2).
const STRONG_SECRET_BYTES: usize = 32;

/// Which keys are trusted and what tokens must say. All sources of keys that are set are used.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    /// Shared secret for HS256, HS384 and HS512: its text, or `base64:` and the bytes in base64.
    /// Default: none.
    pub secret: Option<SecretString>,
    /// One or several public keys as PEM text. Default: none.
    pub public_key: Option<String>,
    /// A file with one or several public keys in PEM. Default: none.
    pub public_key_file: Option<PathBuf>,
    /// A file with a JSON Web Key Set. Default: none.
    pub jwks_file: Option<PathBuf>,
    /// Where a key server publishes a JSON Web Key Set; https, or http on this machine.
    /// Default: none.
    pub jwks_url: Option<String>,
    /// Tokens must be meant for one of these (`aud`). Default: empty, `aud` is not looked at.
    pub audience: Vec<String>,
    /// Tokens must be from one of these (`iss`). Default: empty, `iss` is not looked at.
    pub issuer: Vec<String>,
    /// The claim with the bearer's role; dots lead into objects. Default: `role`.
    pub role_claim: String,
    /// The claim with the bearer's grants; dots lead into objects. Default: `tidewire`.
    pub grants_claim: String,
    /// How far the clocks of issuer and server may be apart, in whole seconds.
    /// Default: [`DEFAULT_LEEWAY`].
    pub leeway: Duration,
    /// Whether a token must say when it runs out (`exp`). Default: true.
    pub require_exp: bool,
    /// Shortest time between two fetches from `jwks_url` that unknown keys cause.
    /// Default: 30 seconds.
    pub jwks_cooldown: Duration,
    /// Time after which keys are fetched from `jwks_url` again when the answer has no `max-age`.
    /// Default: 10 minutes.
    pub jwks_refresh: Duration,
}

impl Default for JwtSettings {
    fn default() -> Self {
        Self {
            secret: None,
            public_key: None,
            public_key_file: None,
            jwks_file: None,
            jwks_url: None,
            audience: Vec::new(),
            issuer: Vec::new(),
            role_claim: "role".to_owned(),
            grants_claim: "tidewire".to_owned(),
            leeway: DEFAULT_LEEWAY,
            require_exp: true,
            jwks_cooldown: DEFAULT_COOLDOWN,
            jwks_refresh: DEFAULT_REFRESH,
        }
    }
}

/// Why tokens cannot be checked as configured.
#[derive(Debug, Error)]
pub enum JwtError {
    /// There is no key of any sort.
    #[error(
        "no key to check tokens with: set one of auth.jwt.secret, auth.jwt.public_key_file, \
         auth.jwt.jwks_file, auth.jwt.jwks_url"
    )]
    NoKeys,
    /// The secret cannot be used.
    #[error("auth.jwt.secret cannot be used")]
    Secret(#[source] KeyError),
    /// The PEM text cannot be used.
    #[error("auth.jwt.public_key cannot be used")]
    PublicKey(#[source] KeyError),
    /// A PEM file cannot be used.
    #[error("auth.jwt.public_key_file {} cannot be used", .path.display())]
    PublicKeyFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// A key set file cannot be used.
    #[error("auth.jwt.jwks_file {} cannot be used", .path.display())]
    JwksFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: KeySetError,
    },
    /// A file cannot be read.
    #[error("cannot read {} named by {setting}", .path.display())]
    Read {
        /// The setting that names it.
        setting: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The URL of a key set cannot be used.
    #[error("auth.jwt.jwks_url cannot be used")]
    JwksUrl(#[source] UrlError),
}

impl JwtSettings {
    /// All keys that are at hand.
    pub(super) fn local_keys(&self) -> Result<Vec<Key>, JwtError> {
        let mut keys = Vec::new();
        if let Some(secret) = &self.secret {
            warn_of_a_weak_secret(secret.expose_secret());
            keys.push(Key::from_secret(secret.expose_secret()).map_err(JwtError::Secret)?);
        }
        if let Some(pem) = &self.public_key {
            keys.extend(Key::from_pem(pem).map_err(JwtError::PublicKey)?);
        }
        if let Some(path) = &self.public_key_file {
            keys.extend(pem_file(path)?);
        }
        if let Some(path) = &self.jwks_file {
            keys.extend(jwks_file(path)?);
        }
        Ok(keys)
    }

    /// The keys of `jwks_url`; those fetched before when the URL is the same.
    pub(super) fn remote_keys(
        &self,
        before: Option<&Arc<RemoteKeys>>,
        removals: &Removals,
    ) -> Result<Option<Arc<RemoteKeys>>, JwtError> {
        let Some(url) = &self.jwks_url else {
            return Ok(None);
        };
        check_url(url).map_err(JwtError::JwksUrl)?;
        let cadence = Cadence { cooldown: self.jwks_cooldown, refresh: self.jwks_refresh };
        if let Some(same) = before.filter(|before| before.is_of(url, cadence)) {
            return Ok(Some(Arc::clone(same)));
        }
        let keys = RemoteKeys::new(url, cadence, removals.clone()).map_err(JwtError::JwksUrl)?;
        Ok(Some(Arc::new(keys)))
    }
}

fn warn_of_a_weak_secret(secret: &str) {
    let Ok(bytes) = secret_bytes(secret).map(|bytes| bytes.len()) else { return };
    if bytes < STRONG_SECRET_BYTES {
        tracing::warn!(
            bytes,
            "auth.jwt.secret is shorter than {STRONG_SECRET_BYTES} bytes and can be guessed from \
             any token: make a longer one with `openssl rand -base64 48`"
        );
    }
}

fn pem_file(path: &Path) -> Result<Vec<Key>, JwtError> {
    let bytes = read("auth.jwt.public_key_file", path)?;
    Key::from_pem(&String::from_utf8_lossy(&bytes))
        .map_err(|source| JwtError::PublicKeyFile { path: path.to_owned(), source })
}

fn jwks_file(path: &Path) -> Result<Vec<Key>, JwtError> {
    let bytes = read("auth.jwt.jwks_file", path)?;
    key_set::parse(&bytes, Place::File)
        .map_err(|source| JwtError::JwksFile { path: path.to_owned(), source })
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, JwtError> {
    std::fs::read(path).map_err(|source| JwtError::Read { setting, path: path.to_owned(), source })
}
