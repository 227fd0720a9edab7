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
use serde_json::Value;
use tidewire::protocol::{Code, Refusal, Token};
use tidewire::{Authenticator, Credential, Identity, Signature};
use tokio::sync::watch;

use claims::Rules;
use key::Key;
use parts::Parts;
use remote::{RemoteKeys, Removals};

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
    removals: Removals,
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
        let removals = Removals::default();
        let checker = Checker::new(settings, None, &removals)?;
        Ok(Self { checker: RwLock::new(Arc::new(checker)), clock, removals })
    }

    /// Reads settings and files again and exchanges everything at once.
    ///
    /// Keys fetched from a URL are kept when the URL stays the same. On an error all stays as it
    /// was. Identities given out before are judged anew by [`Authenticator::review`].
    ///
    /// # Errors
    /// As [`JwtAuthenticator::new`].
    pub fn reload(&self, settings: &JwtSettings) -> Result<(), JwtError> {
        let before = Arc::clone(&self.checker.read());
        let checker = Checker::new(settings, before.remote.as_ref(), &self.removals)?;
        *self.checker.write() = Arc::new(checker);
        Ok(())
    }

    /// Forgets all keys, so that no token is good any more.
    pub fn clear(&self) {
        let mut checker = self.checker.write();
        let rules = checker.rules.clone();
        *checker = Arc::new(Checker { local: Vec::new(), remote: None, rules });
    }

    /// Yields each time that a key server no longer publishes a key, or publishes its first; then
    /// it is time to review who was let in before.
    pub fn removals(&self) -> watch::Receiver<u64> {
        self.removals.subscribe()
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
        let signature = checker.check_signature(&parts).await?;
        let identity = checker.rules.identity(parts.claims()?, (self.clock)())?;
        Ok(Identity { credential: Some(Credential::Signature(Arc::new(signature))), ..identity })
    }

    fn review(&self, identity: &Identity) -> Result<Identity, Refusal> {
        let Some(Credential::Signature(signature)) = &identity.credential else {
            return Ok(identity.clone());
        };
        let checker = Arc::clone(&self.checker.read());
        if !checker.may_have_made(signature) {
            return Err(refusal(Verdict::UnknownKey));
        }
        let claims = identity.claims.as_deref().and_then(Value::as_object).cloned();
        let judged = checker.rules.identity(claims.unwrap_or_default(), (self.clock)())?;
        Ok(Identity { credential: identity.credential.clone(), ..judged })
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

/// Why a set of keys does not take a token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// No key is the one the token names, or could have signed it.
    UnknownKey,
    /// The key is there, for other algorithms.
    WrongAlgorithm,
    /// The key is there and did not sign this.
    BadSignature,
}

impl Checker {
    fn new(
        settings: &JwtSettings,
        before: Option<&Arc<RemoteKeys>>,
        removals: &Removals,
    ) -> Result<Self, JwtError> {
        let local = settings.local_keys()?;
        let remote = settings.remote_keys(before, removals)?;
        if local.is_empty() && remote.is_none() {
            return Err(JwtError::NoKeys);
        }
        Ok(Self { local, remote, rules: Rules::new(settings) })
    }

    /// Finds the key that signed the token.
    async fn check_signature(&self, token: &Parts<'_>) -> Result<Signature, Refusal> {
        let verdict = match self.signer(token) {
            Ok(signature) => return Ok(signature),
            Err(verdict) => verdict,
        };
        // A key server never hands out shared secrets, so it has no other opinion of them.
        let asymmetric = token.algorithm.family() != AlgorithmFamily::Hmac;
        let Some(remote) = self.remote.as_ref().filter(|_| asymmetric) else {
            return Err(refusal(verdict));
        };
        if token.key_id.is_some() && !is_missing(remote, token) {
            return Err(refusal(verdict));
        }
        // Without a name there is no telling whether the key is a new one; asking is rationed.
        remote.refresh().await;
        self.signer(token).map_err(|verdict| {
            if remote.is_down() && is_missing(remote, token) {
                let message = "the keys to check tokens with cannot be fetched at the moment";
                return Refusal::new(Code::Unavailable, message);
            }
            refusal(verdict)
        })
    }

    fn signer(&self, token: &Parts<'_>) -> Result<Signature, Verdict> {
        let fetched = self.remote.as_ref().and_then(|remote| remote.status().keys);
        let keys = self.local.iter().chain(fetched.iter().flat_map(|keys| keys.iter()));
        let mut verdict = Verdict::UnknownKey;
        for key in keys {
            match judge(key, token) {
                Ok(()) => return Ok(key.signature(token)),
                Err(said) => verdict = verdict.max(said),
            }
        }
        Err(verdict)
    }

    /// Whether a token that was signed so would still be taken; while no keys were fetched from a
    /// key server, nobody knows that they are not there.
    fn may_have_made(&self, signature: &Signature) -> bool {
        let made = |keys: &[Key]| keys.iter().any(|key| key.has_made(signature));
        let fetched = self.remote.as_ref().map(|remote| remote.status().keys);
        made(&self.local) || fetched.is_some_and(|keys| keys.is_none_or(|keys| made(&keys)))
    }
}

fn judge(key: &Key, token: &Parts<'_>) -> Result<(), Verdict> {
    let is_named = token.key_id.is_some() && key.id.as_deref() == token.key_id.as_deref();
    // A key without a name may have signed anything, also what names a key of another's.
    if token.key_id.is_some() && key.id.is_some() && !is_named {
        return Err(Verdict::UnknownKey);
    }
    if !key.is_for(token.algorithm) {
        let is_meant = is_named || token.key_id.is_none();
        return Err(if is_meant { Verdict::WrongAlgorithm } else { Verdict::UnknownKey });
    }
    if key.has_signed(token) { Ok(()) } else { Err(Verdict::BadSignature) }
}

/// Whether nothing was fetched yet, or no key of the name that the token gives.
fn is_missing(remote: &RemoteKeys, token: &Parts<'_>) -> bool {
    let Some(keys) = remote.status().keys else {
        return true;
    };
    let name = token.key_id.as_deref();
    name.is_some() && !keys.iter().any(|key| key.id.as_deref() == name)
}

fn refusal(verdict: Verdict) -> Refusal {
    let message = match verdict {
        Verdict::UnknownKey => "the token is signed with a key that is not known here",
        Verdict::WrongAlgorithm => "the token's algorithm is not one that its key is for",
        Verdict::BadSignature => "the token's signature is wrong",
    };
    Refusal::new(Code::TokenInvalid, message)
}

/// Reads an algorithm's name; `Ed25519` is the name that RFC 9864 gives to `EdDSA` on that curve.
fn algorithm(name: &str) -> Option<Algorithm> {
    if name == "Ed25519" { Some(Algorithm::EdDSA) } else { name.parse().ok() }
}
