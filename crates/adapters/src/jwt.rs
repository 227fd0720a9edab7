//! Tokens that are JSON Web Tokens (RFC 7519), signed as in RFC 7515.
//!
//! A token goes through three gates: `parts` takes it apart and believes nothing, `key` says
//! which algorithms a key is good for and whether one signed it, `claims` says whether it is
//! meant for this server now and what it says of its bearer. Keys come from the settings, from
//! files, and from a key server (`remote`) that is asked again when a token names a new key.
//!
//! The algorithm is a property of the key. A token's header only chooses among those its key
//! allows, so a public key is never used as a shared secret, and `none` is not an algorithm.

mod settings;

mod parts;

mod key;

mod key_set;

mod remote;

mod claims;

mod claim_path;

mod mint;

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use parking_lot::RwLock;
use tidewire::protocol::{Code, Refusal, Token};
use tidewire::{Authenticator, Identity};

use claims::Rules;
use key::Key;
use parts::Parts;
use remote::RemoteKeys;

pub use key::KeyError;
pub use key_set::KeySetError;
pub use mint::{Mint, MintError, mint};
pub use remote::UrlError;
pub use settings::{DEFAULT_LEEWAY, JwtError, JwtSettings};

/// Says what time it is, in seconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Knows the bearers of JSON Web Tokens.
///
/// Keys fetched from a URL are kept fresh by a task that ends when this is dropped.
pub struct JwtAuthenticator {
    checker: RwLock<Arc<Checker>>,
    clock: Clock,
}

impl fmt::Debug for JwtAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuthenticator").finish_non_exhaustive()
    }
}

impl JwtAuthenticator {
    /// Reads the keys that the settings name; with a JWKS URL, begins to fetch it.
    ///
    /// A key server that is down is no error: tokens are refused as `Unavailable` until it
    /// answers. Must be called inside a tokio runtime when the settings have a JWKS URL.
    ///
    /// # Errors
    /// [`JwtError`] when no key is configured, or one cannot be read or used.
    pub fn new(settings: &JwtSettings) -> Result<Self, JwtError> {
        Self::with_clock(settings, Arc::new(now))
    }

    /// The same with a clock of the caller's; see [`JwtAuthenticator::new`] for errors.
    pub fn with_clock(settings: &JwtSettings, clock: Clock) -> Result<Self, JwtError> {
        let checker = Checker::new(settings, None)?;
        Ok(Self { checker: RwLock::new(Arc::new(checker)), clock })
    }

    /// Reads settings and files again and exchanges everything at once.
    ///
    /// Keys fetched from a URL are kept when the URL stays the same. On an error all stays as it
    /// was. Identities given out before are not taken back.
    ///
    /// # Errors
    /// As [`JwtAuthenticator::new`].
    pub fn reload(&self, settings: &JwtSettings) -> Result<(), JwtError> {
        let before = Arc::clone(&self.checker.read());
        let checker = Checker::new(settings, before.remote.as_ref())?;
        *self.checker.write() = Arc::new(checker);
        Ok(())
    }

    /// Whether tokens can be checked: false while the key server has not answered even once.
    pub fn is_ready(&self) -> bool {
        let checker = Arc::clone(&self.checker.read());
        checker.remote.as_ref().is_none_or(|remote| remote.status().keys.is_some())
    }
}

