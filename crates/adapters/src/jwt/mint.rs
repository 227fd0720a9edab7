//! Makes tokens for trying things out: `tidewire token`.
//!
//! A minted token is signed with the shared secret of the same settings that check it, and says
//! what those settings ask for, so that it is accepted by the server it was made for.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};
use thiserror::Error;
use tidewire::protocol::Token;

use super::claim_path;
use super::key::{KeyError, secret_bytes};
use super::settings::JwtSettings;
use crate::rights::Rights;

/// How long a minted token lives by default: a working day's trial, not a credential to keep.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);

/// What a token is to say.
#[derive(Clone, Debug)]
pub struct Mint {
    /// Whom it names (`sub`). Default: nobody.
    pub subject: Option<String>,
    /// The bearer's role, put where the settings look for it. Default: none.
    pub role: Option<String>,
    /// The bearer's grants, put where the settings look for them. Default: none.
    pub rights: Option<Rights>,
    /// How long it lives. Default: one hour.
    pub ttl: Duration,
}

impl Default for Mint {
    fn default() -> Self {
        Self { subject: None, role: None, rights: None, ttl: DEFAULT_TTL }
    }
}

/// Why no token could be made.
#[derive(Debug, Error)]
pub enum MintError {
    /// There is nothing to sign with.
    #[error("tokens are signed with auth.jwt.secret, which is not set")]
    NoSecret,
    /// The secret cannot be used.
    #[error("auth.jwt.secret cannot be used")]
    Secret(#[source] KeyError),
    /// The cryptography library failed.
    #[error("the token cannot be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// Makes a token, signed with HS256 at the time `now` in seconds since 1970.
///
/// Audience and issuer are the first ones that the settings accept.
///
/// # Errors
/// [`MintError`] when the settings have no usable secret.
///
/// ```
/// use std::time::Duration;
///
/// use tidewire_adapters::JwtSettings;
/// use tidewire_adapters::jwt::{Mint, mint};
///
/// let settings = JwtSettings {
///     secret: Some("a secret of thirty-two bytes or more".into()),
///     ..JwtSettings::default()
/// };
/// let wanted = Mint { subject: Some("alice".to_owned()), ..Mint::default() };
/// let token = mint(&settings, &wanted, 1_800_000_000).unwrap();
/// assert_eq!(token.expose().split('.').count(), 3);
/// ```
pub fn mint(settings: &JwtSettings, wanted: &Mint, now: u64) -> Result<Token, MintError> {
    let secret = settings.secret.as_ref().ok_or(MintError::NoSecret)?;
    let secret = secret_bytes(secret.expose_secret()).map_err(MintError::Secret)?;
    let key = EncodingKey::from_secret(&secret);
    let header = Header::new(Algorithm::HS256);
    let token = encode(&header, &claims(settings, wanted, now), &key).map_err(MintError::Sign)?;
    Ok(Token::new(token))
}

fn claims(settings: &JwtSettings, wanted: &Mint, now: u64) -> Map<String, Value> {
    let mut claims = Map::new();
    for (name, text) in [
        ("iss", settings.issuer.first()),
        ("aud", settings.audience.first()),
        ("sub", wanted.subject.as_ref()),
    ] {
        if let Some(text) = text {
            claims.insert(name.to_owned(), text.clone().into());
        }
    }
    claims.insert("iat".to_owned(), now.into());
    claims.insert("exp".to_owned(), now.saturating_add(wanted.ttl.as_secs()).into());
    if let Some(role) = &wanted.role {
        claim_path::put(&mut claims, &settings.role_claim, role.clone().into());
    }
    if let Some(rights) = &wanted.rights {
        claim_path::put(&mut claims, &settings.grants_claim, rights.to_json());
    }
    claims
}