#[async_trait]
impl Authenticator for JwtAuthenticator {
    async fn identify(&self, token: &Token) -> Result<Identity, Refusal> {
        crate::authenticators::check_size(token)?;
        let parts = Parts::of(token.expose())?;
        let checker = Arc::clone(&self.checker.read());
        checker.check_signature(&parts).await?;
        checker.rules.identity(parts.claims()?, (self.clock)())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Everything that one set of settings asks for.
struct Checker {
    local: Vec<Key>,
    remote: Option<Arc<RemoteKeys>>,
    rules: Rules,
}

/// What a set of keys says of a token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// No key is the one the token names, or could have signed it.
    UnknownKey,
    /// The key is there, for other algorithms.
    WrongAlgorithm,
    /// The key is there and did not sign this.
    BadSignature,
    /// Signed by a key.
    Good,
}

impl Checker {
    fn new(settings: &JwtSettings, before: Option<&Arc<RemoteKeys>>) -> Result<Self, JwtError> {
        let local = settings.local_keys()?;
        let remote = settings.remote_keys(before)?;
        if local.is_empty() && remote.is_none() {
            return Err(JwtError::NoKeys);
        }
        Ok(Self { local, remote, rules: Rules::new(settings) })
    }

    async fn check_signature(&self, token: &Parts<'_>) -> Result<(), Refusal> {
        let verdict = self.verdict(token);
        let Some(remote) = self.remote.as_ref().filter(|_| may_be_remote(verdict, token)) else {
            return answer(verdict);
        };
        if token.key_id.is_some() && !is_missing(remote, token) {
            return answer(verdict);
        }
        // Without a name there is no telling whether the key is a new one; asking is rationed.
        remote.refresh().await;
        let verdict = self.verdict(token);
        if verdict != Verdict::Good && remote.is_down() && is_missing(remote, token) {
            let message = "the keys to check tokens with cannot be fetched at the moment";
            return Err(Refusal::new(Code::Unavailable, message));
        }
        answer(verdict)
    }

    fn verdict(&self, token: &Parts<'_>) -> Verdict {
        let fetched = self.remote.as_ref().and_then(|remote| remote.status().keys);
        let keys = self.local.iter().chain(fetched.iter().flat_map(|keys| keys.iter()));
        let mut verdict = Verdict::UnknownKey;
        for key in keys {
            verdict = verdict.max(judge(key, token));
            if verdict == Verdict::Good {
                break;
            }
        }
        verdict
    }
}

fn judge(key: &Key, token: &Parts<'_>) -> Verdict {
    let is_named = token.key_id.is_some() && key.id.as_deref() == token.key_id.as_deref();
    // A key without a name may have signed anything, also what names a key of another's.
    if token.key_id.is_some() && key.id.is_some() && !is_named {
        return Verdict::UnknownKey;
    }
    if !key.is_for(token.algorithm) {
        let is_meant = is_named || token.key_id.is_none();
        return if is_meant { Verdict::WrongAlgorithm } else { Verdict::UnknownKey };
    }
    if key.has_signed(token) { Verdict::Good } else { Verdict::BadSignature }
}

/// Whether a key server could have another opinion; it never hands out shared secrets.
fn may_be_remote(verdict: Verdict, token: &Parts<'_>) -> bool {
    verdict != Verdict::Good && token.algorithm.family() != AlgorithmFamily::Hmac
}

/// Whether nothing was fetched yet, or no key of the name that the token gives.
fn is_missing(remote: &RemoteKeys, token: &Parts<'_>) -> bool {
    let Some(keys) = remote.status().keys else {
        return true;
    };
    let name = token.key_id.as_deref();
    name.is_some() && !keys.iter().any(|key| key.id.as_deref() == name)
}

fn answer(verdict: Verdict) -> Result<(), Refusal> {
    let message = match verdict {
        Verdict::Good => return Ok(()),
        Verdict::UnknownKey => "the token is signed with a key that is not known here",
        Verdict::WrongAlgorithm => "the token's algorithm is not one that its key is for",
        Verdict::BadSignature => "the token's signature is wrong",
    };
    Err(Refusal::new(Code::TokenInvalid, message))
}

/// Reads an algorithm's name; `Ed25519` is the name that RFC 9864 gives to `EdDSA` on that curve.
fn algorithm(name: &str) -> Option<Algorithm> {
    if name == "Ed25519" { Some(Algorithm::EdDSA) } else { name.parse().ok() }
}
